"""Traces a network while other threads of the process train theirs.

Apart from :mod:`.rewrite`, which uses it, because it needs no Triton.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import fx, nn

# While it traces, torch.fx stands in for the calls of all modules of the process: one trace at a time.
_tracing = threading.Lock()


def traced(module: nn.Module) -> fx.GraphModule:
    """The traced operations of a network, on its own parameters and buffers.

    Meanwhile, modules that other threads gave to ``torch.compile`` refuse to run; tombola compiles none.

    Raises what ``torch.fx`` raises for a network whose path depends on values.
    """
    with _tracing:
        return fx.GraphModule(module, _Tracer().trace(module))


class _Tracer(fx.Tracer):
    """Traces the calls of its own thread; those of other threads pass through."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)
