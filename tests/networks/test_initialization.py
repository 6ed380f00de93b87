"""First weights against PyTorch's own layers and against the standard deviations of the formulas."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from tombola import seeds
from tombola.errors import NetworkError
from tombola.networks import initialization
from tombola.networks.initialization import init_names
from tombola.networks.network import Network

CIFAR: dict[str, Any] = {"channels": 3, "size": (32, 32), "classes": 10}


@pytest.fixture(autouse=True)
def _own_schemes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(initialization._schemes, "_declared", {})
    return


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def assert_spread(weight: Tensor, expected: float, kind: str) -> None:
    """The standard deviation and mean of a sample within five standard errors, and its shape."""
    weight = weight.detach()
    count = weight.numel()
    spread = float(weight.std())
    assert spread == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
    assert abs(float(weight.mean())) < 5 * expected / math.sqrt(count)
    # Of a uniform distribution nothing lies beyond sqrt 3 standard deviations, of a normal one 8%.
    beyond = float((weight.abs() > math.sqrt(3) * expected * 1.0001).float().mean())
    assert beyond == 0 if kind == "uniform" else beyond == pytest.approx(0.083, abs=0.03)


@pytest.mark.parametrize(
    ("name", "variance", "cut"),
    [("lenet5", lambda fan_in, fan_out: 1 / fan_in, True)]
    + [(name, lambda fan_in, fan_out: 2 / (fan_in + fan_out), False) for name in ("lenet300", "conv4")],
)
def test_the_classic_networks_start_as_in_their_papers(
    name: str, variance: Callable[[int, int], float], cut: bool
) -> None:
    """SNIP's code: variance 1/fan in, cut off at two spreads of the uncut. Frankle & Carbin: Glorot."""
    module = Network.of(name, channels=1, size=(28, 28), classes=10).initialized(0)
    for layer in module.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        fan_in = layer.weight[0].numel()
        spread = math.sqrt(variance(fan_in, layer.weight.numel() // layer.weight.shape[1]))
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(spread, rel=5 / math.sqrt(2 * weight.numel()))
        # A normal variable cut off at 2 has the variance 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.7737.
        assert (float(weight.abs().max()) <= 2 * spread / math.sqrt(0.7737)) == cut
        assert not layer.bias.any()


@pytest.mark.parametrize(("name", "count"), [("resnet18@2", 17 + 3), ("resnet34@2", 33 + 3)])
def test_resnets_start_as_pytorch_draws_a_convolution(name: str, count: int) -> None:
    """Kaiming uniform with a = sqrt 5: uniform, standard deviation 1/sqrt(3 fan in)."""
    layers = convolutions(Network.of(name, **CIFAR).initialized(0))
    assert len(layers) == count
    for layer in layers:
        fan_in = layer.in_channels * layer.kernel_size[0] ** 2
        assert_spread(layer.weight, 1 / math.sqrt(3 * fan_in), "uniform")


def test_a_resnet_draws_what_its_layers_draw_one_after_the_other() -> None:
    """The first layers to the bit against torch.nn.Conv2d under the same stream."""
    module = Network.of("resnet18", **CIFAR).initialized(7)
    with seeds.torch_stream("initialization", 7):
        stem, first = nn.Conv2d(3, 64, 3, bias=False), nn.Conv2d(64, 64, 3, bias=False)
    assert torch.equal(module.conv1.weight, stem.weight)
    assert torch.equal(module.blocks[0].conv1.weight, first.weight)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet20", 19 + 2), ("resnet18@1", 17 + 3), ("resnet34@1", 36), ("vgg16@1", 13), ("vgg16@2", 13)],
)
def test_the_others_start_kaiming_normal_by_fan_out(name: str, count: int) -> None:
    """He et al., 2015: variance 2 / (k * k * output channels)."""
    layers = convolutions(Network.of(name, **CIFAR).initialized(0))
    assert len(layers) == count
    for layer in layers:
        expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
        assert_spread(layer.weight, expected, "normal")
        assert layer.bias is None or not layer.bias.any()


def test_linear_layers_and_batch_norm_start_as_pytorch_sets_them() -> None:
    module = Network.of("resnet20", **CIFAR).initialized(0)
    bound = 1 / math.sqrt(64)  # uniform over the input's fan
    assert float(module.linear.weight.detach().abs().max()) <= bound
    assert float(module.linear.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.eq(1).all()
            assert not layer.bias.any()


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # Sums of absolute values, computed before networks had versions.
        ("resnet18@1", 229331.826315),
        ("resnet34@1", 449068.922354),
        ("vgg16@1", 268109.696672),
    ],
)
def test_version_1_draws_the_weights_that_it_always_drew(name: str, total: float) -> None:
    state = Network.of(name, **CIFAR).initialized(3).state_dict()
    seen = sum(float(value.double().abs().sum()) for value in state.values())
    assert seen == pytest.approx(total, rel=1e-10)


def test_a_signed_constant_has_one_magnitude_a_layer_and_signs_of_pytorch() -> None:
    """Edge-popup's: sqrt(2 / fan in), the deviation of He et al. (2015)."""
    module = Network.of("conv4", **CIFAR, init="signed-constant").initialized(0)
    with seeds.torch_stream("initialization", 0):
        Network.of("conv4", **CIFAR).build()  # whose own draws come first
        first = nn.init.kaiming_uniform_(torch.empty(64, 3, 3, 3), a=math.sqrt(5))
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in layers:
        weight, fan_in = layer.weight.detach(), layer.weight[0].numel()
        torch.testing.assert_close(weight.abs(), torch.full_like(weight, math.sqrt(2 / fan_in)))
        assert abs(float(weight.sign().mean())) < 5 / math.sqrt(weight.numel())
        assert layer.bias is not None
        assert not layer.bias.any()
    assert torch.equal(layers[0].weight.sign(), first.sign())


@pytest.mark.parametrize(
    ("init", "kind", "variance"),
    [
        ("pytorch", "uniform", lambda fan_in, fan_out: 1 / (3 * fan_in)),
        ("kaiming-normal", "normal", lambda fan_in, fan_out: 2 / fan_out),
        ("kaiming-normal-fan-in", "normal", lambda fan_in, fan_out: 2 / fan_in),
        ("glorot-normal", "normal", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
    ],
)
def test_a_scheme_draws_every_convolution_of_any_network(
    init: str, kind: str, variance: Callable[[int, int], float]
) -> None:
    for layer in convolutions(Network.of("vgg16", **CIFAR, init=init).initialized(0)):
        area = layer.kernel_size[0] ** 2
        expected = variance(layer.in_channels * area, layer.out_channels * area)
        assert_spread(layer.weight, math.sqrt(expected), kind)


def test_orthogonal_layers_are_orthogonal_up_to_the_gain_of_relu() -> None:
    linear = Network.of("resnet20", **CIFAR, init="orthogonal").initialized(0).linear
    torch.testing.assert_close(linear.weight @ linear.weight.T, 2 * torch.eye(10), atol=1e-5, rtol=0)
    assert not linear.bias.any()


def test_resnet18_under_the_first_readings_scheme_is_version_1(digits: tb.Data) -> None:
    chosen = tb.initialize("resnet18", digits, seed=4, init="kaiming-normal")
    first = tb.initialize("resnet18@1", digits, seed=4)
    assert all(torch.equal(value, first.start[name]) for name, value in chosen.start.items())
    assert chosen.network.description()["init"] == "kaiming-normal"


def test_a_ticket_keeps_its_scheme_in_its_file_and_for_its_controls(digits: tb.Data, tmp_path: Path) -> None:
    ticket = tb.initialize("convnet", digits, init="glorot-normal")
    ticket.save(tmp_path / "ticket")
    loaded = tb.Ticket.load(tmp_path / "ticket", network="convnet")
    assert loaded.fingerprint == ticket.fingerprint
    drawn = tb.initialize("convnet", digits, seed=1, init="glorot-normal")
    assert tb.reinitialize(loaded, seed=1).start_fingerprint == drawn.start_fingerprint


def test_a_declared_scheme_is_known_by_name_and_as_itself(digits: tb.Data) -> None:
    @tb.declare_init("constant", version=2)
    def constant(module: nn.Module) -> None:
        for value in module.parameters():
            nn.init.constant_(value, 0.5)

    assert "constant" in init_names()
    by_name, by_itself = (tb.initialize("convnet", digits, init=init) for init in ("constant", constant))
    assert by_name.fingerprint == by_itself.fingerprint
    assert by_name.start["0.weight"].eq(0.5).all()
    inits = ("constant", constant, "constant@2")
    jobs = [tb.job(tb.initialize, "convnet", "digits", init=init) for init in inits]
    assert {made.name for made in jobs} == {jobs[0].name}
    assert jobs[0].arguments["init"] == "constant@2"


def test_a_scheme_that_there_is_not_is_answered_with_the_nearest(digits: tb.Data) -> None:
    with pytest.raises(NetworkError, match="'kaiming-norml'; did you mean 'kaiming-normal'"):
        tb.initialize("convnet", digits, init="kaiming-norml")
    with pytest.raises(NetworkError, match="no version 3 of initialisation 'pytorch' here; there is 1"):
        tb.job(tb.initialize, "convnet", "digits", init="pytorch@3")
    with pytest.raises(NetworkError, match=r"initialisation .*lambda.* is not declared"):
        tb.initialize("convnet", digits, init=lambda module: None)


def test_a_scheme_that_a_network_cannot_apply_is_refused_in_one_line(digits: tb.Data) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] * self.scale

    with pytest.raises(NetworkError, match=r"'pytorch' cannot be applied to network <.*Mean>: it has"):
        tb.initialize(Mean, digits, init="pytorch")

    @tb.declare_init("of-linear-layers")
    def scheme(module: nn.Module) -> None:
        nn.init.ones_(module.linear.weight)

    with pytest.raises(NetworkError, match=r"cannot be applied to network convnet: AttributeError: .*linear"):
        tb.initialize("convnet", digits, init=scheme)
