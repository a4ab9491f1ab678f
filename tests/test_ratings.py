"""Ratings files, good and bad: what is read is what was written, or a clear refusal."""

import csv
import gzip
import io
import math
import os
import random
import re
import shlex
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from d2l_autorec.commands.cli import column_names
from d2l_autorec.errors import DataError
from d2l_autorec.ratings import (
    COLUMNS,
    Ratings,
    parse_ratings,
    ratings_from_frame,
    read_parts,
    read_ratings,
    read_table,
    read_titles,
)
from d2l_autorec.ratings.columns import USUAL
from d2l_autorec.ratings.reading import _Text

PLAIN = b"1,10,4,100\n1,11,3.5,200\n2,10,0.5,300\n"
ROWS = [(1, 10, 4.0, 100), (1, 11, 3.5, 200), (2, 10, 0.5, 300)]


def rows(data):
    return list(data.itertuples(index=False, name=None))


def refusal(raw, **kwargs):
    with pytest.raises(DataError) as caught:
        parse_ratings(raw, "f", **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", ["", "userId,movieId,rating,timestamp\n"])
def test_separators_line_ends_and_headers(separator, end, header):
    text = (header + PLAIN.decode()).replace(",", separator).replace("\n", end)
    assert rows(parse_ratings(text.encode(), "f")) == ROWS


def test_columns_are_found_by_usual_names_in_any_order():
    raw = b"stars,note,Book-ID,User ID\n4,x,b1,u1\n3,y,b2,u2\n"
    assert rows(parse_ratings(raw, "f")) == [("u1", "b1", 4.0), ("u2", "b2", 3.0)]


@pytest.mark.parametrize("columns", [["who", "what", "how"], ["3", "1", "2"]])
def test_columns_by_name_and_by_position(columns):
    raw = b"what,how,who\n7,4,1\n8,3,2\n"
    assert rows(parse_ratings(raw, "f", columns)) == [(1, 7, 4.0), (2, 8, 3.0)]


def test_positions_without_a_header():
    raw = b"7,4,1,x\n8,3,2,y\n"
    assert rows(parse_ratings(raw, "f", ["3", "1", "2"])) == [(1, 7, 4), (2, 8, 3)]


def test_ids_stay_what_they_are():
    data = parse_ratings(b"01,a,1\n1,A,2\n1.0,\xc3\xa9,3\n", "f")
    assert data.user_id.tolist() == ["01", "1", "1.0"]
    assert data.item_id.tolist() == ["a", "A", "é"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((text, text) for text in ("0.0", "1.0", "01", "1e3", "-0", "+1", "1_0")),
        *((text, text) for text in ("nan", "NA", "None", "inf", "True", "0x1", "١")),
        *((text, text) for text in ("1 ", "2020-01-01", "1 days", "9" * 30, "#", "-")),
        (" 1.0", "1.0"),
        ('"1.0"', "1.0"),
        ('" 1"', " 1"),
        ('" "', " "),
    ],
)
def test_no_id_is_taken_for_another_spelling_of_it(written, read):
    """The column's other ids are integers, which must not make one of this."""
    raw = f"{written},7,1\n2,{written},2\n{written},8,3\n".encode()
    data = parse_ratings(raw, "f")
    assert data.user_id.tolist() == [read, "2", read]
    assert data.item_id.tolist() == ["7", read, "8"]


@pytest.mark.parametrize("pair", [("1", "01"), ("1", "1.0"), ("1", "1 "), ("0", "-0")])
def test_spellings_of_one_number_are_two_ids(pair):
    one, other = pair
    data = parse_ratings(f"{one},7,1\n{other},7,2\n{one},8,3\n".encode(), "f")
    assert data.user_id.tolist() == [one, other, one]


@pytest.mark.parametrize("blank", ["", " ", '""'])
def test_an_id_that_looks_empty_is_empty(blank):
    assert "f:2: the user is empty" in refusal(f"1,2,3\n{blank},3,4\n".encode())


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        b"userId,movieId,rating\n1,10,4\n\n01,11,3.5\n",
        b"1::a::4::100\n2::b c::5::200\n",
        b'1.0\t"x"\t4\n2.0\ty\t5\n',
    ],
    ids=["integers", "header", "strings", "quotes"],
)
def test_the_lines_of_a_clean_file_are_not_walked(raw, monkeypatch):
    """Walking them in Python would take a minute for what takes a second."""

    def walk(text, rating_offset):
        pytest.fail("the lines were walked")

    monkeypatch.setattr(_Text, "_raise_first_fault", walk)
    assert len(parse_ratings(raw, "f")) >= 2


def test_ids_that_no_integer_type_holds_are_strings():
    data = parse_ratings(b"1,99999999999999999999,1\n2,5,2\n", "f")
    assert data.item_id.tolist() == ["99999999999999999999", "5"]
    assert data.user_id.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "between", "noun"),
    [
        ("i,user,item,rating", "'i' and 'item'", "item"),
        ("user_id,book,book_id,rating", "'book' and 'book_id'", "item"),
        ("value,user,item,rating", "'value' and 'rating'", "rating"),
        ("user,item,rating,time,timestamp", "'time' and 'timestamp'", "timestamp"),
        ("user,user,item,rating", "'user' and 'user'", "user"),
    ],
)
def test_a_header_that_fits_twice_is_not_guessed(header, between, noun):
    values = ",".join("1234567"[: header.count(",") + 1])
    said = (
        f"f:1: the columns {between} may both be the {noun}; name them, such as --col"
    )
    assert said in refusal(f"{header}\n{values}\n".encode())


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("timestamp,visitorid,event,itemid,transactionid", "visitorid,itemid,event"),
        ("who,what,how", "who,what,how"),
        ("My Score,User Name,anime,n", "'User Name,anime,My Score'"),
        ("user,user,item,rating", "1,3,4"),
        ('n,m,"a,b",c', "1,2,3"),
        ("-x,m,n", "1,2,3"),
        ("1,2,3,4,5", "1,2,3"),
        ("user,item,rating,time,ts", "user,item,rating"),
    ],
)
def test_the_columns_that_are_proposed_are_taken_as_they_are_typed(header, columns):
    width = len(next(csv.reader([header])))
    lines = "".join(",".join([n] * width) + "\n" for n in "67")
    raw = f"{header}\n{lines}".encode()
    assert refusal(raw).endswith(f"name them, such as --columns {columns}")
    data = parse_ratings(raw, "f", column_names(*shlex.split(columns)))
    assert data["rating"].tolist()[-2:] == [6, 7]


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("visitorid,itemid,rating,timestamp", "'visitorid, itemid, rating'"),
        ("date,account,stars,anime_id,my_rating", "'account, anime_id, stars'"),
        ("Customer-No,sku,score,name", "'Customer-No, sku, score'"),
        ("user_id,business_id,stars,useful", "'user_id, business_id, stars'"),
    ],
)
def test_columns_whose_names_hold_a_word_for_user_and_item_are_taken(
    header, taken, logged
):
    fields = header.split(",")
    lines = (",".join(f"{i}{n}" for i in range(1, len(fields) + 1)) for n in (1, 2))
    data = parse_ratings("\n".join([header, *lines]).encode(), "f")
    places = [fields.index(name) + 1 for name in taken.strip("'").split(", ")]
    assert data.iloc[0].tolist()[:3] == [10 * place + 1 for place in places]
    said = f"f: columns {taken} are taken for user, item and rating"
    assert {record.getMessage() for record in logged.records} == {said}


@pytest.mark.parametrize(
    "header",
    [
        "user_no,user_name,item,rating",
        "member,game,gamekey,score",
        "visitor,itemid,event",
    ],
)
def test_what_is_not_the_only_such_column_is_not_taken(header):
    values = ",".join("1234"[: header.count(",") + 1])
    assert "cannot tell which columns" in refusal(f"{header}\n{values}\n".encode())


def test_a_name_that_stands_for_two_columns_is_refused():
    said = refusal(b"u,i,i,r\n1,2,3,4\n", columns=["u", "i", "r"])
    assert "several columns 'i' among 'u, i, i, r'" in said


@pytest.mark.parametrize("first", [b"alice,m1,good\n", b'alice,m1,"4,5"\n', b"a,b,c\n"])
def test_what_may_be_a_rating_is_not_dropped_as_a_header(first):
    said = refusal(first + b"bob,m1,3\ncarol,m2,4\n", columns=["1", "2", "3"])
    assert "may be a header or a rating; name the columns" in said


@pytest.mark.parametrize(
    ("header", "ids"),
    [("User-ID,ISBN,Book-Rating", "b,m"), ("who,what,how", "7,m"), ("a,b,c", "b,8")],
)
def test_positions_leave_out_what_is_surely_a_header(header, ids):
    user, item = ids.split(",")
    raw = f"{header}\n{ids},3\nc{user},n{item},4\n".encode()
    assert len(parse_ratings(raw, "f", columns=["1", "2", "3"])) == 2


def test_a_quoted_id_may_hold_the_separator_of_two_characters():
    data = parse_ratings(b'"a::b"::2::3\nc::"d::"::4\n', "f")
    assert data.user_id.tolist() == ["a::b", "c"]
    assert data.item_id.tolist() == ["2", "d::"]
    data = parse_ratings(b'a::b::c::d\n1::2::3::9\n"4::"::5::6::9\n', "f", list("abc"))
    assert data.user_id.tolist() == ["1", "4::"]


def test_what_stands_in_for_that_separator_is_refused():
    assert "f:2: holds a control character" in refusal(b"1::2::3\na\x1f4::5\n")
    assert parse_ratings(b"a\x1fb,2,3\nc,4,5\n", "f").user_id[0] == "a\x1fb"


def test_faults_that_make_up_for_each_other_are_found():
    """As many separators as there should be; in the wrong lines."""
    lines = [b"1,2,x,y", b"2,3,x,y", b"3,4,x", b"4,5,x,y,z"]
    for one, other, said in ((2, 3, "f:3: 3 columns"), (3, 2, "f:3: 5 columns")):
        raw = b"\n".join([*lines[:2], lines[one], lines[other]]).replace(b"x", b"5")
        assert said in refusal(raw, columns=["1", "2", "3"])
    assert "f:2: 5 columns" in refusal(
        b"user,name,item,rating\n7,Foo,Bar,8,5\n9,10,4\n6,Max,8,1\n"
    )
    assert "f:2: 4 columns where 5" in refusal(
        b'u,i,r,a,b\n"1,2",3,4,5\n2,4,5,6,7\n', columns=list("uir")
    )


@pytest.mark.parametrize("field", ['"a"b', '"a" b', '"a"""b', '""b', '"a" "b"', '"a'])
def test_quotes_out_of_place_are_refused(field):
    assert "f:2: a quote is not closed" in refusal(f"1,2,3\n{field},7,4\n".encode())


@pytest.mark.parametrize(
    "field", ['5" disk', 'a"', 'a""b', '"say ""x"""', '","', '"a "']
)
def test_quotes_in_place_are_read_as_they_are(field):
    expected = next(csv.reader([field]))[0]
    data = parse_ratings(f"1,2,3\n{field},7,4\n{field},8,4\n".encode(), "f")
    assert data.user_id.tolist() == ["1", expected, expected]


def test_lines_are_counted_across_blocks(monkeypatch):
    monkeypatch.setattr("d2l_autorec.ratings.reading._BLOCK", 5)
    assert rows(parse_ratings(PLAIN, "f")) == ROWS
    assert rows(parse_ratings(PLAIN.rstrip(b"\n"), "f")) == ROWS
    assert "f:4: 3 columns" in refusal(PLAIN + b"3,4,5\n")


def test_spaces_before_a_field_do_not_count():
    assert rows(parse_ratings(b'1, 7, 4\n2, "8", 3\n', "f")) == [(1, 7, 4), (2, 8, 3)]


def test_quoted_ids_hold_separators_and_quotes():
    data = parse_ratings(b'"a,b","say ""x""",1\nc,d,2\n', "f")
    assert data.user_id[0] == "a,b"
    assert data.item_id[0] == 'say "x"'


def test_a_byte_order_mark_and_latin_1():
    text = "é,1,4\nb,2,3\n"
    for marks in range(1, 4):
        raw = marks * b"\xef\xbb\xbf" + text.encode()
        assert parse_ratings(raw, "f").user_id[0] == "é"
    assert parse_ratings(text.encode("latin-1"), "f", None, "latin-1").user_id[0] == "é"
    assert parse_ratings(text.encode("utf-16"), "f", None, "utf-16").user_id[0] == "é"


def test_a_rating_offset_shifts_the_scale():
    data = parse_ratings(b"1,1,-1\n2,2,1\n", "f", rating_offset=2)
    assert data.rating.tolist() == [1.0, 3.0]


def test_timestamps_beyond_whole_floats_are_no_integers():
    data = parse_ratings(b"1,1,1,1e300\n2,2,1,5\n", "f")
    assert data.timestamp.tolist() == [1e300, 5.0]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "f: is empty"),
        (b"\n \n", "f: is empty"),
        (b"user,item,rating\n", "no ratings"),
        (b"hello\nworld\n", "f:1: 'hello' does not have the 3 columns"),
        (b"1,2\n3,4\n", "f:1: '1,2' does not have the 3 columns"),
        (b"a,b,c\n1,2,3\n", "f:1: cannot tell which columns"),
        (b"1,2,x\n1,2,3\n", "f:1: rating 'x' is not a finite number"),
        (b"1,2,3\n1,2,x\n", "f:2: rating 'x' is not a finite number"),
        (b"1,2,3\n1,3,\n", "f:2: rating '' is not a finite number"),
        (b"1,2,3\n\n1,3,nan\n", "f:3: rating 'nan' is not a finite"),
        (b"1,2,3\n1,3,-inf\n", "f:2: rating '-inf' is not a finite"),
        (b"1,2,3\n1,3,1e999\n", "f:2: rating '1e999' is not a finite"),
        (b"1,2,3\n1,3,True\n", "f:2: rating 'True' is not a finite"),
        (b"user,item,rating\n1,2,True\n1,3,True\n", "f:2: rating 'True' is not"),
        (b"1,2,3\n1,3,1_0\n", "f:2: rating '1_0' is not a finite"),
        ("1,2,3\n1,3,٣\n".encode(), "f:2: rating '٣' is not a finite"),
        ("1,2,\xa03\n1,3,4\n".encode(), r"f:1: rating '\xa03' is not a finite"),
        (b"1;2;3\n1;3;4,5\n", "f:2: rating '4,5' is not a finite"),
        (b"1,2,3\n1,3,0\n", "f:2: rating '0' is not positive"),
        (b"1,2,3\n1,3,-2\n", "--rating-offset"),
        (b"1,2,3\n,3,4\n", "f:2: the user is empty"),
        (b"1,2,3\n1,,4\n", "f:2: the item is empty"),
        (b"1,2,3\n1,3\n", "f:2: 2 columns where 3 are expected: '1,3'"),
        (b"1,2,3\n1,3,4,5\n", "f:2: 4 columns where 3 are expected"),
        (b"1,2,3,9\n1,3,4\n", "f:2: 3 columns where 4 are expected"),
        (b"1,2,3,9\n1,3,4,monday\n", "f:2: timestamp 'monday' is not a number"),
        (b'1,2,3\n1,"3,4\n5,6,7\n', "f:2: a quote is not closed"),
        (b'1,2,3\n1,"3\n4",4\n5,6,7\n', "f:2: a quote is not closed"),
        (b"1,2,3\n1,3\0,4\n", "f:2: holds a zero byte"),
        (b"1,2,3\n\xe9,2,4\n", "f:2: is not utf-8; name its encoding"),
        (b"1,2,3\n1,3,4\n", "only one user"),
        (b"1,2,3\n2,2,4\n", "only one item"),
        (b"1,2,3\n2,3,4\n\n1,2,5\n", "f:4: user '1' rates item '2' again; 1 ratings"),
    ],
)
def test_refusals_name_line_and_value(raw, said):
    assert said in refusal(raw)


@pytest.fixture
def two_files(tmp_path):
    """Write two files; their paths."""

    def write(train, test):
        files = tmp_path / "train.csv", tmp_path / "test.csv"
        for file, text in zip(files, (train, test)):
            file.write_text(text)
        return files

    return write


def test_a_split_in_two_files_has_the_users_and_items_of_either(two_files):
    files = two_files("1,10,4,7\n2,11,3,8\n", "1,12,0\n")
    ratings, train_rows, test_rows = read_parts(*files, rating_offset=1.0)
    assert (ratings.name, ratings.rating_offset) == ("train.csv", 1.0)
    assert ratings.user_ids.tolist() == [1, 2]
    assert ratings.item_ids.tolist() == [10, 11, 12]
    assert rows(ratings.frame(train_rows)) == [(1, 10, 4.0), (2, 11, 3.0)]
    assert rows(ratings.frame(test_rows)) == [(1, 12, 0.0)]


def test_ids_of_two_files_are_integers_only_if_they_are_in_both(two_files):
    ratings, train_data, _ = read_parts(*two_files("1,10,4\n2,11,3\n", "x,10,5\n"))
    assert ratings.user_ids.tolist() == ["1", "2", "x"]
    assert rows(train_data)[0] == ("1", 10, 4.0)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("1,1,4\n2,2,3\n", "3,1,5\n2,2,4\n", "test.csv: user 2 rates item 2 again"),
        ("1,1,4\n2,2,3\n", "3,1,x\n", "test.csv:1: rating 'x'"),
        ("1,1,4\n", "1,2,3\n", "train.csv: holds 2 ratings and only one user"),
    ],
)
def test_two_files_are_refused_with_what_is_wrong(two_files, train, test, said):
    with pytest.raises(DataError, match=said):
        read_parts(*two_files(train, test))


def test_refusals_of_columns_and_encodings():
    assert "no column 'x'" in refusal(PLAIN, columns=["x", "2", "3"])
    assert "no column '9'" in refusal(PLAIN, columns=["9", "2", "3"])
    for digits in ("9" * 5000, "0" * 5000):
        said = refusal(PLAIN, columns=[digits, "2", "3"])
        assert f"no column '{digits[:57]}...' among" in said
    assert "no column '\uff11'" in refusal(PLAIN, columns=["\uff11", "2", "3"])
    for columns in ([], ["1", "2"], ["1", "2", "3", "4", "5"]):
        said = f"f: {columns} are not columns of user, item and rating"
        assert said in refusal(PLAIN, columns=columns)
    assert rows(parse_ratings(PLAIN, "f", [1, 2, 3, 4])) == ROWS
    assert "are the same" in refusal(b"u,i,r\n1,2,3\n", columns=["u", "1", "r"])
    assert "no column 'who'" in refusal(PLAIN, columns=["who", "2", "3"])
    assert "unknown encoding" in refusal(PLAIN, encoding="latin-99")
    assert "is not utf-16" in refusal(b"1,2,3", encoding="utf-16")


def test_a_bad_first_line_is_no_header():
    assert "f:1: rating 'x'" in refusal(b"1,2,x\n3,4,5\n", columns=["1", "2", "3"])


def test_duplicates():
    raw = b"2,7,1\n1,7,4\n1,8,5\n1,7,2\n"
    assert "1 ratings repeat" in refusal(raw)
    last = parse_ratings(raw, "f", duplicates="last")
    assert rows(last) == [(2, 7, 1), (1, 8, 5), (1, 7, 2)]
    mean = parse_ratings(raw, "f", duplicates="mean")
    assert rows(mean) == [(2, 7, 1), (1, 8, 5), (1, 7, 3)]
    with pytest.raises(ValueError, match="first"):
        parse_ratings(raw, "f", duplicates="first")


def zipped(members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        gzip.compress(PLAIN),
        zipped({"a.csv": PLAIN}),
        zipped({"d/": b"", "d/a.csv": PLAIN, "__MACOSX/d/._a.csv": b"x"}),
        zipped({"a.csv": PLAIN}, zipfile.ZIP_LZMA),
    ],
    ids=["plain", "gzip", "zip", "zip of a Mac", "zip with LZMA"],
)
def test_compressed_files(tmp_path, raw):
    (tmp_path / "f").write_bytes(raw)
    assert rows(read_ratings(tmp_path / "f").data) == ROWS


def encrypted():
    raw = bytearray(zipped({"a.csv": PLAIN}))
    raw[6] |= 1  # of the local header
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # of the central directory
    return bytes(raw)


def unknown_method():
    raw = bytearray(zipped({"a.csv": PLAIN}))
    raw[8] = 77
    raw[raw.index(b"PK\x01\x02") + 10] = 77
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (gzip.compress(PLAIN)[:-9], "damaged"),
        (gzip.compress(PLAIN)[:11] + b"\xff" * 9, "damaged"),
        (zipped({"a.csv": PLAIN})[:-9], "damaged"),
        (encrypted(), "encrypted"),
        (unknown_method(), "damaged"),
        (zipped({"a": b"", "b": b""}), "one file is needed, not 2"),
        (zipped({"d/": b""}), "one file is needed, not 0"),
    ],
    ids=["cut", "altered", "cut zip", "encrypted", "unknown method", "two", "none"],
)
def test_damaged_archives(tmp_path, raw, said):
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(DataError, match=said):
        read_ratings(tmp_path / "f")


@pytest.mark.parametrize("packed", [gzip.compress, lambda raw: zipped({"f": raw})])
def test_an_archive_that_unpacks_to_more_than_its_limit(tmp_path, packed, monkeypatch):
    (tmp_path / "f").write_bytes(packed(PLAIN + 3000 * b"\n"))
    assert rows(read_ratings(tmp_path / "f").data) == ROWS
    monkeypatch.setattr("d2l_autorec.ratings.reading._MAX_UNPACKED", 1 << 11)
    monkeypatch.setattr("d2l_autorec.ratings.reading._BLOCK", 1 << 10)
    with pytest.raises(DataError, match="unpacks to more than .* GiB"):
        read_ratings(tmp_path / "f")


@pytest.mark.parametrize("name", ["pipe", "pipe.parquet", "link"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / ("pipe" if name == "link" else name))
    if name == "link":
        (tmp_path / name).symlink_to("pipe")
    for read in (read_ratings, lambda f: read_table(f, COLUMNS[:2])):
        with pytest.raises(DataError, match=f"{name}: is a pipe or a device"):
            read(tmp_path / name)


def test_a_device_is_not_read():
    with pytest.raises(DataError, match=f"{os.devnull}: is a pipe or a device"):
        read_ratings(os.devnull)


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="not Linux")
def test_no_more_of_a_file_is_read_than_its_size():
    """Of what Linux makes up that is none, and some of it, as kmsg, has no end."""
    with pytest.raises(DataError, match="/proc/version: is empty"):
        read_ratings("/proc/version")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_ratings(tmp_path / "f")
    with pytest.raises(DataError, match="directory"):
        read_ratings(tmp_path)


def test_parquet(tmp_path):
    file = tmp_path / "f.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pyarrow|Parquet"):
        read_ratings(file)


def test_parquet_with_pyarrow(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pd.DataFrame(ROWS, columns=["user", "item", "rating", "timestamp"])
    table.to_parquet(tmp_path / "f.parquet")
    assert rows(read_ratings(tmp_path / "f.parquet").data) == ROWS


@pytest.mark.parametrize(
    "ids",
    [
        [2**53 + 1, 2**53, -5],
        [" a", "a", "a "],
        ["01", "1", "1.0"],
        ["a,b", 'say "x"', "NA"],
        [1.0, 2.0, 3.5],
    ],
    ids=lambda ids: repr(ids[0]),
)
def test_ids_of_parquet_stay_what_they_are(tmp_path, ids):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    data = table(*((raw_id, raw_id, 0.1) for raw_id in ids))
    data.to_parquet(tmp_path / "f.parquet")
    found = read_ratings(tmp_path / "f.parquet").data
    expected = [str(raw_id) if isinstance(raw_id, float) else raw_id for raw_id in ids]
    assert found.user_id.tolist() == found.item_id.tolist() == expected
    assert found.rating.tolist() == [0.1] * 3


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    def read_parquet(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", read_parquet)
    with pytest.raises(DataError, match="f.parquet: .* pip install pyarrow"):
        read_ratings(tmp_path / "f.parquet")


def test_tables_of_two_columns(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"1,b\n2,c\n")
    assert rows(read_table(file, ("user_id", "item_id"))) == [(1, "b"), (2, "c")]
    file.write_bytes(b"rating,item\n4,b\n")
    assert rows(read_table(file, ("item_id", "rating"))) == [("b", 4.0)]
    file.write_bytes(b"a|b,c\n")
    with pytest.raises(DataError, match=r"can be cut at '\|' and at ','"):
        read_table(file, ("user_id", "item_id"))
    file.write_bytes(b"user,item\na|b,c\n")
    assert rows(read_table(file, ("user_id", "item_id"))) == [("a|b", "c")]
    file.write_bytes(b"b,x\n")
    with pytest.raises(DataError, match="which columns are item and rating"):
        read_table(file, ("item_id", "rating"))


@pytest.mark.parametrize(
    ("raw", "names", "expected"),
    [
        (
            b"alice,tea\nbob,milk\n",
            "user_id item_id",
            [("alice", "tea"), ("bob", "milk")],
        ),
        (b"user1,item1\nuser2,item2\n", "user_id item_id", 2),
        (b"user,item\nalice,tea\n", "user_id item_id", [("alice", "tea")]),
        (b"alice\nbob\n", "user_id", [("alice",), ("bob",)]),
        (b"user\n7\n8\n", "user_id", [(7,), (8,)]),
        (b"alice\nb,c\n", "user_id", [("alice",), ("b,c",)]),
        (b"n;user\n1;alice\n", "user_id", [("alice",)]),
        (b'tea,"Tea, green"\n', "item_id title", [("tea", "Tea, green")]),
        (b"movieId,title,x\n1,One|Two,y\n", "item_id title", [(1, "One|Two")]),
    ],
)
def test_words_without_a_header_are_no_header(tmp_path, raw, names, expected):
    (tmp_path / "f").write_bytes(raw)
    found = rows(read_table(tmp_path / "f", names.split()))
    assert found == expected if isinstance(expected, list) else len(found) == expected


@pytest.mark.parametrize(
    ("raw", "columns", "said"),
    [
        (b"user,what\nalice,tea\n", None, r"which columns are user and item among"),
        (b"a,b,c\n", None, "such as --columns a,b, or by position where"),
        (b"who,what\nalice,tea\n", ["user", "what"], "no column 'user' among"),
        (b"alice,tea\nbob\n", None, "f:2: 1 columns where 2 are expected"),
        (b"alice,tea\nbob,\n", None, "f:2: the item is empty"),
    ],
)
def test_tables_of_words_are_refused_in_one_line(tmp_path, raw, columns, said):
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / "f", COLUMNS[:2], columns=columns)


def test_columns_of_tables_of_words(tmp_path):
    (tmp_path / "f").write_bytes(b"a,b,c\nx,y,z\n")
    for columns, expected in (
        (["c", "a"], [("z", "x")]),
        (["3", "1"], [("c", "a"), ("z", "x")]),
    ):
        found = read_table(tmp_path / "f", COLUMNS[:2], columns=columns)
        assert rows(found) == expected


def test_titles_are_of_the_items_that_are_there(tmp_path):
    (tmp_path / "f").write_text("7,Seven\n08,Eight\n9,Nine\n")
    assert read_titles(tmp_path / "f", [7, 8, 9]) == {7: "Seven", 9: "Nine"}
    assert read_titles(tmp_path / "f", ["7", "08"]) == {"7": "Seven", "08": "Eight"}
    with pytest.raises(DataError, match="f: titles none of the items, but such as '7'"):
        read_titles(tmp_path / "f", ["x"])
    (tmp_path / "f").write_text("7,Seven\n8,Eight\n7,Sieben\n")
    with pytest.raises(DataError, match="f: item 7 has more than one title"):
        read_titles(tmp_path / "f", [7])
    (tmp_path / "f").write_text("text,n,key\nSeven,x,7\n")
    with pytest.raises(DataError, match="such as --title-columns text,n, or by pos"):
        read_titles(tmp_path / "f", [7])
    found = read_titles(tmp_path / "f", [7], columns=["key", "text"])
    assert found == {7: "Seven"}
    (tmp_path / "f").write_text("anime_id,name\n7,Seven\n")
    assert read_titles(tmp_path / "f", [7]) == {7: "Seven"}


def test_the_matrix_has_items_in_rows(tmp_path):
    (tmp_path / "f").write_bytes(PLAIN)
    ratings = read_ratings(tmp_path / "f")
    assert ratings.matrix().toarray().tolist() == [[4.0, 0.5], [3.5, 0.0]]
    assert ratings.user_ids.tolist() == [1, 2]
    assert ratings.item_ids.tolist() == [10, 11]


def table(*rows, names=("user_id", "item_id", "rating")):
    return pd.DataFrame(rows, columns=list(names))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (table((1, 2), names=["user", "rating"]), "no column 'user_id' among 'user, r"),
        (table(), "holds no ratings"),
        (table((1, 7, 4.0), (1, 8, np.nan)), "row 1: the rating is missing"),
        (table((1, 7, 4.0), (1, 8, np.inf)), "row 1: rating inf is not a finite"),
        (table((1, 7, 4.0), (1, 8, 0.0), (1, 9, -1.0)), "row 1: rating 0.0 is not"),
        (table((1, 7, 4), (1, 8, -2)), "row 1: rating -2 is not a finite, positive"),
        (table((1, 7, 4.0), (1, 8, 1e39)), "row 1: rating 1e\\+39 is not a finite"),
        (table((1, 7, 4.0), (1, 8, 1e-50)), "row 1: rating 1e-50 is not a finite"),
        (table((1, 7, "4"), (1, 8, "5")), "ratings are numbers, not (object|str)"),
        (table((1, 7, 4), (np.nan, 8, 2)), "row 1: the user_id is missing"),
        (table(("a", "x", 4), ("b", None, 2)), "row 1: the item_id is missing"),
        (table((1, "x", 4), ("b", "y", 2)), "column user_id: 'b' of type str is no id"),
        (table(([1], "x", 4), ([2], "y", 2)), "user_id cannot be sorted: unhashable"),
        (
            table((1, 7, 4), (2, 7, 3), (1, 7, 2), (2, 7, 1)).set_axis(list("abcd")),
            "row c: user 1 rates item 7 again; 2 ratings repeat a pair",
        ),
        (
            table(("a", "x", 4), ("a", "y", 3), ("a", "x", 2)),
            "row 2: user 'a' rates item 'x' again; 1 ratings",
        ),
        (table((1, 7, 4, 5), (1, 8, 2, None), names=COLUMNS), "row 1: the timestamp"),
    ],
)
def test_ratings_made_in_python_are_checked_like_a_file(data, said):
    with pytest.raises(DataError, match=f"^toy: .*{said}") as caught:
        Ratings("toy", data)
    assert "\n" not in str(caught.value)


FRAME = pd.DataFrame(
    {"stars": [4, 5, 3], "what": ["x", "y", "x"], "who": [7, 7, 9]}, index=[5, 5, 1]
)
NAMED = ["who", "what", "stars"]


def test_ratings_from_a_frame():
    ratings = ratings_from_frame(FRAME, columns=NAMED, rating_offset=1.0)
    assert rows(ratings.data) == [(7, "x", 5.0), (7, "y", 6.0), (9, "x", 4.0)]
    assert (ratings.name, ratings.rating_offset) == ("ratings", 1.0)
    assert FRAME.columns.tolist() == ["stars", "what", "who"]
    usual = FRAME.set_axis(["Rating", "itemId", "user"], axis=1)
    assert rows(ratings_from_frame(usual).data) == [
        (7, "x", 4),
        (7, "y", 5),
        (9, "x", 3),
    ]
    plain = FRAME[NAMED].set_axis(range(3), axis=1)
    assert rows(ratings_from_frame(plain).data) == rows(ratings_from_frame(usual).data)
    strings = usual.assign(user=["1", "01", "2"])
    assert ratings_from_frame(strings).user_ids.tolist() == ["01", "1", "2"]


def test_pairs_that_repeat_in_a_frame():
    again = pd.concat([FRAME, FRAME[:1].assign(stars=1)])
    with pytest.raises(DataError, match="ratings: row 3: user 7 rates item 'x' again"):
        ratings_from_frame(again, columns=NAMED)
    for duplicates, rating in (("last", 1.0), ("mean", 2.5)):
        found = ratings_from_frame(again, columns=NAMED, duplicates=duplicates)
        assert rows(found.data) == [(7, "y", 5.0), (9, "x", 3.0), (7, "x", rating)]
    with pytest.raises(ValueError, match="duplicates is one of"):
        ratings_from_frame(again, columns=NAMED, duplicates="first")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stars": [4, np.nan, 3]}, "row 1: the rating is missing"),
        ({"stars": [4, np.inf, 3]}, "row 1: the rating is not finite"),
        ({"stars": [4, 0, 3]}, "row 1: rating 0.0 is not a finite, positive"),
        ({"stars": ["4", "5", "3"]}, "rating: .* is not a type of numbers"),
        ({"stars": [True, True, True]}, "rating: bool is not a type of numbers"),
        ({"what": ["x", "", "x"]}, "row 1: the item_id is empty"),
        ({"what": ["x", None, "x"]}, "row 1: the item_id is missing"),
        ({"what": ["x", 1, "x"]}, "column item_id: 1 of type int is no id"),
        ({"who": pd.to_datetime([7, 7, 9])}, r"column user_id: Timestamp\(.* is no id"),
        (
            {"who": pd.to_timedelta([7, 7, 9])},
            r"column user_id: Timedelta\(.* is no id",
        ),
        ({"who": [True, True, False]}, "column user_id: True of type bool is no id"),
        ({"who": [(7,), (7,), (9,)]}, r"column user_id: \(7,\) of type tuple is no id"),
        ({"who": [b"7", b"7", b"9"]}, "column user_id: b'7' of type bytes is no id"),
        (
            {"what": pd.Series(["x", "\ud800", "x"], FRAME.index, object)},
            r"column item_id: '\\ud800' of type str is no",
        ),
        ({"who": [7.0, 7.0, np.inf]}, "column user_id: inf of type float is no id"),
        ({"who": [7, 7, 2**63]}, f"column user_id: {2**63} of type int is no id"),
        ({"who": [7, 7, 7], "what": [1, 2, 3]}, "holds 3 ratings and only one user"),
    ],
)
def test_frames_are_refused_for_what_a_file_is(changes, said):
    with pytest.raises(DataError, match=f"^mine: {said}"):
        ratings_from_frame(FRAME.assign(**changes), columns=NAMED, name="mine")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            None,
            r"cannot tell which columns .* such as columns=\['what', 'who', 'stars'\]",
        ),
        (["who", "what", "how"], "no one column 'how' among 'stars, what, who'"),
        (["who", "what"], "are not three or four columns"),
        (["who", "what", "what"], "are not three or four columns"),
        ([*NAMED, "when"], "timestamp: datetime64.* is not a type of numbers"),
    ],
)
def test_columns_of_frames_that_do_not_fit(columns, said):
    frame = FRAME.assign(when=pd.Timestamp("2020-01-01"))
    frame = frame if columns and "when" in columns else FRAME
    with pytest.raises(DataError, match=said):
        ratings_from_frame(frame, columns=columns)


@pytest.mark.parametrize("dtype", [object, "string", "str", "category"])
def test_string_ids_of_any_pandas_type_are_strings(dtype):
    data = table(("b", "01", 1.0), ("é", "1", 2.0), ("B", "01", 3.0))
    data = data.astype({"user_id": dtype, "item_id": dtype})
    ratings = Ratings("toy", data)
    assert ratings.user_ids.dtype == ratings.item_ids.dtype == object
    assert ratings.user_ids.tolist() == ["B", "b", "é"]
    assert ratings.item_ids.tolist() == ["01", "1"]
    assert {type(raw_id) for raw_id in ratings.user_ids.tolist()} == {str}
    assert ratings.matrix(data).toarray().tolist() == [[3, 1, 0], [0, 0, 2]]
    others = table(("b", 1, 1.0), ("c", "01", 2.0))
    assert [index.tolist() for index in ratings.indices(others)] == [[1, -1], [-1, 0]]


def test_the_matrix_takes_only_the_ratings_users_and_items():
    ratings = Ratings("toy", table((1, 7, 4.0), (2, 8, 3.0)))
    with pytest.raises(DataError, match="^toy: row 1: user_id 3 is not in the ratings"):
        ratings.matrix(table((1, 8, 4.0), (3, 7, 1.0)))
    with pytest.raises(DataError, match="^toy: row 0: item_id '7' is not in the"):
        ratings.matrix(table((1, "7", 4.0), (1, "8", 1.0)))


def test_the_matrix_adds_no_ratings_up():
    ratings = Ratings("toy", table((1, 7, 4.0), (2, 8, 3.0)))
    with pytest.raises(DataError, match="^toy: row 2: user 1 rates item 8 again; 1 "):
        ratings.matrix(table((1, 8, 4.0), (2, 8, 1.0), (1, 8, 2.0)))


# What a file may hold: ids are any text in one line that does not begin with a space.
ids = st.text(
    st.characters(
        blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters='"\ufeff'
    ),
    min_size=1,
    max_size=8,
).filter(lambda text: text == text.lstrip(" "))
tables = st.dictionaries(
    st.tuples(ids | st.integers(0, 30).map(str), ids | st.integers(0, 30).map(str)),
    st.floats(0.001, 1e6),
    min_size=2,
    max_size=20,
).filter(lambda t: len({u for u, _ in t}) > 1 and len({i for _, i in t}) > 1)


@given(tables, st.sampled_from(["\t", ",", ";", "|"]), st.booleans(), st.booleans())
def test_what_is_written_is_read(table, separator, packed, stamped):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    names = ["user", "item", "rating", "timestamp"]
    writer.writerow(names[: 3 + stamped])
    for number, ((user, item), rating) in enumerate(table.items()):
        writer.writerow([user, item, repr(rating), number][: 3 + stamped])
    data = parse_ratings(out.getvalue().encode(), "f", names[: 3 + stamped])
    assert list(map(str, data.user_id)) == [user for user, _ in table]
    assert list(map(str, data.item_id)) == [item for _, item in table]
    assert data.rating.tolist() == pytest.approx(list(table.values()), rel=1e-12)
    if stamped:
        assert data.timestamp.tolist() == list(range(len(table)))


def strictly(raw):
    """Read line by line with Python's csv module; None if there is any doubt."""
    text = raw.decode("utf-8").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    table = []
    for line in filter(str.strip, lines):
        fields = next(csv.reader([line], skipinitialspace=True, strict=True))
        user, item, *numbers = fields
        if not (
            user and item and len(numbers) in (1, 2) and "_" not in "".join(numbers)
        ):
            return None
        rating, time = (*map(float, numbers), 0)[:2]
        if not (math.isfinite(rating) and math.isfinite(time) and rating > 0):
            return None
        table.append((user, item, rating))
    pairs = [row[:2] for row in table]
    if len(set(pairs)) < len(pairs) or any(len(set(ids)) < 2 for ids in zip(*pairs)):
        return None
    return table


def malformed(rng):
    """Break a good file in some way: change, drop, double or cut bytes and fields."""
    lines = [
        [str(n % 7), str(n), f"{rng.randrange(1, 11) / 2}", str(n * 100)]
        for n in range(rng.randrange(2, 12))
    ]
    for _ in range(rng.randrange(1, 4)):
        line = rng.choice(lines)
        where = rng.randrange(len(line)) if line else 0
        odd = rng.choice(
            ["", "nan", "inf", "-1", "0", "True", "1e400", "x", '"', "'", '"a', "1_0"]
            + ["\0", "\r", "\n", " ", ",", ",,", "0x1", "١", "é", "NA", "None", "1.5.2"]
            + ["9" * 30, "-" + "9" * 30, "+1", " 1", "1 ", "01", "1e-320", "::", ";"]
        )
        if rng.random() < 0.3:
            line.insert(where, odd)
        elif rng.random() < 0.2:
            del line[where:]
        elif line:
            line[where] = odd
    raw = bytearray("\n".join(map(",".join, lines)).encode())
    for _ in range(rng.randrange(3)):
        where = rng.randrange(len(raw) + 1)
        if rng.random() < 0.5:
            raw[where:where] = rng.randbytes(rng.randrange(1, 3))
        else:
            del raw[where : where + rng.randrange(1, 4)]
    return bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_malformed_files(seed, tmp_path):
    rng = random.Random(seed)
    accepted = 0
    for _ in range(250):
        raw = malformed(rng)
        try:
            data = parse_ratings(raw, "f")
        except DataError as error:
            assert "\n" not in str(error)
            continue
        accepted += 1
        assert strictly(raw) == [
            (str(user), str(item), pytest.approx(rating))
            for user, item, rating, *_ in rows(data)
        ], raw
    assert 0 < accepted < 200


@pytest.mark.parametrize("pack", [gzip.compress, lambda raw: zipped({"f": raw})])
def test_damaged_archives_never_pass_for_others(pack, tmp_path):
    rng, good, file = random.Random(0), pack(PLAIN), tmp_path / "f"
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        file.write_bytes(raw[: rng.choice([len(raw), rng.randrange(len(raw))])])
        try:
            data = read_ratings(file).data
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert rows(data) == ROWS


@given(st.binary(max_size=60))
@example(b"\xef\xbb\xbf")
@example(b"1,2,\r")
@example(zlib.compress(b"x"))
def test_any_bytes_are_read_or_refused(raw):
    try:
        data = parse_ratings(raw, "f")
    except DataError:
        return
    assert np.isfinite(data.rating).all() and (data.rating > 0).all()


# Odd files of any layout. What is read has to be what a reader sees who cuts line by
# line, in plain Python; whatever leaves a doubt may be refused, in one line.
IDS = [
    "1",
    "2",
    "7",
    "a",
    "b",
    "10",
    "01",
    "1.0",
    "é",
    "a b",
    "a ",
    "5' disk",
    "-",
    "#",
]
QUOTED = ['"a"', '" a"', '"a,b"', '"a::b"', '"a;b"', '"a|b"', '"a\tb"', '"say ""x"""']
NUMBERS = ["5", "3.5", "0.5", "1e3", " 4", "100"]
ODD = [
    *(
        "",
        " ",
        '""',
        " 1",
        "-1",
        "0",
        "+1",
        "1_0",
        "nan",
        "inf",
        "True",
        "1e400",
        "1e-320",
    ),
    *("9" * 30, "NA", "None", "0x1", "\u0661", '"', 'a"', '"a', '"a"b', 'a"b"', "'a'"),
    *("a,b", "a::b", "a;b", "a|b", "a\tb", "::", ":", ":::", "\x1f", "\x85", "\u2028"),
    *(
        "\ufeff",
        "\x0b",
        "\0",
        "\\",
        "user",
        "item",
        "rating",
        "4,5",
        "\U0001f600",
        "a\nb",
    ),
]
COLUMNS_AND_HEADERS = [
    *((None, ""), (None, ""), ("1 2 3", ""), ("1 2 3 4", ""), ("2 1 3", "")),
    *((None, "user item rating"), (None, "userId movieId rating timestamp")),
    *((None, "User Book-ID stars note"), ("who what how", "who what how")),
    *(("1 2 3", "who what how"), ("1 2 3", "user item rating"), ("1 2 3", "1 2 3")),
    *(("u i r", "u i r"), ("who what 3", "who what how"), ("1 1 2", ""), ("0 1 2", "")),
    *((None, "i user rating item"), (None, "user user item rating"), ("9 2 3", "")),
    *((None, "who what how"), (None, "user title item_id rating"), ("user i r", "")),
]
ids, numbers, odd = map(
    st.sampled_from, (IDS + QUOTED, NUMBERS, 2 * IDS + QUOTED + ODD)
)


@st.composite
def odd_files(draw, columns_and_headers):
    """Draw a file with some faults, or none, and what is said of its columns."""
    columns, header = draw(st.sampled_from(columns_and_headers))
    width = max(len(header.split()), draw(st.sampled_from([3, 3, 4, 5])))
    if columns_and_headers is PAIRS:
        width = len(header.split()) or 2
    pairs = draw(st.lists(st.tuples(ids, ids), min_size=2, max_size=6, unique=True))
    lines = [[*pair, *(draw(numbers) for _ in range(width - 2))] for pair in pairs]
    if header:
        lines.insert(0, header.split())
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        line = draw(st.sampled_from(lines))
        start = draw(st.integers(0, len(line)))
        line[start : start + draw(st.integers(0, 1))] = draw(st.lists(odd, max_size=1))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", "\n \n"]))
    separator = draw(st.sampled_from([",", "\t", "::", ";", "|"]))
    marks = draw(st.sampled_from([0, 0, 1, 3])) * "\ufeff"
    text = (
        marks + end.join(map(separator.join, lines)) + draw(st.sampled_from([end, ""]))
    )
    raw = bytearray(text.encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        where = draw(st.integers(0, len(raw)))
        raw[where : where + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(raw), columns and columns.split()


PAIRS = [(None, ""), (None, "user item"), (None, "x item user"), (None, "item user i")]


def cut(line, separator):
    """Cut a line as its quotes have it; None where they are out of place."""
    fields = []
    while True:
        line = line.lstrip(" ")
        if line.startswith('"'):
            quoted = re.match('"((?:[^"]|"")*)"', line)
            if quoted is None:
                return None
            fields.append(quoted[1].replace('""', '"'))
            line = line[quoted.end() :]
            if line and not line.startswith(separator):
                return None
            _, more, line = line.partition(separator)
        else:
            field, more, line = line.partition(separator)
            fields.append(field)
        if not more:
            return fields


def numeric(field):
    try:
        return "_" not in field and math.isfinite(float(field))
    except ValueError:
        return False


def readings(raw, columns):
    """All that the lines may say, of which a reader has to give one: rows of texts."""
    text = raw.decode("utf-8").lstrip("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line for line in lines if line.strip(" \t\x0b\x0c")]
    for separator in ("::", "\t", ";", "|", ","):
        rows = [cut(line, separator) for line in lines]
        if None in rows or len({len(row) for row in rows}) != 1:
            continue
        first, named = rows[0], False
        letters = ["".join(filter(str.isalpha, field.lower())) for field in first]
        usual = {
            name: [i for i, word in enumerate(letters) if word in words]
            for name, words in USUAL.items()
        }
        if columns:
            positions = []
            for column in columns:
                if column.isdecimal() and 1 <= int(column) <= len(first):
                    positions.append(int(column) - 1)
                elif first.count(column) == 1:
                    positions.append(first.index(column))
                    named = True
            if len(positions) < len(columns):
                continue
        elif all(usual[name] for name in COLUMNS[:3]):
            if any(len(where) > 1 for where in usual.values()):
                continue
            positions, named = [usual[n][0] for n in COLUMNS if usual[n]], True
        elif len(first) in (3, 4):
            positions = range(len(first))
        else:
            continue
        chosen = [tuple(row[position] for position in positions) for row in rows]
        # Without names, a header is above ids that are numbers, or has usual names.
        above = chosen[1:2] and any(map(numeric, chosen[1][:2]))
        known = all(p in usual[name] for p, name in zip(positions, COLUMNS))
        words = not any(map(numeric, chosen[0])) and all(chosen[0])
        if named or (columns and words and (above or known)):
            chosen = chosen[1:]
        if all(
            user and item and all(map(numeric, numbers)) and float(numbers[0]) > 0
            for user, item, *numbers in chosen
        ):
            yield chosen


@given(odd_files(COLUMNS_AND_HEADERS), st.sampled_from(["error", "error", "last"]))
def test_odd_files_are_read_as_they_are_or_refused(file, duplicates):
    raw, columns = file
    try:
        data = parse_ratings(raw, "f", columns, duplicates=duplicates)
    except DataError as error:
        assert "\n" not in str(error)
        return
    event("read")
    found = [(str(u), str(i), *numbers) for u, i, *numbers in rows(data)]
    expected = []
    for table in readings(raw, columns):
        if duplicates == "last":
            last = {row[:2]: number for number, row in enumerate(table)}
            table = [row for n, row in enumerate(table) if last[row[:2]] == n]
        expected.append(
            [(u, i, *map(pytest.approx, map(float, more))) for u, i, *more in table]
        )
    assert found in expected


@given(odd_files(PAIRS))
def test_odd_tables_of_pairs_are_read_as_they_are_or_refused(tmp_path_factory, file):
    raw, _ = file
    path = tmp_path_factory.getbasetemp() / "pairs"
    path.write_bytes(raw)
    try:
        data = read_table(path, COLUMNS[:2])
    except DataError as error:
        assert "\n" not in str(error)
        return
    event("read")
    text = (
        raw.decode("utf-8").lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    )
    lines = [line for line in text.split("\n") if line.strip(" \t\x0b\x0c")]
    cuts = [[cut(line, s) or [] for line in lines] for s in ("::", "\t", ";", "|", ",")]
    pairs = [(str(user), str(item)) for user, item in rows(data)]
    assert len(pairs) in (len(lines), len(lines) - 1)
    assert any(
        all(set(pair) <= set(line) for pair, line in zip(reversed(pairs), reversed(c)))
        for c in cuts
    )
