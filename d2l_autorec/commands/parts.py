"""The ratings that a command asks for, and the parts that they are cut into."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import DataError, DatasetUnavailable
from . import cli
from .checks import FOLDS, LAYOUT, check_feedback, outputs, reads_features
from .cli import flag

if TYPE_CHECKING:
    import numpy as np

    from ..ratings import Ratings

NOT_COMPARABLE = "not comparable with the book"
SPLIT = {
    "--split-mode": flag(
        "which ratings are held out: a random share; each user's newest one; those of "
        "a fold that ml-100k comes with; or, for lists, a fifth of the pairs of a "
        "share of the users, on whom the model is not trained",
        ("random", "seq-aware", "users", *FOLDS),
        "random",
    ),
    "--test-ratio": flag(
        "share of the ratings, or of the users, to hold out; 0 trains on all",
        cli.share,
        0.1,
    ),
    **cli.HELD_OUT,
    "--valid-ratio": flag(
        "share of the training ratings that is set aside to choose the best epoch",
        cli.ratio,
    ),
    "--seed": flag(
        "of the split, the initial weights, the order and the dropout", cli.seed, 0
    ),
}


def load(args: argparse.Namespace) -> tuple[Ratings, Any]:
    """Load ratings, and the rows to train and to test on where they come so."""
    from ..ratings import read_parts, read_ratings, with_features

    parts: Any = None
    layout = {name: getattr(args, name) for name in LAYOUT}
    layout["pairs"] = args.feedback == "implicit"
    if args.test_ratings:
        ratings, *parts = read_parts(args.ratings, args.test_ratings, **layout)
    elif args.ratings:
        ratings = read_ratings(args.ratings, **layout)
    else:
        ratings = _load_dataset(args)
    if reads_features(args):
        ratings = with_features(ratings, args.item_features, args.encoding)
    train_rows = parts[0] if parts else slice(None)
    if args.feedback is None:
        _find_feedback(args, ratings, ratings.rating[train_rows])
    if args.feedback == "implicit":
        ratings, parts, summary = _pairs(ratings, parts, args.min_rating)
    else:
        ratings.check_varied(parts and train_rows)
        summary = ratings.summary()
    if not args.quiet:
        print(summary)
    return ratings, parts


def _find_feedback(
    args: argparse.Namespace, ratings: Ratings, rating: np.ndarray
) -> None:
    """Set what the ratings are: pairs, if all of them are equal."""
    if not len(rating) or rating.min() < rating.max():
        return
    args.feedback = "implicit"
    try:
        check_feedback(args)
    except ValueError as error:
        raise DataError(f"{ratings.name}: has no ratings: {error}") from None
    if not args.quiet:
        print(
            f"{ratings.name}: has no ratings, or only equal ones: what users choose "
            "next is learned, as with --feedback implicit"
        )


def _pairs(
    ratings: Ratings, parts: Any, min_rating: float | None
) -> tuple[Ratings, Any, str]:
    """Take ratings from a lowest one on for pairs of user and item, and say how many.

    Users and items stay, even those without a pair.
    """
    import numpy as np

    kept = np.ones(ratings.num_ratings, bool)
    which = ""
    if min_rating is not None:
        kept = ratings.rating - ratings.rating_offset >= min_rating
        which = f", the ratings from {min_rating:g} on of {ratings.num_ratings:,}"
    if not kept.any():
        raise DataError(f"{ratings.name}: no rating is {min_rating:g} or higher")
    place = np.cumsum(kept) - 1
    parts = parts and tuple(place[rows[kept[rows]]] for rows in parts)
    time = ratings.timestamp
    pairs = replace(
        ratings,
        user_index=ratings.user_index[kept],
        item_index=ratings.item_index[kept],
        rating=np.ones(kept.sum(), np.float32),
        timestamp=None if time is None else time[kept],
        rating_offset=0.0,
    )
    size = f"{pairs.num_users:,} users x {pairs.num_items:,} items"
    return pairs, parts, f"{pairs.name}: {size}, {len(pairs.rating):,} pairs{which}"


def _load_dataset(args: argparse.Namespace) -> Ratings:
    """Load a data set, by default ML-100K, or generated ratings where it is not there.

    Results of generated ratings replace none unless they were asked for by name.
    """
    from ..ratings import SYNTHETIC, load_dataset
    from ..serving import MODEL_FILE

    try:
        name = args.dataset or "ml-100k"
        return load_dataset(name, args.data_dir, reads_features(args))
    except DatasetUnavailable as error:
        if args.dataset:
            raise
        for name, place in outputs(args).items():
            file = place / MODEL_FILE if name == "save" else place
            if file.exists():
                raise DatasetUnavailable(
                    f"{error}; {file} is there, and results of generated ratings "
                    f"replace it only with --dataset {SYNTHETIC}"
                ) from None
        print(
            _framed(
                "MovieLens 100K could not be had:",
                str(error),
                "",
                f"Using generated ratings instead ({SYNTHETIC}).",
                f"The results are {NOT_COMPARABLE}.",
            )
        )
        return load_dataset(SYNTHETIC)


def _framed(*texts: str) -> str:
    """Put texts, cut into lines, into a frame that a terminal has room for."""
    cut = textwrap.TextWrapper(72, break_on_hyphens=False)
    lines = [line for text in texts for line in cut.wrap(text) or [""]]
    rule = "!" * (cut.width + 4)
    return "\n".join([rule, *(f"! {line:{cut.width}} !" for line in lines), rule])


def described(args: argparse.Namespace) -> dict[str, Any]:
    """Say how the parts are cut, for reports."""
    random = args.split_mode in ("random", "users") and not args.test_ratings
    return {
        "split_mode": "given" if args.test_ratings else args.split_mode,
        "test_ratio": args.test_ratio if random else None,
        "valid_ratio": None if args.feedback == "implicit" else args.valid_ratio,
    }


def cut(
    args: argparse.Namespace, ratings: Ratings, parts: Any
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Cut ratings, loaded by `load`, into rows to train, to test and to validate on."""
    import numpy as np

    from ..study import make_splits
    from ..training import hold_out

    train_rows, test_rows, valid_rows = np.arange(ratings.num_ratings), None, None
    if parts:
        train_rows, test_rows = parts
    elif args.test_ratio:
        how = [args.seed], args.data_dir, args.test_ratio
        *_, train_rows, test_rows = next(make_splits(ratings, args.split_mode, *how))
    if args.valid_ratio and args.feedback != "implicit":
        train_rows, valid_rows = hold_out(train_rows, args.valid_ratio, args.seed)
    return train_rows, test_rows, valid_rows
