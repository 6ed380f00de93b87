"""The batches of an epoch as drawn: gathered, cropped, flipped and normalised on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tombola.data.batches import Batches
from tombola.training.evaluation import channels_last
from tombola.training.plan import DevicePlan, EpochPlan


def gathered(
    plan: EpochPlan, batches: Batches, first: int, last: int, together: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Steps from ``first`` to ``last``: number, images float32 ``(B, C, H, W)``, labels int64 ``(B,)``.

    together: steps whose images are prepared at once; preparing works image by image, so bits don't change.
    """
    size, draws = plan.batch_size, plan.draws
    for start in range(first, last, together):
        stretch = slice(start * size, min(start + together, last) * size)
        indices = plan.order[stretch]
        images = channels_last(
            batches.images(indices, draws.rows[stretch], draws.columns[stretch], draws.flips[stretch])
        )
        parts = zip(torch.split(images, size), torch.split(batches.labels(indices), size), strict=True)
        for step, (inputs, labels) in enumerate(parts, start):
            yield step, inputs, labels


def gathered_at_step(plan: DevicePlan, batches: Batches, size: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the batch of that size which the plan's step counter points to."""
    place = plan.step * plan.batch_size + torch.arange(size, device=plan.step.device)
    indices = plan.order[place]
    images = batches.images(indices, plan.rows[place], plan.columns[place], plan.flips[place])
    return channels_last(images), batches.labels(indices)
