"""The AutoRec paper's experiments.

The protocol: a random tenth of the ratings is the test part, anew for each split; the
weight decay is chosen on a tenth of the first split's training part, and the model is
then trained on the whole training part of each split. Predictions are clipped to the
rating scale; a user or an item without a training rating gets a 3. Each trained model
sees its test part once.

References
----------
S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative
Filtering", WWW 2015. S. C. Han, T. Lim, S. Long, B. Burgstaller, J. Poon, "GLocal-K:
Global and Local Kernels for Recommender Systems", CIKM 2021.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .contenders import Contender
from .tables import markdown_table, spread

if TYPE_CHECKING:
    from .estimators import Estimator

NUM_SPLITS = 5
PROTOCOL = (
    "RMSE is pooled over the test part, a random tenth of the ratings; mean ± standard "
    "deviation over the splits. The weight decay (of the paper's objective: its "
    "lambda) was chosen on a tenth of the first split's training part where there was "
    "more than one to choose from; the model was then trained on each whole training "
    "part and scored once. Predictions are clipped to the rating scale; users and "
    "items without a training rating get a 3, or what --cold says."
)


@dataclass(frozen=True)
class Experiment:
    """A model of the study."""

    title: str
    table: str  # where in the paper it is, or the work that published the figure
    published: float | None  # its RMSE on ML-1M there
    model: str  # with its settings, in the notation of `Contender`
    wds: tuple[float | None, ...]  # to choose from; None is the model's own
    num_splits: int | None = None  # if fewer splits than the study's are enough
    cold: float | str = 3.0  # the prediction for cold users and items; 'mean' is theirs

    def make(self, ratings: Any, devices: Any, wd: float | None) -> Estimator:
        """Make the model, with a weight decay, under the paper's protocol."""
        from .protocol import PaperProtocol

        text = self.model if wd is None else f"{self.model}:wd={wd}"
        model = Contender.parse(text).make(ratings, devices)
        return PaperProtocol(ratings, devices, model, self.cold)

    def settings(self, wd: float | None) -> dict[str, Any]:
        """Return the settings of a training, as records have them."""
        return self.make(None, [], wd).settings

    def seeds(self, num_splits: int) -> range:
        """List the seeds of the splits in a study of so many."""
        return range(min(self.num_splits or num_splits, num_splits))

    def num_trainings(self, num_splits: int) -> int:
        """Count the trainings, those that choose the weight decay included."""
        num_wds = len(self.wds)
        return len(self.seeds(num_splits)) + (num_wds if num_wds > 1 else 0)


HIDDEN_UNITS = (10, 20, 40, 80, 100, 200, 300, 400, 500)
_USER = "paper:kind=user:lr=0.001:num_epochs=80"
_DEEP = "paper:num_hidden=500x250x500:pretrain_epochs=40:num_epochs=40"
_RPROP = "paper:optimizer=rprop:lr=0.001:schedule=constant:batch_size=all"
_RPROP += ":num_epochs=150"
_LINEAR = f"{_RPROP}:activation=identity"
_ONE = "paper:num_hidden=800:standardize=true:leave_one_out=true:balance=0.3"
_ONE += ":batch_size=32:num_epochs=40"

# By the names that --only takes; hidden-N are the points of its "hidden".
EXPERIMENTS = {
    "item": Experiment("I-AutoRec", "a, b, c", 0.831, "paper", (150, 200, 300)),
    "user": Experiment("U-AutoRec", "a", 0.874, _USER, (100,)),
    "identity-identity": Experiment(
        "f identity, g identity", "b", 0.872, _LINEAR, (4000,)
    ),
    "sigmoid-identity": Experiment(
        "f sigmoid, g identity", "b", 0.852, f"{_LINEAR}:output=sigmoid", (4000,)
    ),
    "sigmoid-sigmoid": Experiment(
        "f sigmoid, g sigmoid", "b", 0.836, "paper:output=sigmoid:lr=0.001", (250,)
    ),
    "deep": Experiment("deep (500, 250, 500)", "text", 0.827, _DEEP, (150,)),
    "one": Experiment("I-AutoRec, leave-one-out", "GLocal-K", 0.8227, _ONE, (200,)),
    "rprop": Experiment("I-AutoRec, by Rprop", "a", 0.831, _RPROP, (250,), 1),
    "i-rbm": Experiment("I-RBM", "a, c", 0.854, "rbm", (0.02,), 2),
    "u-rbm": Experiment("U-RBM", "a, c", 0.881, "rbm:kind=user", (0.02,), 2),
    "mf": Experiment(
        "BiasedMF", "c", 0.845, "biased-mf:num_factors=200", (0.8, 1.0, 1.25), 2
    ),
    "llorma": Experiment("LLORMA", "c", 0.833, "llorma", (0.25,), 2),
    "best": Experiment("--preset best", "GLocal-K", 0.8227, "best", (None,)),
}
for _units in HIDDEN_UNITS:
    _about = f"{_units} hidden units", "figure", None, f"paper:num_hidden={_units}"
    EXPERIMENTS[f"hidden-{_units}"] = Experiment(*_about, (200,), num_splits=1)
NAMES = (*(name for name in EXPERIMENTS if not name.startswith("hidden-")), "hidden")


def experiments(quick: bool = False, cold: float | str = 3.0) -> dict[str, Experiment]:
    """List the experiments by name; the quick ones have few epochs and one `wd`."""
    listed = {name: replace(e, cold=cold) for name, e in EXPERIMENTS.items()}
    if not quick:
        return listed
    return {
        name: replace(e, model=_shortened(e.model), wds=e.wds[:1])
        for name, e in listed.items()
    }


def _shortened(model: str) -> str:
    """Add the settings of a short training to a model."""
    if model == "best":
        return f"{model}:num_epochs=5"
    if not model.startswith("paper"):
        return model
    # In so few epochs, it takes smaller batches and longer steps to get anywhere; of
    # all rows at once, an epoch is a single step.
    if "optimizer=rprop" in model:
        return f"{model}:lr=0.005:num_epochs=100"
    pretraining = ":pretrain_epochs=10" if "pretrain_epochs" in model else ""
    return f"{model}:lr=0.005:num_epochs=20:batch_size=64{pretraining}"


class Row(NamedTuple):
    """An experiment, the weight decay that was chosen, and the RMSE on each split."""

    experiment: Experiment
    wd: float | None
    rmse: list[float]


def report(rows: Mapping[str, Row], dataset: str, command: str) -> str:
    """Write the results down as Markdown; published figures stand beside ML-1M's.

    A figure is reached on `NUM_SPLITS` splits; on fewer our mean is lower or higher.
    """
    cells = [("model", "table", "published", "RMSE here", "", "splits", "weight decay")]
    for experiment, wd, rmse in rows.values():
        published, verdict, few = "", "", len(rmse) < NUM_SPLITS
        splits = f"**{len(rmse)}** of {NUM_SPLITS}" if few else str(len(rmse))
        if experiment.published and dataset == "ml-1m":
            published = f"{experiment.published:g}"
            words = ("lower", "higher") if few else ("reached", "not reached")
            verdict = words[statistics.mean(rmse) > experiment.published]
        about = (experiment.title, experiment.table, published)
        chosen = "by size" if wd is None else f"{wd:g}"
        cells.append((*about, spread(rmse, ".4f"), verdict, splits, chosen))
    return f"{dataset}:\n\n{markdown_table(cells)}\n\n{PROTOCOL}\n\n{command}\n"
