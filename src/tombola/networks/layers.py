"""What the networks share: the 3x3 convolution."""

from __future__ import annotations

from torch import nn


def conv3x3(channels_in: int, channels: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps the image size (divided by the stride)."""
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=bias)
