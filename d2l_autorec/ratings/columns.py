"""Which columns of a table are user, item and rating, by their names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# Names that ratings files give the columns, lower case, letters only.
USUAL = {
    "user_id": {"user", "userid", "uid", "u", "customer", "customerid", "reviewerid"},
    "item_id": {
        *("item", "itemid", "iid", "i", "movie", "movieid", "film", "filmid"),
        *("book", "bookid", "product", "productid", "track", "trackid", "asin", "isbn"),
    },
    "rating": {"rating", "ratings", "score", "stars", "value", "r", "bookrating"},
    "timestamp": {"timestamp", "time", "ts", "unixtime", "unixreviewtime", "ratedat"},
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
        else "".join(filter(str.isalpha, field.lower()))
        for field in fields
    ]


def suggested(fields: Sequence[str], names: Sequence[str]) -> list[int]:
    """Find a position for each name: of the `likely` column, or one that is left."""
    found = likely(fields, usual(fields, [*names, "timestamp"]))
    taken = {i for among in found.values() for i in among[:1]}
    rest = iter([i for i in range(len(fields)) if i not in taken])
    return [found[name][0] if found[name] else next(rest, 0) for name in names]


def typed(fields: Sequence[str], positions: Sequence[int]) -> str:
    """Write columns as a flag's value, by position where a name would not be found."""
    written = [fields[i] for i in positions]
    if not all(_is_typed(name) and fields.count(name) == 1 for name in written):
        written = [str(i + 1) for i in positions]
    return shlex.quote(",".join(written))


def _is_typed(name: str) -> bool:
    """Tell whether a field is a word, and one that a list of columns can hold."""
    try:
        float(name)
    except ValueError:
        return name.isprintable() and bool(re.fullmatch(r"(?!-)[^,]{1,40}", name))
    return False
