"""Training and predicting on sparse rows, by compiled loops."""

from .adam import Adam, SparseEncoder
from .arrays import fill, on_device, release, view
from .factors import Factors
from .network import SparseNetwork, Workers, predict_cells
from .products import COLUMN_COST
from .step import FastStep

__all__ = [
    "COLUMN_COST",
    "Adam",
    "FastStep",
    "Factors",
    "SparseEncoder",
    "SparseNetwork",
    "Workers",
    "fill",
    "on_device",
    "predict_cells",
    "release",
    "view",
]
