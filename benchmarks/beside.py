"""Train by another tree and by this one in turns: ``python benchmarks/beside.py TREE``.

TREE is a checkout of another commit (``git worktree add TREE COMMIT``). Both train by
the book's recipe on the same generated ratings, a step in turn; printed are the medians
of a step's time, by the clock and of the processors, what the end of an epoch and the
beginning of the next one take besides, the epoch that this makes, and the peak memory.
On Netflix' shape both are in memory at once, 18 GB; ``--alone`` trains one after the
other.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from scale import SHAPES, generate
from sides import (
    ROOT,
    Answer,
    Side,
    answer,
    parser,
    peak_memory,
    print_header,
    print_row,
    write,
)


def train(shape: str) -> None:
    """Be a side: take a step for each line, or end the epoch where it says so."""
    import pandas  # noqa: F401  which a command has in memory, whatever the tree

    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.training import Parts, Recipe, Run, Training

    ratings, _ = generate(*SHAPES[shape])
    seed_everything(0)
    make = getattr(Training, "of", Training)  # an older tree has the former
    training = make(Run(Parts(ratings), Recipe(), 0), try_all_gpus())
    # In another one, the training itself has one network's step and batches.
    member = getattr(training, "members", [training])[0]

    def endless() -> Iterator[Any]:
        while True:
            yield from member.batches

    batches = endless()

    def work(what: str) -> Answer:
        wall, cpu = time.perf_counter(), time.process_time()
        if what == "finish":
            member.step.finish()
        else:
            member.step(next(batches))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall": wall, "cpu": cpu, "peak_gb": peak_memory() / 1e9}

    answer(work)


def compare(trees: list[Path], shape: str, num_steps: int) -> dict[str, Any]:
    """Let the trees take turns; print a row for each, and return the measurements."""
    command = [sys.executable, __file__, ".", "--shape", shape, "--answer"]
    sides = {tree.resolve().name: Side(command, tree.resolve()) for tree in trees}
    for side in sides.values():
        side.turn()  # it warms up
    steps: dict[str, list[Answer]] = {name: [] for name in sides}
    for _ in range(num_steps):
        for name, side in sides.items():
            steps[name].append(side.turn())
    for name, side in sides.items():
        end, begin = side.turn("finish"), side.turn()
        num, cells = SHAPES[shape][1] / 256, []
        for clock in ("wall", "cpu"):
            step = median(one[clock] for one in steps[name])
            rest = end[clock] + begin[clock] - step
            cells += [f"{step:.4f}", f"{rest:.3f}", f"{num * step + rest:.3f}"]
        print_row([name, *cells, f"{begin['peak_gb']:.2f}"])
        steps[name] += [end, begin]
        side.close()
    return steps


def main() -> None:
    """Compare, or be one of the trees that are compared."""
    flags = parser(__doc__)
    flags.add_argument("tree", type=Path)
    flags.add_argument("--shape", choices=SHAPES, default="ml-10m")
    flags.add_argument("--steps", type=int, default=10, metavar="N")
    flags.add_argument("--alone", action="store_true", help="one after the other")
    flags.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.answer:
        train(args.shape)
        return
    print(f"{args.shape}, median of {args.steps} steps")
    columns = ["step s", "besides s", "epoch s"]
    by_cpu = [column.replace(" s", " CPU s") for column in columns]
    print_header("tree", *columns, *by_cpu, "peak GB")
    trees, found = [args.tree, ROOT], {}
    for together in [[tree] for tree in trees] if args.alone else [trees]:
        found |= compare(together, args.shape, args.steps)
    write(args.json, found)


if __name__ == "__main__":
    main()
