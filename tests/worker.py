"""One of several workers: ``mpiexec -n 2 python tests/worker.py sum``, for the tests.

It trains on little, adds arrays up, or ends early.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from d2l_autorec import seed_everything
from d2l_autorec._mxnet import mx
from d2l_autorec.cluster import join
from d2l_autorec.training import (
    PRESETS,
    Blend,
    Parts,
    Recipe,
    Run,
    Training,
    member,
)

BOOK = Recipe(8, lr=0.01, batch_size=5, num_epochs=3)
PAPER = BOOK.changed(dropout=0.0, loss="paper", schedule="cosine", wd=200.0)
DEEP = PAPER.changed(
    num_hidden=(8, 4, 8), pretrain_epochs=2, wd=None, clip=True, cold="mean"
)
MIXED = PAPER.changed(standardize=True, from_mean=True, input_dropout=0.4)
FEW = {
    "book": BOOK,
    "wide": BOOK.changed(num_hidden=200, dropout=0.5),
    "paper, user-based": PAPER.changed(kind="user"),
    "deep": DEEP,
    "left out": PAPER.changed(leave_one_out=True, input_dropout=0.3),
    "blend": Blend(
        (MIXED, PAPER.changed(residual=True, kind="user", cold="biases", balance=0.4))
    ),
}
MANY = {
    **FEW,
    "book, user-based": BOOK.changed(kind="user"),
    "paper": PAPER,
    "deep, user-based": DEEP.changed(kind="user"),
    "dropped": DEEP.changed(input_dropout=0.3, dropout=0.2),
    "dropped, user-based": BOOK.changed(kind="user", input_dropout=0.3),
    "averaged": BOOK.averaged(2),
    "best": PRESETS["best"].changed(num_hidden=8, batch_size=5, num_epochs=3),
    "bounded": BOOK.changed(output="sigmoid", activation="elu"),
}


def train(recipe, team=None):
    """Train on 23 rows in batches of 5, some of which have no rating."""
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 6, (23, 17)).astype(np.float32)
    part = rng.choice(3, dense.shape, p=[0.6, 0.3, 0.1])
    part[[3, 8, 9]] = 2
    seed_everything(0)
    parts = Parts(*(sp.csr_matrix(dense * (part == number)) for number in (1, 2)))
    training = Training(Run(parts, recipe, 0), [mx.cpu()], team=team)
    history = [[epoch.train_loss, epoch.test_rmse] for epoch in training.epochs()]
    weights = training.parameters()
    training.load(weights, training.state())
    history.append([0, training.rmse(parts.test_mat)])
    if team:
        assert isinstance(parts.train_mat.data, np.memmap)
        assert all(member.rows.shape[1] < 17 for member in training.members)
    return history, {name: array.tolist() for name, array in weights.items()}


def add_up(team):
    """Check that all workers get the same bits, whatever the size of an array."""
    rng = np.random.default_rng(team.rank)
    for size in (0, 1, 2, 3, 85, 128_000, 700_000):
        numbers = rng.normal(size=size) * 10 ** rng.uniform(-8, 8, size)
        array = numbers.astype(np.float32)
        each = [np.zeros_like(array) for _ in range(team.size)]
        each[team.rank][:] = array
        for one in each:
            team.sum(one)
        team.sum(array)
        np.testing.assert_allclose(array, sum(each), rtol=1e-3, atol=1e3)
        team.compare({"the sums": array.tobytes()})


def end_early(team, how):
    """End the second worker in the middle of a training, or let both finish."""
    while True:
        team.sum(np.ones(3, np.float32))
        if how == "fork":
            if not os.fork():
                sys.exit(0)
            os.wait()
            team.sum(np.ones(3, np.float32))
            return
        if team.rank == 1:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            assert how != "error", "no luck"
            sys.exit(0)


def main(what, *words):
    """Be a worker."""
    team = join()
    if what == "train":
        folder, *names = words
        member.NUM_EPOCHS = 10  # how good they are does not matter
        found = {name: train(MANY[name], team) for name in names}
        (Path(folder) / f"{team.rank}.json").write_text(json.dumps(found))
    elif what == "sum":
        add_up(team)
    else:
        end_early(team, *words)


if __name__ == "__main__":
    main(*sys.argv[1:])
