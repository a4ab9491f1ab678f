"""Trainings of any recipe: what they learn, and what they predict."""

from dataclasses import replace
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
import scipy.sparse as sp
from test_checkpoint import saving

from d2l_autorec import PRESETS, Predictor, Recipe, evaluator, row_batches
from d2l_autorec.curve import Epoch
from d2l_autorec.errors import DeviceUnavailable, TrainingDiverged
from d2l_autorec.fast import FastStep
from d2l_autorec.loop import Step
from d2l_autorec.serving import Checkpoint
from d2l_autorec.training import Biases, Blend, Parts, Run, Training
from d2l_autorec.training.batches import SeededBatches
from d2l_autorec.training.biases import SHIFT, Standardizer
from d2l_autorec.training.settings import OPTIMIZERS

CPU, TWO = [mx.cpu()], [mx.cpu(0), mx.cpu(1)]
SMALL = {"num_hidden": 4, "dropout": 0.0, "batch_size": 5, "num_epochs": 3, "lr": 0.05}
BEST = replace(
    PRESETS["best"].changed(**{**SMALL, "lr": 0.03}),
    weights=tuple(0.2 + 0.1 * n for n in range(5)),
)


def make_parts(factor=1, shift=0, valid=False):
    """24 items and 17 users; only the test part knows item 3 and user 2."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, (24, 17)) * factor + shift
    part = rng.choice(4, values.shape, p=[0.45, 0.35, 0.1, 0.1])
    part[3, :5] = part[:5, 2] = 2
    part[3, 5:] = part[5:, 2] = 0
    found = [sp.csr_matrix(values * (part == n), dtype=np.float32) for n in (1, 2, 3)]
    return Parts(*found[: 2 + valid])


def recipe_of(settings):
    """Make a small recipe; or several with equal weights, or a preset's."""
    if isinstance(settings, Blend):
        return settings
    settings = {**SMALL, "members": 1, **settings}
    size = settings.pop("members")
    return Recipe(**settings).averaged(size)


def fit(recipe, parts=None, devices=CPU, seed=0):
    training = Training(Run(parts or make_parts(), recipe, seed), devices)
    return training, list(training.epochs())


def rmse_of_biases(train_mat, held_out):
    at = held_out.tocoo()
    error = Biases(train_mat).at(at.col, at.row) - at.data
    return pytest.approx(np.sqrt(np.mean(error**2)))


def all_cells(training):
    """Predict every cell: shape (num_items, num_users)."""
    shape = training.run.parts.train_mat.shape
    return training.predict(sp.csr_matrix(np.ones(shape))).reshape(shape)


RECIPES = {
    "book": {},
    "user": {"kind": "user", "cold": 3.5},
    "paper": {"loss": "paper", "wd": 5.0, "schedule": "cosine"},
    "bounded user": {"kind": "user", "output": "sigmoid", "loss": "paper", "wd": None},
    "from the mean": {"from_mean": True, "loss": "paper", "clip": True, "cold": "mean"},
    "balanced": {"balance": 0.5, "activation": "tanh"},
    "deep": {"num_hidden": (4, 3, 4), "pretrain_epochs": 2, "activation": "relu"},
    "residual": {"residual": True, "loss": "paper", "wd": 0.1},
    "standardized": {"standardize": True, "from_mean": True, "clip": True},
    "root": {"residual": True, "kind": "user", "loss": "rmse", "cold": "biases"},
    "denoising": {"dropout": 0.1, "input_dropout": 0.2, "standardize": True},
    "left out": {"leave_one_out": True, "loss": "paper"},
}
OF_OPTIMIZERS = {
    name: {"optimizer": name, "batch_size": None if name == "rprop" else 5, "lr": lr}
    for name, lr in zip(OPTIMIZERS, (0.05, 1.0, 0.05, 0.01, 0.5, 0.01), strict=True)
}
AVERAGE = {"kind": "user", "members": 2, "cold": 3.5}
recipes = pytest.mark.parametrize(
    "recipe",
    [recipe_of(settings) for settings in (*RECIPES.values(), AVERAGE, BEST)],
    ids=[*RECIPES, "average", "blend"],
)
pytestmark = pytest.mark.usefixtures("short_pretraining")


# What holds of any.


@pytest.mark.parametrize(
    "settings",
    [*RECIPES.values(), *OF_OPTIMIZERS.values(), BEST],
    ids=[*RECIPES, *OF_OPTIMIZERS, "blend"],
)
def test_a_training_lowers_its_loss(settings):
    recipe = recipe_of(settings).changed(num_epochs=25)
    _, history = fit(recipe)
    assert history[-1].train_loss < 0.9 * history[0].train_loss


@recipes
def test_predictions_follow_from_the_seed_and_no_test_rating(recipe):
    parts = make_parts()
    other = parts.test_mat.copy()
    other.data = 60 - other.data  # nor does it change the range
    (one, history), (same, others) = (
        fit(recipe, replace(parts, test_mat=mat)) for mat in (parts.test_mat, other)
    )
    assert [e.train_loss for e in history] == [e.train_loss for e in others]
    assert history[-1].test_rmse != others[-1].test_rmse
    np.testing.assert_array_equal(all_cells(one), all_cells(same))
    assert (parts.train_mat != make_parts().train_mat).nnz == 0  # it is left as it was
    differ = fit(recipe, seed=1)[0].parameters()
    for name, array in one.parameters().items():
        assert name.endswith("bias") or (array != differ[name]).any()


@pytest.mark.parametrize(
    "name", ["book", "user", "paper", "bounded user", "balanced", "residual", "blend"]
)
def test_two_devices_by_the_books_step_learn_what_one_does(name):
    recipe = recipe_of(RECIPES.get(name, BEST)).changed(input_dropout=0.0)
    (one, history), (two, others) = fit(recipe), fit(recipe, devices=TWO)
    assert all(type(member.step) is FastStep for member in one.members)
    assert all(type(member.step) is Step for member in two.members)
    for epoch, other in zip(history, others):
        assert epoch[1:3] == pytest.approx(other[1:3], rel=1e-3)
    for name, array in one.parameters().items():
        np.testing.assert_allclose(two.parameters()[name], array, atol=2e-3)


@recipes
def test_a_loaded_model_predicts_what_its_training_did(tmp_path, recipe):
    parts = make_parts()
    run = Run(parts, recipe, 7)
    training = Training(run, CPU)
    (*_, last) = saving(Checkpoint(tmp_path, run), training)
    opened = Checkpoint.open(tmp_path)
    assert opened.run.recipe == recipe
    # A model does not know users and items that have no training rating.
    cells = parts.train_mat.tocoo()
    model = Predictor(opened.network(CPU), opened.run)
    found = model.predict(zip(cells.col, cells.row))
    expected = training.predict(parts.train_mat)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(cells.nnz)
    pairs = training.predict_pairs(cells.col[order], cells.row[order])
    np.testing.assert_allclose(pairs, expected[order], rtol=1e-6)
    other = Training(replace(run, seed=8), CPU)
    other.load(opened.parameters())
    assert other.rmse(parts.test_mat) == pytest.approx(last.test_rmse, rel=1e-6)


@pytest.mark.parametrize("kind", ["item", "user"])
def test_predictions_are_the_networks_in_the_order_of_the_cells(kind):
    parts = make_parts()
    training, history = fit(recipe_of({"kind": kind}), parts)
    rows = training.run.recipe.rows(parts.train_mat).toarray()
    outputs = training.net(mx.np.array(rows)).asnumpy()
    expected = outputs.T if kind == "user" else outputs
    np.testing.assert_allclose(all_cells(training), expected, rtol=1e-5)
    backwards = sp.csr_matrix(  # within each row
        ([1, 1, 1, 1], [9, 4, 1, 5], [0, 3, 3, *[4] * 22]), expected.shape
    )
    cells = [0, 0, 0, 2], [9, 4, 1, 5]
    assert training.predict(backwards) == pytest.approx(expected[cells], rel=1e-5)
    in_order = row_batches(training.run.recipe.rows(parts.train_mat), 10)
    rmse = evaluator(
        training.net, in_order, training.run.recipe.rows(parts.test_mat), CPU
    )
    assert history[-1].test_rmse == pytest.approx(rmse, rel=1e-5)


@pytest.mark.parametrize("cold", [None, 3.5, "mean", "biases"])
@pytest.mark.parametrize("settings", [{}, {"kind": "user"}, {"residual": True}])
def test_cold_users_and_items_get_what_the_recipe_says(settings, cold):
    plain = all_cells(fit(recipe_of(settings))[0])
    biases = Biases(make_parts().train_mat)
    users, items = np.meshgrid(np.arange(17), np.arange(24))
    is_cold = (users == 2) | (items == 3)
    rule = "biases" if cold is None and "residual" in settings else cold
    expected = {None: plain, "biases": biases.at(users, items), "mean": biases.mean}
    found = all_cells(fit(recipe_of({**settings, "cold": cold}))[0])
    expected = np.where(is_cold, expected.get(rule, cold), plain).astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("settings", [{}, {"standardize": True}, {"members": 2}])
def test_predictions_are_held_to_the_training_ratings_range(settings, clip):
    parts = make_parts()
    parts.train_mat.data = parts.train_mat.data.clip(2, 4)
    settings = {**settings, "num_epochs": 60, "clip": clip}
    found = all_cells(fit(recipe_of(settings), parts)[0])
    assert (found.min() >= 2 and found.max() <= 4) == clip


# Batches, and how a training ends.


def test_batches_follow_from_seed_and_epoch_alone():
    rows = sp.csr_matrix(np.arange(1, 24.0)[:, None])

    def epochs(count, trained=0, seed=(3, 0)):
        seeds = []
        step = SimpleNamespace(seed=seeds.append)
        batches = SeededBatches(rows, 5, seed, step, trained)
        found = [[one.data.tolist() for one in batches] for _ in range(count)]
        return found, [tuple(np.random.default_rng(s).random(2)) for s in seeds]

    found, seeds = epochs(5)
    # What an epoch leaves over comes first in the next one: 5 x 23 rows are 23 x 5.
    assert [len(batches) for batches in found] == [4, 5, 4, 5, 5]
    order = np.concatenate(sum(found, [])).reshape(5, 23)
    assert (np.sort(order) == np.arange(1, 24)).all()
    assert len({tuple(epoch) for epoch in order}) == 5
    # An epoch can be drawn again, and after an interruption as if there was none.
    np.random.seed(1), mx.random.seed(1)
    assert epochs(3, trained=2) == (found[2:], seeds[9:])
    assert epochs(1, seed=(3, 1))[0] != found[:1] != epochs(1, seed=(4, 0))[0]
    # No batch has the dropout of another, nor the numbers that made the order.
    orders = [np.random.default_rng([3, 0, n]).random(2) for n in range(1, 6)]
    assert len({*seeds, *map(tuple, orders)}) == 23 + 5


def test_the_cosine_schedule_ends_at_zero_with_the_last_step():
    for optimizer in ("adam", "sgd"):
        recipe = recipe_of({"schedule": "cosine", "optimizer": optimizer})
        training = Training(Run(make_parts(), recipe, 0), CPU)
        trainer = training.members[0].trainer
        rates = [trainer.learning_rate for _ in training.epochs()]
        # What is left over waits for the next epoch.
        steps = [24 // 5, 48 // 5, 72 // 5]
        expected = [0.05 * (1 + np.cos(np.pi * n / steps[-1])) / 2 for n in steps]
        assert rates == pytest.approx(expected)
        assert rates[-1] == 0


def test_the_best_epoch_on_validation_is_trained_again_on_all_ratings():
    parts = make_parts(valid=True)
    run = Run(parts, recipe_of({"num_epochs": 20, "lr": 0.3}), 0, patience=30)
    training = Training(run, CPU)
    history = list(training.epochs())
    best, again = training.choose()
    assert best.valid_rmse == min(epoch.valid_rmse for epoch in history)
    assert again.recipe == run.recipe.changed(num_epochs=best.epoch)
    assert (again.parts.train_mat != parts.train_mat + parts.valid_mat).nnz == 0
    assert (again.parts.valid_mat, again.patience) == (None, None)
    assert again.parts.split["chosen_epoch"] == best.epoch


@pytest.mark.parametrize(
    ("biases", "steps", "stopped"),
    [
        (2.0, 500, 4),  # from the start on: while the mean is still being found
        (0.85, 500, 9),  # from the 6th epoch on
        (0.5, 38, 10),  # never better than biases: from the 8th on, by its steps
    ],
)
def test_patience_counts_once_biases_are_passed(monkeypatch, biases, steps, stopped):
    name = "d2l_autorec.training.training.STEPS_BEFORE_PATIENCE"
    monkeypatch.setattr(name, steps)
    parts = make_parts(valid=True)
    unit = rmse_of_biases(parts.train_mat, parts.valid_mat).expected / biases
    scores = [1.0, 1.2, 1.1, 1.3, 0.9, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85]
    past = [Epoch(n, 0.1, 1.0, unit * s, 1.0, 1) for n, s in enumerate(scores, 1)]
    run = Run(parts, recipe_of({"num_epochs": 20}), 0, patience=3)
    goes_on = [
        any(Training(run, CPU, past[:n]).epochs()) for n in (stopped - 1, stopped)
    ]
    assert goes_on == [True, False]


@pytest.mark.parametrize("devices", [CPU, TWO])
def test_a_loss_that_is_not_finite_ends_a_training(devices):
    with pytest.raises(TrainingDiverged, match="(inf|nan) in epoch [12]; a lower"):
        fit(recipe_of({"lr": 1e30}), devices=devices)


@pytest.mark.parametrize("devices", [TWO, [mx.Context("cpu_pinned", 0)]])
def test_ratings_are_left_out_on_one_cpu(devices):
    recipe, names = recipe_of({"leave_one_out": True}), ", ".join(map(str, devices))
    with pytest.raises(DeviceUnavailable) as refused:
        Training(Run(make_parts(), recipe, 0), devices)
    assert str(refused.value).endswith(f"one CPU, not {names}")


@pytest.mark.parametrize(
    ("optimizer", "other"),
    [("adam", "sgd"), ("sgd", "adam"), ("rprop", "adagrad"), ("rmsprop", "adagrad")],
)
def test_a_state_of_another_optimizer_is_refused(optimizer, other):
    (training, _), (found, _) = (
        fit(recipe_of(OF_OPTIMIZERS[name])) for name in (optimizer, other)
    )
    with pytest.raises(
        ValueError, match="is missing, or not of (this network|SGD|RMSProp|Rprop)"
    ):
        training.load(training.parameters(), found.state())


# Pretraining.


def test_pretraining_starts_where_one_hidden_layer_ended(monkeypatch):
    monkeypatch.setattr("d2l_autorec.training.member.NUM_EPOCHS", 1000)
    rng = np.random.default_rng(0)
    taste, kind = rng.normal(size=(60, 2)), rng.normal(size=(2, 40))
    values = (3 + 1.5 * np.tanh(taste @ kind)) * (rng.random((60, 40)) < 0.5)
    parts = Parts(sp.csr_matrix(values))
    settings = {"loss": "paper", "lr": 0.05, "wd": 1.0, "batch_size": 20}
    shallow = Recipe(8, num_epochs=60, dropout=0.0, **settings)
    deep = shallow.changed(num_hidden=(8, 16, 8), pretrain_epochs=60)
    error = fit(shallow, parts)[0].rmse(parts.train_mat)
    training = Training(Run(parts, deep, 0), CPU)
    assert training.rmse(parts.train_mat) > error + 1
    list(training.pretraining)
    assert training.rmse(parts.train_mat) < error + 0.15


def test_trainings_that_are_made_first_and_run_later_keep_apart():
    recipe = recipe_of(RECIPES["deep"])
    _, alone = fit(recipe)
    runs = (Run(make_parts(), recipe, seed) for seed in (0, 1))
    first, second = (Training(run, CPU) for run in runs)
    np.random.seed(2)
    list(second.epochs())
    losses = [epoch.train_loss for epoch in first.epochs()]
    assert losses == [epoch.train_loss for epoch in alone]
    assert np.random.random() == np.random.RandomState(2).random()


# The paper's objective.


def one_step(settings, devices=CPU):
    """Take an epoch of plain gradient descent; return it and the weights before."""
    own = {"num_epochs": 1, "batch_size": None, "optimizer": "sgd", "loss": "paper"}
    training = Training(Run(make_parts(), recipe_of({**own, **settings}), 0), devices)
    # Larger than they are drawn, so that the penalty counts, and none of them 0.
    before = {
        name: 10 * array + 0.1 * np.sin(np.arange(array.size)).reshape(array.shape)
        for name, array in training.parameters().items()
    }
    training.load(before)
    list(training.epochs())
    after = training.parameters()
    return {name: after[name] - before[name] for name in before}, before


def objective(weights, ratings, penalty):
    w, mask = weights, ratings > 0
    hidden = 1 / (1 + np.exp(-ratings @ w["encoder.weight"].T - w["encoder.bias"]))
    errors = (hidden @ w["decoder.weight"].T + w["decoder.bias"] - ratings) * mask
    norms = sum((w[f"{name}.weight"] ** 2).sum() for name in ("encoder", "decoder"))
    return (errors**2).sum() + penalty / 2 * norms


@pytest.mark.parametrize("wd", [300.0, None])
def test_a_step_is_down_the_papers_objective_which_spares_the_biases(wd):
    step, before = one_step({"wd": wd})
    train_mat = make_parts().train_mat
    ratings = train_mat.toarray().astype(float)
    # Of None by size: the root of the ratings per item or user.
    penalty = wd or 7.5 * (train_mat.nnz / 17) ** 0.5
    for name, value in before.items():
        slope = np.empty(value.shape)
        for place in np.ndindex(*value.shape):
            sides = []
            for nudge in (1e-5, -1e-5):
                moved = value.astype(float)
                moved[place] += nudge
                sides.append(objective({**before, name: moved}, ratings, penalty))
            slope[place] = (sides[0] - sides[1]) / 2e-5
        expected = -SMALL["lr"] * slope / (2 * train_mat.nnz)
        np.testing.assert_allclose(step[name], expected, rtol=1e-3, atol=1e-5)


def test_small_batches_go_as_far_as_their_share_of_the_ratings():
    small = {"wd": 300.0, "lr": 1e-3}
    (whole, _), (three, _) = one_step(small), one_step({**small, "batch_size": 8})
    for name, value in whole.items():
        scale = 3 * abs(value).max()
        np.testing.assert_allclose(three[name], 3 * value, atol=0.02 * scale)


# Rprop.


def rprop(start, gradients, **settings):
    """Apply gradients one after the other; return the weights after each."""
    update = mx.optimizer.get_updater(mx.optimizer.create("rprop", **settings))
    weight, found = mx.nd.array([start]), []
    for gradient in gradients:
        update(0, mx.nd.array([gradient]), weight)
        found.append(weight.asscalar())
    return found


@pytest.mark.parametrize(
    ("gradients", "wd", "expected"),
    [
        # The signs count; a change of sign halves the step and lets the weight rest.
        ([2, 0.5, -1, -1, -3], 0.0, [0.9, 0.78, 0.78, 0.84, 0.912]),
        ([0, 0], 0.0, [1, 1]),
        *([([-0.5], 1.0, [0.9]), ([-2], 1.0, [1.1])]),  # which decay is a part of
    ],
)
def test_rprop_by_hand(gradients, wd, expected):
    found = rprop(1, gradients, learning_rate=0.1, wd=wd)
    assert found == pytest.approx(expected)


def test_rprops_steps_stay_within_their_limits():
    steps = np.diff(rprop(0, [-1] * 40, learning_rate=1.0))
    assert steps.max() == pytest.approx(50)
    signs = [(-1) ** (n // 2) for n in range(80)]  # every other one a change
    found = rprop(0, signs, learning_rate=1.0)[-4:]
    assert abs(np.diff(found)).max() == pytest.approx(1e-6, rel=0.5)


# What is learned of the ratings.


def everything(recipe, factor=1, shift=0):
    """What is predicted and recommended, in the unit of the ratings."""
    run = Run(make_parts(factor, shift), recipe, 7)
    training = Training(run, CPU)
    *_, last = training.epochs()
    model = Predictor(training.net, run)
    lists = [model.recommend(user, 99) for user in (0, 1, 5)]
    given = dict(zip([0, 5, 7], run.parts.train_mat.data[:3].tolist()))
    lists.append(model.recommend_new(given, 99, include_rated=True))
    found = [one.rating for items in lists for one in items]
    ratings = np.concatenate([training.predict(run.parts.test_mat), found])
    return ratings, [one.item_id for items in lists for one in items], last.test_rmse


@pytest.mark.parametrize("name", ["residual", "standardized", "root", "blend"])
def test_the_scale_of_the_ratings_does_not_matter(name):
    recipe = recipe_of(RECIPES.get(name, BEST))
    (ratings, items, rmse), moved = everything(recipe), everything(recipe, 20, 7)
    np.testing.assert_allclose(moved[0], ratings * 20 + 7, rtol=1e-4)
    assert moved[1] == items
    assert moved[2] == pytest.approx(20 * rmse, rel=1e-3)


def test_cells_that_biases_predict_right_are_kept():
    flat = make_parts().train_mat
    flat.data[:] = 2
    left = Biases(flat).learned(flat)
    assert (left.nnz, Biases(flat).scale) == (flat.nnz, 1.0)
    assert not left.data.any()
    _, history = fit(recipe_of({"residual": True}), Parts(flat, flat))
    assert np.isfinite(history[-1].train_loss) and history[-1].test_rmse < 0.1


@pytest.mark.parametrize("settings", [{}, {"standardize": True}])
def test_outputs_start_at_the_mean_which_no_missing_rating_has(settings):
    parts = make_parts(20, 7)
    training, _ = fit(recipe_of({**settings, "from_mean": True, "lr": 1e-9}), parts)
    mean = parts.train_mat.data.mean()
    assert training.predict(parts.train_mat) == pytest.approx(mean, rel=0.05)
    found = Standardizer(parts.train_mat).learned(parts.train_mat).data
    assert (found.std(), found.mean()) == pytest.approx((1, SHIFT), rel=1e-5)


def test_the_baseline_is_what_was_computed_by_hand():
    parts, biases = make_parts(valid=True), Biases(make_parts().train_mat)
    found, rating = parts.baseline, parts.test_mat.data
    mae = np.abs(rating - parts.train_mat.data.mean()).mean()
    assert found.models["global_mean"].mae == pytest.approx(mae)
    assert found.models["biases"].rmse == rmse_of_biases(*parts.matrices[:2])
    assert biases.user_bias[2] == biases.item_bias[3] == 0  # they have no rating
    cells = parts.train_mat.tocoo()
    left = cells.data - biases.mean - biases.item_bias[cells.row]
    count = np.bincount(cells.col, minlength=17)
    shrunk = np.bincount(cells.col, left, 17) / (count + 15)
    np.testing.assert_allclose(biases.user_bias, shrunk, atol=1e-5)
    validation = replace(parts, test_mat=None).baseline
    assert (found.part, validation.part) == ("test", "validation")
    assert Parts(parts.train_mat).baseline is None
