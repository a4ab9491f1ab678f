"""Several networks trained side by side, and the mixture of what they predict."""

from dataclasses import replace

import numpy as np
import pytest
from test_training import BEST, CPU, SMALL, all_cells, fit, make_parts

from d2l_autorec import Recipe
from d2l_autorec.training import Biases, Blend, Mixture, Run, Training

FREE = replace(BEST, weights=None)  # for a validation part to choose


def test_a_mixture_adds_what_networks_differ_by_from_the_biases():
    recipe = Blend((Recipe(), Recipe(kind="user")), (0.5, 0.25))
    mixture = Mixture(recipe, make_parts().train_mat)
    levels, found = np.array([3.0, 2.0]), np.array([[4.0, 2.0], [1.0, 3.0]])
    assert mixture.mixed(levels, found).tolist() == [3.0, 2.25]


def test_weights_are_those_of_least_squares_and_not_below_zero():
    mixture = Mixture(FREE, make_parts().train_mat)
    rng = np.random.default_rng(0)
    levels, found = rng.random(50), rng.random((5, 50))
    wanted = np.array([0.7, 0.0, 0.4, 0.0, 0.0])
    against = found[1] - levels  # a network that is wrong
    rating = levels + wanted @ (found - levels) - 0.1 * against
    mixture.choose(levels, found, rating)
    assert mixture.weights[1] == 0
    assert mixture.weights.min() >= 0
    residual = rating - mixture.mixed(levels, found, clip=False)
    # No step that is allowed makes the error smaller.
    slope = (found - levels) @ residual
    assert (slope[mixture.weights > 0] == pytest.approx(0, abs=1e-9)) and slope[1] <= 0


def test_a_network_that_is_all_but_biases_gets_a_weight_with_a_limit():
    mixture = Mixture(FREE, make_parts().train_mat)
    levels, rating = np.array([3.0, 2.0]), np.array([4.0, 1.0])
    mixture.choose(levels, (levels + 1e-6 * (rating - levels))[None], rating)
    assert mixture.weights.tolist() == [100]


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"loss": "paper", "wd": 5.0, "schedule": "cosine"},
        {"kind": "user", "input_dropout": 0.3},
    ],
)
def test_an_average_is_the_mean_of_members_that_learn_as_each_does_alone(settings):
    recipe = Recipe(**SMALL, **settings)
    together = Training(Run(make_parts(), recipe.averaged(3), 0), CPU)
    starts, predictions, losses = together.parameters(), [], []
    history = list(together.epochs())
    after = together.parameters()
    assert {name.partition(".")[0] for name in after} == {"0", "1", "2"}
    for number, member in enumerate(together.members):
        alone = Training(Run(make_parts(), recipe, 0), CPU)
        alone.members[0].batches.seed = list(member.seed)
        names = [*alone.parameters()]
        alone.load({name: starts[f"{number}.{name}"] for name in names})
        losses.append([epoch.train_loss for epoch in alone.epochs()])
        predictions.append(all_cells(alone))
        for name, array in alone.parameters().items():
            found = after[f"{number}.{name}"]
            np.testing.assert_allclose(array, found, atol=1e-6)
            if name.endswith("weight"):
                assert (found != after[f"{(number + 1) % 3}.{name}"]).any()
    mean = np.mean(losses, axis=0)
    assert [epoch.train_loss for epoch in history] == pytest.approx(mean)
    mean = np.mean(predictions, axis=0)
    np.testing.assert_allclose(all_cells(together), mean, rtol=1e-6)


def test_an_epoch_of_a_blend_is_one_of_each_recipe():
    training, history = fit(BEST)
    test_mat = training.run.parts.test_mat
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert [one.recipe for one in training.members] == [*BEST.recipes]
    rmse = np.sqrt(np.mean((training.predict(test_mat) - test_mat.data) ** 2))
    assert history[-1].test_rmse == pytest.approx(rmse)
    users, items = np.meshgrid(np.arange(17), np.arange(24))
    biases = Biases(training.run.parts.train_mat).at(users, items)
    assert (training.mixture.biases.at(users, items) == biases).all()
    cold = (users == 2) | (items == 3)  # of which no network knows anything
    assert all_cells(training)[cold] == pytest.approx(biases[cold])


def test_a_validation_part_chooses_weights_for_the_last_epoch():
    training, history = fit(FREE, make_parts(valid=True))
    last, run = training.choose()
    chosen = run.recipe
    assert last is history[-1]
    assert chosen.num_epochs == last.epoch
    assert len(chosen.weights) == len(chosen.recipes) <= 5
    assert min(chosen.weights) > 0
    assert chosen.weights == tuple(w for w in training.mixture.weights if w)


def test_where_no_network_helps_biases_are_left(monkeypatch):
    nothing = lambda self, *args: setattr(self, "weights", np.zeros(5))  # noqa: E731
    monkeypatch.setattr(Mixture, "choose", nothing)
    training, _ = fit(FREE, make_parts(valid=True))
    chosen = training.choose()[1].recipe
    assert (len(chosen.recipes), chosen.weights) == (1, (0.0,))
    training, _ = fit(chosen)
    at = training.run.parts.test_mat.tocoo()
    biases = Biases(training.run.parts.train_mat).at(at.col, at.row)
    assert training.predict(training.run.parts.test_mat) == pytest.approx(biases)
