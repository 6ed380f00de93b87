"""The fused passes of a training step on a GPU: crop, pooling, 1x1 convolution, loss, optimizer and mask.

Each is one pass over memory with a fixed order of sums, in Triton but for the convolution. Batch norm has a
module of its own, :mod:`.norm`; :mod:`.fused` puts the passes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional
from triton import next_power_of_2

from tombola.data.batches import Batches
from tombola.training.epoch import DevicePlan

# Pixels, elements or weights that one program takes.
_CROPPED_PIXELS = 1024
_POOLED_ELEMENTS = 2048
_OUTPUT_ELEMENTS = 1024
_MOVED_WEIGHTS = 2048


class Kernel:
    """A kernel of Triton's, launched as ``kernel[grid](...)``.

    On meta tensors, which have shapes and no memory, it is compiled and not launched
    (:mod:`.compilation`). Its first argument is a tensor.
    """

    def __init__(self, function: triton.JITFunction) -> None:
        self.function = function

    def __getitem__(self, grid: Any) -> Any:
        return partial(self._launch, grid)

    def _launch(self, grid: Any, *arguments: Any, **constants: Any) -> None:
        if arguments[0].is_meta:
            self.function.warmup(*arguments, grid=grid, **constants)
        else:
            self.function[grid](*arguments, **constants)


KERNELS: list[Kernel] = []
"""All that are launched."""


def launchable(function: Any) -> Kernel:
    """Makes a function a kernel, by ``triton.jit``; those that only kernels call need no more than that."""
    kernel = Kernel(triton.jit(function))
    KERNELS.append(kernel)
    return kernel


@launchable
def _crop_kernel(
    padded, labels, order, rows, columns, flips, step, strays, scale, shift, images, targets,
    count, presented, size, tall, wide, height, width, pad,
    FILL_MEAN: tl.constexpr, REAL: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    place = tl.load(step) * size + image
    astray = (place < 0) | (place >= presented)
    place = tl.where(astray, 0, place)
    index = tl.load(order + place)
    top = tl.load(rows + place)
    left = tl.load(columns + place)
    astray |= (index < 0) | (index >= count)
    astray |= (top < 0) | (top > tall - height) | (left < 0) | (left > wide - width)
    index = tl.where(astray, 0, index)
    if astray & (tl.program_id(1) == 0):
        tl.atomic_add(strays, 1)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    row = tl.where(astray, 0, top) + pixel // width
    column = pixel % width
    column = tl.where(tl.load(flips + place) != 0, width - 1 - column, column)
    column = tl.where(astray, 0, left) + column
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

    Of the plan's draws only crops and flips are followed.

    An image whose place is out of range is the first instead, and counted among the plan's strays.

    Returns images ``(size, C, H, W)`` in ``dtype``, channels_last, and labels int64 ``(size,)``.
    """
    _, channels, tall, wide = batches.padded.shape
    height, width = batches.size
    images = torch.empty(size, height, width, channels, dtype=dtype, device=batches.padded.device)
    targets = torch.empty(size, dtype=torch.int64, device=batches.padded.device)
    _crop_kernel[(size, triton.cdiv(height * width, _CROPPED_PIXELS))](
        batches.padded, batches.all_labels, plan.order, plan.draws.rows, plan.draws.columns, plan.draws.flips,
        plan.step, plan.strays, batches.scale, batches.shift, images, targets,
        len(batches), len(plan.order), plan.batch_size, tall, wide, height, width, batches.pad,
        FILL_MEAN=batches.fill == "mean" and batches.pad > 0, REAL=channels,
        CHANNELS=triton.next_power_of_2(channels), PIXELS=_CROPPED_PIXELS, num_warps=4,
    )  # fmt: skip
    return images.permute(0, 3, 1, 2), targets


@triton.jit
def _corner(row, height, width):
    """Index of the upper left of the four pixels behind a pooled one, counted over all images."""
    image, inner = row // (height * width), row % (height * width)
    return (image * (4 * height * width) + (inner // width) * (4 * width) + 2 * (inner % width)).to(tl.int64)


@launchable
def _pool_kernel(x, y, winner, rows, channels, height, width, CHANNELS: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    corner = x + _corner(row, height, width)[:, None] * channels + channel[None, :]
    best = tl.load(corner, mask=inside, other=0)
    which = tl.zeros((ROWS, CHANNELS), tl.int8)
    for pixel in tl.static_range(1, 4):
        value = tl.load(corner + ((pixel // 2) * 2 * width + pixel % 2) * channels, mask=inside, other=0)
        better = (value > best) | (value != value)  # an undefined value is passed on
        best = tl.where(better, value, best)
        which = tl.where(better, pixel, which).to(tl.int8)
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(y + place, best, mask=inside)
    tl.store(winner + place, which, mask=inside)


@launchable
def _pool_gradient_kernel(
    dy, winner, dx, rows, channels, height, width, CHANNELS: tl.constexpr, ROWS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    gradient = tl.load(dy + place, mask=inside, other=0)
    which = tl.load(winner + place, mask=inside, other=0)
    corner = dx + _corner(row, height, width)[:, None] * channels + channel[None, :]
    for pixel in tl.static_range(4):
        value = tl.where(which == pixel, gradient, 0.0).to(gradient.dtype)
        tl.store(corner + ((pixel // 2) * 2 * width + pixel % 2) * channels, value, mask=inside)


class HalvingPool(nn.Module):
    """``MaxPool2d(2)``; images of odd height or width are left to PyTorch."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2:
            return functional.max_pool2d(x, 2)
        pooled: Tensor = _HalvingPool.apply(x)  # type: ignore[no-untyped-call]
        return pooled


class _HalvingPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = x.shape
        y = empty_channels_last(x, count, channels, height // 2, width // 2)
        winner = torch.empty_like(y, dtype=torch.int8)
        _launch_over_pixels(_pool_kernel, x, y, winner, small=y)
        ctx.save_for_backward(winner)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (winner,) = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = dy.shape
        dx = empty_channels_last(dy, count, channels, 2 * height, 2 * width)
        _launch_over_pixels(_pool_gradient_kernel, dy, winner, dx, small=dy)
        return dx


def empty_channels_last(like: Tensor, *shape: int) -> Tensor:
    """A channels_last tensor of the dtype and device of ``like``, uninitialised."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _launch_over_pixels(kernel: Kernel, *tensors: Tensor, small: Tensor) -> None:
    """Run a kernel over all pooled pixels."""
    count, channels, height, width = small.shape
    rows = count * height * width
    wide = min(next_power_of_2(channels), 1024)
    tall = max(1, _POOLED_ELEMENTS // wide)
    grid = triton.cdiv(rows, tall), triton.cdiv(channels, wide)
    kernel[grid](*tensors, rows, channels, height, width, CHANNELS=wide, ROWS=tall, num_warps=8)


def autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Input and weight of a convolution in the type in which PyTorch's own would take them now."""
    if torch.is_autocast_enabled("cuda"):
        return x.to(torch.bfloat16), weight.to(torch.bfloat16)
    return x, weight


class Pointwise(nn.Module):
    """A strided 1x1 convolution without bias, padding or groups, as one matrix product.

    sampled: its input has only the pixels that the stride leaves, and so has its gradient, a product too.
    """

    def __init__(self, convolution: nn.Conv2d, *, sampled: bool = False) -> None:
        super().__init__()
        self.convolution = convolution
        self.stride = (1, 1) if sampled else convolution.stride

    def forward(self, x: Tensor) -> Tensor:
        x, weight = autocast(x, self.convolution.weight)
        out: Tensor = _Pointwise.apply(x, weight, self.stride)  # type: ignore[no-untyped-call]
        return out


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
        seen = x.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]
        count, height, width, channels = seen.shape
        seen = seen.reshape(-1, channels)
        ctx.save_for_backward(None if stride == (1, 1) else x, seen, weight)
        ctx.stride = stride
        return (seen @ weight.flatten(1).t()).view(count, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, seen, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        flat = dy.permute(0, 2, 3, 1).reshape(len(seen), -1)
        if x is None:
            count, _, height, width = dy.shape
            dx = (flat @ weight.flatten(1)).view(count, height, width, -1).permute(0, 3, 1, 2)
        else:
            dx, _, _ = torch.ops.aten.convolution_backward(
                dy, x, weight, None, ctx.stride, (0, 0), (1, 1), False, (0, 0), 1, (True, False, False)
            )
        return dx, (flat.t() @ seen).view_as(weight), None


@launchable
def _cross_entropy_kernel(
    outputs, targets, losses, right, gradient, images, classes,
    SMOOTHING: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    label = tl.arange(0, CLASSES)
    real = row < images
    inside = real[:, None] & (label < classes)[None, :]
    place = row[:, None] * classes + label[None, :]
    value = tl.load(outputs + place, mask=inside, other=-float("inf")).to(tl.float32)
    target = tl.load(targets + row, mask=real, other=0)
    # As argmax has it: the first of the largest, and an undefined value is larger than all.
    predicted = tl.argmax(tl.where(value != value, float("inf"), value), 1)
    tl.store(right + row, predicted == target, mask=real)
    shifted = value - tl.max(value, 1)[:, None]
    exponential = tl.exp(shifted)
    total = tl.sum(exponential, 1)
    chosen = label[None, :] == target[:, None]
    if SMOOTHING > 0.0:
        every = SMOOTHING / classes
        wanted = tl.where(chosen, 1.0 - SMOOTHING + every, every)
        # Padded columns are minus infinity, which times zero would be undefined.
        loss = tl.log(total) - tl.sum(tl.where(inside, wanted * shifted, 0.0), 1)
    else:
        wanted = tl.where(chosen, 1.0, 0.0)
        loss = tl.log(total) - tl.sum(tl.where(chosen, shifted, 0.0), 1)
    tl.store(losses + row, loss, mask=real)
    change = (exponential / total[:, None] - wanted) / images
    tl.store(gradient + place, change.to(gradient.dtype.element_ty), mask=inside)


def cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of each image, whether each prediction is right, and the gradient of the mean by outputs.

    outputs: float32 or bfloat16 ``(B, classes)``; targets: int64 ``(B,)``.
    smoothing: share of each label that is spread over all classes; each value has a kernel of its own.

    Returns float32 ``(B,)``, bool ``(B,)``, and a gradient like ``outputs``.
    """
    outputs = outputs.detach().contiguous()
    images, classes = outputs.shape
    losses = torch.empty(images, device=outputs.device)
    right = torch.empty(images, dtype=torch.bool, device=outputs.device)
    gradient = torch.empty_like(outputs)
    wide = triton.next_power_of_2(classes)
    tall = max(1, _OUTPUT_ELEMENTS // wide)
    _cross_entropy_kernel[(triton.cdiv(images, tall),)](
        outputs, targets, losses, right, gradient, images, classes,
        SMOOTHING=smoothing, CLASSES=wide, ROWS=tall, num_warps=4,
    )  # fmt: skip
    return losses, right, gradient


@launchable
def _sgd_kernel(
    weights, gradient, momentum, kept, copy, rate, numbers, count,
    NESTEROV: tl.constexpr, COPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    weight = tl.load(weights + place, mask=inside)
    change = tl.load(gradient + place, mask=inside).to(tl.float32) + tl.load(numbers + 1) * weight
    if NESTEROV:
        slope = change
    change += tl.load(numbers) * tl.load(momentum + place, mask=inside)
    if NESTEROV:
        weight -= tl.load(rate) * (slope + tl.load(numbers) * change)
    else:
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
    *,
    nesterov: bool = False,
) -> None:
    """One step of SGD with momentum and coupled weight decay, in place, and 0 wherever ``kept`` is 0.

    weights, momentum: float32 ``(D,)``. gradient: the same in float32 or bfloat16.
    kept: integers ``(D,)``, 0 for each pruned weight.
    copy: bfloat16 ``(D,)``, set to the new weights.
    rate: float32, one number. numbers: float32 ``(2,)``, momentum and weight decay. All on the device: a
        captured step reads what they are when it runs.
    """
    count = len(weights)
    _sgd_kernel[(triton.cdiv(count, _MOVED_WEIGHTS),)](
        weights, gradient, momentum, kept, copy, rate, numbers, count,
        NESTEROV=nesterov, COPY=copy is not None, BLOCK=_MOVED_WEIGHTS, num_warps=8,
    )  # fmt: skip


@launchable
def _adamw_kernel(
    weights, gradient, first, second, kept, copy, rate, steps_taken, numbers, count,
    COPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    # In float64, because 1 - beta and 1 - beta^steps lose most of their digits where beta is near 1.
    steps = tl.load(steps_taken).to(tl.float64)
    first_beta, second_beta = tl.load(numbers), tl.load(numbers + 1)
    step_size = tl.load(rate).to(tl.float64) / (1.0 - tl.exp(steps * tl.load(numbers + 2)))
    second_root = tl.sqrt(1.0 - tl.exp(steps * tl.load(numbers + 3)))
    slope = tl.load(gradient + place, mask=inside).to(tl.float32)
    mean = tl.load(first + place, mask=inside) * first_beta.to(tl.float32)
    mean += (1.0 - first_beta).to(tl.float32) * slope
    square = tl.load(second + place, mask=inside) * second_beta.to(tl.float32)
    square += (1.0 - second_beta).to(tl.float32) * (slope * slope)
    weight = tl.load(weights + place, mask=inside)
    weight -= (tl.load(rate) * tl.load(numbers + 5).to(tl.float32)) * weight
    denominator = tl.sqrt(square) / second_root.to(tl.float32) + tl.load(numbers + 4).to(tl.float32)
    weight -= step_size.to(tl.float32) * (mean / denominator)
    # Selected, not multiplied: an infinite or undefined weight becomes 0 too.
    keep = tl.load(kept + place, mask=inside) != 0
    weight = tl.where(keep, weight, 0.0)
    tl.store(weights + place, weight, mask=inside)
    tl.store(first + place, tl.where(keep, mean, 0.0), mask=inside)
    tl.store(second + place, tl.where(keep, square, 0.0), mask=inside)
    if COPY:
        tl.store(copy + place, weight.to(copy.dtype.element_ty), mask=inside)


def adamw(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    kept: Tensor,
    copy: Tensor | None,
    rate: Tensor,
    steps_taken: Tensor,
    numbers: Tensor,
) -> None:
    """One step of AdamW, whose weight decay is decoupled, in place, and 0 wherever ``kept`` is 0.

    moments: running means of the gradient and of its square, float32 ``(D,)``.
    steps_taken: float32, one number: this step included, on the device like ``rate`` and ``numbers``.
    numbers: as :func:`adamw_numbers` gives them.
    The others are as for :func:`sgd`.
    """
    count = len(weights)
    _adamw_kernel[(triton.cdiv(count, _MOVED_WEIGHTS),)](
        weights, gradient, *moments, kept, copy, rate, steps_taken, numbers, count,
        COPY=copy is not None, BLOCK=_MOVED_WEIGHTS, num_warps=8,
    )  # fmt: skip


def adamw_numbers(betas: tuple[float, float], eps: float, weight_decay: float) -> Tensor:
    """What :func:`adamw` reads, float64 ``(6,)``: the betas, their logarithms, eps and weight decay."""
    logarithms = torch.tensor(betas, dtype=torch.float64).log()
    others = torch.tensor([eps, weight_decay], dtype=torch.float64)
    return torch.cat([torch.tensor(betas, dtype=torch.float64), logarithms, others])
