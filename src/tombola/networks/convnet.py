"""A small convolutional network for 8x8 images: tickets in less than a second on a laptop."""

from __future__ import annotations

from torch import nn

from tombola.networks.initialization import kaiming_normal
from tombola.networks.layers import conv3x3


class ConvNet(nn.Sequential):
    """Convolutions with batch norm and ReLU, global average pooling and one linear layer."""


def convnet(channels: int, classes: int) -> ConvNet:
    """Four 3x3 convolutions of 8, 16, 16 and 32 channels with batch norm, pooling and one linear layer."""
    layers: list[nn.Module] = []
    channels_in = channels
    for width, stride in ((8, 1), (16, 2), (16, 1), (32, 2)):
        layers += [conv3x3(channels_in, width, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels_in = width
    module = ConvNet(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels_in, classes))
    kaiming_normal(module)
    return module
