"""How fast: our command and loop, the book's way, PyTorch, and what the machine allows.

``D2L_AUTOREC_DATA=... python benchmarks/speed.py`` prints tables with ratios. The sides
take turns. In the loops all have as many threads as there are cores; the commands run
as their users start them, without any variable, and the book's script also with as many
threads as there are cores. PyTorch takes part if ``make .venv-torch`` made its
environment.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from sides import ROOT, Answer, Side, parser, print_header, print_row, write

from d2l_autorec.study import machine

HERE = Path(__file__).parent
TORCH = ROOT / ".venv-torch" / "bin" / "python"
CORES = str(len(os.sched_getaffinity(0)))
HIDDEN, BATCH = 500, 256
Samples = dict[str, list[float]]


def commands(repeats: int, busy: int) -> Samples:
    """Time the whole command and the book's script, from start to exit."""
    ours = [sys.executable, "-m", "d2l_autorec.train", "--quiet"]
    book = [sys.executable, str(HERE / "book.py")]
    plain = {**os.environ, "PYTHONPATH": str(ROOT)}
    plain.pop("OMP_NUM_THREADS", None)
    sides = {
        "our command": (ours, plain),
        "the book's script": (book, plain),
        "the book's script, a thread a core": (
            book,
            {**plain, "OMP_NUM_THREADS": CORES},
        ),
    }
    seconds: Samples = {side: [] for side in sides}
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(busy)]
    try:
        for _ in range(repeats):
            for side, (command, environment) in sides.items():
                start = time.perf_counter()
                done = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                )
                seconds[side].append(time.perf_counter() - start)
                result = next(r for r in done.stdout.splitlines() if "test RMSE" in r)
                print(f"{side}: {seconds[side][-1]:.1f} s, {result}", flush=True)
    finally:
        for other in others:
            other.kill()
    return seconds


def print_commands(seconds: Samples) -> None:
    """Print the medians, and our command's ratio to each of the others."""
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    ours = medians.pop("our command")
    print(f"our command: {ours:.1f} s")
    for side, median in medians.items():
        print(f"{side}: {median:.1f} s, ours / it: 1/{median / ours:.1f}")


def loops(dataset: str, repeats: int, left_out: list[str]) -> dict[str, Any]:
    """Time epochs of the loops, and the products alone, on one split."""
    import scipy.sparse as sp

    from d2l_autorec import load_dataset, seed_everything, split_rows

    seed_everything(0)
    ratings = load_dataset(dataset)
    parts = split_rows(ratings.user_index)
    matrices = [ratings.matrix(part) for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}.npz" for name in ("train", "test")]
        for file, matrix in zip(files, matrices):
            sp.save_npz(file, matrix)
        pythons = dict.fromkeys(("ours", "book", "sgemm", "memory"), sys.executable)
        if TORCH.exists():
            kinds = ("", "_fused", "_compiled", "_sparse", "_sgemm")
            pythons |= {f"torch{kind}": str(TORCH) for kind in kinds}
        else:
            print("PyTorch is left out; `make .venv-torch` installs it")
        script = str(HERE / "contenders.py")
        sides = {
            name: Side([python, script, name, *files], OMP_NUM_THREADS=CORES)
            for name, python in pythons.items()
            if name not in left_out
        }
        answers: dict[str, list[Answer]] = {name: [] for name in sides}
        for turn in range(repeats + 1):
            for name, side in sides.items():
                answer = side.turn()
                if turn:  # the first one warms up
                    answers[name].append(answer)
        for side in sides.values():
            side.close()
    num_items, num_users = matrices[0].shape
    # Five products a batch; what is left over waits, so these are of the mean epoch.
    return {
        "dataset": dataset,
        "answers": answers,
        "gflop_per_epoch": 5 * 2 * num_items * num_users * HIDDEN / 1e9,
        "needed_gflop_per_epoch": 5 * 2 * matrices[0].nnz * HIDDEN / 1e9,
        "steps_per_epoch": num_items / BATCH,
    }


def print_loops(found: dict[str, Any]) -> None:
    """Print one data set's table."""
    answers = found["answers"]

    def typical(name: str, value: str) -> float:
        return statistics.median(answer[value] for answer in answers[name])

    rates = {n: typical(n, "gflops") for n in answers if n.endswith("sgemm")}
    best = max(rates.values())
    print(f"\n{found['dataset']}: seconds an epoch, median")
    ratio = "ours / it"
    columns = ("training", ratio, "with evaluation", ratio, "products")
    print_header("loop", *columns, "last test RMSE")
    for name in answers:
        if name in rates or name == "memory":
            continue
        whole = typical(name, "seconds")
        row = ["-", "-", f"{whole:.4f}", f"{typical('ours', 'seconds') / whole:.2f}"]
        share = "-"
        if "train_seconds" in answers[name][0]:
            training = typical(name, "train_seconds")
            ratio = typical("ours", "train_seconds") / training
            row[:2] = f"{training:.4f}", f"{ratio:.2f}"
            # Batches hold over, so epochs differ in their number of steps: the mean.
            mean = statistics.mean(a["train_seconds"] for a in answers[name])
            rate = found["gflop_per_epoch"] / mean
            share = f"{rate:.0f} GFLOP/s, {rate / best:.0%}"
        rmse = answers[name][-1]["rmse"]
        print_row([name, *row, share, f"{rmse:.3f}"])
    for name, rate in rates.items():
        print(f"{name}: {rate:.0f} GFLOP/s")
    moved = found["steps_per_epoch"] * typical("memory", "seconds_per_step")
    computed = found["needed_gflop_per_epoch"] / best
    print(
        f"the floor: {moved:.4f} s to read and write the parameters and Adam's moments "
        f"once a step, {computed:.4f} s for the five products at the observed cells; "
        f"ours takes {typical('ours', 'train_seconds') / (moved + computed):.1f} times "
        "their sum"
    )


def main() -> None:
    """Measure what is asked for."""
    flags = parser(__doc__)
    parts = ("command", "ml-100k", "ml-1m")
    flags.add_argument("--only", choices=parts, action="append", help="these parts")
    flags.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="LOOP",
        help="leave a loop out, such as book, whose forked loaders may wait forever",
    )
    for name, usual, what in (
        ("repeats", 5, "of the commands"),
        ("epochs", 15, "of the loops"),
        ("busy", 0, "loops that keep a core busy beside the commands"),
    ):
        flags.add_argument(f"--{name}", type=int, default=usual, metavar="N", help=what)
    args = flags.parse_args()
    report: dict[str, Any] = {"machine": machine(), "date": str(date.today())}
    print(report["machine"])
    for part in args.only or parts:
        if part == "command":
            report[part] = commands(args.repeats, args.busy)
            print_commands(report[part])
        else:
            report[part] = loops(part, args.epochs, args.without)
            print_loops(report[part])
    write(args.json, report)


if __name__ == "__main__":
    main()
