import pytest
import torch
from torch import nn
from torch.nn import functional

from tombola.networks import architectures
from tombola.networks.architectures import conv3x3, convnet


def build(name: str, channels: int = 3, classes: int = 10) -> nn.Module:
    return getattr(architectures, name)(channels, classes)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842), ("resnet20", 272_474)],
)
def test_parameter_counts_for_cifar10(name: str, parameters: int) -> None:
    assert count(build(name)) == parameters


def test_channels_and_classes_change_the_stem_and_the_linear_layer_only() -> None:
    more = count(build("resnet20", channels=1, classes=100))
    assert more == 272_474 - 2 * 9 * 16 + 90 * (64 + 1)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet20"])
@torch.no_grad()
def test_small_images_of_any_size_give_one_number_a_class(name: str, side: int) -> None:
    module = build(name).eval()
    assert module(torch.zeros(2, 3, side, side)).shape == (2, 10)


@torch.no_grad()
def test_the_stem_keeps_the_image_and_every_later_group_halves_it() -> None:
    module = build("resnet18").eval()
    shapes = []
    for block in module.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    module(torch.zeros(1, 3, 64, 64))
    assert shapes == [(width, side, side) for width, side in ((64, 64), (128, 32), (256, 16), (512, 8))
                      for _ in range(2)]  # fmt: skip


def test_shortcuts_are_1x1_convolutions_where_the_shape_changes_and_nothing_elsewhere() -> None:
    shapes = [
        [tuple(layer.weight.shape) for layer in block.shortcut if isinstance(layer, nn.Conv2d)]
        for block in build("resnet20").blocks
    ]
    assert shapes == [[], [], [], [(32, 16, 1, 1)], [], [], [(64, 32, 1, 1)], [], []]


@torch.no_grad()
@pytest.mark.parametrize(("stride", "shape"), [(1, (2, 12, 6, 6)), (2, (2, 12, 3, 3))])
def test_a_bottleneck_is_three_normalised_convolutions_beside_the_shortcut(
    stride: int, shape: tuple[int, ...]
) -> None:
    block = architectures.Bottleneck(4, 3, stride).eval()
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    norm = 1 / (1 + 1e-5) ** 0.5  # of batch norm as it begins
    out = functional.relu(norm * functional.conv2d(x, block.conv1.weight))
    out = functional.relu(norm * functional.conv2d(out, block.conv2.weight, stride=stride, padding=1))
    out = norm * functional.conv2d(out, block.conv3.weight)
    out = functional.relu(out + norm * functional.conv2d(x, block.shortcut[0].weight, stride=stride))
    assert out.shape == shape
    torch.testing.assert_close(block(x), out)


@torch.no_grad()
def test_a_block_is_two_normalised_convolutions_beside_the_shortcut() -> None:
    block = architectures.Block(4, 8, 2).eval()
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    scale = (1 + 1e-5) ** -0.5  # fresh batch norm in evaluation mode
    inner = functional.relu(scale * functional.conv2d(x, block.conv1.weight, stride=2, padding=1))
    outer = scale * functional.conv2d(inner, block.conv2.weight, padding=1)
    outer = outer + scale * functional.conv2d(x, block.shortcut[0].weight, stride=2)
    torch.testing.assert_close(block(x), functional.relu(outer))


def test_convnet_has_the_parameters_counted_by_hand() -> None:
    convolutions = 9 * (1 * 8 + 8 * 16 + 16 * 16 + 16 * 32)
    batch_norms = 2 * (8 + 16 + 16 + 32)
    assert sum(p.numel() for p in convnet(1, 10).parameters()) == convolutions + batch_norms + 32 * 10 + 10


@pytest.mark.parametrize("size", [(8, 8), (8, 10), (28, 28), (3, 3)])
@torch.no_grad()
def test_convnet_gives_one_number_a_class_for_small_images_of_any_size(size: tuple[int, int]) -> None:
    assert convnet(3, 5).eval()(torch.zeros(2, 3, *size)).shape == (2, 5)


@pytest.mark.parametrize(("stride", "side"), [(1, 9), (2, 5)])
def test_a_3x3_convolution_keeps_the_image_size_but_for_its_stride(stride: int, side: int) -> None:
    assert conv3x3(2, 4, stride)(torch.zeros(1, 2, 9, 9)).shape == (1, 4, side, side)
