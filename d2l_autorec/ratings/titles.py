"""Titles of items, from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .reading import read_table


def read_titles(
    path: str | Path,
    item_ids: Iterable[Any],
    encoding: str = "utf-8",
    columns: Sequence[str] | None = None,
) -> dict[Any, str]:
    """Read the titles of items, by raw id; not all items need have one."""
    table = read_table(path, ("item_id", "title"), columns, encoding)
    repeated = table["item_id"].duplicated()
    if repeated.any():
        item_id = table["item_id"][repeated].tolist()[0]
        raise DataError(f"{path}: item {item_id!r} has more than one title")
    written = dict(zip(map(str, table["item_id"]), map(str, table["title"])))
    titles = {i: written[str(i)] for i in item_ids if str(i) in written}
    if not titles:
        example = table["item_id"].tolist()[0]
        raise DataError(
            f"{path}: titles none of the items, but such as {example!r}; if other "
            "columns hold item and title, name them (--title-columns)"
        )
    return titles
