"""The flags of the commands: their types, and the groups that several commands have.

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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..errors import AutoRecError, DeviceUnavailable
from ..training import (
    FINITE,
    NON_NEGATIVE_INT,
    POSITIVE_INT,
    SETTINGS,
    Recipe,
    Setting,
)
from . import checks
from .checks import written

if TYPE_CHECKING:
    from .._mxnet import mx

_MAX_SEEDS = 1000


class Flag(NamedTuple):
    """A flag: what reads its value (`bool` makes a switch), its default, its choices.

    Flags are attributes of classes, whose docstrings say what they are for.
    """

    parse: Callable[[str], Any] = str
    default: Any = None
    choices: Sequence[str] | None = None


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a flag's default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line and exits with 2."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **kwargs)

    def add_flags(
        self, title: str, flags: type, group: Any = None, **words: str
    ) -> None:
        """Add the flags of a class; `words` are filled into what they are for."""
        group = group or self.add_argument_group(title)
        texts = _described(flags)
        for name, flag in vars(flags).items():
            if not isinstance(flag, Flag):
                continue
            metavar, text = texts.get(name, ("X", ""))  # without docstrings (-OO)
            options: dict[str, Any] = {"action": "store_true"}
            if flag.choices:
                options = {"choices": flag.choices, "default": flag.default}
            elif flag.parse is not bool:
                options = {"type": flag.parse, "default": flag.default}
                options["metavar"] = metavar
            text = text.format(**words)
            group.add_argument(written(name), help=text, **options)

    def parse_flags(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse a command's flags, which have to go together.

        `given` of the result names those that were written, even with their defaults.
        """
        args = self.parse_args(argv)
        unset = object()
        probe = argparse.Namespace(**dict.fromkeys(vars(args), unset))
        self.parse_args(argv, probe)
        given = {name for name, value in vars(probe).items() if value is not unset}
        args.given = frozenset(given)
        try:
            checks.check(args)
        except ValueError as error:
            self.error(str(error))
        return args

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, none of which may be an empty text."""
        words = sys.argv[1:] if args is None else list(args)
        for before, word in zip(["", *words], words):
            if not word or re.fullmatch("--[a-z-]+=", word):
                flag = word.rstrip("=") or before
                self.error(f"argument {flag}: is empty; is a variable not set?")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message, exit with 2."""
        line = f"{self.prog}: error: {message} (--help lists the flags)"
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
        self.exit(2)


# The types of flags.


def parsed_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turn what raises a ValueError into a flag's type, which shows its message."""

    def parse_flag(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_flag


positive_int = parsed_by(POSITIVE_INT.parse)
finite_float = parsed_by(FINITE.parse)
seed = parsed_by(NON_NEGATIVE_INT.parse)
ratio = parsed_by(Setting(float, lambda n: 0 < n < 1, "between 0 and 1").parse)
share = parsed_by(Setting(float, lambda n: 0 <= n < 1, "between 0 and 1, or 0").parse)


@parsed_by
def seeds(text: str) -> list[int]:
    """Parse seeds such as ``0-4`` or ``0,3,7``."""
    found: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d+(-\d+)?", part):
            raise ValueError(f"{part!r} is not a seed or a range")
        first, last = seed(part.split("-")[0]), seed(part.split("-")[-1])
        if last < first:
            raise ValueError(f"{part!r} counts down")
        if last - first >= _MAX_SEEDS:
            raise ValueError(f"{part!r} is more than {_MAX_SEEDS:,} seeds")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


@parsed_by
def lengths(text: str) -> list[int]:
    """Parse lengths of lists such as ``10,20,50``."""
    return sorted({POSITIVE_INT.parse(part) for part in text.split(",")})


@parsed_by
def names(text: str) -> list[str]:
    """Parse the columns of a file."""
    found = [name.strip() for name in text.split(",")]
    if "" in found or len(set(found)) < len(found):
        raise ValueError(f"{text!r} is not a list of columns")
    return found


@parsed_by
def column_names(text: str) -> list[str]:
    """Parse the two to four columns of a ratings file."""
    found = names(text)
    if len(found) not in (2, 3, 4):
        raise ValueError(f"{text!r} is not two to four columns")
    return list(found)


@parsed_by
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


@parsed_by
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
        place = Path(os.path.realpath(file)).parent
        if not place.is_dir():
            raise ValueError(f"{file.parent} is not a folder")
        _check_writable(place)
    elif stat.S_ISSOCK(mode) or not os.access(file, os.W_OK):
        raise ValueError(f"{file} cannot be written")
    return file


@parsed_by
def output_folder(text: str) -> Path:
    """Check, before the work starts, that a folder can be made, or written to."""
    folder = Path(text)
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        raise ValueError(f"{place} is not a folder")
    _check_writable(place)
    return folder


def _check_writable(folder: Path) -> None:
    """Open a file in a folder, of which nothing is left."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}") from None


@parsed_by
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


class DataFlags:
    """The data set.

    dataset : NAME
        ml-100k, ml-1m, ml-10m, ml-latest-small, netflix or synthetic-100k; by default
        ml-100k, and synthetic-100k where that cannot be had (the paper command: ml-1m,
        and with --quick ml-100k)
    data_dir : DIR
        folder that holds data sets as GroupLens unzips them, or their zips (default:
        $D2L_AUTOREC_DATA; then the cache; then a download)
    """

    dataset, data_dir = Flag(), Flag()


class EncodingFlag:
    """How the files that are read are encoded.

    encoding : NAME
        utf-8, latin-1, ...
    """

    encoding = Flag(default="utf-8")


class RatingsFlags:
    """How a ratings file of one's own is read.

    ratings : FILE
        a file, a folder, or a pattern in quotes: one rating a line, fields separated by
        tab, '::', comma, semicolon, '|' or spaces, with or without a header; JSON; or
        Parquet; a text may be packed (.gz, .zst, .zip)
    columns : U,I[,R[,T]]
        names or positions (from 1) of the columns of user, item and, if there are any,
        rating and timestamp (default: a guess)
    duplicates : str
        what to do when a user rated an item more than once
    missing : X
        leave out the rows with this value, which stands for no rating
    transform : str
        train on the logarithm of 1 plus the value, for counts and times
    skip_bad_lines : bool
        go on without lines that cannot be read, and say how many they are
    """

    ratings, columns = Flag(), Flag(column_names)
    duplicates = Flag(str, "error", ("error", "last", "mean", "sum", "max"))
    missing = Flag(finite_float)
    transform, skip_bad_lines = Flag(choices=("log",)), Flag(bool)


class FeedbackFlags:
    """What the model is to predict.

    feedback : str
        explicit: what users would rate; implicit: what they choose next, in lists, from
        pairs of user and item alone (docs/top-n.md). By default explicit, and implicit
        for a file without ratings, or with equal ones
    min_rating : X
        with --feedback implicit: ratings from X on are pairs, and others are none
    """

    feedback = Flag(choices=("explicit", "implicit"))
    min_rating = Flag(finite_float)


class TitleFlags:
    """Titles of the items.

    titles : FILE
        titles of the items, item,title a line: train keeps them with the model, and
        recommend shows them beside those of the model
    title_columns : I,T
        names or positions (from 1) of the columns of item and title in that file
        (default: a guess)
    """

    titles, title_columns = Flag(), Flag(names)


class QuietFlag:
    """What is shown.

    quiet : bool
        print only the result, no progress
    """

    quiet = Flag(bool)


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a saved model, which is required."""
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="folder of the model"
    )


def add_recipe_flags(group: Any) -> None:
    """Add a flag for each setting of a recipe, as its description has it."""
    texts = _described(Recipe)
    for name, setting in SETTINGS.items():
        flags = [written(name)]
        if setting.letter:
            flags.append(f"-{setting.letter}")
        options: dict[str, Any]
        if isinstance(getattr(Recipe(), name), bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif not setting.kind:
            options = {"choices": list(setting.words), "type": str.lower}
        else:
            metavar = "N" if setting.kind is int else "X"
            options = {"type": parsed_by(setting.parse), "metavar": metavar}
        if setting.several:
            options["nargs"] = "+"
        _, text = texts.get(name, ("", ""))
        default = getattr(Recipe(), name)
        group.add_argument(*flags, help=text, default=default, **options)


def _described(cls: type) -> dict[str, tuple[str, str]]:
    """Read the kind of each value, and what it is for, from a class's docstring."""
    # Python 3.13 and later have docstrings without their indentation.
    text = inspect.cleandoc(cls.__doc__ or "")
    pieces = re.split(r"\n(\w+) : (.*)\n", text)[1:]
    texts = (" ".join(text.split("\n\n")[0].split()) for text in pieces[2::3])
    return dict(zip(pieces[::3], zip(pieces[1::3], texts)))
