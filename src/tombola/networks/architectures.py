"""The networks of the paper, ResNet-18 and ResNet-34, ResNet-20, VGG16, and a ResNet-50 and a small network.

All are for small images (CIFAR's 32x32, Tiny ImageNet's 64x64): the stem is a 3x3 convolution of stride 1
without max-pooling. First weights follow readings B3 and B4. The ``_version1`` factories are kept for tickets
of that version (:mod:`tombola.declarations`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tombola.networks.initialization import kaiming_normal

# Channels of VGG16's convolutions, by group.
_VGG16_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def conv3x3(channels_in: int, channels: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps the image size, divided by the stride."""
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=bias)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; one that changes shape is a 1x1 convolution with batch norm."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        activated: Tensor = self.relu(out)
        return activated


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, the last to four times the channels; a shortcut as of :class:`Block`.

    The stride is that of the 3x3 convolution, as in today's definitions (He et al. have it in the first).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        channels_out = 4 * channels
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        activated: Tensor = self.relu(out)
        return activated


class ResNet(nn.Module):
    """A residual network (He et al., 2016): stem, groups of blocks, global average pooling, one linear layer.

    blocks: number of blocks in each group; every group after the first halves the image side.
    width: channels of the first group; each further group doubles them.
    block: what a group is made of; bottlenecks give four times these channels.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        width: int,
        channels: int,
        classes: int,
        block: type[Block] | type[Bottleneck] = Block,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        layers: list[nn.Module] = []
        channels_in = width
        for group, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if group > 0 and index == 0 else 1
                layers.append(block(channels_in, width << group, stride))
                channels_in = (width << group) * (4 if block is Bottleneck else 1)
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.linear(self.pool(self.blocks(x)).flatten(1))
        return logits


def resnet18(channels: int, classes: int) -> ResNet:
    """ResNet-18 as PyTorch draws it: 11,173,962 parameters for 3 channels and 10 classes."""
    return ResNet((2, 2, 2, 2), 64, channels, classes)


def resnet34(channels: int, classes: int) -> ResNet:
    """ResNet-34 as PyTorch draws it: 21,282,122 parameters for 3 channels and 10 classes."""
    return ResNet((3, 4, 6, 3), 64, channels, classes)


def resnet50(channels: int, classes: int) -> ResNet:
    """ResNet-50 as PyTorch draws it: 23,520,842 parameters for 3 channels and 10 classes."""
    return ResNet((3, 4, 6, 3), 64, channels, classes, Bottleneck)


def resnet20(channels: int, classes: int) -> ResNet:
    """ResNet-20, three groups of 16, 32, 64 channels: 272,474 parameters for 3 channels and 10 classes.

    Convolutions start Kaiming-normal.
    """
    return _with_kaiming_normal(ResNet((3, 3, 3), 16, channels, classes))


def resnet18_version1(channels: int, classes: int) -> ResNet:
    """ResNet-18 of version 1, which starts with Kaiming-normal convolutions (the first reading of B4)."""
    return _with_kaiming_normal(resnet18(channels, classes))


def resnet34_version1(channels: int, classes: int) -> ResNet:
    """ResNet-34 of version 1, which starts with Kaiming-normal convolutions (the first reading of B4)."""
    return _with_kaiming_normal(resnet34(channels, classes))


def _with_kaiming_normal(module: ResNet) -> ResNet:
    """The network with its convolutions drawn anew, Kaiming-normal."""
    kaiming_normal(module)
    return module


class VGG(nn.Module):
    """VGG16 (Simonyan & Zisserman, 2015) with batch norm, global average pooling and one linear layer.

    pools: how many of the groups, from the first on, end in a 2x2 max-pooling that halves the image side.
    """

    def __init__(self, channels: int, classes: int, pools: int) -> None:
        super().__init__()
        groups: list[nn.Module] = []
        channels_in = channels
        for index, widths in enumerate(_VGG16_GROUPS):
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
    """VGG16 of version 1: a max-pooling after every group, and the linear layer as PyTorch draws it.

    Images of 32x32 or more. Its weights have the names and shapes of the newer version, but other outputs.
    """
    return VGG(channels, classes, pools=5)


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
