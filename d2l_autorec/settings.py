"""What each setting of a recipe may be.

`Recipe` checks its settings by it, and the command line its flags. Nothing heavy is
imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = ("sigmoid", "identity", "relu", "tanh", "elu", "selu")


@dataclass(frozen=True)
class Numbers:
    """Numbers of a kind, within bounds.

    Parameters
    ----------
    kind : type
        int; or float, which whole numbers are, too.
    fits : callable
        Tells whether a number is within the bounds; NaN never is.
    wanted : str
        What they are, in words.
    """

    kind: type[int] | type[float]
    fits: Callable[[float], bool]
    wanted: str

    def allow(self, value: Any) -> bool:
        """Tell whether a value is one of them; True and False are no numbers."""
        kinds = int if self.kind is int else (int, float)
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and self.fits(value)
        )


POSITIVE_INT = Numbers(int, lambda n: n > 0, "a whole number from 1")
NON_NEGATIVE_INT = Numbers(int, lambda n: n >= 0, "a whole number from 0")
POSITIVE = Numbers(float, lambda n: 0 < n < float("inf"), "a number above 0")
NON_NEGATIVE = Numbers(float, lambda n: 0 <= n < float("inf"), "a number from 0")
FINITE = Numbers(float, lambda n: abs(n) < float("inf"), "a number")
DROPOUT = Numbers(float, lambda n: 0 <= n < 1, "from 0 to below 1")


@dataclass(frozen=True)
class Setting:
    """What a setting may be: one of some values, or of some numbers.

    Parameters
    ----------
    choices : tuple
        The values.
    numbers : Numbers, optional
        The numbers.
    several : bool
        Whether a tuple of such numbers will do, too.
    """

    choices: tuple[Any, ...] = ()
    numbers: Numbers | None = None
    several: bool = False

    def allows(self, value: Any) -> bool:
        """Tell whether a setting may have a value.

        Parameters
        ----------
        value
            Of any type; it has to be of the right one, too.

        Returns
        -------
        bool
        """
        values = value if self.several and isinstance(value, tuple) else (value,)
        return bool(values) and all(map(self._allows_one, values))

    def _allows_one(self, value: Any) -> bool:
        if self.numbers and self.numbers.allow(value):
            return True
        return any(type(value) is type(c) and value == c for c in self.choices)

    def __str__(self) -> str:
        """Say what is wanted, in words."""
        if not self.numbers:
            return f"one of {', '.join(map(str, self.choices))}"
        words = [self.numbers.wanted, *map(str, self.choices)]
        if self.several:
            words.append("a tuple of such")
        return " or ".join(words)


SETTINGS = {
    "num_hidden": Setting(numbers=POSITIVE_INT, several=True),
    "kind": Setting(("item", "user")),
    "activation": Setting(ACTIVATIONS),
    "output": Setting(ACTIVATIONS),
    "dropout": Setting(numbers=DROPOUT),
    "input_dropout": Setting(numbers=DROPOUT),
    "members": Setting(numbers=POSITIVE_INT),
    "loss": Setting(("book", "paper", "rmse")),
    "lr": Setting(numbers=POSITIVE),
    "schedule": Setting(("constant", "cosine")),
    "wd": Setting((None,), NON_NEGATIVE),
    "num_epochs": Setting(numbers=POSITIVE_INT),
    "pretrain_epochs": Setting(numbers=NON_NEGATIVE_INT),
    "batch_size": Setting((None,), POSITIVE_INT),
    "clip": Setting((False, True)),
    "cold": Setting(("mean", None), FINITE),
}
"""By the names of `Recipe`'s fields; its optimizer is whichever MXNet has."""
