"""The network at some cells alone, beside the network's whole output."""

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import autograd, gluon

from d2l_autorec import Average, DeepAutoRec, seed_everything
from d2l_autorec.data import observed_cells, on_device
from d2l_autorec.sampled import backward_at, reconstruct_at

NUM_ROWS, NUM_USERS = 7, 13
NETWORKS = {
    "book": {"num_hidden": 5},
    "deep": {"num_hidden": (6, 3, 6), "activation": "tanh"},
    "clipped": {"num_hidden": 5, "rating_range": (1, 5)},
    "bounded": {"num_hidden": 5, "output": "sigmoid", "rating_range": (1, 5)},
    "relu": {"num_hidden": 5, "output": "relu"},
    "one unit": {"num_hidden": 1},
}


@pytest.fixture
def ratings():
    """Ratings of which one row and some columns have none, the first and last too."""
    rng = onp.random.default_rng(0)
    dense = rng.integers(1, 6, (NUM_ROWS, NUM_USERS)) * (
        rng.random((NUM_ROWS, NUM_USERS)) < 0.4
    )
    dense[2] = 0
    dense[:, [0, 5, NUM_USERS - 1]] = 0
    return sp.csr_matrix(dense.astype(onp.float32))


def make(settings, initialized=True):
    seed_everything(3)
    net = DeepAutoRec(num_users=NUM_USERS, dropout=0.0, **settings)
    net.initialize(mx.init.Normal(2.0))
    if initialized:
        net(mx.np.zeros((1, NUM_USERS)))
    return net


def gradients(net):
    parameters = net.collect_params().values()
    return [parameter.list_grad()[0].asnumpy().copy() for parameter in parameters]


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_its_outputs_are_the_networks(ratings, settings):
    net, inputs = make(settings), mx.np.array(ratings.toarray())
    cells = ratings.tocsc()
    found = reconstruct_at(net, inputs, cells).asnumpy()
    expected = net(inputs).asnumpy()[tuple(observed_cells(cells, mx.cpu()).asnumpy())]
    onp.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_averages_outputs_are_the_mean(ratings):
    nets = [make(NETWORKS["book"]), make(NETWORKS["clipped"])]
    inputs, cells = mx.np.array(ratings.toarray()), ratings.tocsc()
    found = reconstruct_at(Average(nets), inputs, cells).asnumpy()
    each = [reconstruct_at(net, inputs, cells).asnumpy() for net in nets]
    onp.testing.assert_allclose(found, (each[0] + each[1]) / 2, rtol=1e-5)


@pytest.mark.parametrize("loss", [gluon.loss.L2Loss(), gluon.loss.L1Loss()], ids=repr)
@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_its_gradients_are_the_networks(ratings, settings, loss):
    net, inputs = make(settings), mx.np.array(ratings.toarray())
    cells = ratings.tocsc()
    losses = backward_at(net, inputs, cells, loss)
    found = gradients(net)
    index = observed_cells(cells, mx.cpu())
    with autograd.record():
        outputs = mx.npx.gather_nd(net.reconstruct(inputs), index)
        expected = loss(outputs, on_device(cells.data, mx.cpu()))
    expected.backward()
    onp.testing.assert_allclose(losses.asnumpy(), expected.asnumpy(), rtol=1e-3)
    for gradient, reference in zip(found, gradients(net)):
        size = onp.abs(reference).max()
        onp.testing.assert_allclose(gradient, reference, atol=1e-5 * size + 1e-7)


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_a_device_that_is_no_cpu_computes_the_same(ratings, settings):
    net, inputs = make(settings), mx.np.array(ratings.toarray())
    cells, loss = ratings.tocsc(), gluon.loss.L2Loss()
    expected = reconstruct_at(net, inputs, cells), backward_at(net, inputs, cells, loss)
    expected_gradients = gradients(net)
    # In a CPU's memory, but by its name another kind of device.
    elsewhere = mx.Context("cpu_shared", 0)
    net.collect_params().reset_ctx(elsewhere)
    inputs = inputs.as_in_ctx(elsewhere)
    assert inputs.ctx.device_type != "cpu"
    found = reconstruct_at(net, inputs, cells), backward_at(net, inputs, cells, loss)
    for array, reference in zip(found, expected):
        onp.testing.assert_allclose(array.asnumpy(), reference.asnumpy(), rtol=1e-3)
    for gradient, reference in zip(gradients(net), expected_gradients):
        size = onp.abs(reference).max()
        onp.testing.assert_allclose(gradient, reference, atol=1e-5 * size + 1e-7)


def test_a_gradient_does_not_keep_what_was_there_before(ratings):
    net, inputs = make(NETWORKS["book"]), mx.np.array(ratings.toarray())
    for cells in (ratings.tocsc(), ratings[:, ::-1].tocsc(), ratings.tocsc()):
        backward_at(net, inputs, cells, gluon.loss.L2Loss())
    again = gradients(net)
    fresh = make(NETWORKS["book"])
    backward_at(fresh, inputs, ratings.tocsc(), gluon.loss.L2Loss())
    for gradient, reference in zip(again, gradients(fresh)):
        onp.testing.assert_array_equal(gradient, reference)


def test_the_first_batch_may_meet_a_network_that_does_not_know_its_widths(ratings):
    net = make(NETWORKS["deep"], initialized=False)
    inputs = mx.np.array(ratings.toarray())
    found = reconstruct_at(net, inputs, ratings.tocsc()).asnumpy()
    same = make(NETWORKS["deep"])
    expected = reconstruct_at(same, inputs, ratings.tocsc()).asnumpy()
    onp.testing.assert_array_equal(found, expected)
