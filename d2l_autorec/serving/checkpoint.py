"""A model of ratings in its folder: saved, opened, and gone on with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .._mxnet import gluon, mx
from ..curve import Epoch, best_epoch
from ..errors import ModelError
from ..loop import check_finite
from ..training import (
    Blend,
    Parts,
    Run,
    Training,
    draw_weights,
    network,
    parameter_shapes,
)
from .folder import (
    MODEL_FILE,
    ListsModel,
    Model,
    RatingsModel,
    check_place,
    make_folder,
    read_model,
    write_model,
)
from .storage import Arrays, blaming, pieces

# What the names of arrays begin with. The best epoch's weights are there if it is not
# the last one.
_LAST, _BEST, _STATE = "last.", "best.", "optimizer."


class Checkpoint:
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
        if isinstance(run.recipe, Blend) and run.recipe.weights is None:
            raise ModelError(f"{directory}: a blend is saved once it has weights")
        self._begin(directory, run)

    def _begin(self, directory: str | Path, run: Run) -> None:
        self.directory, self.run = Path(directory), run
        self.history: list[Epoch] = []
        self.locked: int | None = None
        self._arrays: Arrays = {}  # of the last save, on disk

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
            If there is no model of ratings, or its file is damaged or has another
            version's format.
        """
        return cls.of(directory, *read_model(Path(directory)))

    @classmethod
    def of(
        cls, directory: str | Path, model: Model, parts: Parts, arrays: Arrays
    ) -> "Checkpoint":
        """Make it of what `read_model` returns."""
        if isinstance(model, ListsModel):
            raise ModelError(
                f"{directory}: holds a model of lists, which is saved once it is "
                "trained: there is nothing to go on with (--save trains it anew)"
            )
        checkpoint = cls.__new__(cls)
        with blaming(Path(directory) / MODEL_FILE):
            run = Run(parts, model.recipe(), model.seed, model.patience)
            checkpoint._begin(directory, run)
            checkpoint.history, checkpoint._arrays = model.history, arrays
            checkpoint._check_history()
            checkpoint._check_arrays()
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
            If the folder is locked, and was moved or removed.
        """
        self.check_place()
        is_last = best_epoch(self.history) is self.history[-1]
        return self._beginning_with(_LAST if is_last else _BEST)

    def restore(self, training: Training) -> None:
        """Put a training back to where the last save left it.

        Parameters
        ----------
        training : Training
            Of `run`, after `history`.

        Raises
        ------
        ModelError
            If the optimizer's state is not of this recipe.
        """
        with blaming(self.directory / MODEL_FILE):
            state = self._beginning_with(_STATE)
            training.load(self._beginning_with(_LAST), state)

    def save(
        self,
        epoch: Epoch,
        parameters: Mapping[str, np.ndarray],
        state: Mapping[str, np.ndarray],
    ) -> None:
        """Replace the model in the folder by that after an epoch, under its `lock`.

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
            If the folder was moved or removed.
        OSError
            If the folder cannot be written, or the disk is full; the model that was
            there is left as it was.
        """
        for name, array in chain(parameters.items(), state.items()):
            _check_size(name, array, name in parameters, epoch.epoch)
        self.check_place()
        run, history = self.run, [*self.history, epoch]
        arrays = {_LAST + name: array for name, array in parameters.items()}
        arrays |= {_STATE + name: array for name, array in state.items()}
        if best_epoch(history) is not epoch:
            best = self.parameters().items()
            arrays |= {_BEST + name: array for name, array in best}
        model = RatingsModel(
            seed=run.seed,
            patience=run.patience,
            recipes=[asdict(one) for one in run.recipe.recipes],
            weights=run.recipe.weights if isinstance(run.recipe, Blend) else None,
            history=history,
        )
        self._arrays = write_model(self.directory, model, run.parts, arrays)
        self.history = history

    def check_place(self) -> None:
        """Check that the folder, where it is locked, was not moved: a `ModelError`."""
        if self.locked is not None:
            check_place(self.directory, self.locked)

    def _beginning_with(self, prefix: str) -> Arrays:
        return {
            name.removeprefix(prefix): array
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }

    def _check_history(self) -> None:
        """Check the epochs, which have a score on the parts that there are alone."""
        parts = self.run.parts
        scored = parts.test_mat is not None, parts.valid_mat is not None
        for number, epoch in enumerate(self.history, 1):
            numbers = [value for value in epoch if value is not None]
            if (
                epoch.epoch != number
                or (epoch.test_rmse is not None, epoch.valid_rmse is not None) != scored
                or not all(0 <= value < 2**63 for value in numbers)
                or not epoch.seconds
            ):
                raise ValueError(f"history: epoch {number} is {epoch!r}")
        if len(self.history) > self.run.recipe.num_epochs:
            raise ValueError("history: has more epochs than the recipe")

    def _check_arrays(self) -> None:
        """Check names, types and shapes by the recipe.

        The names and shapes of the state are checked by the optimizer that it goes to.
        """
        shape = self.run.parts.train_mat.shape
        is_last = best_epoch(self.history) is self.history[-1]
        expected: dict[str, Any] = {
            which + prefix + name: (np.float32, size)
            for which in ((_LAST,) if is_last else (_LAST, _BEST))
            for prefix, recipe in self.run.recipe.by_prefix.items()
            for name, size in parameter_shapes(recipe, shape)
        }
        most_steps = len(self.history) * max(shape)
        for name in {**expected, **self._arrays}:
            array = self._arrays.get(name, np.empty(0))
            wanted = expected.get(name, (np.float32, array.shape))
            fits = name in expected or name.startswith(_STATE)
            if name.startswith(_STATE) and name.endswith("num_updates"):
                wanted = np.int64, ()
                fits = array.size == 1 and bool(0 <= array <= most_steps)
            if not fits or (array.dtype, array.shape) != wanted:
                raise ValueError(
                    f"{name} is of {array.dtype} and shape {array.shape}; it does not "
                    "belong to the recipe and its epochs"
                )


def _check_size(name: str, array: np.ndarray, is_factor: bool, epoch: int) -> None:
    """Check that all numbers are finite, and products of those that predict are."""
    extremes = [(-piece.min(), piece.max()) for piece in pieces(array)]
    what, largest = f"largest of {name}", float(np.max(extremes))
    if is_factor:
        what, largest = f"square of the {what}", largest**2
    finite = largest <= float(np.finfo(np.float32).max)
    check_finite(what, largest if finite else math.inf, epoch)
