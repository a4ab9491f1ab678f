"""Train by another tree and by this one in turns: ``python benchmarks/beside.py TREE``.

TREE is a checkout of another commit (``git worktree add TREE COMMIT``). Both train by
the book's recipe on the same generated ratings, a step in turn; printed are the medians
of a step's time, by the clock and of the processors, what the end of an epoch and the
beginning of the next one take besides, the epoch that this makes, and the peak memory.
On Netflix' shape both are in memory at once, 18 GB; ``--alone`` trains one after the
other.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from scale import SHAPES, generate

HERE = Path(__file__).parent
Answer = dict[str, float]


class Side:
    """A tree's training in a process of its own, which waits for its turns."""

    def __init__(self, tree: Path, shape: str) -> None:
        self.name = tree.resolve().name
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(tree), "--shape", shape, "--answer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(tree.resolve())},
            text=True,
        )

    def turn(self, what: str = "step") -> Answer:
        """Let it take a step, or end its epoch; return what it measured."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer: Answer = json.loads(self._process.stdout.readline())
        print(f"{self.name}: {what}, {answer['wall']:.2f} s", file=sys.stderr)
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def answer(shape: str) -> None:
    """Do what each line of the standard input says, and write what it took."""
    import pandas  # noqa: F401  which a command has in memory, whatever the tree

    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.training import Parts, Recipe, Training

    answers, sys.stdout = sys.stdout, sys.stderr
    train, _ = generate(*SHAPES[shape])
    seed_everything(0)
    training = Training(Recipe(), Parts(train), try_all_gpus(), 0)
    # In an older tree, the training itself has one network's step and batches.
    member = getattr(training, "members", [training])[0]

    def batches() -> Iterator[Any]:
        while True:
            yield from member.batches

    batch = batches()
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        if line.strip() == "finish":
            member.step.finish()
        else:
            member.step(next(batch))
        found = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }
        print(json.dumps(found), file=answers, flush=True)


def compare(trees: list[Path], shape: str, num_steps: int) -> None:
    """Let the trees take turns, and print a table."""
    sides = [Side(tree, shape) for tree in trees]
    for side in sides:
        side.turn()  # it warms up
    steps: dict[Side, list[Answer]] = {side: [] for side in sides}
    for _ in range(num_steps):
        for side in sides:
            steps[side].append(side.turn())
    for side in sides:
        end, begin = side.turn("finish"), side.turn()
        num, found = SHAPES[shape][1] / 256, []
        for clock in ("wall", "cpu"):
            step = median(one[clock] for one in steps[side])
            rest = end[clock] + begin[clock] - step
            found += [f"{step:.4f}", f"{rest:.3f}", f"{num * step + rest:.3f}"]
        print("|", " | ".join([side.name, *found, f"{begin['peak_gb']:.2f}"]), "|")
        side.close()


def main() -> None:
    """Compare, or be one of those that are compared."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="ml-10m")
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    parser.add_argument("--alone", action="store_true", help="one after the other")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        answer(args.shape)
        return
    print(f"{args.shape}, median of {args.steps} steps")
    columns = "step s | besides s | epoch s"
    print(f"| tree | {columns} | {columns.replace(' s', ' CPU s')} | peak GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    trees = [args.tree, HERE.parent]
    for together in [[tree] for tree in trees] if args.alone else [trees]:
        compare(together, args.shape, args.steps)


if __name__ == "__main__":
    main()
