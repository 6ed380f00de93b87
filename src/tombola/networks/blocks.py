"""Where the blocks and the head of a network are: known for those that come with tombola."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tombola.errors import NetworkError, unknown
from tombola.networks.architectures import VGG, ConvNet, ResNet


@dataclass(frozen=True)
class Layout:
    """Names of modules, as ``named_modules`` has them.

    blocks: in order; the outputs of the residual blocks, or of the convolution stages of a plain network.
    head: the final linear layer.
    """

    blocks: tuple[str, ...]
    head: str


def layout(module: nn.Module) -> Layout | None:
    """The layout of a built network; None for a module that tombola does not know."""
    if isinstance(module, ResNet):
        return Layout(tuple(f"blocks.{name}" for name, _ in module.blocks.named_children()), "linear")
    if isinstance(module, VGG):
        return Layout(tuple(f"groups.{name}" for name, _ in module.groups.named_children()), "linear")
    if isinstance(module, ConvNet):
        children = dict(module.named_children())
        activated = tuple(name for name, layer in children.items() if isinstance(layer, nn.ReLU))
        return Layout(activated, list(children)[-1])
    return None


def chosen_layout(network: str, module: nn.Module, blocks: Sequence[str] | None, head: str | None) -> Layout:
    """The caller's own names for blocks and head; for what is not given, those that tombola knows.

    Raises :class:`~tombola.errors.NetworkError` if they are not known or no modules of the network, if a
    block is named twice, or if the head is no linear layer.
    """
    if isinstance(blocks, str):
        raise NetworkError(f"blocks is {blocks!r}; it must be a list of names, such as [{blocks!r}]")
    known = layout(module)
    if known is not None:
        blocks, head = known.blocks if blocks is None else blocks, known.head if head is None else head
    if blocks is None or head is None:
        missing = ["blocks=[...]"] * (blocks is None) + ["head='...'"] * (head is None)
        children = ", ".join(name for name, _ in module.named_children())
        raise NetworkError(
            f"network {network} is not one of tombola's own; say {' and '.join(missing)}: names of its "
            f"modules ({children}) or of modules within them"
        )
    for name in blocks:
        _check_name(f"block of {network}", name, module)
    _check_name(f"head of {network}", head, module)
    if len(set(blocks)) < len(blocks):
        raise NetworkError(f"blocks are {list(blocks)}; each must be named once")
    layer = module.get_submodule(head)
    if not isinstance(layer, nn.Linear):
        linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
        hint = f", such as {linear[-1]!r}" if linear else ""
        raise NetworkError(
            f"head {head!r} of {network} is a {type(layer).__name__}; it must be its final linear layer{hint}"
        )
    return Layout(tuple(blocks), head)


def _check_name(kind: str, name: str, module: nn.Module) -> None:
    """Refuse a name that no module has, with the nearest that one has."""
    names = [known for known, _ in module.named_modules() if known]
    if name not in names:
        # Of hundreds of modules, those down to the depth that was meant.
        depth = str(name).count(".")
        raise NetworkError(unknown(kind, str(name), [known for known in names if known.count(".") <= depth]))
