"""Repeat the AutoRec paper's experiments: ``python -m d2l_autorec.paper``."""

import os

from .commands.paper import main
from .commands.process import run

if __name__ == "__main__":
    run(main, os._exit)
