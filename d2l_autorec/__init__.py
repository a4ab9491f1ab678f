"""The AutoRec chapter of *Dive into Deep Learning*, as software that runs.

The names are the book's. They are imported when first used, and the first of them that
needs MXNet switches its NumPy semantics on (``npx.set_np()``), as the book's own
notebooks do; so ``python -m d2l_autorec.train --help`` answers at once.

Import this package before MXNet: from then on MXNet is imported, by whomever, as
`_ready` says. Without that its import fails.
"""

import sys

import lazy_loader

from ._ready import MXNetFinder

__version__ = "0.1.0"

if not any(isinstance(finder, MXNetFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, MXNetFinder())

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
