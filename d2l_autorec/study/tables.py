"""How results are written down."""

import os
import platform
import shlex
import statistics
from collections.abc import Sequence

import numpy as np


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


def against(
    ours: Sequence[float],
    theirs: Sequence[float],
    form: str = "+.3f",
    lower_is_better: bool = True,
) -> tuple[str, str]:
    """Write by how much a model differs from another one over runs, and those it won.

    Behind the mean of the paired differences is its 95 % confidence interval by
    Student's t.
    """
    from scipy.stats import t  # of no use to others

    gaps = np.subtract(ours, theirs)
    text, size = format(gaps.mean(), form), len(gaps)
    if size > 1:
        half = t.ppf(0.975, size - 1) * gaps.std(ddof=1) / size**0.5
        low, high = (format(gaps.mean() + end, form) for end in (-half, half))
        text += f" ({low} to {high})"
    won = np.count_nonzero(gaps < 0 if lower_is_better else gaps > 0)
    return text, f"{won}/{size}"


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
