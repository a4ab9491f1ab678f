"""The training command, in-process and as a process of its own."""

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest

from d2l_autorec import load_model
from d2l_autorec.commands.report import BOOK, beside_the_book
from d2l_autorec.commands.train import main
from d2l_autorec.fast import FastStep
from d2l_autorec.ratings import datasets
from d2l_autorec.training import PRESETS, Parts, Recipe, Run
from d2l_autorec.training.settings import ACTIVATIONS

SMALL = ["--num-hidden", "8", "--num-epochs", "3", "--batch-size", "16"]


def test_it_says_what_it_trains_on_and_ends_with_the_books_two_lines(small_data, train):
    code, out, err = train(*SMALL)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("ml-100k: 30 users x 40 items, ")
    assert "of the cells unobserved" in lines[0]
    assert lines[1].startswith("random split, seed 0: ")
    assert lines[2] == "kept: epoch 3, the last one; ended: after epoch 3 of 3"
    assert lines[3].startswith("train loss ")
    assert "test RMSE" in lines[3]
    assert lines[4].endswith("examples/sec on [cpu(0)]")
    assert re.match(
        r"[\d,]+ ratings/sec \(an example is a cell of the matrix", lines[5]
    )
    assert lines[6] == (
        "(not comparable with the book, which has other ratings (here ml-100k, not as "
        "published))"
    )
    assert "3/3" in err
    assert "test RMSE" in err


def test_the_json_report_holds_settings_history_and_result(small_data, train, tmp_path):
    file = tmp_path / "report.json"
    _, out, _ = train(*SMALL, "--lr", "0.01", "--seed", "3", "--json", file)
    report = json.loads(file.read_text())
    assert report["recipe"]["lr"] == 0.01
    assert report["recipe"]["num_hidden"] == 8
    assert report["seed"] == 3
    assert [e["epoch"] for e in report["history"]] == [1, 2, 3]
    assert {"d2l_autorec", "python", "mxnet", "numpy"} < report["versions"].keys()
    assert f"test RMSE {report['test_rmse']:.3f}" in out
    assert report["note"].startswith("not comparable with the book, which has other")
    assert report["ended"] == "epochs"
    cells = report["num_users"] * report["num_items"]
    assert report["ratings_per_second"] == pytest.approx(
        report["examples_per_second"] * report["num_train_ratings"] / cells
    )
    assert f"\n{report['ratings_per_second']:,.0f} ratings/sec" in out


@pytest.fixture
def train(command):
    return partial(command, "train")


@pytest.fixture
def reported(small_data, train, tmp_path):
    """Run the command: what it says, and its JSON report."""

    def run(*flags):
        file = tmp_path / "report.json"
        code, out, err = train(*SMALL, "--quiet", "--json", file, *flags)
        assert code == 0, err
        assert "nan" not in out.lower() + file.read_text().lower()
        return out.splitlines(), json.loads(file.read_text())

    return run


def test_simple_models_are_shown_beside_the_network(reported):
    lines, report = reported()
    biases, mean = (report["baseline"][name] for name in ("biases", "global_mean"))
    assert report["baseline"]["part"] == "test"
    assert lines[5] == (
        f"test RMSE (MAE): this network {report['test_rmse']:.3f} "
        f"({report['test_mae']:.3f}), biases {biases['rmse']:.3f} "
        f"({biases['mae']:.3f}), the mean {mean['rmse']:.3f} ({mean['mae']:.3f})"
    )
    worse = report["test_rmse"] - biases["rmse"]
    assert lines[6].startswith(f"this network is worse than biases by {worse:.3f}; ")
    assert "--residual" in lines[6]


def test_a_network_that_beats_biases_is_not_called_worse(reported, monkeypatch):
    monkeypatch.setattr("d2l_autorec.training.Biases.at", lambda *_: 99.0)
    lines, _ = reported()
    assert "biases 9" in lines[5] and not any("worse than biases" in x for x in lines)


@pytest.mark.parametrize(
    ("owner", "said"),
    [("Training.predict", "the test RMSE is nan in epoch 1; "), ("Biases.at", "")],
)
def test_a_result_that_is_no_number_is_one_line_and_replaces_nothing(
    small_data, train, tmp_path, monkeypatch, owner, said
):
    def nan(_, *cells):
        found = cells[0]
        return np.full(found.nnz, np.nan) if hasattr(found, "nnz") else np.nan

    monkeypatch.setattr(f"d2l_autorec.training.{owner}", nan)
    files = [tmp_path / "r.json", tmp_path / "curve.png"]
    for file in files:
        file.write_text("old")
    code, out, err = train(*SMALL, "--quiet", "--json", files[0], "--plot", files[1])
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {said}")
    assert [file.read_text() for file in files] == ["old", "old"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--test-ratio", "0", "--lr", "3e37", "-b", "all"],
        ["--preset", "best", "--lr", "1e38", "-b", "8"],
    ],
)
def test_a_network_that_cannot_predict_replaces_no_model(
    small_data, train, tmp_path, flags
):
    """Its numbers are finite, but the sums of their products are not."""
    save = ["--quiet", "--save", tmp_path / "m"]
    assert train(*SMALL, *save)[0] == 0
    before = (tmp_path / "m" / "autorec.safetensors").read_bytes()
    code, out, err = train(*SMALL[:2], *flags, "-e", "1", *save, "--overwrite")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith("a lower learning rate (lr) may help\n")
    assert (tmp_path / "m" / "autorec.safetensors").read_bytes() == before


def test_with_a_validation_part_the_result_is_the_best_epochs(reported):
    flags = ["-e", "12", "--lr", "0.3", "--valid-ratio", "0.3"]
    lines, report = reported(*flags)
    best = min(report["history"], key=lambda epoch: epoch["valid_rmse"])
    assert best["epoch"] == report["best_epoch"] < 12, "the toy has to overfit"
    for name in ("train_loss", "test_rmse", "valid_rmse"):
        assert report[name] == best[name]
    assert lines[0] == (
        f"kept: epoch {best['epoch']}, the best on validation (RMSE "
        f"{best['valid_rmse']:.3f}); ended: after epoch 12 of 12"
    )
    assert lines[1].endswith(f"test RMSE {best['test_rmse']:.3f}")
    # The MAE is of that epoch's parameters: those of a training that ends there.
    _, shorter = reported(*flags, "-e", best["epoch"])
    assert shorter["best_epoch"] == best["epoch"]
    assert report["test_mae"] == pytest.approx(shorter["test_mae"])
    assert report["valid_mae"] == pytest.approx(shorter["valid_mae"])


def test_it_trains_on_all_ratings(reported, tmp_path):
    flags = ["--plot", tmp_path / "curve.png", "--save", tmp_path / "m"]
    lines, report = reported("--test-ratio", "0", *flags)
    assert lines[1].endswith("test RMSE -")
    assert lines[5].startswith("no ratings are held out")
    assert report["num_test_ratings"] == 0
    assert report["test_rmse"] is report["test_mae"] is None
    assert len(load_model(tmp_path / "m").recommend(1, 3)) == 3
    lines, report = reported("--test-ratio", "0", "--valid-ratio", "0.2")
    assert lines[0].startswith("kept: epoch 3, the best on validation (RMSE ")
    assert lines[5].startswith("validation RMSE (MAE): this network ")
    assert report["baseline"]["part"] == "validation"


def test_titles_of_any_encoding_and_header_are_kept(small_data, train, tmp_path):
    (tmp_path / "titles.csv").write_bytes(
        "Nr|Titel|x\n2|Zw\u00f6lf|y\n".encode("latin-1")
    )
    flags = ["--quiet", "--save", tmp_path / "m", "--titles", tmp_path / "titles.csv"]
    code, _, err = train(*SMALL, *flags)
    assert (code, "such as --title-columns Nr,Titel" in err) == (1, True)
    flags += ["--overwrite", "--title-columns", "Nr,Titel"]
    code, _, err = train(*SMALL, *flags)
    assert (code, "(--encoding latin-1)" in err) == (1, True)
    assert train(*SMALL, *flags, "--encoding", "latin-1")[0] == 0
    assert load_model(tmp_path / "m").run.parts.titles == {2: "Zw\u00f6lf"}


def test_columns_that_are_taken_are_named(small_data, train, tmp_path):
    file = tmp_path / "log.csv"
    text = (small_data / "ml-100k" / "u.data").read_text()
    file.write_text("visitorid\titemid\trating\ttime\n" + text)
    code, _, err = train("--ratings", file, "-k", "4", "-e", "1")
    assert code == 0
    said = "columns 'visitorid, itemid, rating' are taken for user, item and rating"
    assert f"{file}: {said}" in err


def test_refit_trains_on_the_validation_part_too(reported, tmp_path):
    more = ["-e", "12", "--lr", "0.3", "--schedule", "cosine"]
    flags = [*more, "--valid-ratio", "0.3"]
    _, searched = reported(*flags)
    lines, report = reported(*flags, "--refit", "--save", tmp_path / "m")
    best = searched["best_epoch"]
    assert f"epoch {best}, " in lines[0]
    assert report["chosen_epoch"] == best
    assert report["chosen_valid_rmse"] == searched["valid_rmse"]
    # It is the training that never had a validation part.
    _, plain = reported(*more, "-e", best)
    assert report["test_rmse"] == plain["test_rmse"]
    assert report["num_train_ratings"] == plain["num_train_ratings"]
    opened = load_model(tmp_path / "m").run
    assert (opened.parts.valid_mat, opened.recipe.num_epochs) == (None, best)


def test_ratings_to_test_on_may_be_a_file(reported, tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{u},{i},{rng.integers(1, 6)}" for u in range(9) for i in range(8)]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "test.csv").write_text("3,new item,4\nnew user,3,2\n")
    files = ["--ratings", tmp_path / "train.csv"]
    files += ["--test-ratings", tmp_path / "test.csv"]
    _, report = reported(*files, "--cold", "3")
    assert (report["num_train_ratings"], report["num_test_ratings"]) == (72, 2)
    assert (report["num_users"], report["num_items"]) == (10, 9)
    assert (report["split_mode"], report["test_ratio"]) == ("given", None)
    assert report["test_rmse"] == 1.0  # both are cold


def test_of_ones_own_ratings_nothing_is_said_of_the_book(reported, tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{u},{i},{rng.integers(1, 6)}" for u in range(9) for i in range(8)]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    flags = ["--ratings", tmp_path / "mine.csv", "--plot", tmp_path / "f.png"]
    lines, report = reported(*flags)
    assert not re.search("book|example", "\n".join(lines))
    assert re.fullmatch(r"[\d,]+ ratings/sec on \[cpu\(0\)\]", lines[2])
    assert report["note"] is None


def test_the_folds_of_ml_100k_are_splits(reported, small_data):
    lines = (small_data / "ml-100k" / "u.data").read_text().splitlines(keepends=True)
    for fold in range(1, 6):
        held = slice(fold * 20, fold * 20 + 20)
        base, test = lines[: held.start] + lines[held.stop :], lines[held]
        (small_data / "ml-100k" / f"u{fold}.base").write_text("".join(base))
        (small_data / "ml-100k" / f"u{fold}.test").write_text("".join(test))
    _, report = reported("--split-mode", "u2")
    assert report["num_test_ratings"] == 20
    assert report["num_train_ratings"] == len(lines) - 20
    assert (report["split_mode"], report["test_ratio"]) == ("u2", None)
    assert report["test_rmse"] != reported("--split-mode", "u3")[1]["test_rmse"]


def test_the_same_seed_gives_the_same_result(small_data, train):
    def result(seed):
        return train(*SMALL, "--quiet", "--seed", seed)[1].splitlines()[1]

    assert result(1) == result(1)
    assert result(1) != result(2)


LAYERS = ["--num-hidden", "8", "4", "8"]


@pytest.fixture(scope="module")
def plain_rmse(small_folder, tmp_path_factory):
    """The result on the small data without any further setting."""
    file = tmp_path_factory.mktemp("plain") / "r.json"
    main([*SMALL, "--quiet", "--data-dir", str(small_folder), "--json", str(file)])
    return json.loads(file.read_text())["test_rmse"]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--num-hidden", "9"],
        ["--num-hidden", "8", "8"],
        ["--kind", "user"],
        *(["--activation", name] for name in ACTIVATIONS if name != "sigmoid"),
        *(["--output", name] for name in ACTIVATIONS if name != "identity"),
        ["--input-dropout", "0.5"],
        ["--members", "2"],
        ["--loss", "paper", "--wd", "1e-5"],
        ["--loss", "rmse"],
        ["--residual"],
        ["--schedule", "cosine"],
        ["--clip"],
        ["--preset", "paper"],
        ["--preset", "best", "--pretrain-epochs", "0"],
        ["--dropout", "0.5"],
        ["--lr", "0.02"],
        ["--wd", "0.1"],
        ["--num-epochs", "4"],
        ["--batch-size", "7"],
        ["--optimizer", "sgd"],
        ["--test-ratio", "0.3"],
        ["--split-mode", "seq-aware"],
    ],
    ids=" ".join,
)
def test_each_setting_changes_the_result(
    small_data, train, tmp_path, plain_rmse, flags
):
    train(*SMALL, "--quiet", "--json", tmp_path / "r.json", *flags)
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["test_rmse"] == plain_rmse) == (not flags)


@pytest.mark.usefixtures("short_pretraining")
@pytest.mark.parametrize(
    ("flags", "beside"),
    [
        (["--cold", "3"], ["--test-ratio", "0.9"]),
        (["--cold", "mean"], ["--test-ratio", "0.9"]),
        (["--pretrain-epochs", "2"], LAYERS),
        (["--optimizer", "rprop"], ["--batch-size", "all"]),
    ],
    ids=lambda flags: " ".join(flags),
)
def test_each_setting_changes_the_result_beside_others(
    small_data, train, tmp_path, flags, beside
):
    def rmse(*more):
        train(*SMALL, "--quiet", "--json", tmp_path / "r.json", *beside, *more)
        return json.loads((tmp_path / "r.json").read_text())["test_rmse"]

    assert rmse(*flags) != rmse()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_flag_beside_a_preset_wins(small_data, train, tmp_path, preset):
    def recipe(*more):
        flags = ["--quiet", "-e", "1", "--pretrain-epochs", "0", "--preset", preset]
        assert train(*flags, "--json", tmp_path / "r.json", *more)[0] == 0
        found = json.loads((tmp_path / "r.json").read_text())["recipe"]
        return found.get("recipes", [found])

    def expected(**changed):
        changed = {"num_epochs": 1, "pretrain_epochs": 0, **changed}
        recipes = PRESETS[preset].changed(**changed).recipes
        return json.loads(json.dumps([asdict(one) for one in recipes]))

    # Of a blend, those are kept that have a weight.
    assert all(one in expected() for one in recipe())
    # Be it with the value that the flag has by default.
    flags = ("--loss", "book", "-w", "0", "--members", "1", "-k", "8", "4", "--no-clip")
    changed = {"loss": "book", "wd": 0.0, "num_hidden": (8, 4)}
    assert all(one in expected(**changed, clip=False) for one in recipe(*flags))


def test_two_devices_give_the_result_of_one(small_data, train, tmp_path):
    def rmse(devices):
        flags = ["--dropout", "0", "--devices", devices, "--json", tmp_path / "r.json"]
        train(*SMALL, "--quiet", *flags)
        return json.loads((tmp_path / "r.json").read_text())["test_rmse"]

    assert rmse("cpu:0,cpu:1") == pytest.approx(rmse("cpu"), abs=1e-4)


def beside(ratings, split=None, **settings):
    """What the command would say of a training beside the book's."""
    cut = np.array_split(np.arange(ratings.num_ratings), 2)
    split = {"split_mode": "random", "test_ratio": 0.1, **(split or {})}
    parts = Parts.of(ratings, *cut, split=split)
    return beside_the_book(Run(parts, Recipe(**settings), 0))


def test_only_the_whole_of_ml_100k_is_compared_with_the_book(small_data):
    """Not what is left of it in a file that was cut; nor another file of that name."""
    apart = "not comparable with the book, which has"
    other = f"{apart} other ratings (here ml-100k, not as published)"
    assert beside(datasets.load_dataset("ml-100k")) == other
    whole = replace(datasets.synthetic_ratings(), name="ml-100k")
    assert beside(whole) == BOOK  # of that size
    # Other settings are what a comparison is about.
    for other in (beside(whole, lr=0.01), beside(whole, {"valid_ratio": 0.2})):
        assert other == f"{BOOK}, with other settings"
    seq = {"split_mode": "seq-aware", "test_ratio": None}
    assert beside(whole, seq) == f"{apart} another split (here seq-aware)"
    assert (
        beside(whole, {"test_ratio": 0.2})
        == f"{apart} another split (here random, 0.2)"
    )


def test_a_model_is_replaced_only_if_asked_for(small_data, train, tmp_path):
    save = [*SMALL, "--quiet", "--save", tmp_path / "m"]
    assert train(*save)[0] == 0
    before = (tmp_path / "m" / "autorec.safetensors").read_bytes()
    # Before anything else: there are no such data.
    code, out, err = train(*save, "--data-dir", "nowhere")
    assert (code, out) == (1, "")
    assert err == (
        f"error: {tmp_path}/m: holds a model; go on with it (--resume {tmp_path}/m), "
        "or have it replaced (--overwrite)\n"
    )
    assert (tmp_path / "m" / "autorec.safetensors").read_bytes() == before
    assert train(*save, "--overwrite", "--seed", "1")[0] == 0
    assert (tmp_path / "m" / "autorec.safetensors").read_bytes() != before


def test_what_an_interrupted_save_left_is_no_model(small_data, train, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / ".saving").write_bytes(b"half a file")
    assert train(*SMALL, "--quiet", "--save", tmp_path / "m")[0] == 0


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_books_recipe_trains_the_chapters_network(
    small_data, train, monkeypatch, optimizer
):
    from d2l_autorec import loop, model

    ran = Counter()

    def noted(home, name):
        original = getattr(home, name)

        def run(self, *args, **kwargs):
            ran[name, type(self)] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(home, name, run)

    noted(model.AutoRec, "__init__")
    noted(loop.Step, "finish")
    assert train("--num-epochs", "2", "--quiet", "--optimizer", optimizer)[0] == 0
    assert ran["__init__", model.AutoRec] == 1
    kind = loop.Step if optimizer == "sgd" else FastStep
    assert ran["finish", kind] == 2


def test_what_is_lost_of_a_choice_is_said(small_data, train, monkeypatch):
    def choose(*_):
        raise KeyboardInterrupt("terminated")

    monkeypatch.setattr("d2l_autorec.training.Training.choose", choose)
    code, _, err = train(*SMALL, "--quiet", "--valid-ratio", "0.1", "--refit")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("terminated while choosing on the validation part; nothing")


def test_the_books_recipe_on_real_data(real_ml_100k, train, tmp_path):
    _, out, _ = train("--quiet", "--json", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["test_rmse"] < 0.91
    assert "the book prints train loss 0.000, test RMSE 0.898" in out
