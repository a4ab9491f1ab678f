"""Training on several machines, which meet over MXNet's parameter server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
