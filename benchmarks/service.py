"""Ask a service of docs/serving.md, many requests at once, and print its latencies.

A known user of MovieLens 1M is followed by a new one, who rates the items that the
other one was recommended.
"""

import argparse
import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import requests


def ask(address: str, end: float, seed: int) -> list[tuple[float, bool, str]]:
    """Ask until the end: seconds, whether it was answered, and the model's name."""
    found, rng, items = [], random.Random(seed), []
    with requests.Session() as session:
        while time.monotonic() < end:
            body = {"ratings": [[one["item_id"], 4] for one in items]}
            if not items:
                body = {"user": rng.randint(1, 6040)}
            start, answer = time.perf_counter(), {}
            try:
                reply = session.post(f"{address}/recommendations", json=body)
                answer = reply.json() if reply.ok else {}
            except (requests.RequestException, ValueError) as error:
                print(error)
            seconds = time.perf_counter() - start
            found.append((seconds, bool(answer), answer.get("model", "")))
            items = [] if items else answer.get("items", [])
    return found


def main() -> None:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="such as http://127.0.0.1:8000")
    parser.add_argument("--at-once", type=int, default=50, help="requests (50)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    with ThreadPoolExecutor(args.at_once) as pool:
        lists = pool.map(lambda n: ask(args.address, end, n), range(args.at_once))
        asked = [one for found in lists for one in found]
    seconds, answered, models = zip(*asked)
    median, most, worst = 1000 * np.quantile(seconds, [0.5, 0.95, 1])
    print(
        f"{len(asked):,} requests, {args.at_once} at once, {answered.count(False)} "
        f"errors; {len(asked) / args.seconds:.0f} a second; ms: median {median:.1f}, "
        f"95 % below {most:.1f}, longest {worst:.0f}; "
        f"models: {', '.join(sorted(set(models)))}"
    )


if __name__ == "__main__":
    main()
