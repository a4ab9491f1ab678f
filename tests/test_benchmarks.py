"""The benchmarks that keep records: models on many sets, and the page of figures."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from d2l_autorec import __version__
from d2l_autorec.ratings import load_dataset
from d2l_autorec.study import REVISION, Contender, Records, experiments
from d2l_autorec.training import PRESETS

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import anywhere  # noqa: E402
import results  # noqa: E402


@pytest.fixture
def ratings(small_data):
    return load_dataset("ml-100k")


@pytest.fixture
def do(small_data, tmp_path, capsys):
    """Do the trainings of some sets and models; return the table's rows."""

    def run(*flags, seeds="0-1"):
        anywhere.main(["--out", str(tmp_path), "--seeds", seeds, *flags])
        rows = [row.split("|") for row in capsys.readouterr().out.splitlines()]
        return {row[1].strip(): [c.strip() for c in row] for row in rows if row[1:]}

    return run


@pytest.mark.parametrize(("copy", "part"), [("1/2", 2), ("1/10", 10), ("1/30", 30)])
def test_a_thinned_copy_has_a_part_of_the_ratings(ratings, copy, part):
    thinned = anywhere.COPIES[copy](ratings).data
    assert len(thinned) == -(-ratings.num_ratings // part)
    assert len(thinned.merge(ratings.data)) == len(thinned)
    assert thinned.equals(anywhere.COPIES[copy](ratings).data)


@pytest.mark.parametrize(
    ("copy", "given", "offset"),
    [("1-10", [1, 3.25, 5.5, 7.75, 10], 0), ("0-100", [0, 25, 50, 75, 100], 1)],
)
def test_a_scaled_copy_has_another_scale(ratings, copy, given, offset):
    scaled = anywhere.COPIES[copy](ratings)
    assert scaled.rating_offset == offset
    assert scaled.data["rating"].tolist() == [
        given[int(r) - 1] for r in ratings.data["rating"]
    ]


def test_a_copy_of_users_has_all_of_their_ratings(ratings):
    kept = anywhere.of_users(7, ratings)
    assert kept.num_users == 7
    assert len(kept.data) == ratings.data["user_id"].isin(kept.user_ids).sum()


def test_what_was_trained_is_not_trained_again(do, monkeypatch):
    flags = ["--only", "ml-100k,ml-100k:0-100", "--models", "biases"]
    first = do(*flags)
    monkeypatch.setattr(anywhere, "score", None)
    assert do(*flags) == first
    near, far = (float(first[n][5].split()[0]) for n in ("ml-100k", "ml-100k:0-100"))
    assert far == pytest.approx(25 * near, rel=1e-3)


def test_other_settings_are_trained_again(do, monkeypatch, tmp_path):
    flags = ["--only", "ml-100k", "--models", "book"]
    small = replace(PRESETS["book"], num_hidden=2, num_epochs=1)
    for recipe in (small, replace(small, lr=0.1)):
        monkeypatch.setitem(PRESETS, "book", recipe)
        shown = do(*flags, seeds="0")["ml-100k"][8].split()[0]
        kept = Records(tmp_path / "anywhere.json", "").records
        assert kept[-1]["settings"]["recipe"]["lr"] == recipe.lr
        assert shown == f"{kept[-1]['rmse']:.3f}"
    assert len(kept) == 2


def test_settings_of_a_search_are_those_of_its_candidates():
    model = Contender.parse("biased-mf:wd=1/2:num_factors=3").make(None, [])
    candidates = anywhere.settings_of(model)["candidates"]
    assert [c["wd"] for c in candidates.values()] == [1, 2]
    assert {c["model"] for c in candidates.values()} == {"BiasedMF"}


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ([0.8, 0.9], ("2/2", "")),
        ([0.7, 1.1], ("1/2", "")),
        ([0.8, 1.2], ("1/2", "**not better**")),
        ([], ("", "")),
    ],
)
def test_a_row_says_where_best_is_not_better_than_biases(best, expected):
    biases = {"seed 0": {"rmse": 1.0}, "seed 1": {"rmse": 1.0}}
    found = {f"seed {n}": {"rmse": rmse} for n, rmse in enumerate(best)}
    assert anywhere.verdict(found, biases) == expected


def without(name, settings):
    """Take a setting out, wherever it is."""
    if isinstance(settings, list):
        return [without(name, one) for one in settings]
    if not isinstance(settings, dict):
        return settings
    return {key: without(name, one) for key, one in settings.items() if key != name}


def beside(name, settings):
    """Add a setting, to each recipe."""
    if isinstance(settings, list):
        return [beside(name, one) for one in settings]
    if not isinstance(settings, dict):
        return settings
    found = {key: beside(name, one) for key, one in settings.items()}
    return {**found, name: 1} if "schedule" in found else found


@pytest.mark.parametrize("title", ["book", "best", "book:lr=1/2"])
def test_a_record_that_is_older_than_a_setting_is_found(tmp_path, title):
    settings = anywhere.settings_of(Contender.parse(title).make(None, []))
    older = beside("removed", without("balance", settings))
    assert without("removed", older) != settings
    kept = Records(tmp_path / "kept.json", "")
    kept.keep({"settings": older}, "data", {"rmse": 0.5})
    (found,) = Records(kept.file, "").records
    assert found["settings"] == settings
    assert found["rmse"] == 0.5


# The page of figures


def test_the_page_is_what_the_records_say():
    written = (results.DOCS / "results.md").read_text(encoding="utf-8")
    assert results.page(results.DOCS / "results") == written


def test_the_page_has_what_today_s_settings_gave_and_marks_older_code(tmp_path):
    file = tmp_path / "ml-1m.json"
    kept = Records(file, "command")
    experiment = experiments()["mf"]
    found = {"title": "BiasedMF", "rmse": 0.5}
    for split, part, wd in [
        (0, "test", 1.0),
        (1, "test", 1.0),
        (0, "validation", 1.25),
        (0, "test", 77.0),
    ]:
        settings = experiment.settings(wd)
        kept.keep({"split": split, "part": part, "settings": settings}, "data", found)

    def line():
        (row,) = [r for r in results.page(tmp_path).splitlines() if "BiasedMF" in r]
        return [cell.strip() for cell in row.split("|")[1:-1]]

    command = "`python -m d2l_autorec.paper --dataset ml-1m --only mf`"
    code = f"{__version__}, revision {REVISION}"
    today = kept.records[0]["date"]
    about = ["ml-1m", "random", "paper", "BiasedMF", "0.5000 ± 0.000", "2", command]
    assert line() == [*about, today, code]
    kept.records[0].pop("revision")
    kept.save()
    assert line() == [*about, today, f"**older**, {code}"]
