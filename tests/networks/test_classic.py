"""The networks of the first lottery tickets against the numbers in their papers, and layers of PyTorch."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola as tb
from tombola.errors import NetworkError
from tombola.networks.network import Network
from tombola.networks.prunable import prunable_names

MNIST: dict[str, Any] = {"channels": 1, "size": (28, 28), "classes": 10}
CIFAR: dict[str, Any] = {"channels": 3, "size": (32, 32), "classes": 10}


@pytest.mark.parametrize(
    ("name", "images", "weights", "parameters"),
    [
        ("lenet300", MNIST, 266_200, 266_610),  # 266K in the paper
        ("lenet5", MNIST, 430_500, 431_080),  # 431K
        ("conv2", CIFAR, 4_300_992, 4_301_642),  # 4.3M
        ("conv4", CIFAR, 2_425_024, 2_425_930),  # 2.4M
        ("conv6", CIFAR, 2_261_184, 2_262_602),  # 1.7M printed, which is not what its layers have
        ("conv8", CIFAR, 5_275_840, 5_278_282),
    ],
)
def test_weights_are_as_many_as_published(
    name: str, images: dict[str, Any], weights: int, parameters: int
) -> None:
    module = Network.of(name, **images).without_values()
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    assert sum(sizes[name] for name in prunable_names(module)) == weights
    assert sum(sizes.values()) == parameters


@pytest.mark.parametrize(("name", "weights"), [("conv2", 38_592), ("conv4", 260_000), ("conv6", 1_144_512)])
def test_convolutions_have_the_share_that_the_table_of_networks_prints(name: str, weights: int) -> None:
    """38K, 260K and 1.1M."""
    module = Network.of(name, **CIFAR).without_values()
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(layer.weight.numel() for layer in convolutions) == pytest.approx(weights, rel=0.001)


@torch.no_grad()
def test_lenet5_is_activated_in_its_hidden_layer_alone() -> None:
    module = Network.of("lenet5", **MNIST).initialized(0)
    first, second, hidden, last = (
        layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    )
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    out = functional.max_pool2d(functional.conv2d(x, first.weight), 2)
    out = functional.max_pool2d(functional.conv2d(out, second.weight), 2).flatten(1)
    out = functional.linear(functional.relu(functional.linear(out, hidden.weight)), last.weight)
    torch.testing.assert_close(module(x), out)


@torch.no_grad()
def test_conv4_is_two_pairs_of_convolutions_and_three_linear_layers() -> None:
    module = Network.of("conv4", **CIFAR).initialized(0)
    weights = [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]
    out = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = out.clone()
    for place, weight in enumerate(weights[:4]):
        out = functional.relu(functional.conv2d(out, weight, padding=1))
        out = functional.max_pool2d(out, 2) if place % 2 else out
    out = out.flatten(1)
    for weight in weights[4:6]:
        out = functional.relu(functional.linear(out, weight))
    torch.testing.assert_close(module(x), functional.linear(out, weights[6]))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("lenet5", (8, 8), "network lenet5 takes images of 16x16 or more, and these are 8x8"),
        ("conv8", (15, 20), "network conv8 takes images of 16x16 or more, and these are 15x20"),
        ("conv2", (12,), "network conv2 takes images of 2x2 or more, and these are 12"),
        ("conv2", (), "network conv2 takes images of 2x2 or more, and these are single numbers"),
    ],
)
def test_inputs_too_small_for_the_poolings_are_refused(
    name: str, size: tuple[int, ...], message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        Network.of(name, channels=1, size=size, classes=10).initialized(0)


@pytest.mark.parametrize("size", [(), (7,), (5, 9), (2, 3, 4)])
def test_lenet300_takes_inputs_of_any_shape(size: tuple[int, ...]) -> None:
    module = Network.of("lenet300", channels=6, size=size, classes=3).initialized(0)
    assert module(torch.zeros(2, 6, *size)).shape == (2, 3)


@pytest.fixture(scope="module")
def large_digits(digits: tb.Data) -> tb.Data:
    """The digits at 1x16x16, each pixel four times."""
    splits = [
        (split.images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), split.labels)
        for split in (digits.train, digits.test)
    ]
    return tb.data_from_tensors(splits[0], splits[1], name="large-digits", mirrored=False)


@pytest.mark.parametrize("seed", range(4))
def test_lenet5_learns_by_its_recipe(seed: int, large_digits: tb.Data) -> None:
    """At 0.1, the rate that SNIP's paper prints, the dense network diverges here and on MNIST."""
    run = tb.train(
        tb.initialize("lenet5", large_digits, seed=seed),
        large_digits,
        tb.named_recipe("lenet5", epochs=2),
        noise=seed,
    )
    assert not run.diverged
    assert run.history[-1].test_loss < run.history[0].test_loss / 4
    assert run.accuracy > 80


@pytest.mark.parametrize(("name", "accuracy"), [("lenet300", 80), ("conv2", 60), ("conv4", 50)])
def test_they_learn_the_digits_by_their_recipe(name: str, accuracy: float, digits: tb.Data) -> None:
    """In three epochs of 10 steps; by chance 10%."""
    run = tb.train(tb.initialize(name, digits), tb.subset(digits, share=0.5), tb.named_recipe(name, epochs=3))
    assert run.accuracy > accuracy
