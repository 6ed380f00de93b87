"""VGG16 for small images (Simonyan & Zisserman, 2014), with batch norm and a single linear layer.

Layers and initialisation are those of the public code that the paper's configuration comes from (reading B3).
"""

from __future__ import annotations

from torch import Tensor, nn

from tombola.networks.initialization import kaiming_normal
from tombola.networks.layers import conv3x3

_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Five groups of 3x3 convolutions, global average pooling and one linear layer.

    pools: how many of the groups, from the first on, end in a 2x2 max-pooling that halves the image side.
    """

    def __init__(self, channels: int, classes: int, pools: int) -> None:
        super().__init__()
        groups: list[nn.Module] = []
        channels_in = channels
        for index, widths in enumerate(_GROUPS):
            layers: list[nn.Module] = []
            for width in widths:
                layers += [
                    conv3x3(channels_in, width, bias=True),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels_in = width
            if index < pools:
                layers.append(nn.MaxPool2d(2))
            groups.append(nn.Sequential(*layers))
        self.groups = nn.Sequential(*groups)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels_in, classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(self.groups(x)).flatten(1))
        return logits


def vgg16(channels: int, classes: int) -> VGG:
    """VGG16 with batch norm: 14,728,266 parameters for 3 channels and 10 classes; images of 16x16 or more.

    Four max-poolings, none after the last group. Convolutions start normal with variance 2/fan out, the
    linear layer normal with standard deviation 0.01, all biases at 0.
    """
    module = VGG(channels, classes, pools=4)
    nn.init.normal_(module.linear.weight, std=0.01)
    nn.init.zeros_(module.linear.bias)
    return module


def vgg16_version1(channels: int, classes: int) -> VGG:
    """VGG16 as version 1 had it: a max-pooling after every group, and the linear layer as PyTorch draws it.

    Images of 32x32 or more. Its weights have the names and shapes of the newer version, but other outputs.
    """
    return VGG(channels, classes, pools=5)
