"""How results are written down."""

import os
import platform
import shlex
import statistics
from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of cells, the header first, out as Markdown."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
    lines = []
    for first, *others in (rows[0], rule, *rows[1:]):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Give the mean, and of several values the sample standard deviation."""
    mean = format(statistics.mean(values), form)
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.3f}"


def span(seeds: Sequence[int]) -> str:
    """Write seeds as the commands read them: ``0-4`` or ``0,3,7``."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, seeds))


def machine() -> str:
    """Name the machine, as far as it matters."""
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def provenance(command: str, flags: Sequence[str], seeds: str = "") -> str:
    """Name the command that prints a report again, and the machine."""
    return (
        f"`d2l-autorec {command} {shlex.join(flags)}`{seeds} on {machine()}, "
        f"Python {platform.python_version()}"
    )
