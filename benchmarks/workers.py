"""Several workers against one process: ``python benchmarks/workers.py``.

All have one thread each, train by the book's recipe on generated ratings of a real
data set's shape, and take turns, an epoch each. Printed are seconds an epoch, of the
clock and of the processor; peak memory less that of a process that has trained on next
to nothing; and bytes out of an interface for a step and worker, in units of batch_size
x num_hidden x 4. Times and ratios are medians over the turns.

Workers on one machine talk by memory that they share, which no interface counts.
``--mpiexec`` names the command that starts them, with its flags, as
``benchmarks/narrow.sh`` does.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scale import SHAPES, generate
from sides import Side, parser, peak_memory, print_header, print_row, write

FIELDS = ("seconds", "cpu", "loss", "memory", "steps")
MPIEXEC = str(Path(sys.executable).with_name("mpiexec"))


def measure(args: argparse.Namespace) -> None:
    """Train an epoch for each line that comes in; the first worker says how it was."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.cluster import join, launched
    from d2l_autorec.training import Parts, Recipe, Run, Training

    team = join() if launched() else None
    rank, size = (team.rank, team.size) if team else (0, 1)
    sizes = {"num_hidden": args.num_hidden, "batch_size": args.batch_size}
    recipe = Recipe(**sizes, num_epochs=1000)
    small = Parts(generate(1000, 300, 3000)[0])
    next(
        Training(Run(small, recipe, 0), try_all_gpus(), team=team).epochs()
    )  # compiles
    empty = peak_memory()
    train = generate(*SHAPES[args.shape])[0]
    seed_everything(0)
    training = Training(Run(Parts(train), recipe, 0), try_all_gpus(), team=team)
    epochs = training.epochs()
    next(epochs)  # it warms up
    while True:
        line = sys.stdin.readline() if not rank else ""
        if not (team.broadcast(line) if team else line):
            break
        start = time.process_time()
        epoch = next(epochs)
        cpu = time.process_time() - start
        memory, steps = peak_memory() - empty, train.shape[0] / args.batch_size
        found = np.zeros((size, len(FIELDS)), np.float32)
        found[rank] = epoch.seconds, cpu, epoch.train_loss, memory, steps
        if team:
            team.sum(found)
        if not rank:  # of the worker that took longest or most
            longest = dict(zip(FIELDS, found.max(axis=0).tolist()))
            print(json.dumps(longest), flush=True)


def sent(interface: str) -> int:
    """Read how many bytes have gone out of an interface."""
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text())


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Let both sides take turns; return the medians."""
    sizes = {"shape": args.shape, "batch-size": args.batch_size}
    sizes["num-hidden"] = args.num_hidden
    command = [sys.executable, __file__, "--measure"]
    command += [f"--{name}={value}" for name, value in sizes.items()]
    starter = [*shlex.split(args.mpiexec), "-n", str(args.workers)]
    sides = {
        "one": Side(command, OMP_NUM_THREADS="1"),
        "several": Side([*starter, *command], OMP_NUM_THREADS="1"),
    }
    names = [f"{name}_{field}" for name in sides for field in FIELDS]
    found: dict[str, list[float]] = {name: [] for name in [*names, "bytes"]}
    try:
        for turn in range(args.epochs + 1):
            before = sent(args.interface)
            answers = {name: side.turn("go") for name, side in sides.items()}
            if not turn:  # the first one waits until all are set up
                continue
            for name, answer in answers.items():
                for field, value in answer.items():
                    found[f"{name}_{field}"].append(value)
            unit = args.batch_size * args.num_hidden * 4 * found["one_steps"][0]
            found["bytes"].append((sent(args.interface) - before) / unit)
            losses = [answer["loss"] for answer in answers.values()]
            assert abs(losses[0] - losses[1]) < 1e-4, losses
    finally:
        for side in sides.values():
            side.close()
    pairs = zip(found["several_seconds"], found["one_seconds"])
    ratio = statistics.median(several / one for several, one in pairs)
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {"shape": args.shape, "workers": args.workers, **medians, "ratio": ratio}


def main() -> None:
    """Compare, and print a row."""
    flags = parser(__doc__)
    flags.add_argument("--shape", choices=SHAPES, default="ml-1m")
    sizes = ("workers", 2), ("epochs", 15), ("batch-size", 256), ("num-hidden", 500)
    for name, usual in sizes:
        flags.add_argument(f"--{name}", type=int, default=usual, metavar="N")
    flags.add_argument("--mpiexec", default=MPIEXEC, help="with its flags")
    flags.add_argument("--interface", default="lo", help="whose bytes are counted")
    flags.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.measure:
        measure(args)
        return
    row = compare(args)
    times = "one process, s (of CPU)", "workers, s (of CPU)", "ratio"
    print_header("shape", "workers", *times, "one, GB", "a worker, GB", "bytes")
    one, several = (
        f"{row[f'{side}_seconds']:.3f} ({row[f'{side}_cpu']:.3f})"
        for side in ("one", "several")
    )
    memory = [row[f"{side}_memory"] / 1e9 for side in ("one", "several")]
    numbers = [f"{value:.2f}" for value in (row["ratio"], *memory, row["bytes"])]
    print_row([row["shape"], row["workers"], one, several, *numbers])
    write(args.json, row)


if __name__ == "__main__":
    main()
