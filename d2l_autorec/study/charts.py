"""Pictures of a comparison and of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .paper import HIDDEN_UNITS, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by those who do not see all colors too (Okabe and Ito's), greys first.
_COLORS = ("0.7", "0.45", "#E69F00", "#0072B2", "#CC79A7")


def comparison_chart(
    rmse: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """Draw the RMSE of several models as bars, and after each epoch as lines.

    By a model's title there is the RMSE of each run, and each run's RMSE after each
    epoch; a model without epochs has a dashed line. A thin line is a run, a thick one
    the mean of the runs, as far as all of them go.
    """
    colors = dict(zip(rmse, cycle(_COLORS)))
    figure, lines, bounds = _figure_with_bars(rmse, colors)
    # Drawn last to first: of two models that learn alike, the shorter one is listed
    # first and stays in sight.
    for title in reversed(list(curves)):
        runs = [run for run in curves[title] if run]
        style = {"color": colors[title], "label": title}
        if not runs:
            lines.axhline(np.mean(rmse[title]), linestyle="--", **style)
            continue
        for run in runs:
            epochs = range(1, len(run) + 1)
            lines.plot(epochs, run, color=colors[title], alpha=0.3, linewidth=1)
            lines.plot(len(run), run[-1], ".", color=colors[title])
        shared = min(map(len, runs))
        mean = np.mean([run[:shared] for run in runs], axis=0)
        lines.plot(range(1, shared + 1), mean, linewidth=2, **style)
    lines.set_ylim(*bounds)
    lines.set(title="the same, after each epoch", xlabel="epoch", ylabel="RMSE")
    lines.set_xlim(left=0)
    lines.xaxis.get_major_locator().set_params(integer=True)
    lines.legend(*(reversed(part) for part in lines.get_legend_handles_labels()))
    return figure


def study_chart(rows: Mapping[str, Row], dataset: str) -> Figure:
    """Draw the RMSE of the experiments as bars, and over the hidden units as a line.

    Beside ML-1M's bars, a diamond is the published figure.
    """
    models = [row for name, row in rows.items() if not name.startswith("hidden-")]
    curve = {n: rows[f"hidden-{n}"] for n in HIDDEN_UNITS if f"hidden-{n}" in rows}
    rmse = {row.experiment.title: row.rmse for row in models}
    published = {row.experiment.title: row.experiment.published for row in models}
    shown = published if dataset == "ml-1m" else {}
    colors = dict.fromkeys(rmse, "#8ab8e0")
    figure, units, _ = _figure_with_bars(rmse, colors, shown)
    units.plot(list(curve), [row.rmse[0] for row in curve.values()], marker="o")
    units.set(title="I-AutoRec", xlabel="hidden units", ylabel="RMSE")
    figure.suptitle(f"AutoRec's experiments on {dataset}")
    return figure


def _figure_with_bars(
    rmse: Mapping[str, Sequence[float]],
    colors: Mapping[str, str],
    published: Mapping[str, float | None] = {},
) -> tuple[Figure, Any, tuple[float, float]]:
    """Draw a bar a model; return the axes beside it, and bounds of errors for them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
    bars, others = figure.subplots(1, 2, width_ratios=(1, 1.15))
    means = {title: float(np.mean(values)) for title, values in rmse.items()}
    low, high = min(means.values(), default=0.0), max(means.values(), default=0.0)
    # Models differ by hundredths: from 0 on, all bars would look alike.
    start = np.floor((low - 0.25 * (high - low) - 0.01) * 50) / 50
    ends = [high]
    for row, (title, values) in enumerate(rmse.items()):
        error = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        style = {"color": colors[title], "error_kw": {"capsize": 4}}
        bars.barh(row, means[title] - start, left=start, xerr=error, **style)
        label = f"{means[title]:.3f}" + (f" ± {error:.3f}" if error else "")
        ends.append(max(means[title] + error, published.get(title) or 0.0))
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        bars.annotate(label, (ends[-1], row), **place)
    if published:
        diamonds = {"mfc": "none", "color": "k", "label": "published"}
        bars.plot([*published.values()], range(len(published)), "D", **diamonds)
        bars.legend(loc="lower right")
    bars.set_yticks(range(len(rmse)), rmse)
    bars.invert_yaxis()
    bars.set_xlim(start, max(ends) + 0.5 * (max(ends) - start))  # room for the labels
    bars.set(
        title="RMSE on held-out ratings: lower is better",
        xlabel=f"RMSE (the axis starts at {start:g})",
    )
    bars.grid(axis="x", alpha=0.3)
    bars.set_axisbelow(True)
    others.grid(alpha=0.3)
    return figure, others, (start, high + 0.15 * (high - start))
