"""Batch norm, the addition of a shortcut and ReLU in one pass over memory, forward and backward.

In a bfloat16 training step on a GPU the convolutions are fast; the time goes into reading and writing
activations for what stands between them. PyTorch's own kernels pass over a batch-normalised, shortcut-added,
rectified activation twelve times forward and backward, these eight times. Statistics and sums are float32 and
are added up in a fixed order: the same bits every time. :mod:`.rewrite` puts :class:`FusedNorm` into a
network.

An activation is taken as a matrix of ``rows`` (all pixels of all images) and ``channels``, as channels_last
has it.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton import next_power_of_2

from tombola.training.cuda.kernels import launchable

# Channels and rows that one program takes at a time, and how many programs share the rows of a reduction.
# Constants, not choices by timing: bits rest on how sums are split.
_REDUCED_CHANNELS = 32
_REDUCED_ROWS = 128
_REDUCING_PROGRAMS = 264
_REDUCING_WARPS = 8
_ELEMENTS = 4096
_MERGED_CHANNELS = 16

T = TypeVar("T")


class Parts(NamedTuple):
    """Sums over parts of the rows, in the order of the rows.

    values: float32 ``(2, parts, C)``: means and sums of squares around them, or sums of gradients and of
        their products with the centred input.
    rows_each: rows of a part; the last may have fewer.
    """

    values: Tensor
    rows_each: int


class Normed(NamedTuple):
    """What a batch norm with ReLU has normalised, ``(N, C, H, W)``, and the numbers by which, ``(C,)``."""

    x: Tensor
    mean: Tensor
    rstd: Tensor
    weight: Tensor
    bias: Tensor


class Note(Generic[T]):
    """What one layer leaves for the next about a tensor that passes from one to the other.

    It is taken once, and with that tensor only.
    """

    def __init__(self) -> None:
        self._left: tuple[Tensor, T] | None = None

    def leave(self, tensor: Tensor, words: T) -> None:
        self._left = tensor, words

    def take(self, tensor: Tensor | None) -> T | None:
        """What was left about a tensor; None for any other tensor, and nothing is left then."""
        left, self._left = self._left, None
        return None if left is None or left[0] is not tensor else left[1]


@triton.jit
def _finished_last(counter, programs):
    """Whether this program is the last of those that count on ``counter``; the last one sets it back to 0."""
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1
    if last:
        tl.atomic_xchg(counter, 0)
    return last


@launchable
def _statistics_kernel(
    x, partial, counters, mean_out, rstd_out, running_mean, running_var, conv_bias, passed,
    rows, channels, rows_each, momentum, eps, images,
    HAS_CONV_BIAS: tl.constexpr, AVERAGED: tl.constexpr,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, MERGED: tl.constexpr,
):  # fmt: skip
    part, parts = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = channel < channels
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    # Sums of differences from a value that occurs lose nothing when the mean is far from zero.
    pivot = tl.load(x + first.to(tl.int64) * channels + channel, mask=real, other=0).to(tl.float32)
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    squares = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in tl.range(first, last, ROWS, num_stages=3):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & real[None, :]
        place = row.to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.load(x + place, mask=inside, other=0).to(tl.float32) - pivot[None, :]
        value = tl.where(inside, value, 0.0)
        total += value
        squares += value * value
    count = (last - first).to(tl.float32)
    off = tl.sum(total, 0) / count
    mean = pivot + off
    spread = tl.maximum(tl.sum(squares, 0) - count * off * off, 0.0)
    tl.store(partial + part * channels + channel, mean, mask=real)
    tl.store(partial + (parts + part) * channels + channel, spread, mask=real)
    if _finished_last(counters + tl.program_id(1), parts):
        _merge_statistics(
            partial, parts, mean_out, rstd_out, running_mean, running_var, conv_bias, passed, channel, real,
            rows, channels, rows_each, momentum, eps, images, HAS_CONV_BIAS, AVERAGED, CHANNELS, MERGED,
        )  # fmt: skip


@triton.jit
def _merge_statistics(
    partial, parts, mean_out, rstd_out, running_mean, running_var, conv_bias, passed, channel, real,
    rows, channels, rows_each, momentum, eps, images,
    HAS_CONV_BIAS: tl.constexpr, AVERAGED: tl.constexpr, CHANNELS: tl.constexpr, MERGED: tl.constexpr,
):  # fmt: skip
    """Mean and variance of all rows from those of the parts (Chan et al., 1983), and running statistics."""
    part = tl.arange(0, MERGED)
    size = tl.minimum(rows - part * rows_each, rows_each).to(tl.float32)[:, None]
    inside = (part < parts)[:, None] & real[None, :]
    place = part[:, None] * channels + channel[None, :]
    means = tl.load(partial + place, mask=inside, other=0, cache_modifier=".cg")
    spreads = tl.load(partial + parts * channels + place, mask=inside, other=0, cache_modifier=".cg")
    mean = tl.sum(tl.where(inside, size * means, 0.0), 0) / rows
    off = means - mean[None, :]
    spread = tl.sum(tl.where(inside, spreads + size * off * off, 0.0), 0)
    tl.store(mean_out + channel, mean, mask=real)
    tl.store(rstd_out + channel, 1.0 / tl.sqrt(spread / rows + eps), mask=real)
    if HAS_CONV_BIAS:  # left out of the convolution, where it would only shift the mean
        mean += tl.load(conv_bias + channel, mask=real, other=0)
    if AVERAGED:  # over all images so far, by their number
        total = tl.load(passed + channel, mask=real, other=0) + images
        tl.store(passed + channel, total, mask=real)
        momentum = images / total
    old_mean = tl.load(running_mean + channel, mask=real, other=0)
    old_var = tl.load(running_var + channel, mask=real, other=0)
    tl.store(running_mean + channel, (1 - momentum) * old_mean + momentum * mean, mask=real)
    tl.store(running_var + channel, (1 - momentum) * old_var + momentum * spread / (rows - 1), mask=real)


@triton.jit(do_not_specialize=["parts"])
def _merge_statistics_kernel(
    partial, parts, mean_out, rstd_out, running_mean, running_var, conv_bias, passed,
    rows, channels, rows_each, momentum, eps, images,
    HAS_CONV_BIAS: tl.constexpr, AVERAGED: tl.constexpr, CHANNELS: tl.constexpr, MERGED: tl.constexpr,
):  # fmt: skip
    """The end of the first pass forward, of parts that another kernel has added up."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    _merge_statistics(
        partial, parts, mean_out, rstd_out, running_mean, running_var, conv_bias, passed, channel,
        channel < channels, rows, channels, rows_each, momentum, eps, images, HAS_CONV_BIAS, AVERAGED,
        CHANNELS, MERGED,
    )  # fmt: skip


@launchable
def _normalise_kernel(
    x, residual, y, sampled, signs, mean, spread, weight, bias, conv_bias, rows, channels, eps,
    LEARNED: tl.constexpr, HAS_CONV_BIAS: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr,
    GRID: tl.constexpr, SIGNS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = channel < channels
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None] & real[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    centre = tl.load(mean + channel, mask=real, other=0)
    deviation = tl.load(spread + channel, mask=real, other=1)
    if LEARNED:  # running statistics: a variance, and a mean with the bias in it
        deviation = 1.0 / tl.sqrt(deviation + eps)
        if HAS_CONV_BIAS:
            centre -= tl.load(conv_bias + channel, mask=real, other=0)
    scale = deviation * tl.load(weight + channel, mask=real, other=0)
    value = tl.load(x + place, mask=inside, other=0).to(tl.float32) - centre[None, :]
    value = value * scale[None, :] + tl.load(bias + channel, mask=real, other=0)[None, :]
    if RESIDUAL:
        value += tl.load(residual + place, mask=inside, other=0).to(tl.float32)
    if RELU:
        value = tl.where(value <= 0, 0.0, value)  # an undefined value stays undefined
    value = value.to(y.dtype.element_ty)
    tl.store(y + place, value, mask=inside)
    if GRID is not None:
        small, seen = _sampled_row(row, GRID)
        place = small.to(tl.int64)[:, None] * channels + channel[None, :]
        tl.store(sampled + place, value, mask=inside & seen[:, None])
    if SIGNS:
        LANES: tl.constexpr = min(CHANNELS, 32)
        lane = tl.where(value.to(tl.float32) <= 0, 0, 1).to(tl.int32).reshape(ROWS, CHANNELS // LANES, LANES)
        word = tl.sum(lane << tl.arange(0, LANES)[None, None, :], 2)
        index = tl.program_id(1) * (CHANNELS // LANES) + tl.arange(0, CHANNELS // LANES)
        place = index.to(tl.int64)[None, :] * rows + row[:, None]
        tl.store(signs + place, word, mask=(row < rows)[:, None] & (index < (channels + 31) // 32)[None, :])


@triton.jit
def _sampled_row(row, GRID: tl.constexpr):
    """Index of a pixel among those that a stride leaves, and whether it is one.

    GRID: height and width of an image, and the strides.
    """
    HEIGHT: tl.constexpr = GRID[0]
    WIDTH: tl.constexpr = GRID[1]
    DOWN: tl.constexpr = GRID[2]
    ALONG: tl.constexpr = GRID[3]
    image, tall, wide = row // (HEIGHT * WIDTH), row // WIDTH % HEIGHT, row % WIDTH
    small = image * ((HEIGHT + DOWN - 1) // DOWN) + tall // DOWN
    small = small * ((WIDTH + ALONG - 1) // ALONG) + wide // ALONG
    return small, (tall % DOWN == 0) & (wide % ALONG == 0)


@launchable
def _gradient_sums_kernel(
    dy, other_dy, x, y, signs, g, partial, counters, mean, rstd, weight, bias, dweight, dbias,
    rows, channels, rows_each,
    TWICE: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr, REWRITE: tl.constexpr,
    GRID: tl.constexpr, SIGNS: tl.constexpr,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, MERGED: tl.constexpr,
):  # fmt: skip
    part, parts = tl.program_id(0), tl.num_programs(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = channel < channels
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    centre = tl.load(mean + channel, mask=real, other=0)
    deviation = tl.load(rstd + channel, mask=real, other=0)
    scale = deviation * tl.load(weight + channel, mask=real, other=0)
    shift = tl.load(bias + channel, mask=real, other=0)
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    product = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in tl.range(first, last, ROWS, num_stages=3):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & real[None, :]
        place = row.to(tl.int64)[:, None] * channels + channel[None, :]
        gradient = tl.load(dy + place, mask=inside, other=0).to(tl.float32)
        if TWICE:
            if GRID is None:
                gradient += tl.load(other_dy + place, mask=inside, other=0).to(tl.float32)
            else:
                small, seen = _sampled_row(row, GRID)
                other = other_dy + small.to(tl.int64)[:, None] * channels + channel[None, :]
                gradient += tl.load(other, mask=inside & seen[:, None], other=0).to(tl.float32)
        centred = tl.load(x + place, mask=inside, other=0).to(tl.float32) - centre[None, :]
        if RELU:
            if SIGNS:
                word = signs + tl.program_id(1).to(tl.int64) * rows + row
                word = tl.load(word, mask=row < last, other=0)
                closed = ((word[:, None] >> tl.arange(0, CHANNELS)[None, :]) & 1) == 0
            elif RESIDUAL:
                closed = tl.load(y + place, mask=inside, other=0).to(tl.float32) <= 0
            else:  # cheaper to work out again than to read
                closed = centred * scale[None, :] + shift[None, :] <= 0
            gradient = tl.where(closed, 0.0, gradient)
        if REWRITE:
            rounded = gradient.to(g.dtype.element_ty)
            tl.store(g + place, rounded, mask=inside)
            gradient = rounded.to(tl.float32)  # what the second pass will read
        gradient = tl.where(inside, gradient, 0.0)
        total += gradient
        product += gradient * centred
    own = partial + part * channels + channel
    tl.store(own, tl.sum(total, 0), mask=real)
    tl.store(own + parts * channels, tl.sum(product, 0), mask=real)
    if _finished_last(counters + tl.program_id(1), parts):
        sibling = tl.arange(0, MERGED)
        written = (sibling < parts)[:, None] & real[None, :]
        sums = partial + sibling[:, None] * channels + channel[None, :]
        totals = tl.load(sums, mask=written, other=0, cache_modifier=".cg")
        products = tl.load(sums + parts * channels, mask=written, other=0, cache_modifier=".cg")
        tl.store(dbias + channel, tl.sum(totals, 0), mask=real)
        tl.store(dweight + channel, tl.sum(products, 0) * deviation, mask=real)


@triton.jit(do_not_specialize=["parts"])
def _merge_gradients_kernel(
    partial, parts, rstd, dweight, dbias, channels, CHANNELS: tl.constexpr, MERGED: tl.constexpr
):
    """The end of the first pass backward, of parts that another kernel has added up."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.arange(0, MERGED)
    inside = (part < parts)[:, None] & (channel < channels)[None, :]
    place = partial + part[:, None] * channels + channel[None, :]
    totals = tl.sum(tl.load(place, mask=inside, other=0), 0)
    products = tl.sum(tl.load(place + parts * channels, mask=inside, other=0), 0)
    tl.store(dbias + channel, totals, mask=channel < channels)
    deviation = tl.load(rstd + channel, mask=channel < channels, other=0)
    tl.store(dweight + channel, products * deviation, mask=channel < channels)


@launchable
def _gradient_kernel(
    g, x, dx, mean, rstd, weight, bias, dweight, dbias, rows, channels,
    RELU: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = channel < channels
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None] & real[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    deviation = tl.load(rstd + channel, mask=real, other=0)
    scale = deviation * tl.load(weight + channel, mask=real, other=0)
    centred = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    centred -= tl.load(mean + channel, mask=real, other=0)[None, :]
    gradient = tl.load(g + place, mask=inside, other=0).to(tl.float32)
    if RELU:  # of a gradient that was not rectified on the way
        out = centred * scale[None, :] + tl.load(bias + channel, mask=real, other=0)[None, :]
        gradient = tl.where(out <= 0, 0.0, gradient)
    from_mean = tl.load(dbias + channel, mask=real, other=0) / rows
    from_variance = tl.load(dweight + channel, mask=real, other=0) * deviation / rows
    value = (gradient - from_mean[None, :] - centred * from_variance[None, :]) * scale[None, :]
    tl.store(dx + place, value.to(dx.dtype.element_ty), mask=inside)


def _reduction(rows: int, channels: int) -> tuple[tuple[int, int], int, int]:
    """Grid, rows of a program and channels of a program for a sum over all rows."""
    width = min(_REDUCED_CHANNELS, next_power_of_2(channels))
    across = triton.cdiv(channels, width)
    programs = max(1, min(triton.cdiv(rows, _REDUCED_ROWS), _REDUCING_PROGRAMS // across))
    rows_each = triton.cdiv(triton.cdiv(rows, programs), _REDUCED_ROWS) * _REDUCED_ROWS
    return (triton.cdiv(rows, rows_each), across), rows_each, width


def _elementwise(rows: int, channels: int) -> tuple[tuple[int, int], int, int]:
    """Grid, rows and channels of a program that treats each element by itself."""
    width = min(next_power_of_2(channels), 1024)
    tall = max(1, _ELEMENTS // width)
    return (triton.cdiv(rows, tall), triton.cdiv(channels, width)), tall, width


class FusedNorm(nn.Module):
    """A batch norm with what follows it: an addition, ReLU, or both.

    norm: the batch norm, whose parameters and buffers are used and updated.
    relu: whether ReLU follows.
    conv_bias: the bias of the convolution before, if it was left out there; it shifts the running mean only,
        and its gradient is exactly zero.
    twice: return the result twice, because two nodes use it: their gradients are then added as they are read.
    stride: down and along, of the pixels that the second result has, for a node that uses no others: its
        gradient is then read only where there is one. None for all pixels.
    signs: write down one bit for each number of the result of an addition and ReLU, so that the backward pass
        does not read the result again.
    passed: float32 ``(C,)``, by how many images the running statistics were measured so far, to make them the
        mean over these instead of a moving average; shared by all calls of the norm. None for the latter.
    statistics, gradient_sums: of the input and of the gradient of the result, left by the convolutions before
        and after, which have added them up already; that gradient is masked already, too. normed: what is
        left for the convolution after. None beside layers that do not (:mod:`.pairing`).

    ``num_batches_tracked`` is left to the caller, who can count all batch norms at once.
    """

    passed: Tensor | None = None
    statistics: Note[Parts] | None = None
    normed: Note[Normed] | None = None
    gradient_sums: Note[Parts] | None = None

    def __init__(
        self,
        norm: nn.BatchNorm2d,
        *,
        relu: bool,
        conv_bias: Tensor | None,
        twice: bool,
        stride: tuple[int, int] | None = None,
        signs: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.relu = relu
        self.conv_bias = conv_bias
        self.twice = twice
        self.stride = stride
        self.signs = signs and relu
        # One for every 32 channels, forward and backward; the kernels leave them at zero.
        device = norm.weight.device
        self._counters = torch.zeros(2, triton.cdiv(norm.num_features, 16), dtype=torch.int32, device=device)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """``(N, C, H, W)`` in, the same out; ``residual``, of the same shape, is added before ReLU."""
        if residual is not None and residual.shape != x.shape:
            raise ValueError(f"what is added has shape {tuple(residual.shape)}, not {tuple(x.shape)}")
        parts = None if self.statistics is None else self.statistics.take(x)
        if self.training:
            out = _FusedNorm.apply(x, residual, self.norm.weight, self.norm.bias, self, parts)
            return out if self.twice else out[0]
        norm = self.norm
        y = _normalise(self, x, residual, norm.running_mean, norm.running_var)
        if self.stride is None:
            return (y, y) if self.twice else y
        down, along = self.stride
        return y, y[:, :, ::down, ::along]


def _normalise(
    op: FusedNorm,
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor | None,
    spread: Tensor | None,
    *,
    sampled: Tensor | None = None,
    signs: Tensor | None = None,
) -> Tensor:
    """The second pass forward: by a batch's own statistics in training mode, else by the running ones.

    sampled, signs: written too unless None.
    """
    norm, x = op.norm, x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    rows, channels = x.numel() // x.shape[1], x.shape[1]
    grid, tall, wide = _elementwise(rows, channels)
    _normalise_kernel[grid](
        x, residual, y, sampled, signs, mean, spread, norm.weight, norm.bias, op.conv_bias, rows, channels,
        norm.eps, LEARNED=not op.training, HAS_CONV_BIAS=op.conv_bias is not None,
        RESIDUAL=residual is not None, RELU=op.relu, GRID=None if sampled is None else _grid(op, x),
        SIGNS=signs is not None, CHANNELS=wide, ROWS=tall, num_warps=8,
    )  # fmt: skip
    return y


def _grid(op: FusedNorm, x: Tensor) -> tuple[int, int, int, int] | None:
    """Height and width of the images and the strides of what is sampled of them; None for all pixels."""
    return None if op.stride is None else (x.shape[2], x.shape[3], *op.stride)


def _statistics(op: FusedNorm, x: Tensor, parts: Parts | None) -> tuple[Tensor, Tensor]:
    """The first pass forward: mean and reciprocal deviation of a batch; updates the running statistics.

    parts: with their sums, only these are merged.
    """
    norm, rows, channels = op.norm, x.numel() // x.shape[1], x.shape[1]
    mean, rstd = torch.empty(2, channels, device=x.device, dtype=torch.float32)
    results = mean, rstd, norm.running_mean, norm.running_var, op.conv_bias, op.passed
    numbers = norm.momentum, norm.eps, float(len(x))
    options = {"HAS_CONV_BIAS": op.conv_bias is not None, "AVERAGED": op.passed is not None}
    if parts is None:
        grid, rows_each, wide = _reduction(rows, channels)
        partial = torch.empty(2, grid[0], channels, device=x.device, dtype=torch.float32)
        _statistics_kernel[grid](
            x, partial, op._counters[0], *results, rows, channels, rows_each, *numbers, **options,
            CHANNELS=wide, ROWS=_REDUCED_ROWS, MERGED=next_power_of_2(grid[0]), num_warps=_REDUCING_WARPS,
        )  # fmt: skip
    else:
        count = parts.values.shape[1]
        _merge_statistics_kernel[(triton.cdiv(channels, _MERGED_CHANNELS),)](
            parts.values, count, *results, rows, channels, parts.rows_each, *numbers, **options,
            CHANNELS=_MERGED_CHANNELS, MERGED=next_power_of_2(count), num_warps=4,
        )  # fmt: skip
    return mean, rstd


def _merged_gradients(parts: Parts, rstd: Tensor, dweight: Tensor, dbias: Tensor) -> None:
    """Write the gradients of scale and shift, from the sums of parts."""
    _, count, channels = parts.values.shape
    _merge_gradients_kernel[(triton.cdiv(channels, _MERGED_CHANNELS),)](
        parts.values, count, rstd, dweight, dbias, channels,
        CHANNELS=_MERGED_CHANNELS, MERGED=next_power_of_2(count), num_warps=4,
    )  # fmt: skip


class _FusedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        op: FusedNorm,
        parts: Parts | None,
    ) -> Any:
        x = x.contiguous(memory_format=torch.channels_last)
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        mean, rstd = _statistics(op, x, parts)
        ctx.op, ctx.added = op, residual is not None
        signs = sampled = None
        if ctx.added and op.signs:
            words = triton.cdiv(channels, _REDUCED_CHANNELS)
            signs = torch.empty(words, rows, device=x.device, dtype=torch.int32)
        if op.stride is not None:
            height, width = (triton.cdiv(x.shape[2 + axis], step) for axis, step in enumerate(op.stride))
            sampled = x.new_empty(len(x), height, width, channels).permute(0, 3, 1, 2)
        y = _normalise(op, x, residual, mean, rstd, sampled=sampled, signs=signs)
        read = ctx.added and op.relu and signs is None
        ctx.save_for_backward(x, y if read else None, signs, mean, rstd, weight, bias)
        ctx.set_materialize_grads(False)
        if op.normed is not None:
            op.normed.leave(y, Normed(x.detach(), mean, rstd, weight.detach(), bias.detach()))
        if sampled is not None:
            return y, sampled
        return y, y.detach() if op.twice else None

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        x, y, signs, mean, rstd, weight, bias = ctx.saved_tensors
        op = ctx.op
        parts = None if op.gradient_sums is None else op.gradient_sums.take(gradients[0])
        if op.stride is not None and gradients[0] is None:
            gradients = torch.zeros_like(x), gradients[1]
        received = [dy.contiguous(memory_format=torch.channels_last) for dy in gradients if dy is not None]
        dy, other = received[0], received[-1]
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        rewritten = len(received) == 2 or (ctx.added and op.relu)
        g = torch.empty_like(dy) if rewritten else dy
        dweight, dbias = torch.empty(2, channels, device=x.device, dtype=torch.float32)
        if parts is None:
            grid, rows_each, wide = _reduction(rows, channels)
            partial = torch.empty(2, grid[0], channels, device=x.device, dtype=torch.float32)
            _gradient_sums_kernel[grid](
                dy, other, x, y, signs, g, partial, op._counters[1], mean, rstd, weight, bias, dweight, dbias,
                rows, channels, rows_each,
                TWICE=len(received) == 2, RESIDUAL=ctx.added, RELU=op.relu, REWRITE=rewritten,
                GRID=_grid(op, x), SIGNS=signs is not None, CHANNELS=wide, ROWS=_REDUCED_ROWS,
                MERGED=next_power_of_2(grid[0]), num_warps=_REDUCING_WARPS,
            )  # fmt: skip
        else:
            _merged_gradients(parts, rstd, dweight, dbias)
        dx = torch.empty_like(x)
        grid, tall, wide = _elementwise(rows, channels)
        masked = rewritten or parts is not None
        _gradient_kernel[grid](
            g, x, dx, mean, rstd, weight, bias, dweight, dbias, rows, channels,
            RELU=op.relu and not masked, CHANNELS=wide, ROWS=tall, num_warps=8,
        )  # fmt: skip
        return dx, g if ctx.added else None, dweight, dbias, None, None
