import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tombola as tb
from tombola import files
from tombola.errors import NetworkError, StoreError, TicketError
from tombola.networks import network as networks
from tombola.pruning.prune import prune
from tombola.ticket import apply_mask, pack_state, unpack_state

Same = Callable[..., bool]
Damaged = Callable[[st.DataObject, bytes], bytes]


def tiny(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def random_mask(ticket: tb.Ticket, density: float, seed: int = 0) -> dict[str, torch.Tensor]:
    draws = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(draws.random(tuple(keep.shape)) < density)
        for name, keep in ticket.mask.items()
    }


@pytest.fixture(scope="module")
def sparse(start: tb.Ticket) -> tb.Ticket:
    return start.with_mask(random_mask(start, 0.3))


@pytest.fixture(scope="module")
def file(sparse: tb.Ticket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tickets") / "ticket.safetensors"
    sparse.save(path)
    return path


# A fresh ticket


def test_a_fresh_ticket_keeps_every_convolution_and_linear_weight(start: tb.Ticket) -> None:
    # Convolutions 1-8-16-16-32 of 3x3 and a linear layer 32-10, worked by hand.
    assert start.total == start.kept == 9 * (1 * 8 + 8 * 16 + 16 * 16 + 16 * 32) + 32 * 10
    assert list(start.mask) == ["0.weight", "3.weight", "6.weight", "9.weight", "14.weight"]
    assert (start.sparsity, start.round, start.epoch, start.density) == (0.0, 0, 0, 1.0)


def test_initializing_again_gives_the_same_bits_and_another_seed_others(
    digits: tb.Data, start: tb.Ticket, same_bits: Same
) -> None:
    again, other = (tb.initialize("convnet", digits, seed=seed) for seed in (0, 1))
    assert same_bits(start.start, again.start)
    assert start.start_fingerprint == again.start_fingerprint != other.start_fingerprint


def test_initializing_touches_no_global_generator(digits: tb.Data) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tb.initialize("convnet", digits, seed=0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_network_that_cannot_take_the_images_is_refused_with_their_size(digits: tb.Data) -> None:
    with pytest.raises(NetworkError, match="network vgg16 cannot take 1x8x8 images"):
        tb.initialize("vgg16", digits)


def test_a_network_with_another_number_of_outputs_is_refused(digits: tb.Data) -> None:
    with pytest.raises(NetworkError, match=r"gives \(1, 7\) for one image; wanted \(1, 10\)"):
        tb.initialize(lambda: tiny(7), digits)


def test_an_unknown_network_is_refused_with_the_nearest_name(digits: tb.Data) -> None:
    with pytest.raises(NetworkError, match="no network 'resnet81'; did you mean 'resnet18'"):
        tb.initialize("resnet81", digits)


# Masks


def test_weights_are_exactly_zero_where_the_mask_is_zero_whatever_stood_there(start: tb.Ticket) -> None:
    name = "3.weight"
    ill = dict(start.start) | {name: torch.full_like(start.start[name], math.inf)}
    ill[name].view(-1)[::2] = math.nan
    keep = torch.zeros_like(start.mask[name])
    masked = apply_mask(ill, {name: keep})
    assert not masked[name].numpy().view(np.int32).any()
    assert masked["0.weight"] is start.start["0.weight"]


def test_a_mask_of_the_callers_own_is_taken_with_its_density(start: tb.Ticket, sparse: tb.Ticket) -> None:
    kept = sum(int(keep.sum()) for keep in random_mask(start, 0.3).values())
    assert sparse.kept == kept
    assert sparse.density == pytest.approx(kept / start.total)
    assert sparse.sparsity == pytest.approx(1 - kept / start.total)


@pytest.mark.parametrize(
    "change",
    [
        {"3.weight": torch.ones(16, 8, 3, dtype=torch.bool)},
        {"3.weight": torch.ones(16, 8, 3, 3)},
    ],
)
def test_a_mask_of_the_wrong_shape_or_type_is_refused(
    start: tb.Ticket, change: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(TicketError, match=r"mask of 3\.weight must be bool \(16, 8, 3, 3\); got"):
        start.with_mask({**start.mask, **change})


def test_a_mask_for_other_weights_is_refused(start: tb.Ticket) -> None:
    missing = {name: keep for name, keep in start.mask.items() if name != "3.weight"}
    for mask in (missing, {**start.mask, "1.weight": torch.ones(8, dtype=torch.bool)}):
        with pytest.raises(TicketError, match="exactly the prunable weights of convnet"):
            start.with_mask(mask)
    with pytest.raises(TicketError, match="the mask has 'nowhere', which convnet does not have"):
        tb.Ticket(start.network, start.start, {"nowhere": torch.ones(1, dtype=torch.bool)})


# Packed states


@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_packed_state_comes_back_with_zeros_at_pruned_positions(seed: int, density: float) -> None:
    draws = np.random.default_rng(seed)
    values = torch.from_numpy(draws.normal(size=(3, 4)).astype(np.float32))
    keep = torch.from_numpy(draws.random((3, 4)) < density)
    bias = torch.from_numpy(draws.normal(size=4).astype(np.float32))
    packed = pack_state({"w": values, "b": bias}, {"w": keep}, prefix="p.")
    assert packed["p.kept.w"].numel() == int(keep.sum())
    state = unpack_state(packed, {"w": keep}, prefix="p.")
    assert np.array_equal(state["w"].numpy(), np.where(keep.numpy(), values.numpy(), 0))
    assert torch.equal(state["b"], bias)


def test_surplus_weights_in_a_packed_state_are_refused() -> None:
    with pytest.raises(TicketError, match="3 weights for 2 kept positions of w"):
        unpack_state({"kept.w": torch.ones(3)}, {"w": torch.tensor([True, False, True])})


# Files


def test_layers_keep_the_order_of_the_network_through_files_and_masks_of_the_callers_own(
    start: tb.Ticket, tmp_path: Path
) -> None:
    # Ties are broken and controls drawn in this order; by name "14.weight" would come before "3.weight".
    order = ["0.weight", "3.weight", "6.weight", "9.weight", "14.weight"]
    start.save(tmp_path / "t")
    loaded = tb.Ticket.load(tmp_path / "t")
    assert list(loaded.mask) == list(start.mask) == order
    assert list(loaded.start) == list(start.start)
    assert list(start.with_mask(dict(sorted(start.mask.items()))).mask) == order


@pytest.mark.parametrize("with_start", [False, True])
def test_a_saved_ticket_comes_back(
    sparse: tb.Ticket, tmp_path: Path, same_bits: Same, with_start: bool
) -> None:
    sparse.save(tmp_path / "t", with_start=with_start)
    loaded = tb.Ticket.load(tmp_path / "t")
    assert loaded.network == sparse.network
    assert same_bits(loaded.mask, sparse.mask)
    assert same_bits(loaded.weights(), sparse.weights())
    numbers = ("epoch", "round", "density", "start_fingerprint", "nonfinite", "kept", "sparsity")
    assert [getattr(loaded, name) for name in numbers] == [getattr(sparse, name) for name in numbers]
    assert loaded.complete == with_start


def test_a_file_holds_exactly_zero_at_pruned_positions(chain: list[tb.Run], tmp_path: Path) -> None:
    for path, thing in ((tmp_path / "t", chain[2].ticket), (tmp_path / "r", chain[2])):
        thing.save(path, with_start=True)
    loaded = tb.Run.load(tmp_path / "r")
    for name, keep in chain[2].ticket.mask.items():
        for state in (tb.Ticket.load(tmp_path / "t").weights(), loaded.weights, loaded.ticket.weights()):
            assert not state[name][~keep].numpy().view(np.int32).any()


def test_a_ticket_saved_without_its_dense_start_asks_for_it_and_takes_only_the_right_one(
    sparse: tb.Ticket, file: Path, digits: tb.Data, same_bits: Same
) -> None:
    loaded = tb.Ticket.load(file)
    with pytest.raises(
        TicketError, match=r"does not carry its dense start \w{12}; save it with with_start=True"
    ):
        loaded.dense_start()
    with pytest.raises(TicketError, match="with_start=True"):
        loaded.save(file.with_name("again"), with_start=True)
    with pytest.raises(TicketError, match=r"that is start \w{12}; this ticket needs"):
        loaded.with_start(tb.initialize("convnet", digits, seed=1).start)
    assert same_bits(loaded.with_start(sparse.start).dense_start(), sparse.start)


def test_a_ticket_saved_with_its_dense_start_has_it_to_the_bit(
    sparse: tb.Ticket, tmp_path: Path, same_bits: Same
) -> None:
    sparse.save(tmp_path / "t", with_start=True)
    assert same_bits(tb.Ticket.load(tmp_path / "t").dense_start(), sparse.start)


def test_a_dense_ticket_carries_its_start_however_it_was_saved(
    start: tb.Ticket, tmp_path: Path, same_bits: Same
) -> None:
    start.save(tmp_path / "t")
    assert same_bits(tb.Ticket.load(tmp_path / "t").dense_start(), start.start)


def test_a_mask_that_needs_unknown_weights_is_refused(
    start: tb.Ticket, sparse: tb.Ticket, file: Path
) -> None:
    loaded = tb.Ticket.load(file)
    with pytest.raises(TicketError, match="does not carry its dense start"):
        loaded.with_mask(start.mask)
    thinner = {name: keep & mask for (name, keep), mask in zip(
        sparse.mask.items(), random_mask(start, 0.5, seed=1).values(), strict=True
    )}  # fmt: skip
    assert loaded.with_mask(thinner).kept == sum(int(keep.sum()) for keep in thinner.values())


def test_a_ticket_whose_start_is_kept_elsewhere_is_given_it_back(
    sparse: tb.Ticket, start: tb.Ticket, same_bits: Same
) -> None:
    description, tensors = sparse.pack(start="none")
    assert all(name.startswith("mask.") for name in tensors)
    assert same_bits(tb.Ticket.unpack(description, tensors, start=start.start).weights(), sparse.weights())
    with pytest.raises(TicketError, match=r"dense start \w{12} is not at hand"):
        tb.Ticket.unpack(description, tensors)


def test_a_loaded_ticket_trains_to_the_same_bits(
    sparse: tb.Ticket, file: Path, digits: tb.Data, same_run: Same
) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=100)
    assert same_run(*(tb.train(ticket, digits, recipe, noise=2) for ticket in (sparse, tb.Ticket.load(file))))


def test_a_file_of_a_very_sparse_ticket_is_much_smaller_than_a_dense_one(
    digits: tb.Data, tmp_path: Path
) -> None:
    dense = tb.initialize("resnet20", digits)
    sparse = dense.with_mask(random_mask(dense, 1 - 0.9885))
    sizes = []
    for name, ticket in (("dense", dense), ("sparse", sparse)):
        ticket.save(tmp_path / name)
        sizes.append((tmp_path / name).stat().st_size)
    # By count: a bit a position, 4 bytes a survivor, and batch norm with the header in under 100 kB.
    assert sizes[1] < dense.total / 8 + 4 * sparse.kept + 100_000
    assert sizes[1] < sizes[0] / 6


@given(st.data())
def test_a_ticket_file_cut_short_or_altered_raises_ticket_errors_only(
    file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    sparse: tb.Ticket,
    same_bits: Same,
    damaged: Damaged,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "altered"
    path.write_bytes(damaged(data, file.read_bytes()))
    try:
        loaded = tb.Ticket.load(path)
    except TicketError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert same_bits(loaded.weights(), sparse.weights())


def test_a_file_of_a_run_is_no_ticket(run: tb.Run, file: Path, tmp_path: Path) -> None:
    run.save(tmp_path / "run")
    with pytest.raises(TicketError, match=r"holds 'tombola\.run/1', not 'tombola\.ticket/1'"):
        tb.Ticket.load(tmp_path / "run")
    with pytest.raises(TicketError, match=r"holds 'tombola\.ticket/1', not 'tombola\.run/1'"):
        tb.Run.load(file)


def test_a_ticket_of_another_network_than_expected_is_refused(file: Path) -> None:
    with pytest.raises(TicketError, match="this is a ticket of network 'convnet', not 'resnet20'"):
        tb.Ticket.load(file, network="resnet20")
    with pytest.raises(TicketError, match=r"these tensors are not of network .*: .* is "):
        tb.Ticket.load(file, network=tiny)


def test_tensors_that_are_not_the_networks_are_refused(start: tb.Ticket) -> None:
    description, tensors = start.pack()
    for wrong in (
        {name: value for name, value in tensors.items() if name != "state.1.bias"},
        tensors | {"state.1.bias": torch.zeros(9)},
        tensors | {"state.extra": torch.zeros(9)},
    ):
        with pytest.raises(
            TicketError, match=r"these tensors are not of network 'convnet': (1\.bias|extra) is"
        ):
            tb.Ticket.unpack(description, wrong)


def test_a_mask_over_batch_norm_is_refused(start: tb.Ticket) -> None:
    odd = tb.Ticket(start.network, start.start, {"1.weight": torch.ones(8, dtype=torch.bool)})
    with pytest.raises(
        TicketError, match=r"the mask has '1\.weight', which is no prunable weight of 'convnet'"
    ):
        tb.Ticket.unpack(*odd.pack())


@pytest.mark.parametrize(
    "change",
    [
        {"shapes": {"0.weight": [8, 1, 3, 3], "3.weight": [8]}},
        {"shapes": {"nowhere": [1]}},
        {"shapes": 3},
        {"network": "convnet"},
        {"network": {"name": "convnet"}},
        {"network": {"name": "convnet", "channels": "x", "size": [8, 8], "classes": 10}},
        {"network": {"name": "convnet", "channels": 1, "size": 8, "classes": 10}},
        {"network": {"name": "nonet", "channels": 1, "size": [8, 8], "classes": 10}},
        {"epoch": None},
        {"density": "much"},
    ],
)
def test_a_description_that_makes_no_sense_is_a_ticket_error(
    start: tb.Ticket, change: dict[str, Any]
) -> None:
    description, tensors = start.pack()
    with pytest.raises(TicketError):
        tb.Ticket.unpack(description | change, tensors)


def test_a_ticket_that_cannot_be_written_leaves_nothing(
    start: tb.Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", disk_full)
    with pytest.raises(StoreError, match="No space left on device"):
        start.save(tmp_path / "ticket")
    assert list(tmp_path.iterdir()) == []


# Networks of the user's own


def small_net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))


@pytest.mark.parametrize("factory", [lambda: tiny(10), small_net])
def test_a_factory_that_was_never_declared_works_from_start_to_file(
    factory: Callable[..., nn.Module], digits: tb.Data, tmp_path: Path, same_run: Same
) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=100)
    start = tb.initialize(factory, digits)
    runs = list(tb.imp(start, digits, recipe, rounds=1))
    assert runs[1].accuracy > 30
    runs[1].save(tmp_path / "run")
    loaded = tb.Run.load(tmp_path / "run", network=factory)
    assert same_run(loaded, runs[1])
    assert same_run(tb.train(loaded.ticket, digits, recipe), runs[1])
    assert tb.barrier(loaded, runs[1], digits, points=3).height == 0
    with pytest.raises(TicketError, match=r"say Ticket\.load\(path, network=factory\)"):
        tb.Run.load(tmp_path / "run")


def test_a_declared_network_is_loaded_by_its_name(
    digits: tb.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks._networks, "_declared", {})
    tb.declare_network("my-net")(small_net)
    start = tb.initialize("my-net", digits)
    assert tb.initialize(small_net, digits).network == start.network
    start.save(tmp_path / "t")
    assert tb.Ticket.load(tmp_path / "t").network.name == "my-net"


def test_tied_weights_are_pruned_once_and_stay_tied(digits: tb.Data, same_bits: Same, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.second(self.first(x.flatten(1)).relu()).relu())

    start = tb.initialize(Tied, digits)
    assert list(start.mask) == ["first.weight", "last.weight"]
    recipe = tb.Recipe(epochs=1, batch_size=100)
    ticket = prune(tb.train(start, digits, recipe), fraction=0.5)
    run = tb.train(ticket, digits, recipe)
    keep = ticket.mask["first.weight"]
    for name in ("first.weight", "second.weight"):
        assert not run.weights[name][~keep].any()
    assert torch.equal(run.weights["first.weight"], run.weights["second.weight"])
    run.save(tmp_path / "run")
    assert same_bits(tb.Run.load(tmp_path / "run", network=Tied).weights, run.weights)


def test_each_own_mask_is_a_round_of_its_own_noise_unless_it_is_a_control(start: tb.Ticket) -> None:
    first = start.with_mask(random_mask(start, 0.5))
    second = first.with_mask(
        {
            name: keep & (torch.arange(keep.numel()) % 2 == 0).view(keep.shape)
            for name, keep in first.mask.items()
        }
    )
    assert (start.round, first.round, second.round) == (0, 1, 2)
    assert start.with_mask(random_mask(start, 0.5), same_round=True).round == 0
    assert first.with_mask(first.mask).round == 1


def test_a_ticket_with_trained_weights_comes_back_whole(
    chain: list[tb.Run], tmp_path: Path, same_bits: Same, digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    ticket = tb.prune(chain[1], fraction=0.5, rewinding="learning_rate")
    ticket.save(tmp_path / "ticket")
    loaded = tb.Ticket.load(tmp_path / "ticket")
    assert same_bits(loaded.weights(), ticket.weights())
    assert (loaded.fingerprint, loaded.epoch) == (ticket.fingerprint, 1)
    assert list(loaded.trained) == list(ticket.start)
    assert "taken at epoch 1, with trained weights" in repr(loaded)
    run = tb.train(loaded, digits, recipe, noise=3)
    assert same_run(run, tb.train(ticket, digits, recipe, noise=3))
    run.save(tmp_path / "run")
    assert tb.Run.load(tmp_path / "run").ticket.fingerprint == ticket.fingerprint
    assert "trained" not in chain[1].ticket.pack()[0]


def test_a_mask_of_ones_own_cuts_trained_weights_and_brings_none_back(chain: list[tb.Run]) -> None:
    ticket = tb.prune(chain[1], fraction=0.5, rewinding="learning_rate")
    smaller = {
        name: keep & (torch.arange(keep.numel()).view(keep.shape) % 2 == 0)
        for name, keep in ticket.mask.items()
    }
    cut = ticket.with_mask(smaller)
    for name, keep in smaller.items():
        assert torch.equal(cut.trained[name], ticket.weights()[name] * keep)
    with pytest.raises(TicketError, match="which have no trained values here; give a part of"):
        ticket.with_mask({name: torch.ones_like(keep) for name, keep in ticket.mask.items()})


def test_trained_weights_of_another_network_are_refused(chain: list[tb.Run]) -> None:
    description, tensors = tb.prune(chain[1], rewinding="learning_rate").pack()
    odd = {name: value for name, value in tensors.items() if not name.startswith("trained.state.14")}
    with pytest.raises(TicketError, match=r"not of network 'convnet': 14\.bias is None"):
        tb.Ticket.unpack(description, odd)


def test_a_place_within_an_epoch_comes_back_and_old_files_have_none(
    sparse: tb.Ticket, tmp_path: Path
) -> None:
    assert not {"step", "steps"} & sparse.pack()[0].keys()
    within = replace(sparse, epoch=1, step=3, steps=7)
    within.save(tmp_path / "ticket")
    loaded = tb.Ticket.load(tmp_path / "ticket")
    assert (loaded.epoch, loaded.step, loaded.steps) == (1, 3, 7)
    assert loaded.fingerprint == within.fingerprint != replace(sparse, epoch=1).fingerprint
    description, tensors = within.pack()
    for step, steps in ((7, 7), (-1, 7), (0, 0), ("x", 7)):
        with pytest.raises(TicketError):
            tb.Ticket.unpack({**description, "step": step, "steps": steps}, tensors)
    assert tb.reinitialize(within, seed=9).place == "epoch 0"
    assert tb.prune(within).place == within.place == "epoch 1, step 3 of 7"
