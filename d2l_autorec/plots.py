"""What a training looks like: live while it runs, and as a file."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .loop import Epoch

# Told apart by those who do not see all colors too (Okabe and Ito's), greys first.
_COLORS = ("0.7", "0.45", "#E69F00", "#0072B2", "#CC79A7")


def watch(epochs: Iterable[Epoch], num_epochs: int) -> Iterator[Epoch]:
    """Show epochs as they pass by: a live plot in a notebook, else a progress bar.

    Parameters
    ----------
    epochs : iterable of Epoch
        As `train_epochs` yields them.
    num_epochs : int
        How many there will be.

    Yields
    ------
    Epoch
        The same ones.
    """
    shown = _live_plot if _in_notebook() else _progress_bar
    yield from shown(epochs, num_epochs)


def learning_curve(history: Sequence[Epoch], num_epochs: int | None = None) -> Figure:
    """Draw train loss and test RMSE over the epochs.

    Parameters
    ----------
    history : sequence of Epoch
        What has been trained so far.
    num_epochs : int, optional
        Where the axis ends; by default with the last epoch.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels side by side, on a white ground that suits dark pages too.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3), facecolor="white", layout="constrained")
    panels = zip(
        figure.subplots(1, 2),
        ("train_loss", "test_rmse"),
        ("train loss (mean of a sample)", "test RMSE (unit of the ratings)"),
        ("tab:blue", "tab:orange"),
    )
    x = [e.epoch for e in history]
    for axes, name, label, color in panels:
        axes.plot(x, [getattr(e, name) for e in history], marker=".", color=color)
        axes.set(xlabel="epoch", title=label, xlim=(0.5, (num_epochs or x[-1]) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    return figure


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


def save_figure(figure: Figure, file: str | Path) -> None:
    """Write a figure; its kind follows from the file's ending.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        As `learning_curve` draws it.
    file : path
        Ends in .png, .svg or .pdf.
    """
    figure.savefig(file, dpi=150)


def _progress_bar(epochs: Iterable[Epoch], num_epochs: int) -> Iterator[Epoch]:
    with tqdm(total=num_epochs, unit="epoch", file=sys.stderr) as bar:
        for epoch in epochs:
            bar.set_postfix_str(
                f"train loss {epoch.train_loss:.3f}, test RMSE {epoch.test_rmse:.3f}"
            )
            bar.update()
            yield epoch


def _live_plot(epochs: Iterable[Epoch], num_epochs: int) -> Iterator[Epoch]:
    # Sent as a picture, a plot needs no inline backend to have been set up.
    from IPython.display import Image, display

    history: list[Epoch] = []
    handle: Any = None
    drawn = 0.0
    for epoch in epochs:
        history.append(epoch)
        # Drawing takes longer than a small epoch.
        if time.monotonic() - drawn > 1 or epoch.epoch == num_epochs:
            picture = io.BytesIO()
            learning_curve(history, num_epochs).savefig(picture, dpi=100)
            image = Image(picture.getvalue())
            if handle is None:
                handle = display(image, display_id=True)
            else:
                handle.update(image)
            drawn = time.monotonic()
        yield epoch


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
