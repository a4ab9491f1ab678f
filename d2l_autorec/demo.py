"""Rate and be recommended to, in a browser: ``python -m d2l_autorec.demo``."""

import os

from .commands.demo import main
from .commands.process import run

if __name__ == "__main__":
    run(main, os._exit)
