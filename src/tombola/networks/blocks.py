"""Names of the blocks and the head of a network, at which probes and transfer read it.

They follow from the architecture for tombola's own networks, and are the caller's for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tombola.errors import NetworkError, unknown
from tombola.networks.architectures import VGG, ConvNet, ResNet
from tombola.networks.classic import PlainNet


@dataclass(frozen=True)
class BlockNames:
    """Names of the blocks and the head of a network, as ``named_modules`` has them.

    blocks: in order; the outputs of the residual blocks, or of the convolution stages of a plain network.
    head: the final linear layer.
    """

    blocks: tuple[str, ...]
    head: str


def built_in_block_names(module: nn.Module) -> BlockNames | None:
    """Names in a network that comes with tombola; None for any other module."""
    if isinstance(module, ResNet):
        return BlockNames(tuple(f"blocks.{name}" for name, _ in module.blocks.named_children()), "linear")
    if isinstance(module, VGG | PlainNet):
        return BlockNames(tuple(f"groups.{name}" for name, _ in module.groups.named_children()), "linear")
    if isinstance(module, ConvNet):
        children = dict(module.named_children())
        activated = tuple(name for name, layer in children.items() if isinstance(layer, nn.ReLU))
        return BlockNames(activated, list(children)[-1])
    return None


def block_names(
    network: str, module: nn.Module, blocks: Sequence[str] | None, head: str | None
) -> BlockNames:
    """The caller's names of blocks and head; where None, those of tombola's own network.

    Raises :class:`~tombola.errors.NetworkError` if there are none or they are no modules of the network, if a
    block is named twice, or if the head is no linear layer.
    """
    if isinstance(blocks, str):
        raise NetworkError(f"blocks is {blocks!r}; it must be a list of names, such as [{blocks!r}]")
    built_in = built_in_block_names(module)
    if built_in is not None:
        blocks = built_in.blocks if blocks is None else blocks
        head = built_in.head if head is None else head
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
    return BlockNames(tuple(blocks), head)


def _check_name(kind: str, name: str, module: nn.Module) -> None:
    """Raises NetworkError, with the nearest name, for a name that no module has."""
    names = [path for path, _ in module.named_modules() if path]
    if name not in names:
        # Of hundreds of modules, those down to the depth that was meant.
        depth = str(name).count(".")
        raise NetworkError(unknown(kind, str(name), [path for path in names if path.count(".") <= depth]))
