"""Loading a trained model, whatever its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..loop import try_all_gpus
from .checkpoint import Checkpoint, RatingsManifest
from .folder import Folder, saved_files
from .listing import ListFolder, ListPredictor, ListsManifest
from .predictor import Predictor

# Of a training with short epochs, files may be replaced while they are read.
_ATTEMPTS = 20


def load_model(directory: str | Path) -> Predictor:
    """Load a trained model.

    Parameters
    ----------
    directory : path
        That a training saved to, or is saving to.

    Returns
    -------
    Predictor
        Of lists a `ListPredictor`. With the parameters of the best epoch on the
        validation part, or of the last one where there is no such part.

    Raises
    ------
    ModelError
        If there is no model, a file of it is damaged or missing, or it has another
        version's format.
    """
    directory = Path(directory)
    for _ in range(_ATTEMPTS):
        files = saved_files(directory)
        try:
            return _open(directory)
        except ModelError as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            if not missing or saved_files(directory) == files:
                raise
    raise ModelError(f"{directory}: is replaced all the time")


def holds_lists(directory: str | Path) -> bool:
    """Tell whether a folder's model is one of lists."""
    kinds: Any = RatingsManifest | ListsManifest
    return isinstance(Folder(directory).read_manifest(kinds), ListsManifest)


def _open(directory: Path) -> Predictor:
    if holds_lists(directory):
        return ListPredictor(ListFolder(directory).open())
    checkpoint = Checkpoint.open(directory)
    return Predictor(checkpoint.network(try_all_gpus()[:1]), checkpoint.run)
