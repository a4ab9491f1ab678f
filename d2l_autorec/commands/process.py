"""A command as a process: its streams, its errors in one line, and its signals."""

from __future__ import annotations

import _thread
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from .._ready import check_variables
from ..errors import AutoRecError

# Reading, writing that fails, writing that goes nowhere.
_STAND_INS = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
_OUTPUT = "standard output"
# As MXNet, Python's threads and the loader of compiled code say it.
_NO_MEMORY = (
    *("Failed to allocate", "Resource temporarily unavailable"),
    *("can't start new thread", "failed to map segment"),
)


def run(
    command: Callable[[], None], end: Callable[[int], NoReturn] = sys.exit
) -> NoReturn:
    """Run a command and exit, with 1 and one line if a known error stops it.

    It exits with 2 before it starts for an environment that its libraries refuse. `end`
    is how it exits with another status than 0. For a process of its own that is
    ``os._exit``: MXNet's way out sometimes aborts when it was interrupted, and with
    several machines it waits for workers that wait for this one.
    """
    _open_streams()
    with _interruptible():
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


def interrupted_by(interrupt: KeyboardInterrupt) -> str:
    """Name what ended a command: Ctrl-C, or SIGTERM."""
    return str(interrupt) or "interrupted"


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
        return interrupted_by(interrupt)
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


class _Notes(logging.Handler):
    """Shows what the package logs, on a line of its own beside a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def show_notes(quiet: bool = False) -> None:
    """Show on standard error what is logged; quiet: only warnings."""
    from tqdm import tqdm

    # By default also one for processes, which is left behind when `run` ends this one.
    tqdm.set_lock(threading.RLock())
    log = logging.getLogger("d2l_autorec")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False  # MXNet gives the root a handler
    if not log.handlers:
        log.addHandler(_Notes())


def _open_streams() -> None:
    """Have all standard streams, and let standard output take any text.

    One that is closed has a number that the next file gets, which MXNet would write to.
    A standard output that is closed fails as what is written to it is flushed.
    """
    for number, flags in enumerate(_STAND_INS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(raw := getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # Unbuffered (PYTHONUNBUFFERED), a write that is cut short would go unnoticed.
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stdout.encoding, line_buffering=True
        )
    if hasattr(sys.stdout, "reconfigure"):
        # A title that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM interrupt a command, and no more as it ends."""

    def handle(handler: Any) -> None:
        for number in before:
            signal.signal(number, handler)

    def interrupt(number: int, frame: Any) -> NoReturn:
        handle(signal.SIG_IGN)
        raise KeyboardInterrupt("terminated" if number == signal.SIGTERM else "")

    def pass_on(unraisable: Any) -> None:
        # MXNet frees its arrays in __del__, where Python can only report an exception,
        # be it a KeyboardInterrupt, and go on.
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            handle(interrupt)
            # From a thread and a little later: here it would be lost like the first.
            threading.Timer(0.1, _thread.interrupt_main).start()
        else:
            sys.__unraisablehook__(unraisable)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    # One that is ignored stays so.
    usual = signal.SIG_DFL, signal.default_int_handler
    before = {number: found for number, found in before.items() if found in usual}
    hook, sys.unraisablehook = sys.unraisablehook, pass_on
    handle(interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, found in before.items():
            signal.signal(number, found)
