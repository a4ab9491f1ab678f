"""Reading ratings: seconds and memory of a large file, and what odd files come to.

``python benchmarks/reading.py size --rows 100000000`` makes ratings of the Netflix
Prize's shape as Parquet and as CSV, and reads each in a process of its own. ``odd``
writes small files with whatever a file may hold and compares what is read with what was
written; ``bits`` flips bytes of a Parquet file.
"""

import argparse
import contextlib
import csv
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb

from d2l_autorec.errors import DataError
from d2l_autorec.ratings import read_ratings

SHAPE = 480_189, 17_770, 100_480_507  # users, items and ratings of the Netflix Prize
MARKS = ("\t", ",", ";", "|", "::", " ")
IDS = ("1", "01", "1.0", "NA", "é", "a b", "x", "9" * 20, "-3", '"', "'", "")
VALUES = ("1", "2.5", "0", "-1", "5e-1", "nan", "1e39", "", "x", "1_0", "3,5", "\0")


def make(folder: Path, rows: int) -> list[Path]:
    """Write ratings as Parquet and CSV: each user's items are a random set."""
    users, items, _ = SHAPE
    users = max(2, min(users, rows // 200))
    each = -(-rows // users)
    files = [folder / f"ratings.{kind}" for kind in ("parquet", "csv")]
    con = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(folder)})
    query = (
        f"SELECT (n // {each} * 7919) % {users} * 5 + 6 AS user_id, (hash(n // {each}) "
        f"% {items} + n % {each} * 37) % {items} + 1 AS item_id, hash(n) % 5 + 1 AS "
        "rating, 1e9::BIGINT + hash(n) % 190000000 AS timestamp "
        f"FROM range({rows}) t(n)"
    )
    con.execute(f"COPY ({query}) TO '{files[0]}' (FORMAT parquet)")
    con.execute(f"COPY (FROM '{files[0]}') TO '{files[1]}' (FORMAT csv)")
    return files


def measure(file: str) -> None:
    """Read a file here; print seconds and peak memory."""
    start = time.perf_counter()
    ratings = read_ratings(file)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {"ratings": len(ratings.rating), "seconds": seconds, "peak_gb": peak}
    print(json.dumps({"file": Path(file).name, **found}))


def of_size(rows: int) -> None:
    """Make the files, and read each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for file in make(Path(folder), rows):
            asked = [sys.executable, __file__, "one", "--file", str(file)]
            subprocess.run(asked, check=True)


def odd_files(number: int, seed: int) -> Iterator[tuple[bytes, list[tuple[str, str]]]]:
    """Draw files: their bytes, and the ids of each row."""
    for n in range(number):
        rng = random.Random(f"{seed}-{n}")
        mark = rng.choice(MARKS)
        odd = rng.random() < 0.5
        usual_ids, usual_values = IDS[:3] + ("x", "y"), VALUES[:2]
        rows = [
            (
                rng.choice(IDS if odd else usual_ids),
                rng.choice(IDS if odd else usual_ids) + str(k),
                rng.choice(VALUES if odd and rng.random() < 0.1 else usual_values),
            )
            for k in range(rng.randint(2, 12))
        ]
        out = io.StringIO()
        if len(mark) == 1 and mark != " " and rng.random() < 0.5:
            csv.writer(out, delimiter=mark, lineterminator="\n").writerows(rows)
        else:
            out.writelines(mark.join(row) + "\n" for row in rows)
        text = out.getvalue()
        if rng.random() < 0.2:
            text = mark.join(("user", "item", "rating")) + "\n" + text
        if rng.random() < 0.2:
            text = text.replace("\n", rng.choice(["\r\n", "\r", "\n\n", " \n"]))
        raw = text.encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
        if odd and rng.random() < 0.2:
            place = rng.randrange(len(raw))
            raw = raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]
            rows = []
        yield raw, [row[:2] for row in rows]


def odd(number: int, seed: int) -> None:
    """Read odd files; count what they come to."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f"
        for raw, ids in odd_files(number, seed):
            file.write_bytes(raw)
            try:
                ratings = read_ratings(file, duplicates="last")
            except DataError as error:
                counts["refused in one line" if "\n" not in str(error) else "?"] += 1
                continue
            except Exception as error:
                counts[f"traceback: {type(error).__name__}"] += 1
                print(raw, error, file=sys.stderr)
                continue
            index = zip(ratings.user_index, ratings.item_index)
            found = {
                (str(ratings.user_ids[u]), str(ratings.item_ids[i])) for u, i in index
            }
            same = not ids or found == set(ids)
            counts["read" if same else "another id or a lost row"] += 1
            if not same:
                print(raw, sorted(found ^ set(ids)), file=sys.stderr)
    print(json.dumps(counts))


def bits(number: int, seed: int) -> None:
    """Flip bits in 1 to 5 bytes of a Parquet file; count what that comes to."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        honest = make(Path(folder), 5000)[0]
        whole, table = honest.read_bytes(), read_ratings(honest).data
        file = Path(folder) / "f.parquet"
        for n in range(number):
            rng, raw = random.Random(f"{seed}-{n}"), bytearray(whole)
            for _ in range(rng.randint(1, 5)):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            file.write_bytes(raw)
            try:
                same = read_ratings(file).data.equals(table)
                outcome = "read, as it was" if same else "read, and other values"
            except DataError as error:
                outcome = "one line" if "\n" not in str(error) else "several lines"
            except Exception as error:
                outcome = f"traceback: {type(error).__name__}: {error}"
            counts[outcome] += 1
    print(json.dumps(counts))


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("size", "one", "odd", "bits"))
    parser.add_argument("--rows", type=int, default=SHAPE[2])
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file")
    args = parser.parse_args()
    if args.what == "size":
        of_size(args.rows)
    elif args.what == "one":
        measure(args.file)
    else:
        {"odd": odd, "bits": bits}[args.what](args.number, args.seed)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
