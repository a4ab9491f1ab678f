"""A trained model on disk: a folder that is replaced whole or not at all.

``model.json`` says what the model is and lists its other files by the SHA-256 of their
content, which is also in their names. A save writes new files beside the old ones and
then replaces ``model.json``: a kill at any moment leaves the old model or the new one.
Nothing in the folder is code, and nothing of it is used before all of it is checked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..curve import Epoch, best_epoch
from ..data import check_ratings
from ..errors import ModelError
from ..loop import check_finite
from ..ratings import check_ids
from ..training import (
    Blend,
    Parts,
    Run,
    Training,
    draw_weights,
    network,
    parameter_shapes,
)
from .manifest import (
    KINDS,
    MANIFEST,
    OF_A_RUN,
    OF_PARTS,
    check_ours,
    manifest_text,
    read_manifest,
)
from .reading import blaming, parse_json, parse_npz, parse_parameters, read_signed

_UNFINISHED = ".saving"
_OURS = re.compile(
    r"(ids|ratings|optimizer|parameters)-[0-9a-f]{16}\.(json|npz|params)|"
    + re.escape(_UNFINISHED)
)
_PARTS = ("data", "indices", "indptr")  # of a matrix


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
        check_ours(directory)
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
def lock(directory: str | Path) -> Iterator[int]:
    """Keep other trainings from saving to a model folder.

    The lock of a process that was killed is gone. At the end, files that the model does
    not need are removed.

    Parameters
    ----------
    directory : path
        What is read from it to train on has to be read under the lock.

    Yields
    ------
    int
        A handle of the folder, which stays its own wherever the folder is moved to.

    Raises
    ------
    ModelError
        If there is no such folder, or another training is saving to it.
    """
    directory = Path(directory)
    try:
        handle = os.open(directory, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(
            f"{directory}: holds no model (train with --save {directory})"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"{directory}: another training is saving to it") from None
        try:
            yield handle
        finally:
            if _leads_to(directory, handle):
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
    locked : int or None
        What `lock` gave, where the caller holds it.

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
        self.locked: int | None = None
        self._digests: dict[str, str] = {}
        self._found = _files(self.directory)

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
        manifest = read_manifest(directory)
        checkpoint = cls(directory, _read_run(directory, manifest), overwrite=True)
        checkpoint.history, checkpoint._digests = manifest["history"], manifest["files"]
        with blaming(directory / MANIFEST):
            _check_scores(checkpoint.history, checkpoint.run)
        checkpoint._parameters("best")
        if manifest["files"]["last"] != manifest["files"]["best"]:
            checkpoint._parameters("last")
        checkpoint._optimizer_state()
        return checkpoint

    def check_place(self) -> None:
        """Check that the path still leads to the folder that is locked.

        Raises
        ------
        ModelError
            If it does not, with the place where the folder is now, if that is known.
        """
        if self.locked is None or _leads_to(self.directory, self.locked):
            return
        what = "was moved or removed during the training, with what is saved in it"
        with suppress(OSError):
            place = os.readlink(f"/proc/self/fd/{self.locked}")
            if _leads_to(place, self.locked):
                what = (
                    f"was moved to {place} during the training; what is saved is there "
                    f"(--resume {place})"
                )
        raise ModelError(f"{self.directory}: {what}")

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
            `check_place` does.
        """
        self.check_place()
        recipe, train_mat = self.run.recipe, self.run.parts.train_mat
        nets = [network(one, train_mat) for one in recipe.recipes]
        found = self._parameters("best")
        for number, (one, net) in enumerate(zip(recipe.recipes, nets)):
            net.initialize(mx.init.Zero(), list(devices))
            length = train_mat.shape[0 if one.kind == "user" else 1]
            draw_weights(net, length, devices)
            prefix = f"{number}." if isinstance(recipe, Blend) else ""
            for name, parameter in net._collect_params_with_prefix().items():
                parameter.set_data(mx.np.array(found[prefix + name]))
        if not isinstance(recipe, Blend):
            return nets[0]
        whole = gluon.nn.Sequential()
        whole.add(*nets)
        return whole

    def parameters(self) -> dict[str, np.ndarray]:
        """Read those of the best epoch; see `Training.load`."""
        self.check_place()
        return self._parameters("best")

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
        state = self._optimizer_state()
        most_steps = len(self.history) * max(self.run.parts.train_mat.shape)
        with blaming(self._path("optimizer")):
            for name, array in state.items():
                is_count = name.endswith("num_updates")
                if (
                    not np.isfinite(array).all()
                    or is_count
                    and not (array.shape == () and 0 <= array <= most_steps)
                ):
                    raise ValueError(f"{name} is not of this training")
            training.load(self._parameters("last"), state)

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
            if self._found != _files(self.directory):
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
            As the training of `run` returns them.

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
        for name, array in {**parameters, **state}.items():
            what, largest = f"largest of {name}", float(np.abs(array).max(initial=0))
            if name in parameters:  # of which predictions are products
                what, largest = f"square of the {what}", largest**2
            finite = largest <= float(np.finfo(np.float32).max)
            check_finite(what, largest if finite else math.inf, epoch.epoch)
        self.check_place()
        _remove_old(self.directory)
        self.history.append(epoch)
        try:
            digests = dict(self._digests)
            if not self._has("ids"):
                ids = _ids(self.run)
                digests["ids"] = self._put("ids", lambda f: _write_json(f, ids))
            if not self._has("ratings"):
                ratings = _rating_arrays(self.run)
                digests["ratings"] = self._put(
                    "ratings", lambda f: _write_arrays(f, ratings)
                )
            digests["last"] = self._put(
                "last", lambda f: _write_parameters(f, parameters)
            )
            digests["optimizer"] = self._put(
                "optimizer", lambda f: _write_arrays(f, state)
            )
            if best_epoch(self.history) is epoch:
                digests["best"] = digests["last"]
            elif not self._has("best"):
                raise ModelError(f"{self._path('best')}: was removed")
            text = manifest_text(self.run, self.history, digests)
            self._put(None, lambda f: _write_text(f, text))
        except BaseException:
            self.history.pop()
            raise
        self._digests = self._found = digests

    def _path(self, kind: str) -> Path:
        return self.directory / KINDS[kind].format(self._digests[kind][:16])

    def _has(self, kind: str) -> bool:
        """Tell whether a file of an earlier save is there."""
        return kind in self._digests and self._path(kind).exists()

    def _put(self, kind: str | None, write: Callable[[Path], None]) -> str:
        """Write a file and name it by its content, or as the manifest."""
        self.check_place()
        unfinished = self.directory / _UNFINISHED
        try:
            # Something else may bear its name: what a link leads to is not ours.
            unfinished.unlink(missing_ok=True)
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL, 0o666))
            write(unfinished)
            _sync(unfinished)
            digest = _sha256(unfinished)
            if kind:
                name = KINDS[kind].format(digest[:16])
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

    def _parameters(self, kind: str) -> dict[str, np.ndarray]:
        """Read parameters whose names and shapes are those of the recipe."""
        run, file = self.run, self._path(kind)
        with blaming(file):
            found = parse_parameters(read_signed(file, self._digests[kind]))
            known = set()
            for number, recipe in enumerate(run.recipe.recipes):
                prefix = f"{number}." if isinstance(run.recipe, Blend) else ""
                for name, shape in parameter_shapes(recipe, run.parts.train_mat.shape):
                    name = prefix + name
                    if name not in found or found[name].shape != shape:
                        raise ValueError(
                            f"{name} has not the shape of the recipe, {shape}"
                        )
                    known.add(name)
            if unknown := found.keys() - known:
                raise ValueError(f"{min(unknown)!r} is not in the recipe")
        return found

    def _optimizer_state(self) -> dict[str, np.ndarray]:
        file = self._path("optimizer")
        with blaming(file):
            return parse_npz(read_signed(file, self._digests["optimizer"]))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _leads_to(path: str | Path, handle: int) -> bool:
    """Tell whether a path leads to the folder that a handle is of."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


def _remove_old(directory: Path) -> None:
    """Remove files that the model in a folder does not need.

    This comes before a save, not after it, so that someone who is just reading the
    model has an epoch's time for it.
    """
    if not (files := _files(directory)):
        return
    needed = {KINDS[kind].format(digest[:16]) for kind, digest in files.items()}
    for entry in directory.iterdir():
        if _OURS.fullmatch(entry.name) and entry.name not in needed:
            entry.unlink()


def _files(directory: Path) -> dict[str, str]:
    """Find the checksums of the model in a folder, if there is one."""
    try:
        files: dict[str, str] = read_manifest(directory)["files"]
    except ModelError:
        return {}
    return files


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _ids(run: Run) -> dict[str, list[Any]]:
    parts = run.parts
    items = parts.item_ids.tolist()
    return {
        "users": parts.user_ids.tolist(),
        "items": items,
        "titles": [parts.titles.get(item_id) for item_id in items],
    }


def _rating_arrays(run: Run) -> dict[str, np.ndarray]:
    arrays = {}
    for name in ("train_mat", "test_mat", "valid_mat"):
        if (matrix := getattr(run.parts, name)) is not None:
            for part in _PARTS:
                arrays[f"{name}.{part}"] = getattr(matrix, part)
    return arrays


def _read_run(directory: Path, manifest: Mapping[str, Any]) -> Run:
    files = manifest["files"]

    def path(kind: str) -> Path:
        return directory / KINDS[kind].format(files[kind][:16])

    with blaming(path("ids")):
        ids = parse_json(read_signed(path("ids"), files["ids"]))
        user_ids, item_ids = (_id_array(ids[key]) for key in ("users", "items"))
        check_ids("users", user_ids)
        check_ids("items", item_ids)
        if len(ids["titles"]) != len(item_ids):
            raise ValueError("titles: are not as many as the items")
        titles = {i: t for i, t in zip(ids["items"], ids["titles"]) if t is not None}
    with blaming(path("ratings")):
        arrays = parse_npz(read_signed(path("ratings"), files["ratings"]))
        matrices = _matrices(arrays, (len(item_ids), len(user_ids)))
    with blaming(directory / MANIFEST):
        parts = Parts(
            **matrices,
            user_ids=user_ids,
            item_ids=item_ids,
            titles=titles,
            **{name: manifest[name] for name in OF_PARTS},
        )
        return Run(parts, **{name: manifest[name] for name in OF_A_RUN})


def _check_scores(history: Sequence[Epoch], run: Run) -> None:
    """Check that each epoch has a score on the parts that there are, and no other."""
    for epoch in history:
        for score, matrix in (
            ("test", run.parts.test_mat),
            ("valid", run.parts.valid_mat),
        ):
            if (getattr(epoch, f"{score}_rmse") is None) != (matrix is None):
                raise ValueError(f"history: epoch {epoch.epoch}: {score}_rmse")


def _matrices(
    arrays: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> dict[str, Any]:
    matrices: dict[str, Any] = dict.fromkeys(("train_mat", "test_mat", "valid_mat"))
    names = {name.partition(".")[0] for name in arrays}
    wanted = {f"{name}.{part}" for name in names for part in _PARTS}
    if (
        arrays.keys() != wanted
        or not names <= matrices.keys()
        or "train_mat" not in names
    ):
        raise ValueError(f"holds {', '.join(arrays)}, which are not the ratings")
    for name in sorted(names):
        parts = [arrays[f"{name}.{part}"] for part in _PARTS]
        if any(p.ndim != 1 or p.dtype.kind != k for p, k in zip(parts, "fii")):
            raise ValueError(f"{name}: its arrays are not of a matrix in format csr")
        matrices[name] = sp.csr_matrix(tuple(parts), shape, copy=True)
        if check_ratings(name, matrices[name], shape) is not matrices[name]:
            raise ValueError(f"{name}: its ratings are not sorted float32 above 0")
    return matrices


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


def _write_parameters(file: Path, parameters: Mapping[str, np.ndarray]) -> None:
    # MXNet says nothing when the last bytes of a file find no room.
    try:
        mx.npx.save(str(file), {n: mx.np.array(a) for n, a in parameters.items()})
        parse_parameters(file.read_bytes())
    except (mx.MXNetError, ValueError, struct.error) as error:
        raise OSError(errno.ENOSPC, "could not be written whole", str(file)) from error
