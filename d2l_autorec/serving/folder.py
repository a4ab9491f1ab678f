"""A model's folder: one file, which is replaced whole or not at all.

Its arrays are the ratings, the ids, and what was learned; its metadata say what model
it is. A kill at any moment leaves the old model or the new one. Nothing in it is code.
"""

import fcntl
import functools
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import scipy.sparse as sp

from .. import __version__
from .._mxnet import mx
from ..curve import Epoch
from ..errors import ModelError
from ..training import MOST_NETWORKS, Blend, Parts, Recipe
from .storage import Arrays, blaming, read_arrays, write_arrays

FORMAT = "3"
MODEL_FILE = "autorec.safetensors"
_UNFINISHED = ".saving"
_MATRICES = ("train_mat", "test_mat", "valid_mat")
# The arrays of a matrix in CSR format, with the kinds of their numbers.
_CSR = {"data": "f", "indices": "i", "indptr": "i"}

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float | str
_Number = Annotated[float, msgspec.Meta(ge=-1e38, le=1e38)]
_Setting = bool | int | float | str | None | tuple[int, ...]
_Strict: dict[str, Any] = {"forbid_unknown_fields": True, "tag_field": "task"}


class RatingsModel(msgspec.Struct, tag="ratings", **_Strict):
    """A model of ratings; `weights` are those of a blend."""

    seed: int
    patience: int | None
    recipes: Annotated[
        list[dict[str, _Setting]], msgspec.Meta(max_length=MOST_NETWORKS)
    ]
    weights: tuple[float, ...] | None
    history: Annotated[list[Epoch], msgspec.Meta(min_length=1)]

    def recipe(self) -> Recipe | Blend:
        """Make the recipe, which checks itself."""
        each: Any = self.recipes
        recipes = tuple(Recipe(**settings) for settings in each)
        if self.weights is not None:
            return Blend(recipes, self.weights)
        (recipe,) = recipes
        return recipe


class ListsModel(msgspec.Struct, tag="lists", **_Strict):
    """A model of lists."""

    seed: int
    model: str
    settings: dict[str, Any]
    measures: dict[str, dict[str, float]]


Model = RatingsModel | ListsModel


class _Data(msgspec.Struct, forbid_unknown_fields=True):
    """What `Parts` has beside its matrices; ids and titles by their indices."""

    name: str
    rating_offset: _Number
    split: dict[str, bool | int | _Number | str | None]
    user_ids: list[_Id]
    item_ids: list[_Id]
    titles: list[str | None]


@functools.cache
def versions() -> Mapping[str, str]:
    """List the versions of Python, of this package and of what it computes with."""
    return {
        "d2l_autorec": __version__,
        "python": platform.python_version(),
        "mxnet": mx.__version__,
        **{name: version(name) for name in ("numpy", "scipy", "pandas", "numba")},
    }


def make_folder(directory: str | Path, overwrite: bool = False) -> None:
    """Make the folder of a new model, or check that one may be used or overwritten."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    names = {*os.listdir(directory)} - {_UNFINISHED}
    if names and MODEL_FILE not in names:
        raise ModelError(
            f"{directory}: holds {min(names)} and no model; name a new or an empty "
            "folder"
        )
    if names and not overwrite:
        raise ModelError(
            f"{directory}: holds a model; go on with it (--resume {directory}), or "
            "have it replaced (--overwrite)"
        )


@contextmanager
def lock(directory: str | Path) -> Iterator[int]:
    """Keep other trainings from saving to a model folder.

    A training reads the folder under the lock. It yields a handle, which follows the
    folder if it is moved. A killed process leaves no lock.
    """
    directory = Path(directory)
    with blaming(directory / MODEL_FILE):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    except BlockingIOError:
        raise ModelError(f"{directory}: another training is saving to it") from None
    finally:
        os.close(handle)


def check_place(directory: Path, handle: int) -> None:
    """Check that a path still leads to the folder that is locked by a handle."""
    if _leads_to(directory, handle):
        return
    what = "was moved or removed during the training, with what is saved in it"
    with suppress(OSError):
        place = os.readlink(f"/proc/self/fd/{handle}")
        if _leads_to(place, handle):
            what = (
                f"was moved to {place} during the training; what is saved is there "
                f"(--resume {place})"
            )
    raise ModelError(f"{directory}: {what}")


def read_model(directory: Path) -> tuple[Model, Parts, Arrays]:
    """Read a model: what it is, its ratings, and the arrays that it has learned."""
    file = directory / MODEL_FILE
    with blaming(file):
        metadata, arrays = read_arrays(file)
        if (written_in := metadata.get("format")) != FORMAT:
            by = metadata.get("written_by")
            raise ModelError(
                f"{file}: is in format {written_in!r:.20}, written by {by!r:.60}; "
                f"d2l_autorec {__version__} reads format {FORMAT}: use that version, "
                "or train again"
            )
        model: Model = msgspec.json.decode(metadata["model"], type=Model)
        return model, _parts(arrays), arrays


def write_model(directory: Path, model: Model, parts: Parts, arrays: Arrays) -> Arrays:
    """Replace the model in a folder; return the arrays as they are on disk.

    They are written piece by piece. Whatever fails leaves the model that was there.
    """
    metadata = {
        "format": FORMAT,
        "written_by": f"d2l_autorec {__version__}",
        "model": msgspec.json.encode(model).decode(),
        "versions": msgspec.json.encode(versions()).decode(),
    }
    unfinished = directory / _UNFINISHED
    try:
        # What a link of that name leads to is not ours.
        unfinished.unlink(missing_ok=True)
        found = write_arrays(unfinished, metadata, {**arrays, **_parts_arrays(parts)})
        os.replace(unfinished, directory / MODEL_FILE)
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)  # until the name, too, is on the disk
        finally:
            os.close(handle)
    except OSError as error:
        # A write that finds no room does not say where.
        raise OSError(error.errno, error.strerror, str(directory)) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return {name: found[name] for name in arrays}


def _parts_arrays(parts: Parts) -> Arrays:
    item_ids = parts.item_ids.tolist()
    data = _Data(
        name=parts.name,
        rating_offset=parts.rating_offset,
        split=dict(parts.split),
        user_ids=parts.user_ids.tolist(),
        item_ids=item_ids,
        titles=[parts.titles.get(item_id) for item_id in item_ids],
    )
    matrices = {
        f"{name}.{part}": getattr(matrix, part)
        for name in _MATRICES
        if (matrix := getattr(parts, name)) is not None
        for part in _CSR
    }
    return {**matrices, "data": np.frombuffer(msgspec.json.encode(data), np.uint8)}


def _parts(arrays: Arrays) -> Parts:
    """Take the arrays of the ratings and ids out of a file's; `Parts` checks them."""
    data = msgspec.json.decode(arrays.pop("data").data, type=_Data)
    if len(data.titles) != len(data.item_ids):
        raise ValueError("titles: are not as many as the items")
    shape = len(data.item_ids), len(data.user_ids)
    matrices = {}
    for name in _MATRICES:
        if name == "train_mat" or f"{name}.data" in arrays:
            found = [np.array(arrays.pop(f"{name}.{part}")) for part in _CSR]
            if [(a.dtype.kind, a.ndim) for a in found] != [
                (k, 1) for k in _CSR.values()
            ]:
                raise ValueError(f"{name}: is no matrix in CSR format")
            matrices[name] = sp.csr_matrix(tuple(found), shape)
    titled = zip(data.item_ids, data.titles)
    return Parts(
        **matrices,
        name=data.name,
        user_ids=_id_array(data.user_ids),
        item_ids=_id_array(data.item_ids),
        titles={item_id: title for item_id, title in titled if title is not None},
        rating_offset=data.rating_offset,
        split=data.split,
    )


def _id_array(ids: list[_Id]) -> np.ndarray:
    whole = all(type(raw_id) is int for raw_id in ids)
    return np.array(ids, np.int64 if whole else object)


def _leads_to(path: str | Path, handle: int) -> bool:
    """Tell whether a path leads to the folder that a handle is of."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False
