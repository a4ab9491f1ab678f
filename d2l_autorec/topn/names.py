"""The models of lists by name; a class is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    from .model import TopN

MODELS = {
    "popularity": "Popularity",
    "ease": "EASE",
    "user-ease": "UserEASE",
    "cdae": "CDAE",
    "mult-dae": "MultDAE",
    "mult-vae": "MultVAE",
    "cvae": "CVAE",
    "best": "Mixture",
}


def make(name: str, settings: Mapping[str, Any]) -> TopN:
    """Make a model of `MODELS` by its name and settings; an unknown one: DataError."""
    from .. import topn

    if name not in MODELS:
        raise DataError(f"{name!r} is not one of {', '.join(MODELS)}")
    values = dict(settings)
    if name == "best":
        members = [dict(member) for member in values.get("members", [])]
        values["members"] = [make(one.pop("model"), one) for one in members]
    try:
        model: TopN = getattr(topn, MODELS[name])(**values)
    except TypeError as error:
        raise DataError(f"{name}: {str(error).split(') ', 1)[-1]}") from None
    return model
