"""The results of a command: JSON, and files that are written before anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .checks import written

if TYPE_CHECKING:
    from pathlib import Path


def as_json(value: Any) -> str:
    """Write a value as JSON; NumPy's numbers are Python's, and NaN is an error."""
    return json.dumps(value, indent=2, default=lambda n: n.item(), allow_nan=False)


def publish(report: str, *files: tuple[Path | None, Callable[[Path], None]]) -> None:
    """Write the files that are asked for, and then print a report.

    Of each file there is its path, if it is asked for, and what writes it. The report
    is printed even if a file cannot be written, and files are if it cannot be printed.
    """
    try:
        for path, write in files:
            if path:
                write(path)
    finally:
        print(report)


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as flags of a command line."""
    words = []
    for name, value in settings.items():
        words.append(written(name))
        if value is not True:
            words.append(",".join(value) if isinstance(value, list) else str(value))
    return words


def json_writer(value: Any) -> Callable[[Path], None]:
    """Make what writes a value into a file of JSON."""
    from ..serving import save_text

    return lambda path: save_text(as_json(value) + "\n", path)
