"""Sides of a measurement: processes that wait while the others have their turns.

So all that else the machine does falls on all of them.
"""

import json
import os
import resource
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Answer = dict[str, Any]


class Side:
    """A process that gives an answer, a line of JSON, to each line that it is sent."""

    def __init__(self, command: Sequence[str], tree: Path = ROOT, **variables: str):
        # The directory of the script comes first; the project's has to follow.
        path = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path.strip(os.pathsep), **variables},
            text=True,
        )

    def turn(self, what: str = "") -> Answer:
        """Let it do a piece of work; return its answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer: Answer = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self.process.communicate(timeout=60)


def answer(work: Callable[[str], Answer]) -> None:
    """Be a side: do the work of each line of the input, until it ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(work(line.strip())), file=answers, flush=True)


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: kibibytes


def parser(doc: str | None) -> ArgumentParser:
    """Make a parser of flags, which all can write their measurements as JSON."""
    made = ArgumentParser(description=(doc or "").split("\n\n")[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    return made


def write(file: Path | None, found: Any) -> None:
    """Write the measurements, if a file was named."""
    if file:
        file.write_text(json.dumps(found, indent=2) + "\n")


def print_row(cells: Iterable[Any]) -> None:
    """Print a row of a Markdown table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def print_header(*titles: str) -> None:
    """Print the header of a Markdown table."""
    print_row(titles)
    print("|---" * len(titles) + "|", flush=True)
