"""The training loop: what it returns, its devices, its seeds, and how it ends."""

import os

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp
from mxnet import gluon

from d2l_autorec import (
    AutoRec,
    evaluator,
    row_batches,
    seed_everything,
    train_recsys_rating,
    try_all_gpus,
)
from d2l_autorec.commands.cli import parse_devices
from d2l_autorec.curve import Epoch, learning_curve
from d2l_autorec.errors import DeviceUnavailable, TrainingDiverged
from d2l_autorec.loop import Step, closing_lines, train_epochs

NUM_ITEMS, NUM_USERS = 23, 17


def ratings(seed=0):
    rng = onp.random.default_rng(seed)
    dense = rng.integers(1, 6, (NUM_ITEMS, NUM_USERS)).astype(onp.float32)
    part = rng.choice(3, dense.shape, p=[0.5, 0.4, 0.1])
    return sp.csr_matrix(dense * (part == 1)), sp.csr_matrix(dense * (part == 2))


class Sparse(list):
    """Batches of rows as sparse matrices, anew for each epoch."""

    def __iter__(self):
        return (sp.csr_matrix(batch.asnumpy()) for batch in self[0])


def set_up(
    devices, batch_size=5, dropout=0.0, lr=0.01, train_mat=None, seed=4, sparse=False
):
    """Make everything that a training needs, from one seed."""
    seed_everything(seed)
    default, test_mat = ratings()
    train_mat = default if train_mat is None else train_mat
    net = AutoRec(8, train_mat.shape[1], dropout)
    net.initialize(mx.init.Normal(0.1), ctx=devices)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": lr})
    in_order = row_batches(train_mat, 10)
    batches = row_batches(train_mat, batch_size, shuffle=True)
    return {
        "train_iter": Sparse([batches]) if sparse else batches,
        "step": Step(net, gluon.loss.L2Loss(), trainer, devices),
        "evaluate": lambda: evaluator(net, in_order, test_mat, devices),
    }


def train(devices, num_epochs=3, **settings):
    return list(train_epochs(**set_up(devices, **settings), num_epochs=num_epochs))


def results(history):
    return [(e.train_loss, e.test_rmse) for e in history]


@pytest.mark.parametrize("batch_size", [5, 1, 2, 23, 100])
@pytest.mark.parametrize(
    ("num_devices", "sparse"), [(2, False), (3, False), (1, True), (2, True), (3, True)]
)
def test_several_devices_and_sparse_batches_give_the_numbers_of_one(
    num_devices, sparse, batch_size
):
    rows = ratings()[0].toarray()
    rows[[3, 8, 9, 10]] = 0  # of some shares there is nothing to learn
    settings = {"batch_size": batch_size, "train_mat": sp.csr_matrix(rows)}
    devices = [mx.cpu(i) for i in range(num_devices)]
    expected = results(train([mx.cpu()], **settings))
    found = results(train(devices, sparse=sparse, **settings))
    assert onp.array(found) == pytest.approx(onp.array(expected), abs=1e-4)


def test_the_loss_is_the_mean_of_a_sample():
    train_mat, _ = ratings()
    parts = set_up([mx.cpu()], lr=1e-12)
    (epoch,) = train_epochs(**parts, num_epochs=1)
    # 20 of the 23 rows, in batches of 5; the others wait for the next epoch. At this
    # learning rate the weights stay, so the loss of any 20 is near the mean of all.
    rows = train_mat.toarray()
    outputs = parts["step"].net(mx.np.array(rows)).asnumpy()
    losses = (((outputs - rows) * (rows > 0)) ** 2).mean(axis=1) / 2
    bounds = onp.sort(losses)[:20].mean(), onp.sort(losses)[-20:].mean()
    assert bounds[0] - 1e-5 <= epoch.train_loss <= bounds[1] + 1e-5
    assert epoch.examples == 20 * NUM_USERS


def test_training_learns():
    history = train([mx.cpu()], num_epochs=15)
    assert history[-1].train_loss < 0.5 * history[0].train_loss


def test_the_same_seed_gives_the_same_history():
    def run(seed):
        return results(train([mx.cpu()], dropout=0.3, seed=seed))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_epochs_are_logged_for_those_who_ask(logged):
    history = list(train_epochs(**set_up([mx.cpu()]), num_epochs=2))
    said = [r.getMessage() for r in logged.records if r.levelname == "DEBUG"]
    for epoch in history:
        line = f"epoch {epoch.epoch} of 2: {epoch.summary()}, {epoch.seconds:.2f} s"
        assert line in said


def test_a_loss_that_is_not_finite_stops_and_names_the_epoch():
    with pytest.raises(TrainingDiverged, match="inf|nan.* in epoch 1"):
        train([mx.cpu()], lr=1e30)


def test_the_book_function_prints_its_two_lines_and_returns_the_history(capsys):
    train_mat, test_mat = ratings()
    parts = set_up([mx.cpu()])
    step = parts["step"]
    history = train_recsys_rating(
        *(step.net, parts["train_iter"]),
        row_batches(train_mat, 10),
        *(step.loss, step.trainer),
        2,
        evaluator=evaluator,
        inter_mat=test_mat,
    )
    assert [e.epoch for e in history] == [1, 2]
    lines = capsys.readouterr().out.splitlines()
    last = history[-1]
    assert lines[0] == (
        f"train loss {last.train_loss:.3f}, test RMSE {last.test_rmse:.3f}"
    )
    assert lines[1].endswith("examples/sec on [cpu(0)]")


def train_by_the_book(batches, num_epochs=1):
    """Train on given batches of rows by the book's function, from one seed."""
    seed_everything(0)
    net = AutoRec(8, NUM_USERS, 0.0)
    net.initialize(mx.init.Normal(0.1))
    trainer = gluon.Trainer(net.collect_params(), "adam")
    train_mat, test_mat = ratings()
    return train_recsys_rating(
        *(net, batches, row_batches(train_mat, 10), gluon.loss.L2Loss(), trainer),
        num_epochs,
        evaluator=evaluator,
        inter_mat=test_mat,
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64"])
def test_batches_of_any_type_of_numbers_train_as_float32(dtype):
    rows = ratings()[0].toarray()
    expected = results(train_by_the_book([mx.np.array(rows)]))
    batch = mx.np.array(rows, dtype=dtype)
    for given in (batch, (batch,), [mx.np.array(rows), batch]):
        assert results(train_by_the_book([given])) == expected


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8"])
def test_the_evaluator_takes_batches_of_any_type_of_numbers(dtype):
    train_mat, test_mat = ratings()
    net = AutoRec(8, NUM_USERS)
    net.initialize(mx.init.Normal(0.1))
    rows = mx.np.array(train_mat.toarray())
    found = [
        evaluator(net, [batch], test_mat, [mx.cpu()])
        for batch in (rows, rows.astype(dtype), train_mat)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("batches", "num_epochs", "said"),
    [
        ([mx.np.ones((2, NUM_USERS))], 0, "num_epochs=0 leaves no epoch to train"),
        ([mx.np.ones((2, NUM_USERS))], -3, "num_epochs=-3 leaves no epoch"),
        ([mx.np.ones((0, NUM_USERS))], 1, "a batch of the training data is empty"),
        ([], 1, "no batch in epoch 1"),
        (iter([mx.np.ones((2, NUM_USERS))]), 2, "no batch in epoch 2.* a generator"),
    ],
)
def test_without_anything_to_train_on_it_says_so(batches, num_epochs, said):
    with pytest.raises(ValueError, match=said):
        train_by_the_book(batches, num_epochs)


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "evaluator"), ({"evaluator": evaluator, "inter_matrix": 0}, "inter_matrix")],
)
def test_a_missing_or_unknown_argument_is_refused(given, said):
    with pytest.raises(TypeError, match=said):
        train_recsys_rating(None, [], [], None, None, 1, **given)


def test_every_gpu_is_taken_and_else_the_cpu(monkeypatch):
    monkeypatch.setattr(mx.npx, "num_gpus", lambda: 0)
    assert try_all_gpus() == [mx.cpu()]
    monkeypatch.setattr(mx.npx, "num_gpus", lambda: 2)
    assert try_all_gpus() == parse_devices("gpu") == [mx.gpu(0), mx.gpu(1)]
    assert parse_devices("gpu:1,cpu") == [mx.gpu(1), mx.cpu(0)]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(mx.npx, "num_gpus", lambda: 1)
    with pytest.raises(DeviceUnavailable, match="no device gpu:1.* sees 1 GPU"):
        parse_devices("gpu:0,gpu:1")


def test_without_a_test_part_there_is_no_number():
    epoch = Epoch(1, 0.1, None, 0.9, 1.0, 100)
    worse = epoch._replace(epoch=2, train_loss=0.05, valid_rmse=0.95)
    lines = closing_lines([epoch, worse], [])  # of the best epoch, the first
    assert lines.startswith("train loss 0.100, test RMSE -\n")
    axes = learning_curve([epoch], baseline=0.7).axes
    assert [ax.get_title() for ax in axes][1] == "validation RMSE"
    assert axes[1].lines[-1].get_linestyle() == "--"
    assert len(learning_curve([epoch._replace(valid_rmse=None)]).axes) == 1


@pytest.mark.parametrize("given", [{}, {"MXNET_ENGINE_TYPE": "ThreadedEngine"}])
def test_mxnet_starts_silently_and_a_chosen_engine_stays(run, given):
    environment = {k: v for k, v in os.environ.items() if k != "MXNET_ENGINE_TYPE"}
    environment.update(given)
    code = "import os, d2l_autorec; d2l_autorec.try_all_gpus()"
    code += "; print(os.environ.get('MXNET_ENGINE_TYPE'))"
    _, out, err = run("-c", code, env=environment)
    engine = given.get("MXNET_ENGINE_TYPE")
    assert (out, err) == (f"{engine}\n", "")
