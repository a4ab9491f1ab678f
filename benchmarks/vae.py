"""An epoch of Mult-VAE, ours beside PyTorch's: ``python benchmarks/vae.py``.

All train 600-200-600 with dropout 0.5 on ML-1M's ratings of 4 and 5, in batches of 256
users, by Adam, and take turns. PyTorch's sides have dense rows, with Adam as it comes,
fused, or in a compiled step, or sparse rows; ``make .venv-torch`` makes their
environment. Printed are medians.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from sides import ROOT, Answer, Side, answer, parser, print_header, print_row, write

CORES = str(len(os.sched_getaffinity(0)))
TORCH = ROOT / ".venv-torch" / "bin" / "python"
Work = Callable[[], Answer]
HIDDEN, MIDDLE, BATCH, LR, BETA, ANNEALING = 600, 200, 256, 0.001, 0.2, 1500


def ours(rows: sp.csr_matrix) -> Work:
    """Fit our model, and time its third epoch."""
    from d2l_autorec import topn

    def run():
        ends = []
        model = topn.MultVAE(HIDDEN, num_factors=MIDDLE, lr=LR, num_epochs=3)
        model.fit(
            rows.T.tocsr(), on_epoch=lambda epoch: ends.append(time.perf_counter())
        )
        return {"seconds": ends[2] - ends[1]}

    return run


def torch(rows: sp.csr_matrix, sparse=False, compiled=False, fused=None) -> Work:
    """Do the same mathematics in PyTorch."""
    import torch
    from torch import nn
    from torch.nn.functional import dropout, log_softmax

    torch.set_num_threads(int(CORES))
    torch.manual_seed(0)
    num_users, num_items = rows.shape
    dense = torch.from_numpy(rows.toarray())
    rows = sp.diags(1 / np.sqrt(np.maximum(rows.getnnz(axis=1), 1))) @ rows
    rows = rows.astype(np.float32).tocsr()
    first = nn.Linear(num_items, HIDDEN)
    encoder = nn.Linear(HIDDEN, 2 * MIDDLE)
    decoder = nn.Sequential(
        nn.Linear(MIDDLE, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, num_items)
    )
    layers = nn.ModuleList([first, encoder, decoder])
    adam = torch.optim.Adam(layers.parameters(), lr=LR, fused=fused)
    number = 0

    def sums(users, batch):
        if not sparse:
            unit = batch / batch.sum(dim=1, keepdim=True).sqrt().clamp(min=1)
            return first(dropout(unit, 0.5))
        own = rows[users.numpy()]
        own.data *= 2 * (np.random.rand(own.nnz) < 0.5).astype(np.float32)
        arrays = map(torch.from_numpy, (own.indptr, own.indices, own.data))
        inputs = torch.sparse_csr_tensor(*arrays, own.shape)
        return torch.sparse.mm(inputs, first.weight.T) + first.bias

    def loss_of(users, batch, beta):
        mean, log_var = encoder(torch.tanh(sums(users, batch))).chunk(2, dim=1)
        drawn = mean + torch.randn_like(mean) * torch.exp(log_var / 2)
        likelihood = (log_softmax(decoder(drawn), dim=1) * batch).sum()
        divergence = (mean**2 + log_var.exp() - log_var - 1).sum() / 2
        return (beta * divergence - likelihood) / len(batch)

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=True)

    def run():
        nonlocal number
        start = time.perf_counter()
        for users in torch.randperm(num_users).split(BATCH):
            number += 1
            adam.zero_grad()
            beta = torch.tensor(BETA * min(1, number / ANNEALING))
            loss_of(users, dense[users], beta).backward()
            adam.step()
        return {"seconds": time.perf_counter() - start}

    return run


SIDES = {
    "ours": {},
    "torch": {},
    "torch, fused": {"fused": True},
    "torch, compiled": {"fused": True, "compiled": True},
    "torch, sparse": {"fused": True, "sparse": True},
}


def main() -> None:
    """Measure, or be a side."""
    flags = parser(__doc__)
    flags.add_argument("--epochs", type=int, default=7, metavar="N", help="turns")
    flags.add_argument("--side", nargs=2, help="be a side, on the rows of a file")
    args = flags.parse_args()
    if args.side:
        name, file = args.side
        rows = sp.load_npz(file)
        run = ours(rows) if name == "ours" else torch(rows, **SIDES[name])
        answer(lambda line: run())
        return
    from d2l_autorec import load_dataset

    ratings = load_dataset("ml-1m")
    rows = ratings.matrix(np.flatnonzero(ratings.rating >= 4)).sign().T.tocsr()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "rows.npz")
        sp.save_npz(file, rows)
        sides = {}
        for name in SIDES:
            python = sys.executable if name == "ours" else str(TORCH)
            command = [python, __file__, "--side", name, file]
            sides[name] = Side(command, OMP_NUM_THREADS=CORES)
        seconds = {name: [] for name in sides}
        for turn in range(args.epochs + 1):
            for name, side in sides.items():
                found = side.turn()["seconds"]
                if turn:  # the first one warms up
                    seconds[name].append(found)
        for side in sides.values():
            side.close()
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    print_header("Mult-VAE on ML-1M", "seconds an epoch", "ours / it")
    for name, median in medians.items():
        print_row([name, f"{median:.3f}", f"{medians['ours'] / median:.2f}"])
    write(args.json, seconds)


if __name__ == "__main__":
    main()
