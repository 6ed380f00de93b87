"""Cross-entropy, its gradient, and which predictions were right, in one pass over the outputs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS = 1024


@triton.jit
def _head_kernel(
    outputs, targets, losses, right, gradient, images, classes, CLASSES: tl.constexpr, ROWS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    each = tl.arange(0, CLASSES)
    real = row < images
    inside = real[:, None] & (each < classes)[None, :]
    place = row[:, None] * classes + each[None, :]
    value = tl.load(outputs + place, mask=inside, other=-float("inf")).to(tl.float32)
    target = tl.load(targets + row, mask=real, other=0)
    # As argmax has it: the first of the largest, and an undefined value is larger than all.
    predicted = tl.argmax(tl.where(value != value, float("inf"), value), 1)
    tl.store(right + row, predicted == target, mask=real)
    shifted = value - tl.max(value, 1)[:, None]
    exponential = tl.exp(shifted)
    total = tl.sum(exponential, 1)
    chosen = each[None, :] == target[:, None]
    tl.store(losses + row, tl.log(total) - tl.sum(tl.where(chosen, shifted, 0.0), 1), mask=real)
    change = (exponential / total[:, None] - tl.where(chosen, 1.0, 0.0)) / images
    tl.store(gradient + place, change.to(gradient.dtype.element_ty), mask=inside)


def cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of each image, which predictions were right, and the gradient of the mean by the outputs.

    outputs: float32 or bfloat16 ``(B, classes)``; targets: int64 ``(B,)``.

    Returns float32 ``(B,)``, bool ``(B,)``, and a gradient like ``outputs``.
    """
    outputs = outputs.detach().contiguous()
    images, classes = outputs.shape
    losses = torch.empty(images, device=outputs.device)
    right = torch.empty(images, dtype=torch.bool, device=outputs.device)
    gradient = torch.empty_like(outputs)
    wide = triton.next_power_of_2(classes)
    tall = max(1, _ELEMENTS // wide)
    _head_kernel[(triton.cdiv(images, tall),)](
        outputs, targets, losses, right, gradient, images, classes, CLASSES=wide, ROWS=tall, num_warps=4
    )
    return losses, right, gradient
