"""The ratings that a command asks for, and the parts that they are cut into."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import DataError, DatasetUnavailable
from . import cli
from .checks import FOLDS, LAYOUT, check_feedback, outputs
from .cli import Flag

if TYPE_CHECKING:
    import numpy as np

    from ..ratings import Ratings

NOT_COMPARABLE = "not comparable with the book"


class SplitFlags:
    """Which ratings are held out.

    split_mode : str
        which ratings are held out: a random share; each user's newest one; those of a
        fold that ml-100k comes with; or, of lists, a fifth of the pairs of a share of
        the users, the rest of which the model is given and not trained on
    test_ratio : R
        share that the random split holds out, or of users; 0 trains on all
    test_ratings : FILE
        hold out these, and train on all of --ratings; a user or an item of this file
        alone is cold
    valid_ratio : R
        share of the training ratings that is set aside to choose the best epoch
    seed : N
        of the split, the initial weights, the order and the dropout
    """

    split_mode = Flag(
        default="random", choices=("random", "seq-aware", "users", *FOLDS)
    )
    test_ratio = Flag(cli.share, 0.1)
    test_ratings = Flag()
    valid_ratio = Flag(cli.ratio)
    seed = Flag(cli.seed, 0)


def load(args: argparse.Namespace) -> tuple[Ratings, Any]:
    """Load ratings, and the rows to train and to test on where they come so."""
    from ..ratings import load_folds_ml100k, read_parts, read_ratings

    parts: Any = None
    fold = getattr(args, "split_mode", None)
    layout = {name: getattr(args, name) for name in LAYOUT}
    layout["pairs"] = getattr(args, "feedback", None) == "implicit"
    if args.test_ratings:
        ratings, *parts = read_parts(args.ratings, args.test_ratings, **layout)
    elif args.ratings:
        ratings = read_ratings(args.ratings, **layout)
    elif fold in FOLDS:
        ratings = _load_dataset(args, "ml-100k")
        parts = load_folds_ml100k(args.data_dir)[FOLDS.index(fold)]
    else:
        ratings = _load_dataset(args, args.dataset)
    feedback = _feedback(args, ratings, parts[0] if parts else slice(None))
    if feedback == "explicit":
        ratings.check_varied(parts[0] if parts else None)
        summary = ratings.summary()
    else:
        ratings, parts, summary = _pairs(ratings, parts, args.min_rating)
    if not args.quiet:
        print(summary)
    return ratings, parts


def _feedback(args: argparse.Namespace, ratings: Ratings, train_rows: Any) -> str:
    """Tell what the ratings are: as asked for, or pairs where all of them are equal."""
    feedback: str = getattr(args, "feedback", "explicit") or "explicit"
    if getattr(args, "feedback", "explicit") is None:
        rating = ratings.rating[train_rows]
        if len(rating) and rating.min() == rating.max():
            args.feedback = feedback = "implicit"
            try:
                check_feedback(args)
            except ValueError as error:
                raise DataError(f"{ratings.name}: has no ratings: {error}") from None
            if not args.quiet:
                print(
                    f"{ratings.name}: has no ratings, or only equal ones: what users "
                    "choose next is learned, as with --feedback implicit"
                )
    return feedback


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


def _load_dataset(args: argparse.Namespace, name: str | None) -> Ratings:
    """Load a data set, by default ML-100K, or generated ratings where it is not there.

    Results of generated ratings replace none unless they were asked for by name.
    """
    from ..ratings import SYNTHETIC, load_dataset
    from ..serving import MODEL_FILE

    try:
        return load_dataset(name or "ml-100k", args.data_dir)
    except DatasetUnavailable as error:
        if name:
            raise
        for flag, place in outputs(args).items():
            file = place / MODEL_FILE if flag == "save" else place
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

    from ..data import split_rows
    from ..training import hold_out

    train_rows, test_rows, valid_rows = np.arange(ratings.num_ratings), None, None
    if parts:
        train_rows, test_rows = parts
    elif args.split_mode == "users" and args.test_ratio:
        from ..study import cut_users

        train_rows, test_rows = cut_users(
            ratings.user_index, args.test_ratio, args.seed
        )
    elif args.split_mode != "random" or args.test_ratio:
        train_rows, test_rows = split_rows(
            ratings.user_index, ratings.timestamp, args.split_mode, args.test_ratio
        )
    if args.valid_ratio and args.feedback != "implicit":
        train_rows, valid_rows = hold_out(train_rows, args.valid_ratio, args.seed)
    return train_rows, test_rows, valid_rows
