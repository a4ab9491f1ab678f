"""What a training came to, epoch by epoch: live while it runs, and as a picture.

References
----------
*Dive into Deep Learning*, "Linear Regression", whose ``Animator`` draws such curves.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Epoch(NamedTuple):
    """What one pass over the training data came to.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        Mean loss of a sample while it was trained on.
    test_rmse : float or None
        After the epoch, in the unit of the ratings; None without a test part.
    valid_rmse : float or None
        The same on the validation part, where there is one.
    seconds : float
        Spent on training; evaluation not counted.
    examples : int
        Values trained on, as the book counts them: samples times their length.
    """

    epoch: int
    train_loss: float
    test_rmse: float | None
    valid_rmse: float | None
    seconds: float
    examples: int

    def summary(self) -> str:
        """Say the train loss and, if there is a test part, the test RMSE."""
        test = "-" if self.test_rmse is None else f"{self.test_rmse:.3f}"
        return f"train loss {self.train_loss:.3f}, test RMSE {test}"


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Choose the epoch to predict with.

    Parameters
    ----------
    history : sequence of Epoch
        Of a training.

    Returns
    -------
    Epoch
        With the lowest validation RMSE; if no epoch has one, the last epoch.
    """
    scored = [(e.valid_rmse, e.epoch, e) for e in history if e.valid_rmse is not None]
    return min(scored)[-1] if scored else history[-1]


def examples_per_second(history: Sequence[Epoch]) -> float:
    """Say how fast a training was, in values trained on."""
    return sum(e.examples for e in history) / sum(e.seconds for e in history)


def watch(
    epochs: Iterable[Epoch], num_epochs: int, yardstick: float | None = None
) -> Iterator[Epoch]:
    """Show epochs as they pass by: a live plot in a notebook, else a progress bar.

    Parameters
    ----------
    epochs : iterable of Epoch
        As `train_epochs` yields them.
    num_epochs : int
        How many there will be.
    yardstick : float, optional
        As for `learning_curve`.

    Yields
    ------
    Epoch
        The same ones.
    """
    if _in_notebook():
        yield from _live_plot(epochs, num_epochs, yardstick)
    else:
        yield from _progress_bar(epochs, num_epochs)


def learning_curve(
    history: Sequence[Epoch],
    num_epochs: int | None = None,
    yardstick: float | None = None,
) -> Figure:
    """Draw train loss and test RMSE over the epochs; without a test part, validation's.

    Parameters
    ----------
    history : sequence of Epoch
        What has been trained so far.
    num_epochs : int, optional
        Where the axis ends; by default with the last epoch.
    yardstick : float, optional
        The RMSE of biases on the same part, a dashed line.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels side by side, on a white ground that suits dark pages too.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3), facecolor="white", layout="constrained")
    panels = [("train_loss", "train loss (mean of a sample)", "tab:blue")]
    if history[-1].test_rmse is not None:
        panels.append(("test_rmse", "test RMSE (unit of the ratings)", "tab:orange"))
    elif history[-1].valid_rmse is not None:
        panels.append(("valid_rmse", "validation RMSE", "tab:orange"))
    x = [e.epoch for e in history]
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, label, color) in zip(grid, panels):
        axes.plot(x, [getattr(e, name) for e in history], marker=".", color=color)
        axes.set(xlabel="epoch", title=label, xlim=(0.5, (num_epochs or x[-1]) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if yardstick is not None and len(panels) > 1:
        grid[1].axhline(yardstick, linestyle="--", color="gray", label="biases")
        grid[1].legend()
    return figure


def _progress_bar(epochs: Iterable[Epoch], num_epochs: int) -> Iterator[Epoch]:
    with tqdm(total=num_epochs, unit="epoch", file=sys.stderr) as bar:
        for epoch in epochs:
            bar.set_postfix_str(epoch.summary())
            bar.update()
            yield epoch


def _live_plot(
    epochs: Iterable[Epoch], num_epochs: int, yardstick: float | None
) -> Iterator[Epoch]:
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
            figure = learning_curve(history, num_epochs, yardstick)
            figure.savefig(picture, dpi=100)
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
