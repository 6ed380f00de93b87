from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb
from tombola.networks.architectures import vgg16, vgg16_version1
from tombola.networks.network import Network

WIDTHS = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
CIFAR: dict[str, Any] = {"channels": 3, "size": (32, 32), "classes": 10}


@pytest.mark.parametrize("factory", [vgg16, vgg16_version1])
def test_parameter_count_for_cifar10(factory: Callable[[int, int], nn.Module]) -> None:
    assert sum(parameter.numel() for parameter in factory(3, 10).parameters()) == 14_728_266


@pytest.mark.parametrize("side", [32, 64])
@torch.no_grad()
def test_images_of_32_pixels_or_more_give_one_number_a_class(side: int) -> None:
    for factory in (vgg16, vgg16_version1):
        assert factory(1, 7).eval()(torch.zeros(2, 1, side, side)).shape == (2, 7)
    assert vgg16(1, 7).eval()(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


def test_thirteen_convolutions_with_biases_and_batch_norm_and_one_linear_layer() -> None:
    module = vgg16(3, 10)
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == WIDTHS
    biases = [layer.bias for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(bias is not None and not bias.any() for bias in biases)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()) == 13
    assert sum(isinstance(layer, nn.Linear) for layer in module.modules()) == 1


def by_hand(state: dict[str, Tensor], x: Tensor, pools: int) -> Tensor:
    """VGG16 written with functions alone, its weights taken in order from a state."""
    convolutions = [name for name, value in state.items() if value.dim() == 4]
    group_ends, layer = (2, 4, 7, 10, 13), 0
    for group, end in enumerate(group_ends):
        while layer < end:
            name = convolutions[layer].removesuffix(".weight")
            prefix, _, place = name.rpartition(".")
            norm = f"{prefix}.{int(place) + 1}"
            x = functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
            x = x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]
            x, layer = x.clamp(min=0), layer + 1
        if group < pools:
            x = functional.max_pool2d(x, 2)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize(("version", "pools"), [(1, 5), (2, 4)])
@torch.no_grad()
def test_it_computes_what_its_layers_written_by_hand_compute(version: int, pools: int) -> None:
    module = Network.of(f"vgg16@{version}", **CIFAR).initialized(0).eval()
    draws = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():  # so that nothing is a neutral element
        if "running" in name or value.dim() == 1:
            value.copy_(torch.rand(value.shape, generator=draws) + 0.5)
    x = torch.randn(2, 3, 32, 32, generator=draws)
    expected = by_hand(module.state_dict(), x, pools)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-4)
    other = by_hand(module.state_dict(), x, 9 - pools)
    assert not torch.allclose(other, expected, rtol=1e-2)


def test_the_linear_layer_starts_normal_and_small_and_all_biases_at_0() -> None:
    linear = Network.of("vgg16", channels=3, size=(32, 32), classes=100).initialized(0).linear
    spread = float(linear.weight.detach().std())
    assert spread == pytest.approx(0.01, rel=5 / (2 * linear.weight.numel()) ** 0.5)
    assert float(linear.weight.detach().abs().max()) > 0.03  # normal, not uniform
    assert not linear.bias.any()
    assert Network.of("vgg16@1", **CIFAR).initialized(0).linear.bias.any()


def test_a_ticket_of_version_1_keeps_its_own_definition(tmp_path: Path) -> None:
    data = tb.data_from_tensors(
        (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4) % 2),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.arange(2)),
    )  # fmt: skip
    old = tb.initialize("vgg16@1", data)
    old.save(tmp_path / "old")
    for expected in (None, "vgg16", "vgg16@1"):
        loaded = tb.Ticket.load(tmp_path / "old", network=expected)
        assert loaded.network.version == 1
        pools = [layer for layer in loaded.network.build().modules() if isinstance(layer, nn.MaxPool2d)]
        assert len(pools) == 5
    with pytest.raises(tb.TombolaError, match=r"this is a ticket of network 'vgg16', not 'vgg16@2'"):
        tb.Ticket.load(tmp_path / "old", network="vgg16@2")
