"""What the networks share: the 3x3 convolution and the initialisation of convolutions."""

from __future__ import annotations

from torch import nn


def conv3x3(channels_in: int, channels: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps the image size (divided by the stride)."""
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=bias)


def initialize_convolutions(module: nn.Module) -> None:
    """Kaiming-normal (fan-out) weights for every convolution, zero biases; all else as PyTorch sets it."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
