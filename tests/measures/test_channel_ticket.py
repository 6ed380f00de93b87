"""Tickets over channels against a network out of which the channels were cut by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import tombola as tb
from tombola import files
from tombola.errors import NetworkError, RecipeError, TicketError


def plain(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, classes),
    )  # fmt: skip


def with_scales(ticket: tb.Ticket, **scales: list[float]) -> tb.Ticket:
    """The ticket with scales of batch norm, by the places of their layers, and shifts that are not 0."""
    start = {name: value.clone() for name, value in ticket.start.items()}
    for place, values in scales.items():
        start[f"{place[1:]}.weight"] = torch.tensor(values)
        start[f"{place[1:]}.bias"] = torch.linspace(0.1, 0.5, len(values))
        start[f"{place[1:]}.running_mean"] = torch.linspace(-0.2, 0.2, len(values))
    return replace(ticket, start=start, start_fingerprint=files.fingerprint(start))


FIRST = [0.9, -0.1, 0.8, 0.2, -0.7, 1.0]
SECOND = [0.6, 0.15, 1.1, -1.2, 1.3]


@pytest.fixture(scope="module")
def ticket(digits: tb.Data) -> tb.Ticket:
    return with_scales(tb.initialize(plain, digits), _1=FIRST, _4=SECOND)


def test_outputs_are_those_of_the_network_without_the_channels(ticket: tb.Ticket, digits: tb.Data) -> None:
    pruned = tb.prune_channels(ticket, fraction=3 / 11)
    first, second = [0, 2, 4, 5], [0, 2, 3, 4]  # without 0.1, 0.15 and 0.2, whatever their signs
    whole = ticket.module().eval()
    cut = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    state = whole.state_dict()
    for name, value in cut.state_dict().items():
        layer, _, entry = name.partition(".")
        source = state[name]
        if layer in ("0", "1", "3", "4") and source.ndim:
            source = source[first if layer in ("0", "1") else second]
        if layer == "3":
            source = source[:, first]
        if name == "8.weight":
            source = source.view(10, 5, 4)[:, second].reshape(10, 16)
        value.copy_(source)
        assert entry
    images = next(tb.batches(digits, "test", batch_size=50))[0]
    with torch.no_grad():
        torch.testing.assert_close(pruned.module().eval()(images), cut.eval()(images), rtol=1e-4, atol=1e-5)
    kept = {name: int(keep.sum()) for name, keep in pruned.mask.items()}
    assert kept == {"0.weight": 4 * 9, "3.weight": 4 * 4 * 9, "8.weight": 16 * 10}


def test_it_is_a_ticket_that_is_trained_as_any_other(ticket: tb.Ticket, digits: tb.Data) -> None:
    pruned = tb.prune_channels(ticket, fraction=3 / 11)
    assert pruned.round == 1
    run = tb.train(pruned, digits, tb.Recipe(epochs=1, batch_size=400))
    assert all(not run.weights[name][~keep].any() for name, keep in pruned.mask.items())


def test_a_channel_of_a_stream_goes_with_the_scales_of_all_its_layers(digits: tb.Data) -> None:
    start = tb.initialize("resnet20", digits)
    names = [name for name in start.start if name.endswith("weight") and start.start[name].ndim == 1]
    stream = [name for name in names if start.start[name].shape == start.start[names[0]].shape]
    state = {name: value.clone() for name, value in start.start.items()}
    state[stream[0]][3] = 0.0  # of one layer alone
    one = replace(start, start=state, start_fingerprint=files.fingerprint(state))
    count = sum(state[name].numel() for name in names)
    assert tb.prune_channels(one, fraction=1.2 / count).sparsity == 0


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1e-6])
def test_what_prunes_no_channel_or_all_is_refused(ticket: tb.Ticket, fraction: float) -> None:
    with pytest.raises(RecipeError, match="of 11 channels it must keep some and prune some"):
        tb.prune_channels(ticket, fraction=fraction)


def test_what_has_no_channels_to_prune_is_refused(ticket: tb.Ticket, digits: tb.Data) -> None:
    with pytest.raises(NetworkError, match="no batch norm"):
        tb.prune_channels(tb.initialize("lenet300", digits), fraction=0.5)
    with pytest.raises(TicketError, match="all channels of 1 would go"):
        tb.prune_channels(with_scales(ticket, _1=[0.01] * 6), fraction=0.6)
    with pytest.raises(TicketError, match="not all finite"):
        tb.prune_channels(with_scales(ticket, _1=[float("nan")] * 6), fraction=0.5)
