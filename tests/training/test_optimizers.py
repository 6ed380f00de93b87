"""The optimizers step by step against torch.optim in float64, on random networks under random masks."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tombola as tb
from tombola.networks.network import Network
from tombola.networks.prunable import prunable_names
from tombola.training.flat_network import FlatNetwork
from tombola.training.optimizers import move

CPU = torch.device("cpu")


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """One to three layers, convolutions among them, some with batch norm."""
    channels, layers = 3, []
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(1, 5))
        layers.append(nn.Conv2d(channels, width, draw(st.sampled_from([1, 3])), bias=draw(st.booleans())))
        layers += [nn.BatchNorm2d(width)] if draw(st.booleans()) else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


@st.composite
def recipes(draw: st.DrawFn) -> tb.Recipe:
    decay = draw(st.sampled_from([0.0, 0.05]))
    share = st.floats(0, 0.999)
    if draw(st.booleans()):
        # Where eps is small next to the gradients, Adam's step is their sign, which float32 may miss.
        eps, betas = draw(st.floats(1e-4, 1e-1)), (draw(share), draw(share))
        return tb.Recipe(optimizer="adamw", weight_decay=decay, eps=eps, betas=betas)
    optimizer = draw(st.sampled_from(["sgd", "nesterov"]))
    return tb.Recipe(optimizer=optimizer, weight_decay=decay, momentum=draw(st.floats(0.01, 0.99)))


def of_torch(module: nn.Module, recipe: tb.Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(module.parameters(), 1.0, recipe.betas, recipe.eps, recipe.weight_decay)
    nesterov = recipe.optimizer == "nesterov"
    return torch.optim.SGD(module.parameters(), 1.0, recipe.momentum, 0, recipe.weight_decay, nesterov)


KEPT = {
    "sgd": {"momentum": "momentum_buffer"},
    "nesterov": {"momentum": "momentum_buffer"},
    "adamw": {"first_moment": "exp_avg", "second_moment": "exp_avg_sq"},
}


@settings(max_examples=25)
@given(networks(), recipes(), st.lists(st.floats(1e-3, 0.3), min_size=1, max_size=5), st.integers(0, 2**16))
def test_every_step_is_that_of_torch_optim_and_nothing_is_kept_of_pruned_weights(
    module: nn.Module, recipe: tb.Recipe, rates: list[float], seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)

    def drawn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=draws)

    network = Network.of(lambda: copy.deepcopy(module), channels=3, size=(8, 8), classes=4)
    flat_network = FlatNetwork(network, CPU, recipe.optimizer_states)
    exact = network.build().double()
    parameters = dict(exact.named_parameters())
    with torch.no_grad():
        for value in parameters.values():
            value.copy_(drawn(value))
    mask = {name: drawn(parameters[name]) > 0 for name in prunable_names(exact)}
    flat_network.load({name: value.float() for name, value in exact.state_dict().items()}, mask)
    optimizer = of_torch(exact, recipe)

    def cut() -> None:
        with torch.no_grad():
            for name, keep in mask.items():
                parameters[name].mul_(keep)
                for kept in KEPT[recipe.optimizer].values():
                    if kept in optimizer.state[parameters[name]]:
                        optimizer.state[parameters[name]][kept].mul_(keep)

    cut()
    ours = dict(flat_network.module.named_parameters())
    for rate in rates:
        for name, value in parameters.items():
            gradient = drawn(value)
            ours[name].grad.copy_(gradient)  # type: ignore[union-attr]
            value.grad = gradient.double()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        cut()
        with torch.no_grad():
            move(flat_network, recipe, rate)
            flat_network.enforce_mask()
        state = flat_network.optimizer_state()
        for name, value in parameters.items():
            torch.testing.assert_close(ours[name].double(), value, rtol=1e-4, atol=1e-5)
            for ours_kept, kept in KEPT[recipe.optimizer].items():
                found = state[f"{ours_kept}.{name}"]
                wanted = optimizer.state[value][kept]
                torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
                if name in mask:
                    assert not found[~mask[name]].any()
                    assert not ours[name][~mask[name]].any()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_fills_the_stretches_up_stays_zero(start: tb.Ticket, optimizer: str) -> None:
    recipe = tb.Recipe(optimizer=optimizer)
    flat_network = FlatNetwork(start.network, CPU, recipe.optimizer_states)
    flat_network.load(start.weights(), start.mask)
    named = sum(parameter.numel() for parameter in flat_network.module.parameters())
    assert len(flat_network.weights) > named
    for parameter in flat_network.module.parameters():
        parameter.grad.fill_(1.0)  # type: ignore[union-attr]
    for _ in range(3):
        move(flat_network, recipe, 0.1)
    for row in (flat_network.weights, *flat_network.states.values()):
        assert int((row != 0).sum()) <= named
        assert row.isfinite().all()
