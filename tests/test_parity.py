"""A whole training beside `d2l.mxnet.train_recsys_rating`, epoch by epoch."""

import math

import mxnet as mx
import numpy as onp
import pytest
from d2l import mxnet as d2l
from mxnet import gluon

from d2l_autorec import (
    AutoRec,
    evaluator,
    load_data_ml100k,
    read_data_ml100k,
    row_batches,
    seed_everything,
    split_data_ml100k,
    train_recsys_rating,
)
from d2l_autorec.ratings import ratings_from_frame

CPU = [mx.cpu()]


class Points:
    """Stands in for the book's live plot and keeps its points."""

    def __init__(self, *args, **kwargs):
        self.rmse = []

    def add(self, epoch, losses):
        self.rmse.append(losses[1])


def naive_rmse(net, batches, test_matrix, devices):
    """Score AutoRec one held-out rating at a time."""
    outputs = onp.concatenate([net(batch).asnumpy() for batch in batches])
    ratings = test_matrix.asnumpy()
    errors = [
        float(ratings[item, user]) - float(outputs[item, user])
        for item, user in onp.argwhere(ratings)
    ]
    return math.sqrt(sum(e * e for e in errors) / len(errors))


def set_up(num_users, num_hidden):
    net = AutoRec(num_hidden, num_users)
    net.initialize(mx.init.Normal(0.01), ctx=CPU, force_reinit=True)
    trainer = gluon.Trainer(
        net.collect_params(), "adam", {"learning_rate": 0.002, "wd": 1e-5}
    )
    return net, gluon.loss.L2Loss(), trainer


@pytest.mark.parametrize(
    ("source", "num_hidden", "batch_size", "num_epochs"),
    [
        ("small_data", 16, 16, 12),
        ("real_ml_100k", 500, 256, 5),
        pytest.param("real_ml_100k", 500, 256, 25, marks=pytest.mark.slow),
    ],
)
def test_training_follows_the_book(
    request, monkeypatch, source, num_hidden, batch_size, num_epochs
):
    """Same seed, split, initial weights, batches and dropout: the same RMSE."""
    request.getfixturevalue(source)
    data, num_users, num_items = read_data_ml100k()
    mx.random.seed(0)
    parts = split_data_ml100k(data, num_users, num_items, "random", 0.1)
    train_dense, test_dense = (
        load_data_ml100k(part, num_users, num_items)[3] for part in parts
    )

    points = Points()
    monkeypatch.setattr(d2l, "Animator", lambda **kwargs: points)
    seed_everything(1)
    net, loss, trainer = set_up(num_users, num_hidden)
    loader = {"batch_size": batch_size, "shuffle": True, "last_batch": "rollover"}
    d2l.train_recsys_rating(
        net,
        gluon.data.DataLoader(train_dense, **loader),
        gluon.data.DataLoader(train_dense, batch_size=1024),
        loss,
        trainer,
        num_epochs,
        CPU,
        naive_rmse,
        inter_mat=test_dense,
    )

    ratings = ratings_from_frame(data)
    rows = (part.index.to_numpy() for part in parts)
    train_mat, test_mat = map(ratings.matrix, rows)
    seed_everything(1)
    net, loss, trainer = set_up(num_users, num_hidden)
    history = train_recsys_rating(
        net,
        row_batches(train_mat, batch_size, shuffle=True),
        row_batches(train_mat, 1024),
        loss,
        trainer,
        num_epochs,
        CPU,
        evaluator,
        inter_mat=test_mat,
    )
    assert [e.test_rmse for e in history] == pytest.approx(points.rmse, abs=1e-3)
    assert history[-1].test_rmse < history[0].test_rmse


def test_the_names_and_defaults_are_those_of_the_book():
    import inspect

    import d2l_autorec

    names = [
        "read_data_ml100k",
        "split_data_ml100k",
        "load_data_ml100k",
        "split_and_load_ml100k",
        "train_recsys_rating",
        "try_all_gpus",
    ]
    for name in names:
        ours = inspect.signature(getattr(d2l_autorec, name)).parameters
        book = inspect.signature(getattr(d2l, name)).parameters
        assert list(ours) == list(book), name
        for parameter in book:
            if parameter != "devices":  # the book's default is an empty list here
                assert ours[parameter].default == book[parameter].default, name
