"""What makes it fast: compiled loops, shared memory, and MXNet's private corners."""

from .adam import FASTER
from .arrays import dense, on_device, row_bounds
from .cells import members, predict_cells
from .factors import Factors
from .fused import FusedStep
from .rows import deepen, layerwise
from .step import SparseStep

__all__ = [
    "FASTER",
    "FusedStep",
    "Factors",
    "SparseStep",
    "deepen",
    "dense",
    "layerwise",
    "members",
    "on_device",
    "predict_cells",
    "row_bounds",
]
