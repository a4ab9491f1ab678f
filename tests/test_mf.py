"""Matrix factorization and its two evaluators, with `d2l.mxnet` as the oracle."""

import mxnet as mx
import numpy as onp
import pytest
from d2l import mxnet as d2l
from mxnet import autograd, gluon
from mxnet.gluon import nn

from d2l_autorec import (
    MF,
    mf_evaluator,
    mf_pooled_evaluator,
    rating_batches,
    read_data_ml100k,
    seed_everything,
    split_and_load_ml100k,
    train_recsys_rating,
)

np = mx.np
CPU = [mx.cpu()]
TWO = [mx.cpu(0), mx.cpu(1)]


class ReferenceMF(nn.Block):
    """The book's model, written with nothing of the package's."""

    def __init__(self, num_factors, num_users, num_items):
        super().__init__()
        self.user_vectors = nn.Embedding(num_users, num_factors)
        self.item_vectors = nn.Embedding(num_items, num_factors)
        self.user_levels = nn.Embedding(num_users, 1)
        self.item_levels = nn.Embedding(num_items, 1)

    def forward(self, users, items):
        dots = np.einsum("bk,bk->b", self.user_vectors(users), self.item_vectors(items))
        return dots + self.user_levels(users)[:, 0] + self.item_levels(items)[:, 0]


def reference_evaluator(net, test_iter, devices):
    """The book's measure by MXNet's own running metric."""
    metric, running = mx.metric.RMSE(), []
    for users, items, ratings in test_iter:
        metric.update(labels=[ratings], preds=[net(users, items)])
        running.append(metric.get()[1])
    return sum(running) / len(running)


def set_up(model, num_factors, num_users, num_items):
    net = model(num_factors, num_users, num_items)
    net.initialize(mx.init.Normal(0.01), ctx=CPU, force_reinit=True)
    trainer = gluon.Trainer(
        net.collect_params(), "adam", {"learning_rate": 0.002, "wd": 1e-5}
    )
    return net, gluon.loss.L2Loss(), trainer


@pytest.mark.parametrize("compiled", [False, True])
def test_a_prediction_is_the_product_of_factors_and_the_biases(compiled):
    net = MF(2, 2, 3)
    net.initialize()
    net.P.weight.set_data(np.array([[1.0, 2.0], [0.0, -1.0]]))
    net.Q.weight.set_data(np.array([[3.0, 4.0], [0.5, 0.5], [1.0, 0.0]]))
    net.user_bias.weight.set_data(np.array([[0.1], [0.2]]))
    net.item_bias.weight.set_data(np.array([[10.0], [20.0], [30.0]]))
    if compiled:
        net.hybridize()
    outputs = net(np.array([0, 1, 0]), np.array([0, 0, 2])).asnumpy()
    assert outputs == pytest.approx([21.1, 6.2, 31.1])
    assert net(np.array([1]), np.array([2])).asnumpy() == pytest.approx([30.2])


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_those_of_the_reference(compiled):
    users, items = np.array([0, 1, 1]), np.array([2, 0, 2])
    gradients = []
    for model in (MF, ReferenceMF):
        seed_everything(0)
        net, loss, _ = set_up(model, 3, 2, 3)
        if compiled and model is MF:
            net.hybridize()
        with autograd.record():
            loss(net(users, items), np.array([1.0, 2.0, 3.0])).backward()
        gradients.append([p.grad().asnumpy() for p in net.collect_params().values()])
    for ours, reference in zip(*gradients):
        onp.testing.assert_allclose(ours, reference, rtol=1e-5)


def nothing(users, items):
    return users * 0


def batches(*ratings):
    return [[np.zeros(len(r)), np.zeros(len(r)), np.array(r)] for r in ratings]


def test_the_books_evaluator_averages_running_averages():
    first, second, third = 12.5**0.5, 1.0, 2.0
    expected = (first + (first + second) / 2 + (first + second + third) / 3) / 3
    found = mf_evaluator(nothing, batches([3.0, 4.0], [1.0], [2.0]), CPU)
    assert found == pytest.approx(expected)


def test_the_pooled_evaluator_counts_every_rating_alike():
    found = mf_pooled_evaluator(nothing, batches([3.0, 4.0], [1.0]), CPU)
    assert found == pytest.approx((26 / 3) ** 0.5)


def test_a_pooled_rmse_depends_neither_on_devices_nor_on_batches():
    seed_everything(0)
    net = MF(3, 10, 10)
    net.initialize(mx.init.Normal(1), ctx=TWO)
    rng = onp.random.default_rng(0)
    columns = (
        rng.integers(0, 10, 33),
        rng.integers(0, 10, 33),
        rng.integers(1, 6, 33),
    )
    one = mf_pooled_evaluator(net, rating_batches(*columns, 33), CPU)
    # 8 leaves a last batch of one, and one of the devices without a share.
    assert mf_pooled_evaluator(net, rating_batches(*columns, 8), TWO) == pytest.approx(
        one
    )


@pytest.mark.parametrize("evaluate", [mf_evaluator, mf_pooled_evaluator])
def test_nothing_to_score_is_an_error(evaluate):
    with pytest.raises(ValueError, match="no rating"):
        evaluate(nothing, [], CPU)


def curves(monkeypatch, split_and_load, num_factors, batch_size, num_epochs):
    """Test RMSE after each epoch: the book's loop and model, and ours."""
    points = []

    class Points:
        def __init__(self, *args, **kwargs):
            pass

        def add(self, epoch, losses):
            points.append(losses[1])

    monkeypatch.setattr(d2l, "Animator", Points)
    histories = []
    for model, train, evaluate in (
        (ReferenceMF, d2l.train_recsys_rating, reference_evaluator),
        (MF, train_recsys_rating, mf_evaluator),
    ):
        seed_everything(0)
        num_users, num_items, train_iter, test_iter = split_and_load(
            "random", batch_size=batch_size
        )
        net, loss, trainer = set_up(model, num_factors, num_users, num_items)
        seed_everything(1)
        histories.append(
            train(net, train_iter, test_iter, loss, trainer, num_epochs, CPU, evaluate)
        )
    return points, [epoch.test_rmse for epoch in histories[1]]


def test_training_gives_the_books_numbers(small_data, monkeypatch, capsys):
    monkeypatch.setattr(d2l, "read_data_ml100k", read_data_ml100k)
    book, ours = curves(monkeypatch, d2l.split_and_load_ml100k, 5, 16, 8)
    assert ours == pytest.approx(book, abs=1e-5)
    assert ours[-1] < ours[0]


@pytest.mark.slow
def test_training_gives_the_books_numbers_on_the_real_data(
    real_ml_100k, monkeypatch, capsys
):
    book, ours = curves(monkeypatch, split_and_load_ml100k, 30, 512, 3)
    assert ours == pytest.approx(book, abs=1e-4)
