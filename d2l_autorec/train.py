"""Train AutoRec: ``python -m d2l_autorec.train``."""

import os

from .commands.process import run
from .commands.train import main

if __name__ == "__main__":
    run(main, os._exit)
