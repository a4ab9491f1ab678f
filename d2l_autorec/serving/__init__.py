"""A trained model on disk, what it predicts and recommends, and files kept whole."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
