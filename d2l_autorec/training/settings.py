"""The settings of a training, each described once.

`Recipe` checks them, and the commands make their flags of them. MXNet is not needed
here, so that ``--help`` answers at once.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders", whose
settings are the defaults. S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec:
Autoencoders Meet Collaborative Filtering", WWW 2015.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import scipy.sparse as sp

ACTIVATIONS = ("sigmoid", "identity", "relu", "tanh", "elu", "selu")
# Gluon's, each with a test that trains with it, and `Rprop`.
OPTIMIZERS = ("adam", "adadelta", "adagrad", "rmsprop", "sgd", "rprop")
# Of the training ratings, to choose something on.
VALID_RATIO = 0.1
# More take minutes to set up, of whatever size they are.
MOST_LAYERS, MOST_NETWORKS = 16, 64


@dataclass(frozen=True)
class Setting:
    """Values that something may have: numbers that fit, and what words stand for."""

    kind: type[int] | type[float] | None = None  # of the numbers, if there are any
    fits: Callable[[float], bool] = bool  # tells their bounds
    wanted: str = ""  # the numbers, in words
    words: Mapping[str, Any] = field(default_factory=dict)  # of the command line
    several: bool = False  # a tuple of numbers will do, too
    letter: str | None = None  # a short flag

    def check(self, name: str, value: Any) -> None:
        """Raise a ValueError with the setting's name if a value is none of them."""
        known = any(type(value) is type(v) and value == v for v in self.words.values())
        several = self.several and isinstance(value, tuple) and bool(value)
        numbers = value if several else (value,)
        if not (known or all(map(self._is_number, numbers))):
            raise ValueError(f"{name}={value!r} is not {self}")

    def parse(self, text: str) -> Any:
        """Read a value; a text that is none is a ValueError."""
        if text.lower() in self.words:
            return self.words[text.lower()]
        if self.several and "x" in text:
            return tuple(map(self._number, text.split("x")))
        return self._number(text)

    def _number(self, text: str) -> Any:
        try:
            # Python takes 1_0, and digits of all the world.
            plain = text if text.isascii() and "_" not in text else ""
            number = (self.kind or float)(plain)
        except ValueError:
            number = float("nan")
        if not self._is_number(number):
            raise ValueError(f"{text!r} is not {self.wanted or self}")
        return number

    def _is_number(self, value: Any) -> bool:
        """Tell whether it is one that fits; True, False and NaN are none."""
        return (
            self.kind is not None
            and isinstance(value, int if self.kind is int else int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max  # a whole number may be larger
            and self.fits(value)
        )

    def __str__(self) -> str:
        """Say what is wanted, in words."""
        words = list(self.words)
        if not self.kind:
            return f"one of {', '.join(words)}"
        several = ["a tuple of such"] if self.several else []
        return " or ".join([self.wanted, *words, *several])


# MXNet's whole numbers end at 2**31 - 1.
POSITIVE_INT = Setting(int, lambda n: 0 < n < 2**31, "a whole number from 1")
NON_NEGATIVE_INT = Setting(int, lambda n: 0 <= n < 2**31, "a whole number from 0")
# It reads others as float32, and refuses what that cannot hold, once scheduled or
# divided by the number of ratings, too.
POSITIVE = Setting(float, lambda n: 1e-20 < n <= 1e38, "a number above 0")
NON_NEGATIVE = Setting(float, lambda n: n == 0 or POSITIVE.fits(n), "a number from 0")
FINITE = Setting(float, lambda n: abs(n) <= 1e38, "a number")
DROPOUT = Setting(float, lambda n: 0 <= n < 1, "from 0 to below 1")
POWER = Setting(float, lambda n: 0 <= n <= 1, "from 0 to 1")


def _setting(default: Any, like: Setting = Setting(), **changes: Any) -> Any:  # noqa: B008
    return field(default=default, metadata={"setting": replace(like, **changes)})


def _choice(*words: str) -> Any:
    """Make a setting that is one of some words, by default the first."""
    return _setting(words[0], words={word: word for word in words})


def _switch() -> Any:
    return _setting(False, words={"false": False, "true": True})


@dataclass(frozen=True)
class Recipe:
    r"""Settings of AutoRec's training; the defaults are the book's.

    Parameters
    ----------
    num_hidden : int or tuple of int
        units of the hidden layer, or of several: 500 250 500
    kind : str
        whether a row is what all users gave an item, or what a user gave all items
    activation : str
        activation of the hidden layers
    output : str
        activation of the output; a bounded one is stretched over the ratings
    dropout : float
        share of the hidden units that training drops
    input_dropout : float
        share of the inputs that training drops (a denoising autoencoder)
    loss : str
        squared error over all cells, unobserved ones counting 0; over the observed
        ones, with --wd as the paper's lambda; or its root
    balance : float
        power, such as 0.5, of the number of ratings in a row that its inputs are
        divided by, so that rows with many drive the hidden units like those with few
    leave_one_out : bool
        train each rating on a prediction from the other ratings of its row alone; with
        one layer and --dropout 0, on one CPU
    residual : bool
        learn what is left of the ratings after the mean and the biases of users and
        items, in units of its standard deviation
    standardize : bool
        learn the ratings in units of their standard deviation
    from_mean : bool
        start from the mean of the training ratings, and not from 0
    optimizer : str
        adam is fast on a CPU; rprop, the paper's, needs --batch-size all
    lr : float
        learning rate
    schedule : str
        whether the learning rate stays, or falls to 0 at the last epoch
    wd : float or None
        weight decay; where --loss is paper, lambda, or auto, which takes it from the
        size of the data
    num_epochs : int
        passes over the training ratings, those before a --resume included
    pretrain_epochs : int
        with several hidden layers, passes with just one that come first, for weights to
        start from
    batch_size : int or None
        rows a mini-batch, or 'all'
    clip : bool
        hold predictions to the range of the training ratings
    cold : float, str or None
        what to predict for a user or item without a training rating: a number, 'mean',
        'biases', or 'net' for what the network makes of them, and with --residual for
        their biases (default: net)

    Raises
    ------
    ValueError
        If a setting is not what it may be, or settings contradict each other.

    Notes
    -----
    Words of the command line, ``auto``, ``all`` and ``net``, are None. The loss
    ``book`` is half the squared error, as a mean over all cells of a row, where
    unobserved ones count as 0; ``paper`` is the objective

    .. math:: \sum_{observed} (r - \hat r)^2
              + \frac{\lambda}{2} (\|W\|_F^2 + \|V\|_F^2)

    with ``wd`` as its :math:`\lambda`, which spares the biases; ``rmse`` is the root of
    the mean squared error over the observed cells of a batch.

    With ``balance``, a row's inputs are multiplied by :math:`(\bar n / n)^{balance}`,
    where *n* is how many ratings it has and :math:`\bar n` their geometric mean over
    the training rows; SVD++ scales what it adds up over a user's ratings so, by a power
    of 1/2. With ``leave_one_out`` (see `fast.FastStep`) the network does not learn
    to copy its input; ratings that are asked for are in no input anyway.
    """

    num_hidden: int | tuple[int, ...] = _setting(
        500, POSITIVE_INT, several=True, letter="k"
    )
    kind: str = _choice("item", "user")
    activation: str = _choice(*ACTIVATIONS)
    output: str = _choice("identity", *(a for a in ACTIVATIONS if a != "identity"))
    dropout: float = _setting(0.05, DROPOUT)
    input_dropout: float = _setting(0.0, DROPOUT)
    loss: str = _choice("book", "paper", "rmse")
    balance: float = _setting(0.0, POWER)
    leave_one_out: bool = _switch()
    residual: bool = _switch()
    standardize: bool = _switch()
    from_mean: bool = _switch()
    optimizer: str = _choice(*OPTIMIZERS)
    lr: float = _setting(0.002, POSITIVE, letter="l")
    schedule: str = _choice("constant", "cosine")
    wd: float | None = _setting(1e-5, NON_NEGATIVE, words={"auto": None}, letter="w")
    num_epochs: int = _setting(25, POSITIVE_INT, letter="e")
    pretrain_epochs: int = _setting(0, NON_NEGATIVE_INT)
    batch_size: int | None = _setting(
        256, POSITIVE_INT, words={"all": None}, letter="b"
    )
    clip: bool = _switch()
    cold: float | str | None = _setting(
        None, FINITE, words={"mean": "mean", "biases": "biases", "net": None}
    )

    def __post_init__(self) -> None:
        """Check each setting, and those that depend on each other."""
        for name, setting in SETTINGS.items():
            setting.check(name, getattr(self, name))
        layers = self.num_hidden if isinstance(self.num_hidden, tuple) else ()
        if len(layers) > MOST_LAYERS:
            raise ValueError(
                f"num_hidden: {len(layers):,} layers are more than {MOST_LAYERS}"
            )
        if self.pretrain_epochs and not (layers and layers[0] == layers[-1]):
            raise ValueError(
                f"pretrain_epochs={self.pretrain_epochs} needs several hidden layers, "
                "the first as large as the last, such as 500 250 500"
            )
        if self.wd is None and self.loss != "paper":
            raise ValueError(f"the {self.loss} loss needs a weight decay (--wd)")
        for name in ("residual", "standardize", "from_mean"):
            if getattr(self, name) and self.output != "identity":
                raise ValueError(f"{name} needs the identity output, not {self.output}")
        if self.residual and self.standardize:
            raise ValueError("residual leaves nothing to standardize: choose one")
        if self.optimizer == "rprop" and self.batch_size:
            raise ValueError("rprop needs all rows in one batch (--batch-size all)")
        if self.leave_one_out and (
            len(layers) > 1
            or (self.activation, self.output) != ("sigmoid", "identity")
            or (self.dropout, self.optimizer) != (0, "adam")
            or self.loss == "rmse"
        ):
            raise ValueError(
                "leave_one_out needs one layer of sigmoid units, the identity output, "
                "dropout 0, the optimizer adam, and the loss book or paper"
            )

    def rows(self, inter_mat: "sp.csr_matrix") -> "sp.csr_matrix":
        """Turn a matrix of items x users so that its rows are the autoencoder's."""
        return inter_mat.T.tocsr() if self.kind == "user" else inter_mat

    @property
    def by_prefix(self) -> "dict[str, Recipe]":
        """Itself, as a `Blend` has its own."""
        return {"": self}

    @property
    def recipes(self) -> "tuple[Recipe, ...]":
        """Itself, as a `Blend` has its own."""
        return (self,)

    def averaged(self, size: int) -> "Recipe | Blend":
        """Return the mean of so many networks, told apart by their initial weights."""
        return self if size == 1 else Blend((self,) * size, (1 / size,) * size)

    def changed(self, **settings: Any) -> "Recipe":
        """Return the recipe with other settings, by their names."""
        return replace(self, **settings)

    @property
    def learned(self) -> str:
        """What a network of the recipe learns, in words."""
        if self.residual:
            return "residuals"
        return "standardized ratings" if self.standardize else "ratings"

    def penalty(self, train_mat: "sp.csr_matrix") -> float:
        r"""Return :math:`\lambda` of the paper's objective: `wd`, or one by size.

        That is 7.5 times the root of the ratings per item or per user, whichever are
        more. It grows so because the noise in the ratings, as a matrix, does; the
        factor is near the best one on the validation parts of MovieLens 100K and 1M.
        """
        if self.wd is not None:
            return self.wd
        return 7.5 * math.sqrt(train_mat.nnz / min(train_mat.shape))


SETTINGS: dict[str, Setting] = {
    one.name: one.metadata["setting"] for one in fields(Recipe)
}

LARGEST_WEIGHT = 100  # else a network that is all but biases would get any
WEIGHT = Setting(float, lambda n: 0 <= n <= LARGEST_WEIGHT, "a number from 0 to 100")


@dataclass(frozen=True)
class Blend:
    """Recipes that are trained side by side, whose predictions are mixed.

    Each weight is of a network's difference from what `Biases` predict, which is added
    to that. By default a validation part chooses them; without one, all are alike. What
    does not go together is a ValueError.
    """

    recipes: tuple[Recipe, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check that they go together."""
        if len(self.recipes) > MOST_NETWORKS:
            raise ValueError(
                f"{len(self.recipes):,} networks are more than {MOST_NETWORKS}"
            )
        if len({recipe.num_epochs for recipe in self.recipes}) != 1:
            raise ValueError("the recipes of a blend have as many epochs each")
        if self.weights is None:
            return
        if len(self.weights) != len(self.recipes):
            raise ValueError(f"weights={self.weights!r} are not as many as the recipes")
        for weight in self.weights:
            WEIGHT.check("weight", weight)

    @property
    def by_prefix(self) -> dict[str, Recipe]:
        """The recipes by what the names of their networks' parameters begin with."""
        return {f"{number}.": recipe for number, recipe in enumerate(self.recipes)}

    @property
    def num_epochs(self) -> int:
        """Of each recipe."""
        return self.recipes[0].num_epochs

    @property
    def pretrain_epochs(self) -> int:
        """Of all recipes together."""
        return sum(recipe.pretrain_epochs for recipe in self.recipes)

    def averaged(self, size: int) -> "Blend":
        """Return a blend with so many networks of each recipe, told apart by chance."""
        weights = self.weights and tuple(w / size for w in self.weights) * size
        return Blend(self.recipes * size, weights)

    def changed(self, **settings: Any) -> "Blend":
        """Return the blend with other settings of all its recipes, by their names."""
        recipes = (recipe.changed(**settings) for recipe in self.recipes)
        return replace(self, recipes=tuple(recipes))


# Networks that err differently. All of it was chosen on validation parts of MovieLens.
_SCALED = Recipe(
    dropout=0.0,
    loss="paper",
    standardize=True,
    schedule="cosine",
    wd=None,
    num_epochs=30,
    clip=True,
    cold="biases",
)
_RESIDUAL = replace(_SCALED, standardize=False, residual=True)

PRESETS: dict[str, Recipe | Blend] = {
    "book": Recipe(),
    "paper": Recipe(
        dropout=0.0,
        loss="paper",
        schedule="cosine",
        wd=200.0,
        num_epochs=60,
        batch_size=128,
        clip=True,
        cold=3.0,
    ),
    "best": Blend(
        (
            # From 0 it takes more steps.
            replace(_SCALED, input_dropout=0.2, batch_size=64),
            replace(_SCALED, input_dropout=0.4, from_mean=True),
            replace(_SCALED, kind="user", input_dropout=0.4, from_mean=True),
            _RESIDUAL,
            replace(_RESIDUAL, kind="user", input_dropout=0.4),
        )
    ),
}
