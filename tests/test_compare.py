"""The comparison: one contract for every model, fair runs, and the command."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from d2l_autorec import study, try_all_gpus
from d2l_autorec.commands import cli
from d2l_autorec.commands.compare import BEGIN, END, MODELS, QUICK_MODELS, main
from d2l_autorec.errors import DataError
from d2l_autorec.ratings import Ratings, load_dataset, load_folds_ml100k
from d2l_autorec.study import Score, estimators
from d2l_autorec.training import PRESETS

QUICK = ["--models", "mean,biases,mf", "--seeds", "0-1"]


@pytest.fixture
def ratings(small_data):
    return load_dataset("ml-100k")


@pytest.fixture(params=MODELS)
def model_class(request, monkeypatch):
    """Each of the models; smaller and shorter than they are."""
    monkeypatch.setattr(estimators.BookMF, "num_epochs", 4)
    for name, recipe in PRESETS.items():
        small = replace(
            recipe,
            num_hidden=8,
            num_epochs=4,
            pretrain_epochs=0,
            lr=0.05,
            batch_size=8,
        )
        monkeypatch.setitem(PRESETS, name, small)
    monkeypatch.setattr(estimators.EarlyStoppedAutoRec, "max_epochs", 6)
    found = getattr(estimators, MODELS[request.param])
    if found is estimators.BookAutoRec:
        return partial(found, recipe=PRESETS["book"])
    return found


def only_run(ratings, seed=0):
    (run,) = study.make_splits(ratings, "random", [seed])
    return run


def fitted(model_class, ratings, train_data, seed=0):
    model = model_class(ratings, try_all_gpus())
    epochs = list(model.fit(train_data, seed))
    return model, epochs


def changed(table, rows):
    """Copy ratings with those in `rows` turned around: 1 to 5, 2 to 4, and so on."""
    table = table.copy()
    table.loc[rows, "rating"] = 6 - table.loc[rows, "rating"]
    return table


# What every model has to do.


def test_a_changed_test_rating_changes_no_prediction(model_class, ratings):
    run = only_run(ratings)
    other_data = changed(ratings.data, run.test_data.index)
    other_ratings = Ratings(ratings.name, other_data)
    other_run = only_run(other_ratings)
    predictions = [
        fitted(model_class, *parts)[0].predict(run.test_data)
        for parts in ((ratings, run.train_data), (other_ratings, other_run.train_data))
    ]
    assert not other_run.test_data["rating"].equals(run.test_data["rating"])
    np.testing.assert_array_equal(*predictions)


def test_a_changed_training_rating_changes_predictions(model_class, ratings):
    run = only_run(ratings)
    other = changed(run.train_data, run.train_data.index[::3])
    before, after = (
        fitted(model_class, ratings, part)[0].predict(run.test_data)
        for part in (run.train_data, other)
    )
    assert not np.array_equal(before, after)


def test_the_same_seed_gives_the_same_predictions(model_class, ratings):
    run = only_run(ratings)
    once, again = (
        fitted(model_class, ratings, run.train_data)[0].predict(run.test_data)
        for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)


def test_every_pair_gets_a_prediction_of_its_own(model_class, ratings):
    # Without one user's and one item's ratings: both are cold then.
    run = only_run(ratings)
    cold = (run.train_data["user_id"] == 1) | (run.train_data["item_id"] == 2)
    model, _ = fitted(model_class, ratings, run.train_data[~cold])
    pairs = ratings.data.drop(columns="rating")
    predictions = model.predict(pairs)
    assert predictions.shape == (len(pairs),)
    assert np.isfinite(predictions).all()
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = model.predict(pairs.iloc[order])
    np.testing.assert_allclose(shuffled, predictions[order], rtol=1e-5)


def test_epochs_count_up_once_the_settings_are_chosen(model_class, ratings):
    _, epochs = fitted(model_class, ratings, only_run(ratings).train_data)
    trained = [epoch for epoch in epochs if epoch]
    assert trained == list(range(1, len(trained) + 1))
    assert epochs == [0] * (len(epochs) - len(trained)) + trained


def test_every_model_can_be_compared():
    concrete = {
        name
        for name, found in vars(estimators).items()
        if isinstance(found, type) and issubclass(found, estimators.Estimator)
    }
    assert set(MODELS.values()) == concrete - {"Estimator"}


# What each model is.


def table(*rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


TOY = table(("a", "x", 1.0), ("a", "y", 3.0), ("b", "x", 5.0))


def test_the_global_mean():
    model, _ = fitted(estimators.GlobalMean, Ratings("toy", TOY), TOY)
    assert model.predict(TOY).tolist() == [3.0] * 3
    assert model.num_parameters == 1


def test_biases_are_shrunk_means_of_what_is_left(monkeypatch):
    monkeypatch.setattr(estimators.Biases, "num_sweeps", 1)
    model, _ = fitted(estimators.Biases, Ratings("toy", TOY), TOY)
    x, y = (-2 + 2) / (2 + 10), 0 / (1 + 10)
    a, b = (-2 - x + 0 - y) / (2 + 15), (2 - x) / (1 + 15)
    assert model.predict(TOY) == pytest.approx([3 + a + x, 3 + a + y, 3 + b + x])
    assert model.num_parameters == 1 + 2 + 2


def test_biases_do_not_move_once_they_have_converged(ratings, monkeypatch):
    train_data = only_run(ratings).train_data
    found = []
    for sweeps in (50, 51):
        monkeypatch.setattr(estimators.Biases, "num_sweeps", sweeps)
        model, _ = fitted(estimators.Biases, ratings, train_data)
        found.append(model.predict(ratings.data))
    np.testing.assert_allclose(*found, atol=1e-9)


def test_the_books_models_have_the_books_size_and_epochs(ratings):
    train_data = only_run(ratings).train_data
    users, items = ratings.num_users, ratings.num_items
    mf, epochs = fitted(estimators.BookMF, ratings, train_data)
    assert epochs == list(range(1, 21))
    assert mf.num_parameters == 31 * (users + items)
    autorec, epochs = fitted(estimators.BookAutoRec, ratings, train_data)
    assert epochs == list(range(1, 26))
    assert autorec.num_parameters == 2 * users * 500 + users + 500


def test_stopping_early_chooses_on_a_part_and_trains_on_all(ratings, monkeypatch):
    train_data = only_run(ratings).train_data
    monkeypatch.setattr(estimators.EarlyStoppedAutoRec, "max_epochs", 6)
    monkeypatch.setattr(estimators.EarlyStoppedAutoRec, "patience", 2)
    searched = []

    def watched(epochs, patience):
        for epoch in original(epochs, patience):
            searched.append(epoch.valid_rmse)
            yield epoch

    original = estimators.stop_early
    monkeypatch.setattr(estimators, "stop_early", watched)
    model, epochs = fitted(estimators.EarlyStoppedAutoRec, ratings, train_data)
    assert epochs.count(0) == len(searched) <= 6
    assert epochs[-1] == 1 + int(np.argmin(searched))
    assert model.train_mat.nnz == len(train_data)


# What a run is, and a score.


class Steps(estimators.Estimator):
    """Predicts 1 after the first epoch and 2 after the second."""

    title, cold, num_parameters = "steps", "the same", 7

    def fit(self, train_data, seed):
        yield 0
        for self.epoch in (1, 2):
            yield self.epoch

    def predict(self, pairs):
        assert "rating" not in pairs
        return np.full(len(pairs), float(self.epoch))


def test_a_score_is_pooled_over_the_test_ratings():
    test_data = table(("a", "x", 1.0), ("a", "y", 4.0))
    seen = []
    split = study.Split("r", 0, TOY, test_data)
    found = study.score(Steps(None, []), split, seen.append)
    assert found.rmse == pytest.approx(((1 + 4) / 2) ** 0.5)
    assert found.mae == pytest.approx((1 + 2) / 2)
    assert found.curve == pytest.approx([(9 / 2) ** 0.5, found.rmse])
    assert found.num_parameters == 7
    assert seen == [0, 1, 2]


def test_cold_users_and_items_are_named_and_their_ratings_counted():
    test_data = table(
        ("a", "z", 1.0), ("c", "x", 1.0), ("c", "z", 2.0), ("b", "y", 3.0)
    )
    run = study.Split("r", 0, TOY, test_data)
    assert run.cold() == {"users": ["c"], "items": ["z"]}
    assert run.num_cold_ratings() == 3


def test_another_seed_is_another_split(ratings):
    first, second = study.make_splits(ratings, "random", [0, 1])
    assert not first.test_data.equals(second.test_data)
    assert only_run(ratings, 1).test_data.equals(second.test_data)


def test_the_newest_ratings_are_the_same_for_every_seed(ratings):
    first, second = study.make_splits(ratings, "seq-aware", [0, 1])
    assert len(first.test_data) == ratings.num_users
    assert first.test_data.equals(second.test_data)
    assert (first.seed, second.seed) == (0, 1)


@pytest.fixture
def folds(small_data):
    """Write u1 to u5 beside the small u.data: every fifth rating is a fold's test."""
    lines = (small_data / "ml-100k" / "u.data").read_text().splitlines(keepends=True)
    for fold in range(5):
        for ending, part in (("test", True), ("base", False)):
            rows = [x for n, x in enumerate(lines) if (n % 5 == fold) == part]
            file = small_data / "ml-100k" / f"u{fold + 1}.{ending}"
            file.write_text("".join(rows))
    return len(lines)


def test_the_folds_are_read_as_they_are(ratings, folds):
    runs = list(study.make_splits(ratings, "u1-u5", [3]))
    assert [run.name for run in runs] == [f"u{k}, seed 3" for k in range(1, 6)]
    tested = pd.concat([run.test_data for run in runs])
    assert len(tested) == folds
    assert not tested.duplicated(["user_id", "item_id"]).any()
    assert all(len(r.train_data) + len(r.test_data) == folds for r in runs)


def test_the_real_folds_have_their_published_sizes(real_ml_100k):
    folds = load_folds_ml100k()
    assert [(len(a), len(b)) for a, b in folds] == [(80_000, 20_000)] * 5


def test_other_data_has_no_folds(small_data):
    toy = Ratings("ml-1m", TOY)
    with pytest.raises(DataError, match="ml-1m has none"):
        list(study.make_splits(toy, "u1-u5", [0]))


def test_the_table_pairs_the_runs():
    def scores(*rmse):
        return [Score(r, r / 2, [], 1.0, 1234) for r in rmse]

    text = study.results_table(
        {"mf": scores(1.0, 0.8), "autorec": scores(0.9, 0.9)},
        {"mf": "MF", "autorec": "AutoRec"},
    )
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.split("\n")
    ]
    assert rows[2] == ["MF", "0.900 ± 0.141", "0.450 ± 0.071", "", "", "1,234", "1.0"]
    gap = ["0.900 ± 0.000", "0.450 ± 0.000", "+0.000 ± 0.141", "1/2"]
    assert rows[3] == ["AutoRec", *gap, "1,234", "1.0"]
    assert len({len(line) for line in text.split("\n")}) == 1


def test_one_run_has_no_deviation_and_without_mf_there_is_no_difference():
    found = {"autorec": [Score(0.9, 0.7, [], 1.0, 1)]}
    row = study.results_table(found, {"autorec": "AutoRec"}).split("\n")[2]
    assert [c.strip() for c in row.strip("|").split("|")][1:5] == [
        "0.900",
        "0.700",
        "",
        "",
    ]


# The command.


@pytest.fixture
def command(capsys, monkeypatch):
    """Run the command in-process, its MF shorter: exit code, output and error."""
    monkeypatch.setattr(estimators.BookMF, "num_epochs", 3)

    def run(*argv):
        with pytest.raises(SystemExit) as stopped:
            cli.run(lambda: main([str(a) for a in argv]))
        return (stopped.value.code, *capsys.readouterr())

    return run


def without_seconds(out):
    return re.sub(r" +[\d.]+ \|$", "", out, flags=re.MULTILINE)


def test_it_prints_the_table_and_what_it_stands_for(small_data, command):
    code, out, err = command(*QUICK)
    assert code == 0
    for name in ("global mean", "biases", "MF (book)"):
        assert f"\n| {name} " in out
    assert "0/2 |" in out or "1/2 |" in out or "2/2 |" in out
    assert "No prediction is clipped" in out
    assert "Cold in the test part" in out
    assert "- seed 1: " in out
    assert "Not comparable with the table" in out
    assert "7/7" in err


def test_the_same_seeds_give_the_same_table(small_data, command):
    once, again = (command(*QUICK, "--quiet")[1] for _ in range(2))
    assert without_seconds(once) == without_seconds(again)
    other = command("--models", "mean", "--seeds", "2", "--quiet")[1]
    assert without_seconds(other) != without_seconds(once)


def test_every_model_meets_the_same_runs(small_data, command, monkeypatch):
    met = []

    def score(model, run, tick):
        met.append((type(model).__name__, run.name, run.seed, id(run)))
        return Score(1.0, 1.0, [1.0], 0.0, 1)

    monkeypatch.setattr(study, "score", score)
    monkeypatch.setattr(study, "book_protocol", lambda *_: {"averaged": 1, "pooled": 1})
    assert command("--seeds", "3,5", "--quiet")[0] == 0
    assert [m[0] for m in met] == [MODELS[name] for name in QUICK_MODELS] * 2
    assert [m[1:3] for m in met] == [("seed 3", 3)] * 5 + [("seed 5", 5)] * 5
    assert len({m[3] for m in met[:5]}) == len({m[3] for m in met[5:]}) == 1


def test_quiet_shows_no_progress(small_data, command):
    code, out, err = command(*QUICK, "--quiet")
    assert (code, err) == (0, "")
    assert out.startswith("ml-100k, not as published, random split, seeds 0-1:\n")


def test_the_json_report_holds_every_score(small_data, command, tmp_path):
    file = tmp_path / "report.json"
    _, out, _ = command(*QUICK, "--json", file)
    report = json.loads(file.read_text())
    assert (report["seeds"], report["splits"], report["clipped"]) == (
        [0, 1],
        "random",
        [],
    )
    assert [run["name"] for run in report["runs"]] == ["seed 0", "seed 1"]
    mf = report["models"]["mf"]["scores"]
    assert [len(score["curve"]) for score in mf] == [3, 3]
    mean = np.mean([score["rmse"] for score in mf])
    assert f"| {mean:.3f} ± " in out
    assert f"{report['book_protocol']['averaged']:.3f} here" in out


def test_the_best_recipe_is_said_to_be_clipped(
    small_data, command, tmp_path, monkeypatch
):
    small = replace(PRESETS["best"], num_hidden=8, num_epochs=2, pretrain_epochs=0)
    monkeypatch.setitem(PRESETS, "best", small)
    file = tmp_path / "report.json"
    models = ["--models", "mean,autorec-best", "--seeds", "0"]
    code, out, _ = command(*models, "--json", file)
    assert code == 0
    assert "clipped to the rating scale, but for those of AutoRec (best)" in out
    assert json.loads(file.read_text())["clipped"] == ["autorec-best"]


def test_ids_that_numpy_holds_can_be_written(small_data, folds, command, tmp_path):
    # Fold u1 without one item's training ratings: that item is cold.
    base = small_data / "ml-100k" / "u1.base"
    item = (small_data / "ml-100k" / "u1.test").read_text().split("\t")[1]
    lines = base.read_text().splitlines(keepends=True)
    base.write_text("".join(x for x in lines if x.split("\t")[1] != item))
    file = tmp_path / "report.json"
    code, out, _ = command("--models", "mean", "--splits", "u1-u5", "--json", file)
    assert code == 0
    assert int(item) in json.loads(file.read_text())["runs"][0]["cold"]["items"]
    assert re.search(rf"- u1, seed 0: .*\b{item}\b", out)


def test_markdown_goes_between_the_markers(small_data, command, tmp_path):
    file = tmp_path / "README.md"
    file.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    _, out, _ = command(*QUICK, "--quiet", "--markdown", file)
    assert file.read_text() == f"before\n\n{BEGIN}\n\n{out}\n{END}\n\nafter\n"


def test_a_new_markdown_file_can_be_written_again(small_data, command, tmp_path):
    file = tmp_path / "results.md"
    command("--models", "mean", "--seeds", "0", "--quiet", "--markdown", file)
    first = file.read_text()
    code, out, _ = command(*QUICK, "--quiet", "--markdown", file)
    assert code == 0
    assert out in file.read_text()
    assert first.split("\n")[2] not in file.read_text()


def test_a_file_without_markers_is_left_alone(small_data, command, tmp_path):
    file = tmp_path / "README.md"
    file.write_text("mine\n")
    code, _, err = command(*QUICK, "--markdown", file)
    assert code == 2
    assert "has no lines" in err
    assert file.read_text() == "mine\n"


@pytest.mark.parametrize("output", ["--markdown", "--json", "--plot"])
def test_generated_ratings_replace_no_result(command, offline, tmp_path, output):
    kept = tmp_path / "kept.png"
    kept.write_text(f"{BEGIN}\nof real ratings\n{END}\n")
    code, out, err = command("--models", "mean", "--quiet", output, kept)
    assert code == 1
    assert "RMSE" not in out
    assert f"{kept} is there, and results of generated ratings replace it only" in err
    assert err.count("\n") == 1
    assert "of real ratings" in kept.read_text()


def test_generated_ratings_go_into_a_new_file(command, offline, tmp_path):
    file = tmp_path / "new.md"
    flags = ["--models", "mean", "--seeds", "0", "--quiet", "--markdown", file]
    assert command(*flags)[0] == 0
    assert "synthetic-100k" in file.read_text()
    # Asked for by name, they replace it.
    assert command(*flags, "--dataset", "synthetic-100k")[0] == 0


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_plot_is_written(small_data, command, tmp_path, ending):
    file = tmp_path / f"chart.{ending}"
    assert command(*QUICK, "--plot", file)[0] == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert file.read_bytes().startswith(start)


def test_the_chart_shows_every_run_and_every_mean():
    from d2l_autorec.study import comparison_chart

    figure = comparison_chart(
        {"flat": [1.0, 1.2], "trained": [0.8, 0.9]},
        {"flat": [[], []], "trained": [[1.0, 0.9, 0.8], [1.1, 0.9]]},
    )
    bars, lines = figure.axes
    ends = [bar.get_x() + bar.get_width() for bar in bars.patches]
    assert ends == pytest.approx([1.1, 0.85])
    assert [t.get_text() for t in bars.get_yticklabels()] == ["flat", "trained"]
    assert [t.get_text() for t in bars.texts] == ["1.100 ± 0.141", "0.850 ± 0.071"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in lines.lines}
    assert drawn["trained"] == pytest.approx([1.05, 0.9])
    assert drawn["flat"] == pytest.approx([1.1, 1.1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "svd"], "'svd' is not one of mean, biases, mf, autorec"),
        (["--models", ""], "--models: is empty; is a variable not set?"),
        (["--seeds", "4-0"], "'4-0' counts down"),
        (["--seeds", "0-2147483647"], "'0-2147483647' is more than 1,000 seeds"),
        (["--seeds", "0-" + 5000 * "9"], "' is not a whole number from 0"),
        (["--seeds", "x"], "'x' is not a seed or a range"),
        (["--seeds", "0-"], "'0-' is not a seed or a range"),
        (["--seeds", "-1"], "'-1' is not a seed or a range"),
        (["--splits", "u1"], "invalid choice: 'u1'"),
        (["--plot", "chart.txt"], "does not end in .png, .svg or .pdf"),
        (["--json", "no/such/folder/r.json"], "no/such/folder is not a folder"),
        (["--markdown", "no/such/folder/r.md"], "no/such/folder is not a folder"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(command, flags, message):
    code, out, err = command(*flags)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_folds_of_other_data_are_one_line_and_exit_code_1(command):
    code, _, err = command(
        *("--dataset", "synthetic-100k", "--splits", "u1-u5"),
        *("--models", "mean", "--quiet"),
    )
    assert code == 1
    assert err == "error: the folds u1-u5 are ml-100k's; synthetic-100k has none\n"


def test_missing_folds_are_one_line_and_exit_code_1(small_data, command):
    code, _, err = command("--splits", "u1-u5", "--models", "mean", "--quiet")
    assert code == 1
    assert err.startswith("error: ")
    assert "u1.base: no such file" in err
    assert err.count("\n") == 1


def test_seeds_are_listed_once():
    assert cli.seeds("0-2,1,7") == [0, 1, 2, 7]
