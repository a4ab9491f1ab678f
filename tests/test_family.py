"""The model's family, the paper's objective, and the recipes that train them."""

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import autograd, gluon
from mxnet import np as mnp

from d2l_autorec import AutoRec, Average, DeepAutoRec, Recipe, seed_everything
from d2l_autorec.data import row_batches
from d2l_autorec.errors import DeviceUnavailable
from d2l_autorec.fast import dense, members
from d2l_autorec.loop import Step, train_epochs
from d2l_autorec.training import (
    ACTIVATIONS,
    SETTINGS,
    MaskedRMSELoss,
    Parts,
    SeededBatches,
    Training,
    network,
    pretraining,
)

CPU = [mx.cpu()]
SMALL = {"num_hidden": 4, "dropout": 0.0, "batch_size": 5, "num_epochs": 2, "lr": 0.05}


def parts(num_items=24, num_users=17, seed=0):
    """Training and test ratings; item 3 and user 2 are in the test part alone."""
    rng = onp.random.default_rng(seed)
    values = rng.integers(1, 6, (num_items, num_users)).astype(onp.float32)
    part = rng.choice(3, values.shape, p=[0.5, 0.35, 0.15])
    part[3, :5], part[:5, 2] = 2, 2
    part[3, 5:], part[5:, 2] = 0, 0
    return sp.csr_matrix(values * (part == 1)), sp.csr_matrix(values * (part == 2))


def begin(recipe, train_mat, test_mat=None, devices=CPU):
    """Set a training up, its weights drawn."""
    seed_everything(1)
    training = Training(recipe, Parts(train_mat, test_mat), devices, 0)
    for device in devices:
        training.net(dense(recipe.rows(train_mat)[:1], device)).wait_to_read()
    return training


def fit(recipe, train_mat, test_mat=None, devices=CPU):
    training = begin(recipe, train_mat, test_mat, devices)
    return training.net, list(training.epochs())


def weights(net):
    return {
        name: parameter.data(parameter.list_ctx()[0]).asnumpy().copy()
        for name, parameter in net._collect_params_with_prefix().items()
    }


def set_weights(net, values):
    for name, parameter in net._collect_params_with_prefix().items():
        parameter.set_data(mnp.array(values[name]))


def all_cells(recipe, net, train_mat):
    """Predict every cell: shape (num_items, num_users)."""
    places = sp.csr_matrix(onp.arange(1, 1 + onp.prod(train_mat.shape)))
    training = Training(recipe, Parts(train_mat), CPU)
    training.net = net
    found, places = training.predict(places.reshape(train_mat.shape).tocsr())
    return found[onp.argsort(places)].reshape(train_mat.shape)


@pytest.fixture
def inputs():
    return mnp.array([[5, 0, 3, 0, 1, 0], [0, 2, 0, 0, 4, 4]], dtype="float32")


def make(*args, scale=0.5, **settings):
    net = DeepAutoRec(*args, **settings)
    net.initialize(mx.init.Normal(scale))
    return net


# The network.


def test_its_defaults_are_autorec_to_the_last_bit(inputs):
    def outputs(kind):
        seed_everything(3)
        net = kind(4, 6)
        net.initialize(mx.init.Normal(0.5))
        with autograd.record():
            training = net(inputs)
        return onp.stack([training.asnumpy(), net(inputs).asnumpy()])

    onp.testing.assert_array_equal(outputs(DeepAutoRec), outputs(AutoRec))


def elu(x):
    return onp.where(x > 0, x, onp.expm1(x))


FORMULAS = {
    "sigmoid": lambda x: 1 / (1 + onp.exp(-x)),
    "identity": lambda x: x,
    "relu": lambda x: onp.maximum(x, 0),
    "tanh": onp.tanh,
    "elu": elu,
    "selu": lambda x: (
        1.05070098 * onp.where(x > 0, x, 1.67326324 * onp.expm1(onp.minimum(x, 0)))
    ),
}
STRETCHED = {"sigmoid": lambda y: 2 + 3 * y, "tanh": lambda y: 2 + 1.5 * (y + 1)}


@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_layers_are_the_formula(inputs, activation, output):
    seed_everything(0)
    bounded = output in STRETCHED
    net = make(
        [4, 3],
        6,
        activation=activation,
        output=output,
        rating_range=(2, 5) if bounded else None,
    )
    found = net(inputs).asnumpy()
    w, g = weights(net), FORMULAS[activation]
    hidden = g(inputs.asnumpy() @ w["encoder.weight"].T + w["encoder.bias"])
    hidden = g(hidden @ w["deeper.0.weight"].T + w["deeper.0.bias"])
    expected = FORMULAS[output](hidden @ w["decoder.weight"].T + w["decoder.bias"])
    if bounded:
        expected = STRETCHED[output](expected)
    onp.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output", STRETCHED)
def test_bounded_outputs_fill_the_range_and_no_more(inputs, output):
    seed_everything(0)
    net = make(4, 6, output=output, rating_range=(2, 5), scale=50)
    found = net.reconstruct(inputs).asnumpy()
    assert found.min() == pytest.approx(2) and found.max() == pytest.approx(5)
    assert (net(inputs).asnumpy() >= 2).all() and (net(inputs).asnumpy() <= 5).all()


@pytest.mark.parametrize("output", STRETCHED)
def test_a_bounded_output_needs_a_range(output):
    with pytest.raises(ValueError, match=f"a {output} output needs a rating_range"):
        DeepAutoRec(4, 6, output=output)


def test_predictions_are_clipped_but_not_in_training(inputs):
    seed_everything(0)
    net = make(4, 6, dropout=0.0, rating_range=(1, 5), scale=50)
    with autograd.train_mode():
        free = net.reconstruct(inputs).asnumpy()
    assert free.min() < 1 and free.max() > 5
    onp.testing.assert_array_equal(net(inputs).asnumpy(), free.clip(1, 5))
    with autograd.record():
        training = net(inputs).asnumpy()
    onp.testing.assert_array_equal(training, free * onp.sign(inputs.asnumpy()))


def test_input_dropout_acts_in_training_only_and_not_on_the_mask(inputs):
    seed_everything(0)
    net = make(4, 6, dropout=0.0, input_dropout=0.5)
    plain = net(inputs).asnumpy()
    onp.testing.assert_array_equal(net(inputs).asnumpy(), plain)
    seen = set()
    for _ in range(5):
        with autograd.record():
            outputs = net(inputs).asnumpy()
        assert ((outputs != 0) == (inputs.asnumpy() != 0)).all()
        seen.add(outputs.tobytes())
    assert len(seen) > 1


def test_a_balanced_network_scales_rows_by_how_many_ratings_they_have(inputs):
    seed_everything(0)
    net = make(4, 6, dropout=0.0, balance=0.4, typical=3.0)
    inputs[0, :4] = 0
    found = net.encode(inputs).asnumpy()
    values = inputs.asnumpy()
    counts = (values != 0).sum(axis=1).clip(1)
    assert len(set(counts)) > 1
    scaled = (values.T * (3 / counts) ** 0.4).T.astype(onp.float32)
    expected = AutoRec.encode(net, mx.np.array(scaled)).asnumpy()
    onp.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_typical_row_has_the_geometric_mean_of_ratings():
    rows = sp.csr_matrix([[1, 2, 3, 4, 5, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0], 8 * [0]])
    recipe = Recipe(num_hidden=2, balance=0.5)
    assert network(recipe, rows).typical == pytest.approx(4)


def test_a_user_based_model_is_an_item_based_one_of_the_other_matrix():
    train_mat, test_mat = parts()
    user, item = Recipe(kind="user", **SMALL), Recipe(**SMALL)
    net, history = fit(user, train_mat, test_mat)
    other, expected = fit(item, train_mat.T.tocsr(), test_mat.T.tocsr())
    for name, value in weights(net).items():
        onp.testing.assert_array_equal(value, weights(other)[name])
    assert [e.test_rmse for e in history] == [e.test_rmse for e in expected]
    onp.testing.assert_array_equal(
        all_cells(user, net, train_mat),
        all_cells(item, other, train_mat.T.tocsr()).T,
    )


# The average.


def test_an_average_is_the_mean_of_its_members(inputs):
    seed_everything(0)
    nets = [make(4, 6), make(3, 6)]
    both = Average(nets)
    assert members(both) == nets and members(nets[0]) == nets[:1]
    expected = (nets[0](inputs).asnumpy() + nets[1](inputs).asnumpy()) / 2
    onp.testing.assert_allclose(both(inputs).asnumpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("settings", [{"optimizer": "sgd"}, {"loss": "paper", "wd": 5}])
def test_each_member_learns_what_it_would_alone(settings):
    train_mat, _ = parts()
    together = begin(Recipe(members=2, **SMALL, **settings), train_mat)
    nets, losses = members(together.net), []
    before = [weights(net) for net in nets]
    assert (before[0]["encoder.weight"] != before[1]["encoder.weight"]).all()
    history = list(together.epochs())
    for net, start in zip(nets, before):
        alone = begin(Recipe(**SMALL, **settings), train_mat)
        set_weights(alone.net, start)
        losses.append([epoch.train_loss for epoch in alone.epochs()])
        for name, value in weights(alone.net).items():
            onp.testing.assert_allclose(weights(net)[name], value, atol=1e-6)
            assert not onp.array_equal(value, start[name])
    mean = onp.mean(losses, axis=0)
    assert [epoch.train_loss for epoch in history] == pytest.approx(mean)


# The paper's objective.


def one_step(train_mat, devices=CPU, **settings):
    """Take a step of plain gradient descent; return it and the weights before."""
    recipe = Recipe(
        **{**SMALL, "num_epochs": 1, "batch_size": None, **settings},
        loss="paper",
        optimizer="sgd",
    )
    training = begin(recipe, train_mat, devices=devices)
    # Larger than they are drawn, so that the penalty counts, and none of them 0.
    before = {
        n: 10 * v
        + 0.1 * onp.sin(onp.arange(v.size, dtype=onp.float32)).reshape(v.shape)
        for n, v in weights(training.net).items()
    }
    set_weights(training.net, before)
    list(training.epochs())
    after = weights(training.net)
    return {name: after[name] - before[name] for name in before}, before


def objective(values, ratings, penalty):
    w = {name: value.astype(float) for name, value in values.items()}
    hidden = FORMULAS["sigmoid"](ratings @ w["encoder.weight"].T + w["encoder.bias"])
    outputs = hidden @ w["decoder.weight"].T + w["decoder.bias"]
    squared = onp.sum((outputs - ratings)[ratings > 0] ** 2)
    norms = (w["encoder.weight"] ** 2).sum() + (w["decoder.weight"] ** 2).sum()
    return squared + penalty / 2 * norms


def test_a_step_is_down_the_papers_objective():
    train_mat, _ = parts()
    step, before = one_step(train_mat, wd=300.0)
    ratings = train_mat.toarray().astype(float)
    for name, value in before.items():
        slope = onp.empty(value.shape)
        for place in onp.ndindex(*value.shape):
            sides = []
            for nudge in (1e-5, -1e-5):
                moved = value.astype(float)
                moved[place] += nudge
                sides.append(objective({**before, name: moved}, ratings, 300.0))
            slope[place] = (sides[0] - sides[1]) / 2e-5
        expected = -SMALL["lr"] * slope / (2 * train_mat.nnz)
        onp.testing.assert_allclose(step[name], expected, rtol=1e-3, atol=1e-5)


def test_biases_are_not_penalised():
    train_mat, _ = parts()
    free, held = (one_step(train_mat, wd=wd)[0] for wd in (0.0, 1e5))
    for name, value in free.items():
        assert onp.allclose(value, held[name]) == name.endswith("bias")


def test_without_a_weight_decay_the_penalty_is_by_size():
    train_mat, _ = parts()
    by_size = Recipe(loss="paper", wd=None).penalty(train_mat)
    row = train_mat.nnz / min(train_mat.shape)  # ratings per item or user
    assert by_size == pytest.approx(7.5 * row**0.5)
    given, _ = one_step(train_mat, wd=by_size)
    for name, value in one_step(train_mat, wd=None)[0].items():
        onp.testing.assert_array_equal(value, given[name])


def test_a_step_does_not_depend_on_how_the_batch_is_cut():
    train_mat, _ = parts()
    whole, _ = one_step(train_mat, wd=300.0, lr=1e-3)
    several, _ = one_step(train_mat, [mx.cpu(i) for i in range(3)], wd=300.0, lr=1e-3)
    # Three small steps: as far as thrice a third of the ratings takes them.
    three, _ = one_step(train_mat, wd=300.0, lr=1e-3, batch_size=8)
    for name, value in whole.items():
        onp.testing.assert_allclose(several[name], value, atol=1e-6)
        scale = 3 * abs(value).max()
        onp.testing.assert_allclose(three[name], 3 * value, atol=0.02 * scale)


# The masked RMSE.


def loss_and_gradient(predictions, ratings):
    predictions = mnp.array(predictions)
    predictions.attach_grad()
    with autograd.record():
        loss = MaskedRMSELoss()(predictions, mnp.array(ratings))
    loss.backward()
    return loss.asnumpy(), predictions.grad.asnumpy()


def test_the_masked_rmse_by_hand():
    loss, gradient = loss_and_gradient([1.0, 2.0, 4.0], [1.0, 4.0, 3.0])
    root = (5 / 3) ** 0.5  # of the squared errors 0, 4 and 1
    assert loss == pytest.approx([3 * root])
    assert gradient == pytest.approx([0, -2 / root, 1 / root])


def test_the_masked_rmse_has_a_gradient_where_there_is_no_error():
    loss, gradient = loss_and_gradient([1.0, 2.0], [1.0, 2.0])
    assert loss == pytest.approx([0], abs=1e-5)
    assert (gradient == 0).all()


# Rprop.


def rprop_steps(start, gradients, **settings):
    """Apply gradients one after the other; return the weights after each."""
    update = mx.optimizer.get_updater(mx.optimizer.create("rprop", **settings))
    weight, found = mx.nd.array(start), []
    for gradient in gradients:
        update(0, mx.nd.array(gradient), weight)
        found.append(weight.asnumpy().copy())
    return onp.array(found)


def test_rprop_by_hand():
    # The signs count; a change of sign halves the step and lets the weight rest.
    found = rprop_steps(
        [1.0, 1.0], [[2, 0], [0.5, 0], [-1, 0], [-1, 0], [-3, 0]], learning_rate=0.1
    )
    assert found[:, 0] == pytest.approx([0.9, 0.78, 0.78, 0.84, 0.912])
    assert (found[:, 1] == 1).all()


def test_rprop_decays_weights_by_its_gradient():
    found = rprop_steps([1.0, 1.0], [[-0.5, -2.0]], learning_rate=0.1, wd=1.0)
    assert found[0] == pytest.approx([0.9, 1.1])


def test_rprops_steps_stay_within_their_limits():
    steps = onp.diff(rprop_steps([0.0], [[-1.0]] * 40, learning_rate=1.0)[:, 0])
    assert steps.max() == pytest.approx(50.0)
    signs = [[(-1.0) ** (n // 2)] for n in range(80)]  # every other one a change
    found = rprop_steps([0.0], signs, learning_rate=1.0)[:, 0]
    assert abs(onp.diff(found[-4:])).max() == pytest.approx(1e-6, rel=0.5)


def test_rprop_finds_the_bottom_of_a_valley():
    update = mx.optimizer.get_updater(mx.optimizer.create("rprop", learning_rate=0.1))
    weight, bottom = mx.nd.array([0.0, 0.0]), mx.nd.array([3.0, -1.0])
    for _ in range(100):
        update(0, mx.nd.array([1, 1000]) * (weight - bottom), weight)
    assert weight.asnumpy() == pytest.approx([3, -1], abs=1e-3)


def test_rprop_trains():
    train_mat, _ = parts()
    recipe = Recipe(4, optimizer="rprop", batch_size=None, num_epochs=40, loss="paper")
    _, history = fit(recipe, train_mat)
    assert history[-1].train_loss < 0.3 * history[0].train_loss


# What a recipe is.


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_hidden", 0, "a whole number from 1 or a tuple of such"),
        ("num_hidden", 2.0, "a whole number from 1 or a tuple of such"),
        ("num_hidden", True, "a whole number from 1 or a tuple of such"),
        ("num_hidden", (), "a whole number from 1 or a tuple of such"),
        ("num_hidden", (8, -1), "a whole number from 1 or a tuple of such"),
        ("num_hidden", ((8,),), "a whole number from 1 or a tuple of such"),
        ("num_hidden", [8, 4], "a whole number from 1 or a tuple of such"),
        ("kind", "users", "one of item, user"),
        ("kind", ("item",), "one of item, user"),
        ("activation", "softmax", f"one of {', '.join(ACTIVATIONS)}"),
        ("output", None, f"one of {', '.join(ACTIVATIONS)}"),
        ("dropout", 1, "from 0 to below 1"),
        ("dropout", -0.1, "from 0 to below 1"),
        ("input_dropout", float("nan"), "from 0 to below 1"),
        ("input_dropout", "0.5", "from 0 to below 1"),
        ("members", 0, "a whole number from 1"),
        ("members", 1.5, "a whole number from 1"),
        ("loss", "l2", "one of book, paper, rmse"),
        ("optimizer", "adamax2", "one of adadelta, "),
        ("optimizer", None, "one of adadelta, "),
        ("lr", 0, "a number above 0"),
        ("lr", float("inf"), "a number above 0"),
        ("lr", True, "a number above 0"),
        ("schedule", "cos", "one of constant, cosine"),
        ("wd", -1.0, "a number from 0 or None"),
        ("wd", float("nan"), "a number from 0 or None"),
        ("num_epochs", 0, "a whole number from 1"),
        ("num_epochs", None, "a whole number from 1"),
        ("pretrain_epochs", -1, "a whole number from 0"),
        ("batch_size", 0, "a whole number from 1 or None"),
        ("batch_size", "all", "a whole number from 1 or None"),
        ("clip", 1, "one of False, True"),
        ("clip", "no", "one of False, True"),
        ("cold", "zero", "a number or mean or biases or None"),
        ("cold", float("-inf"), "a number or mean or biases or None"),
        ("cold", False, "a number or mean or biases or None"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name, value, wanted):
    with pytest.raises(ValueError) as refused:
        Recipe(**{name: value})
    assert str(refused.value).startswith(f"{name}={value!r} is not {wanted}")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"num_hidden": (8, 4, 8)}, "one hidden layer, not several"),
        ({"activation": "tanh"}, "activation sigmoid, not tanh"),
        ({"output": "sigmoid"}, "output identity, not sigmoid"),
        ({"dropout": 0.05}, "dropout 0, not 0.05"),
        ({"loss": "rmse"}, "loss book or paper, not rmse"),
        ({"optimizer": "SGD"}, "optimizer adam, not SGD"),
    ],
)
def test_ratings_are_left_out_where_their_prediction_is_known(settings, wanted):
    fits = {"leave_one_out": True, "dropout": 0, "num_hidden": (8,)}
    Recipe(**fits, optimizer="Adam", kind="user", members=2)
    with pytest.raises(ValueError, match=f"^leave_one_out needs {wanted}$"):
        Recipe(**{**fits, **settings})


def test_ratings_are_left_out_on_one_cpu():
    recipe = Recipe(4, leave_one_out=True, dropout=0.0)
    with pytest.raises(DeviceUnavailable, match=r"one CPU, not cpu\(0\), cpu\(1\)$"):
        Training(recipe, Parts(parts()[0]), [mx.cpu(0), mx.cpu(1)])


def test_every_setting_is_checked():
    # The optimizers are MXNet's, to be asked for when it has been imported.
    assert {*SETTINGS, "optimizer"} == set(Recipe.__dataclass_fields__)


def test_settings_that_make_sense_are_taken():
    Recipe((8, 4), optimizer="Adam", lr=1, cold=-2, wd=0, batch_size=None)
    Recipe((8,), loss="paper", wd=None, cold="mean", clip=True, members=2)


# What a recipe does besides.


def test_the_cosine_schedule_ends_at_zero_with_the_last_step():
    train_mat, _ = parts()
    recipe = Recipe(**{**SMALL, "num_epochs": 3}, schedule="cosine")
    training = begin(recipe, train_mat)
    rates = [training.trainer.learning_rate for _ in training.epochs()]
    steps = [24 // 5, 48 // 5, 72 // 5]  # what is left over waits for the next epoch
    expected = [0.05 * (1 + onp.cos(onp.pi * n / steps[-1])) / 2 for n in steps]
    assert rates == pytest.approx(expected)
    assert rates[-1] == 0


@pytest.fixture(scope="module")
def patterned():
    """Ratings that one hidden layer can learn: taste meets kind."""
    rng = onp.random.default_rng(0)
    taste, kind = rng.normal(size=(60, 2)), rng.normal(size=(2, 40))
    values = (3 + 1.5 * onp.tanh(taste @ kind)).astype(onp.float32)
    return sp.csr_matrix(values * (rng.random(values.shape) < 0.5))


def test_pretraining_starts_where_one_hidden_layer_ended(patterned, monkeypatch):
    monkeypatch.setattr(pretraining, "NUM_EPOCHS", 1000)
    settings = {"loss": "paper", "lr": 0.05, "wd": 1.0, "batch_size": 20}
    shallow = Recipe(8, num_epochs=60, dropout=0.0, **settings)
    deep = Recipe((8, 16, 8), pretrain_epochs=60, dropout=0.0, **settings)
    fresh = Recipe((8, 16, 8), dropout=0.0, **settings)
    # Its weights are yet to be drawn.
    alone = Training(shallow, Parts(patterned), CPU, 0)
    list(alone.epochs())
    pretrained = begin(deep, patterned)
    list(pretrained.pretraining)
    nets = {
        "shallow": alone.net,
        "deep": pretrained.net,
        "fresh": begin(fresh, patterned).net,
    }
    for name in ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"):
        one, other = (weights(nets[kind])[name] for kind in ("shallow", "deep"))
        onp.testing.assert_array_equal(one, other)
    error = {}
    for kind, net in nets.items():
        alone.net = net
        error[kind] = alone.rmse(patterned)
    assert error["deep"] < error["shallow"] + 0.15
    assert error["fresh"] > error["shallow"] + 1


@pytest.mark.parametrize("kind", ["item", "user"])
def test_cold_users_and_items_get_what_the_recipe_says(kind):
    train_mat, _ = parts()
    recipe = Recipe(kind=kind, **SMALL)
    net, _ = fit(recipe, train_mat)
    plain = all_cells(recipe, net, train_mat)
    rows = mnp.array(recipe.rows(train_mat).toarray())
    network = net(rows).asnumpy()
    expected = network.T if kind == "user" else network
    onp.testing.assert_allclose(plain, expected, rtol=1e-5)
    for cold, value in ((3.5, 3.5), ("mean", train_mat.data.mean())):
        expected = plain.copy()
        expected[3], expected[:, 2] = value, value
        found = all_cells(Recipe(kind=kind, cold=cold, **SMALL), net, train_mat)
        onp.testing.assert_allclose(found, expected, rtol=1e-6)


RECIPES = {
    "book": {},
    "user": {"kind": "user"},
    "average": {"members": 2, "loss": "paper", "wd": 5.0, "schedule": "cosine"},
    "clipped": {"clip": True, "cold": "mean", "loss": "rmse"},
    "bounded user": {"kind": "user", "output": "sigmoid", "loss": "paper"},
    "deep": {"num_hidden": (4, 3, 4), "pretrain_epochs": 2, "activation": "tanh"},
}


@pytest.mark.usefixtures("short_pretraining")
@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
def test_a_changed_test_rating_changes_no_prediction(settings):
    train_mat, test_mat = parts()
    other = test_mat.copy()
    other.data = 60 - other.data  # nor does it change the range
    recipe = Recipe(**{**SMALL, **settings})
    (net, history), (again, changed) = (
        fit(recipe, train_mat, part) for part in (test_mat, other)
    )
    assert history[-1].test_rmse != changed[-1].test_rmse
    onp.testing.assert_array_equal(
        all_cells(recipe, net, train_mat), all_cells(recipe, again, train_mat)
    )


@pytest.mark.usefixtures("short_pretraining")
@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
def test_a_training_lowers_its_loss(settings):
    train_mat, _ = parts()
    _, history = fit(Recipe(**{**SMALL, **settings, "num_epochs": 20}), train_mat)
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.parametrize("clip", [True, False])
def test_predictions_are_held_to_the_training_ratings_range(clip):
    train_mat, test_mat = parts()
    train_mat.data = train_mat.data.clip(2, 4)
    recipe = Recipe(**{**SMALL, "num_epochs": 30}, clip=clip, members=2)
    found = all_cells(recipe, fit(recipe, train_mat)[0], train_mat)
    assert (found.min() >= 2 and found.max() <= 4) == clip


def test_a_dense_training_of_the_family_is_the_sparse_one():
    train_mat, _ = parts()
    recipe = Recipe(**SMALL, activation="tanh", output="sigmoid")
    sparse = begin(recipe, train_mat)
    before = weights(sparse.net)
    masked = begin(recipe, train_mat)
    set_weights(masked.net, before)
    step = Step(masked.net, gluon.loss.L2Loss(), masked.trainer, CPU)
    batches = SeededBatches(row_batches(train_mat, 5, shuffle=True), seed=0)
    epochs = train_epochs(batches, step, 2, lambda: 0.0)
    losses = [epoch.train_loss for epoch in epochs]
    assert [e.train_loss for e in sparse.epochs()] == pytest.approx(losses, rel=1e-4)
    for name, value in weights(sparse.net).items():
        onp.testing.assert_allclose(weights(masked.net)[name], value, atol=1e-3)
