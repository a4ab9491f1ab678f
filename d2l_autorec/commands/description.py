"""What `describe` says of ratings, and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from ..ratings import Ratings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a training with a preset, seconds at all, a rating, and a cell of the matrix, on 2
# CPU cores: about those of docs/results/anywhere.json.
_SECONDS = {"best": (8, 1.5e-4, 4e-6), "book": (1, 6e-6, 3e-7)}
_LONG = 7200  # seconds


def lines(ratings: Ratings, duplicates: str) -> Iterator[str]:
    """Say in lines what is in the file, and what to train on it."""
    yield ratings.summary()
    values, counts = _values(ratings)
    share = dict(zip(values.tolist(), (counts / counts.sum()).tolist()))
    most = sorted(share, key=lambda value: -share[value])[:5]
    listed = ", ".join(f"{value:.5g} ({share[value]:.1%})" for value in most)
    yield (
        f"values: {len(values):,} different ones, the most frequent {listed}; "
        f"0: {share.get(0.0, 0):.1%}"
    )
    for noun, found in _counts(ratings).items():
        ends = np.quantile(found, [0, 0.25, 0.5, 0.75, 1])
        least, low, median, high, largest = (f"{end:,.10g}" for end in ends)
        yield (
            f"ratings of {noun}: {least} to {largest}, half of them {low} to {high}, "
            f"median {median}"
        )
    repeated = "none"
    if ratings.num_repeated:
        repeated = f"{ratings.num_repeated:,} rows, settled by --duplicates"
        repeated += f" {duplicates}"
    yield f"repeated pairs of user and item: {repeated}"
    span = "none"
    if (time := ratings.timestamp) is not None:
        span = f"{_date(int(time.min()))} to {_date(int(time.max()))}"
    yield f"times: {span}"
    yield _advice(ratings)


def _values(ratings: Ratings) -> tuple[np.ndarray, np.ndarray]:
    """Return the different ratings, in the unit of the file, and their numbers."""
    values, counts = np.unique(ratings.rating, return_counts=True)
    # Of float32, without the digits that a shift brings.
    return (values.astype(float) - ratings.rating_offset).round(6), counts


def _counts(ratings: Ratings) -> dict[str, np.ndarray]:
    """Count the ratings of each user and of each item."""
    users, items = map(np.bincount, ratings.indices())
    return {"a user": users, "an item": items}


def _date(time: int) -> str:
    """Write a time as a date, if it is one in seconds, or in thousandths of them."""
    for unit in (1, 10**3, 10**6, 10**9):
        if 10**8 <= time / unit < 10**10:  # 1973 to 2286
            return datetime.fromtimestamp(time / unit, UTC).date().isoformat()
    return f"{time:,}"


def _advice(ratings: Ratings) -> str:
    """Say which preset fits, and about how long it will take."""
    if ratings.rating.min() == ratings.rating.max():
        return (
            "all values are equal: train --feedback implicit learns what users choose "
            "next"
        )
    cells = ratings.num_users * ratings.num_items
    seconds = {
        name: once + a_rating * ratings.num_ratings + a_cell * cells
        for name, (once, a_rating, a_cell) in _SECONDS.items()
    }
    fits = "best" if seconds["best"] < _LONG else "book"
    about = ", ".join(f"{name} {_duration(time)}" for name, time in seconds.items())
    return (
        f"train --preset {fits} fits; an estimate from the sizes, for 2 CPU cores: "
        f"{about}"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def chart(ratings: Ratings) -> Figure:
    """Draw how often each value is, and how many ratings users and items have."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
    bars, curves = figure.subplots(1, 2)
    values, counts = _values(ratings)
    if len(values) > 50:
        bars.hist(values, bins=50, weights=counts)
    else:
        bars.bar(values, counts, 0.9 * np.diff(values).min(initial=1))
    bars.set(title=ratings.name, xlabel="rating", ylabel="ratings")
    for noun, found in _counts(ratings).items():
        place = np.arange(1, len(found) + 1)
        curves.plot(place, np.sort(found)[::-1], label=f"of {noun}")
    curves.set(xscale="log", yscale="log", title="from the most to the least")
    curves.set(xlabel="users, items", ylabel="ratings")
    curves.legend()
    return figure
