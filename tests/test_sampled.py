"""The network at some cells alone, beside the network's whole output."""

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import autograd, gluon

from d2l_autorec import AutoRec, Average, DeepAutoRec, seed_everything
from d2l_autorec._ready import num_cores
from d2l_autorec.fast.arrays import observed_cells, on_device
from d2l_autorec.fast.cells import backward_at, reconstruction
from d2l_autorec.fast.compiled import num_threads

pytestmark = pytest.mark.usefixtures("two_threads")

NUM_ROWS, NUM_USERS = 7, 13
NETWORKS = {
    "book": {"num_hidden": 5},
    "deep": {"num_hidden": (6, 3, 6), "activation": "tanh"},
    "clipped": {"num_hidden": 5, "rating_range": (1, 5)},
    "bounded": {"num_hidden": 5, "output": "sigmoid", "rating_range": (1, 5)},
    "relu": {"num_hidden": 5, "output": "relu"},
    "one unit": {"num_hidden": 1},
}


def test_the_loops_run_in_parallel():
    assert num_threads() == min(2, num_cores())


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


def reconstruct_at(net, rows, cells, device=None):
    return reconstruction(net, device or mx.cpu())(rows, cells)


def gradients(net):
    parameters = net.collect_params().values()
    return [parameter.list_grad()[0].asnumpy().copy() for parameter in parameters]


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_its_outputs_are_the_networks(ratings, settings):
    net, inputs = make(settings), mx.np.array(ratings.toarray())
    cells = ratings.tocsc()
    found = reconstruct_at(net, ratings, cells).asnumpy()
    expected = net(inputs).asnumpy()[tuple(observed_cells(cells, mx.cpu()).asnumpy())]
    onp.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_averages_outputs_are_the_mean(ratings):
    nets = [make(NETWORKS["book"]), make(NETWORKS["clipped"])]
    cells = ratings.tocsc()
    found = reconstruct_at(Average(nets), ratings, cells).asnumpy()
    each = [reconstruct_at(net, ratings, cells).asnumpy() for net in nets]
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
    expected = [reconstruct_at(net, ratings, cells)]
    expected.append(backward_at(net, inputs, cells, loss))
    expected_gradients = gradients(net)
    # In a CPU's memory, but by its name another kind of device.
    elsewhere = mx.Context("cpu_shared", 0)
    net.collect_params().reset_ctx(elsewhere)
    inputs = inputs.as_in_ctx(elsewhere)
    assert inputs.ctx.device_type != "cpu"
    found = [reconstruct_at(net, ratings, cells, elsewhere)]
    found.append(backward_at(net, inputs, cells, loss))
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
    found = reconstruct_at(net, ratings, ratings).asnumpy()
    same = make(NETWORKS["deep"])
    expected = reconstruct_at(same, ratings, ratings).asnumpy()
    onp.testing.assert_array_equal(found, expected)


class OwnForward(AutoRec):
    def forward(self, inputs):
        return 2 * super().forward(inputs) + inputs


class OwnReconstruct(AutoRec):
    def reconstruct(self, inputs):
        return super().reconstruct(inputs) + inputs.sum(axis=1, keepdims=True)


class OwnEncode(AutoRec):
    def encode(self, inputs):
        return super().encode(inputs) ** 2


class OwnDense(gluon.nn.Dense):
    def forward(self, hidden):
        return 3 * super().forward(hidden)


class OwnDecoder(AutoRec):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoder = OwnDense(NUM_USERS)


class NoBias(AutoRec):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoder = gluon.nn.Dense(NUM_USERS, use_bias=False)


class OverTheRow(AutoRec):
    """Its activation is not of each cell by itself."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoder.act = gluon.nn.LayerNorm()


class TwoDecoders(AutoRec):
    def __init__(self, num_hidden, num_users, dropout):
        gluon.Block.__init__(self)
        self.encoder = gluon.nn.Dense(num_hidden, activation="sigmoid")
        self.dropout = gluon.nn.Dropout(dropout)
        self.decoder = gluon.nn.Sequential()
        self.decoder.add(gluon.nn.Dense(4), gluon.nn.Dense(NUM_USERS))


OWN = OwnForward, OwnReconstruct, OwnEncode, OwnDecoder, NoBias, OverTheRow, TwoDecoders


def make_own(own):
    seed_everything(3)
    net = own(5, NUM_USERS, dropout=0.0)
    net.initialize(mx.init.Normal(0.5))
    net(mx.np.zeros((1, NUM_USERS)))
    return net


def whole(net, inputs, cells):
    """Compute the network's own output, and pick the cells."""
    return mx.npx.gather_nd(net(inputs), observed_cells(cells, mx.cpu()))


def backward_whole(net, inputs, cells, loss):
    with autograd.record():
        losses = loss(whole(net, inputs, cells), on_device(cells.data, mx.cpu()))
    losses.backward()
    return losses


@pytest.mark.parametrize("own", OWN)
def test_a_class_of_ones_own_predicts_what_it_says(ratings, own):
    net, inputs = make_own(own), mx.np.array(ratings.toarray())
    cells = ratings.tocsc()
    found = reconstruct_at(net, ratings, cells).asnumpy()
    expected = whole(net, inputs, cells).asnumpy()
    onp.testing.assert_allclose(found, expected, rtol=1e-4)
    both = Average([net, make(NETWORKS["book"])])
    found = reconstruct_at(both, ratings, cells).asnumpy()
    expected = whole(both, inputs, cells).asnumpy()
    onp.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_average_of_ones_own_predicts_what_it_says(ratings):
    class Lowest(Average):
        def forward(self, inputs):
            return mx.np.minimum(*(net(inputs) for net in self))

    net = Lowest([make_own(AutoRec), make(NETWORKS["book"])])
    inputs, cells = mx.np.array(ratings.toarray()), ratings.tocsc()
    found = reconstruct_at(net, ratings, cells).asnumpy()
    onp.testing.assert_allclose(found, whole(net, inputs, cells).asnumpy(), rtol=1e-4)


@pytest.mark.parametrize("own", OWN)
def test_a_class_of_ones_own_learns_what_it_says(ratings, own):
    inputs, cells = mx.np.array(ratings.toarray()), ratings.tocsc()
    loss = gluon.loss.L2Loss()
    net, reference = make_own(own), make_own(own)
    losses = backward_at(net, inputs, cells, loss)
    expected = backward_whole(reference, inputs, cells, loss)
    onp.testing.assert_allclose(losses.asnumpy(), expected.asnumpy(), rtol=1e-3)
    assert_same_gradients(net, reference)


def assert_same_gradients(net, reference):
    for found, expected in zip(
        net.collect_params().values(), reference.collect_params().values()
    ):
        assert found.grad_req == expected.grad_req
        if found.grad_req != "null":
            expected = expected.grad().asnumpy()
            size = onp.abs(expected).max()
            onp.testing.assert_allclose(
                found.grad().asnumpy(), expected, atol=1e-5 * size + 1e-7
            )


@pytest.mark.parametrize(
    ("grad_req", "part"),
    [
        *(("add", part) for part in ("encoder", "decoder", "decoder.bias", "")),
        *(("null", part) for part in ("encoder", "decoder", "decoder.bias")),
    ],
)
def test_what_becomes_of_a_gradient_is_the_parameters_to_say(ratings, grad_req, part):
    inputs, cells = mx.np.array(ratings.toarray()), ratings.tocsc()
    loss = gluon.loss.L2Loss()
    nets = make_own(AutoRec), make_own(AutoRec)
    for net in nets:
        layer, _, name = part.partition(".")
        chosen = getattr(net, layer) if layer else net
        for parameter in chosen.collect_params(f".*{name}").values():
            parameter.grad_req = grad_req
    for _ in range(2):
        backward_at(nets[0], inputs, cells, loss)
        backward_whole(nets[1], inputs, cells, loss)
    assert_same_gradients(*nets)
