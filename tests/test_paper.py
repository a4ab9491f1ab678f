"""The study: its protocol, and that it goes on where it was interrupted."""

import json
from dataclasses import replace

import numpy as onp
import pandas as pd
import pytest

from d2l_autorec import __version__, ratings_from_frame
from d2l_autorec.commands import paper as command
from d2l_autorec.errors import DataError
from d2l_autorec.study import Experiment, Row, Study, paper, records, report
from d2l_autorec.training import PRESETS

TINY = replace(PRESETS["paper"], num_hidden=3, num_epochs=2)
ITEM = Experiment("I-AutoRec", "a", 0.831, TINY, (1.0, 50.0))
MF = {"model": "BiasedMF", "num_factors": 2, "lr": 0.01, "num_epochs": 1}


def silent(share, before):
    pass


def table(seed=0):
    rng = onp.random.default_rng(seed)
    cells = rng.permutation(40 * 25)[:400]
    return pd.DataFrame(
        {
            "user_id": cells // 25 + 1,
            "item_id": cells % 25 + 1,
            "rating": rng.integers(1, 6, 400).astype(float),
            "timestamp": onp.arange(400),
        }
    )


@pytest.fixture
def ratings():
    return ratings_from_frame(table(), name="toy")


@pytest.fixture
def study(ratings, tmp_path):
    return Study(ratings, tmp_path / "toy.json")


def test_a_training_is_done_once(study):
    ticks = []
    first = study.run(ITEM, 1.0, 0, "test", lambda *tick: ticks.append(tick))
    again = study.run(ITEM, 1.0, 0, "test", lambda *tick: ticks.append(tick))
    assert again == first
    assert ticks == [(0.5, False), (0.5, False), (1.0, True)]


@pytest.mark.parametrize(
    "other",
    [
        (ITEM, 2.0, 0, "test"),
        (ITEM, 1.0, 1, "test"),
        (ITEM, 1.0, 0, "validation"),
        (replace(ITEM, recipe=replace(TINY, lr=0.1)), 1.0, 0, "test"),
        (replace(ITEM, cold="mean"), 1.0, 0, "test"),
    ],
)
def test_other_settings_are_another_training(study, other):
    study.run(ITEM, 1.0, 0, "test", silent)
    study.run(*other, silent)
    assert len(study.records) == 2


@pytest.mark.parametrize("change", ["revision", "rating", "order", "old file"])
def test_results_of_other_code_or_data_are_not_taken_for_current(
    study, ratings, monkeypatch, change
):
    study.run(ITEM, 1.0, 0, "test", silent)
    first = study.records[0]
    if change == "revision":
        monkeypatch.setattr(records, "REVISION", records.REVISION + 1)
    elif change == "rating":
        changed = ratings.rating.copy()
        changed[0] = 6.5 - changed[0]
        ratings = replace(ratings, rating=changed)
    elif change == "order":  # which the splits depend on
        ratings = ratings_from_frame(ratings.data[::-1], name="toy")
    else:
        for name in ("data", "revision", "d2l_autorec"):
            del first[name]
        study.save()
    again = Study(ratings, study.file)
    assert [r["rmse"] for r in again.records] == [first["rmse"]]
    ticks = []
    again.run(ITEM, 1.0, 0, "test", lambda *tick: ticks.append(tick))
    assert ticks == [(0.5, False), (0.5, False)]
    # The older record stays, and what is shown has one of each training.
    kept = json.loads(study.file.read_text())
    assert kept["superseded"] == [first]
    assert len(kept["trainings"]) == 1
    assert Study(ratings, study.file).superseded == [first]


def test_a_record_says_what_it_was_done_with(study):
    study.run(ITEM, 1.0, 0, "test", silent)
    (record,) = study.records
    assert record["d2l_autorec"] == __version__
    assert record["revision"] == records.REVISION
    assert record["data"].startswith("40 users, 25 items, 400 ratings, SHA-256 ")


def test_an_interrupted_study_goes_on(study, ratings):
    def interrupt(share, before):
        raise KeyboardInterrupt

    study.run(ITEM, 1.0, 0, "test", silent)
    with pytest.raises(KeyboardInterrupt):
        study.run(ITEM, 1.0, 1, "test", interrupt)
    again = Study(ratings, study.file)
    assert [record["split"] for record in again.records] == [0]
    assert again.run(ITEM, 1.0, 0, "test", silent) == study.records[0]["rmse"]


def test_the_weight_decay_with_the_lowest_validation_error_is_chosen(study):
    chosen = study.choose(ITEM, silent)
    assert [record["part"] for record in study.records] == ["validation"] * 2
    best = min(study.records, key=lambda record: record["rmse"])
    assert chosen == best["settings"]["wd"]


def test_of_one_weight_decay_nothing_is_tried(study):
    assert study.choose(replace(ITEM, wds=(7.0,)), silent) == 7.0
    assert study.records == []


def test_a_choice_does_not_depend_on_the_test_ratings(study, ratings, tmp_path):
    study.run(ITEM, 1.0, 0, "validation", silent)
    _, test_rows = study.parts(0, "test")
    changed = ratings.rating.copy()
    changed[test_rows] = 6 - changed[test_rows]
    other = Study(replace(ratings, rating=changed), tmp_path / "other.json")
    assert other.run(ITEM, 1.0, 0, "validation", silent) == study.records[0]["rmse"]
    assert other.run(ITEM, 1.0, 0, "test", silent) != study.run(
        ITEM, 1.0, 0, "test", silent
    )


def test_the_validation_part_is_taken_from_the_training_part(study):
    train_rows, test_rows = study.parts(0, "test")
    fit_rows, valid_rows = study.parts(0, "validation")
    assert set(fit_rows) | set(valid_rows) == set(train_rows)
    assert not set(valid_rows) & set(test_rows)
    assert len(valid_rows) == round(0.1 * len(train_rows))


class Constant:
    """Predicts the same for everyone."""

    def __init__(self, ratings, value):
        self.ratings, self.value = ratings, value

    def predict(self, rows):
        return onp.full(len(rows), self.value)


TRAINED = [(1, 1, 2.0), (1, 2, 4.0), (2, 1, 4.0), (2, 2, 4.0)]


@pytest.mark.parametrize(
    ("held_out", "cold", "expected"),
    [
        ((9, 1, 4.0), 3.0, 1.0),  # nobody knows user 9
        ((1, 9, 4.0), 3.0, 1.0),
        ((1, 9, 4.0), "mean", 0.5),  # the mean is 3.5
    ],
)
def test_predictions_for_cold_pairs_are_replaced(held_out, cold, expected):
    data = pd.DataFrame([*TRAINED, held_out], columns=["user_id", "item_id", "rating"])
    rows = onp.split(onp.arange(5), [4])
    model = Constant(ratings_from_frame(data), 99.0)
    found = paper.protocol_rmse(model, *rows, cold)
    assert found == pytest.approx(expected)


def test_predictions_are_clipped_to_the_training_ratings():
    data = pd.DataFrame(
        [*TRAINED, (3, 1, 4.0), (3, 2, 4.0)], columns=["user_id", "item_id", "rating"]
    )
    model = Constant(ratings_from_frame(data), 99.0)
    train_rows, held_out = onp.array([0, 1, 2, 3, 5]), onp.array([4])
    assert paper.protocol_rmse(model, train_rows, held_out, 3.0) == 0.0


def test_published_figures_stand_beside_ml_1m_only():
    rows = {"item": Row(ITEM, 50.0, [0.82, 0.84]), "x": Row(ITEM, 1.0, [0.9])}
    text = report(rows, "ml-1m", "command")
    (reached, missed) = [r for r in text.splitlines() if r.startswith("| I-AutoRec")]
    assert [c.strip() for c in reached.split("|")[1:-1]] == [
        *("I-AutoRec", "a", "0.831", "0.8300 ± 0.014", "reached", "2", "50")
    ]
    assert "not reached" in missed
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

    def experiments(quick, cold):
        return {
            "item": replace(ITEM, cold=cold),
            "mf": Experiment("BiasedMF", "c", 0.845, None, (0.1,), other=MF),
            "hidden-2": Experiment(
                "2 hidden units", "figure", None, replace(TINY, num_hidden=2), (1.0,), 1
            ),
        }

    monkeypatch.setattr(command, "experiments", experiments)


def test_the_command_writes_table_records_and_plot(tiny_study, tmp_path, capsys):
    flags = ["--dataset", "synthetic-100k", "--splits", "2", "--out", str(tmp_path)]
    command.main(flags)
    printed = capsys.readouterr()
    rows = {r.split("|")[1].strip(): r for r in printed.out.splitlines() if "|" in r}
    assert rows["I-AutoRec"].split("|")[6].strip() == "2"
    assert rows["2 hidden units"].split("|")[6].strip() == "1"
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
    command.main(
        ["--dataset", "synthetic-100k", "--out", str(tmp_path), "--only", "hidden"]
    )
    assert "2 hidden units" in capsys.readouterr().out
    assert "I-AutoRec" not in (tmp_path / "synthetic-100k.md").read_text()


@pytest.mark.parametrize(
    "flags", [["--only", "items"], ["--splits", "0"], ["--cold", "warm"]]
)
def test_a_bad_flag_ends_with_one_line(flags, capsys):
    with pytest.raises(SystemExit) as exit:
        command.main(flags)
    assert exit.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_names_are_those_of_the_experiments():
    found = {name.rstrip("0123456789").rstrip("-") for name in paper.experiments()}
    assert found == set(paper.NAMES)


def test_quick_experiments_are_short_and_choose_nothing():
    for experiment in paper.experiments(quick=True).values():
        assert len(experiment.wds) == 1
        if recipe := experiment.recipe:
            # Of all rows at once, an epoch is a single step.
            for one in recipe.recipes:
                assert one.num_epochs <= (20 if one.batch_size else 100)
