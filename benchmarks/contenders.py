"""One side of a comparison, in a process of its own.

``python contenders.py NAME TRAIN.npz TEST.npz`` sets a training up, and then does one
epoch for each line on its standard input and answers with one line of JSON. So several
of them, in several Python environments, can take turns under ``speed.py``.

Every side does the book's recipe on the same split: 500 hidden units, dropout 0.05,
Adam with lr 0.002 and wd 1e-5, shuffled batches of 256 items, the masked L2 loss, and
the RMSE on the test part after each epoch.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

HIDDEN, DROPOUT, LR, WD, BATCH, TEST_BATCH = 500, 0.05, 0.002, 1e-5, 256, 1024

Answer = dict[str, float]


def ours(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Run our loop, as the command does."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.training import Parts, Recipe, Training

    seed_everything(0)
    recipe = Recipe(num_epochs=10**9)
    epochs = Training(recipe, Parts(train, test), try_all_gpus(), 0).epochs()

    def run() -> Answer:
        epoch = next(epochs)
        return {"train_seconds": epoch.seconds, "rmse": epoch.test_rmse}

    return run


def book(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Run the book's loop over dense matrices and Gluon's loaders."""
    import matplotlib

    matplotlib.use("Agg")
    import book as script

    training = script.set_up(
        train.shape[1], script.np.array(train.toarray()), HIDDEN, BATCH, TEST_BATCH
    )
    test_mat = script.np.array(test.toarray())

    def run() -> Answer:
        return {"rmse": script.run(training, test_mat, num_epochs=1)}

    return run


def torch(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Run the same mathematics in PyTorch, dense, with Adam as it comes."""
    return _torch(train, test, fused=None)


def torch_fused(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Run the same with PyTorch's fused Adam."""
    return _torch(train, test)


def torch_compiled(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Run the same with the network and its loss compiled, and the fused Adam."""
    import torch

    return _torch(train, test, compiled=torch.compile)


def torch_sparse(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Run the same with a sparse product as the encoder's, and the fused Adam."""
    return _torch(train, test, sparse=True)


def _torch(
    train: sp.csr_matrix,
    test: sp.csr_matrix,
    fused: bool | None = True,
    compiled: Callable[[Any], Any] = lambda function: function,
    sparse: bool = False,
) -> Callable[[], Answer]:
    import os

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    ratings = torch.from_numpy(train.toarray())  # (num_items, num_users)
    held_out = test.tocoo()
    row, column = (
        torch.from_numpy(i.astype(np.int64)) for i in (held_out.row, held_out.col)
    )
    label = torch.from_numpy(held_out.data)
    num_items, num_users = ratings.shape
    net = torch.nn.Sequential(
        torch.nn.Linear(num_users, HIDDEN),
        torch.nn.Sigmoid(),
        torch.nn.Dropout(DROPOUT),
        torch.nn.Linear(HIDDEN, num_users),
    )
    for layer in (net[0], net[3]):
        torch.nn.init.normal_(layer.weight, std=0.01)
        torch.nn.init.zeros_(layer.bias)
    adam = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WD, fused=fused)
    left_over = torch.empty(0, dtype=torch.int64)

    def product(rows: Any, batch: Any) -> Any:
        if not sparse:
            return net[0](batch)
        part = train[rows.numpy()]
        arrays = map(torch.from_numpy, (part.indptr, part.indices, part.data))
        inputs = torch.sparse_csr_tensor(*arrays, part.shape)
        return torch.sparse.mm(inputs, net[0].weight.T) + net[0].bias

    def loss_of(rows: Any, batch: Any) -> Any:
        error = net[1:](product(rows, batch)) * torch.sign(batch) - batch
        # A sample's loss is a mean over its cells, a step's one over its samples.
        return error.square().sum() / (2 * error.numel())

    loss_of = compiled(loss_of)

    def run() -> Answer:
        nonlocal left_over
        start = time.perf_counter()
        net.train()
        total = 0.0
        order = torch.cat([left_over, torch.randperm(num_items)])
        stop = len(order) // BATCH * BATCH
        left_over = order[stop:]
        for rows in order[:stop].split(BATCH):
            batch = ratings[rows]
            adam.zero_grad()
            loss = loss_of(rows, batch)
            loss.backward()
            adam.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        net.eval()
        with torch.no_grad():
            outputs = torch.cat([net(batch) for batch in ratings.split(TEST_BATCH)])
            error = outputs[row, column] - label
        return {
            "train_seconds": seconds,
            "rmse": float(error.square().mean().sqrt()),
        }

    return run


def sgemm(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Measure MXNet's fastest matrix product, that of a dense layer."""
    from mxnet import np as mnp
    from mxnet import npx

    size = 2048
    a, b = (mnp.random.normal(0, 1, (size, size), dtype="float32") for _ in range(2))

    def run() -> Answer:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            npx.fully_connected(a, b, no_bias=True, num_hidden=size).wait_to_read()
            times.append(time.perf_counter() - start)
        return {"gflops": 2 * size**3 / np.median(times) / 1e9}

    return run


def memory(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Measure how long it takes to read and write what a step of Adam does."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    threads = int(os.environ["OMP_NUM_THREADS"])
    # Two weights and their moments.
    values = np.ones((3 * 2 * train.shape[1] * HIDDEN), np.float32)
    parts = np.array_split(values, threads)
    pool = ThreadPoolExecutor(threads)

    def run() -> Answer:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            list(pool.map(lambda part: np.negative(part, out=part), parts))
            times.append(time.perf_counter() - start)
        return {"seconds_per_step": float(np.median(times))}

    return run


def torch_sgemm(train: sp.csr_matrix, test: sp.csr_matrix) -> Callable[[], Answer]:
    """Measure PyTorch's matrix product."""
    import os

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    size = 2048
    a, b = torch.randn(size, size), torch.randn(size, size)

    def run() -> Answer:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return {"gflops": 2 * size**3 / np.median(times) / 1e9}

    return run


def main() -> None:
    """Answer line for line, until the input ends."""
    name, *files = sys.argv[1:]
    run = globals()[name](*(sp.load_npz(file) for file in files))
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        start = time.perf_counter()
        answer = run()
        answer["seconds"] = time.perf_counter() - start
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
