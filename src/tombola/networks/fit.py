"""Whether a network fits its data: it takes one input, and gives one number for each class.

Tried before anything is trained, on zeros. What does not fit is refused in one line that says what to change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.errors import NetworkError, reason
from tombola.networks.network import Network


def check_fits(module: nn.Module, network: Network) -> None:
    """Check that a module of a network takes its images and gives one number for each class.

    Raises :class:`~tombola.errors.NetworkError` if it does not, for layers whose size is not known yet, and
    for data of a single class.
    """
    if network.classes < 2:
        raise NetworkError(
            f"network {network.name} would have {network.classes} class to tell; give data of two or more"
        )
    lazy = [name for name, value in module.named_parameters() if nn.parameter.is_lazy(value)]
    if lazy:
        raise NetworkError(
            f"network {network.name} has a lazy layer, whose {lazy[0]} would be drawn in its first step; "
            "give it its number of inputs"
        )
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(network.zeros(1))
    except Exception as error:  # the caller's own module, which may fail in any way
        kind = "" if type(error) in (RuntimeError, ValueError) else f"{type(error).__name__}: "
        raise NetworkError(
            f"network {network.name} cannot take {network.inputs}: {kind}{reason(error)}"
        ) from error
    check_outputs(outputs, network, 1)


def check_outputs(outputs: object, network: Network, count: int) -> None:
    """Check that a network gives logits ``(count, classes)`` for so many images.

    Raises :class:`~tombola.errors.NetworkError` for anything else, with what to change.
    """
    wanted = (count, network.classes)
    if not isinstance(outputs, Tensor):
        raise NetworkError(
            f"network {network.name} gives {_described(outputs)}; it must give one tensor, the logits "
            f"{wanted}: wrap it in a module that returns {_first(outputs)}"
        )
    shape = tuple(outputs.shape)
    if shape == wanted:
        return
    if len(shape) == 2 and shape[0] == count:
        remedy = f"let its factory take num_classes, here {network.classes}"
    elif len(shape) > 2 and network.classes in (shape[1], shape[-1]):
        last = " last" if shape[-1] == network.classes else ""
        remedy = f"these are classes{last} at each position: average over the positions"
    else:
        remedy = "flatten or pool before its last linear layer"
    images = "one image" if count == 1 else f"{count} images"
    raise NetworkError(f"network {network.name} gives {shape} for {images}; wanted {wanted}: {remedy}")


def _described(outputs: object) -> str:
    """What a network gives instead of a tensor."""
    kind = type(outputs).__name__
    if isinstance(outputs, dict):
        return f"a {kind} of {', '.join(map(repr, outputs))}"
    if isinstance(outputs, tuple | list):
        return f"a {kind} of {len(outputs)}"
    return f"a {kind}"


def _first(outputs: object) -> str:
    """How to take the logits from what a network gives."""
    if isinstance(outputs, dict) and outputs:
        return f"outputs[{'logits' if 'logits' in outputs else next(iter(outputs))!r}]"
    return "outputs[0]" if isinstance(outputs, tuple | list) else "a tensor"
