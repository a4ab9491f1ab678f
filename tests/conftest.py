"""Data that the tests make, and the real data where it is."""

import os
from pathlib import Path

import numpy as np
import pytest

import d2l_autorec  # noqa: F401  before any test imports MXNet


def write_u_data(folder: Path, num_users=30, num_items=40, seed=0) -> Path:
    """Write an ml-100k/u.data in which every user and item occurs and times tie."""
    rng = np.random.default_rng(seed)
    cells = rng.random((num_users, num_items)) < 0.3
    cells[np.arange(num_users), np.arange(num_users) % num_items] = True
    cells[np.arange(num_items) % num_users, np.arange(num_items)] = True
    rows = [
        (user + 1, item + 1, rng.integers(1, 6), rng.integers(880_000_000, 880_000_009))
        for user, item in rng.permutation(np.argwhere(cells))
    ]
    (folder / "ml-100k").mkdir(parents=True)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (folder / "ml-100k" / "u.data").write_text(text)
    return folder


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """A data folder with a small ml-100k, which the package's lookup finds."""
    folder = write_u_data(tmp_path / "data")
    monkeypatch.setenv("D2L_AUTOREC_DATA", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No data anywhere, and servers that refuse."""
    monkeypatch.delenv("D2L_AUTOREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("d2l_autorec.ratings.datasets.SERVERS", ("http://localhost:9",))


def real(name: str) -> Path:
    """Return the folder of a real data set, or skip the test."""
    root = os.environ.get("D2L_AUTOREC_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"needs the real {name} in $D2L_AUTOREC_DATA")
    return Path(root) / name


@pytest.fixture
def real_ml_100k():
    return real("ml-100k")
