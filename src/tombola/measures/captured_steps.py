"""Steps of a measurement on a GPU as CUDA graphs, so that launching them costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from tombola.data.batches import Batches
from tombola.training.capture import capture
from tombola.training.gather import gathered_at_step
from tombola.training.plan import DevicePlan, EpochPlan
from tombola.training.step import TakeStep

# Replays launched between two looks at the clock.
_STRETCH = 64


class CapturedSteps:
    """Whatever is done with each batch of an epoch, captured for a whole batch and for the last one.

    take: called with images, labels and the learning rate of a step. Capturing it calls it a few times.

    Raises ``RuntimeError`` for work that waits for the GPU.
    """

    def __init__(self, take: TakeStep, batches: Batches, batch_size: int) -> None:
        count, device = len(batches), batches.padded.device
        self._take, self._batches = take, batches
        self._plan = DevicePlan.empty(count, min(batch_size, count), device)
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        self._whole, *smaller = (
            capture(partial(self._step, size), pool, before=self._plan.step.zero_)
            for size in (self._plan.batch_size, count % self._plan.batch_size)
            if size
        )
        self._last = smaller[0] if smaller else self._whole

    def _step(self, size: int) -> None:
        plan = self._plan
        self._take(*gathered_at_step(plan, self._batches, size), plan.rates[plan.step].squeeze(0))
        plan.step.add_(1)

    def replay(self, plan: EpochPlan) -> Iterator[None]:
        """Do an epoch, with a pause now and then."""
        self._plan.begin(plan)
        self._plan.step.zero_()
        for step in range(plan.steps):
            (self._last if step == plan.steps - 1 else self._whole).replay()
            if step % _STRETCH == _STRETCH - 1:
                yield
        yield
