"""The next batch in one pass: gathered, cropped, mirrored, normalised, laid out as channels_last."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tombola.data.batches import Batches
from tombola.training.plan import DevicePlan

_PIXELS = 1024


@triton.jit
def _crop_kernel(
    padded, labels, order, rows, columns, flips, step, scale, shift, images, targets,
    size, tall, wide, height, width, pad,
    FILL_MEAN: tl.constexpr, REAL: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    place = tl.load(step) * size + image
    index = tl.load(order + place)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    row = tl.load(rows + place) + pixel // width
    column = pixel % width
    column = tl.load(columns + place) + tl.where(tl.load(flips + place) != 0, width - 1 - column, column)
    channel = tl.arange(0, CHANNELS)
    inside = (pixel < height * width)[:, None] & (channel < REAL)[None, :]
    plane = (index * REAL + channel[None, :]) * (tall * wide)
    value = tl.load(padded + plane + (row * wide + column)[:, None], mask=inside, other=0).to(tl.float32)
    value = value * tl.load(scale + channel, mask=channel < REAL, other=0)[None, :]
    value = value + tl.load(shift + channel, mask=channel < REAL, other=0)[None, :]
    if FILL_MEAN:
        within = (row >= pad) & (row < pad + height) & (column >= pad) & (column < pad + width)
        value = tl.where(within[:, None], value, 0.0)
    out = images + (image.to(tl.int64) * height * width + pixel)[:, None] * REAL + channel[None, :]
    tl.store(out, value.to(images.dtype.element_ty), mask=inside)
    if tl.program_id(1) == 0:
        tl.store(targets + image, tl.load(labels + index))


def crop(batches: Batches, plan: DevicePlan, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The batch of ``size`` images that the plan points to, and its labels.

    Returns images ``(size, C, H, W)`` in ``dtype``, channels_last, and labels int64 ``(size,)``.
    """
    _, channels, tall, wide = batches.padded.shape
    height, width = batches.size
    images = torch.empty(size, height, width, channels, dtype=dtype, device=batches.padded.device)
    targets = torch.empty(size, dtype=torch.int64, device=batches.padded.device)
    _crop_kernel[(size, triton.cdiv(height * width, _PIXELS))](
        batches.padded, batches.all_labels, plan.order, plan.rows, plan.columns, plan.flips, plan.step,
        batches.scale, batches.shift, images, targets, plan.batch_size, tall, wide, height, width,
        batches.pad, FILL_MEAN=batches.fill == "mean" and batches.pad > 0, REAL=channels,
        CHANNELS=triton.next_power_of_2(channels), PIXELS=_PIXELS, num_warps=4,
    )  # fmt: skip
    return images.permute(0, 3, 1, 2), targets
