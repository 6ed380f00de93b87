"""VGG16 for small images (Simonyan & Zisserman, 2014), with batch norm and a single linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from tombola.networks.layers import conv3x3, initialize_convolutions

_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Five groups of 3x3 convolutions, each followed by a halving of the image side."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        groups: list[nn.Module] = []
        channels_in = channels
        for widths in _GROUPS:
            layers: list[nn.Module] = []
            for width in widths:
                layers += [
                    conv3x3(channels_in, width, bias=True),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels_in = width
            groups.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.groups = nn.Sequential(*groups)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels_in, classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(self.groups(x)).flatten(1))
        return logits


def vgg16(channels: int, classes: int) -> VGG:
    """VGG16 with batch norm: 14,728,266 parameters for 3 channels and 10 classes; images of 32x32 or more."""
    return VGG(channels, classes)
