"""A model of ratings in its folder: saved, opened, and gone on with."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..curve import Epoch, best_epoch
from ..errors import ModelError
from ..loop import check_finite
from ..training import (
    MOST_NETWORKS,
    Blend,
    Parts,
    Recipe,
    Run,
    Training,
    draw_weights,
    network,
    parameter_shapes,
)
from .folder import (
    FORMAT,
    MANIFEST,
    Folder,
    Manifest,
    lock,
    make_folder,
    saved_files,
    versions,
)
from .storage import LARGEST_HEADER, blaming, pieces, read_json

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float | str
_Number = Annotated[float, msgspec.Meta(ge=-1e38, le=1e38)]
_Setting = bool | int | float | str | None | list[int]
_MATRICES = ("train_mat", "test_mat", "valid_mat")
# Of a matrix in CSR format, with the kinds of their numbers.
_CSR = {"data": "f", "indices": "i", "indptr": "i"}


class PartsManifest(Manifest, kw_only=True):
    """What is said of the data, whatever the task."""

    name: str
    rating_offset: _Number
    split: dict[str, bool | int | _Number | str | None]
    seed: int


class RatingsManifest(PartsManifest, kw_only=True, tag="ratings"):
    """``model.json`` of a model of ratings; `weights` are those of a blend."""

    patience: int | None
    recipes: Annotated[
        list[dict[str, _Setting]], msgspec.Meta(max_length=MOST_NETWORKS)
    ]
    weights: list[float] | None
    history: Annotated[list[Epoch], msgspec.Meta(min_length=1)]

    def recipe(self) -> Recipe | Blend:
        """Make the recipe, which checks itself."""
        recipes = []
        for settings in self.recipes:
            changed: dict[str, Any] = dict(settings)
            if isinstance(layers := settings.get("num_hidden"), list):
                changed["num_hidden"] = tuple(layers)  # JSON has lists for tuples
            recipes.append(Recipe(**changed))
        if self.weights is not None:
            return Blend(tuple(recipes), tuple(self.weights))
        (recipe,) = recipes
        return recipe

    def check_history(self, run: Run) -> None:
        """Check the epochs, which have a score on the parts that there are alone."""
        scored = run.parts.test_mat is not None, run.parts.valid_mat is not None
        for number, epoch in enumerate(self.history, 1):
            numbers = [value for value in epoch if value is not None]
            if (
                epoch.epoch != number
                or (epoch.test_rmse is not None, epoch.valid_rmse is not None) != scored
                or not all(0 <= value < 2**63 for value in numbers)
                or not epoch.seconds
            ):
                raise ValueError(f"history: epoch {number} is {epoch!r}")
        if len(self.history) > run.recipe.num_epochs:
            raise ValueError("history: has more epochs than the recipe")


class Ids(msgspec.Struct, forbid_unknown_fields=True):
    """Raw ids in the order of their indices, and a title or null for each item."""

    users: list[_Id]
    items: list[_Id]
    titles: list[str | None]


class PartsFolder(Folder):
    """A folder whose model was trained on parts of some data."""

    def read_parts(self, manifest: PartsManifest) -> Parts:
        """Read the ids and the ratings, which `Parts` checks."""
        with blaming(self.path("ids")):
            ids = read_json(self.path("ids"), self.files["ids"], Ids)
            if len(ids.titles) != len(ids.items):
                raise ValueError("titles: are not as many as the items")
        with blaming(self.path("ratings")):
            arrays = self.read_arrays("ratings")
            matrices = _matrices(arrays, (len(ids.items), len(ids.users)))
        with blaming(self.directory):
            return Parts(
                **matrices,
                name=manifest.name,
                user_ids=_id_array(ids.users),
                item_ids=_id_array(ids.items),
                titles={i: t for i, t in zip(ids.items, ids.titles) if t is not None},
                rating_offset=manifest.rating_offset,
                split=manifest.split,
            )

    def put_parts(self, parts: Parts) -> None:
        """Write the ids and the ratings, unless an earlier save has done so."""
        if not self.has("ids"):
            self.put_json("ids", _ids(parts))
        if not self.has("ratings"):
            self.put_arrays("ratings", _rating_arrays(parts))


class Checkpoint(PartsFolder):
    """A folder with a model of ratings.

    Parameters
    ----------
    directory : path
        Made if it is not there.
    run : Run
        What is trained.
    overwrite : bool
        Whether a model that is there may be replaced; it is kept until the first save.

    Attributes
    ----------
    directory : pathlib.Path
    run : Run
    history : list of Epoch
        The epochs up to the last save.
    locked : int or None
        What `lock` gave, where the caller holds it.

    Raises
    ------
    ModelError
        As for `make_folder`, and for a blend whose weights are still to be chosen.
    """

    def __init__(
        self, directory: str | Path, run: Run, overwrite: bool = False
    ) -> None:
        make_folder(directory, overwrite)
        super().__init__(directory)
        if isinstance(run.recipe, Blend) and run.recipe.weights is None:
            raise ModelError(f"{directory}: a blend is saved once it has weights")
        self.run = run
        self.history: list[Epoch] = []
        self._last_saved = saved_files(directory)

    @classmethod
    def open(cls, directory: str | Path) -> "Checkpoint":
        """Read a model folder; to train on, under its `lock`.

        Parameters
        ----------
        directory : path
            That a training saved to.

        Returns
        -------
        Checkpoint

        Raises
        ------
        ModelError
            If there is no model, a file of it is damaged or missing, or it has another
            version's format.
        """
        checkpoint = cls.__new__(cls)
        Folder.__init__(checkpoint, directory)
        manifest = checkpoint.read_manifest(RatingsManifest)
        checkpoint._last_saved = dict(manifest.files)
        with blaming(checkpoint.directory / MANIFEST):
            recipe = manifest.recipe()
        parts = checkpoint.read_parts(manifest)
        with blaming(checkpoint.directory / MANIFEST):
            checkpoint.run = Run(parts, recipe, manifest.seed, manifest.patience)
            manifest.check_history(checkpoint.run)
        checkpoint.history = manifest.history
        checkpoint._read_state()
        checkpoint._read_weights("last")
        if manifest.files["best"] != manifest.files["last"]:
            checkpoint._read_weights("best")
        return checkpoint

    def network(self, devices: Sequence[mx.Context]) -> Any:
        """Make the network, with the parameters of the best epoch.

        Parameters
        ----------
        devices : sequence of mxnet.Context
            Where it is to be.

        Returns
        -------
        AutoRec or mxnet.gluon.nn.Sequential
            The latter holds the networks of a blend.

        Raises
        ------
        ModelError
            If the parameters do not have the shapes that the recipe asks for; and as
            ``check_place`` does.
        """
        arrays, nets = self.parameters(), []
        for prefix, recipe in self.run.recipe.by_prefix.items():
            net = network(recipe, self.run.parts.train_mat)
            net.initialize(mx.init.Zero(), list(devices))
            draw_weights(net, len(arrays[prefix + "decoder.bias"]), devices)
            for name, parameter in net._collect_params_with_prefix().items():
                parameter.set_data(mx.np.array(arrays[prefix + name]))
            nets.append(net)
        if not isinstance(self.run.recipe, Blend):
            return nets[0]
        whole = gluon.nn.Sequential()
        whole.add(*nets)
        return whole

    def parameters(self) -> dict[str, np.ndarray]:
        """Map those of the best epoch, which are read as far as they are used.

        Returns
        -------
        dict of str to numpy.ndarray
            As `Training.load` takes them.

        Raises
        ------
        ModelError
            As for `network`.
        """
        self.check_place()
        return self._read_weights("best")

    def restore(self, training: Training) -> None:
        """Put a training back to where the last save left it.

        Parameters
        ----------
        training : Training
            Of `run`, with ``trained=len(history)``, not begun.

        Raises
        ------
        ModelError
            If the optimizer's state is not of this recipe.
        """
        parameters, state = self._read_weights("last"), self._read_state()
        with blaming(self.path("optimizer")):
            training.load(parameters, state)

    def saving(self, training: Training, epochs: Iterable[Epoch]) -> Iterator[Epoch]:
        """Save after each epoch, under the folder's `lock`.

        Parameters
        ----------
        training : Training
            Of `run`.
        epochs : iterable of Epoch
            Of that training, as they pass by.

        Yields
        ------
        Epoch
            Each as soon as it is on disk.

        Raises
        ------
        ModelError
            If another training saves to this folder, or has done so since it was
            opened; and as `save` does.
        """
        with ExitStack() as stack:
            if self.locked is None:
                self.locked = stack.enter_context(lock(self.directory))
                stack.callback(setattr, self, "locked", None)
            if self._last_saved != saved_files(self.directory):
                raise ModelError(f"{self.directory}: another training has saved to it")
            for epoch in epochs:
                self.save(epoch, training.parameters(), training.state())
                yield epoch

    def save(
        self,
        epoch: Epoch,
        parameters: Mapping[str, np.ndarray],
        state: Mapping[str, np.ndarray],
    ) -> None:
        """Replace the model in the folder by the state after an epoch.

        Parameters
        ----------
        epoch : Epoch
            The one that has just passed.
        parameters, state : mapping of str to numpy.ndarray
            As the training of `run` returns them. Arrays on disk are written piece by
            piece.

        Raises
        ------
        TrainingDiverged
            If a number of it is no longer finite, or a parameter so large that
            predictions would not be.
        ModelError
            If the folder was moved, or the best epoch's parameters were removed.
        OSError
            If the folder cannot be written, or the disk is full; the model that was
            there is left as it was.
        """
        for name, array in chain(parameters.items(), state.items()):
            _check_size(name, array, name in parameters, epoch.epoch)
        self.make_room()
        before = dict(self.files)
        self.history.append(epoch)
        try:
            self.put_parts(self.run.parts)
            self.put_arrays("last", parameters)
            self.put_arrays("optimizer", state)
            if best_epoch(self.history) is epoch:
                self.files["best"] = self.files["last"]
            elif not self.has("best"):
                raise ModelError(f"{self.path('best')}: was removed")
            self.put_manifest(self._manifest())
        except BaseException:
            self.history.pop()
            self.files = before
            raise
        self._last_saved = dict(self.files)

    def _manifest(self) -> RatingsManifest:
        run = self.run
        return RatingsManifest(
            format=FORMAT,
            versions=dict(versions()),
            files=self.files,
            name=run.parts.name,
            rating_offset=run.parts.rating_offset,
            split=dict(run.parts.split),
            seed=run.seed,
            patience=run.patience,
            recipes=[asdict(one) for one in run.recipe.recipes],
            weights=list(run.recipe.weights or [])
            if isinstance(run.recipe, Blend)
            else None,
            history=self.history,
        )

    def _read_weights(self, kind: str) -> dict[str, np.ndarray]:
        """Map parameters whose names and shapes are those of the recipe."""
        shapes = self._shapes()
        with blaming(self.path(kind)):
            arrays = self.read_arrays(kind, _largest(shapes))
            for name in {**shapes, **arrays}:
                shape, array = shapes.get(name), arrays.get(name, np.empty(0))
                if array.shape != shape or array.dtype != np.float32:
                    raise ValueError(
                        f"{name} is of {array.dtype} and shape {array.shape}; by the "
                        f"recipe it is of float32 and shape {shape}"
                    )
        return arrays

    def _read_state(self) -> dict[str, np.ndarray]:
        """Map an optimizer's state; its names and shapes the optimizer checks."""
        most_steps = len(self.history) * max(self.run.parts.train_mat.shape)
        with blaming(self.path("optimizer")):
            arrays = self.read_arrays("optimizer", _largest(self._shapes(), 4))
            for name, array in arrays.items():
                fits = array.dtype == np.float32
                if name.endswith("num_updates"):
                    fits = array.dtype == np.int64 and array.shape == ()
                    fits = fits and bool(0 <= array <= most_steps)
                if not fits:
                    raise ValueError(f"{name} is not of this training")
        return arrays

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all parameters by name."""
        shape = self.run.parts.train_mat.shape
        return {
            prefix + name: size
            for prefix, recipe in self.run.recipe.by_prefix.items()
            for name, size in parameter_shapes(recipe, shape)
        }


def _largest(shapes: Mapping[str, tuple[int, ...]], times: int = 1) -> int:
    """Return how many bytes a file of arrays of these shapes may have."""
    return LARGEST_HEADER + 8 + times * sum(4 * math.prod(s) for s in shapes.values())


def _check_size(name: str, array: np.ndarray, is_factor: bool, epoch: int) -> None:
    """Check that all numbers are finite, and products of those that predict are."""
    extremes = [(-piece.min(), piece.max()) for piece in pieces(array)]
    what, largest = f"largest of {name}", float(np.max(extremes))
    if is_factor:
        what, largest = f"square of the {what}", largest**2
    finite = largest <= float(np.finfo(np.float32).max)
    check_finite(what, largest if finite else math.inf, epoch)


def _ids(parts: Parts) -> Ids:
    items = parts.item_ids.tolist()
    titles = [parts.titles.get(item_id) for item_id in items]
    return Ids(parts.user_ids.tolist(), items, titles)


def _id_array(ids: list[_Id]) -> np.ndarray:
    whole = all(type(raw_id) is int for raw_id in ids)
    return np.array(ids, np.int64 if whole else object)


def _rating_arrays(parts: Parts) -> dict[str, np.ndarray]:
    return {
        f"{name}.{part}": getattr(matrix, part)
        for name in _MATRICES
        if (matrix := getattr(parts, name)) is not None
        for part in _CSR
    }


def _matrices(
    arrays: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> dict[str, Any]:
    """Make matrices of a shape; their indices are still to be checked."""
    names = [n for n in _MATRICES if n == "train_mat" or f"{n}.data" in arrays]
    kinds = {f"{name}.{part}": kind for name in names for part, kind in _CSR.items()}
    if {name: array.dtype.kind * array.ndim for name, array in arrays.items()} != kinds:
        raise ValueError(f"{', '.join(arrays)[:99]} are not matrices in CSR format")
    return {
        name: sp.csr_matrix(
            tuple(np.array(arrays[f"{name}.{part}"]) for part in _CSR), shape
        )
        for name in names
    }
