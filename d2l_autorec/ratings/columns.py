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
_WORD = re.compile(
    r"[^\W\d_][^,\x00-\x1f\x7f]{0,39}"
)  # that a list of columns can hold
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
    "words": {"words", "features", "genres", "tags", "text", "description"},
}
# Of a column that is not called so: words in its name, if just one column has them.
HELD = {
    "user_id": ("user", "customer", "visitor", "member", "account"),
    "item_id": (
        *("item", "movie", "anime", "game", "book"),
        *("product", "track", "business", "sku"),
    ),
}


def find_columns(fields: Sequence[str], names: Sequence[str]) -> dict[str, list[int]]:
    """Find for each name the positions of the columns that may be called so.

    Once one of them has a usual name, a column whose name holds a word counts, too.
    """
    words = [
        "".join(filter(str.isalpha, field.partition(":")[0].lower()))
        for field in fields
    ]
    if not _has_numbers(names):  # to tell a header by: user1 is a user
        numbered = [any(map(str.isdigit, field)) for field in fields]
        words = ["" if is_one else w for w, is_one in zip(words, numbered)]
    found = {n: [i for i, w in enumerate(words) if w in USUAL[n]] for n in names}
    if not any(found.values()):
        return found
    for name, parts in HELD.items():
        if found.get(name) == []:
            taken = {i for among in found.values() for i in among}
            held = [
                i
                for i, word in enumerate(words)
                if i not in taken and any(part in word for part in parts)
            ]
            found[name] = held if len(held) == 1 else []
    return found


def names_of(
    fields: Sequence[str], columns: Sequence[str] | None, pairs: bool
) -> tuple[str, ...]:
    """Name the columns of a table of ratings, or of pairs that have no rating.

    Two columns are pairs, and if `pairs` says so, a header that names no rating.
    """
    if len(columns or fields) == 2:
        return PAIR
    if pairs and not columns and _is_header(fields, COLUMNS):
        found = find_columns(fields, COLUMNS)
        if found["user_id"] and found["item_id"] and not found["rating"]:
            return (*PAIR, "timestamp") if found["timestamp"] else PAIR
    return COLUMNS


def place_columns(
    label: str,
    fields: Sequence[str],
    names: Sequence[str],
    columns: Sequence[str] | None,
) -> tuple[list[int], bool]:
    """Find the positions of the columns, and whether the first line is a header.

    A header has no number where ratings are read, or else a usual name.
    """
    needed = [name for name in names if name != "timestamp"]
    if columns:
        columns = [str(column) for column in columns]
        if not len(needed) <= len(columns) <= len(names):
            raise DataError(f"{label}: {columns} are not columns of {listed(needed)}")
        positions = [_position(label, column, fields) for column in columns]
        if len(set(positions)) < len(positions):
            raise DataError(f"{label}: two of the columns {columns} are the same")
        is_named = not all(map(str.isdecimal, columns))
        return positions, is_named or _is_header([fields[p] for p in positions], names)
    found = find_columns(fields, names)
    if all(found[name] for name in needed):
        for name, among in found.items():
            if len(among) > 1:
                both = clipped(" and ".join(repr(fields[i]) for i in among))
                raise DataError(
                    f"{label}:1: the columns {both} may both be the {listed([name])}; "
                    + _hint(fields, needed)
                )
        chosen = [fields[found[name][0]] for name in needed]
        if not all(find_columns([field], names)[n] for field, n in zip(chosen, needed)):
            _log.warning(
                "%s: columns %s are taken for %s",
                *(label, shown(", ".join(chosen)), listed(needed)),
            )
        return [among[0] for among in found.values() if among], True
    if len(needed) <= len(fields) <= len(names) and not _is_header(fields, names):
        return [*range(len(fields))], False
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


def _hint(fields: Sequence[str], names: Sequence[str]) -> str:
    """Propose columns, as the header has them; by position if that cannot be typed."""
    found = find_columns(fields, names)
    taken = {i for among in found.values() for i in among[:1]}
    rest = iter([i for i in range(len(fields)) if i not in taken])
    such = [found[name][0] if found[name] else next(rest, 0) for name in names]
    written = [fields[i] for i in such]
    if not all(_WORD.fullmatch(one) and fields.count(one) == 1 for one in written):
        written = [str(i + 1) for i in such]
    flag = "--title-columns" if "title" in names else "--columns"
    columns = shlex.quote(",".join(written))
    return f"give their names or positions, such as {flag} {columns}"


def _has_numbers(names: Sequence[str]) -> bool:
    return not {"rating", "timestamp"}.isdisjoint(names)


def _is_header(fields: Sequence[str], names: Sequence[str]) -> bool:
    if _has_numbers(names):
        return all(number(field) is None for field in fields)
    return any(find_columns(fields, names).values())


def _position(label: str, column: str, fields: Sequence[str]) -> int:
    if column in map(str, range(1, len(fields) + 1)):
        return int(column) - 1
    if fields.count(column) != 1:
        count = "several columns" if column in fields else "no column"
        among = shown(", ".join(fields))
        raise DataError(f"{label}: {count} {shown(column)} among {among}")
    return fields.index(column)


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
