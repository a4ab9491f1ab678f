"""Ratings: the table of who rated what, reading it from files, and the data sets."""

from .datasets import (
    ARCHIVES,
    NAMES,
    dataset_folder,
    label,
    load_dataset,
    load_folds_ml100k,
)
from .frame import ratings_from_frame
from .reading import read_parts, read_ratings, read_table
from .synthetic import SYNTHETIC, synthetic_ratings
from .table import COLUMNS, Ratings, check_ids
from .titles import read_titles, with_features
from .values import Reading

__all__ = [
    "ARCHIVES",
    "COLUMNS",
    "NAMES",
    "SYNTHETIC",
    "Ratings",
    "Reading",
    "check_ids",
    "dataset_folder",
    "label",
    "load_dataset",
    "load_folds_ml100k",
    "ratings_from_frame",
    "read_parts",
    "read_ratings",
    "read_table",
    "read_titles",
    "synthetic_ratings",
    "with_features",
]
