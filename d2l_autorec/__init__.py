"""The AutoRec chapter of *Dive into Deep Learning*, as software that runs.

The names are the book's. They are imported when first used, and the first of them that
needs MXNet switches its NumPy semantics on (``npx.set_np()``), as the book's own
notebooks do; so ``python -m d2l_autorec.train --help`` answers at once.

Import this package before MXNet: from then on MXNet is imported, by whomever, as
`_ready` says. Without that it fails on NumPy 1.24 and later, and is slower on a busy
machine.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._ready import MXNetFinder

if TYPE_CHECKING:
    from .checkpoint import Checkpoint as Checkpoint
    from .checkpoint import Run as Run
    from .data import load_data_ml100k as load_data_ml100k
    from .data import rating_batches as rating_batches
    from .data import read_data_ml100k as read_data_ml100k
    from .data import row_batches as row_batches
    from .data import split_and_load_ml100k as split_and_load_ml100k
    from .data import split_data_ml100k as split_data_ml100k
    from .evaluators import evaluator as evaluator
    from .evaluators import mae as mae
    from .evaluators import rmse as rmse
    from .loop import seed_everything as seed_everything
    from .loop import train_recsys_rating as train_recsys_rating
    from .loop import try_all_gpus as try_all_gpus
    from .mf import MF as MF
    from .mf import mf_evaluator as mf_evaluator
    from .mf import mf_pooled_evaluator as mf_pooled_evaluator
    from .model import AutoRec as AutoRec
    from .model import Average as Average
    from .model import DeepAutoRec as DeepAutoRec
    from .predictor import Predictor as Predictor
    from .predictor import load_model as load_model
    from .ratings import Ratings as Ratings
    from .ratings import load_dataset as load_dataset
    from .ratings import read_ratings as read_ratings
    from .recipe import PRESETS as PRESETS
    from .recipe import Recipe as Recipe

__version__ = "0.1.0"

if not any(isinstance(finder, MXNetFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, MXNetFinder())

_MODULES = {
    "checkpoint": ("Checkpoint", "Run"),
    "data": (
        "load_data_ml100k",
        "rating_batches",
        "read_data_ml100k",
        "row_batches",
        "split_and_load_ml100k",
        "split_data_ml100k",
    ),
    "evaluators": ("evaluator", "mae", "rmse"),
    "loop": ("seed_everything", "train_recsys_rating", "try_all_gpus"),
    "mf": ("MF", "mf_evaluator", "mf_pooled_evaluator"),
    "model": ("AutoRec", "Average", "DeepAutoRec"),
    "predictor": ("Predictor", "load_model"),
    "ratings": ("Ratings", "load_dataset", "read_ratings"),
    "recipe": ("PRESETS", "Recipe"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
