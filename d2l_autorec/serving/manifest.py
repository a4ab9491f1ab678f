"""``model.json``: what a model folder holds, and checksums of its other files."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from .._mxnet import mx
from ..curve import Epoch
from ..errors import ModelError
from ..training import Blend, Recipe, Run, Setting
from .reading import LARGEST_MANIFEST, blaming, read_file

FORMAT = 1
MANIFEST = "model.json"
# What goes into which file; the last and the best epoch may share one.
KINDS = {
    "ids": "ids-{}.json",
    "ratings": "ratings-{}.npz",
    "optimizer": "optimizer-{}.npz",
    "last": "parameters-{}.params",
    "best": "parameters-{}.params",
}
# `Parts` and `Run` check these; without the other fields, too, it is no manifest.
OF_PARTS = ("name", "rating_offset", "split")
OF_A_RUN = ("recipe", "seed", "patience")
_FIELDS = {"format", "versions", *OF_PARTS, *OF_A_RUN, "history", "files"}
_COUNT = Setting(int, lambda n: 0 <= n < 2**63, "a whole number from 0")
_MEASURE = Setting(float, lambda n: 0 <= n < math.inf, "a number from 0")
_EPOCH = {
    "epoch": _COUNT,
    "train_loss": _MEASURE,
    "test_rmse": _MEASURE,
    "valid_rmse": _MEASURE,
    "seconds": Setting(float, lambda n: 0 < n < math.inf, "a number above 0"),
    "examples": _COUNT,
}


@functools.cache
def versions() -> Mapping[str, str]:
    """List the versions of Python, of this package and of what it computes with."""
    return {
        "d2l_autorec": __version__,
        "python": platform.python_version(),
        "mxnet": mx.__version__,
        **{name: version(name) for name in ("numpy", "scipy", "pandas", "numba")},
    }


def manifest_text(
    run: Run, history: Sequence[Epoch], digests: Mapping[str, str]
) -> str:
    """Write a manifest.

    Parameters
    ----------
    run : Run
        What was trained.
    history : sequence of Epoch
        So far.
    digests : mapping
        The SHA-256 of the file of each of `KINDS`.

    Returns
    -------
    str

    Raises
    ------
    ModelError
        If it is too long to be read again.
    """
    text = signed(
        {
            "format": FORMAT,
            "versions": versions(),
            "name": run.parts.name,
            "rating_offset": run.parts.rating_offset,
            "split": dict(run.parts.split),
            "seed": run.seed,
            "patience": run.patience,
            "recipe": asdict(run.recipe),
            "history": [epoch._asdict() for epoch in history],
            "files": dict(digests),
        }
    )
    if len(text) > LARGEST_MANIFEST:
        raise ModelError(f"{len(history):,} epochs are too many for {MANIFEST}")
    return text


def signed(manifest: Mapping[str, Any]) -> str:
    """Write a manifest with its own checksum, always in the same way."""
    text = json.dumps(manifest)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=1) + "\n"


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read a model folder's manifest.

    Parameters
    ----------
    directory : pathlib.Path
        The folder.

    Returns
    -------
    dict
        As it was written, but for `history`, a list of Epoch, and `recipe`, a Recipe.
        Checked are these, `files`, and that no field is missing or unknown; the rest
        is for `Run` to check.

    Raises
    ------
    ModelError
        If there is none, or it is not one, with the field that is not right.
    """
    file = directory / MANIFEST
    text, manifest = _parse(directory)
    version, writer = manifest["format"], manifest["versions"]["d2l_autorec"]
    if version != FORMAT:
        raise ModelError(
            f"{directory}: is in format {reprlib.repr(version)}, written by "
            f"d2l_autorec {writer}; d2l_autorec {__version__} reads format {FORMAT}: "
            "use that version, or train again"
        )
    # Writing it again has to give the very same bytes.
    unsigned = {key: value for key, value in manifest.items() if key != "sha256"}
    if text != signed(unsigned):
        raise ModelError(f"{file}: is damaged: its checksum is not right")
    with blaming(file):
        if different := unsigned.keys() ^ _FIELDS:
            raise ValueError(f"{min(different)!r} is missing, or unknown")
        files = unsigned["files"]
        if not isinstance(files, dict) or files.keys() != KINDS.keys():
            raise ValueError("files: are not those of a model")
        for kind, digest in files.items():
            if not re.fullmatch("[0-9a-f]{64}", str(digest)):
                raise ValueError(f"files: {kind} has no SHA-256")
        unsigned["recipe"] = _recipe(unsigned["recipe"])
        unsigned["history"] = _history(unsigned["history"])
        if len(unsigned["history"]) > unsigned["recipe"].num_epochs:
            raise ValueError("history: has more epochs than the recipe")
    return unsigned


def check_ours(directory: Path) -> None:
    """Check that a manifest is one, be it of another format.

    Raises
    ------
    ModelError
        If it is another program's, or too damaged to tell.
    """
    try:
        _parse(directory)
    except ModelError:
        raise ModelError(
            f"{directory}: holds a {MANIFEST} that is no model's description; move it "
            "away, or name another folder"
        ) from None


def _parse(directory: Path) -> tuple[str, dict[str, Any]]:
    file = directory / MANIFEST
    try:
        text = read_file(file, LARGEST_MANIFEST).decode("ascii")
        manifest = json.loads(text)
        writer = manifest["versions"]["d2l_autorec"]
        if not re.fullmatch(r"[\w.+]{1,40}", writer) or "format" not in manifest:
            raise ValueError("no format")
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(
            f"{directory}: holds no model (train with --save {directory})"
        ) from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{file}: is damaged: not a model's description") from None
    return text, manifest


def _recipe(settings: Any) -> Recipe | Blend:
    if isinstance(settings, dict) and "recipes" in settings:
        recipes, weights = settings["recipes"], settings.get("weights")
        # One that is trained is a blend with its weights, of few recipes.
        if not isinstance(recipes, list) or not isinstance(weights, list):
            raise ValueError("recipe: is no list of recipes, with a list of weights")
        return Blend(tuple(map(_single, recipes)), tuple(weights))
    return _single(settings)


def _single(settings: Any) -> Recipe:
    """Make a recipe; a setting that is newer than the model has its default."""
    if not isinstance(settings, dict):
        raise ValueError("recipe: is no list of settings")
    layers = settings.get("num_hidden")
    if isinstance(layers, list):  # JSON has lists for tuples
        settings = {**settings, "num_hidden": tuple(layers)}
    return Recipe(**settings)


def _history(epochs: Any) -> list[Epoch]:
    if not isinstance(epochs, list) or not epochs:
        raise ValueError("history: is no list of epochs")
    for number, epoch in enumerate(epochs, 1):
        if not isinstance(epoch, dict) or epoch.keys() != _EPOCH.keys():
            raise ValueError(f"history: epoch {number} has other fields")
        for name, numbers in _EPOCH.items():
            value = epoch[name]
            absent = value is None and name.endswith("_rmse")
            if not absent and not numbers.allow(value):
                raise ValueError(
                    f"history: epoch {number}: {name}={reprlib.repr(value)} is not "
                    f"{numbers.wanted}"
                )
        if epoch["epoch"] != number:
            raise ValueError(f"history: epoch {number} is called {epoch['epoch']}")
    return [Epoch(**epoch) for epoch in epochs]
