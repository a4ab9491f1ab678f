"""The epochs of a training: shown live while it runs, and as a picture.

References
----------
*Dive into Deep Learning*, "Linear Regression", whose ``Animator`` draws such curves.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tqdm import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Epoch(NamedTuple):
    """The result of one pass over the training data, in the unit of the ratings."""

    epoch: int  # from 1
    train_loss: float  # mean of a sample, while it was trained on
    test_rmse: float | None  # after the epoch; None without a test part
    valid_rmse: float | None  # the same on the validation part
    seconds: float  # of training, without evaluation
    examples: int  # values trained on, as in the book: samples times their length

    def summary(self) -> str:
        """Return the train loss and, if there is a test part, the test RMSE."""
        test = "-" if self.test_rmse is None else f"{self.test_rmse:.3f}"
        return f"train loss {self.train_loss:.3f}, test RMSE {test}"


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the lowest validation RMSE; without any, the last epoch."""
    scored = [(e.valid_rmse, e.epoch, e) for e in history if e.valid_rmse is not None]
    return min(scored)[-1] if scored else history[-1]


def examples_per_second(history: Sequence[Epoch]) -> float:
    """Return the speed of a training, in values trained on."""
    return sum(e.examples for e in history) / sum(e.seconds for e in history)


class Progress:
    """Shows epochs: by a live plot in a notebook, else by a progress bar."""

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
        # Sent as a picture, a plot needs no inline backend.
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

    `num_epochs` ends the axis; `baseline`, the RMSE of biases, is a dashed line.
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
