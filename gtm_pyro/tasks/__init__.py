"""Where episodes come from. ``__init__.pyi`` says what is here; nothing of it is imported before it is used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
