"""The step that updates weights where their gradients are made, beside the others."""

import sys
from contextlib import suppress
from itertools import chain

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import autograd, gluon

from d2l_autorec import AutoRec, Average, DeepAutoRec, row_batches, seed_everything
from d2l_autorec._mxnet import openmp
from d2l_autorec.errors import DataError
from d2l_autorec.fast import (
    FusedStep,
    LeaveOneOutStep,
    SparseStep,
    between,
    fused,
    members,
    rows,
)
from d2l_autorec.fast.arrays import forget, state_of
from d2l_autorec.fast.products import by_columns
from d2l_autorec.loop import Losses, Step, train_epochs
from d2l_autorec.training import MaskedRMSELoss

pytestmark = pytest.mark.usefixtures("two_threads")

NUM_ITEMS, NUM_USERS = 23, 45
CPU = [mx.cpu()]


def ratings(empty=3):
    """Ratings of which the first rows, and some columns, have none."""
    rng = onp.random.default_rng(0)
    dense = rng.integers(1, 6, (NUM_ITEMS, NUM_USERS)).astype(onp.float32)
    dense *= rng.random(dense.shape) < 0.3
    dense[:empty] = 0
    dense[:, [0, 7, NUM_USERS - 1]] = 0
    return sp.csr_matrix(dense)


def book():
    return AutoRec(8, NUM_USERS, 0.5)


def deep():
    return DeepAutoRec((6, 3, 6), NUM_USERS, 0.5, "tanh", rating_range=(1, 5))


def bounded():
    return DeepAutoRec(8, NUM_USERS, 0.5, output="sigmoid", rating_range=(1, 5))


def balanced():
    return DeepAutoRec(8, NUM_USERS, 0.5, balance=0.5, typical=4.0)


def all_kept():
    return AutoRec(8, NUM_USERS, 0.0)


def average():
    return Average([book(), deep()])


def wide():
    return AutoRec(200, NUM_USERS, 0.5)


def wide_average():
    return Average([wide(), wide()])


def wide_dropped():
    return DeepAutoRec(200, NUM_USERS, 0.5, input_dropout=0.3)


def mixed_average():
    return Average([wide(), DeepAutoRec((200, 3, 200), NUM_USERS, 0.5, "tanh")])


class OnOthers(SparseStep):
    """The book's step on rows of a rating each, which lack this very rating."""

    def backward(self, batch):
        at, length = batch.tocoo(), batch.shape[1]
        inputs = batch.toarray()[at.row]
        inputs[onp.arange(at.nnz), at.col] = 0
        losses = []
        with autograd.record():
            for net in members(self.net):
                outputs = net.reconstruct(mx.np.array(inputs))
                found = mx.npx.pick(outputs, mx.np.array(at.col))
                losses.append(self.loss(found, mx.np.array(at.data)))
        autograd.backward(losses)
        return Losses(losses, batch.shape[0], length, self.cells_per_row or length)


def dropped():
    """A network without the inputs that are 3, whatever the order of the cells."""
    net = DeepAutoRec(8, NUM_USERS, 0.0)
    net.corruption = lambda inputs: 2 * inputs * (inputs != 3)
    return net


def dropped_twice():
    return Average([dropped(), all_kept()])


def train(kind, make, loss=None, optimizer="fusedadam", cells_per_row=None, empty=3):
    """Train for three epochs; return the losses, and what was learned."""
    seed_everything(4)
    net = make()
    net.initialize(mx.init.Normal(0.1), ctx=CPU)
    # Adam is sensitive to the gradients' size only where epsilon is large.
    settings = {"learning_rate": 0.05, "wd": 0.01, "epsilon": 0.01}
    trainer = gluon.Trainer(net.collect_params(), optimizer, settings)
    extra = () if kind is Step else (cells_per_row,)
    step = kind(net, loss or gluon.loss.L2Loss(), trainer, CPU, *extra)
    batches = row_batches(ratings(empty), 5, sparse=True)
    losses = []
    for epoch in range(3):
        getattr(step, "seed", seed_everything)(epoch)
        for batch in batches:
            step(batch)
        losses.append(step.finish())
    parameters = net.collect_params().values()
    learned = [parameter.data().asnumpy() for parameter in parameters]
    for parameter in parameters:
        learned += [array.asnumpy() for array in state_of(trainer, parameter)]
    return net, trainer, losses, learned


def assert_same(found, expected):
    onp.testing.assert_allclose(found[2], expected[2], rtol=1e-4)
    assert found[2][0][0] != found[2][2][0]
    for array, reference in zip(found[3], expected[3]):
        size = onp.abs(reference).max()
        onp.testing.assert_allclose(array, reference, atol=1e-4 * size + 1e-9)


@pytest.mark.parametrize(
    "make",
    [
        *(book, balanced, all_kept, deep, bounded, average),
        *(wide, wide_average, mixed_average),
    ],
)
def test_it_learns_what_the_sparse_step_learns(make):
    found, expected = train(FusedStep, make), train(SparseStep, make)
    assert FusedStep.fits(*found[:2], CPU)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("make", "draws"),
    # In three epochs of five steps, the first of which has no inputs to drop.
    [
        (wide, 1),
        (wide_average, 1),
        (book, 3 * 5),
        (wide_dropped, 3 * (5 + 4)),
        (mixed_average, 3 * 5 * (1 + 3)),
    ],
)
def test_mxnet_draws_once_if_only_for_dropout(make, draws, monkeypatch):
    calls, forward = [], gluon.nn.Dropout.hybrid_forward
    monkeypatch.setattr(
        gluon.nn.Dropout,
        "hybrid_forward",
        lambda *args: calls.append(args) or forward(*args),
    )
    train(FusedStep, make, empty=6)
    assert len(calls) == draws


def test_it_learns_what_the_books_step_learns():
    empty = 6  # more than a batch
    expected = train(Step, book, optimizer="adam", empty=empty)
    assert_same(train(FusedStep, book, empty=empty), expected)


@pytest.mark.parametrize("loss", [gluon.loss.L1Loss, MaskedRMSELoss])
def test_any_loss_will_do(loss):
    settings = {"loss": loss(), "cells_per_row": 4.5}
    found = train(FusedStep, average, **settings)
    assert_same(found, train(SparseStep, average, **settings))


class Shared(FusedStep):
    """The step of a worker who has all the users, and whose sums take their time."""

    @staticmethod
    def share(array, kind):
        on_its_way = array.copy()
        return lambda: onp.testing.assert_array_equal(array, on_its_way)


@pytest.mark.parametrize("loss", [None, gluon.loss.L1Loss()])
@pytest.mark.parametrize("make", [book, average])
def test_what_is_done_while_a_sum_travels_comes_to_the_same(make, loss):
    assert_same(train(Shared, make, loss), train(FusedStep, make, loss))


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("make", [all_kept, dropped_twice])
def test_each_rating_is_learned_from_the_others_of_its_row(make, num_threads):
    openmp("omp_set_num_threads", int)(num_threads)
    found = train(LeaveOneOutStep, make, cells_per_row=4.5)
    expected = train(OnOthers, make, optimizer="adam", cells_per_row=4.5)
    assert_same(found, expected)


def test_the_input_that_is_dropped_is_no_part_of_the_sums():
    net = DeepAutoRec(8, NUM_USERS, input_dropout=0.5)
    kept = rows.corrupted(net, onp.full(10_000, 3, onp.float32))
    assert set(kept) == {0, 6}
    assert (kept == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_it_starts_from_what_the_network_says_in_each_epoch():
    def trained(kind):
        net, trainer, *_ = train(kind, book)
        net.encoder.weight.set_data(mx.np.ones((8, NUM_USERS)))
        step = kind(net, gluon.loss.L2Loss(), trainer, CPU)
        step(ratings())
        step.finish()
        return net.encoder.weight.data().asnumpy()

    onp.testing.assert_allclose(trained(FusedStep), trained(SparseStep), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "optimizer", "settings", "devices"),
    [
        (book, "sgd", {}, CPU),
        (book, "adam", {}, CPU),  # whose numbers are asked for to the last bit
        (book, "fusedadam", {"clip_gradient": 0.5}, CPU),
        (book, "fusedadam", {}, [mx.cpu(0), mx.cpu(1)]),
        (
            lambda: type("Own", (AutoRec,), {"encode": lambda self, x: x})(8, 45),
            *("fusedadam", {}, CPU),
        ),
    ],
)
def test_it_is_not_for_others(make, optimizer, settings, devices):
    net = make()
    net.initialize(ctx=devices)
    trainer = gluon.Trainer(net.collect_params(), optimizer, settings)
    assert not FusedStep.fits(net, trainer, devices)


def test_a_batch_of_another_width_is_refused():
    net = book()
    net.initialize(ctx=CPU)
    trainer = gluon.Trainer(net.collect_params(), "fusedadam")
    step = FusedStep(net, gluon.loss.L2Loss(), trainer, CPU)
    step(ratings())
    with pytest.raises(DataError, match=r"\(23, 90\) for cells of \(23, 45\)"):
        step(sp.hstack([ratings(), ratings()]).tocsr())


def test_the_loops_sigmoid_is_the_sigmoid():
    x = onp.concatenate([onp.linspace(-100, 100, 2001), [0, -onp.inf, onp.inf]])
    found = x.astype(onp.float32)
    between.sigmoid(found, onp.empty(x.size, onp.int32))
    with onp.errstate(over="ignore"):
        expected = 1 / (1 + onp.exp(-x.astype(onp.float32).astype(float)))
    onp.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-36)


def test_a_sum_that_is_no_number_makes_a_unit_that_is_none():
    found = onp.full(9, onp.nan, onp.float32)
    between.sigmoid(found, onp.empty(9, onp.int32))
    assert onp.isnan(found).all()  # or a training that diverges would go on


@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (33, 65), (500, 3)])
def test_transposed_twice_it_is_what_it_was(shape):
    matrix = onp.random.default_rng(0).random(shape).astype(onp.float32)
    found = rows.transposed(matrix)
    onp.testing.assert_array_equal(found, matrix.T)
    onp.testing.assert_array_equal(rows.transposed(found, matrix.copy()), matrix)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it stays as it is")
def test_what_is_forgotten_is_that_array_alone():
    memory = onp.ones(10_000, onp.float32)
    forget(memory[1000:9000])
    assert (memory[:1000] == 1).all()
    assert (memory[9000:] == 1).all()
    assert (memory[3000:7000] == 0).all()


def test_what_lies_behind_a_batchs_ratings_is_no_rating():
    batch = ratings()
    longer = batch.copy()
    longer.data = onp.append(longer.data, onp.float32(9))
    longer.indices = onp.append(longer.indices, onp.int32(0))
    for found, expected in zip(by_columns(longer), by_columns(batch)):
        onp.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(3, 700), (700, 3), (300, 300), (5, 2**18), (1, 1)])
def test_a_matrix_is_transposed(shape):
    matrix = onp.random.default_rng(0).random(shape, onp.float32)
    room = onp.zeros(matrix.size, onp.float32)
    onp.testing.assert_array_equal(rows.transposed(matrix, room), matrix.T)
    onp.testing.assert_array_equal(room.reshape(matrix.T.shape), matrix.T)


def test_gradients_take_no_memory():
    net = AutoRec(64, NUM_USERS * 100)
    net.initialize(ctx=CPU)
    trainer = gluon.Trainer(net.collect_params(), "fusedadam")
    step = FusedStep(net, gluon.loss.L2Loss(), trainer, CPU)
    released = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "forget", released.append)
        step(sp.hstack([ratings()] * 100).tocsr())
    assert [array.shape for array in released] == [
        layer.weight.grad().shape for layer in (net.encoder, net.decoder)
    ]


def test_an_interrupted_epoch_leaves_all_whole():
    def after_a_step(then):
        net = book()
        net.initialize(mx.init.Constant(0.1), ctx=CPU)
        trainer = gluon.Trainer(net.collect_params(), "fusedadam")
        step = FusedStep(net, gluon.loss.L2Loss(), trainer, CPU)
        with suppress(KeyboardInterrupt):
            list(train_epochs(then(), step, 1, lambda: None))
        arrays = [param.data() for param in net.collect_params().values()]
        states = trainer._updaters[0].states.values()
        return [array.asnumpy() for array in (*arrays, *chain(*states))]

    def to_the_end():
        yield ratings()

    def interrupted():
        yield ratings()
        raise KeyboardInterrupt

    mx.random.seed(0)
    expected = after_a_step(to_the_end)
    mx.random.seed(0)
    for found, array in zip(after_a_step(interrupted), expected):
        onp.testing.assert_array_equal(found, array)
