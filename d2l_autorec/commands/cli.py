"""The flags of the commands: kinds of values, and the groups that several have.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import inspect
import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import AutoRecError, DeviceUnavailable
from ..training import FINITE, NON_NEGATIVE_INT, POSITIVE_INT, SETTINGS, Recipe, Setting
from . import checks
from .checks import written

if TYPE_CHECKING:
    from .._mxnet import mx

_MAX_SEEDS = 1000
# The title of a group of flags, one of which a command needs.
ONE_OF = "one of these"


@dataclass(frozen=True)
class Kind:
    """What reads a flag's value, which the help calls `metavar`."""

    metavar: str
    parse: Callable[[str], Any] = str

    def __call__(self, text: str) -> Any:
        """Read a value; a ValueError is shown as the flag's."""
        try:
            if not text:
                raise ValueError("is empty; is a variable not set?")
            return self.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None


def flag(help: str, kind: Any = bool, default: Any = None, **more: Any) -> Any:
    """Describe a flag as `argparse` takes it.

    The kind is a `Kind`, a word for any text, a tuple of choices, or bool for a switch.
    """
    if kind is bool:
        return {"help": help, "action": "store_true", **more}
    if isinstance(kind, tuple):
        return {"help": help, "choices": kind, "default": default, **more}
    kind = Kind(kind) if isinstance(kind, str) else kind
    value = {"type": kind, "metavar": kind.metavar, "default": default}
    return {"help": help, **value, **more}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a flag's default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A command's flags, by the titles of their groups.

    It says what is wrong in one line, and exits with 2.
    """

    def __init__(
        self, groups: Mapping[str, Mapping[str, Any]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **kwargs)
        for title, flags in (groups or {}).items():
            group: Any = self.add_argument_group(title)
            if title == ONE_OF:
                group = group.add_mutually_exclusive_group(required=True)
            for names, options in flags.items():
                group.add_argument(*names.split(), **options)

    def parse_flags(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse a command's flags, which have to go together.

        `given` of the result names those that were written, even with their defaults.
        """
        args = self.parse_args(argv)
        probe = argparse.Namespace(**dict.fromkeys(vars(args), self))
        self.parse_args(argv, probe)
        args.given = frozenset(
            n for n, value in vars(probe).items() if value is not self
        )
        try:
            checks.check(args)
        except ValueError as error:
            self.error(str(error))
        return args

    def error(self, message: str) -> NoReturn:
        """Print the message, exit with 2."""
        line = f"{self.prog}: error: {message} (--help lists the flags)"
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
        self.exit(2)


# Kinds of values.

positive_int = Kind("N", POSITIVE_INT.parse)
finite_float = Kind("X", FINITE.parse)
seed = Kind("N", NON_NEGATIVE_INT.parse)
ratio = Kind("R", Setting(float, lambda n: 0 < n < 1, "between 0 and 1").parse)
share = Kind("R", Setting(float, lambda n: 0 <= n < 1, "between 0 and 1, or 0").parse)
words = Kind("LIST", lambda text: text.split(","))


@partial(Kind, "LIST")
def seeds(text: str) -> list[int]:
    """Parse seeds such as ``0-4`` or ``0,3,7``."""
    found: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d+(-\d+)?", part):
            raise ValueError(f"{part!r} is not a seed or a range")
        first, last = seed(part.split("-")[0]), seed(part.split("-")[-1])
        if not first <= last < first + _MAX_SEEDS:
            raise ValueError(f"{part!r} is not 1 to {_MAX_SEEDS:,} seeds")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


@partial(Kind, "LIST")
def device_names(text: str) -> str:
    """Check a list of devices such as ``gpu`` or ``cpu:0,cpu:1``."""
    several = r"gpu|(cpu|(cpu|gpu):\d{1,3})(,(cpu|gpu):\d{1,3})*"
    if not re.fullmatch(several, text, re.ASCII):
        raise ValueError(f"{text!r} is not cpu, gpu, or a list like cpu:0,cpu:1")
    named = [name.partition(":") for name in text.split(",")]
    if len({(kind, int(index or 0)) for kind, _, index in named}) < len(named):
        raise ValueError(f"{text!r} names a device twice")
    return text


def parse_devices(names: str | None) -> list[mx.Context]:
    """Find the devices that are named, by default every GPU, or the CPU without one."""
    from .._mxnet import mx, npx
    from ..loop import try_all_gpus

    found = npx.num_gpus()
    if names is None or (names == "gpu" and found):
        return try_all_gpus()
    devices = []
    for name in names.split(","):
        kind, _, index = name.partition(":")
        if kind == "gpu" and int(index or 0) >= found:
            raise DeviceUnavailable(
                f"no device {name}: MXNet sees {found} GPU(s) (a CUDA build is needed)"
            )
        devices.append(mx.Context(kind, int(index or 0)))
    return devices


@partial(Kind, "FILE")
def output_file(text: str) -> Path:
    """Check, before the work starts, that a result will have a place to go to."""
    file = Path(text)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{file} is a folder, not a file")
    # A regular file is replaced, in its folder; a pipe or a device is written to.
    if stat.S_ISREG(mode):
        _check_writable(Path(os.path.realpath(file)).parent)
    elif stat.S_ISSOCK(mode) or not os.access(file, os.W_OK):
        raise ValueError(f"{file} cannot be written")
    return file


@partial(Kind, "DIR")
def output_folder(text: str) -> Path:
    """Check, before the work starts, that a folder can be made, or written to."""
    folder = Path(text)
    _check_writable(next(p for p in (folder, *folder.absolute().parents) if p.exists()))
    return folder


def _check_writable(folder: Path) -> None:
    """Open a file in a folder, of which nothing is left."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}") from None


@partial(Kind, "FILE")
def plot_file(text: str) -> Path:
    """Check a plot's path and its kind, and that it can be drawn."""
    if Path(text).suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{text!r} does not end in .png, .svg or .pdf")
    file: Path = output_file(text)
    check_drawing(file.suffix)
    return file


def check_drawing(ending: str) -> None:
    """Check, before the work starts, that pictures of a kind can be drawn."""
    try:
        from matplotlib.figure import Figure

        Figure().savefig(io.BytesIO(), format=ending[1:])
    except (ValueError, ImportError) as error:
        reason = str(error).partition(";")[0]
        raise AutoRecError(
            f"matplotlib cannot draw: {reason}; is MPLBACKEND set?"
        ) from None


# Groups of flags that several commands have.

DATA = {
    "--dataset": flag(
        "ml-100k, ml-1m, ml-10m, ml-latest-small, netflix or synthetic-100k; by "
        "default ml-100k, or synthetic-100k if that is not available (the command "
        "paper: ml-1m, or with --quick ml-100k)",
        "NAME",
    ),
    "--data-dir": flag(
        "folder that holds data sets as GroupLens unzips them, or their zips (default: "
        "$D2L_AUTOREC_DATA; then the cache; then a download)",
        "DIR",
    ),
}
ENCODING = {
    "--encoding": flag("of the files that are read: latin-1, ...", "NAME", "utf-8")
}
RATINGS = {
    "--ratings": flag(
        "a file, a folder, or a pattern in quotes: one rating a line, fields separated "
        "by tab, '::', comma, semicolon, '|' or spaces, with or without a header; "
        "JSON; or Parquet; text may be compressed (.gz, .zst, .zip)",
        "FILE",
    ),
    "--columns": flag(
        "names or positions (from 1) of the columns of user, item and, if there are "
        "any, rating and timestamp (default: a guess)",
        replace(words, metavar="U,I[,R[,T]]"),
    ),
    "--duplicates": flag(
        "what to do when a user rated an item more than once",
        ("error", "last", "mean", "sum", "max"),
        "error",
    ),
    "--missing": flag(
        "leave out the rows with this value, which stands for no rating", finite_float
    ),
    "--transform": flag(
        "train on the logarithm of 1 plus the value, for counts and times", ("log",)
    ),
    "--skip-bad-lines": flag(
        "skip lines that cannot be read, and say how many they are"
    ),
    **ENCODING,
}
FEEDBACK = {
    "--feedback": flag(
        "explicit: predict ratings; implicit: list what users choose next, from pairs "
        "of user and item alone (docs/top-n.md). By default explicit, or implicit for "
        "a file without ratings, or with equal ones only",
        ("explicit", "implicit"),
    ),
    "--min-rating": flag(
        "with --feedback implicit: make pairs of ratings of at least X only",
        finite_float,
    ),
    "--item-features": flag(
        "for the model cvae: words of the items, an item and its words a line; items "
        "that nobody has yet may be among them (default: genres and titles of "
        "MovieLens)",
        "FILE",
    ),
}
TITLES = {
    "--titles": flag(
        "titles of the items, item,title a line: train keeps them with the model, and "
        "recommend shows them beside those of the model",
        "FILE",
    ),
    "--title-columns": flag(
        "names or positions (from 1) of the columns of item and title in that file "
        "(default: a guess)",
        replace(words, metavar="I,T"),
    ),
}
QUIET = {"--quiet": flag("print only the result, no progress")}
MODEL = {"--model": flag("folder of the model", Kind("DIR", Path), required=True)}
HELD_OUT = {
    "--test-ratings": flag(
        "hold out this file, which is like that of --ratings, and train on all of "
        "that; a user or an item of this file alone is cold",
        "FILE",
    )
}


def recipe_flags() -> dict[str, Any]:
    """Make a flag for each setting of a recipe, with what its docstring says of it."""
    # Python 3.13 and later have docstrings without their indentation.
    described = inspect.cleandoc(Recipe.__doc__ or "")
    pieces = re.split(r"\n(\w+) : .*\n", described)[1:]
    texts = {n: text.split("\n\n")[0] for n, text in zip(pieces[::2], pieces[1::2])}
    flags: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        default, text = getattr(Recipe(), name), " ".join(texts.get(name, "").split())
        letter = f" -{setting.letter}" if setting.letter else ""
        if isinstance(default, bool):
            switch = {"action": argparse.BooleanOptionalAction, "default": default}
            found = {"help": text, **switch}
        elif not setting.kind:
            found = flag(text, tuple(setting.words), default, type=str.lower)
        else:
            kind = Kind("N" if setting.kind is int else "X", setting.parse)
            several = {"nargs": "+"} if setting.several else {}
            found = flag(text, kind, default, **several)
        flags[written(name) + letter] = found
    return flags
