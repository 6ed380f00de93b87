"""Axial subspaces: perturbed starts, projections on a later mask, and robustness to a pruning step."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures.axial import projected
from tombola.pruning.perturb import pruned_distance

Same = Callable[..., bool]


def prunable(state: dict[str, torch.Tensor], ticket: tb.Ticket) -> np.ndarray:
    return np.concatenate([state[name].double().numpy().ravel() for name in ticket.mask])


# Moved starts


def test_a_perturbed_start_is_moved_by_its_distance_where_weights_are_kept_and_nowhere_else(
    chain: list[tb.Run], same_bits: Same
) -> None:
    ticket = chain[2].ticket
    moved = tb.perturb(ticket, distance=3.0, seed=1)
    before, after = prunable(ticket.start, ticket), prunable(moved.start, ticket)
    kept = np.concatenate([keep.numpy().ravel() for keep in ticket.mask.values()])
    assert np.linalg.norm(after - before) == pytest.approx(3, rel=1e-6)
    assert (after[~kept] == before[~kept]).all()
    # A direction without a preference: about as many up as down, within five standard deviations.
    assert abs((after > before)[kept].mean() - 0.5) < 2.5 / kept.sum() ** 0.5
    rest = ticket.start.keys() - ticket.mask.keys()
    assert same_bits({n: moved.start[n] for n in rest}, {n: ticket.start[n] for n in rest})
    assert (moved.place, moved.round, moved.kept) == (ticket.place, ticket.round, ticket.kept)
    assert moved.fingerprint == tb.perturb(ticket, distance=3.0, seed=1).fingerprint
    assert moved.fingerprint != tb.perturb(ticket, distance=3.0, seed=2).fingerprint
    assert tb.perturb(ticket, distance=0.0).fingerprint == ticket.fingerprint


def test_trained_weights_are_moved_in_place_of_the_start(chain: list[tb.Run], same_bits: Same) -> None:
    ticket = tb.prune(chain[0], fraction=0.5, rewinding="learning_rate")
    moved = tb.perturb(ticket, distance=0.5)
    assert same_bits(moved.start, ticket.start)
    step = prunable(moved.weights(), ticket) - prunable(ticket.weights(), ticket)
    assert np.linalg.norm(step) == pytest.approx(0.5, rel=1e-6)
    kept = np.concatenate([keep.numpy().ravel() for keep in ticket.mask.values()])
    assert not step[~kept].any()


def test_a_distance_that_there_is_not_is_refused(chain: list[tb.Run], tmp_path: Path) -> None:
    for distance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(RecipeError, match="it must be finite and at least 0"):
            tb.perturb(chain[1].ticket, distance=distance)
    chain[1].ticket.save(tmp_path / "ticket.safetensors")
    with pytest.raises(TicketError, match="does not carry its dense start"):
        tb.perturb(tb.Ticket.load(tmp_path / "ticket.safetensors"), distance=1.0)


# Projections


def test_a_projection_is_that_of_numpy(chain: list[tb.Run], digits: tb.Data) -> None:
    first, _, second = chain
    found = tb.axial_projection(first, second, digits, points=3)
    kept = np.concatenate([keep.numpy().ravel() for keep in second.ticket.mask.values()])
    before, later = prunable(first.weights, first.ticket), prunable(second.weights, first.ticket)
    part = before * kept
    assert found.removed == pytest.approx(np.linalg.norm(before[~kept]))
    assert found.to_second == pytest.approx(np.linalg.norm(part - later))
    assert found.cosine == pytest.approx(part @ later / np.linalg.norm(part) / np.linalg.norm(later))
    # Its error, by a module whose weights are cut by hand.
    module = tb.module(first)
    with torch.no_grad():
        for name, keep in second.ticket.mask.items():
            module.get_parameter(name).mul_(keep)
        wrong = sum(
            int((module(images).argmax(1) != labels).sum()) for images, labels in tb.batches(digits, "test")
        )
    assert found.error == pytest.approx(100 * wrong / len(digits.test))
    # The middle of the line into the later round, likewise.
    middle = tb.module(first)
    state = {
        name: (value + second.weights[name]) / 2 if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }
    middle.load_state_dict(state)
    with torch.no_grad():
        losses = [
            functional.cross_entropy(middle(images), labels, reduction="sum")
            for images, labels in tb.batches(digits, "test")
        ]
    assert found.into_second.losses[1] == pytest.approx(float(sum(losses)) / len(digits.test), rel=1e-4)
    assert found.into_second.errors[-1] == pytest.approx(100 - second.accuracy)
    assert found.from_first.errors[0] == pytest.approx(100 - first.accuracy)


def test_batch_norm_of_a_projection_can_be_measured_anew(chain: list[tb.Run], digits: tb.Data) -> None:
    first, second = chain[:2]
    found = tb.axial_projection(first, second, digits, points=3)
    alone = tb.barrier(projected(first, second.ticket.mask), second, digits, points=3, recalibrate=True)
    assert found.recalibrated_error == alone.errors[0]
    assert (found.height, found.excess) == (alone.height, alone.excess)
    own = tb.axial_projection(second, second, digits, points=3)
    assert (own.removed, own.to_second, own.height, own.error) == (0, 0, 0, 100 - second.accuracy)
    assert own.cosine == pytest.approx(1)


# Robustness to a pruning step


def test_a_start_that_is_not_moved_trains_to_the_same_run(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe
) -> None:
    found = tb.pruning_robustness(chain[1], chain[2], digits, recipe, factor=0, points=3)
    assert found.line.errors == (100 - chain[1].accuracy,) * 3
    assert (found.distance, found.height, found.accuracy) == (0, 0, chain[1].accuracy)


def test_the_start_is_moved_as_far_as_the_next_pruning_moves_it(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe
) -> None:
    first, second = chain[1:]
    gone = {name: keep & ~second.ticket.mask[name] for name, keep in first.ticket.mask.items()}
    squares = [float((first.ticket.start[name].double()[keep] ** 2).sum()) for name, keep in gone.items()]
    distance = sum(squares) ** 0.5
    assert pruned_distance(first.ticket, second.ticket.mask) == pytest.approx(distance)
    found = tb.pruning_robustness(first, second, digits, recipe, seed=4, points=3)
    assert found.distance == pytest.approx(distance)
    assert found.norm == pytest.approx(np.linalg.norm(prunable(first.ticket.weights(), first.ticket)))
    by_hand = tb.train(tb.perturb(first.ticket, distance=found.distance, seed=4), digits, recipe, noise=3)
    assert found.accuracy == by_hand.accuracy
    assert found.line == tb.barrier(first, by_hand, digits, points=3)
    # In the pruned direction the weights that go are 0 at the start, and trained.
    start = {
        name: value * ~gone[name] if name in gone else value for name, value in first.ticket.start.items()
    }
    cut = tb.train(replace(first.ticket, start=start, start_fingerprint=""), digits, recipe, noise=3)
    assert any(cut.weights[name][keep].any() for name, keep in gone.items())
    pruned = tb.pruning_robustness(first, second, digits, recipe, direction="pruned", points=3)
    assert (pruned.accuracy, pruned.distance) == (cut.accuracy, pytest.approx(distance))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"direction": "up"}, "no direction 'up'"),
        ({"factor": -1}, "factor is -1; it must be finite and at least 0"),
        ({"direction": "pruned", "factor": 2}, "the pruned direction has one length"),
    ],
)
def test_a_move_that_there_is_not_is_refused(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, options: dict[str, object], words: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        tb.pruning_robustness(chain[0], chain[1], digits, recipe, **options)


def test_rounds_of_other_chains_or_in_another_order_are_refused(
    chain: list[tb.Run], run: tb.Run, digits: tb.Data, recipe: tb.Recipe
) -> None:
    with pytest.raises(TicketError, match="the runs are of two starts"):
        tb.pruning_robustness(run, chain[1], digits, recipe)
    with pytest.raises(TicketError, match="give the earlier round first"):
        tb.pruning_robustness(chain[2], chain[1], digits, recipe)
