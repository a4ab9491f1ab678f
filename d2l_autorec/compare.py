"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

import os

from .commands.cli import run
from .commands.compare import main

__all__ = ["main"]

if __name__ == "__main__":
    run(main, os._exit)
