"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

import os

from .commands.compare import main
from .commands.process import run

if __name__ == "__main__":
    run(main, os._exit)
