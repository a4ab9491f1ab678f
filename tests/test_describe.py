"""The command that describes a file of ratings."""

import pandas as pd
import pytest


@pytest.fixture
def describe(command, tmp_path):
    """Describe rows of a file: the lines that are printed."""

    def describe(rows, *flags):
        file = tmp_path / "log.csv"
        pd.DataFrame(rows).to_csv(file, index=False, header=False)
        code, out, err = command("describe", file, *flags)
        assert (code, err) == (0, "")
        return out.splitlines()

    return describe


ROWS = [
    *[(1, item, 4, 978_300_000 + item) for item in range(1, 7)],
    *[(2, 1, 0, 1_009_900_000), (3, 1, 0, 978_300_000), (3, 1, 2, 978_300_000)],
]


def test_it_says_what_is_in_the_file(describe, tmp_path):
    lines = describe(ROWS, "--plot", tmp_path / "d.png")
    assert lines[0].startswith("log.csv: 3 users x 6 items, 8 ratings from 0 to 4")
    assert lines[1:6] == [
        "values: 3 different ones, the most frequent 4 (75.0%), 0 (12.5%), 2 (12.5%); "
        "0: 12.5%",
        "ratings of a user: 1 to 6, half of them 1 to 3.5, median 1",
        "ratings of an item: 1 to 3, half of them 1 to 1, median 1",
        "repeated pairs of user and item: 1 rows, settled by --duplicates last",
        "times: 2000-12-31 to 2002-01-01",
    ]
    assert lines[6].startswith("train --preset best fits; an estimate")
    assert (tmp_path / "d.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("unit", "said"), [(10**3, "2000-12-31"), (10**6, "2000-12-31"), (1e-3, "978,300")]
)
def test_times_have_dates_if_they_are_of_some_unit(describe, unit, said):
    rows = [(user, item, rating, int(time * unit)) for user, item, rating, time in ROWS]
    assert describe(rows)[5].startswith(f"times: {said}")


def test_flags_of_reading_are_those_of_train(describe):
    rows = [(rating, user, item) for user, item, rating, _ in ROWS]
    lines = describe(rows, "--columns", "2,3,1", "--missing", "0")
    assert "2 users x 6 items, 7 ratings from 2 to 4" in lines[0]
    assert lines[4:6] == ["repeated pairs of user and item: none", "times: none"]


def test_equal_values_are_for_lists(describe):
    assert "--feedback implicit" in describe([row[:2] for row in ROWS])[-1]


def test_a_file_that_is_not_there_is_one_line(command):
    code, _, err = command("describe", "nowhere.csv")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "nowhere.csv" in err
