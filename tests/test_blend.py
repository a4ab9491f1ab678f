"""Different networks trained side by side, and the mixture of what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import test_residual

from d2l_autorec._mxnet import mx
from d2l_autorec.errors import ModelError
from d2l_autorec.loop import seed_everything
from d2l_autorec.serving import Checkpoint, Predictor, manifest, recommend_all
from d2l_autorec.training import (
    PRESETS,
    Biases,
    Blend,
    BlendTraining,
    Mixture,
    Parts,
    Recipe,
)

CPU = [mx.cpu()]
SMALL = {"num_hidden": 4, "batch_size": 4, "num_epochs": 3, "lr": 0.03}
BLEND = PRESETS["best"].changed(**SMALL)
WEIGHTED = replace(BLEND, weights=tuple(0.2 + 0.1 * n for n in range(5)))


def make_run(factor=1, shift=0, recipe=WEIGHTED):
    """12 users and 9 items; only the test part knows user 11 and item 8."""
    return replace(test_residual.make_run(factor, shift), recipe=recipe)


def fitted(run):
    seed_everything(run.seed)
    training = run.train(CPU)
    return training, list(training.epochs())


def everything(run):
    """What is predicted and recommended, in the unit of the ratings."""
    training, history = fitted(run)
    model = Predictor(training.net, run)
    given = dict(zip([0, 2, 5], run.train_mat.data[:3].tolist()))
    lists = [model.recommend(user, 99) for user in range(11)]
    lists.append(model.recommend_new(given, 99, include_rated=True))
    return (
        [[one.item_id for one in items] for items in lists],
        np.array([one.rating for items in lists for one in items]),
        training.predict(run.test_mat)[0],
        history[-1].test_rmse,
    )


def test_predictions_follow_the_scale_of_the_ratings():
    lists, ratings, cells, rmse = everything(make_run())
    moved = everything(make_run(20, 7))
    assert moved[0] == lists
    assert moved[1] == pytest.approx(20 * ratings + 7, abs=2e-3)
    assert moved[2] == pytest.approx(20 * cells + 7, abs=2e-3)
    assert moved[3] == pytest.approx(20 * rmse, abs=2e-3)


def test_a_mixture_adds_what_networks_differ_by_from_the_biases():
    run = make_run(recipe=Blend((Recipe(), Recipe(kind="user")), (0.5, 0.25)))
    mixture = Mixture(run.recipe, run.train_mat)
    levels, found = np.array([3.0, 2.0]), np.array([[4.0, 2.0], [1.0, 3.0]])
    assert mixture.mixed(levels, found).tolist() == [3.0, 2.25]


def test_weights_are_those_of_least_squares_and_not_below_zero():
    mixture = Mixture(BLEND, make_run().train_mat)
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


def test_an_epoch_of_a_blend_is_one_of_each_recipe():
    run = make_run()
    training, history = fitted(run)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert [one.recipe for one in training.members] == [*WEIGHTED.recipes]
    found, rating = training.predict(run.test_mat)
    rmse = np.sqrt(np.mean((found - rating) ** 2))
    assert history[-1].test_rmse == pytest.approx(rmse)


def test_a_model_predicts_what_the_training_does():
    run = make_run()
    training, _ = fitted(run)
    cells = run.train_mat.tocoo()
    found = Predictor(training.net, run).predict(zip(cells.col, cells.row))
    assert found == pytest.approx(training.predict(run.train_mat)[0], abs=1e-5)


def test_networks_that_are_assigned_to_a_blend_predict():
    run = make_run()
    (training, _), (other, _) = fitted(run), fitted(replace(run, seed=8))
    expected = other.predict(run.test_mat)[0]
    assert (training.predict(run.test_mat)[0] != expected).any()
    training.whole.net = other.net
    assert (training.predict(run.test_mat)[0] == expected).all()


def test_a_blend_has_the_biases_of_its_ratings():
    run = make_run()
    biases = run.train(CPU).biases
    assert (biases.at(3, 2) == Biases(run.train_mat).at(3, 2)).all()


def test_many_users_get_what_each_of_them_gets():
    run = make_run()
    model = Predictor(fitted(run)[0].net, run)
    (table,) = recommend_all(model, n=9)
    alone = [one for user in range(11) for one in model.recommend(user, 9)]
    assert table["item_id"].tolist() == [one.item_id for one in alone]
    assert table["rating"].tolist() == pytest.approx([one.rating for one in alone])


def test_a_list_is_in_the_order_of_the_ratings_that_it_shows():
    """Networks that err far beyond the scale are clipped before they are mixed."""
    run = make_run()
    net = fitted(run)[0].net
    for one in net:
        one.decoder.weight.set_data(3 * one.decoder.weight.data())
    model = Predictor(net, run)
    found = [model.recommend(user, 9, include_rated=True) for user in range(11)]
    found.append(model.recommend_new({0: 5, 2: 1}, 9))
    for items in found:
        ratings = [one.rating for one in items]
        assert len(set(ratings)) > 3
        assert ratings == sorted(ratings, reverse=True)


def test_cold_users_and_items_get_their_biases():
    run = make_run()
    training, _ = fitted(run)
    found, _ = training.predict(run.test_mat)
    at = run.test_mat.tocoo()
    cold = (at.col == 11) | (at.row == 8)
    biases = Biases(run.train_mat)
    assert cold.any() and not cold.all()
    assert found[cold] == pytest.approx(biases.at(at.col[cold], at.row[cold]))


def test_a_validation_part_chooses_weights_for_the_last_epoch():
    run = make_run(recipe=BLEND)
    training = BlendTraining(BLEND, Parts(run.train_mat, None, run.test_mat), CPU, 0)
    history = list(training.epochs())
    last, chosen = training.choose(history)
    assert last is history[-1]
    assert chosen.num_epochs == last.epoch
    assert len(chosen.weights) == len(chosen.recipes) <= 5
    assert min(chosen.weights) > 0
    assert chosen.weights == tuple(w for w in training.mixture.weights if w)


def test_where_no_network_helps_biases_are_left(monkeypatch):
    run = make_run(recipe=BLEND)
    training = BlendTraining(BLEND, Parts(run.train_mat, None, run.test_mat), CPU, 0)
    nothing = lambda *args: setattr(training.mixture, "weights", np.zeros(5))  # noqa: E731
    monkeypatch.setattr(training.mixture, "choose", nothing)
    _, chosen = training.choose(list(training.epochs()))
    assert (len(chosen.recipes), chosen.weights) == (1, (0.0,))
    training, _ = fitted(replace(run, recipe=chosen))
    at = run.test_mat.tocoo()
    biases = Biases(run.train_mat).at(at.col, at.row)
    assert training.predict(run.test_mat)[0] == pytest.approx(biases)


def test_a_saved_blend_goes_on_as_if_never_interrupted(tmp_path):
    whole, history = fitted(make_run())
    run = make_run()
    seed_everything(run.seed)
    training = run.train(CPU)
    epochs = Checkpoint(tmp_path, run).saving(training, training.epochs())
    next(epochs)
    epochs.close()
    opened = Checkpoint.open(tmp_path)
    assert opened.run.recipe == WEIGHTED
    training = opened.run.train(CPU, trained=1)
    opened.restore(training, CPU)
    later = list(opened.saving(training, training.epochs()))
    assert [e.test_rmse for e in later] == [e.test_rmse for e in history[1:]]
    found = Predictor(Checkpoint.open(tmp_path).network(CPU), run)
    assert found.recommend(3) == Predictor(whole.net, run).recommend(3)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"recipes": [], "weights": []}, "have as many epochs"),
        ({"recipes": "x", "weights": [1.0]}, "no list of recipes"),
        ({"recipes": [{}], "weights": None}, "with a list of weights"),
        ({"recipes": [{}], "weights": [1.0, 2.0]}, "not as many as the recipes"),
        ({"recipes": [{}], "weights": ["x"]}, "'x' is not a number from 0 to 100"),
        ({"recipes": [{}], "weights": [-1]}, "-1 is not a number from 0 to 100"),
        ({"recipes": [{"members": 2}], "weights": [1]}, "one network each"),
        ({"recipes": [7], "weights": [1]}, "is no list of settings"),
    ],
)
def test_a_forged_blend_is_refused(tmp_path, recipe, message):
    run = make_run()
    training = run.train(CPU)
    list(Checkpoint(tmp_path, run).saving(training, training.epochs()))
    file = tmp_path / "model.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    content["recipe"] = recipe
    file.write_text(manifest.signed(content))
    with pytest.raises(ModelError, match=message):
        Checkpoint.open(tmp_path)
