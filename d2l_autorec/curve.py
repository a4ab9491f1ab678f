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
from typing import TYPE_CHECKING, Any, NamedTuple, Self

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
    epochs: Iterable[Epoch], num_epochs: int, baseline: float | None = None
) -> Iterator[Epoch]:
    """Show epochs as they pass by: a live plot in a notebook, else a progress bar.

    Parameters
    ----------
    epochs : iterable of Epoch
        As `train_epochs` yields them.
    num_epochs : int
        How many there will be.
    baseline : float, optional
        As for `learning_curve`.

    Yields
    ------
    Epoch
        The same ones.
    """
    with Progress(num_epochs, baseline) as progress:
        for epoch in epochs:
            progress.show(epoch)
            yield epoch


class Progress:
    """Shows epochs: a live plot in a notebook, else a progress bar.

    Parameters
    ----------
    num_epochs, baseline
        As for `watch`.
    """

    def __init__(self, num_epochs: int, baseline: float | None = None) -> None:
        self.num_epochs, self.baseline = num_epochs, baseline
        self._history: list[Epoch] = []
        self._bar: Any = None
        self._handle: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if not _in_notebook():
            self._bar = tqdm(total=self.num_epochs, unit="epoch", file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, epoch: Epoch) -> None:
        """Show an epoch."""
        self._history.append(epoch)
        if self._bar is not None:
            self._bar.set_postfix_str(epoch.summary())
            self._bar.update()
        # Drawing takes longer than a small epoch.
        elif time.monotonic() - self._drawn > 1 or epoch.epoch == self.num_epochs:
            self._draw()
            self._drawn = time.monotonic()

    def _draw(self) -> None:
        # Sent as a picture, a plot needs no inline backend to have been set up.
        from IPython.display import Image, display

        picture = io.BytesIO()
        figure = learning_curve(self._history, self.num_epochs, self.baseline)
        figure.savefig(picture, dpi=100)
        image = Image(picture.getvalue())
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


def learning_curve(
    history: Sequence[Epoch],
    num_epochs: int | None = None,
    baseline: float | None = None,
) -> Figure:
    """Draw train loss and test RMSE over the epochs; without a test part, validation's.

    Parameters
    ----------
    history : sequence of Epoch
        What has been trained so far.
    num_epochs : int, optional
        Where the axis ends; by default with the last epoch.
    baseline : float, optional
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
    if baseline is not None and len(panels) > 1:
        grid[1].axhline(baseline, linestyle="--", color="gray", label="biases")
        grid[1].legend()
    return figure


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
