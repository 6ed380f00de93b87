import itertools

import pytest
import torch
from torch import Tensor

import tombola as tb
from tombola.data.augmentation import draw
from tombola.data.batches import Batches
from tombola.data.streamed import StreamedBatches
from tombola.training.epoch import DevicePlan, EpochPlan, gathered_at_step

CPU = torch.device("cpu")
SIZE = 100


def plan_of(data: tb.Data, epoch: int) -> EpochPlan:
    count = len(data.train)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    draws = draw(tb.Augmentation(), data, noise=0, round=0, epoch=epoch)
    return EpochPlan(order, draws, [0.1] * -(-count // SIZE), SIZE)


def taken(plan: EpochPlan, batches: Batches, steps: list[int], order: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The batches of some steps as a captured training takes them."""
    device_plan = DevicePlan.empty(len(plan.order), SIZE, CPU, plan.draws)
    device_plan.begin(plan)
    device_plan.order.copy_(order)
    found = []
    for step in steps:
        if isinstance(batches, StreamedBatches):
            batches.load(step)
        device_plan.step.fill_(step)
        size = min(SIZE, len(plan.order) - step * SIZE)
        found.append(gathered_at_step(device_plan, batches, size))
        if isinstance(batches, StreamedBatches):
            batches.launched(step)
    assert int(device_plan.strays) == 0
    return found


@pytest.mark.parametrize("fill", ["black", "mean"])
@pytest.mark.parametrize("pad", [0, 2])
def test_streamed_batches_are_those_of_images_that_lie_on_the_device(
    digits: tb.Data, fill: str, pad: int
) -> None:
    whole = Batches(digits.train, digits, pad=pad, fill=fill)  # type: ignore[arg-type]
    streamed = StreamedBatches(digits.train, digits, SIZE, pad=pad, fill=fill)  # type: ignore[arg-type]
    assert streamed.padded.numel() < whole.padded.numel() / 2
    for epoch in range(3):
        plan = plan_of(digits, epoch)
        plan.draws.rows.clamp_(max=2 * pad)
        plan.draws.columns.clamp_(max=2 * pad)
        steps = list(range(12))
        expected = taken(plan, whole, steps, plan.order)
        streamed.begin(plan.order)
        found = taken(plan, streamed, steps, streamed.ring(len(plan.order)))
        for ours, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("steps", [[5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 9, 10], [0, 1, 2, 1, 2, 3], [11]])
def test_an_epoch_may_go_on_at_any_step(digits: tb.Data, steps: list[int]) -> None:
    plan = plan_of(digits, 0)
    streamed = StreamedBatches(digits.train, digits, SIZE)
    plan.draws.rows.zero_()
    plan.draws.columns.zero_()
    expected = taken(plan, Batches(digits.train, digits), steps, plan.order)
    streamed.begin(plan.order)
    found = taken(plan, streamed, steps, streamed.ring(len(plan.order)))
    for ours, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert torch.equal(ours, theirs)
