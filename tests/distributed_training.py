"""What a process of the tests' trainings runs, whatever its role."""

import json
import sys

from d2l_autorec import seed_everything  # where a scheduler or server stays
from d2l_autorec.cluster import join
from d2l_autorec.training import Blend, Parts, Recipe, make_training, pretraining

import mxnet as mx  # isort: skip
import numpy as onp
import scipy.sparse as sp


def train(settings, team=None):
    """Train on 23 rows in batches of 5, some of which have no rating.

    Return the history, and with a team for the first worker alone the parameters.
    """
    rng = onp.random.default_rng(0)
    dense = rng.integers(1, 6, (23, 17)).astype(onp.float32)
    part = rng.choice(3, dense.shape, p=[0.6, 0.3, 0.1])
    part[[3, 8, 9]] = 2
    seed_everything(0)
    recipe = _recipe(settings)
    parts = Parts(*(sp.csr_matrix(dense * (part == number)) for number in (1, 2)))
    training = make_training(recipe, parts, [mx.cpu()], 0, 0, team)
    history = [(epoch.train_loss, epoch.test_rmse) for epoch in training.epochs()]
    whole, weights = training.gathered(), []
    if whole:
        nets = [one.net for one in getattr(whole, "members", [whole])]
        parameters = [p for net in nets for p in net.collect_params().values()]
        weights = [p.data().asnumpy().ravel().tolist() for p in parameters]
    return {"history": history, "weights": sum(weights, [])}


def _recipe(settings):
    if isinstance(settings, list):
        return Blend(tuple(map(_recipe, settings)))
    if isinstance(layers := settings.get("num_hidden"), list):  # JSON has no tuples
        settings = {**settings, "num_hidden": tuple(layers)}
    return Recipe(
        **{"num_hidden": 8, "lr": 0.01, "batch_size": 5, "num_epochs": 3, **settings}
    )


if __name__ == "__main__":
    team = join("dist_sync")
    pretraining.NUM_EPOCHS = 10  # how good they are does not matter
    print(json.dumps([train(settings, team) for settings in json.loads(sys.argv[1])]))
