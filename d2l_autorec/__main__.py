"""The commands under one name: ``d2l-autorec``, or ``python -m d2l_autorec``."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from . import __version__
from .commands import cli
from .commands.process import run

COMMANDS = {
    "describe": "describes a file of ratings",
    "train": "trains AutoRec on rating data",
    "compare": "compares it with simpler models",
    "paper": "repeats the experiments of its paper",
    "recommend": "recommends items with a trained model",
    "demo": "shows a trained model on a page in the browser",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names, and exit with its status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = cli.Parser(
        prog="d2l-autorec",
        description="The AutoRec chapter of Dive into Deep Learning, as software.",
        epilog="d2l-autorec COMMAND --help lists the flags of a command.",
    )
    parser.add_argument(
        "--version", action="version", version=f"d2l_autorec {__version__}"
    )
    parser.add_argument(
        "command",
        choices=COMMANDS,
        metavar="COMMAND",
        help="; ".join(f"{name} {what}" for name, what in COMMANDS.items()),
    )
    name = parser.parse_args(words[:1]).command
    command = import_module(f".{name}", __package__)
    run(partial(command.main, words[1:]), os._exit)


if __name__ == "__main__":
    main()
