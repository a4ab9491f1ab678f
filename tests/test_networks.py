"""The networks of a recipe: what they compute, in training and after it."""

import mxnet as mx
import numpy as np
import pytest
import scipy.sparse as sp
from mxnet import autograd

from d2l_autorec import AutoRec, DeepAutoRec, Recipe, seed_everything
from d2l_autorec.training import network, parameter_shapes
from d2l_autorec.training.member import masked_rmse
from d2l_autorec.training.networks import Output, RowScaling
from d2l_autorec.training.settings import ACTIVATIONS

ROWS = [[5, 0, 3, 0, 1, 0], [0, 2, 0, 0, 4, 4], [0, 0, 0, 0, 0, 2]]


@pytest.fixture
def inputs():
    return mx.np.array(ROWS, dtype="float32")


def make(*args, scale=0.5, **settings):
    seed_everything(0)
    net = DeepAutoRec(*args, **{"dropout": 0.0, **settings})
    net.initialize(mx.init.Normal(scale))
    return net


def test_its_defaults_are_autorec_to_the_last_bit(inputs):
    def outputs(kind):
        seed_everything(3)
        net = kind(4, 6)
        net.initialize(mx.init.Normal(0.5))
        with autograd.record():
            training = net(inputs)
        return np.stack([training.asnumpy(), net(inputs).asnumpy()])

    np.testing.assert_array_equal(outputs(DeepAutoRec), outputs(AutoRec))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


FORMULAS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "elu": elu,
    "selu": lambda x: 1.05070098 * np.where(x > 0, x, 1.67326324 * elu(x)),
}
# Over the range from 2 to 5.
STRETCHED = {"sigmoid": lambda y: 2 + 3 * y, "tanh": lambda y: 2 + 1.5 * (y + 1)}


@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_layers_are_the_formula(inputs, activation, output):
    rating_range = (2, 5) if output in STRETCHED else None
    net = make([4, 3], 6, activation=activation, output=Output(output, rating_range))
    found, g = net(inputs).asnumpy(), FORMULAS[activation]
    w = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    hidden = g(inputs.asnumpy() @ w["encoder.weight"].T + w["encoder.bias"])
    hidden = g(hidden @ w["deeper.0.weight"].T + w["deeper.0.bias"])
    expected = FORMULAS[output](hidden @ w["decoder.weight"].T + w["decoder.bias"])
    expected = STRETCHED.get(output, lambda y: y)(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output", ["identity", "relu", *STRETCHED])
def test_predictions_fill_the_range_and_are_held_to_it_but_in_training(inputs, output):
    net = make(4, 6, output=Output(output, (2, 5)), scale=50)
    with autograd.train_mode():
        free = net.reconstruct(inputs).asnumpy()
    found = net(inputs).asnumpy()
    assert (found.min(), found.max()) == pytest.approx((2, 5))
    np.testing.assert_array_equal(found, free.clip(2, 5))
    assert (free.min() < 2 and free.max() > 5) == (output not in STRETCHED)
    with autograd.record():
        training = net(inputs).asnumpy()
    np.testing.assert_array_equal(training, free * np.sign(inputs.asnumpy()))


@pytest.mark.parametrize("output", STRETCHED)
def test_a_bounded_output_needs_a_range(output):
    with pytest.raises(ValueError, match=f"a {output} output needs a rating_range"):
        Output(output)


def test_input_dropout_acts_in_training_only_and_not_on_the_mask(inputs):
    net, seen = make(4, 6, input_rate=0.5), set()
    np.testing.assert_array_equal(net(inputs).asnumpy(), net(inputs).asnumpy())
    for _ in range(5):
        with autograd.record():
            outputs = net(inputs).asnumpy()
        assert ((outputs != 0) == (inputs.asnumpy() != 0)).all()
        seen.add(outputs.tobytes())
    assert len(seen) > 1


def test_rows_are_scaled_by_how_many_ratings_they_have(inputs):
    net = make(4, 6, scaling=RowScaling(0.4, 3.0))
    inputs[0, :4] = 0
    counts = np.array([[1], [3], [1]])
    scaled = (inputs.asnumpy() * (3 / counts) ** 0.4).astype(np.float32)
    found, net.scaling = net.encode(inputs).asnumpy(), None
    expected = net.encode(mx.np.array(scaled)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The typical number is a geometric mean.
    rows = sp.csr_matrix([[1, 2, 3, 4, 5, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0], 8 * [0]])
    assert network(Recipe(2, balance=0.5), rows).scaling.typical == pytest.approx(4)


@pytest.mark.parametrize("num_hidden", [4, (4,), (4, 3, 5)])
@pytest.mark.parametrize("kind", ["item", "user"])
def test_parameters_have_the_shapes_that_were_foretold(kind, num_hidden):
    recipe, mat = Recipe(num_hidden, kind), sp.csr_matrix(ROWS, dtype=np.float32)
    net = network(recipe, mat)
    net.initialize()
    net(mx.np.array(recipe.rows(mat).toarray()))
    found = {n: p.shape for n, p in net._collect_params_with_prefix().items()}
    assert found == dict(parameter_shapes(recipe, mat.shape))


@pytest.mark.parametrize(
    ("predictions", "ratings", "errors"),
    [([1, 2, 4], [1, 4, 3], [0, -2, 1]), ([1, 2], [1, 2], [0, 0])],
)
def test_the_masked_rmse_by_hand(predictions, ratings, errors):
    predictions = mx.np.array(predictions)
    predictions.attach_grad()
    with autograd.record():
        loss = masked_rmse(predictions, mx.np.array(ratings))
    loss.backward()
    root = np.sqrt(np.mean(np.square(errors)))
    assert loss.asnumpy() == pytest.approx([len(errors) * root], abs=1e-5)
    # It is 0 where there is no error, and the root has no derivative.
    assert predictions.grad.asnumpy() == pytest.approx(np.array(errors) / (root or 1))
