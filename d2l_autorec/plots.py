"""What a training looks like: live while it runs, and as a file."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .loop import Epoch


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
