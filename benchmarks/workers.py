"""Several workers against one process: ``python benchmarks/workers.py``.

All have one thread each, train by the book's recipe on generated ratings of a real data
set's shape, and take turns, an epoch each, so that what else the machine does falls on
both sides. Prints seconds an epoch, of the clock and of the processor, peak memory less
that of a process that has trained on next to nothing, and bytes out of an interface for
a step and worker in units of batch_size x num_hidden x 4. Times and ratios are medians
over the turns.

Workers on one machine talk by memory that they share, which no interface counts.
``--mpiexec`` names the command that starts them, with its flags, as
``benchmarks/narrow.sh`` does.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scale import SHAPES, generate

HERE = Path(__file__).parent
FIELDS = ("seconds", "cpu", "loss", "memory", "steps")
MPIEXEC = str(Path(sys.executable).with_name("mpiexec"))


def measure(args: argparse.Namespace) -> None:
    """Train an epoch for each line that comes in; the first worker says how it was."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.cluster import join, launched
    from d2l_autorec.training import Parts, Recipe, Training

    team = join() if launched() else None
    rank, size = (team.rank, team.size) if team else (0, 1)
    sizes = {"num_hidden": args.num_hidden, "batch_size": args.batch_size}
    recipe = Recipe(**sizes, num_epochs=1000)
    small = Parts(generate(1000, 300, 3000)[0])
    next(Training(recipe, small, try_all_gpus(), 0, team=team).epochs())  # compiles
    empty = _peak()
    train = generate(*SHAPES[args.shape])[0]
    seed_everything(0)
    training = Training(recipe, Parts(train), try_all_gpus(), 0, team=team)
    start = 0.0
    for epoch in training.epochs():
        # The first one, which warms up, takes no turn.
        found = np.zeros((size, len(FIELDS)), np.float32)
        memory, steps = _peak() - empty, training.steps_per_epoch
        cpu = time.process_time() - start
        found[rank] = epoch.seconds, cpu, epoch.train_loss, memory, steps
        if team:
            team.sum(found)
        if not rank:
            print(json.dumps(found.tolist()), flush=True)
        line = sys.stdin.readline() if not rank else ""
        if not (team.tell(line) if team else line):
            break
        start = time.process_time()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Side:
    """The processes of one training, which wait for their turns."""

    def __init__(self, args: argparse.Namespace, starter: list[str]) -> None:
        command = [*starter, sys.executable, __file__, "--measure"]
        command += ["--shape", args.shape, "--batch-size", str(args.batch_size)]
        path = f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"
        self.process = subprocess.Popen(
            [*command, "--num-hidden", str(args.num_hidden)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.result()

    def result(self) -> dict[str, float]:
        """Read how an epoch was for the worker that took longest or most."""
        assert self.process.stdout
        rows = json.loads(self.process.stdout.readline())
        return dict(zip(FIELDS, np.max(rows, axis=0).tolist()))

    def epoch(self) -> dict[str, float]:
        """Have all train an epoch."""
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.result()


def sent(interface: str) -> int:
    """Read how many bytes have gone out of an interface."""
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text())


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Let both sides take turns; return the medians."""
    starter = [*shlex.split(args.mpiexec), "-n", str(args.workers)]
    sides = {"one": Side(args, []), "several": Side(args, starter)}
    names = [f"{name}_{field}" for name in sides for field in FIELDS]
    found: dict[str, list[float]] = {name: [] for name in [*names, "bytes"]}
    try:
        for _ in range(args.epochs):
            for name, side in sides.items():
                before = sent(args.interface)
                for field, value in side.epoch().items():
                    found[f"{name}_{field}"].append(value)
            unit = args.batch_size * args.num_hidden * 4 * found["one_steps"][0]
            found["bytes"].append((sent(args.interface) - before) / unit)
            losses = found["one_loss"][-1], found["several_loss"][-1]
            assert abs(losses[0] - losses[1]) < 1e-4, losses
    finally:
        for side in sides.values():
            assert side.process.stdin
            side.process.stdin.close()
            side.process.wait(60)
    pairs = zip(found["several_seconds"], found["one_seconds"])
    ratio = statistics.median(several / one for several, one in pairs)
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {"shape": args.shape, "workers": args.workers, **medians, "ratio": ratio}


def main() -> None:
    """Compare, and print a row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="ml-1m")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--epochs", type=int, default=15, metavar="N")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N")
    parser.add_argument("--num-hidden", type=int, default=500, metavar="N")
    parser.add_argument("--mpiexec", default=MPIEXEC, help="with its flags")
    parser.add_argument("--interface", default="lo", help="whose bytes are counted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    row = compare(args)
    print(
        "| shape | workers | one process, s (of CPU) | workers, s (of CPU) | ratio | "
        "one, GB | a worker, GB | bytes |\n|---|---|---|---|---|---|---|---|\n"
        f"| {row['shape']} | {row['workers']} | {row['one_seconds']:.3f} "
        f"({row['one_cpu']:.3f}) | {row['several_seconds']:.3f} "
        f"({row['several_cpu']:.3f}) | {row['ratio']:.2f} | "
        f"{row['one_memory'] / 1e9:.2f} | {row['several_memory'] / 1e9:.2f} | "
        f"{row['bytes']:.2f} |"
    )
    if args.json:
        args.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
