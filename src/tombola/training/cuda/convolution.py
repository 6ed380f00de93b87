"""3x3 convolutions of few channels on a GPU: the weight gradient, and the first convolution of a network.

With 16 to 64 channels a convolution reads and writes more than it multiplies, and cuDNN's kernels take
several times as long as their bytes. A weight gradient is a matrix product over all pixels, here in bfloat16
with float32 sums: every program adds up its own rows of pixels, and a second kernel adds up the programs in a
fixed order, so that the bits are the same every time. :mod:`.rewrite` puts these convolutions into a network.

All images are channels_last; ``rows`` are the pixels of all output images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton import next_power_of_2

from tombola.training.cuda.kernels import autocast, launchable


class Tiles(NamedTuple):
    """How a product over pixels is cut up. Constants, not choices by timing: bits rest on ``programs``.

    rows: pixels that a program takes at a time.
    out: output channels of a program.
    programs: about how many programs there are.
    warps, stages: threads by 32, and loads under way at once.
    """

    rows: int
    out: int
    programs: int
    warps: int
    stages: int


# By the larger number of channels.
WEIGHT_TILES = {
    16: Tiles(rows=64, out=16, programs=1056, warps=1, stages=2),
    32: Tiles(rows=64, out=32, programs=396, warps=2, stages=3),
    64: Tiles(rows=64, out=64, programs=132, warps=4, stages=3),
}
FIRST_FORWARD_TILES = Tiles(rows=128, out=0, programs=0, warps=4, stages=1)
FIRST_WEIGHT_TILES = Tiles(rows=128, out=0, programs=528, warps=4, stages=2)
_ADDED_ELEMENTS = 4096

FEW_CHANNELS = (16, 32, 64)
# Pixels from which cuDNN's weight gradient of 64 channels is as fast.
_MANY_ROWS = 2**16


@launchable
def _weight_gradient_kernel(
    dy, x, partial, rows, rows_each,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, STRIDE: tl.constexpr,
    CHANNELS_OUT: tl.constexpr, CHANNELS: tl.constexpr, OUT: tl.constexpr, ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """One row of the kernel, three products: ``dy`` by the pixels left of, at and right of its own."""
    part, kernel_row = tl.program_id(0), tl.program_id(1)
    out = tl.program_id(2) * OUT + tl.arange(0, OUT)
    channel = tl.arange(0, CHANNELS)
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    left = tl.zeros((OUT, CHANNELS), tl.float32)
    middle = tl.zeros((OUT, CHANNELS), tl.float32)
    right = tl.zeros((OUT, CHANNELS), tl.float32)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)
        real = row < last
        gradient = tl.load(
            dy + row.to(tl.int64)[:, None] * CHANNELS_OUT + out[None, :], mask=real[:, None], other=0
        )
        gradient = tl.trans(gradient)
        tall = (row // WIDTH) % HEIGHT * STRIDE + kernel_row - 1
        wide = row % WIDTH * STRIDE
        real = real & (tall >= 0) & (tall < TALL)
        pixel = ((row // (HEIGHT * WIDTH)).to(tl.int64) * TALL + tall) * WIDE + wide
        seen = x + pixel[:, None] * CHANNELS + channel[None, :]
        values = tl.load(seen - CHANNELS, mask=(real & (wide > 0))[:, None], other=0)
        left = tl.dot(gradient, values, left, input_precision="ieee")
        values = tl.load(seen, mask=real[:, None], other=0)
        middle = tl.dot(gradient, values, middle, input_precision="ieee")
        values = tl.load(seen + CHANNELS, mask=(real & (wide + 1 < WIDE))[:, None], other=0)
        right = tl.dot(gradient, values, right, input_precision="ieee")
    own = partial + ((part * CHANNELS_OUT + out) * 9 + 3 * kernel_row)[:, None] * CHANNELS + channel[None, :]
    tl.store(own, left)
    tl.store(own + CHANNELS, middle)
    tl.store(own + 2 * CHANNELS, right)


@triton.jit
def _patches(x, row, real, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr):
    """The 3x3 pixels around each, ``(rows, columns)`` in the order of a weight's memory, filled up with 0."""
    tap = column // CHANNELS
    down, along = tap // 3 - 1, tap % 3 - 1
    tall = ((row // WIDTH) % HEIGHT)[:, None] + down[None, :]
    wide = (row % WIDTH)[:, None] + along[None, :]
    inside = (tall >= 0) & (tall < HEIGHT) & (wide >= 0) & (wide < WIDTH)
    inside = inside & real[:, None] & (column < 9 * CHANNELS)[None, :]
    offset = (down * WIDTH + along) * CHANNELS + column % CHANNELS
    return tl.load(x + row.to(tl.int64)[:, None] * CHANNELS + offset[None, :], mask=inside, other=0)


@launchable
def _first_kernel(
    x, weight, y, rows,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
    OUT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, out = tl.arange(0, COLUMNS), tl.arange(0, OUT)
    real = row < rows
    patches = _patches(x, row, real, column, HEIGHT, WIDTH, CHANNELS)
    taps = weight + out[None, :] * (9 * CHANNELS) + column[:, None]
    taps = tl.load(taps, mask=(column < 9 * CHANNELS)[:, None], other=0)
    value = tl.dot(patches, taps, input_precision="ieee")
    place = row.to(tl.int64)[:, None] * OUT + out[None, :]
    tl.store(y + place, value.to(y.dtype.element_ty), mask=real[:, None])


@launchable
def _first_weight_gradient_kernel(
    dy, x, partial, rows, rows_each,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
    OUT: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    column, out = tl.arange(0, COLUMNS), tl.arange(0, OUT)
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    total = tl.zeros((OUT, COLUMNS), tl.float32)
    for start in tl.range(first, last, ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)
        real = row < last
        place = row.to(tl.int64)[:, None] * OUT + out[None, :]
        gradient = tl.load(dy + place, mask=real[:, None], other=0)
        patches = _patches(x, row, real, column, HEIGHT, WIDTH, CHANNELS)
        total = tl.dot(tl.trans(gradient), patches, total, input_precision="ieee")
    own = partial + (part * OUT + out)[:, None] * (9 * CHANNELS) + column[None, :]
    tl.store(own, total, mask=(column < 9 * CHANNELS)[None, :])


@launchable
def _add_parts_kernel(partial, total, parts, count, PARTS: tl.constexpr, ELEMENTS: tl.constexpr):
    place = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    part = tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & (place < count)[None, :]
    value = tl.load(partial + part[:, None] * count + place[None, :], mask=inside, other=0)
    tl.store(total + place, tl.sum(value, 0).to(total.dtype.element_ty), mask=place < count)


def _added(partial: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """The sum of the parts, in the shape and dtype of a weight and channels_last, in ``total`` if given."""
    if total is None:
        total = torch.empty_like(weight, memory_format=torch.channels_last)
    parts, count = len(partial), weight.numel()
    tall = next_power_of_2(parts)
    # No more elements than leave programs enough to fill a GPU.
    elements = max(16, min(128, _ADDED_ELEMENTS // tall))
    _add_parts_kernel[(triton.cdiv(count, elements),)](
        partial, total, parts, count, PARTS=tall, ELEMENTS=elements, num_warps=4
    )
    return total


def _parts(rows: int, rows_at_once: int, programs: int) -> tuple[int, int]:
    """In how many parts to take the rows, and rows of a part."""
    parts = max(1, min(triton.cdiv(rows, rows_at_once), programs))
    rows_each = triton.cdiv(triton.cdiv(rows, parts), rows_at_once) * rows_at_once
    return triton.cdiv(rows, rows_each), rows_each


def is_of_few_channels(convolution: nn.Conv2d) -> bool:
    """Whether :class:`FewChannels` can compute a convolution."""
    channels = {convolution.in_channels, convolution.out_channels}
    return channels <= set(FEW_CHANNELS) and _is_padded_3x3(convolution, 2)


def is_of_images(convolution: nn.Conv2d) -> bool:
    """Whether :class:`FirstConvolution` can compute a convolution, if its input is the images."""
    fits = convolution.in_channels <= 3 and convolution.out_channels in (16, 32, 64, 128)
    return fits and _is_padded_3x3(convolution, 1)


def _is_padded_3x3(convolution: nn.Conv2d, largest_stride: int) -> bool:
    """Whether a convolution is of 3x3 pixels, with zeros around the image and nothing else unusual."""
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride in [(stride, stride) for stride in range(1, largest_stride + 1)]
        and convolution.padding == (1, 1)
        and convolution.padding_mode == "zeros"
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )


def has_own_weight_gradient(weight: Sequence[int], output: Sequence[int]) -> bool:
    """Whether a convolution of few channels takes :func:`weight_gradient`: by the shapes of both."""
    count, _, height, width = output
    return max(weight[:2]) < max(FEW_CHANNELS) or count * height * width < _MANY_ROWS


def weight_gradient(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    tiles: Tiles | None = None,
    *,
    total: Tensor | None = None,
) -> Tensor:
    """The gradient of the weight of a 3x3 convolution with padding 1.

    dy: ``(B, O, H, W)``; x: ``(B, C, stride * H, stride * W)`` or one pixel less; weight: ``(O, C, 3, 3)``.
    O and C are 16, 32 or 64. total: where to write it, of the weight's shape and channels_last.
    """
    dy, x = (images.contiguous(memory_format=torch.channels_last) for images in (dy, x))
    count, out, height, width = dy.shape
    channels, tall, wide = x.shape[1:]
    tiles = tiles or WEIGHT_TILES[max(out, channels)]
    own = min(out, tiles.out)
    across = 3 * out // own
    parts, rows_each = _parts(count * height * width, tiles.rows, tiles.programs // across)
    partial = torch.empty(parts, weight.numel(), device=x.device, dtype=torch.float32)
    _weight_gradient_kernel[(parts, 3, out // own)](
        dy, x, partial, count * height * width, rows_each,
        HEIGHT=height, WIDTH=width, TALL=tall, WIDE=wide, STRIDE=stride, CHANNELS_OUT=out, CHANNELS=channels,
        OUT=own, ROWS=tiles.rows, STAGES=tiles.stages, num_warps=tiles.warps,
    )  # fmt: skip
    return _added(partial, weight, total)


def first_forward(x: Tensor, weight: Tensor, tiles: Tiles = FIRST_FORWARD_TILES) -> Tensor:
    """A 3x3 convolution with stride 1 and padding 1 of at most three channels.

    x: ``(B, C, H, W)``; weight: ``(O, C, 3, 3)``, O being 16, 32, 64 or 128. Returns ``(B, O, H, W)``.
    """
    x, weight = (images.contiguous(memory_format=torch.channels_last) for images in (x, weight))
    count, channels, height, width = x.shape
    rows, out = count * height * width, len(weight)
    y = torch.empty(count, height, width, out, device=x.device, dtype=x.dtype)
    _first_kernel[(triton.cdiv(rows, tiles.rows),)](
        x, weight, y, rows, HEIGHT=height, WIDTH=width, CHANNELS=channels,
        COLUMNS=next_power_of_2(9 * channels), OUT=out, ROWS=tiles.rows, num_warps=tiles.warps,
    )  # fmt: skip
    return y.permute(0, 3, 1, 2)


def first_weight_gradient(dy: Tensor, x: Tensor, weight: Tensor, tiles: Tiles = FIRST_WEIGHT_TILES) -> Tensor:
    """The gradient of the weight of :func:`first_forward`."""
    dy, x = (images.contiguous(memory_format=torch.channels_last) for images in (dy, x))
    count, channels, height, width = x.shape
    rows, out = count * height * width, len(weight)
    parts, rows_each = _parts(rows, tiles.rows, tiles.programs)
    partial = torch.empty(parts, weight.numel(), device=x.device, dtype=torch.float32)
    _first_weight_gradient_kernel[(parts,)](
        dy, x, partial, rows, rows_each, HEIGHT=height, WIDTH=width, CHANNELS=channels,
        COLUMNS=next_power_of_2(9 * channels), OUT=out, ROWS=tiles.rows, STAGES=tiles.stages,
        num_warps=tiles.warps,
    )  # fmt: skip
    return _added(partial, weight)


class FewChannels(nn.Module):
    """A 3x3 convolution without bias of 16, 32 or 64 channels; in bfloat16 with its own weight gradient.

    Where cuDNN's is as fast it is cuDNN's (:func:`has_own_weight_gradient`).
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return _applied(_FewChannels, self.convolution, x)


class FirstConvolution(nn.Module):
    """A 3x3 convolution of the images, without bias; in bfloat16 by products of patches."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return _applied(_FirstConvolution, self.convolution, x)


def _applied(function: Any, convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution by a function of its own in bfloat16, else as PyTorch has it."""
    x, weight = autocast(x, convolution.weight)
    own = x.dtype == weight.dtype == torch.bfloat16
    out: Tensor = (
        function.apply(x, weight, convolution.stride[0])
        if own
        else convolution._conv_forward(x, weight, None)
    )
    return out


def _input_gradient(dy: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """cuDNN's gradient by the input of a 3x3 convolution with padding 1."""
    dx: Tensor = _cudnn_backward(dy, x, weight, stride, (True, False, False))[0]
    return dx


def _cudnn_backward(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: tuple[bool, bool, bool]
) -> Any:
    strides = (stride, stride)
    return torch.ops.aten.convolution_backward(
        dy, x, weight, None, strides, (1, 1), (1, 1), False, (0, 0), 1, wanted
    )


class _FewChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return torch.conv2d(x, weight, None, stride, 1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = _input_gradient(dy, x, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None, None
        if has_own_weight_gradient(weight.shape, dy.shape):
            return dx, weight_gradient(dy, x, weight, ctx.stride), None
        dweight: Tensor = _cudnn_backward(dy, x, weight, ctx.stride, (False, True, False))[1]
        return dx, dweight, None


class _FirstConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        return first_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = _input_gradient(dy, x, weight, 1) if ctx.needs_input_grad[0] else None
        return dx, first_weight_gradient(dy, x, weight) if ctx.needs_input_grad[1] else None, None
