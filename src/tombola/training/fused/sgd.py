"""SGD, the mask and the bfloat16 copy of the weights in one pass over memory."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048


@triton.jit
def _sgd_kernel(
    weights, gradient, momentum, kept, copy, rate, numbers, count, COPY: tl.constexpr, BLOCK: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    weight = tl.load(weights + place, mask=inside)
    change = tl.load(gradient + place, mask=inside).to(tl.float32) + tl.load(numbers + 1) * weight
    change += tl.load(numbers) * tl.load(momentum + place, mask=inside)
    weight -= tl.load(rate) * change
    # Selected, not multiplied: an infinite or undefined weight becomes 0 too.
    keep = tl.load(kept + place, mask=inside) != 0
    weight = tl.where(keep, weight, 0.0)
    tl.store(weights + place, weight, mask=inside)
    tl.store(momentum + place, tl.where(keep, change, 0.0), mask=inside)
    if COPY:
        tl.store(copy + place, weight.to(copy.dtype.element_ty), mask=inside)


def sgd(
    weights: Tensor,
    gradient: Tensor,
    momentum: Tensor,
    kept: Tensor,
    copy: Tensor | None,
    rate: Tensor,
    numbers: Tensor,
) -> None:
    """One step of SGD with momentum and coupled weight decay, in place, and 0 wherever ``kept`` is 0.

    weights, momentum: float32 ``(D,)``. gradient: the same in float32 or bfloat16.
    kept: integers ``(D,)``, 0 for each pruned weight.
    copy: bfloat16 ``(D,)``, set to the new weights.
    rate: float32, one number. numbers: float32 ``(2,)``, momentum and weight decay. All on the device: a
        captured step reads what they are when it runs.
    """
    count = len(weights)
    _sgd_kernel[(triton.cdiv(count, _BLOCK),)](
        weights, gradient, momentum, kept, copy, rate, numbers, count,
        COPY=copy is not None, BLOCK=_BLOCK, num_warps=8,
    )  # fmt: skip
