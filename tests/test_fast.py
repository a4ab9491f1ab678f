"""The fast step learns what the book's does; predictions are the network's."""

from contextlib import suppress

import mxnet as mx
import numpy as np
import pytest
import scipy.sparse as sp
from mxnet import autograd, gluon

from d2l_autorec import AutoRec, seed_everything
from d2l_autorec._mxnet import openmp
from d2l_autorec.errors import DataError
from d2l_autorec.fast import FastStep, SparseNetwork, predict_cells
from d2l_autorec.fast.hidden import SigmoidLayer, dropout_mask
from d2l_autorec.loop import Losses, Step, train_epochs
from d2l_autorec.training import DeepAutoRec
from d2l_autorec.training.member import masked_rmse
from d2l_autorec.training.networks import Output, RowScaling

pytestmark = pytest.mark.usefixtures("two_threads")
NUM_ROWS, NUM_COLUMNS, CPU = 23, 17, [mx.cpu()]


def ratings(lowest=1):
    """Ratings of which some rows and columns have none, the first and last too."""
    rng = np.random.default_rng(0)
    dense = rng.integers(lowest, 6, (NUM_ROWS, NUM_COLUMNS)) + rng.random()
    dense *= rng.random(dense.shape) < 0.4
    dense[[0, 7, 22]] = 0
    dense[:, [0, 9, 16]] = 0
    return sp.csr_matrix(dense.astype(np.float32))


def deep(num_hidden=8, activation="sigmoid", output=None, **kwargs):
    kwargs = {"dropout": 0.0, **kwargs}
    args = num_hidden, NUM_COLUMNS, kwargs.pop("dropout"), activation
    return DeepAutoRec(*args, output and Output(*output), **kwargs)


NETWORKS = {
    "book": lambda: AutoRec(8, NUM_COLUMNS, 0.0),
    "wide": lambda: AutoRec(100, NUM_COLUMNS, 0.0),
    "dropout": lambda: AutoRec(8, NUM_COLUMNS, 0.4),
    "two layers": lambda: deep((8, 4)),
    "three layers, dropout": lambda: deep((8, 4, 8), dropout=0.3),
    **{name: lambda name=name: deep(8, name) for name in ("identity", "relu", "tanh")},
    **{name: lambda name=name: deep((8, 4), name) for name in ("elu", "selu")},
    "stretched": lambda: deep(8, output=("sigmoid", (1, 7))),
    "stretched tanh": lambda: deep(8, output=("tanh", (1, 7))),
    "clipped": lambda: deep(8, output=("identity", (2, 4))),
    "input dropout": lambda: deep(8, input_rate=0.4),
    "scaled rows": lambda: deep(8, scaling=RowScaling(0.5, 6.0)),
}
LOSSES = {
    "squared": gluon.loss.L2Loss(),
    "weighted": gluon.loss.L2Loss(weight=3.0),
    "absolute": gluon.loss.L1Loss(),
    "root": masked_rmse,
}


class Masks(gluon.nn.Dropout):
    """Dropout by the masks that the fast step draws, for the book's step.

    Those of inputs are drawn for the ratings, column by column.
    """

    def __init__(self, rate, step, of_inputs=False):
        super().__init__(rate)
        self._step, self._of_inputs = step, of_inputs

    def forward(self, values):
        if not self._rate or not autograd.is_training():
            return values
        rng, mask = self._step[0].rng, np.zeros(values.shape, np.float32)
        if not self._of_inputs:
            mask = dropout_mask(values.shape, self._rate, rng)
        else:
            at = np.argwhere(values.asnumpy().T != 0)
            mask[at[:, 1], at[:, 0]] = dropout_mask((len(at),), self._rate, rng)
        return values * mx.np.array(mask)


class BookStep(Step):
    """The book's step, whose dropout draws as the fast one's does."""

    def seed(self, seed):
        self.rng = np.random.default_rng(seed)


class OnOthers(BookStep):
    """The book's step on rows of a rating each, which lack this very rating."""

    def backward(self, batch):
        at, length = batch.tocoo(), batch.shape[1]
        inputs = batch.toarray()[at.row]
        inputs[np.arange(at.nnz), at.col] = 0
        with autograd.record():
            outputs = self.net.reconstruct(mx.np.array(inputs))
            found = mx.npx.pick(outputs, mx.np.array(at.col))
            losses = self.loss(found, mx.np.array(at.data))
        losses.backward()
        return Losses([losses], batch.shape[0], length, self.mean_over or length)


def started(make, kind, loss=LOSSES["squared"], mean_over=None, **kwargs):
    """Make a network and a step for it."""
    seed_everything(4)
    net, its_step = make(), []
    if kind is not FastStep:
        net.dropout = Masks(net.dropout._rate, its_step)
        if hasattr(net, "corruption"):
            net.corruption = Masks(net.input_rate, its_step, of_inputs=True)
    net.initialize(mx.init.Normal(0.3), ctx=CPU)
    net(mx.np.zeros((1, NUM_COLUMNS)))
    net.decoder.bias.wd_mult = 0.0
    # Adam hides the gradients' size, but where epsilon is large.
    settings = {"learning_rate": 0.05, "wd": 0.01, "epsilon": 0.01}
    settings["lr_scheduler"] = mx.lr_scheduler.CosineScheduler(20, 0.05)
    trainer = gluon.Trainer(net.collect_params(), "adam", settings)
    its_step.append(kind(net, loss, trainer, CPU, mean_over, **kwargs))
    return net, its_step[0]


def learned(make, kind, train_mat=None, **kwargs):
    """Train for three epochs; return the losses, and the parameters."""
    net, step = started(make, kind, **kwargs)
    train_mat = ratings() if train_mat is None else train_mat
    losses = []
    for epoch in range(3):
        for start in range(0, NUM_ROWS, 5):
            step.seed([epoch, start])
            step(train_mat[start : start + 5])
        losses.append(step.finish()[0])
    return losses, [p.data().asnumpy() for p in net.collect_params().values()]


@pytest.fixture
def threads(request):
    openmp("omp_set_num_threads", int)(request.param)
    yield
    openmp("omp_set_num_threads", int)(2)


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    assert expected[0][0] != expected[0][2]
    for array, reference in zip(found[1], expected[1], strict=True):
        size = np.abs(reference).max()
        np.testing.assert_allclose(array, reference, atol=1e-4 * size + 1e-9)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_any_network_learns_what_it_learns_by_the_books_step(make):
    assert_same(learned(make, FastStep), learned(make, BookStep))


@pytest.mark.parametrize("network", ["book", "dropout", "two layers", "stretched"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_any_loss_will_do(loss, network):
    kwargs = {"loss": loss, "mean_over": 4.5}
    make = NETWORKS[network]
    assert_same(learned(make, FastStep, **kwargs), learned(make, BookStep, **kwargs))


@pytest.mark.parametrize("network", ["book", "input dropout", "scaled rows"])
def test_what_is_learned_may_be_negative(network):
    make, residuals = NETWORKS[network], ratings(lowest=-5)
    found = learned(make, FastStep, residuals)
    assert_same(found, learned(make, BookStep, residuals))


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("network", ["book", "input dropout"])
def test_each_rating_may_be_learned_from_the_others_of_its_row(network, threads):
    make = NETWORKS["book"] if network == "book" else lambda: deep(8)
    found = learned(make, FastStep, mean_over=4.5, leave_one_out=True)
    assert_same(found, learned(make, OnOthers, mean_over=4.5))


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("network", NETWORKS)
def test_predictions_are_the_networks(network, threads):
    net, _ = started(NETWORKS[network], FastStep)
    train_mat, cells = ratings(), sp.csr_matrix(ratings().toarray()[::-1])
    at = cells.tocoo()
    expected = net(mx.np.array(train_mat.toarray())).asnumpy()[at.row, at.col]
    for predicts in (SparseNetwork(net), net):
        found = predict_cells(predicts, train_mat, cells, CPU)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_network_has_what_was_learned_after_an_epoch_be_it_interrupted():
    def batches():
        yield ratings()
        raise KeyboardInterrupt

    net, step = started(NETWORKS["book"], FastStep)
    with suppress(KeyboardInterrupt):
        list(train_epochs(batches(), step, 1, lambda: None))
    learned_so_far = step.sparse.encoder_weight.T
    assert (net.encoder.weight.data().asnumpy() == learned_so_far).all()


def test_a_state_can_be_put_back():
    net, step = started(NETWORKS["two layers"], FastStep)
    step(ratings())
    kept = {name: array.copy() for name, array in step.state().items()}
    step(ratings())
    step.set_state(kept)
    assert step.num_updates == 1
    assert all((step.state()[name] == kept[name]).all() for name in kept)
    with pytest.raises(ValueError, match="decoder.bias.mean"):
        step.set_state({**kept, "decoder.bias.mean": np.zeros(3)})
    with pytest.raises(ValueError, match="missing"):
        step.set_state({"num_updates": kept["num_updates"]})


@pytest.mark.parametrize(
    ("optimizer", "devices"),
    [
        ("sgd", CPU),
        (mx.optimizer.Adam(clip_gradient=0.5), CPU),
        ("adam", [mx.cpu(0), mx.cpu(1)]),
        ("adam", [mx.Context("cpu_pinned", 0)]),
    ],
)
def test_it_is_not_for_others(optimizer, devices):
    net = NETWORKS["book"]()
    net.initialize(ctx=devices)
    trainer = gluon.Trainer(net.collect_params(), optimizer)
    assert not FastStep.fits(trainer, devices)


def test_matrices_of_another_shape_are_refused():
    _, step = started(NETWORKS["book"], FastStep)
    for use in (step, step.sparse.encode):
        with pytest.raises(DataError, match="ratings of"):
            use(ratings()[:, 1:])
    with pytest.raises(DataError, match="cells of"):
        predict_cells(step.sparse, ratings(), ratings()[:5], CPU)


def test_gradients_take_no_memory():
    net, _ = started(NETWORKS["two layers"], FastStep)
    assert net.encoder.weight.grad_req == net.decoder.weight.grad_req == "null"
    assert net.deeper[0].weight.grad_req == "write"


def test_the_loops_sigmoid_is_the_sigmoid():
    values = np.linspace(-120, 120, 100_001, dtype=np.float32).reshape(-1, 1)
    values[0] = np.nan
    found = SigmoidLayer(0.0).predict(values.copy())
    expected = 1 / (1 + np.exp(-values.astype(np.float64)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-37)


def test_a_dropout_mask_keeps_the_mean():
    mask = dropout_mask((400, 500), 0.2, np.random.default_rng(0))
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1.25)}
    assert mask.mean() == pytest.approx(1, abs=0.01)
