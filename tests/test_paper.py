"""The study: its protocol, and that it goes on where it was interrupted."""

import json
from dataclasses import replace

import numpy as onp
import pandas as pd
import pytest

from d2l_autorec import __version__, ratings_from_frame
from d2l_autorec import study as study_room
from d2l_autorec.commands import paper as command
from d2l_autorec.errors import DataError
from d2l_autorec.study import (
    NAMES,
    REVISION,
    Estimator,
    Experiment,
    PaperProtocol,
    Row,
    Study,
    experiments,
    records,
    report,
)

TINY = "paper:num_hidden=3:num_epochs=2:lr=0.5:batch_size=5"
ITEM = Experiment("I-AutoRec", "a", 0.831, TINY, (1.0, 50.0))


@pytest.fixture
def ratings():
    rng = onp.random.default_rng(0)
    cells = rng.permutation(40 * 25)[:400]
    columns = {"user_id": cells // 25 + 1, "item_id": cells % 25 + 1}
    rating = rng.integers(1, 6, 400).astype(float)
    return ratings_from_frame(pd.DataFrame({**columns, "rating": rating}), name="toy")


@pytest.fixture
def study(ratings, tmp_path):
    return Study(ratings, tmp_path / "toy.json")


def changed(ratings, rows):
    """Turn some of the ratings around: 1 to 5, 2 to 4, and so on."""
    rating = ratings.rating.copy()
    rating[rows] = 6.5 - rating[rows]
    return replace(ratings, rating=rating)


def test_a_training_is_done_once(study):
    epochs = []
    first = study.run(ITEM, 1.0, 0, "test", epochs.append)
    assert study.run(ITEM, 1.0, 0, "test", epochs.append) is first
    assert epochs == [1, 2]
    assert first["d2l_autorec"] == __version__
    assert first["revision"] == REVISION
    assert first["data"].startswith("40 users, 25 items, 400 ratings, SHA-256 ")


@pytest.mark.parametrize(
    "other",
    [
        (ITEM, 2.0, 0, "test"),
        (ITEM, 1.0, 1, "test"),
        (ITEM, 1.0, 0, "validation"),
        (replace(ITEM, model=f"{TINY}:lr=0.1"), 1.0, 0, "test"),
        (replace(ITEM, cold="mean"), 1.0, 0, "test"),
    ],
)
def test_other_settings_are_another_training(study, other):
    study.run(ITEM, 1.0, 0, "test")
    study.run(*other)
    assert len(study.records) == 2


@pytest.mark.parametrize("change", ["revision", "rating", "order", "old file"])
def test_results_of_other_code_or_data_are_not_taken_for_current(
    study, ratings, monkeypatch, change
):
    first = study.run(ITEM, 1.0, 0, "test")
    if change == "revision":
        monkeypatch.setattr(records, "REVISION", REVISION + 1)
    elif change == "rating":
        ratings = changed(ratings, [0])
    elif change == "order":  # which the splits depend on
        ratings = ratings_from_frame(ratings.data[::-1], name="toy")
    else:
        for name in ("data", "revision", "d2l_autorec"):
            del first[name]
        study.save()
    again = Study(ratings, study.file)
    assert [r["rmse"] for r in again.records] == [first["rmse"]]
    epochs = []
    second = again.run(ITEM, 1.0, 0, "test", epochs.append)
    assert epochs == [1, 2]
    assert json.loads(study.file.read_text())["trainings"] == [second]


def test_an_interrupted_study_goes_on(study, ratings):
    def interrupt(epoch):
        raise KeyboardInterrupt

    first = study.run(ITEM, 1.0, 0, "test")
    with pytest.raises(KeyboardInterrupt):
        study.run(ITEM, 1.0, 1, "test", interrupt)
    again = Study(ratings, study.file)
    assert again.records == [first]
    assert again.run(ITEM, 1.0, 0, "test", interrupt) == first


def test_the_weight_decay_with_the_lowest_validation_error_is_chosen(study):
    first, second, *tested = study.runs(ITEM, 2)
    assert [record["part"] for _, record in (first, second)] == ["validation"] * 2
    assert first[1]["rmse"] != second[1]["rmse"]
    best, _ = min((first, second), key=lambda run: run[1]["rmse"])
    assert [(wd, r["part"], r["split"]) for wd, r in tested] == [
        (best, "test", "seed 0"),
        (best, "test", "seed 1"),
    ]
    assert ITEM.num_trainings(2) == 4


def test_of_one_weight_decay_nothing_is_tried(study):
    one = replace(ITEM, wds=(7.0,), num_splits=1)
    assert [(wd, r["part"]) for wd, r in study.runs(one, 3)] == [(7.0, "test")]
    assert one.num_trainings(3) == 1


class Seen(Estimator):
    """Remembers the rows that it was shown."""

    def fit(self, train_rows, seed):
        self.train_rows = train_rows
        return iter(())

    def predict(self, rows):
        self.rows = rows
        return onp.full(len(rows), 99.0)


def test_the_validation_part_is_taken_from_the_training_part(study, monkeypatch):
    shown = {}
    for part in ("test", "validation"):
        model = Seen(study.ratings, [])
        monkeypatch.setattr(Experiment, "make", lambda *args, model=model: model)
        study.run(ITEM, 1.0, 0, part)
        shown[part] = set(model.train_rows), set(model.rows)
    train, test = shown["test"]
    fit, valid = shown["validation"]
    assert fit | valid == train
    assert not (fit & valid or valid & test)
    assert len(valid) == round(0.1 * len(train))


TRAINED = [(1, 1, 2.0), (1, 2, 4.0), (2, 1, 4.0), (2, 2, 4.0)]


@pytest.mark.parametrize(
    ("held_out", "cold", "expected"),
    [
        ((1, 3, 4.0), 2.5, 2.5),  # nobody rated item 3
        ((9, 1, 4.0), 3.0, 3.0),  # nor is there anything of user 9
        ((1, 9, 4.0), "mean", 3.5),
    ],
)
def test_predictions_are_clipped_and_cold_ones_replaced(held_out, cold, expected):
    columns = ["user_id", "item_id", "rating"]
    table = ratings_from_frame(pd.DataFrame([*TRAINED, held_out], columns=columns))
    model = PaperProtocol(table, [], Seen(table, []), cold)
    assert list(model.fit(onp.arange(4), 0)) == []
    assert model.predict(onp.array([0, 4])).tolist() == [4.0, expected]


def test_published_figures_stand_beside_ml_1m_only():
    five = [0.81, 0.82, 0.83, 0.84, 0.85]
    found = [five, [0.9] * 5, [0.82, 0.84], [0.9]]
    rows = {str(n): Row(ITEM, None, rmse) for n, rmse in enumerate(found)}
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in report(rows, "ml-1m", "command").splitlines()
        if line.startswith("| I-AutoRec")
    ]
    assert lines[0] == [
        *("I-AutoRec", "a", "0.831", "0.8300 ± 0.016", "reached", "5", "by size")
    ]
    assert [line[4:6] for line in lines[1:]] == [
        ["not reached", "5"],
        ["lower", "**2** of 5"],
        ["higher", "**1** of 5"],
    ]
    assert "reached" not in report(rows, "ml-100k", "command")


def test_a_file_that_is_no_study_is_refused(ratings, tmp_path):
    file = tmp_path / "toy.json"
    file.write_text("{}")
    with pytest.raises(DataError, match=r"toy\.json: is not a study's results"):
        Study(ratings, file)
    assert file.read_text() == "{}"


@pytest.fixture
def tiny_study(monkeypatch):
    """The command with three small experiments, among them a curve."""
    mf = "biased-mf:num_factors=2:num_epochs=1"
    two = "paper:num_hidden=2:num_epochs=2"
    listed = {
        "item": ITEM,
        "mf": Experiment("BiasedMF", "c", 0.845, mf, (0.1,)),
        "hidden-10": Experiment("10 hidden units", "figure", None, two, (1.0,), 1),
    }
    monkeypatch.setattr(study_room, "experiments", lambda quick, cold: listed)


def test_the_command_writes_table_records_and_plot(tiny_study, tmp_path, capsys):
    flags = ["--dataset", "synthetic-100k", "--splits", "2", "--out", str(tmp_path)]
    command.main(flags)
    printed = capsys.readouterr()
    rows = {r.split("|")[1].strip(): r for r in printed.out.splitlines() if "|" in r}
    assert rows["I-AutoRec"].split("|")[6].strip() == "**2** of 5"
    assert rows["10 hidden units"].split("|")[6].strip() == "**1** of 5"
    assert "100%" in printed.err
    assert (tmp_path / "synthetic-100k.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "synthetic-100k.md").read_text() in printed.out
    records = json.loads((tmp_path / "synthetic-100k.json").read_text())["trainings"]
    # Two to choose, two splits each of two models, one point of the curve.
    assert len(records) == 7

    command.main([*flags, "--quiet"])
    again = capsys.readouterr()
    assert again.out in printed.out
    assert again.err == ""
    after = json.loads((tmp_path / "synthetic-100k.json").read_text())["trainings"]
    assert after == records


def test_only_some_experiments_run(tiny_study, tmp_path, capsys):
    flags = ["--dataset", "synthetic-100k", "--out", str(tmp_path), "--only", "hidden"]
    command.main(flags)
    assert "10 hidden units" in capsys.readouterr().out
    assert "I-AutoRec" not in (tmp_path / "synthetic-100k.md").read_text()


def test_the_names_are_those_of_the_experiments():
    found = {name.rstrip("0123456789").rstrip("-") for name in experiments()}
    assert found == set(NAMES)


def test_quick_experiments_are_short_and_choose_nothing():
    for experiment in experiments(quick=True).values():
        (wd,) = experiment.wds
        recipe = experiment.settings(wd).get("recipe", {})
        for one in recipe.get("recipes", [recipe] if recipe else []):
            # Of all rows at once, an epoch is a single step.
            assert one["num_epochs"] <= (20 if one["batch_size"] else 100)
