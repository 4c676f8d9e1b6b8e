"""Rooms seen through the eyes of an agent that turns and walks.

``__init__.pyi`` says what is here. Nothing of it is imported before it is used: a worker process starts without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
