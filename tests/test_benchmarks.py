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


def test_a_copy_has_a_part_of_the_ratings_or_another_scale(ratings):
    for part in (2, 10, 30):
        thinned, again = (anywhere.COPIES[f"1/{part}"](ratings).data for _ in range(2))
        assert len(thinned) == -(-ratings.num_ratings // part)
        assert len(thinned.merge(ratings.data)) == len(thinned)
        assert thinned.equals(again)
    for copy, given, offset in (
        ("1-10", [1, 3.25, 5.5, 7.75, 10], 0),
        ("0-100", [0, 25, 50, 75, 100], 1),
    ):
        scaled = anywhere.COPIES[copy](ratings)
        assert scaled.rating_offset == offset
        expected = [given[int(r) - 1] for r in ratings.data["rating"]]
        assert scaled.data["rating"].tolist() == expected


def test_a_copy_of_users_has_all_of_their_ratings(ratings):
    kept = anywhere.of_users(7, ratings)
    assert kept.num_users == 7
    assert kept.num_ratings == ratings.data["user_id"].isin(kept.user_ids).sum()


def test_a_training_is_not_done_again(do, tmp_path):
    flags = ["--only", "ml-100k,ml-100k:0-100", "--models", "biases"]
    first = do(*flags)
    written = (tmp_path / "anywhere.json").stat().st_mtime_ns
    assert do(*flags) == first
    assert (tmp_path / "anywhere.json").stat().st_mtime_ns == written
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


def older(settings):
    """Give recipes a setting that is no more, and take one that came later."""
    if isinstance(settings, (list, tuple)):
        return [older(one) for one in settings]
    if not isinstance(settings, dict):
        return settings
    found = {key: older(one) for key, one in settings.items() if key != "balance"}
    return {**found, "removed": 1} if "schedule" in found else found


@pytest.mark.parametrize("title", ["book", "best", "book:lr=1/2"])
def test_a_record_that_is_older_than_a_setting_is_found(tmp_path, title):
    settings = Contender.parse(title).make(None, []).settings
    assert "removed" in str(older(settings))
    kept = Records(tmp_path / "kept.json", "")
    kept.records = [{"settings": older(settings), "rmse": 0.5}]
    kept.save()
    again = Records(kept.file, "")
    assert again.find(settings=settings) == again.records
    assert len(again.records) == 1


# The page of figures


def test_the_page_is_what_the_records_say():
    written = (results.DOCS / "results.md").read_text(encoding="utf-8")
    assert results.page(results.DOCS / "results") == written


def test_the_page_has_what_today_s_settings_gave_and_marks_older_code(tmp_path):
    kept = Records(tmp_path / "ml-1m.json", "command")
    code = {"revision": REVISION, "d2l_autorec": __version__, "date": "2026-01-02"}
    kept.records = [
        {"split": f"seed {n}", "part": part, "rmse": 0.5, **code}
        | {"settings": experiments()["mf"].settings(wd)}
        for n, part, wd in [
            (0, "test", 1.0),
            (1, "test", 1.0),
            (0, "validation", 1.25),
            (0, "test", 77.0),
        ]
    ]

    def line():
        kept.save()
        (row,) = [r for r in results.page(tmp_path).splitlines() if "BiasedMF" in r]
        return [cell.strip() for cell in row.split("|")[1:-1]]

    command = "`python -m d2l_autorec.paper --dataset ml-1m --only mf`"
    current = f"{__version__}, revision {REVISION}"
    rmse = "0.5000 ± 0.000 (**2 of 5 runs**)"
    about = ["ml-1m", "random", "BiasedMF", rmse, command]
    assert line() == [*about, "2026-01-02", current]
    del kept.records[0]["revision"]
    assert line() == [*about, "2026-01-02", f"**older**, {current}"]
