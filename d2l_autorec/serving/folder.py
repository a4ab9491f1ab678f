"""A trained model on disk: a folder that is replaced whole or not at all.

``model.json`` says what the model is and lists its other files by the SHA-256 of their
content, which is also in their names. A save writes new files beside the old ones and
then replaces ``model.json``: a kill at any moment leaves the old model or the new one.
Nothing in the folder is code, and nothing is read before its checksum is right.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import __version__
from .._mxnet import gluon, mx
from ..curve import Epoch
from ..errors import ModelError
from ..fast import dense
from ..model import AutoRec
from ..training import Average, Recipe, Run, Training, best_epoch, network

FORMAT = 1
MANIFEST = "model.json"
_UNFINISHED = ".saving"
# What goes into which file; the last and the best epoch may share one.
_KINDS = {
    "ids": "ids-{}.json",
    "ratings": "ratings-{}.npz",
    "optimizer": "optimizer-{}.npz",
    "last": "parameters-{}.params",
    "best": "parameters-{}.params",
}
_OURS = re.compile(
    r"(ids|ratings|optimizer|parameters)-[0-9a-f]{16}\.(json|npz|params)|"
    + re.escape(_UNFINISHED)
)


def make_folder(directory: str | Path, overwrite: bool = False) -> None:
    """Make the folder of a new model, or check that one may be used.

    Parameters
    ----------
    directory : path
        It may hold what an interrupted save left.
    overwrite : bool
        Whether it may hold a model.

    Raises
    ------
    ModelError
        If it holds a model that is not to be replaced, or other files and no model.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / MANIFEST).exists():
        if not overwrite:
            raise ModelError(
                f"{directory}: holds a model; go on with it (--resume {directory}), "
                "or have it replaced (--overwrite)"
            )
        return
    for entry in directory.iterdir():
        if not _OURS.fullmatch(entry.name):
            raise ModelError(
                f"{directory}: holds {entry.name} and no model; name a new or an empty "
                "folder"
            )


@contextmanager
def lock(directory: str | Path) -> Iterator[None]:
    """Keep other trainings from saving to a model folder.

    The lock of a process that was killed is gone. At the end, files that the model does
    not need are removed.

    Parameters
    ----------
    directory : path
        What is read from it to train on has to be read under the lock.

    Raises
    ------
    ModelError
        If there is no such folder, or another training is saving to it.
    """
    directory = Path(directory)
    try:
        handle = os.open(directory, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_model(directory) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"{directory}: another training is saving to it") from None
        try:
            yield
        finally:
            _remove_old(directory)
    finally:
        os.close(handle)


class Checkpoint:
    """A model folder.

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

    Raises
    ------
    ModelError
        As for `make_folder`.
    """

    def __init__(
        self, directory: str | Path, run: Run, overwrite: bool = False
    ) -> None:
        make_folder(directory, overwrite)
        self.directory, self.run = Path(directory), run
        self.history: list[Epoch] = []
        self._digests: dict[str, str] = {}

    @classmethod
    def open(cls, directory: str | Path) -> Checkpoint:
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
        directory = Path(directory)
        manifest = _read_manifest(directory)
        try:
            for kind, digest in manifest["files"].items():
                _check(directory / _KINDS[kind].format(digest[:16]), digest)
            run = _read_run(directory, manifest)
            checkpoint = cls(directory, run, overwrite=True)
            checkpoint.history = [Epoch(**epoch) for epoch in manifest["history"]]
        except (TypeError, ValueError, LookupError, zipfile.BadZipFile) as error:
            raise ModelError(f"{directory}: does not fit together: {error}") from error
        checkpoint._digests = manifest["files"]
        return checkpoint

    def network(self, devices: Sequence[mx.Context]) -> AutoRec | Average:
        """Make the network, with the parameters of the best epoch.

        Parameters
        ----------
        devices : sequence of mxnet.Context
            Where it is to be.

        Returns
        -------
        AutoRec or Average

        Raises
        ------
        ModelError
            If the parameters do not have the shapes that the recipe asks for.
        """
        net = network(self.run.recipe, self.run.train_mat)
        self._load_parameters(net, "best", devices)
        return net

    def restore(self, training: Training, devices: Sequence[mx.Context]) -> None:
        """Put a training back to where the last save left it.

        Parameters
        ----------
        training : Training
            Of `run`, with ``trained=len(history)``, not begun.
        devices : sequence of mxnet.Context
            That it is on.

        Raises
        ------
        ModelError
            If parameters or optimizer state do not have the shapes they should.
        """
        self._load_parameters(training.net, "last", devices)
        with np.load(self._path("optimizer")) as state:
            try:
                _restore_optimizer(training.trainer, dict(state))
            except (LookupError, ValueError) as error:
                raise ModelError(
                    f"{self._path('optimizer')}: does not fit: {error}"
                ) from error

    def saving(
        self, training: Training, epochs: Iterable[Epoch], locked: bool = False
    ) -> Iterator[Epoch]:
        """Save after each epoch.

        Parameters
        ----------
        training : Training
            Of `run`.
        epochs : iterable of Epoch
            Of that training, as they pass by.
        locked : bool
            Whether the caller holds the folder's `lock`; else it is held meanwhile.

        Yields
        ------
        Epoch
            Each as soon as it is on disk.

        Raises
        ------
        ModelError
            If another training saves to this folder.
        """
        with nullcontext() if locked else lock(self.directory):
            for epoch in epochs:
                self.save(training, epoch)
                yield epoch

    def save(self, training: Training, epoch: Epoch) -> None:
        """Replace the model in the folder by the state after an epoch.

        Parameters
        ----------
        training : Training
            Of `run`.
        epoch : Epoch
            The one that has just passed.

        Raises
        ------
        OSError
            If the folder cannot be written, or the disk is full; the model that was
            there is left as it was.
        """
        _remove_old(self.directory)
        self.history.append(epoch)
        try:
            digests = dict(self._digests)
            if "ids" not in digests:
                ids, ratings = _ids(self.run), _rating_arrays(self.run)
                digests["ids"] = self._put("ids", lambda f: _write_json(f, ids))
                digests["ratings"] = self._put(
                    "ratings", lambda f: _write_arrays(f, ratings)
                )
            digests["last"] = self._put(
                "last", lambda f: _write_parameters(f, training.net)
            )
            state = _optimizer_state(training.trainer)
            digests["optimizer"] = self._put(
                "optimizer", lambda f: _write_arrays(f, state)
            )
            if best_epoch(self.history) is epoch:
                digests["best"] = digests["last"]
            text = _manifest_text(self.run, self.history, digests)
            self._put(None, lambda f: _write_text(f, text))
        except BaseException:
            self.history.pop()
            raise
        self._digests = digests

    def _path(self, kind: str) -> Path:
        return self.directory / _KINDS[kind].format(self._digests[kind][:16])

    def _put(self, kind: str | None, write: Callable[[Path], None]) -> str:
        """Write a file and name it by its content, or as the manifest."""
        unfinished = self.directory / _UNFINISHED
        try:
            write(unfinished)
            _sync(unfinished)
            digest = _sha256(unfinished)
            if kind:
                name = _KINDS[kind].format(digest[:16])
                os.replace(unfinished, self.directory / name)
            else:
                # The other files' names are on disk before the manifest is.
                _sync(self.directory)
                os.replace(unfinished, self.directory / MANIFEST)
                _sync(self.directory)
        except OSError as error:
            # A write that finds no room does not say where.
            raise OSError(error.errno, error.strerror, str(self.directory)) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return digest

    def _load_parameters(
        self, net: AutoRec | Average, kind: str, devices: Sequence[mx.Context]
    ) -> None:
        row = self.run.recipe.rows(self.run.train_mat)[:1]
        try:
            net.load_parameters(str(self._path(kind)), ctx=list(devices))
            net(dense(row, devices[0])).wait_to_read()
        except (AssertionError, ValueError, mx.MXNetError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{self._path(kind)}: does not fit: {reason}") from error


def _manifest_text(
    run: Run, history: Sequence[Epoch], digests: Mapping[str, str]
) -> str:
    return _signed(
        {
            "format": FORMAT,
            "versions": {
                "d2l_autorec": __version__,
                "python": platform.python_version(),
                "mxnet": mx.__version__,
                "numpy": np.__version__,
            },
            "name": run.name,
            "rating_offset": run.rating_offset,
            "split": dict(run.split),
            "seed": run.seed,
            "patience": run.patience,
            "recipe": asdict(run.recipe),
            "history": [epoch._asdict() for epoch in history],
            "files": dict(digests),
        }
    )


def _signed(manifest: Mapping[str, Any]) -> str:
    """Write the manifest with its own checksum, always in the same way."""
    text = json.dumps(manifest)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=1) + "\n"


def _read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / MANIFEST
    try:
        text = file.read_bytes().decode("ascii")
        manifest = json.loads(text)
        version, writer = manifest["format"], manifest["versions"]["d2l_autorec"]
    except (FileNotFoundError, NotADirectoryError):
        raise _no_model(directory) from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ModelError(f"{file}: is damaged: not a model's description") from None
    if version != FORMAT:
        raise ModelError(
            f"{directory}: is in format {version!r}, written by d2l_autorec {writer}; "
            f"d2l_autorec {__version__} reads format {FORMAT}: use that version, or "
            "train again"
        )
    # Writing it again has to give the very same bytes.
    unsigned = {key: value for key, value in manifest.items() if key != "sha256"}
    if text != _signed(unsigned):
        raise ModelError(f"{file}: is damaged: its checksum is not right")
    return unsigned


def _no_model(directory: Path) -> ModelError:
    return ModelError(f"{directory}: holds no model (train with --save {directory})")


def _check(file: Path, digest: str) -> None:
    try:
        found = _sha256(file)
    except FileNotFoundError:
        raise ModelError(f"{file}: is missing") from None
    if found != digest:
        raise ModelError(f"{file}: is damaged: its SHA-256 is not in {MANIFEST}")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove_old(directory: Path) -> None:
    """Remove files that the model in a folder does not need.

    This comes before a save, not after it, so that someone who is just reading the
    model has an epoch's time for it.
    """
    try:
        files = _read_manifest(directory)["files"]
    except ModelError:
        return
    needed = {_KINDS[kind].format(digest[:16]) for kind, digest in files.items()}
    for entry in directory.iterdir():
        if _OURS.fullmatch(entry.name) and entry.name not in needed:
            entry.unlink()


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _ids(run: Run) -> dict[str, list[Any]]:
    items = run.item_ids.tolist()
    return {
        "users": run.user_ids.tolist(),
        "items": items,
        "titles": [run.titles.get(item_id) for item_id in items],
    }


def _rating_arrays(run: Run) -> dict[str, np.ndarray]:
    arrays = {}
    for name in ("train_mat", "test_mat", "valid_mat"):
        if (matrix := getattr(run, name)) is not None:
            for part in ("data", "indices", "indptr"):
                arrays[f"{name}.{part}"] = getattr(matrix, part)
    return arrays


def _read_run(directory: Path, manifest: Mapping[str, Any]) -> Run:
    def path(kind: str) -> Path:
        return directory / _KINDS[kind].format(manifest["files"][kind][:16])

    ids = json.loads(path("ids").read_text(encoding="utf-8"))
    user_ids, item_ids = (_id_array(ids[key]) for key in ("users", "items"))
    with np.load(path("ratings")) as arrays:
        matrices = {
            name: sp.csr_matrix(
                tuple(
                    arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr")
                ),
                shape=(len(item_ids), len(user_ids)),
            )
            if f"{name}.data" in arrays
            else None
            for name in ("train_mat", "test_mat", "valid_mat")
        }
    return Run(
        name=manifest["name"],
        user_ids=user_ids,
        item_ids=item_ids,
        titles={i: t for i, t in zip(ids["items"], ids["titles"]) if t is not None},
        rating_offset=manifest["rating_offset"],
        recipe=_recipe(**manifest["recipe"]),
        seed=manifest["seed"],
        split=manifest["split"],
        patience=manifest["patience"],
        **matrices,
    )


def _recipe(num_hidden: Any, **settings: Any) -> Recipe:
    # JSON has lists for tuples.
    layers = tuple(num_hidden) if isinstance(num_hidden, list) else num_hidden
    return Recipe(num_hidden=layers, **settings)


def _id_array(ids: list[Any]) -> np.ndarray:
    whole = all(type(raw_id) is int for raw_id in ids)
    return np.array(ids, np.int64 if whole else object)


def _write_json(file: Path, value: Any) -> None:
    _write_text(file, json.dumps(value))


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    # First in memory: a zip file that finds no room complains again when it is freed.
    content = io.BytesIO()
    np.savez(content, **arrays)
    file.write_bytes(content.getbuffer())


def _write_parameters(file: Path, net: gluon.Block) -> None:
    # MXNet says nothing when the last bytes of a file find no room.
    try:
        net.save_parameters(str(file))
        mx.nd.load(str(file))
    except mx.MXNetError as error:
        raise OSError(errno.ENOSPC, "could not be written whole", str(file)) from error


def _updaters(trainer: gluon.Trainer) -> list[Any]:
    """Return what holds a trainer's state: one for each device, or the store's."""
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    if trainer._params_to_init:
        trainer._init_params()
    if trainer._update_on_kvstore:
        return [trainer._kvstore._updater]
    return list(trainer._updaters)


def _optimizer_state(trainer: gluon.Trainer) -> dict[str, np.ndarray]:
    """Flatten an optimizer's state; MXNet's own way to save it is a pickle."""
    updater = _updaters(trainer)[0]
    arrays = {
        f"state.{index}.{number}": leaf.asnumpy()
        for index, state in updater.states.items()
        for number, leaf in enumerate(_leaves(state))
    }
    numbers = {
        f"number.{name}": np.array(value)
        for name, value in vars(updater.optimizer).items()
        if isinstance(value, (int, float)) and name != "begin_num_update"
    }
    return {**arrays, **numbers}


def _restore_optimizer(trainer: gluon.Trainer, saved: Mapping[str, np.ndarray]) -> None:
    for updater, device in zip(_updaters(trainer), trainer._contexts):
        optimizer = updater.optimizer
        for key, value in saved.items():
            if key.startswith("number."):
                setattr(optimizer, key.partition(".")[2], value.item())
        # Each parameter's count of steps starts here.
        optimizer.begin_num_update = optimizer.num_update
        for index, parameter in enumerate(trainer._params):
            weight = parameter.data(device).as_nd_ndarray()  # as an updater has it
            state = optimizer.create_state_multi_precision(index, weight)
            for number, leaf in enumerate(_leaves(state)):
                leaf[:] = saved[f"state.{index}.{number}"]
            updater.states[index], updater.states_synced[index] = state, True


def _leaves(state: Any) -> Iterator[Any]:
    """Walk the arrays in an optimizer's state: None, an array, or a nest of them."""
    if isinstance(state, (tuple, list)):
        for part in state:
            yield from _leaves(part)
    elif state is not None:
        yield state
