"""Loading a trained model, whatever its task."""

from pathlib import Path

from ..loop import try_all_gpus
from .checkpoint import Checkpoint
from .folder import ListsModel, read_model
from .listing import ListPredictor, ListRun
from .predictor import Predictor


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
        If there is no model, or its file is damaged or has another version's format.
    """
    model, parts, arrays = read_model(Path(directory))
    if isinstance(model, ListsModel):
        return ListPredictor(ListRun.of(directory, model, parts, arrays))
    checkpoint = Checkpoint.of(directory, model, parts, arrays)
    return Predictor(checkpoint.network(try_all_gpus()[:1]), checkpoint.run)
