"""The comparison: one contract for every model, fair runs, and the command."""

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2l_autorec import study, try_all_gpus
from d2l_autorec.commands.compare import BEGIN, END
from d2l_autorec.errors import DataError
from d2l_autorec.ratings import (
    load_dataset,
    load_folds_ml100k,
    ratings_from_frame,
    read_parts,
)
from d2l_autorec.study import Score, estimators
from d2l_autorec.study.contenders import TUNED
from d2l_autorec.training import PRESETS, Biases, Recipe, Training

QUICK = ["--models", "mean,biases,mf", "--seeds", "0-1"]


@pytest.fixture
def ratings(small_data):
    return load_dataset("ml-100k")


# Each model once, those that take long made short; a preset is like another.
SHORT = {
    "autorec-early": "autorec-early:num_hidden=8:num_epochs=6:lr=0.05:batch_size=8",
    "biased-mf": "biased-mf:num_factors=3:wd=1:num_epochs=5",
    "llorma": "llorma:num_anchors=3:num_epochs=3",
    "mf": "mf:num_epochs=4",
    "rbm": "rbm:num_hidden=3:num_epochs=3",
}
CONTENDERS = [SHORT.get(name, name) for name in study.MODELS if name != "paper"]


@pytest.fixture(params=CONTENDERS)
def model_class(request, monkeypatch):
    """Each of the models; smaller and shorter than they are."""
    for name, recipe in PRESETS.items():
        small = recipe.changed(
            num_hidden=8,
            num_epochs=4,
            pretrain_epochs=0,
            lr=0.05,
            batch_size=8,
        )
        monkeypatch.setitem(PRESETS, name, small)
    return study.Contender.parse(request.param).make


def only_run(ratings, seed=0):
    (run,) = study.make_splits(ratings, "random", [seed])
    return run


def fitted(model_class, ratings, train_rows, seed=0):
    model = model_class(ratings, try_all_gpus())
    epochs = list(model.fit(train_rows, seed))
    return model, epochs


def changed(ratings, rows):
    """Copy ratings with those in `rows` turned around: 1 to 5, 2 to 4, and so on."""
    rating = ratings.rating.copy()
    rating[rows] = 6 - rating[rows]
    return replace(ratings, rating=rating)


# What every model has to do.


def test_a_changed_test_rating_changes_no_prediction(model_class, ratings):
    run = only_run(ratings)
    other = changed(ratings, run.test_rows)
    predictions = [
        fitted(model_class, table, run.train_rows)[0].predict(run.test_rows)
        for table in (ratings, other)
    ]
    np.testing.assert_array_equal(*predictions)


def test_a_changed_training_rating_changes_predictions(model_class, ratings):
    run = only_run(ratings)
    other = changed(ratings, run.train_rows[::3])
    before, after = (
        fitted(model_class, table, run.train_rows)[0].predict(run.test_rows)
        for table in (ratings, other)
    )
    assert not np.array_equal(before, after)


# All presets, and candidates that choose something themselves.
EVERY = [*CONTENDERS, "paper", "best:num_epochs=2/3"]


@pytest.mark.parametrize("model_class", EVERY, indirect=True)
def test_a_run_leaves_nothing_for_the_next_one(model_class, ratings):
    def settings(model):
        given = {f.name: getattr(model, f.name) for f in fields(model) if f.init}
        candidates = given.pop("candidates", {}).items()
        return given, [(name, settings(one)) for name, one in candidates]

    model = model_class(ratings, try_all_gpus())
    before = settings(model)
    for run in study.make_splits(ratings, "random", [0, 1]):
        list(model.fit(run.train_rows, run.seed))
    alone, _ = fitted(model_class, ratings, run.train_rows, run.seed)
    found, expected = (one.predict(run.test_rows) for one in (model, alone))
    np.testing.assert_array_equal(found, expected)
    assert settings(model) == before


def test_every_pair_gets_a_prediction_of_its_own(model_class, ratings):
    # Without one user's and one item's ratings: both are cold then.
    run = only_run(ratings)
    users, items = ratings.indices(run.train_rows)
    model, _ = fitted(model_class, ratings, run.train_rows[(users != 0) & (items != 1)])
    predictions = model.predict(np.arange(ratings.num_ratings))
    assert predictions.shape == (ratings.num_ratings,)
    assert np.isfinite(predictions).all()
    order = np.random.default_rng(0).permutation(ratings.num_ratings)
    shuffled = model.predict(order)
    np.testing.assert_allclose(shuffled, predictions[order], rtol=1e-5)


def test_epochs_count_up_once_the_settings_are_chosen(model_class, ratings):
    _, epochs = fitted(model_class, ratings, only_run(ratings).train_rows)
    trained = [epoch for epoch in epochs if epoch]
    assert trained == list(range(1, len(trained) + 1))
    assert epochs == [0] * (len(epochs) - len(trained)) + trained


def test_the_settings_of_a_model_are_all_there(model_class, ratings):
    model = model_class(ratings, [])
    found = json.loads(json.dumps(model.settings))
    given = {field.name for field in fields(model) if field.init}
    assert given - {"ratings", "devices"} <= found.keys()


def test_every_model_can_be_compared():
    concrete = {
        name
        for name in study.__all__
        if isinstance(found := getattr(study, name), type)
        and issubclass(found, study.Estimator)
    }
    assert set(study.MODELS.values()) == concrete - {
        *("Estimator", "GridSearch", "PaperProtocol")
    }


# What each model is.


def table(*rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


TOY = ratings_from_frame(
    table(("a", "x", 1.0), ("a", "y", 3.0), ("b", "x", 5.0)), name="toy"
)
ALL = np.arange(3)


def test_the_global_mean():
    model, _ = fitted(estimators.GlobalMean, TOY, ALL)
    assert model.predict(ALL).tolist() == [3.0] * 3
    assert model.num_parameters == 1


def test_biases_are_shrunk_means_of_what_is_left(monkeypatch):
    monkeypatch.setattr(Biases, "num_sweeps", 1)
    model, _ = fitted(estimators.Biases, TOY, ALL)
    x, y = (-2 + 2) / (2 + 10), 0 / (1 + 10)
    a, b = (-2 - x + 0 - y) / (2 + 15), (2 - x) / (1 + 15)
    assert model.predict(ALL) == pytest.approx([3 + a + x, 3 + a + y, 3 + b + x])
    assert model.num_parameters == 1 + 2 + 2


def test_the_books_models_have_the_books_size_and_epochs(ratings):
    train_rows = only_run(ratings).train_rows
    users, items = ratings.num_users, ratings.num_items
    mf, epochs = fitted(estimators.BookMF, ratings, train_rows)
    assert epochs == list(range(1, 21))
    assert mf.num_parameters == 31 * (users + items)
    autorec, epochs = fitted(estimators.BookAutoRec, ratings, train_rows)
    assert epochs == list(range(1, 26))
    assert autorec.num_parameters == 2 * users * 500 + users + 500


def test_stopping_early_chooses_on_a_part_and_trains_on_all(ratings, monkeypatch):
    train_rows = only_run(ratings).train_rows
    monkeypatch.setattr(estimators.EarlyStoppedAutoRec, "patience", 2)
    searched, sizes, epochs_of = [], [], Training.epochs

    def watched(training):
        sizes.append(training.run.parts.train_mat.nnz)
        for epoch in epochs_of(training):
            if epoch.valid_rmse is not None:
                searched.append(epoch.valid_rmse)
            yield epoch

    monkeypatch.setattr(Training, "epochs", watched)
    short = study.Contender.parse("autorec-early:num_epochs=6").make
    model, epochs = fitted(short, ratings, train_rows)
    assert epochs.count(0) == len(searched) <= 6
    assert epochs[-1] == 1 + int(np.argmin(searched))
    assert sizes[0] < sizes[-1] == len(train_rows)


# What a run is, and a score.


class Steps(estimators.Estimator):
    """Predicts 1 after the first epoch and 2 after the second."""

    title, num_parameters = "steps", 7

    def fit(self, train_rows, seed):
        yield 0
        for self.epoch in (1, 2):
            yield self.epoch

    def predict(self, rows):
        return np.full(len(rows), float(self.epoch))


def test_a_score_is_pooled_over_the_test_ratings():
    ratings = replace(TOY, rating=np.array([1, 4, 5], np.float32))
    seen = []
    split = study.Split("r", 0, ratings, ALL[2:], ALL[:2])
    found = study.score(Steps(ratings, []), split, seen.append)
    rmse, mae = ((1 + 4) / 2) ** 0.5, (1 + 2) / 2
    assert found.measures == pytest.approx({"rmse": rmse, "mae": mae})
    assert found.curve == pytest.approx([(9 / 2) ** 0.5, rmse])
    assert found.num_parameters == 7
    assert seen == [0, 1, 2]


def test_cold_users_and_items_are_named_and_their_ratings_counted():
    tested = ("a", "z", 1.0), ("c", "x", 1.0), ("c", "z", 2.0), ("b", "y", 3.0)
    both = pd.concat([TOY.data, table(*tested)])
    rows = np.split(np.arange(7), [3])
    run = study.Split("r", 0, ratings_from_frame(both), *rows)
    assert run.cold() == {"users": ["c"], "items": ["z"], "ratings": 3}


def test_another_seed_is_another_split(ratings):
    first, second = study.make_splits(ratings, "random", [0, 1])
    assert not np.array_equal(first.test_rows, second.test_rows)
    assert np.array_equal(only_run(ratings, 1).test_rows, second.test_rows)


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
    for number, run in enumerate(runs):
        assert run.test_rows.tolist() == list(range(number, folds, 5))
        assert not set(run.test_rows) & set(run.train_rows)
        assert len(run.train_rows) + len(run.test_rows) == folds


def test_the_real_folds_have_their_published_sizes(real_ml_100k):
    folds = load_folds_ml100k()
    assert [(len(a), len(b)) for a, b in folds] == [(80_000, 20_000)] * 5


def scores_of(*rmse):
    return [Score({"rmse": r, "mae": r / 2}, [], 1.0, 1234) for r in rmse]


def test_the_table_pairs_the_runs():
    scores = {"mf": scores_of(1.0, 0.8, 0.9), "autorec": scores_of(0.9, 0.9, 0.8)}
    text = study.results_table(scores, {"mf": "MF", "autorec": "AutoRec"}, "mf")
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.split("\n")
    ]
    assert rows[0][3:5] == ["RMSE against MF", "won"]
    assert rows[2] == ["MF", "0.900 ± 0.100", "0.450 ± 0.050", "", "", "1,234", "1.0"]
    # The differences -0.1, 0.1 and -0.1 have the mean -1/30 and the deviation
    # sqrt((2 * (2/30)**2 + (4/30)**2) / 2) = 0.11547; over the root of 3 that is 1/15,
    # times the 4.3027 of Student's t with 2 degrees of freedom 0.28684.
    gap = ["-0.033 (-0.320 to +0.254)", "2/3"]
    assert rows[3] == [
        "AutoRec",
        "0.867 ± 0.058",
        "0.433 ± 0.029",
        *gap,
        "1,234",
        "1.0",
    ]
    assert len({len(line) for line in text.split("\n")}) == 1


def test_of_some_measures_the_higher_value_wins():
    assert study.against([0.3], [0.2], "+.4f", lower_is_better=False) == (
        "+0.1000",
        "1/1",
    )


def test_the_rival_is_the_best_simple_model():
    scores = {
        "book": scores_of(0.1),
        "biases": scores_of(0.9, 0.9),
        "mf:num_factors=9": scores_of(1.0, 0.7),
    }
    assert study.best_simple(scores) == "mf:num_factors=9"
    assert study.best_simple({"book": scores_of(0.1)}) is None


# Models by name, with their settings.


def test_settings_are_read_in_the_kind_of_the_setting():
    (make,) = study.Contender.parse(
        "best:num_hidden=20x10x20:lr=1e-3:clip=false:cold=net:kind=user:wd=auto"
    ).candidates.values()
    recipe = make(None, []).recipe
    assert recipe == PRESETS["best"].changed(
        **{"num_hidden": (20, 10, 20), "lr": 0.001, "clip": False, "cold": None},
        kind="user",
    )
    (make,) = study.Contender.parse("book:members=3").candidates.values()
    assert make(None, []).recipe == Recipe().averaged(3)
    (make,) = study.Contender.parse(
        "rbm:num_hidden=7:kind=user:wd=0"
    ).candidates.values()
    model = make(None, [])
    assert (model.num_hidden, model.kind, model.wd) == (7, "user", 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("svd", "'svd' is not one of mean, biases, mf, biased-mf, "),
        ("book:layers=2", "book has no setting 'layers'; it has num_hidden, kind, "),
        ("mean:wd=1", "mean has no setting 'wd'"),
        ("book:num_hidden=0", "book:num_hidden='0' is not a whole number from 1"),
        ("book:num_hidden=2/", "book:num_hidden='' is not a whole number from 1"),
        ("book:clip=1", "book:clip='1' is not one of"),
        ("book:optimizer=x", "book:optimizer='x' is not one of adam, adadelta"),
        ("book:wd=auto", "the book loss needs a weight decay"),
        ("rbm:kind=all", "rbm:kind='all' is not one of item, user"),
        ("llorma:width=wide", "llorma:width='wide' is not a number above 0"),
        ("biased-mf:num_factors=1.5", "'1.5' is not a whole number from 1"),
        ("rbm:num_hidden=10x20", "rbm:num_hidden='10x20' is not a whole number from 1"),
        ("rbm:batch_size=all", "rbm:batch_size='all' is not a whole number from 1"),
        ("mf:wd=none", "mf:wd='none' is not a number from 0"),
        ("no.module:Model", "no.module:Model: No module named 'no'"),
        ("json.decoder:Model", "module 'json.decoder' has no attribute 'Model'"),
        ("json:JSONDecoder", "json:JSONDecoder is not a d2l_autorec.study.Estimator"),
    ],
)
def test_settings_that_do_not_fit_are_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        study.Contender.parse(text)


def test_a_grid_has_a_candidate_for_each_combination():
    found = study.Contender.parse("book:lr=0.1/0.2:wd=0/1").candidates
    assert list(found) == [
        *("lr=0.1, wd=0", "lr=0.1, wd=1", "lr=0.2, wd=0", "lr=0.2, wd=1")
    ]
    # What is tuned by default is no longer, once it is given.
    assert len(study.Contender.parse("biased-mf").candidates) > 1
    tuned = study.Contender.parse("biased-mf:wd=1:num_factors=2").candidates
    assert list(tuned) == ["num_factors=2, wd=1"]


class Guess(estimators.Estimator):
    """Predicts what it was made with, and remembers what it was trained on."""

    title, num_parameters = "guess", 1
    guess = 0.0

    def fit(self, train_rows, seed):
        self.trained = len(train_rows)
        yield 1

    def predict(self, rows):
        return np.full(len(rows), self.guess)


def test_a_grid_search_chooses_on_a_tenth_and_trains_on_all():
    items = np.arange(40) % 2
    data = pd.DataFrame({"user_id": range(40), "item_id": items, "rating": 3.0})
    ratings = ratings_from_frame(data)
    guesses = {str(value): Guess(None, []) for value in (np.nan, 1.0, 2.5, 4.0)}
    for name, model in guesses.items():
        model.guess = float(name)
    search = study.GridSearch(ratings, [], guesses)
    assert search.title == "guess"
    assert list(search.fit(np.arange(40), 0)) == [0, 0, 0, 0, 1]
    assert search.chosen == "2.5"
    assert search.errors == {"nan": np.inf, "1.0": 2.0, "2.5": 0.5, "4.0": 1.0}
    assert [m.trained for m in guesses.values()] == [36, 36, 40, 36]
    assert search.predict(np.arange(40)).tolist() == [2.5] * 40


# Rankings.


def test_rankings_are_those_of_the_formula():
    users, _, rating = zip(
        *[("a", item, rating) for item, rating in zip("pqrs", (5.0, 1.0, 4.0, 2.0))],
        *[("b", item, 4.0) for item in "pq"],
        ("c", "p", 1.0),  # none of whose items is relevant
    )
    predictions = np.array([1.0, 4.0, 3.0, 2.0, 1.0, 2.0, 5.0])
    found = study.ranking(predictions, np.array(users), np.array(rating) >= 3, 0)
    # a: relevant are places 2 and 4 of 4; b: both of 2.
    gain = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert found["NDCG@10"] == pytest.approx((gain + 1) / 2)
    assert found["recall@10"] == 1
    assert found["precision@10"] == pytest.approx((2 / 4 + 1) / 2)


def test_only_ten_places_count():
    user, relevant = np.zeros(20, int), np.arange(20) < 15
    best_last = study.ranking(np.arange(20.0), user, relevant, 0)
    assert best_last["recall@10"] == pytest.approx(5 / 15)
    assert best_last["precision@10"] == pytest.approx(5 / 10)
    ideal = (1 / np.log2(np.arange(2, 12))).sum()
    gain = (1 / np.log2(np.arange(7, 12))).sum()
    assert best_last["NDCG@10"] == pytest.approx(gain / ideal)
    best_first = study.ranking(-np.arange(20.0), user, relevant, 0)
    assert best_first["NDCG@10"] == pytest.approx(1)
    assert best_first["precision@10"] == 1


def test_equal_predictions_have_no_order_of_their_own():
    user, relevant = np.zeros(1000, int), np.arange(1000) < 10
    found = study.ranking(np.zeros(1000), user, relevant, 0)
    assert found["precision@10"] < 0.5
    with pytest.raises(DataError, match="no item is relevant"):
        study.ranking(np.zeros(1000), user, relevant & False, 0)


# Folds.


def test_each_rating_is_held_out_once(ratings):
    runs = list(study.make_splits(ratings, "4-fold", [3]))
    assert [run.name for run in runs] == [f"fold {n}, seed 3" for n in (1, 2, 3, 4)]
    tested = np.concatenate([run.test_rows for run in runs])
    assert np.sort(tested).tolist() == list(range(ratings.num_ratings))
    sizes = [len(run.test_rows) for run in runs]
    assert max(sizes) - min(sizes) < 2
    for run in runs:
        assert len(run.train_rows) + len(run.test_rows) == ratings.num_ratings
    again = list(study.make_splits(ratings, "4-fold", [3]))
    assert all(np.array_equal(a.test_rows, b.test_rows) for a, b in zip(runs, again))
    (other, *_) = study.make_splits(ratings, "4-fold", [4])
    assert not np.array_equal(other.test_rows, runs[0].test_rows)


def test_fewer_ratings_than_folds_are_refused():
    with pytest.raises(DataError, match="3 ratings are too few for 4 folds"):
        list(study.make_splits(TOY, "4-fold", [0]))


# The command.

SCORE = Score({"rmse": 1.0, "mae": 1.0}, [1.0], 0.0, 1)


@pytest.fixture
def compare(command, monkeypatch, tmp_path):
    """Compare, with a shorter MF: what is printed, and the JSON report."""
    monkeypatch.setitem(TUNED, "mf", {"num_epochs": "3"})

    def compare(*flags):
        file = tmp_path / "r.json"
        code, out, err = command("compare", *flags, "--quiet", "--json", file)
        assert (code, err) == (0, "")
        return out, json.loads(file.read_text())

    return compare


def test_it_prints_the_table_and_what_it_stands_for(small_data, compare):
    out, report = compare(*QUICK)
    assert out.startswith("ml-100k, not as published, random split, seeds 0-1:\n")
    for name in ("global mean", "biases", "MF (book)"):
        assert f"\n| {name} " in out
    assert re.search(r"\d to [+-]\d\.\d{3}\) \| [012]/2 \|", out)
    means = {
        name: np.mean([score["rmse"] for score in model["scores"]])
        for name, model in report["models"].items()
    }
    assert report["against"] == min(means, key=means.get)
    for note in (
        "No prediction is clipped",
        "which is too narrow as the parts of the runs overlap; won are the runs in "
        "which a model's RMSE is below that of ",
        "No user or item of a test part is cold.",
        f"{report['book_protocol']['averaged']:.3f} here",
        "--dataset ml-100k --splits random --seeds 0-1 --models mean,biases,mf`",
    ):
        assert note in out
    found = [report[name] for name in ("seeds", "splits", "clipped")]
    assert found == [[0, 1], "random", []]
    assert [run["name"] for run in report["runs"]] == ["seed 0", "seed 1"]
    mf = report["models"]["mf"]["scores"]
    assert [len(score["curve"]) for score in mf] == [3, 3]
    assert f"| {np.mean([score['rmse'] for score in mf]):.3f} ± " in out
    # The same seeds give the same table, but for the seconds.
    again, once = (
        re.sub(r" +[\d.]+ \|$", "", text, flags=re.MULTILINE)
        for text in (compare(*QUICK)[0], out)
    )
    assert again == once
    _, other = compare("--models", "mean", "--seeds", "2")
    rmse, *others = (
        score["rmse"]
        for r in (other, report)
        for score in r["models"]["mean"]["scores"]
    )
    assert rmse not in others


def test_models_are_set_beside_the_one_that_is_named(small_data, compare, command):
    flags = ["--models", "mean,biases", "--seeds", "0-1", "--against"]
    out, report = compare(*flags, "mean")
    assert " RMSE against global mean |" in out
    assert "--against mean`" in out
    assert report["against"] == "mean"
    for name, said in (("mf", "is not one of --models"), ("nobody", "'nobody'")):
        code, _, err = command("compare", *flags, name)
        assert code == 2
        assert said in err


def test_a_model_of_ones_own_is_compared_as_the_page_says(
    small_data, compare, tmp_path, monkeypatch
):
    page = Path(__file__).parents[1] / "docs" / "for-researchers.md"
    codes = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    (code,) = (code for code in codes if "class ItemMean" in code)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "models.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    name = "mine.models:ItemMean:damping=5"
    out, report = compare("--models", f"mean,{name}", "--seeds", "0")
    assert report["models"][name]["settings"]["damping"] == 5
    assert "| ItemMean, damping=5 " in out


def test_every_model_meets_the_same_runs(small_data, compare, monkeypatch):
    met = []

    def score(model, run, tick, ranked):
        met.append((type(model).__name__, run.name, run.seed, id(run)))
        return SCORE

    monkeypatch.setattr(study, "score", score)
    monkeypatch.setattr(study, "book_protocol", lambda *_: {"averaged": 1, "pooled": 1})
    compare("--seeds", "3,5,3")
    names = ["GlobalMean", "Biases", "BookMF", "BookAutoRec", "EarlyStoppedAutoRec"]
    assert [m[0] for m in met] == names * 2
    assert [m[1:3] for m in met] == [("seed 3", 3)] * 5 + [("seed 5", 5)] * 5
    assert len({m[3] for m in met[:5]}) == len({m[3] for m in met[5:]}) == 1


@pytest.fixture
def files(tmp_path):
    """Ratings of 20 users, and held-out ones, of one user more."""
    rng = np.random.default_rng(0)
    rows = [(u, i, rng.integers(1, 6)) for u in range(20) for i in range(10)]
    held_out = [*rows[::7], ("new", 3, 4)]
    paths = tmp_path / "mine.csv", tmp_path / "held-out.csv"
    for path, part in zip(paths, (set(rows) - set(held_out), held_out)):
        lines = ("{},{},{}\n".format(*row) for row in sorted(part, key=str))
        path.write_text("user,item,rating\n" + "".join(lines))
    return paths


def test_ratings_of_ones_own_are_cross_validated(files, compare):
    asked = "--ratings", files[0], "--splits", "3-fold", "--models", "biases,mf"
    out, report = compare(*asked, "--ranking")
    assert out.startswith("mine.csv, 3-fold split, seed 0:\n")
    header = next(line for line in out.split("\n") if line.startswith("| model"))
    assert "NDCG@10 |" in header
    assert "protocol TestRatings" in out and "the book trains its MF" not in out
    assert f"--ratings {files[0]} --splits 3-fold --seeds 0 --ranking" in out
    scores = report["models"]["biases"]["scores"]
    assert len(scores) == 3
    assert {"rmse", "mae", "NDCG@10", "recall@10", "precision@10"} < scores[0].keys()


def test_the_test_part_may_be_a_file(files, compare):
    models = "mean,book:num_hidden=3:num_epochs=2/3"
    asked = "--ratings", files[0], "--test-ratings", files[1], "--models", models
    out, _ = compare(*asked)
    assert f"mine.csv, tested on {files[1]}, seed 0:" in out
    assert "- seed 0: 1 users; 1 ratings" in out
    assert "\n| AutoRec (book), num_hidden=3, num_epochs=2/3 |" in out
    chosen = "chosen on a tenth of the training ratings, then trained again on all"
    assert re.search(rf"num_hidden=3, num_epochs=[23]; {chosen}", out)
    tested, trained = (pd.read_csv(files[n])["rating"] for n in (1, 0))
    error = np.sqrt(np.mean((tested - trained.mean()) ** 2))
    assert re.search(rf"\| global mean +\| +{error:.3f} \|", out)


# What a cold user or item gets is a rule, or what a network makes of nothing.
@pytest.mark.parametrize(
    "model",
    [
        *("mean", "biases", "mf", "rbm:num_epochs=2", "biased-mf:wd=1:num_factors=2"),
        "best:num_hidden=3:num_epochs=2",
        *(
            f"book:num_hidden=3:num_epochs=9:lr=0.1{kind}{setting}"
            for kind in ("", ":kind=user")
            for setting in (
                *("", ":residual=true", ":from_mean=true", ":standardize=true"),
                *(":clip=true", ":cold=mean", ":cold=2.5", ":cold=biases"),
            )
        ),
    ],
)
def test_it_says_what_is_predicted_for_cold_users_and_items(files, compare, model):
    with files[1].open("a") as file:
        file.write("3,new,2\n4,new,5\n4,newer,1\n")
    asked = "--ratings", files[0], "--test-ratings", files[1], "--models", model
    (said,) = re.findall(
        "^- .*: (.*) for users, (.*) for items$", compare(*asked)[0], re.M
    )
    ratings, train_rows, test_rows = read_parts(*files)
    one, _ = fitted(study.Contender.parse(model).make, ratings, train_rows)
    for ends, new in zip(said, ("user_id", "item_id")):
        raw_ids = ratings.frame(test_rows)[new]
        predictions = one.predict(test_rows[raw_ids.str.startswith("new")])
        found = [float(end) for end in ends.split(" to ")]
        expected = min(predictions), max(predictions)
        assert (found[0], found[-1]) == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize(
    "model",
    [
        *("rbm:lr=1e38", "best:lr=1e38", "biased-mf:lr=1e9:num_factors=2:wd=1"),
        "autorec-early:num_hidden=3:lr=1e38",
    ],
)
def test_a_model_that_diverges_is_one_line_and_nothing_is_written(
    small_data, command, tmp_path, monkeypatch, model
):
    monkeypatch.chdir(tmp_path)
    files = "--json", "r.json", "--plot", "r.png", "--markdown", "r.md"
    models = "--models", f"mean,{model}", "--seeds", "0", "--quiet"
    code, out, err = command("compare", *models, *files)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.match("error: seed 0, .*lr=1e.*(nan|inf|diverged)", err)
    assert not list(tmp_path.glob("r.*"))


def test_a_model_has_one_row_whatever_it_is_called(small_data, compare):
    models = "book:num_epochs=1,autorec:num_epochs=1"
    out, report = compare("--models", models, "--seeds", "0")
    assert out.count("\n| AutoRec (book)") == len(report["models"]) == 1


def test_the_json_report_says_what_it_was_made_of(files, compare):
    models = "biases,mf,autorec:num_epochs=2,biased-mf:num_epochs=1:wd=1/2"
    asked = "--ratings", files[0], "--seeds", "0", "--models", models
    _, found = compare(*asked, "--duplicates", "mean")
    reading = found["reading"]
    assert reading["ratings"] == str(files[0]) and reading["test_ratings"] is None
    assert (reading["encoding"], reading["duplicates"]) == ("utf-8", "mean")
    assert found["devices"] == ["cpu(0)"]
    settings = [model["settings"] for model in found["models"].values()]
    biases = {"item_reg": 10, "user_reg": 15, "num_sweeps": 10}
    assert settings[0] == {"model": "Biases", **biases}
    mf = {"wd": 1e-5, "lr": 0.002, "num_factors": 30, "batch_size": 512}
    assert settings[1] == {"model": "BookMF", **mf, "num_epochs": 3}
    assert settings[2]["recipe"] == asdict(PRESETS["book"].changed(num_epochs=2))
    candidates = settings[3]["candidates"].values()
    assert {one["wd"] for one in candidates} == {1.0, 2.0}
    assert {one["num_epochs"] for one in candidates} == {1}
    # Of the ratings there is a checksum.
    assert compare(*asked)[1]["data"] == found["data"]
    text = files[0].read_text()
    files[0].write_text(text[:-2] + f"{6 - int(text[-2])}\n")
    assert compare(*asked)[1]["data"] != found["data"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_the_predictions_are_those_that_were_scored(files, compare, tmp_path, ending):
    file = tmp_path / f"p.{ending}"
    _, report = compare(
        *("--ratings", files[0], "--splits", "3-fold", "--seeds", "3-4"),
        *("--models", "biases,book:num_epochs=2", "--predictions", file),
    )
    table = (pd.read_parquet if ending == "parquet" else pd.read_csv)(file)
    models = report["models"]
    assert list(table) == ["run", "seed", "user_id", "item_id", "rating", *models]
    for name, model in models.items():
        errors = (table[name] - table["rating"]) ** 2
        found = np.sqrt(errors.groupby(table["run"], sort=False).mean())
        assert list(found) == pytest.approx([s["rmse"] for s in model["scores"]])
    # Each rating of the file once a seed, as it stands there.
    mine = pd.read_csv(files[0]).set_axis(["user_id", "item_id", "rating"], axis=1)
    for seed in (3, 4):
        assert len(table[table["seed"] == seed].merge(mine)) == len(mine)


def test_of_a_blend_weights_and_clipping_are_said(small_data, compare, monkeypatch):
    small = PRESETS["best"].changed(num_hidden=8, num_epochs=2)
    monkeypatch.setitem(PRESETS, "best", small)
    out, report = compare("--models", "mean,autorec-best", "--seeds", "0-1")
    assert "clipped to the rating scale, but for those of AutoRec (best)" in out
    assert report["clipped"] == ["best"]
    weights = [score["weights"] for score in report["models"]["best"]["scores"]]
    for found in weights:
        assert len(found) == len(small.recipes) and min(found) >= 0 < max(found)
    assert weights[0] != weights[1]
    assert report["models"]["mean"]["scores"][0]["weights"] == []


def test_ids_that_numpy_holds_can_be_written(small_data, folds, compare):
    # Fold u1 without one item's training ratings: that item is cold.
    base = small_data / "ml-100k" / "u1.base"
    item = (small_data / "ml-100k" / "u1.test").read_text().split("\t")[1]
    lines = base.read_text().splitlines(keepends=True)
    base.write_text("".join(x for x in lines if x.split("\t")[1] != item))
    out, report = compare("--models", "mean", "--splits", "u1-u5")
    assert int(item) in report["runs"][0]["cold"]["items"]
    (line,) = (x for x in out.splitlines() if x.startswith("- u1, seed 0: "))
    assert re.fullmatch(r".*: 1 items; \d+ ratings", line)  # how many, not which
    assert "`--json` names them" in out


def test_a_file_is_not_compared_with_the_book_by_its_name(
    small_data, compare, tmp_path
):
    (tmp_path / "ml-100k").write_bytes((small_data / "ml-100k" / "u.data").read_bytes())
    asked = "--ratings", tmp_path / "ml-100k", "--models", "mf", "--seeds", "0"
    assert "That protocol gives" not in compare(*asked)[0]


def test_markdown_goes_between_markers(small_data, compare, command, tmp_path):
    file = tmp_path / "README.md"
    short = "--models", "mean", "--seeds", "0", "--markdown", file
    out, _ = compare(*short)  # into a new file, which then has markers
    assert file.read_text() == f"{BEGIN}\n\n{out}\n{END}\n"
    file.write_text(f"before\n\n{file.read_text()}\nafter\n")
    out, _ = compare("--models", "biases", *short[2:])
    assert file.read_text() == f"before\n\n{BEGIN}\n\n{out}\n{END}\n\nafter\n"
    # A file without them is left alone.
    for raw, said in (
        (b"mine\n", "has no lines"),
        (f"{BEGIN}Am\xe9lie{END}".encode("latin-1"), "is not UTF-8"),
    ):
        file.write_bytes(raw)
        code, _, err = command("compare", *short)
        assert (code, said in err, file.read_bytes()) == (2, True, raw)


def test_the_chart_shows_every_run_and_every_mean():
    figure = study.comparison_chart(
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
