"""One side of ``speed.py``, in a process and maybe a Python environment of its own.

``python contenders.py NAME TRAIN.npz TEST.npz`` sets a training up, and then does an
epoch for each line on its standard input and answers with a line of JSON. All do the
book's recipe: 500 hidden units, dropout 0.05, Adam with lr 0.002 and wd 1e-5, shuffled
batches of 256 items, the masked L2 loss, and the test RMSE after each epoch.
"""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from sides import Answer, answer

HIDDEN, DROPOUT, LR, WD, BATCH, TEST_BATCH = 500, 0.05, 0.002, 1e-5, 256, 1024
SIZE = 2048  # of the square matrices whose products are timed
GFLOP = 2 * SIZE**3 / 1e9
Work = Callable[[], Answer]


def ours(train: sp.csr_matrix, test: sp.csr_matrix) -> Work:
    """Run our loop, as the command does."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.training import Parts, Recipe, Run, Training

    seed_everything(0)
    recipe = Recipe(num_epochs=10**9)
    epochs = Training(Run(Parts(train, test), recipe, 0), try_all_gpus()).epochs()

    def run() -> Answer:
        epoch = next(epochs)
        return {"train_seconds": epoch.seconds, "rmse": epoch.test_rmse}

    return run


def book(train: sp.csr_matrix, test: sp.csr_matrix) -> Work:
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


def torch(
    train: sp.csr_matrix,
    test: sp.csr_matrix,
    fused: bool | None = True,
    compiled: bool = False,
    sparse: bool = False,
) -> Work:
    """Run the same mathematics in PyTorch, dense or with a sparse product first."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    ratings = torch.from_numpy(train.toarray())  # (num_items, num_users)
    held_out = test.tocoo()
    cells = [torch.from_numpy(i.astype(np.int64)) for i in held_out.coords]
    label = torch.from_numpy(held_out.data)
    net = _torch_network(ratings.shape[1])
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

    if compiled:
        loss_of = torch.compile(loss_of)

    def run() -> Answer:
        nonlocal left_over
        start = time.perf_counter()
        net.train()
        total = 0.0
        order = torch.cat([left_over, torch.randperm(len(ratings))])
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
            error = outputs[cells[0], cells[1]] - label
        rmse = float(error.square().mean().sqrt())
        return {"train_seconds": seconds, "rmse": rmse}

    return run


def _torch_network(num_users: int) -> Any:
    """Make the book's network."""
    from torch import nn

    first, last = nn.Linear(num_users, HIDDEN), nn.Linear(HIDDEN, num_users)
    for layer in (first, last):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.Sigmoid(), nn.Dropout(DROPOUT), last)


def sgemm(train: sp.csr_matrix, test: sp.csr_matrix) -> Work:
    """Measure MXNet's fastest matrix product, that of a dense layer."""
    import d2l_autorec  # noqa: F401, I001  MXNet needs it before, for NumPy 2
    from mxnet import np as mnp, npx

    a, b = (mnp.random.normal(0, 1, (SIZE, SIZE), dtype="float32") for _ in range(2))
    dense = partial(npx.fully_connected, a, b, no_bias=True, num_hidden=SIZE)
    return lambda: {"gflops": GFLOP / _median_seconds(lambda: dense().wait_to_read())}


def torch_sgemm(train: sp.csr_matrix, test: sp.csr_matrix) -> Work:
    """Measure PyTorch's matrix product."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    return lambda: {"gflops": GFLOP / _median_seconds(lambda: a @ b)}


def memory(train: sp.csr_matrix, test: sp.csr_matrix) -> Work:
    """Measure how long it takes to read and write what a step of Adam does."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    # Two weights and their moments.
    values = np.ones((3 * 2 * train.shape[1] * HIDDEN), np.float32)
    parts = np.array_split(values, threads)
    pool = ThreadPoolExecutor(threads)

    def touch() -> None:
        list(pool.map(lambda part: np.negative(part, out=part), parts))

    return lambda: {"seconds_per_step": _median_seconds(touch)}


def _median_seconds(work: Callable[[], Any]) -> float:
    """Time ten runs."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


SIDES: dict[str, Callable[..., Work]] = {
    "ours": ours,
    "book": book,
    "sgemm": sgemm,
    "memory": memory,
    "torch": partial(torch, fused=None),  # with Adam as it comes
    "torch_fused": torch,
    "torch_compiled": partial(torch, compiled=True),
    "torch_sparse": partial(torch, sparse=True),
    "torch_sgemm": torch_sgemm,
}


def main() -> None:
    """Answer line for line, until the input ends."""
    name, *files = sys.argv[1:]
    run = SIDES[name](*(sp.load_npz(file) for file in files))

    def work(line: str) -> Answer:
        start = time.perf_counter()
        return {**run(), "seconds": time.perf_counter() - start}

    answer(work)


if __name__ == "__main__":
    main()
