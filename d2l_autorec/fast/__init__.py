"""What makes it fast: compiled loops, shared memory, and MXNet's private corners."""

from .adam import FASTER
from .arrays import dense, on_device, put_aside, row_bounds, state_of, view
from .between import encoding
from .cells import backward_at_some, members, predict_cells, reconstruction
from .factors import Factors
from .fused import FusedStep
from .left_out import LeaveOneOutStep
from .parcels import Parcel
from .products import COLUMN_COST, Cells, in_columns
from .rows import balanced, corrupted, deepen, drops_inputs, layerwise, row_factors
from .step import SparseStep

__all__ = [
    "COLUMN_COST",
    "Cells",
    "FASTER",
    "FusedStep",
    "Factors",
    "LeaveOneOutStep",
    "Parcel",
    "SparseStep",
    "backward_at_some",
    "balanced",
    "corrupted",
    "deepen",
    "dense",
    "drops_inputs",
    "encoding",
    "in_columns",
    "layerwise",
    "members",
    "on_device",
    "predict_cells",
    "put_aside",
    "reconstruction",
    "row_bounds",
    "row_factors",
    "state_of",
    "view",
]
