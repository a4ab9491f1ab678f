"""What the commands share: their flags, and errors that are one line.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import re
import stat
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .._ready import check_variables
from ..errors import AutoRecError, DatasetUnavailable, DeviceUnavailable
from ..training import (
    FINITE,
    NON_NEGATIVE_INT,
    POSITIVE_INT,
    SETTINGS,
    Numbers,
    Recipe,
)
from .process import Interrupts, open_streams

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..ratings import Ratings

NOT_COMPARABLE = "not comparable with the book"
_OUTPUT = "standard output"
# As MXNet, Python's threads and the loader of compiled code say it.
_NO_MEMORY = (
    *("Failed to allocate", "Resource temporarily unavailable"),
    *("can't start new thread", "failed to map segment"),
)
_MAX_SEEDS = 1000


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a flag's default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Notes(logging.Handler):
    """Shows what the package logs, on a line of its own beside a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def show_notes(quiet: bool = False) -> None:
    """Show on standard error what is logged, and progress.

    Parameters
    ----------
    quiet : bool
        Only warnings; else also what takes its time, for those who see progress.
    """
    from tqdm import tqdm

    # By default also one for processes, which is left behind when `run` ends this one.
    tqdm.set_lock(threading.RLock())
    log = logging.getLogger("d2l_autorec")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False  # MXNet gives the root a handler
    if not log.handlers:
        log.addHandler(_Notes())


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line and exits with 2."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **kwargs)

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


def run(
    command: Callable[[], None], end: Callable[[int], NoReturn] = sys.exit
) -> NoReturn:
    """Run a command and exit, with 1 and one line if a known error stops it.

    With 2, before it starts, for an environment that its libraries do not take.

    Parameters
    ----------
    command : callable
        The command's ``main``.
    end : callable
        How to exit with another status than 0. For a process of its own that is
        ``os._exit``: MXNet's way out sometimes aborts when it was interrupted, and with
        several machines it waits for workers that wait for this one.
    """
    open_streams()
    with Interrupts():
        try:
            status, message = 2, _message(check_variables)
            if not message:
                status, message = 1, _message(command)
        except SystemExit as stopped:  # of --help, or of a bad flag
            if isinstance(stopped.code, int) and stopped.code:
                end(stopped.code)
            raise
        if not message:
            sys.exit(0)
        with suppress(OSError):
            sys.stdout.flush()
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)
        end(status)


def _message(command: Callable[[], None]) -> str:
    """Run a command; return what to say of what stopped it, if anything did."""
    try:
        try:
            command()
        except SystemExit:
            _flush()
            raise
        _flush()
    except KeyboardInterrupt as interrupt:
        return str(interrupt) or "interrupted"
    except AutoRecError as error:
        return f"error: {error}"
    except MemoryError as error:
        return f"error: not enough memory{f': {error}' if str(error) else ''}"
    except (RuntimeError, ImportError) as error:
        said = f"{error} {error.__cause__}"
        if not any(words in said for words in _NO_MEMORY):
            raise
        return "error: not enough memory"
    except OSError as error:
        where = error.filename
        if not where and error.errno in (errno.EPIPE, errno.EBADF):
            where = _OUTPUT
        return f"error: {f'{where}: ' if where else ''}{error.strerror or error}"
    return ""


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, _OUTPUT) from None


def parsed_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turn what raises a ValueError into a flag's type, which shows its message."""

    def parse_flag(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_flag


RATIO = Numbers(float, lambda n: 0 < n < 1, "between 0 and 1")
SHARE = Numbers(float, lambda n: 0 <= n < 1, "between 0 and 1, or 0")

positive_int = parsed_by(POSITIVE_INT.parse)
finite_float = parsed_by(FINITE.parse)
seed = parsed_by(NON_NEGATIVE_INT.parse)
ratio = parsed_by(RATIO.parse)
share = parsed_by(SHARE.parse)


def flags(names: set[str]) -> str:
    """List flags as they are written."""
    return ", ".join(sorted("--" + name.replace("_", "-") for name in names))


def seeds(text: str) -> list[int]:
    """Parse seeds such as ``0-4`` or ``0,3,7``."""
    found: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d+(-\d+)?", part):
            raise argparse.ArgumentTypeError(f"{part!r} is not a seed or a range")
        first, last = seed(part.split("-")[0]), seed(part.split("-")[-1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} counts down")
        if last - first >= _MAX_SEEDS:
            raise argparse.ArgumentTypeError(
                f"{part!r} is more than {_MAX_SEEDS:,} seeds"
            )
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def add_recipe_flags(group: Any) -> None:
    """Add a flag for each setting of a recipe, as its description has it.

    Parameters
    ----------
    group : argparse._ArgumentGroup
        Of a parser.
    """
    for name, setting in SETTINGS.items():
        flags = [f"--{name.replace('_', '-')}"]
        if setting.letter:
            flags.append(f"-{setting.letter}")
        options: dict[str, Any]
        if isinstance(getattr(Recipe(), name), bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif not setting.numbers:
            options = {"choices": list(setting.words), "type": str.lower}
        else:
            metavar = "N" if setting.numbers.kind is int else "X"
            options = {"type": parsed_by(setting.parse), "metavar": metavar}
        if setting.several:
            options["nargs"] = "+"
        group.add_argument(
            *flags, help=setting.help, default=getattr(Recipe(), name), **options
        )


def device_names(text: str) -> str:
    """Check a list of devices such as ``gpu`` or ``cpu:0,cpu:1``."""
    several = r"gpu|(cpu|(cpu|gpu):\d{1,3})(,(cpu|gpu):\d{1,3})*"
    if not re.fullmatch(several, text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not cpu, gpu, or a list like cpu:0,cpu:1"
        )
    named = [name.partition(":") for name in text.split(",")]
    if len({(kind, int(index or 0)) for kind, _, index in named}) < len(named):
        raise argparse.ArgumentTypeError(f"{text!r} names a device twice")
    return text


def parse_devices(names: str | None) -> list[mx.Context]:
    """Find the devices that a command names.

    Parameters
    ----------
    names : str or None
        ``'cpu'``, ``'gpu'`` for every GPU, or a list like ``'cpu:0,cpu:1'``; None for
        every GPU, or the CPU where there is none.

    Returns
    -------
    list of mxnet.Context

    Raises
    ------
    DeviceUnavailable
        If a GPU is named that is not there.
    """
    from .._mxnet import mx, npx
    from ..loop import try_all_gpus

    if names is None:
        return try_all_gpus()
    found = npx.num_gpus()
    if names == "gpu" and found:
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


def output_file(text: str) -> Path:
    """Check, before the work starts, that a result will have a place to go to."""
    file = Path(text)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{file}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise argparse.ArgumentTypeError(f"{file} is a folder, not a file")
    # A regular file is replaced, in its folder; a pipe or a device is written to.
    if stat.S_ISREG(mode):
        place = Path(os.path.realpath(file)).parent
        if not place.is_dir():
            raise argparse.ArgumentTypeError(f"{file.parent} is not a folder")
        _check_writable(place)
    elif stat.S_ISSOCK(mode) or not os.access(file, os.W_OK):
        raise argparse.ArgumentTypeError(f"{file} cannot be written")
    return file


def output_folder(text: str) -> Path:
    """Check, before the work starts, that a folder can be made, or written to."""
    folder = Path(text)
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        raise argparse.ArgumentTypeError(f"{place} is not a folder")
    _check_writable(place)
    return folder


def _check_writable(folder: Path) -> None:
    """Open a file in a folder, of which nothing is left."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}"
        raise argparse.ArgumentTypeError(said) from None


def plot_file(text: str) -> Path:
    """Check a plot's path and its kind, and that it can be drawn."""
    if Path(text).suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, .svg or .pdf")
    file = output_file(text)
    check_drawing(file.suffix)
    return file


def check_drawing(ending: str) -> None:
    """Check, before the work starts, that pictures of a kind can be drawn.

    Raises
    ------
    AutoRecError
        If matplotlib cannot be used.
    """
    try:
        from matplotlib.figure import Figure

        Figure().savefig(io.BytesIO(), format=ending[1:])
    except (ValueError, ImportError) as error:
        reason = str(error).partition(";")[0]
        raise AutoRecError(
            f"matplotlib cannot draw: {reason}; is MPLBACKEND set?"
        ) from None


def add_data_flags(
    parser: argparse.ArgumentParser,
    default: str = "ml-100k, and synthetic-100k where that cannot be had",
) -> None:
    """Add the flags that say which ratings to use.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command.
    default : str
        What the help says of the data set that is used without ``--dataset``.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        metavar="NAME",
        help="ml-100k, ml-1m, ml-10m, ml-latest-small or synthetic-100k; by default "
        f"{default}",
    )
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder that holds data sets as GroupLens unzips them, or their zips "
        "(default: $D2L_AUTOREC_DATA; then the cache; then a download)",
    )


def load_ratings(
    name: str | None, data_dir: str | None, *files: Path | None
) -> Ratings:
    """Load what `add_data_flags` asked for; fall back on generated ratings.

    Parameters
    ----------
    name : str or None
        A data set; None for ML-100K, or ``synthetic-100k`` where that cannot be had.
    data_dir : str or None
        As for `load_dataset`.
    *files : pathlib.Path or None
        Where the results will go.

    Returns
    -------
    Ratings

    Raises
    ------
    DataError, DatasetUnavailable
        As for `load_dataset`, the latter only for a data set that was named, or if one
        of `files` is there: results of generated ratings replace none unless they were
        asked for by name.
    """
    from ..ratings import SYNTHETIC, load_dataset

    try:
        return load_dataset(name or "ml-100k", data_dir)
    except DatasetUnavailable as error:
        if name:
            raise
        if there := [str(file) for file in files if file and file.exists()]:
            raise DatasetUnavailable(
                f"{error}; {there[0]} is there, and results of generated ratings "
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


def add_output_flags(
    parser: argparse.ArgumentParser, plot: str = "", json: str = ""
) -> argparse._ArgumentGroup:
    """Add the flags that say what to show, and where results are to go.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command.
    plot, json : str
        What the help says of such a file, if the command writes one.

    Returns
    -------
    argparse._ArgumentGroup
        For more of them.
    """
    group = parser.add_argument_group("output")
    group.add_argument(
        "--quiet", action="store_true", help="print only the result, no progress"
    )
    if plot:
        group.add_argument(
            "--plot",
            type=plot_file,
            metavar="FILE",
            help=f"{plot} (.png, .svg or .pdf)",
        )
    if json:
        group.add_argument("--json", type=output_file, metavar="FILE", help=json)
    return group


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a saved model."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the model",
    )


def add_ratings_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how to read a ratings file of one's own.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command.
    """
    group = parser.add_argument_group("your own ratings")
    group.add_argument(
        "--ratings",
        metavar="FILE",
        help="one rating a line, fields apart by tab, '::', comma, semicolon or '|'; "
        "with or without a header; plain, .gz, .zip or .parquet",
    )
    group.add_argument(
        "--columns",
        type=column_names,
        metavar="U,I,R[,T]",
        help="names or positions (from 1) of the columns of user, item, rating and, if "
        "there is one, timestamp (default: a guess)",
    )
    add_encoding_flag(group)
    group.add_argument(
        "--duplicates",
        choices=("error", "last", "mean"),
        default="error",
        help="what to do when a user rated an item more than once",
    )
    group.add_argument(
        "--rating-offset",
        type=finite_float,
        default=0.0,
        metavar="X",
        help="add it to every rating, where a scale reaches 0 or below; predictions "
        "are shifted back",
    )


def add_encoding_flag(group: Any) -> None:
    """Add the flag that names the encoding of the files that are read."""
    group.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="utf-8, latin-1, ..."
    )


def names(text: str) -> list[str]:
    """Parse the columns of a file."""
    found = [name.strip() for name in text.split(",")]
    if "" in found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of columns")
    return found


def add_title_flags(group: Any, titles: str) -> None:
    """Add the flags that name a file of titles, and its columns."""
    group.add_argument("--titles", metavar="FILE", help=titles)
    group.add_argument(
        "--title-columns",
        type=names,
        metavar="I,T",
        help="names or positions (from 1) of the columns of item and title in that "
        "file (default: a guess)",
    )


def column_names(text: str) -> list[str]:
    """Parse the three or four columns of a ratings file."""
    found = names(text)
    if len(found) not in (3, 4):
        raise argparse.ArgumentTypeError(f"{text!r} is not three or four columns")
    return found
