"""The AutoRec chapter of *Dive into Deep Learning*, as software that runs.

The names are the book's. They are imported at their first use, and the first that needs
MXNet switches on its NumPy semantics (``npx.set_np()``), as the book's notebooks do; so
``d2l-autorec train --help`` answers at once.

Import this package before MXNet, whose import fails unless `_ready` prepares it.
"""

import sys

import lazy_loader

from ._ready import MXNetFinder

__version__ = "0.1.0"

if not any(isinstance(finder, MXNetFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, MXNetFinder())

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
