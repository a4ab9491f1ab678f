"""Where the data sets of MovieLens come from: found on this machine, or downloaded.

A MovieLens data set is looked for in the data folder, then in the cache, then fetched.
What is kept in the cache is the archive as GroupLens publishes it; it is checked
against its SHA-256 whenever it is used, and read without being unpacked.

References
----------
F. M. Harper, J. A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5(4), 2015.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import requests
import urllib3
from tqdm import tqdm

from ..errors import DataError, DatasetUnavailable
from .netflix import NETFLIX, load_netflix
from .reading import read_ratings
from .sources import find_files
from .synthetic import SYNTHETIC, synthetic_ratings
from .table import Ratings

_log = logging.getLogger(__name__)

# GroupLens, then the byte-identical copies that the Recommenders project keeps.
SERVERS = (
    "https://files.grouplens.org/datasets/movielens",
    "https://huggingface.co/datasets/Recommenders/MovieLens/resolve/main",
)


@dataclass(frozen=True)
class Archive:
    """An archive of GroupLens, and where in it the ratings and the titles are."""

    size: tuple[int, int, int]  # users, items, ratings
    sha256: str
    folder: str
    ratings: str
    titles: str
    titles_separator: str
    titles_encoding: str


ARCHIVES = {
    "ml-100k": Archive(
        (943, 1682, 100_000),
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        *("ml-100k", "u.data", "u.item", "|", "latin-1"),
    ),
    "ml-1m": Archive(
        (6040, 3706, 1_000_209),
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        *("ml-1m", "ratings.dat", "movies.dat", "::", "latin-1"),
    ),
    "ml-10m": Archive(
        (69_878, 10_677, 10_000_054),
        "813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
        *("ml-10M100K", "ratings.dat", "movies.dat", "::", "utf-8"),
    ),
    "ml-latest-small": Archive(
        (610, 9724, 100_836),
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        *("ml-latest-small", "ratings.csv", "movies.csv", ",", "utf-8"),
    ),
}
NAMES = (*ARCHIVES, NETFLIX, SYNTHETIC)
# Of a download: ml-10m, the largest, has 66 million bytes.
_MAX_BYTES, _MAX_SECONDS = 100_000_000, 1800


def load_dataset(name: str, data_dir: str | Path | None = None) -> Ratings:
    """Read a data set by name, downloading it first where it is not on this machine.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    data_dir : path, optional
        Folder that holds data sets as GroupLens unzips them, or their zips; by default
        ``$D2L_AUTOREC_DATA``.

    Returns
    -------
    Ratings
        With the films' titles; in ``synthetic-100k`` the items have none.

    Raises
    ------
    DataError
        If there is no such data set, or a file of it is damaged.
    DatasetUnavailable
        If it was not found and could not be downloaded.
    """
    if name == SYNTHETIC:
        return synthetic_ratings()
    if name == NETFLIX:
        return load_netflix(_data_folder(data_dir))
    if name not in ARCHIVES:
        raise DataError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")
    archive = ARCHIVES[name]
    read, where = locate(name, data_dir)
    with _file(read, where, archive.ratings) as file:
        ratings = read_ratings(file)
    return replace(ratings, name=name, titles=_titles(read, where, archive))


@contextmanager
def _file(read: Callable[[str], bytes], where: Path, member: str) -> Iterator[Path]:
    """Give a file of a data set; one of an archive is unpacked for the block."""
    if where.is_dir():
        yield where / member
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / member
        file.write_bytes(read(member))
        yield file


def label(name: str, size: tuple[int, int, int]) -> str:
    """Name ratings in a report, where others may have published results of them.

    Parameters
    ----------
    name : str
        As for `Ratings`.
    size : tuple of int
        Users, items and ratings that there are.

    Returns
    -------
    str
        `name`; and if a data set of GroupLens has another size, such as that of a file
        that was cut, this too.
    """
    if name in ARCHIVES and size != ARCHIVES[name].size:
        return f"{name}, not as published"
    return name


def load_folds_ml100k(
    data_dir: str | Path | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the five folds, u1 to u5, that are part of MovieLens 100K.

    Parameters
    ----------
    data_dir : path, optional
        As for `load_dataset`.

    Returns
    -------
    list of (train_rows, test_rows)
        Rows of ``load_dataset("ml-100k")``, int64: 80,000 and 20,000 each; the test
        parts have none in common.

    Raises
    ------
    DataError, DatasetUnavailable
        As for `load_dataset`.
    """
    read, where = locate("ml-100k", data_dir)

    ratings = load_dataset("ml-100k", data_dir)
    row_of = {pair: row for row, pair in enumerate(_pairs(ratings))}

    def rows(member: str) -> np.ndarray:
        with _file(read, where, member) as file:
            pairs = _pairs(read_ratings(file))
        try:
            return np.array([row_of[pair] for pair in pairs], np.int64)
        except KeyError as error:
            user_id, item_id = error.args[0]
            raise DataError(
                f"{where}/{member}: user {user_id} does not rate item {item_id} in "
                "u.data"
            ) from None

    return [(rows(f"u{fold}.base"), rows(f"u{fold}.test")) for fold in range(1, 6)]


def _pairs(ratings: Ratings) -> Iterator[tuple[Any, Any]]:
    """List the raw ids of each rating's user and item."""
    user_ids = ratings.user_ids[ratings.user_index].tolist()
    return zip(user_ids, ratings.item_ids[ratings.item_index].tolist())


def locate(
    name: str, data_dir: str | Path | None = None
) -> tuple[Callable[[str], bytes], Path]:
    """Find a data set of GroupLens, downloading its archive if it has to be.

    Parameters
    ----------
    name : str
        One of `ARCHIVES`.
    data_dir : path, optional
        As for `load_dataset`.

    Returns
    -------
    read : callable
        From the name of a file of the data set to its bytes.
    where : pathlib.Path
        The folder or the zip that `read` reads.

    Raises
    ------
    DataError
        If `data_dir` is no folder, or a zip in it is not the published one.
    DatasetUnavailable
        If it was not found and could not be downloaded.
    """
    archive = ARCHIVES[name]
    if root := _data_folder(data_dir):
        folder, zipped = root / archive.folder, root / f"{name}.zip"
        if (folder / archive.ratings).exists():
            return lambda member: find_files(folder / member)[0].read_bytes(), folder
        if zipped.exists():
            if pooch.file_hash(str(zipped)) != archive.sha256:
                raise DataError(
                    f"{zipped}: is not the file that GroupLens publishes (its SHA-256 "
                    "differs); remove it to have it downloaded"
                )
            return lambda member: _read_member(zipped, archive, member), zipped
    zipped = _download(name)
    return lambda member: _read_member(zipped, archive, member), zipped


def _data_folder(data_dir: str | Path | None) -> Path | None:
    """Return the folder that holds data sets, if there is one."""
    named = data_dir or os.environ.get("D2L_AUTOREC_DATA")
    if named and not Path(named).is_dir():
        raise DataError(f"{named}: no such folder (--data-dir, $D2L_AUTOREC_DATA)")
    return Path(named) if named else None


def _read_member(zipped: Path, archive: Archive, member: str) -> bytes:
    with zipfile.ZipFile(zipped) as opened:
        return opened.read(f"{archive.folder}/{member}")


def _titles(
    read: Callable[[str], bytes], where: Path, archive: Archive
) -> dict[int, str]:
    """Read item titles; films without a file of titles go by their ids."""
    try:
        raw = read(archive.titles)
    except DataError:
        return {}
    titles: dict[int, str] = {}
    try:
        lines = io.StringIO(raw.decode(archive.titles_encoding), newline=None)
        for fields in _rows(lines, archive.titles_separator):
            titles[int(fields[0])] = fields[1]
    except (ValueError, LookupError, csv.Error):
        raise DataError(
            f"{where}/{archive.titles}: is damaged after {len(titles):,} titles"
        ) from None
    return titles


def _rows(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    if separator == ",":
        next(lines, None)  # the header
        yield from filter(None, csv.reader(lines, strict=True))
    for line in filter(str.strip, lines):
        yield line.rstrip("\n").split(separator)


def _download(name: str) -> Path:
    """Bring the archive into the cache; return its path, its SHA-256 checked."""
    cache = pooch.os_cache("d2l_autorec")
    # A server whose certificate has lapsed is asked once more at the end, unverified:
    # the SHA-256, which is part of this file, vouches for the bytes.
    attempts = [(f"{server}/{name}.zip", True) for server in SERVERS]
    failures = []
    pooch.get_logger().setLevel("WARNING")
    for url, verify in attempts:
        if not (cache / f"{name}.zip").exists():
            unverified = "" if verify else " without verifying its lapsed certificate"
            _log.log(
                logging.INFO if verify else logging.WARNING,
                "downloading %s%s; the SHA-256 will be checked",
                *(url, unverified),
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", urllib3.exceptions.InsecureRequestWarning
                )
                return Path(
                    pooch.retrieve(
                        url,
                        known_hash=f"sha256:{ARCHIVES[name].sha256}",
                        fname=f"{name}.zip",
                        path=cache,
                        downloader=partial(_fetch, verify=verify),
                    )
                )
        except requests.exceptions.RequestException as error:
            failures.append(f"{url}: {_reason(error)}")
            if verify and _certificate_fault(error) == "certificate has expired":
                attempts.append((url, False))
        except ValueError:
            failures.append(f"{url}: the file's SHA-256 is not the published one")
        except OSError as error:
            raise DatasetUnavailable(
                f"cannot keep {name}.zip in {cache}: {error.strerror or error}; "
                "make room or choose another cache folder with XDG_CACHE_HOME"
            ) from error
    raise DatasetUnavailable(
        f"{name} is not on this machine and could not be downloaded "
        f"({'; '.join(failures)}). Put {name}.zip, or the folder in it, into a folder "
        "and name that with --data-dir or $D2L_AUTOREC_DATA"
    )


class _LimitExceeded(requests.exceptions.RequestException):
    """A download is larger, or takes longer, than it may."""


class _Progress(tqdm):
    """A bar that ends a download which goes on beyond its limit."""

    limit = _MAX_BYTES

    def __bool__(self) -> bool:
        """Be there, even where the server does not say how much there is."""
        return True

    def update(self, n: float | None = 1) -> bool | None:
        if self.n > self.limit:
            raise _LimitExceeded(f"more than {self.limit:,} bytes")
        return super().update(n)


def _fetch(url: str, file: str, _: Any, verify: bool) -> None:
    """Download to a file, within limits; a server may send a byte now and then."""
    bar = _Progress(unit="B", unit_scale=True, ncols=79, delay=0.5)
    download = pooch.HTTPDownloader(progressbar=bar, verify=verify, timeout=30)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            download(url, file, None)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with bar:
        thread.join(_MAX_SECONDS)
        if thread.is_alive():
            bar.limit = -1  # with the next bytes it ends
            raise _LimitExceeded(f"not done after {_MAX_SECONDS:,} s")
    if failures:
        raise failures.pop()


def _reason(error: requests.exceptions.RequestException) -> str:
    if isinstance(error, _LimitExceeded):
        return str(error)
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if fault := _certificate_fault(error):
        return f"certificate not valid: {fault}"
    return type(error).__name__


def _certificate_fault(error: requests.exceptions.RequestException) -> str:
    """Find what OpenSSL says against a certificate; '' if it is not that."""
    # It checks who the certificate is of, and from whom, before how old it is.
    found = re.search(r"certificate verify failed: (.+?)\.? \(_ssl", str(error))
    return found[1] if found else ""
