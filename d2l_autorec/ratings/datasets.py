"""Where the data sets of MovieLens come from: found on this machine, or downloaded.

A MovieLens data set is looked for in the data folder, then in the cache, then fetched.
What is kept in the cache is the archive as GroupLens publishes it; it is checked
against its SHA-256 whenever it is used, and unpacked to a temporary folder.

References
----------
F. M. Harper, J. A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5(4), 2015.
"""

from __future__ import annotations

import csv
import logging
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
FOLDS = range(1, 6)  # of MovieLens 100K


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
    with dataset_folder(name, data_dir) as folder:
        ratings = read_ratings(folder / archive.ratings)
        titles = _titles(folder / archive.titles, archive)
    return replace(ratings, name=name, titles=titles)


def label(name: str, size: tuple[int, int, int]) -> str:
    """Name a data set in a report, and say if its size is not the published one."""
    if name in ARCHIVES and size != ARCHIVES[name].size:
        return f"{name}, not as published"
    return name


def load_folds_ml100k(
    data_dir: str | Path | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the five folds of MovieLens 100K: rows to train on and to test on."""

    def pairs(ratings: Ratings) -> zip[tuple[Any, Any]]:
        users = ratings.user_ids[ratings.user_index].tolist()
        return zip(users, ratings.item_ids[ratings.item_index].tolist())

    def rows(file: Path) -> np.ndarray:
        try:
            found = [row_of[pair] for pair in pairs(read_ratings(file))]
        except KeyError as error:
            user_id, item_id = error.args[0]
            raise DataError(
                f"{file}: user {user_id} does not rate item {item_id} in u.data"
            ) from None
        return np.array(found, np.int64)

    with dataset_folder("ml-100k", data_dir) as folder:
        everything = pairs(read_ratings(folder / "u.data"))
        row_of = {pair: row for row, pair in enumerate(everything)}
        parts = [[folder / f"u{k}.{kind}" for kind in ("base", "test")] for k in FOLDS]
        return [(rows(base), rows(test)) for base, test in parts]


@contextmanager
def dataset_folder(name: str, data_dir: str | Path | None = None) -> Iterator[Path]:
    """Give the folder of a data set of GroupLens; a zip is unpacked for the block."""
    archive, root = ARCHIVES[name], _data_folder(data_dir)
    if root and (root / archive.folder / archive.ratings).exists():
        yield root / archive.folder
        return
    zipped = root / f"{name}.zip" if root else None
    if zipped is None or not zipped.exists():
        zipped = _download(name)
    elif pooch.file_hash(str(zipped)) != archive.sha256:
        raise DataError(
            f"{zipped}: is not the file that GroupLens publishes (its SHA-256 "
            "differs); remove it to have it downloaded"
        )
    with tempfile.TemporaryDirectory(prefix="d2l_autorec-") as folder:
        with zipfile.ZipFile(zipped) as opened:
            opened.extractall(folder)
        yield Path(folder) / archive.folder


def _data_folder(data_dir: str | Path | None) -> Path | None:
    """Return the folder that holds data sets, if there is one."""
    named = data_dir or os.environ.get("D2L_AUTOREC_DATA")
    if named and not Path(named).is_dir():
        raise DataError(f"{named}: no such folder (--data-dir, $D2L_AUTOREC_DATA)")
    return Path(named) if named else None


def _titles(file: Path, archive: Archive) -> dict[int, str]:
    """Read item titles; films without a file of titles go by their ids."""
    titles: dict[int, str] = {}
    if not file.exists():
        return titles
    mark = archive.titles_separator
    try:
        with find_files(file)[0].open(encoding=archive.titles_encoding) as text:
            if mark == ",":
                next(text, None)  # the header
                rows: Any = filter(None, csv.reader(text, strict=True))
            else:
                rows = (line.rstrip("\n").split(mark) for line in text if line.strip())
            for fields in rows:
                titles[int(fields[0])] = fields[1]
    except (ValueError, LookupError, csv.Error):
        raise DataError(f"{file}: is damaged after {len(titles):,} titles") from None
    return titles


def _download(name: str) -> Path:
    """Bring the archive into the cache; return its path, its SHA-256 checked."""
    cache = pooch.os_cache("d2l_autorec")
    pooch.get_logger().setLevel("WARNING")
    # A server whose certificate has lapsed is asked once more at the end, unverified:
    # the SHA-256, which is part of this file, vouches for the bytes.
    attempts = [(f"{server}/{name}.zip", True) for server in SERVERS]
    failures = []
    for url, verify in attempts:
        if not (cache / f"{name}.zip").exists():
            how = "" if verify else " without verifying its lapsed certificate"
            level = logging.INFO if verify else logging.WARNING
            _log.log(level, "downloading %s%s; the SHA-256 will be checked", url, how)
        try:
            return _retrieve(name, url, cache, verify)
        except requests.exceptions.RequestException as error:
            fault = _certificate_fault(error)
            if verify and fault == "certificate has expired":
                attempts.append((url, False))
            said = f"certificate not valid: {fault}" if fault else _reason(error)
            failures.append(f"{url}: {said}")
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


def _retrieve(name: str, url: str, cache: Path, verify: bool) -> Path:
    with _Progress(unit="B", unit_scale=True, ncols=79, delay=0.5) as bar:
        fetch = pooch.HTTPDownloader(progressbar=bar, verify=verify, timeout=30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            known_hash = f"sha256:{ARCHIVES[name].sha256}"
            return Path(
                pooch.retrieve(url, known_hash, f"{name}.zip", cache, downloader=fetch)
            )


class _LimitExceeded(requests.exceptions.RequestException):
    """A download is larger, or takes longer, than it may."""


class _Progress(tqdm):
    """A bar that ends a download which goes on beyond its limits."""

    max_bytes, max_seconds = 100_000_000, 1800  # the largest archive has 66 MB

    def __bool__(self) -> bool:
        """Be there, even where the server does not say how much there is."""
        return True

    def update(self, n: float | None = 1) -> bool | None:
        if self.n > self.max_bytes:
            raise _LimitExceeded(f"more than {self.max_bytes:,} bytes")
        if self.format_dict["elapsed"] > self.max_seconds:
            raise _LimitExceeded(f"not done after {self.max_seconds:,} s")
        return super().update(n)


def _reason(error: requests.exceptions.RequestException) -> str:
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return str(error) if isinstance(error, _LimitExceeded) else type(error).__name__


def _certificate_fault(error: Exception) -> str:
    """Find what OpenSSL says against a certificate; '' if it is not that."""
    # It checks who the certificate is of, and from whom, before how old it is.
    found = re.search(r"certificate verify failed: (.+?)\.? \(_ssl", str(error))
    return found[1] if found else ""
