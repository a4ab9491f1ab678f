"""Reading ratings: any layout, values, identity, and what is refused."""

import gzip
import json
import logging
import re
import subprocess
import sys
import zipfile

import duckdb
import numpy as np
import pandas as pd
import pytest

from d2l_autorec.errors import DataError
from d2l_autorec.ratings import (
    Ratings,
    ratings_from_frame,
    read_parts,
    read_ratings,
    read_table,
    read_titles,
    reading,
    values,
)

ROWS = [(1, 10, 4.0, 7), (2, 11, 3.5, 8), (2, 10, 0.5, 9)]
PLAIN = "1,10,4,7\n2,11,3.5,8\n2,10,0.5,9\n"
NAMED = "user,item,rating,timestamp\n" + PLAIN
DATES = PLAIN.replace(",7", ",1970-01-01 00:00:07").replace(
    ",8", ",1970-01-01T00:00:08Z"
)
DATES = DATES.replace(",9", ",1970-01-01 01:00:09+01:00")
OBJECTS = [dict(zip(("user", "item", "rating", "time"), row)) for row in ROWS]


def rows(ratings, part=None):
    table = ratings.frame(part)
    return [tuple(row) for row in table.itertuples(index=False, name=None)]


def separated(mark, text=PLAIN):
    return text.replace(",", mark)


def made_by_duckdb(sql, options="FORMAT parquet"):
    """Bytes of a file that DuckDB writes of a query."""

    def write(path):
        duckdb.connect().execute(f"COPY ({sql}) TO '{path}' ({options})")

    return write


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/x", "x")
        archive.writestr("folder/f.csv", PLAIN)


VALUES = "(VALUES (1, 10, 4.0, 7), (2, 11, 3.5, 8), (2, 10, 0.5, 9)) AS t"


def typed(user, item, rating, time, note):
    """A layout: Parquet with columns of these types."""
    sql = (
        f"SELECT u::{user} AS userId, i::{item} AS itemId, r::{rating} AS rating, "
        f"{time} AS timestamp, {note} AS note FROM {VALUES}(u, i, r, t)"
    )
    return "f.parquet", made_by_duckdb(sql), {}


# A file's name, what is in it (or what writes it), and options; each holds ROWS.
LAYOUTS = {
    "comma": ("f.csv", PLAIN, {}),
    "tab": ("u.data", separated("\t"), {}),
    "semicolon": ("f", separated(";"), {}),
    "bar": ("f", separated("|"), {}),
    "colons": ("ratings.dat", separated("::"), {}),
    "space": ("f", separated(" "), {}),
    "runs of spaces": ("f", separated("   "), {}),
    "spaces around": ("f", "  1 10  4 7 \n2 11 3.5 8\n2 10  0.5 9\n", {}),
    "spaces and tabs": ("f", "1 10 4\t7\n2 11 3.5\t8\n2 10 0.5\t9\n", {}),
    "space behind comma": ("f", separated(", "), {}),
    "header": ("f", NAMED, {}),
    "capitals and spaces": ("f", "User ID,Item ID,Rating,Time\n" + PLAIN, {}),
    "types in the header": (
        "f.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + separated("\t"),
        {},
    ),
    "nameless index": (
        "f",
        ",user,item,rating,time\n0,1,10,4,7\n1,2,11,3.5,8\n2,2,10,0.5,9\n",
        {},
    ),
    "other columns": (
        "f",
        'rating,note,movie,customer,ts\n4,"a, b",10,1,7\n3.5,,11,2,8\n0.5,"x",10,2,9\n',
        {},
    ),
    "header of spaces": ("f", separated(" ", NAMED), {}),
    "columns by name": (
        "f",
        "when,score2,who,what\n7,4,1,10\n8,3.5,2,11\n9,0.5,2,10\n",
        {"columns": ["who", "what", "score2", "when"]},
    ),
    "columns by position": (
        "f",
        "7,4,1,10\n8,3.5,2,11\n9,0.5,2,10\n",
        {"columns": [3, 4, 2, 1]},
    ),
    "quotes": ("f", '"1","10","4","7"\n2,"11",3.5,8\n2,10,"0.5",9\n', {}),
    "windows": ("f", PLAIN.replace("\n", "\r\n"), {}),
    "old mac": ("f", PLAIN.replace("\n", "\r"), {}),
    "mixed ends": ("f", PLAIN.replace("\n", "\r\n", 1), {}),
    "no last end": ("f", PLAIN.rstrip(), {}),
    "blank lines": ("f", "\n\n" + PLAIN.replace("\n", "\n \n\n"), {}),
    "mark of UTF-8": ("f", "\ufeff" + NAMED, {}),
    "UTF-16": ("f", NAMED.encode("utf-16"), {}),
    "UTF-16 big": ("f", b"\xfe\xff" + PLAIN.encode("utf-16-be"), {}),
    "latin-1": (
        "f",
        "user,item,rating,time,été\n".encode("latin-1")
        + PLAIN.replace("\n", ",é\n").encode("latin-1"),
        {"encoding": "latin-1"},
    ),
    "decimal commas": ("f", separated(";").replace(".", ","), {}),
    "decimal commas, tabs": ("f", separated("\t").replace(".", ","), {}),
    "exponents": ("f", PLAIN.replace("0.5", "5e-1").replace(",4,", ",+4.0,"), {}),
    "gzip": ("f.csv.gz", gzip.compress(PLAIN.encode()), {}),
    "gzip of UTF-16": ("f.gz", gzip.compress(NAMED.encode("utf-16")), {}),
    "zip": ("f.zip", zipped, {}),
    "zstd": (
        "f.csv.zst",
        made_by_duckdb(f"FROM {VALUES}", "FORMAT csv, HEADER false, COMPRESSION zstd"),
        {},
    ),
    "dates": ("f", DATES, {}),
    "dates with a header": ("f", "user,item,stars,date\n" + DATES, {}),
    "fractions of seconds": ("f", re.sub(r",(\d)\n", r",\1.0\n", PLAIN), {}),
    "a later fraction": ("f", PLAIN.replace(",9\n", ",9.0\n"), {}),
    "JSON lines": ("f.json", "\n".join(map(json.dumps, OBJECTS)), {}),
    "JSON array": ("f.json", json.dumps(OBJECTS, indent=1), {}),
    "Parquet": typed("INT", "BIGINT", "DOUBLE", "t::BIGINT", "'a\nb'"),
    "Parquet of small types": typed("UTINYINT", "SMALLINT", "FLOAT", "t::INT", "[1]"),
    "Parquet of texts": typed(
        "VARCHAR", "VARCHAR::BLOB", "DECIMAL(4, 1)", "t::UINTEGER", "1"
    ),
    "Parquet of moments": typed("INT", "INT", "FLOAT", "to_timestamp(t)", "NULL"),
}


def write(path, content):
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read(layout, tmp_path):
    name, content, options = LAYOUTS[layout]
    write(tmp_path / name, content)
    ratings = read_ratings(tmp_path / name, **options)
    assert rows(ratings) == ROWS
    assert ratings.name == name
    assert ratings.user_index.dtype == ratings.item_index.dtype == np.int32
    assert (ratings.rating.dtype, ratings.timestamp.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("pattern", ["", "log-*.csv", "list"])
def test_several_files_are_one_table(pattern, tmp_path):
    lines = PLAIN.splitlines(keepends=True)
    names = ["log-1.csv", "log-2[x].csv"]
    for name, text in zip(names, ("".join(lines[:2]), lines[2])):
        (tmp_path / name).write_text(text)
    path = [tmp_path / n for n in names] if pattern == "list" else tmp_path / pattern
    assert rows(read_ratings(path)) == ROWS
    (tmp_path / names[1]).write_text("2,10,x,9\n")
    with pytest.raises(DataError, match=r"log-2\[x\].csv:1: rating 'x' is not"):
        read_ratings(path)


@pytest.mark.parametrize(
    ("times", "read"),
    [
        (["1112486027", "1112486028"], [1112486027, 1112486028]),
        (["1112486027123", "5"], [1112486027123, 5]),
        (["1112486027123456789", "1"], [1112486027123456789, 1]),
        (["1.5", "2"], [1_500_000, 2_000_000]),
        (["2005-09-06", "1970-01-01"], [1125964800, 0]),
        (["2005-09-06 00:00:00.25", "1970-01-01"], [1125964800250000, 0]),
    ],
)
def test_times_are_exact_integers(times, read, tmp_path):
    lines = zip("ab", "xy", "12", times)
    (tmp_path / "f").write_text("\n".join(",".join(line) for line in lines))
    assert read_ratings(tmp_path / "f").timestamp.tolist() == read


HUGE = "x" * 1_000_000
IDS = [
    *(["01", "1"], ["1.0", "1"], ["NA", "null"], ["nan", "None"], ["a b", "a  b"]),
    *(["é", "e\u0301"], ["\U0001f600", "日本"], ["'", "`"], ["#a", "-"], ["+1", "1"]),
    *(["true", "false"], ["1e3", "1000"], [HUGE, "x"], ["a ", "a"], ["\ufeff1", "1"]),
    *(["9223372036854775808", "1"], ["2020-01-01", "2"], ["\\N", "\\"]),
]


@pytest.mark.parametrize("ids", IDS, ids=range(len(IDS)))
@pytest.mark.parametrize("kind", ["csv", "colons", "json", "parquet"])
def test_no_id_changes(ids, kind, tmp_path):
    table = [(ids[0], "x", 1.0), (ids[1], "y", 2.0)]
    path = tmp_path / f"f.{kind}"
    if kind == "json":
        objects = [dict(zip(("user", "item", "rating"), row)) for row in table]
        path.write_text("\n".join(map(json.dumps, objects)))
    elif kind == "parquet":
        con = duckdb.connect()
        con.execute("CREATE TABLE t (user_id VARCHAR, item VARCHAR, rating FLOAT)")
        con.executemany("INSERT INTO t VALUES (?, ?, ?)", table)
        con.execute(f"COPY t TO '{path}'")
    else:
        mark = "," if kind == "csv" else "::"
        lines = [
            mark.join(map(str, row)) for row in [("user", "item", "rating"), *table]
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
    ratings = read_ratings(path)
    assert [row[0] for row in rows(ratings)] == ids
    assert ratings.user_ids.tolist() == sorted(ids)


def test_quoted_ids_may_hold_separators_quotes_and_ends_of_lines(tmp_path):
    (tmp_path / "f").write_text('"a,b",x,1\n"a""b",y,2\n"a\nb",x,3\n5" disk,y,1\n')
    found = [row[0] for row in rows(read_ratings(tmp_path / "f"))]
    assert found == ["a,b", 'a"b', "a\nb", '5" disk']


def test_integers_are_integers_only_if_all_are(tmp_path):
    (tmp_path / "f").write_text(f"-5,7,1\n{2**63 - 1},8,2\n")
    ratings = read_ratings(tmp_path / "f")
    assert ratings.user_ids.tolist() == [-5, 2**63 - 1]
    (tmp_path / "f").write_text("10,7,1\n9,08,2\n")
    ratings = read_ratings(tmp_path / "f")
    assert ratings.user_ids.tolist() == [9, 10]
    assert ratings.item_ids.tolist() == ["08", "7"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_first_mark_is_the_encodings_and_a_second_is_of_an_id(encoding, tmp_path):
    (tmp_path / "f").write_bytes("1,x,1\n2,y,2\n".encode(encoding))
    assert read_ratings(tmp_path / "f").user_ids.tolist() == [1, 2]
    (tmp_path / "f").write_bytes("\ufeff1,x,1\n2,y,2\n".encode(encoding))
    assert read_ratings(tmp_path / "f").user_ids.tolist() == ["2", "\ufeff1"]


@pytest.mark.parametrize("options", [{}, {"skip_bad_lines": True}])
def test_rows_are_fetched_in_blocks(options, tmp_path, monkeypatch):
    for module in (reading, values):
        monkeypatch.setattr(module, "BLOCK", 2)
    (tmp_path / "f").write_text(PLAIN + "3,10,1,5\n" + "3,11,2,6\n")
    found = rows(read_ratings(tmp_path / "f", **options))
    assert found == [*ROWS, (3, 10, 1.0, 5), (3, 11, 2.0, 6)]


GOOD = "1,10,4,7\n2,11,3,8\n"
COUNTED = "Expected Number of Columns: 4 Found"
# A file's content, options, and what is said of it.
REFUSED = {
    "empty": ("", {}, "f: is empty"),
    "blank": ("\n \n", {}, "f: is empty"),
    "header alone": ("user,item,rating\n", {}, "f: holds no ratings"),
    "one user": ("1,10,4\n1,11,3\n", {}, "f: holds 2 ratings and only 1 user;"),
    "one item": ("1,10,4\n2,10,3\n", {}, "f: holds 2 ratings and only 1 item;"),
    "few columns": (
        GOOD + "1,12,5\n",
        {},
        f"f:3: {COUNTED}: 3: '1,1",
    ),
    "many columns": (
        GOOD + "1,2,3,4,5\n",
        {},
        f"f:3: {COUNTED}: 5",
    ),
    "few spaces": (
        separated(" ", GOOD) + "\n1 12 5\n",
        {},
        f"f:4: {COUNTED}: 3: '1 12 5'",
    ),
    "no user": (GOOD + ",12,5,9\n", {}, "f:3: the user is empty"),
    "no item": (GOOD + "1,  ,5,9\n", {}, "f:3: the item is empty"),
    "no rating": (GOOD + "1,12,,9\n", {}, "f:3: the rating is empty"),
    "no time": (GOOD + "1,12,5,\n", {}, "f:3: the timestamp is empty"),
    "word": (GOOD + "\n1,12,good,9\n", {}, "f:4: rating 'good' is not a finite"),
    "nan": (GOOD + "1,12,nan,9\n", {}, "f:3: rating 'nan' is not a finite"),
    "inf": (GOOD + "1,12,-inf,9\n", {}, "f:3: rating '-inf' is not a finite"),
    "1e39": (GOOD + "1,12,1e39,9\n", {}, "f:3: rating '1e39' is not a finite"),
    "underscore": (GOOD + "1,12,1_0,9\n", {}, "f:3: rating '1_0' is not a finite"),
    "time": (GOOD + "1,12,5,now\n", {}, "f:3: timestamp 'now' is not a number or a d"),
    "epoch": (GOOD + "1,12,5,epoch\n", {}, "f:3: timestamp 'epoch' is not a number"),
    "quote": (
        GOOD + '1,"12,5,9\n',
        {},
        "f:3: Value with unterminated quote",
    ),
    "first of two": (GOOD + "1,12,x,9\n1,2\n", {}, "f:3: rating 'x'"),
    "second of two": (
        GOOD + "1,2\n1,12,x,9\n",
        {},
        f"f:3: {COUNTED}: 2",
    ),
    "behind a quoted end": (
        'u"ser,item,rating\n"a\nb",x,1\nc,y,x\n'.replace('u"', "u"),
        {},
        "f:4: rating 'x' is not",
    ),
    "repeat": (
        GOOD + "\n1,10,5,9\n1,10,3,9\n",
        {},
        "f:4: user 1 rates item 10 again; 2 ratings repeat a pair",
    ),
    "zero byte": (GOOD + "1,1\0,3,4\n", {}, "f:3: holds a zero byte"),
    "not UTF-8": (b"1,10,4\n2,\xe9,3\n", {}, "f:2: is not utf-8"),
    "not UTF-8 further on": (
        (GOOD * 400_000).encode() + b"2,\xe9,3,3\n",
        {},
        "f:800001: is not utf-8",
    ),
    "no such encoding": (GOOD, {"encoding": "klingon"}, "unknown encoding 'klingon'"),
    "words": ("hello\nworld\n", {}, "f:1: 'hello' does not have the 3 columns"),
    "two words": ("a b\n", {}, "f: holds 1 ratings and only 1 user"),
    "unknown header": ("a,b,c,d\n1,2,3,4\n", {}, "f:1: cannot tell which columns are"),
    "two users": (
        "user,userId,item,rating\n1,1,2,3\n",
        {},
        "f:1: the columns 'user' and 'userId' may both be the user; give their names "
        "or positions, such as --columns user,item,rating",
    ),
    "no such column": (
        "user,item,rating\n1,2,3\n",
        {"columns": ["who", "item", "rating"]},
        "f: no column 'who' among 'user, item, rating'",
    ),
    "one column twice": (GOOD, {"columns": [1, 1, 2]}, "f: two of the columns"),
    "names without a header": (
        GOOD,
        {"columns": ["1", "2", "x"]},
        "f: no column 'x' among",
    ),
    "Parquet without usual names": (
        made_by_duckdb("SELECT 1 AS a, 2 AS b, 3 AS c"),
        {},
        "f:1: cannot tell which columns are user, item and rating among 'a, b, c'",
    ),
    "matrix": (",".join(["7.5", "99"] * 50), {}, "f:1: has 100 numbers, as a matrix"),
    "gzip cut off": (gzip.compress(GOOD.encode() * 99)[:30], {}, "f: damaged or enc"),
    "zip cut off": (b"PK\x03\x04...", {}, "f: damaged or encrypted archive"),
    "zstd damaged": (b"\x28\xb5\x2f\xfd" + b"x" * 50, {}, "f: "),
    "Parquet cut off": (b"PAR1" + b"x" * 50, {}, "f: "),
    "Feather": (b"ARROW1\0\0" + b"x" * 50, {}, "f:1: holds a zero byte"),
    "JSON damaged": ('{"user": 1, "item": 2,\n', {}, "f: "),
    "JSON nested": (
        '{"user": {"a": 1}, "item": 2, "rating": 3}\n',
        {},
        "f: column 'user' is nested (STRUCT",
    ),
    "JSON without a rating": (
        json.dumps(OBJECTS[:2] + [{"user": 5, "item": 6, "time": 1}]),
        {},
        "f: row 3: the rating is empty",
    ),
    "nested ids": (
        made_by_duckdb("SELECT [1] AS user, 2 AS item, 3 AS rating"),
        {},
        "f: column 'user' is nested (INTEGER[]), not user",
    ),
    "log of a negative": (
        "1,10,-4\n2,11,3\n",
        {"transform": "log"},
        "f: a rating of -4 has no log",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_first_thing_wrong_is_one_line(case, tmp_path):
    content, options, said = REFUSED[case]
    write(tmp_path / "f", content)
    with pytest.raises(DataError) as caught:
        read_ratings(tmp_path / "f", **options)
    message = str(caught.value).replace(f"{tmp_path}/", "")
    assert message.startswith(said)
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nothing", "a*", "folder"])
def test_a_path_without_a_file_is_refused(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / name}: no such file")):
        read_ratings(tmp_path / name)


def test_files_of_two_layouts_are_refused(tmp_path):
    (tmp_path / "1").write_text(PLAIN)
    (tmp_path / "2").write_text(separated(";"))
    with pytest.raises(DataError, match="2: is laid out unlike .*1$"):
        read_ratings(tmp_path)


def test_blank_lines_of_a_small_archive_are_answered(tmp_path):
    with gzip.open(tmp_path / "f.gz", "wb", 1) as file:
        for _ in range(30):
            file.write(b"\n" * 1_000_000)
    with pytest.raises(DataError, match="f.gz: is empty"):
        read_ratings(tmp_path / "f.gz")


@pytest.mark.parametrize(
    ("duplicates", "rating"),
    [("last", 2.0), ("mean", 3.0), ("sum", 9.0), ("max", 5.0)],
)
def test_repeated_pairs_become_one(duplicates, rating, tmp_path):
    text = "1,10,2\n2,11,3\n1,10,5\n2,12,4\n1,10,2\n"
    (tmp_path / "f").write_text(text)
    kept = [(2, 11, 3.0), (2, 12, 4.0), (1, 10, rating)]
    assert rows(read_ratings(tmp_path / "f", duplicates=duplicates)) == kept
    frame = pd.read_csv(tmp_path / "f", names=["user", "item", "rating"])
    assert rows(ratings_from_frame(frame, duplicates=duplicates)) == kept


@pytest.mark.parametrize(
    ("values", "trained", "said"),
    [
        ([0, 10], [1, 11], "from 0 to 10 (mean 5.00), trained on 1 to 11"),
        ([-10, 10], [1, 21], "from -10 to 10 (mean 0.00), trained on 1 to 21"),
        ([1, 5], [1, 5], "from 1 to 5 (mean 3.00), 50"),
        ([0.5, 5], [0.5, 5], "from 0.5 to 5 (mean 2.75), 50"),
    ],
)
def test_a_scale_is_shifted_inside_alone(values, trained, said, tmp_path):
    (tmp_path / "f").write_text(f"1,10,{values[0]}\n2,11,{values[1]}\n")
    ratings = read_ratings(tmp_path / "f")
    assert ratings.rating.tolist() == trained
    assert ratings.data["rating"].tolist() == values
    assert said in ratings.summary()


def test_missing_values_are_left_out_with_their_ids(tmp_path):
    (tmp_path / "f").write_text("1,10,0\n2,11,3\n3,12,4\n2,12,0\n")
    ratings = read_ratings(tmp_path / "f", missing=0)
    assert rows(ratings) == [(2, 11, 3.0), (3, 12, 4.0)]
    frame = pd.read_csv(tmp_path / "f", names=["user", "item", "rating"])
    assert rows(ratings_from_frame(frame, missing=0)) == rows(ratings)
    with pytest.raises(DataError, match="f: holds no ratings"):
        (tmp_path / "f").write_text("1,10,0\n2,11,0\n")
        read_ratings(tmp_path / "f", missing=0)


def test_logs_of_counts(tmp_path):
    (tmp_path / "f").write_text("1,10,0\n2,11,99\n")
    ratings = read_ratings(tmp_path / "f", transform="log")
    assert ratings.rating_offset == 1
    assert ratings.data["rating"].tolist() == pytest.approx([0, np.log(100)])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 0, 3, 4, 5], "40% of the ratings are 0, which may mean no rating; --miss"),
        ([-1, -1, 3, 4, 5], "40% of the ratings are -1, which may mean watched"),
        ([1, 2, 3, 4, 101], ""),
        ([1, 2, 1, 2, 101], "the largest rating, 101, is more than 50 times"),
        ([0, 2, 3, 4, 5], ""),
    ],
)
def test_values_that_may_be_no_ratings_are_noted(values, said, tmp_path, caplog):
    lines = [f"{n % 2},{n},{value}\n" for n, value in enumerate(values)]
    (tmp_path / "f").write_text("".join(lines))
    with caplog.at_level(logging.WARNING):
        read_ratings(tmp_path / "f")
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_bad_lines_are_skipped_and_counted(tmp_path, caplog):
    (tmp_path / "f").write_text("1,10,4\nx\n2,11,3\n2,12,bad\n,1,1\n\n3,12,5\n")
    ratings = read_ratings(tmp_path / "f", skip_bad_lines=True)
    assert rows(ratings) == [(1, 10, 4.0), (2, 11, 3.0), (3, 12, 5.0)]
    assert "3 lines were skipped, the first of them: " in caplog.text
    assert "f:2: Expected Number of Columns: 3 Found: 1" in caplog.text
    (tmp_path / "f").write_text("1,10,4\nx\n2,11,3\n1,10,5\n")
    with pytest.raises(DataError, match="f:4: user 1 rates item 10 again"):
        read_ratings(tmp_path / "f", skip_bad_lines=True)


def test_an_unusual_first_line_that_is_taken_for_a_header_is_named(tmp_path, caplog):
    (tmp_path / "f").write_text("a,b,c\nx,y,4\nz,w,5\n")
    assert len(rows(read_ratings(tmp_path / "f", columns=[1, 2, 3]))) == 2
    assert "f:1: 'a, b, c' is taken for a header" in caplog.text


@pytest.mark.parametrize("options", [{"duplicates": "first"}, {"transform": "sqrt"}])
def test_unknown_words_are_refused(options, tmp_path):
    with pytest.raises(ValueError, match="is one of"):
        read_ratings(tmp_path / "f", **options)


@pytest.fixture
def two_files(tmp_path):
    def write(train, test):
        files = tmp_path / "train.csv", tmp_path / "test.csv"
        for file, text in zip(files, (train, test)):
            file.write_text(text)
        return files

    return write


def test_a_split_in_two_files_has_the_users_and_items_of_either(two_files):
    files = two_files("1,10,4,7\n2,11,3,8\n", "1,12,0\n")
    ratings, train_rows, test_rows = read_parts(*files)
    assert (ratings.name, ratings.rating_offset) == ("train.csv", 1.0)
    assert ratings.user_ids.tolist() == [1, 2]
    assert ratings.item_ids.tolist() == [10, 11, 12]
    assert rows(ratings, train_rows) == [(1, 10, 4.0), (2, 11, 3.0)]
    assert rows(ratings, test_rows) == [(1, 12, 0.0)]


def test_ids_of_two_files_are_integers_only_if_they_are_in_both(two_files):
    ratings, train_rows, _ = read_parts(*two_files("1,10,4\n2,11,3\n", "x,10,5\n"))
    assert ratings.user_ids.tolist() == ["1", "2", "x"]
    assert rows(ratings, train_rows)[0] == ("1", 10, 4.0)


@pytest.mark.parametrize("duplicates", ["error", "last"])
def test_a_pair_in_both_files_is_refused(duplicates, two_files):
    files = two_files("1,10,4\n2,11,3\n", "5,5,1\n1,10,5\n")
    with pytest.raises(DataError, match="test.csv:2: user 1 rates item 10 again; 1 "):
        read_parts(*files, duplicates=duplicates)


def test_repeats_within_a_part_are_settled_there(two_files):
    files = two_files("1,10,4\n2,11,3\n1,10,2\n", "1,11,1\n1,11,5\n")
    ratings, train_rows, test_rows = read_parts(*files, duplicates="mean")
    assert rows(ratings, train_rows) == [(2, 11, 3.0), (1, 10, 3.0)]
    assert rows(ratings, test_rows) == [(1, 11, 3.0)]


def test_tables_of_pairs_ids_and_ratings(tmp_path):
    (tmp_path / "f").write_text("user,item\n1,x\n2,y\n")
    table = read_table(tmp_path / "f", ("user_id", "item_id"))
    assert [*zip(*table.values())] == [(1, "x"), (2, "y")]
    (tmp_path / "f").write_text("a b\nc,d\n")
    found = read_table(tmp_path / "f", ("user_id",))
    assert found["user_id"].tolist() == ["a b", "c,d"]
    (tmp_path / "f").write_text("1;2\t3\n")
    with pytest.raises(DataError, match="can be cut at"):
        read_table(tmp_path / "f", ("user_id", "item_id"))
    (tmp_path / "f").write_text("7,4.5\n8,-1\n")
    found = read_table(tmp_path / "f", ("item_id", "rating"))
    assert [*zip(*found.values())] == [(7, 4.5), (8, -1)]


def test_titles(tmp_path):
    (tmp_path / "f").write_text("7::Seven: so\n8::Eight\n")
    assert read_titles(tmp_path / "f", [7, 9]) == {7: "Seven: so"}
    (tmp_path / "f").write_text("anime_id,name\n7,Seven\n")
    assert read_titles(tmp_path / "f", ["7"]) == {"7": "Seven"}
    (tmp_path / "f").write_text("text,n,key\nSeven,x,7\n")
    found = read_titles(tmp_path / "f", [7], columns=["key", "text"])
    assert found == {7: "Seven"}
    with pytest.raises(DataError, match="such as --title-columns text,n$"):
        read_titles(tmp_path / "f", [7])
    (tmp_path / "f").write_text("7,Seven\n8,Eight\n7,Sieben\n")
    with pytest.raises(DataError, match="f: item 7 has more than one title"):
        read_titles(tmp_path / "f", [7])
    with pytest.raises(DataError, match="f: titles none of the items, but such as"):
        (tmp_path / "f").write_text("7,Seven\n")
        read_titles(tmp_path / "f", [1])


def test_the_table_of_ratings(tmp_path):
    (tmp_path / "f").write_text(PLAIN)
    ratings = read_ratings(tmp_path / "f")
    assert ratings.matrix().toarray().tolist() == [[4.0, 0.5], [0.0, 3.5]]
    assert ratings.matrix(np.array([0, 2])).toarray().tolist() == [[4.0, 0.5], [0, 0]]
    assert rows(ratings, np.array([2, 0])) == [ROWS[2], ROWS[0]]
    assert ratings.frame(np.array([2, 0])).index.tolist() == [2, 0]
    assert (ratings.num_users, ratings.num_items, ratings.num_ratings) == (2, 2, 3)
    assert "f: 2 users x 2 items, 3 ratings from 0.5 to 4" in ratings.summary()
    with pytest.raises(DataError, match="f: all ratings are 3.5, so"):
        ratings.check_varied(np.array([1]))
    with pytest.raises(DataError, match="f: a user rates an item twice"):
        ratings.matrix(np.array([0, 0]))


@pytest.mark.parametrize("rating", [0, -1, np.nan, np.inf, 1e-40])
def test_ratings_that_are_not_positive_are_no_table(rating):
    index = np.arange(2, dtype=np.int32)
    values = np.array([1, rating], np.float32)
    with pytest.raises(DataError, match="toy: row 1: rating .* positive float32"):
        Ratings("toy", index, index, values, None, index, index)


FRAME = pd.DataFrame(
    {"stars": [4, 5, 3], "what": ["x", "y", "x"], "who": [7, 7, 9]}, index=[5, 5, 1]
)
WHERE = ["who", "what", "stars"]


def test_ratings_from_a_frame():
    ratings = ratings_from_frame(FRAME, columns=WHERE)
    assert rows(ratings) == [(7, "x", 4.0), (7, "y", 5.0), (9, "x", 3.0)]
    usual = FRAME.set_axis(["Rating", "itemId", "user"], axis=1)
    assert rows(ratings_from_frame(usual)) == rows(ratings)
    assert rows(ratings_from_frame(FRAME[WHERE].set_axis(range(3), axis=1))) == rows(
        ratings
    )
    strings = usual.assign(user=["1", "01", "2"])
    assert ratings_from_frame(strings, name="mine").user_ids.tolist() == [
        "01",
        "1",
        "2",
    ]
    assert FRAME.columns.tolist() == ["stars", "what", "who"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stars": [4, np.nan, 3]}, "row 1: rating nan is not a finite"),
        ({"stars": [4, 1e39, 3]}, "row 1: rating .* is not a finite number in float32"),
        ({"stars": ["4", "5", "3"]}, "rating: .* is not a type of numbers"),
        ({"stars": [True, True, True]}, "rating: bool is not a type of numbers"),
        ({"what": ["x", "", "x"]}, "row 1: the item_id is empty"),
        ({"what": ["x", None, "x"]}, "row 1: the item_id is empty"),
        ({"what": ["x", 1, "x"]}, "column item_id: 'x' of type str is no id"),
        ({"who": pd.to_datetime([7, 7, 9])}, "column user_id: .* is no id"),
        ({"who": [True, True, False]}, "column user_id: .* of type bool is no id"),
        ({"who": [(7,), (7,), (9,)]}, r"column user_id: \(7,\) of type tuple is no id"),
        ({"who": [[7], [7], [9]]}, "column user_id cannot be sorted: unhashable"),
        ({"who": [7.0, 7.0, np.inf]}, "column user_id: inf of type float is no id"),
        ({"who": [7, 7, 2**63]}, f"column user_id: {2**63} of type int is no id"),
        ({"who": [7, 7, 7], "what": [1, 2, 3]}, "holds 3 ratings and only 1 user"),
        ({"who": [7, 9, 7]}, "row 2: user 7 rates item 'x' again; 1 "),
    ],
)
def test_frames_are_refused_for_what_a_file_is(changes, said):
    with pytest.raises(DataError, match=f"^mine: {said}"):
        ratings_from_frame(FRAME.assign(**changes), columns=WHERE, name="mine")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (None, "cannot tell which .* such as --columns what,who,stars"),
        (["who", "what", "how"], "no column 'how' among 'stars, what, who, when'"),
        (["who", "what"], "are not columns of user, item and rating"),
        ([*WHERE, "when"], "timestamp: datetime64.* is not a type of numbers"),
    ],
)
def test_columns_of_frames_that_do_not_fit(columns, said):
    frame = FRAME.assign(when=pd.Timestamp("2020-01-01"))
    with pytest.raises(DataError, match=said):
        ratings_from_frame(frame if columns else FRAME, columns=columns)


@pytest.mark.parametrize("dtype", [object, "string", "str", "category"])
def test_string_ids_of_any_pandas_type_are_strings(dtype):
    table = [("b", "01", 1.0), ("é", "1", 2.0), ("B", "01", 3.0)]
    data = pd.DataFrame(table, columns=["user_id", "item_id", "rating"])
    ratings = ratings_from_frame(data.astype({"user_id": dtype, "item_id": dtype}))
    assert ratings.user_ids.tolist() == ["B", "b", "é"]
    assert {type(raw_id) for raw_id in ratings.user_ids.tolist()} == {str}
    assert ratings.matrix().toarray().tolist() == [[3, 1, 0], [0, 0, 2]]


def test_a_file_is_read_without_pandas_and_duckdb_is_imported_then(tmp_path):
    (tmp_path / "f").write_text(PLAIN)
    code = (
        "import sys; from d2l_autorec.ratings import read_ratings; "
        "assert 'duckdb' not in sys.modules; read_ratings(sys.argv[1]); "
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "f"], check=True)
