"""What makes it fast: compiled loops, shared memory, and MXNet's private corners."""

from .adam import FASTER
from .arrays import dense, on_device, row_bounds, state_of, view
from .between import encoding
from .cells import backward_at_some, members, predict_cells, reconstruction
from .factors import Factors
from .fused import FusedStep
from .left_out import LeaveOneOutStep
from .rows import corrupted, deepen, layerwise
from .step import SparseStep

__all__ = [
    "FASTER",
    "FusedStep",
    "Factors",
    "LeaveOneOutStep",
    "SparseStep",
    "backward_at_some",
    "corrupted",
    "deepen",
    "dense",
    "encoding",
    "layerwise",
    "members",
    "on_device",
    "predict_cells",
    "reconstruction",
    "row_bounds",
    "state_of",
    "view",
]
