from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.errors import RecipeError
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.trunk import Point, point_before, ticket_at, trunk

Same = Callable[..., bool]


@pytest.fixture(scope="module", params=[0.0, 0.9])
def either(request: pytest.FixtureRequest) -> tb.Recipe:
    """A recipe without and one with momentum."""
    return tb.Recipe(epochs=5, batch_size=100, lr=0.1, momentum=request.param)


def test_tickets_along_a_trunk_are_those_of_pretraining_to_the_bit(
    start: tb.Ticket, digits: tb.Data, either: tb.Recipe, same_bits: Same
) -> None:
    point = None
    for epochs in (1, 3, 4):
        point = trunk(start, digits, either, epochs=epochs, after=point, noise=6)
        ticket = ticket_at(start, point)
        pretrained = tb.pretrain(start, digits, either, epochs=epochs, noise=6)
        assert same_bits(ticket.start, pretrained.start)
        assert ticket.fingerprint == pretrained.fingerprint
        assert (ticket.epoch, ticket.complete) == (epochs, True)


def test_momentum_goes_on_along_the_trunk_and_restarts_in_a_child(
    start: tb.Ticket, digits: tb.Data, same_bits: Same
) -> None:
    recipe = tb.Recipe(epochs=5, batch_size=100, lr=0.1, momentum=0.9)
    point = trunk(start, digits, recipe, epochs=2)
    assert point.momentum.keys() <= point.weights.keys()
    assert all(value.any() for value in point.momentum.values())
    onward = trunk(start, digits, recipe, epochs=3, after=point)
    child = tb.pretrain(ticket_at(start, point), digits, recipe, epochs=3)
    assert not same_bits(onward.weights, child.start)
    # Without what it carries, the trunk is the child.
    still = {name: torch.zeros_like(value) for name, value in point.momentum.items()}
    restarted = trunk(start, digits, recipe, epochs=3, after=replace(point, momentum=still))
    assert same_bits(restarted.weights, child.start)


def test_a_trunk_without_momentum_keeps_none(start: tb.Ticket, digits: tb.Data) -> None:
    point = trunk(start, digits, tb.Recipe(epochs=2, batch_size=400, momentum=0.0), epochs=1)
    assert point.momentum == {}


def test_a_trunk_of_a_sparse_ticket_gives_sparse_tickets(
    chain: list[tb.Run], digits: tb.Data, either: tb.Recipe, same_bits: Same
) -> None:
    start = chain[2].ticket
    point = trunk(start, digits, either, epochs=2, noise=1)
    for name, value in point.momentum.items():
        if name in start.mask:
            assert not value[~start.mask[name]].any()
    point = trunk(start, digits, either, epochs=3, after=point, noise=1)
    pretrained = tb.pretrain(start, digits, either, epochs=3, noise=1)
    assert same_bits(ticket_at(start, point).start, pretrained.start)
    assert ticket_at(start, point).complete is pretrained.complete is False


def test_an_interrupted_stretch_goes_on_to_the_same_bits(
    start: tb.Ticket, digits: tb.Data, either: tb.Recipe, same_bits: Same
) -> None:
    class Stopping(Watch):
        kept: Checkpoint | None = None

        def resume(self) -> Checkpoint | None:
            return self.kept

        def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
            if self.kept is None and not epoch_end:
                self.kept = snapshot()
                raise KeyboardInterrupt

    first = trunk(start, digits, either, epochs=1)
    whole = trunk(start, digits, either, epochs=2, after=first)
    watch = Stopping()
    with pytest.raises(KeyboardInterrupt):
        trunk(start, digits, either, epochs=2, after=first, watch=watch)
    resumed = trunk(start, digits, either, epochs=2, after=first, watch=watch)
    assert same_bits(resumed.weights, whole.weights)
    assert same_bits(resumed.momentum, whole.momentum)


def test_a_checkpoint_of_a_child_is_not_taken_for_one_of_the_trunk(
    start: tb.Ticket, digits: tb.Data, same_bits: Same
) -> None:
    recipe = tb.Recipe(epochs=4, batch_size=100, lr=0.1, momentum=0.9)

    class Keeping(Watch):
        kept: Checkpoint | None = None

        def resume(self) -> Checkpoint | None:
            return self.kept

        def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
            self.kept = self.kept or snapshot()

    point = trunk(start, digits, recipe, epochs=1)
    watch = Keeping()
    tb.pretrain(ticket_at(start, point), digits, recipe, epochs=2, watch=watch)
    assert watch.kept is not None
    onward = trunk(start, digits, recipe, epochs=2, after=point, watch=watch)
    assert same_bits(onward.weights, trunk(start, digits, recipe, epochs=2, after=point).weights)


def test_a_point_and_its_tickets_are_jobs(
    start: tb.Ticket, digits: tb.Data, tmp_path, same_bits: Same
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=400)
    lab = tb.Lab(tmp_path / "store")
    made = tb.job(tb.initialize, "convnet", "digits")
    one = tb.job(trunk, made, "digits", recipe, epochs=1)
    two = tb.job(trunk, made, "digits", recipe, epochs=2, after=one)
    point: Point = lab.result(two)
    direct = trunk(start, digits, recipe, epochs=2)
    assert point.epoch == 2
    assert same_bits(point.weights, direct.weights)
    assert same_bits(point.momentum, direct.momentum)
    ticket = lab.result(tb.job(ticket_at, made, two))
    assert ticket.fingerprint == tb.pretrain(start, digits, recipe, epochs=2).fingerprint
    assert lab.has(one)


# The path


@pytest.mark.parametrize(("epoch", "path"), [
    (1, [1]), (7, [4, 6, 7]), (8, [8]), (16, [8, 16]), (43, [8, 16, 32, 40, 42, 43]),
    (48, [8, 16, 32, 40, 48]),
])  # fmt: skip
def test_the_path_to_a_point_by_hand(epoch: int, path: list[int]) -> None:
    walked = [epoch]
    while before := point_before(walked[0]):
        walked.insert(0, before)
    assert walked == path


@given(st.integers(1, 10_000))
def test_every_point_lies_behind_the_one_before_it(epoch: int) -> None:
    assert 0 <= point_before(epoch) < epoch


# What is refused


def test_points_outside_the_budget_or_behind_are_refused(
    start: tb.Ticket, digits: tb.Data, either: tb.Recipe
) -> None:
    with pytest.raises(RecipeError, match="rewind is to epoch 5, but the recipe has 5 epochs"):
        trunk(start, digits, either, epochs=5)
    point = trunk(start, digits, either, epochs=1)
    with pytest.raises(RecipeError, match="the trunk is at epoch 1 already; go on to a later one"):
        trunk(start, digits, either, epochs=1, after=point)
