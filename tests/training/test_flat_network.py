import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import tombola as tb
from tombola.errors import NetworkError, TicketError
from tombola.networks.network import Network
from tombola.training.flat_network import FlatNetwork

CPU = torch.device("cpu")
Same = Callable[..., bool]


@pytest.fixture
def flat_network(start: tb.Ticket) -> FlatNetwork:
    flat_network = FlatNetwork(start.network, CPU)
    flat_network.load(start.weights(), start.mask)
    return flat_network


@pytest.fixture(scope="module")
def half(start: tb.Ticket) -> tb.Ticket:
    draws = np.random.default_rng(0)
    return start.with_mask(
        {name: torch.from_numpy(draws.random(tuple(keep.shape)) < 0.5) for name, keep in start.mask.items()}
    )


def test_a_loaded_state_comes_back_to_the_bit_as_a_copy(
    flat_network: FlatNetwork, start: tb.Ticket, same_bits: Same
) -> None:
    state = flat_network.state()
    assert same_bits(state, start.start)
    assert all(value.is_contiguous() for value in state.values())
    flat_network.weights.fill_(7)
    assert same_bits(state, start.start)


def test_the_network_computes_what_a_plain_one_with_the_same_state_does(
    flat_network: FlatNetwork, start: tb.Ticket
) -> None:
    plain = start.network.build()
    plain.load_state_dict(dict(start.start))
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flat_network.module.eval()(images), plain.eval()(images))


def test_gradients_gather_in_the_flat_tensor(flat_network: FlatNetwork) -> None:
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    functional.cross_entropy(flat_network.module(images), torch.arange(6)).backward()
    gathered = flat_network.gradient.clone()
    # Two stretches, prunable weights and the rest, each filled up to a multiple of 16.
    prunable = sum(p.numel() for p in flat_network.module.parameters() if p.dim() > 1)
    others = sum(p.numel() for p in flat_network.module.parameters() if p.dim() == 1)
    assert gathered.numel() == math.ceil(prunable / 16) * 16 + math.ceil(others / 16) * 16
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in flat_network.module.parameters()))
    assert float(gathered.norm()) == pytest.approx(total, rel=1e-5)
    assert total > 0
    # Momentum is read out by the same positions: a gradient put there comes out under its parameter's name.
    flat_network.momentum.copy_(gathered)
    state = flat_network.optimizer_state()
    for name, parameter in flat_network.module.named_parameters():
        assert torch.equal(state[f"momentum.{name}"], parameter.grad)


@given(st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -1.5]))
def test_weight_and_momentum_are_selected_not_multiplied_where_the_mask_is_zero(
    half: tb.Ticket, value: float
) -> None:
    flat_network = FlatNetwork(half.network, CPU)
    flat_network.load(half.weights(), half.mask)
    flat_network.weights.fill_(value)
    flat_network.momentum.fill_(-value)
    flat_network.enforce_mask()
    weights, state = flat_network.state(), flat_network.optimizer_state()
    for name, keep in half.mask.items():
        for tensor, kept in ((weights[name], value), (state[f"momentum.{name}"], -value)):
            assert not tensor.numpy().view(np.int32)[~keep.numpy()].any()
            assert np.array_equal(
                tensor[keep].numpy(), np.full(int(keep.sum()), kept, np.float32), equal_nan=True
            )
    # Everything that is not prunable is left alone.
    assert weights["1.bias"].numpy().tobytes() == np.full(8, value, np.float32).tobytes()


def test_loading_a_ticket_forgets_the_mask_momentum_and_gradient_before(
    start: tb.Ticket, half: tb.Ticket, same_bits: Same
) -> None:
    flat_network = FlatNetwork(start.network, CPU)
    for ticket in (half, start, half, start):
        flat_network.load(ticket.weights(), ticket.mask)
        assert same_bits(flat_network.state(), ticket.weights())
        assert not flat_network.momentum.any()
        assert not flat_network.gradient.any()
        flat_network.weights.fill_(1)
        flat_network.momentum.fill_(1)
        flat_network.gradient.fill_(1)
        flat_network.enforce_mask()
        assert sum(int(flat_network.state()[name].sum()) for name in ticket.mask) == ticket.kept


def test_loading_a_state_alone_keeps_the_mask(half: tb.Ticket, start: tb.Ticket) -> None:
    flat_network = FlatNetwork(half.network, CPU)
    flat_network.load(half.weights(), half.mask)
    flat_network.load(start.start)
    flat_network.enforce_mask()
    assert all(not flat_network.state()[name][~keep].any() for name, keep in half.mask.items())


def test_weights_stay_at_the_same_address(
    flat_network: FlatNetwork, start: tb.Ticket, half: tb.Ticket
) -> None:
    places = [parameter.data_ptr() for parameter in flat_network.module.parameters()]
    flat_network.load(half.weights(), half.mask)
    assert [parameter.data_ptr() for parameter in flat_network.module.parameters()] == places


def test_momentum_comes_back(flat_network: FlatNetwork, same_bits: Same) -> None:
    flat_network.momentum.copy_(torch.arange(len(flat_network.momentum)).float())
    state = flat_network.optimizer_state()
    flat_network.momentum.zero_()
    flat_network.load_optimizer_state(state)
    # Every position was another number; what fills up the stretches is zero again.
    assert len(set(flat_network.momentum.tolist())) == sum(each.numel() for each in state.values())
    assert same_bits(flat_network.optimizer_state(), state)


def test_all_that_adamw_keeps_is_masked_comes_back_and_is_forgotten_by_the_next_ticket(
    half: tb.Ticket, same_bits: Same
) -> None:
    flat_network = FlatNetwork(half.network, CPU, ("first_moment", "second_moment"))
    flat_network.load(half.weights(), half.mask)
    for number, row in enumerate(flat_network.states.values(), start=2):
        row.fill_(number)
    flat_network.steps_taken.fill_(5)
    flat_network.enforce_mask()
    state = flat_network.optimizer_state()
    assert len(state) == 1 + 2 * len(list(flat_network.module.parameters()))
    for name, keep in half.mask.items():
        assert torch.equal(state[f"first_moment.{name}"], 2.0 * keep)
        assert torch.equal(state[f"second_moment.{name}"], 3.0 * keep)
    flat_network.load(half.weights(), half.mask)
    assert not any(value.any() for value in flat_network.optimizer_state().values())
    flat_network.load_optimizer_state(state)
    assert same_bits(flat_network.optimizer_state(), state)


def test_frozen_parameters_take_no_part_and_keep_their_mask() -> None:
    def frozen() -> nn.Module:
        module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        module[0].weight.requires_grad_(False)
        return module

    network = Network.of(frozen, channels=1, size=(2, 2), classes=2)
    flat_network = FlatNetwork(network, CPU)
    assert (flat_network.prunable, flat_network.others) == (["1.weight"], ["0.bias", "1.bias"])
    mask = {
        name: torch.eye(4, dtype=torch.bool)[: 4 if name[0] == "0" else 2]
        for name in ("0.weight", "1.weight")
    }
    state = {name: torch.ones_like(value) for name, value in flat_network.state().items()}
    flat_network.load(state, mask)
    assert flat_network.state()["1.weight"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]


def test_parameters_that_are_not_float32_are_refused() -> None:
    network = Network.of(lambda: nn.Linear(4, 2).double(), channels=1, size=(2, 2), classes=2)
    with pytest.raises(NetworkError, match=r"parameter weight is torch.float64; it must be float32"):
        FlatNetwork(network, CPU)


def test_a_mask_over_something_that_cannot_be_pruned_is_refused(
    flat_network: FlatNetwork, start: tb.Ticket
) -> None:
    with pytest.raises(TicketError, match=r"'1\.weight', which is no weight that can be pruned"):
        flat_network.load(start.start, {"1.weight": torch.zeros(8, dtype=torch.bool)})


def test_a_mask_of_some_layers_leaves_nothing_of_the_last_mask_on_the_others(start: tb.Ticket) -> None:
    flat_network = FlatNetwork(start.network, CPU)
    first, second, *_ = start.mask
    flat_network.load(start.start, {name: torch.zeros_like(start.mask[name]) for name in (first, second)})
    flat_network.load(start.start, {first: start.mask[first]})
    assert flat_network.state()[second].any()


def test_buffers_that_no_state_holds_begin_every_training_as_they_were_built() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)
            self.register_buffer("seen", torch.tensor(3.0), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return self.linear(x.flatten(1)) + self.seen

    flat_network = FlatNetwork(Network.of(Counting, channels=1, size=(2, 2), classes=2), CPU)
    state = flat_network.state()
    flat_network.module(torch.zeros(1, 1, 2, 2))
    assert float(flat_network.module.get_buffer("seen")) == 4
    flat_network.load(state)
    assert float(flat_network.module.get_buffer("seen")) == 3
