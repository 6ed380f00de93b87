"""tombola: the laboratory for lottery tickets and for the SGD noise that decides whether they win.

Everything public is here under ``import tombola as tb``. Names are loaded when first used, so that the
command line can answer without waiting for PyTorch; which they are stands in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
