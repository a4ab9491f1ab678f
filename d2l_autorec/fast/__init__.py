"""What makes it fast: compiled loops, shared memory, and MXNet's private corners."""

from .adam import FASTER
from .arrays import dense, on_device, row_bounds
from .cells import members, outputs_at, predict_cells
from .factors import Factors
from .step import SparseStep

__all__ = [
    "FASTER",
    "Factors",
    "SparseStep",
    "dense",
    "members",
    "on_device",
    "outputs_at",
    "predict_cells",
    "row_bounds",
]
