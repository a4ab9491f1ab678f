"""The ratings to train on and the parts that they are cut into, as flags say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import cli

if TYPE_CHECKING:
    import numpy as np

    from ..ratings import Ratings

FOLDS = ("u1", "u2", "u3", "u4", "u5")


def add_split_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which ratings are held out.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command that has the flags of `cli.add_data_flags` and
        `cli.add_ratings_flags`.
    """
    split = parser.add_argument_group("split")
    split.add_argument(
        "--split-mode",
        choices=("random", "seq-aware", *FOLDS),
        default="random",
        help="which ratings are held out: a random share; each user's newest one; or "
        "those of a fold that ml-100k comes with",
    )
    split.add_argument(
        "--test-ratio",
        type=cli.share,
        default=0.1,
        metavar="R",
        help="share of the ratings that the random split holds out; 0 trains on all",
    )
    split.add_argument(
        "--test-ratings",
        metavar="FILE",
        help="hold out these, and train on all of --ratings; a user or an item of this "
        "file alone is cold",
    )
    split.add_argument(
        "--valid-ratio",
        type=cli.ratio,
        metavar="R",
        help="share of the training ratings that is set aside to choose the best epoch",
    )
    split.add_argument(
        "--seed",
        type=cli.seed,
        default=0,
        metavar="N",
        help="of the split, the initial weights, the order and the dropout",
    )


def check_split(parser: cli.Parser, args: argparse.Namespace, given: set[str]) -> None:
    """Refuse flags that do not go together.

    Parameters
    ----------
    parser, args
        Of the command.
    given : set of str
        The flags that were written.
    """
    if args.ratings and (beside := given & {"dataset", "data_dir"}):
        parser.error(f"--ratings and {cli.flags(beside)} exclude each other")
    layout = given & {"columns", "encoding", "duplicates", "rating_offset"}
    if getattr(args, "titles", None):
        layout -= {"encoding"}  # which is theirs, too
    if (layout or args.test_ratings) and not args.ratings:
        layout |= given & {"test_ratings"}
        parser.error(f"only for a file that --ratings names: {cli.flags(layout)}")
    if args.test_ratings and (beside := given & {"split_mode", "test_ratio"}):
        parser.error(f"--test-ratings and {cli.flags(beside)} exclude each other")
    if args.split_mode in FOLDS and (
        args.ratings or args.dataset not in (None, "ml-100k")
    ):
        parser.error(f"--split-mode {args.split_mode} is for --dataset ml-100k")
    if args.split_mode != "random" and "test_ratio" in given:
        parser.error(f"--test-ratio is not for --split-mode {args.split_mode}")


def load(args: argparse.Namespace) -> tuple[Ratings, Any]:
    """Load the ratings.

    Parameters
    ----------
    args : argparse.Namespace
        With the flags of `add_split_flags` and those that it builds on; `plot`, `json`
        and `save` say where results will go.

    Returns
    -------
    ratings : Ratings
    parts : (numpy.ndarray, numpy.ndarray) or None
        The rows of the training and the test part, where they come so.

    Raises
    ------
    DataError, DatasetUnavailable
        If they cannot be had.
    """
    from ..ratings import load_folds_ml100k, read_parts, read_ratings
    from ..serving import MANIFEST

    if args.ratings:
        names = ("columns", "encoding", "duplicates", "rating_offset")
        layout = {name: getattr(args, name) for name in names}
        if args.test_ratings:
            ratings, *parts = read_parts(args.ratings, args.test_ratings, **layout)
            return ratings, parts
        return read_ratings(args.ratings, **layout), None
    fold = args.split_mode in FOLDS
    ratings = cli.load_ratings(
        "ml-100k" if fold else args.dataset,
        args.data_dir,
        *(args.plot, args.json, args.save and args.save / MANIFEST),
    )
    if fold:
        folds = load_folds_ml100k(args.data_dir)
        return ratings, folds[FOLDS.index(args.split_mode)]
    return ratings, None


def described(args: argparse.Namespace) -> dict[str, Any]:
    """Say how the parts are cut, for reports."""
    random = args.split_mode == "random" and not args.test_ratings
    return {
        "split_mode": "given" if args.test_ratings else args.split_mode,
        "test_ratio": args.test_ratio if random else None,
        "valid_ratio": args.valid_ratio,
    }


def cut(
    args: argparse.Namespace, ratings: Ratings, parts: Any
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Cut ratings into parts.

    Parameters
    ----------
    args : argparse.Namespace
        As for `load`.
    ratings, parts
        As `load` returns them.

    Returns
    -------
    train_rows, test_rows, valid_rows : numpy.ndarray of int64, or None
        The last two only if they are asked for.
    """
    import numpy as np

    from ..data import split_rows
    from ..training import hold_out

    train_rows, test_rows, valid_rows = np.arange(ratings.num_ratings), None, None
    if parts:
        train_rows, test_rows = parts
    elif args.split_mode != "random" or args.test_ratio:
        train_rows, test_rows = split_rows(
            ratings.user_index, ratings.timestamp, args.split_mode, args.test_ratio
        )
    if args.valid_ratio:
        train_rows, valid_rows = hold_out(train_rows, args.valid_ratio, args.seed)
    return train_rows, test_rows, valid_rows
