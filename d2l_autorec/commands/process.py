"""A command as a process: its streams, and the signals that end it."""

from __future__ import annotations

import _thread
import io
import os
import signal
import sys
import threading
from typing import Any, NoReturn

# Reading, writing that fails, writing that goes nowhere.
_STAND_INS = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)


def open_streams() -> None:
    """Have all standard streams, and let standard output take any text.

    One that is closed has a number that the next file gets, which MXNet would write to.
    A standard output that is closed fails as what is written to it is flushed.
    """
    for number, flags in enumerate(_STAND_INS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(raw := getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # Unbuffered (PYTHONUNBUFFERED), a write that is cut short would go unnoticed.
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stdout.encoding, line_buffering=True
        )
    if hasattr(sys.stdout, "reconfigure"):
        # A title that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")


class Interrupts:
    """Ctrl-C and SIGTERM, the first of which interrupts a command.

    As it ends, more of them do not keep it from leaving everything in order.
    """

    def __enter__(self) -> None:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._pass_on
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = before
        self._handle(self._interrupt)

    def __exit__(self, *error: object) -> None:
        sys.unraisablehook = self._hook
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, handler: Any) -> None:
        for number in self._before:
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: Any) -> NoReturn:
        self._handle(signal.SIG_IGN)
        raise KeyboardInterrupt("terminated" if number == signal.SIGTERM else "")

    def _pass_on(self, unraisable: Any) -> None:
        """Keep an interrupt from being lost.

        MXNet frees its arrays in ``__del__``, where Python can only report an
        exception, be it a KeyboardInterrupt, and go on.
        """
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._handle(self._interrupt)
            # From a thread and a little later: here it would be lost like the first.
            threading.Timer(0.1, _thread.interrupt_main).start()
        else:
            sys.__unraisablehook__(unraisable)
