import pytest
import torch
from torch import nn

from tombola.networks.vgg import vgg16


def test_parameter_count_for_cifar10() -> None:
    assert sum(parameter.numel() for parameter in vgg16(3, 10).parameters()) == 14_728_266


@pytest.mark.parametrize("side", [32, 64])
@torch.no_grad()
def test_images_of_32_pixels_or_more_give_one_number_a_class(side: int) -> None:
    assert vgg16(1, 7).eval()(torch.zeros(2, 1, side, side)).shape == (2, 7)


def test_thirteen_convolutions_with_biases_and_batch_norm_and_one_linear_layer() -> None:
    module = vgg16(3, 10)
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    biases = [layer.bias for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(bias is not None and not bias.any() for bias in biases)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()) == 13
    assert sum(isinstance(layer, nn.Linear) for layer in module.modules()) == 1
