"""Recommend with a trained model: ``python -m d2l_autorec.recommend``."""

import os

from .commands.process import run
from .commands.recommend import main

if __name__ == "__main__":
    run(main, os._exit)
