"""Where the blocks and the head of a network are: known for those that come with tombola."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tombola.networks.convnet import ConvNet
from tombola.networks.resnet import ResNet
from tombola.networks.vgg import VGG


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
