"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

import os

from .commands.compare import main
from .commands.process import run

__all__ = ["main"]

if __name__ == "__main__":
    run(main, os._exit)
