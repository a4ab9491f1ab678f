"""Several workers against one process: ``python benchmarks/workers.py``.

All have one thread each, train by the book's recipe on generated ratings of a real data
set's shape, and take turns, an epoch each, so that what else the machine does falls on
both sides. Prints seconds an epoch, peak memory, and the bytes that went over an
interface for a step and worker, in units of batch_size x num_hidden x 4, as the
kernel's counter has them. Times and ratios are medians over the turns; beside a time
stands the processor's.

``--apart`` has the workers train on a share of the users each, and tell each other
nothing: what is left of one process's time then is the machine's.

``--hosts A B`` has each worker run in a network namespace of that name, which
``benchmarks/narrow.sh`` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale import SHAPES, generate

HERE = Path(__file__).parent
Sample = dict[str, float]


def measure(args: argparse.Namespace) -> None:
    """Be a process: train an epoch for each line that comes in, and say how it was."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.cluster import join
    from d2l_autorec.training import Parts, Recipe, Training

    team = join("dist_sync") if "DMLC_ROLE" in os.environ else None
    train = generate(*SHAPES[args.shape])[0]
    if args.share:
        number, size = args.share
        ends = train.getnnz(axis=0).cumsum()
        first, last = ends.searchsorted(
            [ends[-1] * i / size for i in (number, number + 1)]
        )
        train = train[:, first : last + 1]
    seed_everything(0)
    sizes = {"num_hidden": args.num_hidden, "batch_size": args.batch_size}
    recipe = Recipe(**sizes, num_epochs=1000)
    training = Training(recipe, Parts(train), try_all_gpus(), 0, team=team)
    epochs = training.epochs()
    for _ in sys.stdin:
        start = time.process_time()
        epoch = next(epochs)
        cpu = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"seconds": epoch.seconds, "loss": epoch.train_loss, "peak": peak}
        print(
            json.dumps({**found, "cpu": cpu, "steps": training.steps_per_epoch}),
            flush=True,
        )


class Side:
    """One process, or the processes of one training, that wait for their turns."""

    def __init__(self, args: argparse.Namespace, size: int, port: int) -> None:
        command = [sys.executable, __file__, "--measure", "--shape", args.shape]
        command += ["--batch-size", str(args.batch_size)]
        command += ["--num-hidden", str(args.num_hidden)]
        hosts: Sequence[str | None] = args.hosts or [None] * size
        settings = {
            "DMLC_PS_ROOT_URI": args.address,
            "DMLC_PS_ROOT_PORT": str(port),
            "DMLC_NUM_SERVER": "1",
            "DMLC_NUM_WORKER": str(size),
            "DMLC_INTERFACE": args.interface,
        }
        self.others, self.workers = [], []
        if size == 1 and not args.hosts:
            self.workers.append(_start(command, {}, None))
            return
        if args.apart:
            for number in range(size):
                share = ["--share", str(number), str(size)]
                self.workers.append(_start([*command, *share], {}, None))
            return
        for role in ("scheduler", "server"):
            roles = {**settings, "DMLC_ROLE": role}
            self.others.append(_start(command, roles, hosts[0], subprocess.DEVNULL))
        for host in hosts:
            roles = {**settings, "DMLC_ROLE": "worker"}
            self.workers.append(_start(command, roles, host))

    def epoch(self) -> list[Sample]:
        """Have all train an epoch; return what each worker says of it."""
        for worker in self.workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.stdout.readline()) for worker in self.workers]  # type: ignore[union-attr]

    def close(self) -> None:
        """End all, in peace if they can."""
        processes = (*self.workers, *self.others)
        for process in processes:
            assert process.stdin
            process.stdin.close()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _start(
    command: list[str], settings: dict[str, str], host: str | None, out: Any = -1
) -> subprocess.Popen[str]:
    environment = {
        **{name: x for name, x in os.environ.items() if not name.startswith("DMLC")},
        **{"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        **{"PYTHONPATH": f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"},
        **settings,
    }
    inside = ["ip", "netns", "exec", host] if host else []
    return subprocess.Popen(
        [*inside, *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=out,
        text=True,
    )


def sent(interface: str, host: str | None) -> int:
    """Read how many bytes have gone out of an interface."""
    counter = f"/sys/class/net/{interface}/statistics/tx_bytes"
    inside = ["ip", "netns", "exec", host] if host else []
    return int(subprocess.check_output([*inside, "cat", counter]))


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Let both sides take turns; return the medians."""
    size = len(args.hosts or []) or args.workers
    hosts = args.hosts or [None]
    alone_args = argparse.Namespace(**{**vars(args), "hosts": None})
    sides = [Side(alone_args, 1, 0), Side(args, size, args.port)]
    names = ("one", "several", "cpu_one", "cpu_several", "bytes")
    found: dict[str, list[float]] = {name: [] for name in names}
    unit = args.batch_size * args.num_hidden * 4
    try:
        for number in range(args.epochs + 1):
            one = sides[0].epoch()
            before = sum(sent(args.interface, host) for host in hosts)
            several = sides[1].epoch()
            bytes_sent = sum(sent(args.interface, host) for host in hosts) - before
            if number:  # the first one warms up, with one step more
                found["one"].append(one[0]["seconds"])
                found["several"].append(max(x["seconds"] for x in several))
                found["cpu_one"].append(one[0]["cpu"])
                found["cpu_several"].append(max(x["cpu"] for x in several))
                found["bytes"].append(bytes_sent / several[0]["steps"] / size / unit)
            losses = one[0]["loss"], several[0]["loss"]
            assert args.apart or abs(losses[0] - losses[1]) < 1e-4, losses
    finally:
        for side in sides:
            side.close()
    # What else the machine does changes more slowly than the turns do.
    for kind in ("", "cpu_"):
        pairs = zip(found[f"{kind}several"], found[f"{kind}one"])
        found[f"{kind}ratio"] = [several_s / one_s for several_s, one_s in pairs]
    return {
        "shape": args.shape,
        "workers": size,
        **{name: statistics.median(values) for name, values in found.items()},
        "bytes": statistics.mean(found["bytes"]),
        "peak_one": one[0]["peak"] / 1e9,
        "peak_several": max(x["peak"] for x in several) / 1e9,
        "samples": found,
    }


def main() -> None:
    """Compare, and print a row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="ml-1m")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--epochs", type=int, default=5, metavar="N")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N")
    parser.add_argument("--num-hidden", type=int, default=500, metavar="N")
    parser.add_argument("--apart", action="store_true", help="without any sums")
    parser.add_argument("--hosts", nargs="+", metavar="NAMESPACE")
    parser.add_argument("--address", default="127.0.0.1", help="of the first host")
    parser.add_argument("--interface", default="lo", help="to use and to count at")
    parser.add_argument("--port", type=int, default=9410, help="and the next one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--share", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    row = compare(args)
    print(
        "| shape | workers | one process, s (of CPU) | workers, s (of CPU) | ratio (of "
        "CPU) | one, GB | a worker, GB | bytes |\n|---|---|---|---|---|---|---|---|\n"
        "| {shape} | {workers} | {one:.3f} ({cpu_one:.3f}) | {several:.3f} "
        "({cpu_several:.3f}) | {ratio:.2f} ({cpu_ratio:.2f}) | {peak_one:.2f} | "
        "{peak_several:.2f} | {bytes:.2f} |".format(**row)
    )
    if args.json:
        args.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
