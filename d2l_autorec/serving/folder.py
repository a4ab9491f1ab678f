"""A model on disk: a folder that is replaced whole or not at all.

``model.json`` says what the model is and lists its other files by the SHA-256 of their
content, which is also in their names. A save writes new files beside the old ones and
then replaces ``model.json``: a kill at any moment leaves the old model or the new one.
Nothing in the folder is code.
"""

import fcntl
import functools
import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import numpy as np

from .. import __version__
from .._mxnet import mx
from ..errors import ModelError
from .storage import blaming, decode, opened, read_arrays, write_arrays

FORMAT = 2
MANIFEST = "model.json"
# Of a manifest, whose longest part is the history: some 60,000 epochs.
LARGEST_MANIFEST = 2**22
# The last and the best epoch's weights may be in one file.
KINDS = {
    "ids": "ids-{}.json",
    "ratings": "ratings-{}.safetensors",
    "optimizer": "optimizer-{}.safetensors",
    "last": "weights-{}.safetensors",
    "best": "weights-{}.safetensors",
}
_UNFINISHED = ".saving"
_OURS = re.compile(
    r"ids-[0-9a-f]{16}\.json|(ratings|optimizer|weights)-[0-9a-f]{16}\.safetensors|"
    + re.escape(_UNFINISHED)
)


class Header(msgspec.Struct, kw_only=True):
    """The fields of ``model.json`` in any format."""

    format: int | str
    versions: dict[str, Annotated[str, msgspec.Meta(max_length=40)]]
    files: dict[str, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]]


class Manifest(Header, kw_only=True, forbid_unknown_fields=True, tag_field="task"):
    """``model.json``: a subclass adds the fields of a task, which is its tag."""

    kinds: ClassVar[Set[str]] = KINDS.keys()  # of the files that the task has


_Manifest = TypeVar("_Manifest", bound=Manifest)


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
    if not (directory / MANIFEST).exists():
        for name in sorted(os.listdir(directory)):
            if not _OURS.fullmatch(name):
                raise ModelError(
                    f"{directory}: holds {name} and no model; name a new or an empty "
                    "folder"
                )
        return
    try:
        _read_header(directory)
    except ModelError:
        raise ModelError(
            f"{directory}: holds a {MANIFEST} that is no model's description; move it "
            "away, or name another folder"
        ) from None
    if not overwrite:
        raise ModelError(
            f"{directory}: holds a model; go on with it (--resume {directory}), or "
            "have it replaced (--overwrite)"
        )


@contextmanager
def lock(directory: str | Path) -> Iterator[int]:
    """Keep other trainings from saving to a model folder.

    A training reads the folder under the lock. It yields a handle, which follows the
    folder if it is moved. A killed process leaves no lock. At the end, files that the
    model does not need are removed.
    """
    directory = Path(directory)
    try:
        handle = os.open(directory, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_model(directory) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield handle
        finally:
            if _leads_to(directory, handle):
                _remove_old(directory)
    except BlockingIOError:
        raise ModelError(f"{directory}: another training is saving to it") from None
    finally:
        os.close(handle)


class Folder:
    """The files of a model, and the folder's lock where the caller holds it."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.files: dict[str, str] = {}
        self.locked: int | None = None

    def path(self, kind: str) -> Path:
        """Return the path of a file of the model."""
        return self.directory / KINDS[kind].format(self.files[kind][:16])

    def has(self, kind: str) -> bool:
        """Tell whether a file of an earlier save is there."""
        return kind in self.files and self.path(kind).exists()

    def read_manifest(self, kind: type[_Manifest]) -> _Manifest:
        """Read ``model.json``, check its checksum and fields, and name the files."""
        content, header = _read_header(self.directory)
        if header.format != FORMAT:
            raise ModelError(
                f"{self.directory}: is in format {header.format!r}, written by "
                f"d2l_autorec {header.versions['d2l_autorec']}; d2l_autorec "
                f"{__version__} reads format {FORMAT}: use that version, or train again"
            )
        fields = content.rpartition(b',"sha256":')[0]
        if content != _signed(fields):
            raise ModelError(f"{self.directory / MANIFEST}: is damaged: its SHA-256")
        with blaming(self.directory / MANIFEST):
            manifest: _Manifest = decode(fields + b"}", kind)
            if different := manifest.files.keys() ^ manifest.kinds:
                raise ValueError(f"files: {min(different)!r} is missing, or unknown")
        self.files = manifest.files
        return manifest

    def read_arrays(
        self, kind: str, largest: int | None = None
    ) -> dict[str, np.ndarray]:
        """Map the arrays of a file, which may have so many bytes."""
        return read_arrays(self.path(kind), self.files[kind], largest)

    def put_arrays(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a file of arrays."""
        self._put(kind, lambda file: write_arrays(file, arrays))

    def put_json(self, kind: str, value: Any) -> None:
        """Write a file of JSON."""
        content = msgspec.json.encode(value)
        self._put(kind, lambda file: file.write_bytes(content))

    def put_manifest(self, manifest: Manifest) -> None:
        """Replace ``model.json``, and with it the model."""
        content = _signed(msgspec.json.encode(manifest)[:-1])
        if len(content) > LARGEST_MANIFEST:
            raise ModelError(f"{MANIFEST} would have {len(content):,} bytes: too many")
        self._put(None, lambda file: file.write_bytes(content))

    def make_room(self) -> None:
        """Remove files that the model in the folder does not need.

        This comes before a save, not after it, so that another process that is reading
        the model has an epoch's time for it.
        """
        self.check_place()
        _remove_old(self.directory)

    def check_place(self) -> None:
        """Check that the path still leads to the folder that is locked."""
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

    def _put(self, kind: str | None, write: Callable[[Path], object]) -> None:
        """Write a file and name it by its content; without a kind, the manifest."""
        self.check_place()
        unfinished = self.directory / _UNFINISHED
        try:
            # Something else may bear its name: what a link leads to is not ours.
            unfinished.unlink(missing_ok=True)
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL, 0o666))
            write(unfinished)
            _sync(unfinished)
            if kind:
                with unfinished.open("rb") as written:
                    digest = hashlib.file_digest(written, "sha256")
                self.files[kind] = digest.hexdigest()
                os.replace(unfinished, self.path(kind))
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


def saved_files(directory: str | Path) -> dict[str, str]:
    """Return the checksums of the files of a folder's model, if there is one."""
    try:
        return _read_header(Path(directory))[1].files
    except ModelError:
        return {}


def _read_header(directory: Path) -> tuple[bytes, Header]:
    """Read a manifest of any format."""
    file = directory / MANIFEST
    if not file.parent.is_dir() or not os.path.lexists(file):
        raise _no_model(directory)
    with blaming(file), opened(file, LARGEST_MANIFEST) as raw:
        content = raw.read()
    try:
        header: Header = decode(content, Header)
        if not re.fullmatch(r"[\w.+]+", header.versions["d2l_autorec"]):
            raise ValueError("versions")
    except (ValueError, KeyError, RecursionError) as error:
        raise ModelError(
            f"{file}: is damaged: no model's description: {error}"
        ) from None
    return content, header


def _remove_old(directory: Path) -> None:
    files = saved_files(directory)
    needed = {KINDS[kind].format(files[kind][:16]) for kind in files.keys() & KINDS}
    for entry in directory.iterdir():
        if files and _OURS.fullmatch(entry.name) and entry.name not in needed:
            entry.unlink()


def _signed(fields: bytes) -> bytes:
    digest = hashlib.sha256(fields).hexdigest()
    return fields + f',"sha256":"{digest}"}}\n'.encode()


def _no_model(directory: Path) -> ModelError:
    return ModelError(f"{directory}: holds no model (train with --save {directory})")


def _leads_to(path: str | Path, handle: int) -> bool:
    """Tell whether a path leads to the folder that a handle is of."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
