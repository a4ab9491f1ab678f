"""Describe a file of ratings: ``python -m d2l_autorec.describe``."""

import os

from .commands.describe import main
from .commands.process import run

__all__ = ["main"]

if __name__ == "__main__":
    run(main, os._exit)
