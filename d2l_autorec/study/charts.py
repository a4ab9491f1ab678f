"""Pictures of a comparison and of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by those who do not see all colors too (Okabe and Ito's), greys first.
_COLORS = ("0.7", "0.45", "#E69F00", "#0072B2", "#CC79A7")


def comparison_chart(
    rmse: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """Draw the errors of several models as bars, and how they learned.

    Parameters
    ----------
    rmse : mapping
        From a model's title to its RMSE in each run.
    curves : mapping
        From the title to each run's RMSE after each epoch; without epochs, it is empty.

    Returns
    -------
    matplotlib.figure.Figure
        Left a bar a model, whose axis does not start at 0; right a thin line a run and
        a thick one for their mean, as far as all of them go, and a dot at each end.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
    bars, lines = figure.subplots(1, 2, width_ratios=(1, 1.15))
    colors = dict(zip(rmse, cycle(_COLORS)))
    means = {title: np.mean(values) for title, values in rmse.items()}
    low, high = min(means.values()), max(means.values())
    # Models differ by hundredths: from 0 on, all bars would look alike.
    start = np.floor((low - 0.25 * (high - low) - 0.01) * 50) / 50
    for row, (title, values) in enumerate(rmse.items()):
        error = np.std(values, ddof=1) if len(values) > 1 else 0.0
        bars.barh(
            *(row, means[title] - start),
            left=start,
            xerr=error,
            color=colors[title],
            error_kw={"capsize": 4},
        )
        label = f"{means[title]:.3f}" + (f" ± {error:.3f}" if error else "")
        bars.annotate(
            label,
            (means[title] + error, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    bars.set_yticks(range(len(rmse)), rmse)
    bars.invert_yaxis()
    bars.set_xlim(start, high + 0.5 * (high - start))  # room for the labels
    bars.set(
        title="RMSE on held-out ratings: lower is better",
        xlabel=f"RMSE (the axis starts at {start:g})",
    )
    bars.grid(axis="x", alpha=0.3)
    bars.set_axisbelow(True)

    # Drawn last to first: of two models that learn alike, the shorter one is listed
    # first and stays in sight.
    for title in reversed(list(curves)):
        runs, color = [run for run in curves[title] if run], colors[title]
        if not runs:
            lines.axhline(means[title], color=color, linestyle="--", label=title)
            continue
        shared = range(min(map(len, runs)))
        mean = [np.mean([run[epoch] for run in runs]) for epoch in shared]
        for run in runs:
            lines.plot(range(1, len(run) + 1), run, color=color, alpha=0.3, linewidth=1)
            lines.plot(len(run), run[-1], ".", color=color)
        lines.plot([e + 1 for e in shared], mean, color=color, linewidth=2, label=title)
    lines.set_ylim(start, high + 0.15 * (high - start))
    lines.set(title="the same, after each epoch", xlabel="epoch", ylabel="RMSE")
    lines.set_xlim(left=0)
    lines.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines.legend(*(reversed(part) for part in lines.get_legend_handles_labels()))
    lines.grid(alpha=0.3)
    return figure


def study_chart(
    rmse: Mapping[str, Sequence[float]],
    published: Mapping[str, float],
    curve: Mapping[int, float],
) -> Figure:
    """Draw errors beside published ones, and the error over the hidden units.

    Parameters
    ----------
    rmse : mapping
        From a model's title to its RMSE on each split.
    published : mapping
        From a title to the figure to compare with, where there is one.
    curve : mapping
        From the number of hidden units to the RMSE.

    Returns
    -------
    matplotlib.figure.Figure
        Left a row a model, a dot for the mean with the standard deviation, and a
        diamond for the published figure; right the curve.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
    models, units = figure.subplots(1, 2, width_ratios=(1.3, 1))
    for row, (title, values) in enumerate(rmse.items()):
        error = np.std(values, ddof=1) if len(values) > 1 else 0.0
        here = "here" if row == 0 else None
        models.errorbar(
            *(np.mean(values), row),
            xerr=error,
            fmt="o",
            color="tab:blue",
            capsize=4,
            label=here,
        )
        if title in published:
            there = "published" if title == next(iter(published)) else None
            models.plot(published[title], row, "D", mfc="none", color="k", label=there)
    models.set_yticks(range(len(rmse)), rmse)
    models.invert_yaxis()
    models.set(title="RMSE on held-out ratings: lower is better", xlabel="RMSE")
    models.grid(alpha=0.3)
    if rmse:
        models.legend()
    units.plot(list(curve), list(curve.values()), marker="o")
    units.set(title="I-AutoRec", xlabel="hidden units", ylabel="RMSE")
    units.grid(alpha=0.3)
    return figure
