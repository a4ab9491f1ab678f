"""Which columns of a table are user, item and rating, by their names."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Sequence

from ..errors import DataError
from .table import COLUMNS

_log = logging.getLogger(__name__)

PAIR = COLUMNS[:2]
# Names that ratings files give the columns, lower case, letters only.
USUAL = {
    "user_id": {"user", "userid", "uid", "u", "customer", "customerid", "reviewerid"},
    "item_id": {
        *("item", "itemid", "iid", "i", "movie", "movieid", "film", "filmid"),
        *("book", "bookid", "product", "productid", "track", "trackid", "asin", "isbn"),
    },
    "rating": {"rating", "ratings", "score", "stars", "value", "r", "bookrating"},
    "timestamp": {
        *("timestamp", "time", "ts", "date", "datetime", "unixtime"),
        *("unixreviewtime", "ratedat"),
    },
    "title": {"title", "titles", "name", "itemname", "itemtitle", "movietitle"},
}
# Of a column that is not called so: what its name holds, if just one column's does.
HELD = {
    "rating": ("rating", "score", "star"),
    "user_id": ("user", "customer", "visitor", "member", "account"),
    "item_id": (
        *("item", "movie", "anime", "game", "book"),
        *("product", "track", "business", "sku"),
    ),
}

_POSITION = re.compile("[0-9]{1,9}")  # Python reads no number of thousands of digits
# A name that a list of columns can hold.
_WORD = re.compile(r"[^\W\d_][^,\x00-\x1f\x7f]{0,39}")


def usual(fields: Sequence[str], names: Sequence[str]) -> dict[str, list[int]]:
    """Find for each name the positions of the columns that are usually called so."""
    words = _words(fields, names)
    return {
        name: [i for i, w in enumerate(words) if w in USUAL[name]] for name in names
    }


def likely(fields: Sequence[str], found: dict[str, list[int]]) -> dict[str, list[int]]:
    """Add to what is `usual` the only column whose name holds a word for what lacks."""
    found, words = dict(found), _words(fields, [*found])
    for name, parts in HELD.items():
        if found.get(name) == []:
            taken = {i for among in found.values() for i in among}
            holding = [
                i
                for i, word in enumerate(words)
                if i not in taken and any(part in word for part in parts)
            ]
            found[name] = holding if len(holding) == 1 else []
    return found


def _words(fields: Sequence[str], names: Sequence[str]) -> list[str]:
    """Leave the letters of fields, in lower case."""
    # Where there is no number to tell a header by, user1 is a user.
    digits = {"rating", "timestamp"}.isdisjoint(names)
    return [
        ""
        if digits and any(map(str.isdigit, field))
        else "".join(filter(str.isalpha, field.partition(":")[0].lower()))
        for field in fields
    ]


def suggested(fields: Sequence[str], names: Sequence[str]) -> list[int]:
    """Find a position for each name: of the `likely` column, or one that is left."""
    found = likely(fields, usual(fields, [*names, "timestamp"]))
    taken = {i for among in found.values() for i in among[:1]}
    rest = iter([i for i in range(len(fields)) if i not in taken])
    return [found[name][0] if found[name] else next(rest, 0) for name in names]


def _hint(fields: Sequence[str], names: Sequence[str]) -> str:
    """Propose columns: by name, or by position where a name would not be found."""
    positions = suggested(fields, names)
    written = [fields[i] for i in positions]
    if not all(_WORD.fullmatch(f) and fields.count(f) == 1 for f in written):
        written = [str(i + 1) for i in positions]
    flag = "--title-columns" if "title" in names else "--columns"
    hint = f"name them, such as {flag} {shlex.quote(','.join(written))}"
    if not _has_numbers(names):
        hint += ", or by position where there is no header"
    return hint


def names_of(
    fields: Sequence[str], columns: Sequence[str] | None, pairs: bool
) -> tuple[str, ...]:
    """Name the columns of a table of ratings, or of pairs that have no rating.

    Two columns are pairs, and if `pairs` says so, a header that names no rating.
    """
    if len(columns or fields) == 2:
        return PAIR
    if pairs and not columns:
        found = likely(fields, usual(fields, COLUMNS))
        if found["user_id"] and found["item_id"] and not found["rating"]:
            return (*PAIR, "timestamp") if found["timestamp"] else PAIR
    return COLUMNS


def place_columns(
    label: str,
    fields: Sequence[str],
    names: Sequence[str],
    columns: Sequence[str] | None,
    below: Sequence[str] | None,
) -> tuple[list[int], bool]:
    """Find the positions of the columns, and whether the first line is a header.

    `below` are the fields of the next line; None where fields are names in any case.
    """
    if columns is None:
        return guess_columns(label, fields, names, below is None)
    columns = [str(column) for column in columns]
    least = len([name for name in names if name != "timestamp"])
    if not least <= len(columns) <= len(names):
        raise DataError(
            f"{label}: {columns} are not columns of {listed(names[:least])}"
        )
    positions = [_position(label, column, fields) for column in columns]
    if len(set(positions)) < len(positions):
        raise DataError(f"{label}: two of the columns {columns} are the same")
    if below is None:
        return positions, True
    named = [column for column in columns if not _POSITION.fullmatch(column)]
    if not _has_numbers(names):  # names were found in it
        return positions, bool(named) or _is_header(fields, positions, names)
    header = _is_header(fields, positions, names)
    if named and not header:
        raise DataError(f"{label}: has no header to find column {named[0]!r} in")
    if header and not named:
        found = usual(fields, names)
        is_usual = all(p in found[name] for p, name in zip(positions, names))
        ids = [below[p] for p, n in zip(positions, names) if "_id" in n and below[p:]]
        if not is_usual and all(number(raw_id) is None for raw_id in ids):
            raise DataError(
                f"{label}:1: {shown(', '.join(fields))} may be a header or a rating; "
                "name the columns as it does (--columns), or remove it"
            )
    return positions, header


def guess_columns(
    label: str, fields: Sequence[str], names: Sequence[str], named: bool = False
) -> tuple[list[int], bool]:
    """Guess where the columns are, and whether the first line is a header.

    `named` says that it is one.
    """
    needed = [name for name in names if name != "timestamp"]
    found = usual(fields, names)
    if any(found[name] for name in needed) and found.get("rating") != []:
        usually, found = found, likely(fields, found)
        if all(found[name] for name in needed) and found != usually:
            chosen = shown(", ".join(fields[found[name][0]] for name in needed))
            _log.warning(
                "%s: columns %s are taken for %s", label, chosen, listed(needed)
            )
    if all(found[name] for name in needed):
        for name, among in found.items():
            if len(among) > 1:
                both = clipped(" and ".join(repr(fields[i]) for i in among))
                raise DataError(
                    f"{label}:1: the columns {both} may both be the {listed([name])}; "
                    + _hint(fields, needed)
                )
        return [found[name][0] for name in names if found[name]], True
    if len(needed) <= len(fields) <= len(names):
        positions = list(range(len(fields)))
        half_a_header = not _has_numbers(names) and any(found.values())
        if named or not half_a_header and not _is_header(fields, positions, names):
            return positions, named
    if len(fields) > 20 and all(number(field) is not None for field in fields):
        raise DataError(
            f"{label}:1: has {len(fields)} numbers, as a matrix with a row a user has; "
            'python -c "import pandas as pd; pd.read_csv('
            f"{label!r}, header=None).rename_axis('user').melt(ignore_index=False, "
            "var_name='item', value_name='rating').query('rating != 99')"
            ".to_csv('ratings.csv')\" writes a line a rating, 99 being none"
        )
    raise DataError(
        f"{label}:1: cannot tell which columns are {listed(needed)} among "
        f"{shown(', '.join(fields))}; {_hint(fields, needed)}"
    )


def _has_numbers(names: Sequence[str]) -> bool:
    return not {"rating", "timestamp"}.isdisjoint(names)


def _is_header(
    fields: Sequence[str], positions: Sequence[int], names: Sequence[str]
) -> bool:
    """Tell a header from ratings: it has words where the rating is and no numbers.

    Where there is no rating, a header is what has usual names.
    """
    if not _has_numbers(names):
        found = usual(fields, names)
        return all(p in found[name] for p, name in zip(positions, names))
    return all(fields[p] and number(fields[p]) is None for p in positions)


def _position(label: str, column: str, fields: Sequence[str]) -> int:
    if _POSITION.fullmatch(column) and 1 <= int(column) <= len(fields):
        return int(column) - 1
    among = f"among {shown(', '.join(fields))}"
    if fields.count(column) > 1:
        raise DataError(f"{label}: several columns {shown(column)} {among}")
    if column in fields:
        return fields.index(column)
    raise DataError(f"{label}: no column {shown(column)} {among}")


def number(text: str) -> float | None:
    """Read a number, its decimals after a point or a comma; None if it is none."""
    try:
        return None if "_" in text else float(text.replace(",", "."))
    except ValueError:
        return None


def shown(text: str) -> str:
    """Quote a text, or its beginning."""
    return repr(clipped(text))


def clipped(text: str, length: int = 60) -> str:
    """Shorten a text."""
    return text if len(text) <= length else text[: length - 3] + "..."


def listed(names: Sequence[str]) -> str:
    """List the nouns of columns."""
    *words, last = [name.replace("_id", "") for name in names]
    return f"{', '.join(words)} and {last}" if words else last
