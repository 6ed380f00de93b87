"""The steps of an epoch on a GPU as CUDA graphs, so that launching them costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from tombola.training.capture import capture
from tombola.training.plan import DevicePlan

STRETCH = 64
"""Steps launched between two looks at the clock."""


class CapturedSteps:
    """What is done at each step of a plan, captured once for a whole batch and once for a smaller last one.

    take: called with the size of a batch, it does the step that the plan's counter points to, reading on the
        device whatever differs from step to step. Capturing it calls it a few times.

    Raises ``RuntimeError`` for work that waits for the GPU.
    """

    def __init__(self, take: Callable[[int], None], plan: DevicePlan) -> None:
        def step(size: int) -> None:
            take(size)
            plan.step.add_(1)

        # The work itself is not kept: whoever has it and these steps would be a cycle, and its graphs would
        # be freed by the garbage collection of any thread, within a capture perhaps.
        self._plan = plan
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        self._whole, *smaller = (
            capture(partial(step, size), pool, before=plan.step.zero_)
            for size in (plan.batch_size, len(plan.order) % plan.batch_size)
            if size
        )
        self._last = smaller[0] if smaller else self._whole

    def replay(self, first: int, last: int) -> None:
        """Launch the steps from ``first`` up to ``last``, counted from 0."""
        self._plan.step.fill_(first)
        for step in range(first, last):
            (self._last if step == len(self._plan.rates) - 1 else self._whole).replay()
