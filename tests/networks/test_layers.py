import math

import pytest
import torch
from torch import nn

from tombola.networks.layers import conv3x3, initialize_convolutions
from tombola.networks.network import Network


@pytest.mark.parametrize(("stride", "side"), [(1, 9), (2, 5)])
def test_a_3x3_convolution_keeps_the_image_size_but_for_its_stride(stride: int, side: int) -> None:
    assert conv3x3(2, 4, stride)(torch.zeros(1, 2, 9, 9)).shape == (1, 4, side, side)


def test_only_convolutions_are_initialized_anew() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    initialize_convolutions(module)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias"}
    assert not module[0].bias.any()


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg16"])
def test_convolutions_start_kaiming_normal_by_fan_out(name: str) -> None:
    module = Network(name, 3, (32, 32), 10).initialized(0)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        # He et al., 2015: variance 2 / (k * k * output channels). Five standard errors of a sample's std.
        expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
        tolerance = 5 / math.sqrt(2 * layer.weight.numel())
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=tolerance)
        assert abs(float(layer.weight.detach().mean())) < 5 * expected / math.sqrt(layer.weight.numel())
    assert len(layers) == {"resnet20": 19 + 2, "resnet18": 17 + 3, "vgg16": 13}[name]


def test_linear_layers_and_batch_norm_start_as_pytorch_sets_them() -> None:
    module = Network("resnet20", 3, (32, 32), 10).initialized(0)
    bound = 1 / math.sqrt(64)  # uniform over the input's fan
    assert float(module.linear.weight.detach().abs().max()) <= bound
    assert float(module.linear.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.eq(1).all()
            assert not layer.bias.any()
