"""tombola: the laboratory for lottery tickets and for the SGD noise that decides whether they win.

Everything public is here under ``import tombola as tb``. Names are loaded when first used, so that the
command line can answer without waiting for PyTorch; which they are stands in ``__init__.pyi``, and what
happens before a function is called in ``face.py``.
"""

from inspect import isfunction as _is_function

import lazy_loader as _lazy_loader

_load, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    from tombola.face import public

    value = _load(name)
    if _is_function(value):
        globals()[name] = value = public(name, value)
    return value


for _name in globals().keys() & set(__all__):  # loaded already, by lazy_loader's EAGER_IMPORT
    __getattr__(_name)
