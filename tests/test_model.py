"""AutoRec, its mask, and its evaluator."""

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import autograd, gluon
from mxnet import np as mnp

from d2l_autorec import AutoRec, evaluator, rmse, row_batches, seed_everything

CPU = [mx.cpu()]


def make_net(num_users=6, num_hidden=4, dropout=0.0):
    net = AutoRec(num_hidden, num_users, dropout)
    net.initialize(mx.init.Normal(0.5))
    return net


@pytest.fixture
def inputs():
    return mnp.array([[5, 0, 3, 0, 1, 0], [0, 2, 0, 0, 4, 4]], dtype="float32")


def sigmoid(x):
    return 1 / (1 + onp.exp(-x))


def test_the_reconstruction_is_the_papers_formula(inputs):
    net = make_net()
    outputs = net(inputs).asnumpy()
    weights = {
        name: parameter.data().asnumpy()
        for name, parameter in net._collect_params_with_prefix().items()
    }
    hidden = sigmoid(
        inputs.asnumpy() @ weights["encoder.weight"].T + weights["encoder.bias"]
    )
    expected = hidden @ weights["decoder.weight"].T + weights["decoder.bias"]
    assert outputs == pytest.approx(expected, abs=1e-5)


def test_the_parameter_count_is_that_of_the_paper(inputs):
    net = make_net(num_users=6, num_hidden=4)
    net(inputs)
    count = sum(p.data().size for p in net.collect_params().values())
    assert count == 2 * 6 * 4 + 6 + 4  # 2mk + m + k


def test_training_outputs_are_zero_where_nothing_was_observed(inputs):
    net = make_net()
    with autograd.record():
        outputs = net(inputs)
    assert ((outputs.asnumpy() != 0) == (inputs.asnumpy() != 0)).all()


def test_an_unobserved_cell_gives_no_gradient(inputs):
    net = make_net()
    with autograd.record():
        loss = gluon.loss.L2Loss()(net(inputs), inputs)
    loss.backward()
    gradient = net.decoder.bias.grad().asnumpy()
    nobody = (inputs.asnumpy() == 0).all(axis=0)  # users who rated neither item
    assert nobody.any()
    assert (gradient[nobody] == 0).all()
    assert (gradient[~nobody] != 0).all()


def test_dropout_acts_in_training_only(inputs):
    net = make_net(dropout=0.5)
    assert (net(inputs) == net(inputs)).all()
    with autograd.record():
        assert (net(inputs) != net(inputs)).any()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_evaluator_is_the_books_formula(batch_size):
    rng = onp.random.default_rng(0)
    train = rng.integers(1, 6, (5, 6)) * (rng.random((5, 6)) < 0.5)
    test = rng.integers(1, 6, (5, 6)) * (rng.random((5, 6)) < 0.4) * (train == 0)
    net = make_net()
    outputs = net(mnp.array(train, dtype="float32")).asnumpy().astype(float)
    squared = (test - onp.sign(test) * outputs) ** 2
    expected = onp.sqrt(squared.sum() / onp.sign(test).sum())
    in_order = row_batches(sp.csr_matrix(train, dtype=onp.float32), batch_size)
    for held_out in (mnp.array(test), test, sp.csr_matrix(test)):
        assert evaluator(net, in_order, held_out, CPU) == pytest.approx(expected, 1e-6)


def test_rmse_by_hand():
    assert rmse([1, 2, 3], [1, 4, 7]) == pytest.approx((20 / 3) ** 0.5)


def test_the_evaluator_refuses_matrices_that_do_not_match():
    batches = row_batches(sp.csr_matrix(onp.eye(3, 6, dtype=onp.float32)), 2)
    with pytest.raises(ValueError, match="3 rows to score against 4"):
        evaluator(make_net(), batches, onp.eye(4, 6), CPU)
    with pytest.raises(ValueError, match="no rating"):
        evaluator(make_net(), batches, onp.zeros((3, 6)), CPU)


def test_the_same_seed_gives_the_same_weights_and_dropout(inputs):
    def draw(seed):
        seed_everything(seed)
        net = make_net(dropout=0.5)
        with autograd.record():
            return net(inputs).asnumpy().tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
