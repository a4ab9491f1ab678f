"""Titles and words of items, from files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .reading import read_table
from .table import Ratings


def read_titles(
    path: str | Path,
    item_ids: Iterable[Any],
    encoding: str = "utf-8",
    columns: Sequence[str] | None = None,
) -> dict[Any, str]:
    """Read the titles of items, by raw id; not all items need have one."""
    table = read_table(path, ("item_id", "title"), columns, encoding)
    ((item_id, count),) = Counter(table["item_id"].tolist()).most_common(1)
    if count > 1:
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


def with_features(
    ratings: Ratings, path: str | Path | None = None, encoding: str = "utf-8"
) -> Ratings:
    """Add words of items, and the items with words that nobody has rated yet.

    They come from the first two columns of a file, or from the data set.
    """
    known, features = ratings.item_ids, dict(ratings.features)
    if known.dtype.kind not in "if":  # texts, which may be longer in the file
        known = known.astype(object)
    if path:
        table = read_table(path, ("item_id", "words"), ("1", "2"), encoding)
        kind: Any = known.dtype.type if known.dtype.kind in "if" else str
        features = {}
        for item, words in zip(table["item_id"].tolist(), table["words"].tolist()):
            try:
                item_id = kind(item)
            except (ValueError, OverflowError):
                like = f"no item id like {known.tolist()[0]!r}"
                raise DataError(f"{path}: {item!r} is {like}") from None
            features[item_id] = f"{features.get(item_id, '')} {words}"
    item_ids = np.array(sorted({*known.tolist(), *features}), known.dtype)
    item_index = np.searchsorted(item_ids, known).astype(np.int32)[ratings.item_index]
    return replace(ratings, item_ids=item_ids, item_index=item_index, features=features)
