"""Max-pooling of 2x2 pixels that remembers which pixel it took in one byte, not eight."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional
from triton import next_power_of_2

_ELEMENTS = 2048


@triton.jit
def _corner(row, height, width):
    """The upper left of the four pixels behind a pooled one, counted over all images."""
    image, inner = row // (height * width), row % (height * width)
    return (image * (4 * height * width) + (inner // width) * (4 * width) + 2 * (inner % width)).to(tl.int64)


@triton.jit
def _pool_kernel(x, y, taken, rows, channels, height, width, CHANNELS: tl.constexpr, ROWS: tl.constexpr):
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
    tl.store(taken + place, which, mask=inside)


@triton.jit
def _pool_gradient_kernel(
    dy, taken, dx, rows, channels, height, width, CHANNELS: tl.constexpr, ROWS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    gradient = tl.load(dy + place, mask=inside, other=0)
    which = tl.load(taken + place, mask=inside, other=0)
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
        y = _empty(x, count, channels, height // 2, width // 2)
        taken = torch.empty_like(y, dtype=torch.int8)
        _launch(_pool_kernel, x, y, taken, small=y)
        ctx.save_for_backward(taken)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (taken,) = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = dy.shape
        dx = _empty(dy, count, channels, 2 * height, 2 * width)
        _launch(_pool_gradient_kernel, dy, taken, dx, small=dy)
        return dx


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _launch(kernel: Any, *tensors: Tensor, small: Tensor) -> None:
    """Run a kernel over all pooled pixels."""
    count, channels, height, width = small.shape
    rows = count * height * width
    wide = min(next_power_of_2(channels), 1024)
    tall = max(1, _ELEMENTS // wide)
    grid = triton.cdiv(rows, tall), triton.cdiv(channels, wide)
    kernel[grid](*tensors, rows, channels, height, width, CHANNELS=wide, ROWS=tall, num_warps=8)
