"""Generative temporal models with memory, as Pyro programs.

The names in ``__init__.pyi`` are the usual way in; each room of the package holds more. Models are in
``gtm_pyro.models``, guides in ``gtm_pyro.guides``. Nothing heavy is imported before it is used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
