import pytest
import torch

import tombola as tb
from tombola.data.augmentation import draw
from tombola.data.batches import Batches
from tombola.errors import DeviceLost
from tombola.lab.supervision import device_is_lost
from tombola.training.epoch import DevicePlan, EpochPlan, check_strays, gathered_at_step

CPU = torch.device("cpu")


def test_an_epoch_is_copied_to_where_captured_steps_read_it(digits: tb.Data) -> None:
    count = len(digits.train)
    draws = draw(tb.Augmentation(), digits, noise=1, round=0, epoch=2)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    plan = DevicePlan.empty(count, 100, CPU)
    places = [
        tensor.data_ptr()
        for tensor in (plan.order, plan.draws.rows, plan.draws.columns, plan.draws.flips, plan.rates)
    ]
    plan.begin(EpochPlan(order, draws, [0.5 / (1 + step) for step in range(12)], 100))
    assert torch.equal(plan.order, order)
    assert torch.equal(plan.draws.rows, draws.rows)
    assert torch.equal(plan.draws.columns, draws.columns)
    assert torch.equal(plan.draws.flips, draws.flips)
    assert plan.rates.tolist() == torch.tensor([0.5 / (1 + step) for step in range(12)]).tolist()
    assert [
        tensor.data_ptr()
        for tensor in (plan.order, plan.draws.rows, plan.draws.columns, plan.draws.flips, plan.rates)
    ] == places


def test_a_plain_plan_shows_each_image_as_it_is_in_its_own_order() -> None:
    plan = DevicePlan.unaugmented(10, 4, 3, CPU)
    assert plan.order.tolist() == list(range(10))
    assert set(plan.draws.rows.tolist()) == set(plan.draws.columns.tolist()) == {3}
    assert not plan.draws.flips.any()
    assert len(plan.rates) == 3  # steps of 4, 4 and 2 images


def test_on_a_cpu_an_epoch_stays_where_it_is(digits: tb.Data) -> None:
    draws = draw(tb.Augmentation(), digits, noise=0, round=0, epoch=0)
    plan = EpochPlan(torch.arange(len(digits.train)), draws, [0.1], len(digits.train))
    assert plan.to(CPU) is plan


@pytest.fixture
def plan(digits: tb.Data) -> DevicePlan:
    """An augmented epoch of the digits in steps of 100, on the CPU."""
    count = len(digits.train)
    plan = DevicePlan.empty(count, 100, CPU)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    plan.begin(EpochPlan(order, draw(tb.Augmentation(), digits, noise=1, round=0, epoch=2), [0.1] * 12, 100))
    return plan


@pytest.mark.parametrize("value", [-1, 2**40])
@pytest.mark.parametrize("overwritten", ["order", "rows", "columns"])
def test_an_index_out_of_range_is_counted_and_touches_no_other_image(
    digits: tb.Data, plan: DevicePlan, overwritten: str, value: int
) -> None:
    batches = Batches(digits.train, digits, pad=tb.Augmentation().padding(digits))
    expected, labels = gathered_at_step(plan, batches, 100)
    check_strays(plan.strays)
    (plan.order if overwritten == "order" else getattr(plan.draws, overwritten))[7] = value
    images, found = gathered_at_step(plan, batches, 100)
    others = torch.arange(100) != 7
    assert torch.equal(images[others], expected[others])
    assert torch.equal(found[others], labels[others])
    with pytest.raises(DeviceLost, match="indices lay outside the images: memory of cpu was") as caught:
        check_strays(plan.strays)
    assert device_is_lost(caught.value)


def test_a_step_that_is_overwritten_is_counted(digits: tb.Data, plan: DevicePlan) -> None:
    batches = Batches(digits.train, digits, pad=tb.Augmentation().padding(digits))
    plan.step.fill_(13)
    gathered_at_step(plan, batches, 100)
    assert int(plan.strays) == 100


def test_a_pixel_out_of_range_is_counted(digits: tb.Data, plan: DevicePlan) -> None:
    batches = Batches(digits.train, digits, pad=tb.Augmentation().padding(digits))
    batches._row[3] = 2**40
    gathered_at_step(plan, batches, 100)
    with pytest.raises(DeviceLost):
        check_strays(plan.strays)


def test_each_epoch_counts_anew(digits: tb.Data, plan: DevicePlan) -> None:
    plan.strays.fill_(3)
    draws = draw(tb.Augmentation(), digits, noise=1, round=0, epoch=3)
    plan.begin(EpochPlan(plan.order, draws, [0.1] * 12, 100))
    check_strays(plan.strays)
