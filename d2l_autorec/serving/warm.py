"""A training that begins with the weights of an older model of the same data."""

import numpy as np

from ..errors import ModelError
from ..training import Blend, Training
from .checkpoint import Checkpoint


def warm_start(training: Training, old: Checkpoint) -> str:
    """Take over the weights of the best epoch of an older model.

    Parameters
    ----------
    training : Training
        Of one network, not begun.
    old : Checkpoint
        Of a network with the same layers; users and items have the same ids.

    Returns
    -------
    str
        What was taken over, in words.

    Raises
    ------
    ModelError
        If the networks have other layers, or they are several.

    Notes
    -----
    The inputs and outputs of an item-based network are users, those of a user-based one
    items. Each of them that the older model has keeps its weights; a new one gets, in
    addition to what was drawn, the mean weights of the others.
    """
    recipe, before = training.run.recipe, old.run.recipe
    if isinstance(recipe, Blend) or isinstance(before, Blend):
        raise ModelError(f"{old.directory}: a warm start is for one network, no blend")
    for name in ("kind", "num_hidden"):
        if (ours := getattr(recipe, name)) != (theirs := getattr(before, name)):
            raise ModelError(f"{old.directory}: its {name} is {theirs}, not {ours}")
    noun = "item" if recipe.kind == "user" else "user"
    ids, old_ids = (
        getattr(parts, f"{noun}_ids").tolist()
        for parts in (training.run.parts, old.run.parts)
    )
    places = {raw_id: place for place, raw_id in enumerate(old_ids)}
    place = np.array([places.get(raw_id, -1) for raw_id in ids])
    known = place >= 0
    parameters = training.parameters()
    for name, array in old.parameters().items():
        axis = {"encoder.weight": 1, "decoder.weight": 0, "decoder.bias": 0}.get(name)
        if axis is None:
            parameters[name] = np.array(array)
            continue
        ours, theirs = (np.moveaxis(one, axis, 0) for one in (parameters[name], array))
        ours[known] = theirs[place[known]]
        ours[~known] += theirs.mean(axis=0)
    training.load(parameters)
    return (
        f"warm start from {old.directory}: {known.sum():,} of {len(known):,} {noun}s "
        f"have their weights from there, {(~known).sum():,} are new"
    )
