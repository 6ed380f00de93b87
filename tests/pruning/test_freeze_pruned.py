"""Pruned weights that stay at their start, against a loop in plain PyTorch that holds them there."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import tombola as tb
from tombola import seeds
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.networks.frozen_rest import WithFrozenRest, rest_name, state_without_rest
from tombola.pruning.synaptic_flow import synflow

RECIPE = tb.Recipe(epochs=3, batch_size=32, lr=0.1, momentum=0.9, weight_decay=1e-2)


def layers(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(20, classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(colour: tb.Data) -> tb.Data:
    """The colour images as features, which nothing crops or mirrors."""
    train, test = ((part.images.float() / 255, part.labels) for part in (colour.train, colour.test))
    return tb.data_from_tensors(train, test, name="plain", features=True)


@pytest.fixture(scope="module")
def dense_run(plain: tb.Data) -> tb.Run:
    return tb.train(tb.initialize(layers, plain, seed=3), plain, RECIPE)


@pytest.fixture(scope="module")
def ticket(dense_run: tb.Run) -> tb.Ticket:
    """Keeps 40% of the weights."""
    return tb.prune(dense_run, fraction=0.6)


def weights_of(run: tb.Run) -> dict[str, Tensor]:
    """What the network of a frozen ticket computes with."""
    rests = {name: value for name, value in run.weights.items() if name.startswith("rest.")}
    return {
        name: value + rests.get(rest_name(name), 0) for name, value in state_without_rest(run.weights).items()
    }


def test_a_training_moves_kept_weights_and_no_others_as_in_plain_pytorch(
    plain: tb.Data, ticket: tb.Ticket
) -> None:
    module = layers(3, 4)
    module.load_state_dict(dict(ticket.start))
    parameters = dict(module.named_parameters())
    optimizer = torch.optim.SGD(
        module.parameters(), RECIPE.lr, RECIPE.momentum, weight_decay=RECIPE.weight_decay
    )
    count, steps = len(plain.train), math.ceil(len(plain.train) / RECIPE.batch_size)
    for epoch in range(RECIPE.epochs):
        order = torch.from_numpy(seeds.generator("order", 0, 1, epoch).permutation(count))
        for step in range(steps):
            indices = order[step * RECIPE.batch_size : (step + 1) * RECIPE.batch_size]
            rate = RECIPE.lr / 2 * (1 + math.cos(math.pi * (epoch + step / steps) / RECIPE.epochs))
            optimizer.param_groups[0]["lr"] = rate
            loss = functional.cross_entropy(module(plain.train.images[indices]), plain.train.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, keep in ticket.mask.items():
                    parameters[name].copy_(torch.where(keep, parameters[name], ticket.start[name]))
    run = tb.train(tb.freeze_pruned(ticket), plain, RECIPE)
    trained = weights_of(run)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-5, msg=name)
    for name, keep in ticket.mask.items():
        assert torch.equal(trained[name][~keep], ticket.start[name][~keep])
        # The invariant of all tickets holds: a pruned weight itself is 0.
        assert not run.weights[f"network.{name}"][~keep].any()


def test_before_training_it_is_the_dense_network(plain: tb.Data, ticket: tb.Ticket) -> None:
    frozen, dense = tb.freeze_pruned(ticket), tb.densify(ticket)
    assert (frozen.kept, frozen.round, frozen.density) == (ticket.kept, 1, ticket.density)
    assert frozen.network.name == "frozen-rest:<layers>"
    inputs = plain.test.images[:8]
    torch.testing.assert_close(frozen.module()(inputs), dense.module()(inputs))
    assert tb.untrained(frozen, plain).accuracy == tb.untrained(dense, plain).accuracy


@pytest.mark.parametrize("zero", ["pruned", "all"])
def test_weights_that_shrank_start_at_zero(dense_run: tb.Run, ticket: tb.Ticket, zero: str) -> None:
    frozen = tb.freeze_pruned(ticket, trained=dense_run, zero=zero)  # type: ignore[arg-type]
    for name, mask in ticket.mask.items():
        keep, first, last = (value.numpy() for value in (mask, ticket.start[name], dense_run.weights[name]))
        shrank = np.abs(last) < np.abs(first)
        assert shrank.any()
        assert not shrank.all()
        np.testing.assert_array_equal(frozen.start[rest_name(name)], np.where(keep | shrank, 0, first))
        kept = np.where(shrank, 0, first) if zero == "all" else first
        np.testing.assert_array_equal(frozen.weights()[f"network.{name}"], np.where(keep, kept, 0))


def test_the_next_ticket_is_frozen_again_and_remembers_what_was_zero(
    plain: tb.Data, dense_run: tb.Run, ticket: tb.Ticket
) -> None:
    first = tb.freeze_pruned(ticket, trained=dense_run, zero="pruned")
    run = tb.train(first, plain, RECIPE)
    following = tb.prune(run, fraction=0.5)
    second = tb.freeze_pruned(following, trained=run, zero="pruned")
    assert second.network == first.network
    for name, mask in ticket.mask.items():
        before, after = first.start[rest_name(name)], second.start[rest_name(name)]
        assert torch.equal(before[~mask], after[~mask])  # frozen weights have not shrunk, zeros stay zeros
        gone = mask & ~second.mask[f"network.{name}"]
        shrank = run.weights[f"network.{name}"].abs() < ticket.start[name].abs()
        expected = torch.where(shrank, 0.0, ticket.start[name])
        assert torch.equal(after[gone], expected[gone])
    everywhere = tb.freeze_pruned(following)
    for name in ticket.mask:
        keep = following.mask[f"network.{name}"]
        assert torch.equal(everywhere.start[rest_name(name)], ticket.start[name].masked_fill(keep, 0))


def test_a_frozen_ticket_is_kept_in_files_and_stores(
    digits: tb.Data, start: tb.Ticket, recipe: tb.Recipe, tmp_path: Path
) -> None:
    frozen = tb.freeze_pruned(tb.prune(start, fraction=0.5))
    for with_start in (True, False):
        frozen.save(tmp_path / "ticket", with_start=with_start)
        loaded = tb.Ticket.load(tmp_path / "ticket")
        assert loaded.fingerprint == frozen.fingerprint
        assert tb.untrained(loaded, digits) == tb.untrained(frozen, digits)
    lab = tb.Lab(tmp_path / "store")
    first = tb.job(tb.prune, tb.job(tb.initialize, "convnet", "digits", seed=0), fraction=0.5)
    job = tb.job(tb.train, tb.job(tb.freeze_pruned, first), "digits", tb.Recipe(epochs=1))
    run = lab.result(job)
    assert run.fingerprint == tb.train(frozen, digits, tb.Recipe(epochs=1)).fingerprint
    assert tb.Lab(tmp_path / "store").result(job).fingerprint == run.fingerprint
    [key] = {number.key for number in lab.table([job]) if number.key.metric == "val_accuracy"}
    assert (key.network, key.sparsity, dict(key.more)["freeze_pruned"]) == ("convnet", 50.0, True)


def test_a_frozen_ticket_is_ranked_by_synflow_as_its_weights_with_the_rest(start: tb.Ticket) -> None:
    """At first both together are the start, of which the flow is that of the dense network."""
    ticket = tb.prune(start, fraction=0.5)
    scores, dense = synflow(tb.freeze_pruned(ticket)), synflow(start)
    for name, keep in ticket.mask.items():
        torch.testing.assert_close(scores[f"network.{name}"], dense[name] * keep)


def test_what_would_count_a_weight_twice_is_refused(start: tb.Ticket, dense_run: tb.Run) -> None:
    ticket = tb.prune(start, fraction=0.5)
    frozen = tb.freeze_pruned(ticket)
    for control in (tb.permute, tb.randomize, tb.densify):
        with pytest.raises(TicketError, match=r"frozen rest of frozen-rest:convnet .* before freeze_pruned"):
            control(frozen)
    for act in (lambda t: tb.reinitialize(t, seed=5), tb.shuffle_start, tb.signed_constant, tb.rescale):
        with pytest.raises(TicketError, match=r"has frozen values beside .* before freeze_pruned"):
            act(frozen)
    with pytest.raises(RecipeError, match="no choice of weights 'kept'"):
        tb.freeze_pruned(ticket, zero="kept")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="zero is 'all'; it goes with trained="):
        tb.freeze_pruned(ticket, zero="all")
    with pytest.raises(RecipeError, match="zero is 'none'; it goes with trained="):
        tb.freeze_pruned(ticket, trained=dense_run)
    with pytest.raises(TicketError, match=r"the run is of network <layers>, which has no such 0\.weight"):
        tb.freeze_pruned(ticket, trained=dense_run, zero="pruned")
    with pytest.raises(NetworkError, match="no network 'convnt'; did you mean 'convnet'"):
        tb.initialize("frozen-rest:convnt", "digits")
    with pytest.raises(NetworkError, match="which no trace would see"):
        fx.symbolic_trace(WithFrozenRest(layers(3, 4)))
