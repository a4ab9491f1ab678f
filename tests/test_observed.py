"""Sparse batches: the losses of the observed cells, beside the book's masked ones."""

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import gluon

from d2l_autorec import AutoRec, evaluator, rmse, row_batches, seed_everything
from d2l_autorec.fast import SparseStep, predict_cells, row_bounds
from d2l_autorec.loop import Step, train_epochs
from d2l_autorec.training import SeededBatches

NUM_ITEMS, NUM_USERS = 23, 17
LOSSES = (gluon.loss.L2Loss(), gluon.loss.L1Loss())


def ratings():
    """Ratings of which some rows, and so some shares, have none in one part."""
    rng = onp.random.default_rng(0)
    dense = rng.integers(1, 6, (NUM_ITEMS, NUM_USERS)).astype(onp.float32)
    part = rng.choice(3, dense.shape, p=[0.6, 0.3, 0.1])
    part[[3, 8, 9, 10]] = 2
    part[12:16] = 1
    return sp.csr_matrix(dense * (part == 1)), sp.csr_matrix(dense * (part == 2))


def train(
    sparse, devices=None, batch_size=5, dropout=0.0, loss=LOSSES[0], optimizer="adam"
):
    devices = devices or [mx.cpu()]
    seed_everything(4)
    train_mat, test_mat = ratings()
    net = AutoRec(8, NUM_USERS, dropout)
    net.initialize(mx.init.Normal(0.1), ctx=devices)
    trainer = gluon.Trainer(
        net.collect_params(), optimizer, {"learning_rate": 0.01, "wd": 0.01}
    )
    in_order = row_batches(train_mat, 10)

    def evaluate():
        if sparse:
            found = predict_cells(net, train_mat, test_mat, devices, batch_size=10)
            return rmse(found, test_mat.data)
        return evaluator(net, in_order, test_mat, devices)

    loader = row_batches(train_mat, batch_size, shuffle=True, sparse=sparse)
    step = (SparseStep if sparse else Step)(net, loss, trainer, devices)
    epochs = train_epochs(SeededBatches(loader, 0), step, 3, evaluate)
    return [(e.train_loss, e.test_rmse, e.examples) for e in epochs]


def assert_same(found, expected):
    assert onp.array(found) == pytest.approx(onp.array(expected), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_it_is_the_masked_training(loss, batch_size):
    settings = {"loss": loss, "batch_size": batch_size}
    assert_same(train(sparse=True, **settings), train(sparse=False, **settings))


def test_it_is_the_masked_training_with_plain_gradient_steps():
    # Adam would hide a gradient that is wrong by a factor.
    expected = train(sparse=False, optimizer="sgd")
    assert_same(train(sparse=True, optimizer="sgd"), expected)
    assert expected[0][0] != expected[2][0]


def test_dropout_draws_the_same_units():
    assert_same(train(sparse=True, dropout=0.5), train(sparse=False, dropout=0.5))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 23, 100])
@pytest.mark.parametrize("num_devices", [2, 3])
def test_several_devices_give_the_numbers_of_one(num_devices, batch_size):
    several = [mx.cpu(i) for i in range(num_devices)]
    expected = train(sparse=True, batch_size=batch_size)
    assert_same(train(sparse=True, devices=several, batch_size=batch_size), expected)


def test_batches_are_the_rows_in_order():
    train_mat, _ = ratings()
    batches = list(row_batches(train_mat, 5, sparse=True))
    assert [batch.shape[0] for batch in batches] == [5, 5, 5, 5, 3]
    assert (sp.vstack(batches) != train_mat).nnz == 0


def test_a_training_leaves_the_matrix_as_it_was():
    train_mat, test_mat = ratings()
    before = train_mat.copy()
    net = AutoRec(8, NUM_USERS)
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), "adam")
    batches = row_batches(train_mat, 100, sparse=True)
    cpu = [mx.cpu()]
    step = SparseStep(net, LOSSES[0], trainer, cpu)
    list(
        train_epochs(
            batches, step, 1, lambda: predict_cells(net, train_mat, test_mat, cpu)[0]
        )
    )
    train_mat.data += 1  # still writable
    assert train_mat.data == pytest.approx(before.data + 1)


@pytest.mark.parametrize(("num_rows", "num_shares"), [(10, 1), (10, 3), (2, 5), (0, 2)])
def test_shares_are_even_and_cover_the_rows(num_rows, num_shares):
    bounds = row_bounds(num_rows, num_shares)
    sizes = [stop - start for start, stop in bounds]
    assert [row for b in bounds for row in range(*b)] == list(range(num_rows))
    assert len(bounds) == num_shares
    assert max(sizes) - min(sizes) <= 1
