"""Learning what is left of the ratings after the mean and the biases."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from d2l_autorec._mxnet import mx
from d2l_autorec.ratings import Ratings
from d2l_autorec.serving import Checkpoint, Predictor
from d2l_autorec.training import (
    Biases,
    Parts,
    Recipe,
    Run,
    Standard,
    Training,
    yardstick,
)
from d2l_autorec.training.biases import SHIFT

CPU = [mx.cpu()]
RECIPES = {
    "item": {"loss": "paper", "wd": None},
    "user": {"kind": "user", "loss": "rmse", "clip": True},
    "average": {"members": 2, "schedule": "cosine", "clip": True, "cold": "mean"},
    "deep": {"num_hidden": (4, 3, 4), "pretrain_epochs": 2},
    "standardized": {"residual": False, "standardize": True, "from_mean": True},
}


def make_run(factor=1, shift=0, **settings):
    """12 users and 9 items; only the test part knows user 11 and item 8."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(12 * 9)[:80]
    users, items = cells % 12, cells // 12
    data = pd.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "rating": rng.integers(1, 6, 80) * float(factor) + shift,
        }
    )
    held_out = (users == 11) | (items == 8) | (rng.random(80) < 0.1)
    recipe = {"num_hidden": 4, "batch_size": 4, "num_epochs": 3, "lr": 0.03}
    return Run.of(
        Ratings("toy", data),
        *(data[~held_out], data[held_out]),
        recipe=Recipe(**{"residual": True, **recipe, **settings}),
        seed=7,
        split={},
    )


def fitted(run):
    training = run.train(CPU)
    list(training.epochs())
    return training


def everything(run):
    """What is predicted and recommended, in the unit of the ratings."""
    training = fitted(run)
    model = Predictor(training.net, run)
    given = dict(zip([0, 2, 5], run.train_mat.data[:3].tolist()))
    lists = [model.recommend(u, 99) for u in range(11)]
    lists.append(model.recommend_new(given, 99, include_rated=True))
    return (
        np.concatenate(
            [
                training.predict(run.test_mat)[0],
                model.predict([(u, i) for u in range(11) for i in range(8)]),
                [found.rating for one in lists for found in one],
            ]
        ),
        [found.item_id for one in lists for found in one],
    )


@pytest.mark.usefixtures("short_pretraining")
@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
def test_the_scale_of_the_ratings_does_not_matter(settings):
    ratings, items = everything(make_run(**settings))
    scaled, same_items = everything(make_run(20, 7, **settings))
    np.testing.assert_allclose(scaled, ratings * 20 + 7, rtol=1e-4)
    assert same_items == items


@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
@pytest.mark.usefixtures("short_pretraining")
def test_a_loaded_model_predicts_what_its_training_did(tmp_path, settings):
    run = make_run(**settings)
    training = run.train(CPU)
    list(Checkpoint(tmp_path, run).saving(training, training.epochs()))
    opened = Checkpoint.open(tmp_path)
    model = Predictor(opened.network(CPU), opened.run)
    cells = run.train_mat.tocoo()
    expected, values = training.predict(run.train_mat)
    order = np.lexsort((cells.row, cells.col)) if run.recipe.kind == "user" else ...
    pairs = np.column_stack([cells.col, cells.row])[order]
    np.testing.assert_allclose(model.predict(map(tuple, pairs)), expected, rtol=1e-5)
    assert (values == cells.data[order]).all()


def test_recommendations_are_ranked_before_clipping():
    run = make_run(clip=True)
    training = fitted(run)
    weight = training.net.decoder.weight
    weight.set_data(weight.data() * 1000)  # far off the scale
    best = Predictor(training.net, run).recommend(3, 99, include_rated=True)
    free = Predictor(training.net, replace(run, recipe=replace(run.recipe, clip=False)))
    assert [i.item_id for i in free.recommend(3, 99, True)] == [i.item_id for i in best]
    assert [found.rating for found in best].count(1.0) > 1


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_user_with_an_old_users_ratings_has_their_bias(kind):
    run = make_run(kind=kind)
    column = run.train_mat.tocsc()[:, 4]
    biases = Biases(run.train_mat)
    levels = biases.of_new_user(column.indices, column.data)
    assert levels == pytest.approx(biases.at(4, slice(None)))
    if kind == "user":
        model = Predictor(fitted(run).net, run)
        given = dict(zip(column.indices.tolist(), column.data.tolist()))
        old = model.recommend(4, 99, include_rated=True)
        new = model.recommend_new(given, 99, include_rated=True)
        assert [i.rating for i in new] == pytest.approx([i.rating for i in old], 1e-5)


@pytest.mark.parametrize("settings", [{}, {"standardize": True}])
def test_outputs_that_start_at_the_mean_are_close_to_it(settings):
    train_mat = make_run(20, 7).train_mat
    recipe = Recipe(4, from_mean=True, lr=1e-9, num_epochs=1, **settings)
    training = Training(recipe, Parts(train_mat), CPU)
    list(training.epochs())
    mean = train_mat.data.mean()
    assert training.predict(train_mat)[0] == pytest.approx(mean, rel=0.05)


def test_standardized_ratings_have_a_mean_that_no_missing_rating_has():
    train_mat = make_run(20, 7).train_mat
    learned = Standard(train_mat).learned(train_mat)
    assert learned.data.std() == pytest.approx(1, rel=1e-5)
    assert learned.data.mean() == pytest.approx(SHIFT, rel=1e-5)


@pytest.mark.parametrize(
    ("cold", "expected"), [(None, "biases"), (3.5, 3.5), ("mean", "mean")]
)
def test_cold_users_and_items_get_their_biases_or_what_the_recipe_says(cold, expected):
    run = make_run(cold=cold)
    cells, biases = run.test_mat.tocoo(), Biases(run.train_mat)
    found, _ = fitted(run).predict(run.test_mat)
    is_cold = (cells.col == 11) | (cells.row == 8)
    if expected == "biases":
        expected = biases.at(cells.col, cells.row)[is_cold]
    elif expected == "mean":
        expected = biases.mean
    assert is_cold.any() and not is_cold.all()
    assert found[is_cold] == pytest.approx(expected)
    assert biases.user_bias[11] == biases.item_bias[8] == 0


def test_cells_that_biases_predict_right_are_kept():
    flat = make_run().train_mat.copy()
    flat.data[:] = 2
    biases = Biases(flat)
    left = biases.learned(flat)
    assert (left.nnz, biases.scale) == (flat.nnz, 1.0)
    assert not left.data.any()
    training = Training(Recipe(4, residual=True, num_epochs=1), Parts(flat, flat), CPU)
    (epoch,) = training.epochs()
    assert np.isfinite(epoch.train_loss)
    assert epoch.test_rmse < 0.1


def test_the_yardstick_is_what_was_computed_by_hand():
    run = make_run()
    rating, cells = run.test_mat.data, run.test_mat.tocoo()
    found = yardstick(run.train_mat, run.test_mat)
    mean = run.train_mat.data.mean()
    assert found["global_mean"].mae == pytest.approx(np.abs(rating - mean).mean())
    error = Biases(run.train_mat).at(cells.col, cells.row) - rating
    assert found["biases"].rmse == pytest.approx(np.sqrt((error**2).mean()))


def test_a_folder_from_before_the_setting_opens(tmp_path, monkeypatch):
    run = make_run()
    run = replace(run, recipe=replace(run.recipe, residual=False))
    training = run.train(CPU)
    from d2l_autorec.serving import manifest

    def without(recipe):
        settings = original(recipe)
        del settings["residual"]
        return settings

    original = manifest.asdict
    monkeypatch.setattr(manifest, "asdict", without)
    list(Checkpoint(tmp_path, run).saving(training, training.epochs()))
    assert "residual" not in json.loads((tmp_path / "model.json").read_text())["recipe"]
    assert Checkpoint.open(tmp_path).run.recipe == run.recipe
