"""The networks of the first lottery tickets and of pruning at initialisation: LeNets and Conv-2, 4, 6, 8.

Without batch norm, and of a size that depends on that of the images. Frankle & Carbin (2019), "The Lottery
Ticket Hypothesis", table of networks, for LeNet-300-100 and Conv-2, 4 and 6; Ramanujan et al. (2020), "What's
Hidden in a Randomly Weighted Neural Network?", for Conv-8; Lee et al. (2019), "SNIP", for LeNet-5-Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from tombola.errors import NetworkError
from tombola.networks.initialization import Scheme, glorot_normal, lecun_normal


class PlainNet(nn.Module):
    """Groups of layers one after the other, and one linear layer.

    groups: convolutions up to a pooling, then each hidden linear layer with its ReLU.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Module]], linear: nn.Linear) -> None:
        super().__init__()
        self.groups = nn.Sequential(*(nn.Sequential(*layers) for layers in groups))
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.groups(x))
        return logits


def lenet300(channels: int, size: tuple[int, ...], classes: int) -> PlainNet:
    """LeNet-300-100: hidden layers of 300 and 100 units; 266,200 weights for MNIST (Frankle & Carbin, 2019).

    Weights start normal with variance 2/(fan in + fan out), biases at 0.
    """
    return _with_hidden_layers([], math.prod((channels, *size)), (300, 100), classes)


def lenet5(channels: int, size: tuple[int, ...], classes: int) -> PlainNet:
    """LeNet-5 as in Caffe: 430,500 weights for MNIST (Lee et al., 2019); images of 16x16 or more.

    Convolutions of 5x5 without padding, 20 and 50 channels, each with a 2x2 max-pooling and no ReLU; a hidden
    layer of 500 units with the only ReLU. Weights start as SNIP's public code draws them, with variance
    1/fan in (:func:`~tombola.networks.initialization.lecun_normal`), biases at 0.
    """
    _check_size("lenet5", size, 16)
    groups: list[list[nn.Module]] = [
        [nn.Conv2d(channels, 20, 5), nn.MaxPool2d(2)],
        [nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)],
    ]
    features = 50 * math.prod(((side - 4) // 2 - 4) // 2 for side in size)
    return _with_hidden_layers(groups, features, (500,), classes, lecun_normal)


def conv2(channels: int, size: tuple[int, ...], classes: int) -> PlainNet:
    """Conv-2 of Frankle & Carbin (2019), convolutions of 64 channels: 4,300,992 weights for CIFAR-10.

    3x3 convolutions that keep the size, each with ReLU, by twos before a 2x2 max-pooling; hidden layers of
    256 and 256 units. Weights start normal with variance 2/(fan in + fan out), biases at 0.
    """
    return _conv("conv2", channels, size, classes, (64,))


def conv4(channels: int, size: tuple[int, ...], classes: int) -> PlainNet:
    """Conv-4 (Frankle & Carbin, 2019): :func:`conv2`, then 128 channels; 2,425,024 weights for CIFAR-10."""
    return _conv("conv4", channels, size, classes, (64, 128))


def conv6(channels: int, size: tuple[int, ...], classes: int) -> PlainNet:
    """Conv-6 (Frankle & Carbin, 2019): :func:`conv4`, then 256 channels; 2,261,184 weights for CIFAR-10.

    The paper prints 1.7 million, which its own table of layers does not come to. Images of 8x8 or more.
    """
    return _conv("conv6", channels, size, classes, (64, 128, 256))


def conv8(channels: int, size: tuple[int, ...], classes: int) -> PlainNet:
    """Conv-8 (Ramanujan et al., 2020): :func:`conv6`, then 512 channels; 5,275,840 weights for CIFAR-10.

    Images of 16x16 or more.
    """
    return _conv("conv8", channels, size, classes, (64, 128, 256, 512))


def _conv(name: str, channels: int, size: tuple[int, ...], classes: int, widths: Sequence[int]) -> PlainNet:
    """Two 3x3 convolutions of each width before a pooling, and hidden layers of 256 and 256 units."""
    _check_size(name, size, 2 ** len(widths))
    groups: list[list[nn.Module]] = []
    for width in widths:
        layers: list[nn.Module] = []
        for channels_in in (channels, width):
            layers += [nn.Conv2d(channels_in, width, 3, padding=1), nn.ReLU(inplace=True)]
        groups.append([*layers, nn.MaxPool2d(2)])
        channels = width
    features = widths[-1] * math.prod(side // 2 ** len(widths) for side in size)
    return _with_hidden_layers(groups, features, (256, 256), classes)


def _with_hidden_layers(
    groups: Sequence[Sequence[nn.Module]],
    features: int,
    hidden: Sequence[int],
    classes: int,
    scheme: Scheme = glorot_normal,
) -> PlainNet:
    """Groups of convolutions that give so many features, and linear layers, drawn by a scheme."""
    layers: list[list[nn.Module]] = []
    for units in hidden:
        layers.append([nn.Linear(features, units), nn.ReLU(inplace=True)])
        features = units
    layers[0].insert(0, nn.Flatten())
    module = PlainNet([*groups, *layers], nn.Linear(features, classes))
    scheme(module)
    return module


def _check_size(name: str, size: tuple[int, ...], least: int) -> None:
    """Raises NetworkError for what is no image, or one that is too small for the poolings."""
    if len(size) != 2 or min(size) < least:
        shape = "x".join(map(str, size)) or "single numbers"
        raise NetworkError(
            f"network {name} takes images of {least}x{least} or more, and these are {shape}; "
            "lenet300 takes any"
        )
