"""Flags that do not go together, the same for all commands.

A rule speaks of flags that were written, so that it holds for each command that has
them, and for the value that a flag has by default, too.
"""

import argparse
import os
from pathlib import Path

from ..training import PRESETS, SETTINGS, Blend

FOLDS = ("u1", "u2", "u3", "u4", "u5")
# How a file of ratings is read.
LAYOUT = (
    *("columns", "encoding", "duplicates", "missing"),
    *("transform", "skip_bad_lines"),
)
# The questions that `recommend` answers by a table, and by a list.
TABLES = ("pairs", "users", "all_users")
LISTS = ("user", "new_user", "like")
_FILES = ("pairs", "users", "new_user")
_RANKED = (*LISTS, "users", "all_users")
# A flag, and those of which it needs one.
_NEEDS = {
    **dict.fromkeys((*LAYOUT, "test_ratings"), ("ratings",)),
    "columns": ("ratings", *_FILES),
    "encoding": ("ratings", "titles", *_FILES),
    "min_ratings": _RANKED,
    "output": TABLES,
    "overwrite": ("save",),
    "title_columns": ("titles",),
    "titles": ("save", *_RANKED),
}
# A flag, and those that it excludes.
_EXCLUDES = {
    "ratings": ("dataset", "data_dir"),
    "test_ratings": ("split_mode", "splits", "test_ratio"),
    "warm_start": ("preset", "members", "pretrain_epochs", "refit", "workers"),
    **dict.fromkeys(TABLES, ("json",)),
}
# What may stand beside --resume; the rest is part of the model in the folder.
_RESUMABLE = {
    *("resume", "num_epochs", "patience", "devices", "workers"),
    *("plot", "json", "quiet"),
}
# What models of ratings alone have.
_OF_RATINGS = {
    *("members", "patience", "valid_ratio", "workers", "devices", "plot", "resume"),
    *("transform", "ranking", "markdown", "warm_start", *SETTINGS),
}
_INPUTS = (
    *("ratings", "test_ratings", "titles", "item_features", "warm_start"),
    *_FILES,
)


def written(*names: str, last: str = ", ") -> str:
    """List flags as they are written."""
    flags = [f"--{n.replace('_', '-')}" if len(n) > 1 else f"-{n}" for n in names]
    return last.join(filter(None, [", ".join(flags[:-1]), flags[-1]]))


def check(args: argparse.Namespace) -> None:
    """Raise a ValueError that names flags, of those `given`, which do not fit."""
    given: frozenset[str] = args.given
    if "resume" in given and (beside := given - _RESUMABLE):
        raise ValueError(
            f"--resume takes these from the model folder: {written(*sorted(beside))}"
        )
    for flag, others in _EXCLUDES.items():
        if flag in given and (beside := given & set(others)):
            raise ValueError(
                f"{written(flag)} and {written(*sorted(beside))} exclude each other"
            )
    for flag, others in _NEEDS.items():
        there = [name for name in others if name in args]  # of this command
        if flag in given and there and not given.intersection(there):
            raise ValueError(f"{written(flag)} needs {written(*there, last=' or ')}")
    if "feedback" in args:
        check_feedback(args)
    mode = getattr(args, "split_mode", None) or getattr(args, "splits", "random")
    if mode in (*FOLDS, "u1-u5") and (args.ratings or args.feedback == "implicit"):
        raise ValueError("the folds u1 to u5 are those of ml-100k's ratings")
    if mode not in ("random", "users") and "test_ratio" in given:
        raise ValueError(f"--test-ratio is not for --split-mode {mode}")
    chosen = given & {"patience", "refit"}
    if chosen and not (args.valid_ratio or args.resume or _validates(args)):
        raise ValueError(
            f"{written(*sorted(chosen))} needs a validation part (--valid-ratio 0.1)"
        )
    _check_places(args)


def _validates(args: argparse.Namespace) -> bool:
    """Tell whether what is trained brings a validation part."""
    return args.feedback == "implicit" or isinstance(PRESETS[args.preset], Blend)


def check_feedback(args: argparse.Namespace) -> None:
    """Raise a ValueError for flags of models of lists, or of ratings, beside others."""
    if args.feedback == "implicit":
        if beside := args.given & _OF_RATINGS:
            hint = ""
            if settings := sorted(beside & SETTINGS.keys()):
                hint = f"; a setting goes behind the name: mult-vae:{settings[0]}=..."
            raise ValueError(
                f"--feedback implicit and {written(*sorted(beside))} exclude each "
                f"other{hint}"
            )
        if "item_features" in args.given and not reads_features(args):
            raise ValueError("--item-features is for the model cvae")
        return
    if beside := args.given & {"min_rating", "at", "item_features"}:
        raise ValueError(f"{written(*sorted(beside))} needs --feedback implicit")
    for flag in ("split_mode", "splits"):
        if getattr(args, flag, None) == "users":
            raise ValueError(f"{written(flag)} users needs --feedback implicit")
    if "preset" in args and args.preset not in PRESETS:
        raise ValueError(f"--preset {args.preset} needs --feedback implicit")


def reads_features(args: argparse.Namespace) -> bool:
    """Tell whether a model is wanted that reads words of the items."""
    wanted = getattr(args, "models", None) or [getattr(args, "preset", "")]
    return any(name.partition(":")[0] == "cvae" for name in wanted)


def outputs(args: argparse.Namespace) -> dict[str, Path]:
    """Return the places that results go to, by their flags."""
    return {n: v for n, v in vars(args).items() if isinstance(v, Path) and n != "model"}


def _check_places(args: argparse.Namespace) -> None:
    """Refuse a result that would replace another one, or what is read."""
    named = {n: getattr(args, n) for n in _INPUTS if getattr(args, n, None)}
    places = {os.path.realpath(path): flag for flag, path in named.items()}
    for flag, path in outputs(args).items():
        if not path.exists() or path.is_file() or path.is_dir():  # no device
            other = places.setdefault(os.path.realpath(path), flag)
            if other != flag:
                raise ValueError(f"{written(other, flag, last=' and ')} name one file")
