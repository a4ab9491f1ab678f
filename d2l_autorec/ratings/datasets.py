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

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from ..errors import DataError, DatasetUnavailable
from .columns import clipped
from .netflix import NETFLIX, load_netflix
from .reading import read_ratings, read_table
from .synthetic import SYNTHETIC, synthetic_ratings
from .table import Ratings
from .titles import read_titles

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
    titles_encoding: str


ARCHIVES = {
    "ml-100k": Archive(
        (943, 1682, 100_000),
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        *("ml-100k", "u.data", "u.item", "latin-1"),
    ),
    "ml-1m": Archive(
        (6040, 3706, 1_000_209),
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        *("ml-1m", "ratings.dat", "movies.dat", "latin-1"),
    ),
    "ml-10m": Archive(
        (69_878, 10_677, 10_000_054),
        "813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
        *("ml-10M100K", "ratings.dat", "movies.dat", "utf-8"),
    ),
    "ml-latest-small": Archive(
        (610, 9724, 100_836),
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        *("ml-latest-small", "ratings.csv", "movies.csv", "utf-8"),
    ),
}
NAMES = (*ARCHIVES, NETFLIX, SYNTHETIC)
FOLDS = range(1, 6)  # of MovieLens 100K


def load_dataset(
    name: str, data_dir: str | Path | None = None, words: bool = False
) -> Ratings:
    """Read a data set by name, downloading it first where it is not on this machine.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    data_dir : path, optional
        Folder that holds data sets as GroupLens unzips them, or their zips; by default
        ``$D2L_AUTOREC_DATA``.
    words : bool
        Whether to read words of the films' titles and genres, too, as their features.

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
        titles, features, file = {}, {}, folder / archive.titles
        if file.exists():  # else films go by their ids
            item_ids, encoding = ratings.item_ids.tolist(), archive.titles_encoding
            titles = read_titles(file, item_ids, encoding, ["1", "2"])
            features = _features(file, encoding) if words else {}
    return replace(ratings, name=name, titles=titles, features=features)


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


def _features(file: Path, encoding: str) -> dict[int, str]:
    """Read the words of all films' titles and genres."""
    names, columns = ("item_id", "title", "words"), ("1", "2", "3")
    if file.name != "u.item":
        films = read_table(file, names, columns, encoding)
        genres = films["words"].tolist()
    else:  # a flag for each genre, after dates and an address
        films = read_table(file, names[:2], columns[:2], encoding)
        lines = filter(str.strip, file.read_text(encoding).splitlines())
        flags = (np.array(line.split("|")[5:]) for line in lines)
        places = (np.flatnonzero(genre == "1") for genre in flags)
        genres = [" ".join(map("genre{}".format, numbers)) for numbers in places]
    words = (f"{title} {genre}" for title, genre in zip(films["title"], genres))
    return dict(zip(films["item_id"].tolist(), words))


def _download(name: str) -> Path:
    """Bring the archive into the cache; return its path, its SHA-256 checked."""
    cache = pooch.os_cache("d2l_autorec")
    pooch.get_logger().setLevel("WARNING")
    fetch = pooch.HTTPDownloader(progressbar=True, timeout=30)
    known_hash = f"sha256:{ARCHIVES[name].sha256}"
    failures = []
    for server in SERVERS:
        url = f"{server}/{name}.zip"
        if not (cache / f"{name}.zip").exists():
            _log.info("downloading %s; the SHA-256 will be checked", url)
        try:
            found = pooch.retrieve(
                url, known_hash, f"{name}.zip", cache, downloader=fetch
            )
            return Path(found)
        except (OSError, ValueError) as error:  # of the network, the disk, the bytes
            failures.append(clipped(f"{url}: {' '.join(str(error).split())}", 300))
    raise DatasetUnavailable(
        f"{name} is not on this machine and could not be downloaded to {cache} "
        f"({'; '.join(failures)}). Put {name}.zip, or the folder in it, into a folder "
        "and name that with --data-dir or $D2L_AUTOREC_DATA"
    )
