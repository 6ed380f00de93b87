"""What builds a network: a function or class that takes some arguments by name, or copies of a module."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from tombola.errors import NetworkError, reason

Factory = Callable[..., nn.Module]

# What timm, torchvision and Hugging Face call the arguments of a factory.
_OTHER_NAMES = {
    "classes": ("num_classes",),
    "channels": ("in_chans", "in_channels"),
    "size": ("img_size", "image_size"),
    "vocabulary": ("vocab_size",),
    "length": ("seq_len", "max_length"),
}


def arguments_for(factory: Factory, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that a factory has parameters for, under the names that it has.

    offered: by our names; a factory with ``**options`` gets all of them so. The size of a square image is one
        int where it has another name.
    """
    parameters = inspect.signature(factory).parameters
    if any(entry.kind is entry.VAR_KEYWORD for entry in parameters.values()):
        return dict(offered)
    arguments: dict[str, Any] = {}
    for name, value in offered.items():
        if name in parameters:
            arguments[name] = value
            continue
        if name == "size" and len(set(value)) == 1:
            value = value[0]
        arguments |= {other: value for other in _OTHER_NAMES[name] if other in parameters}
    return arguments


class Copies:
    """A factory that gives copies of a module as it was when this was made.

    Raises :class:`~tombola.errors.NetworkError` for a module that no copy can be made of.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = _copied(module)

    def __call__(self) -> nn.Module:
        return _copied(self._module)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).to("cpu")
    except Exception as error:  # whatever the caller's own module holds
        label = type(module).__name__
        raise NetworkError(
            f"network is a built {label} that cannot be copied ({reason(error)}); give what builds one"
        ) from error
