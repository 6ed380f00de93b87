import torch

import tombola as tb
from tombola.data.augmentation import draw
from tombola.training.epoch import DevicePlan, EpochPlan

CPU = torch.device("cpu")


def test_an_epoch_is_copied_to_where_captured_steps_read_it(digits: tb.Data) -> None:
    count = len(digits.train)
    draws = draw(tb.Augmentation(), digits, noise=1, round=0, epoch=2)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    plan = DevicePlan.empty(count, 100, CPU)
    places = [tensor.data_ptr() for tensor in (plan.order, plan.rows, plan.columns, plan.flips, plan.rates)]
    plan.begin(EpochPlan(order, draws, [0.5 / (1 + step) for step in range(12)], 100))
    assert torch.equal(plan.order, order)
    assert torch.equal(plan.rows, draws.rows)
    assert torch.equal(plan.columns, draws.columns)
    assert torch.equal(plan.flips, draws.flips)
    assert plan.rates.tolist() == torch.tensor([0.5 / (1 + step) for step in range(12)]).tolist()
    assert [
        tensor.data_ptr() for tensor in (plan.order, plan.rows, plan.columns, plan.flips, plan.rates)
    ] == places


def test_a_plain_plan_shows_each_image_as_it_is_in_its_own_order() -> None:
    plan = DevicePlan.unaugmented(10, 4, 3, CPU)
    assert plan.order.tolist() == list(range(10))
    assert set(plan.rows.tolist()) == set(plan.columns.tolist()) == {3}
    assert not plan.flips.any()
    assert len(plan.rates) == 3  # steps of 4, 4 and 2 images


def test_on_a_cpu_an_epoch_stays_where_it_is(digits: tb.Data) -> None:
    draws = draw(tb.Augmentation(), digits, noise=0, round=0, epoch=0)
    plan = EpochPlan(torch.arange(len(digits.train)), draws, [0.1], len(digits.train))
    assert plan.to(CPU) is plan
