"""The models of a comparison by name, with their settings.

The notation: ``book`` is a model as it is, ``book:num_hidden=200:wd=1e-5`` one with
settings of its own, ``num_hidden=500x500`` has two layers. Of ``wd=1e-5/1e-4``, and of
its combinations with other settings of that kind, a validation part chooses
(`GridSearch`). ``package.module:Class`` is an `Estimator` of your own, with settings in
the same way.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from ..training import POSITIVE_INT, PRESETS, SETTINGS, Setting

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..ratings import Ratings
    from .estimators import Estimator

# By name, the classes in `study`; a preset is a `BookAutoRec` with that recipe.
MODELS = {
    "mean": "GlobalMean",
    "biases": "Biases",
    "mf": "BookMF",
    "biased-mf": "BiasedMF",
    "llorma": "LLORMA",
    "rbm": "RBM",
    **dict.fromkeys(PRESETS, "BookAutoRec"),
    "best": "BlendAutoRec",
    "autorec-early": "EarlyStoppedAutoRec",
}
# Other names for some of them.
ALIASES = {"autorec": "book", "autorec-best": "best"}
# Settings that are chosen on a validation part unless they are given.
TUNED = {"biased-mf": {"num_factors": "20/100", "wd": "0.7/1/1.5"}}

_MEMBERS = POSITIVE_INT  # networks of each kind, to be averaged


class Contender(NamedTuple):
    """A model with its settings; `parse` reads it.

    Each candidate has its settings, in words, and a function that makes an estimator of
    ratings and devices.
    """

    name: str  # in this module's notation; an alias has the name of its model
    given: str  # the settings that were given, in words
    candidates: Mapping[str, Callable[[Ratings, list[mx.Context]], Estimator]]

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read a model; one that there is not, or a setting, is a ValueError."""
        name, *parts = text.split(":")
        name = ALIASES.get(name, name)
        if name not in MODELS and parts and "=" not in parts[0]:
            name = f"{name}:{parts.pop(0)}"
        model = _find(name)
        given = dict(part.partition("=")[::2] for part in parts)
        grid = {**TUNED.get(name, {}), **given}
        candidates = {}
        for values in product(*(value.split("/") for value in grid.values())):
            settings = dict(zip(grid, values))
            candidates[in_words(settings)] = _maker(name, model, settings)
        named = ":".join([name, *(f"{key}={value}" for key, value in given.items())])
        return cls(named, in_words(given), candidates)

    def make(self, ratings: Ratings, devices: list[mx.Context]) -> Estimator:
        """Make the estimator, of several candidates a `GridSearch`."""
        from .search import GridSearch

        made = {n: make(ratings, devices) for n, make in self.candidates.items()}
        if len(made) == 1:
            return next(iter(made.values()))
        return GridSearch(ratings, devices, made)


def in_words(settings: Mapping[str, str]) -> str:
    """Write settings as a list."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _find(name: str) -> Any:
    """Find the class of a model."""
    from .. import study

    if name in MODELS:
        return getattr(study, MODELS[name])
    module, _, attribute = name.partition(":")
    if not attribute:
        known = ", ".join([*MODELS, *ALIASES])
        raise ValueError(f"{name!r} is not one of {known}, nor package.module:Class")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, study.Estimator)):
        raise ValueError(f"{name} is not a d2l_autorec.study.Estimator")
    return found


def _maker(name: str, model: Any, settings: Mapping[str, str]) -> Callable[..., Any]:
    """Bind a class to settings, which may not fit it."""
    # The first two fields are ratings and devices.
    defaults = {field.name: field.default for field in fields(model)[2:]}
    if "recipe" not in defaults:
        accepted = {n: _setting(n, default) for n, default in defaults.items()}
        return partial(model, **read_settings(name, settings, accepted))
    recipe: Any = PRESETS.get(name, defaults["recipe"])
    given = read_settings(name, settings, {**SETTINGS, "members": _MEMBERS})
    members = given.pop("members", 1)
    recipe = recipe.changed(**given).averaged(members)
    return partial(model, recipe=recipe, name=name)


def _setting(name: str, default: Any) -> Setting:
    """Describe a class's setting: one value of the kind of its default."""
    usual = POSITIVE_INT if isinstance(default, int) else SETTINGS["lr"]
    like = SETTINGS.get(name, usual)
    words = like.words if isinstance(default, str) else {}
    return replace(like, words=words, several=False)


def read_settings(
    model: str, settings: Mapping[str, str], accepted: Mapping[str, Setting]
) -> dict[str, Any]:
    """Read settings, each as its description says."""
    found = {}
    for name, text in settings.items():
        if name not in accepted:
            known = f"; it has {', '.join(accepted)}" if accepted else ""
            raise ValueError(f"{model} has no setting {name!r}{known}")
        try:
            found[name] = accepted[name].parse(text)
        except ValueError as error:
            raise ValueError(f"{model}:{name}={error}") from None
    return found
