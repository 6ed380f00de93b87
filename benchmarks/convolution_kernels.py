"""Triton kernels of 3x3 convolutions that ``fused_convolutions.py`` times beside cuDNN's plans and our own.

Stride 1, padding 1, as many channels out as in, bfloat16 in channels_last, sums float32. Each is the product
of pixels by weights, taken tap by tap, and each also computes the gradient of the input (``GRADIENT``). With
``SUMS`` their epilogue adds up, per channel and in a fixed order, what batch norm needs: the mean and the sum
of squares around it of what was written, or, of a gradient, after ReLU's mask, its sum and its product with
the centred input of the norm. A program takes ``rows_each`` pixels in a row and writes its sums as one part.

``plain_kernel`` gathers pixels by pointers. ``tma_kernel`` has blocks of images loaded by TMA, which fills
what lies around an image with zeros; Triton takes them through registers. What the package has of them is
:mod:`tombola.training.cuda.lines`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _write_tile(
    acc, y, seen, mean, rstd, gamma, beta, row, rows, out, total, second,
    CHANNELS: tl.constexpr, GRADIENT: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Write a tile ``(pixels, channels)``; returns the two sums with its own added."""
    inside = (row < rows)[:, None] & (out >= 0)[None, :]
    place = row.to(tl.int64)[:, None] * CHANNELS + out[None, :]
    if GRADIENT and SUMS:
        centred = tl.load(seen + place, mask=inside, other=0).to(tl.float32) - tl.load(mean + out)[None, :]
        scale = tl.load(rstd + out) * tl.load(gamma + out)
        closed = centred * scale[None, :] + tl.load(beta + out)[None, :] <= 0
        acc = tl.where(closed, 0.0, acc)
    rounded = acc.to(y.dtype.element_ty)
    tl.store(y + place, rounded, mask=inside)
    if SUMS:  # what lies beyond the last pixel is zero
        value = rounded.to(tl.float32)
        total += tl.sum(value, 0)
        if GRADIENT:
            second += tl.sum(value * centred, 0)
        else:
            second += tl.sum(value * value, 0)
    return total, second


@triton.jit
def _write_part(
    partial, part, parts, out, total, second, count, CHANNELS: tl.constexpr, GRADIENT: tl.constexpr
):
    if not GRADIENT:
        mean = total / count
        second = tl.maximum(second - total * mean, 0.0)
        total = mean
    tl.store(partial + part * CHANNELS + out, total)
    tl.store(partial + (parts + part) * CHANNELS + out, second)


@triton.jit(do_not_specialize=["parts"])
def plain_kernel(
    x, weight, y, seen, mean, rstd, gamma, beta, partial, rows, rows_each, parts,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr,
    DEPTH: tl.constexpr, STAGES: tl.constexpr, GRADIENT: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    out = tl.program_id(1) * OUT + tl.arange(0, OUT)
    depth = tl.arange(0, DEPTH)
    CHUNKS: tl.constexpr = CHANNELS // DEPTH
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    total = tl.zeros((OUT,), tl.float32)
    second = tl.zeros((OUT,), tl.float32)
    for start in tl.range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        tall = row // WIDTH % HEIGHT
        wide = row % WIDTH
        acc = tl.zeros((ROWS, OUT), tl.float32)
        for step in tl.range(0, 9 * CHUNKS, num_stages=STAGES):
            tap = step // CHUNKS
            channel = step % CHUNKS * DEPTH + depth
            down = tap // 3 - 1
            along = tap % 3 - 1
            inside = (
                (tall + down >= 0) & (tall + down < HEIGHT) & (wide + along >= 0) & (wide + along < WIDTH)
            )
            inside = inside & (row < rows)
            pixel = row + down * WIDTH + along
            pixels = tl.load(x + pixel[:, None] * CHANNELS + channel[None, :], mask=inside[:, None], other=0)
            if GRADIENT:
                taps = weight + channel[:, None] * (9 * CHANNELS) + (8 - tap) * CHANNELS + out[None, :]
            else:
                taps = weight + out[None, :] * (9 * CHANNELS) + tap * CHANNELS + channel[:, None]
            acc = tl.dot(pixels, tl.load(taps), acc)
        total, second = _write_tile(
            acc, y, seen, mean, rstd, gamma, beta, row, rows, out, total, second, CHANNELS, GRADIENT, SUMS
        )
    if SUMS:
        count = (last - first).to(tl.float32)
        _write_part(partial, part, parts, out, total, second, count, CHANNELS, GRADIENT)


@triton.jit(do_not_specialize=["parts"])
def tma_kernel(
    x, weight, y, seen, mean, rstd, gamma, beta, partial, rows, rows_each, parts,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
    IMAGES: tl.constexpr, TALL: tl.constexpr, OUT: tl.constexpr, DEPTH: tl.constexpr,
    STAGES: tl.constexpr, GRADIENT: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """x, weight: descriptors of blocks ``(IMAGES, TALL, WIDTH, DEPTH)`` and ``(OUT, DEPTH)`` or reverse."""
    part = tl.program_id(0)
    first_out = tl.program_id(1) * OUT
    out = first_out + tl.arange(0, OUT)
    ROWS: tl.constexpr = IMAGES * TALL * WIDTH
    CHUNKS: tl.constexpr = CHANNELS // DEPTH
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    total = tl.zeros((OUT,), tl.float32)
    second = tl.zeros((OUT,), tl.float32)
    for start in tl.range(first, last, ROWS):
        image = start // (HEIGHT * WIDTH)
        top = start % (HEIGHT * WIDTH) // WIDTH
        acc = tl.zeros((ROWS, OUT), tl.float32)
        for step in tl.range(0, 9 * CHUNKS, num_stages=STAGES):
            tap = step // CHUNKS
            channel = step % CHUNKS * DEPTH
            pixels = x.load([image, top + tap // 3 - 1, tap % 3 - 1, channel]).reshape(ROWS, DEPTH)
            if GRADIENT:
                taps = weight.load([channel, (8 - tap) * CHANNELS + first_out])
            else:
                taps = weight.load([first_out, tap * CHANNELS + channel]).T
            acc = tl.dot(pixels, taps, acc)
        row = start + tl.arange(0, ROWS)
        total, second = _write_tile(
            acc, y, seen, mean, rstd, gamma, beta, row, rows, out, total, second, CHANNELS, GRADIENT, SUMS
        )
    if SUMS:
        count = (last - first).to(tl.float32)
        _write_part(partial, part, parts, out, total, second, count, CHANNELS, GRADIENT)


@triton.jit(do_not_specialize=["parts"])
def few_channels_kernel(
    x, inner, weight, y, seen, centre_before, rstd_before, gamma_before, beta_before, dweight, dbias,
    mean, rstd, gamma, beta, partial, rows, rows_each, parts,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
    STAGES: tl.constexpr, GRADIENT: tl.constexpr,
):  # fmt: skip
    """All channels at once, and the batch norm before the convolution taken along in its prologue.

    Forward, x is normalised and rectified as it is read. Backward, x is the gradient of a norm's output,
    which becomes that of its input, ``inner``.
    """
    part = tl.program_id(0)
    channel = tl.arange(0, CHANNELS)
    centre = tl.load(centre_before + channel)
    deviation = tl.load(rstd_before + channel)
    scale = deviation * tl.load(gamma_before + channel)
    if GRADIENT:
        from_mean = tl.load(dbias + channel) / rows
        from_variance = tl.load(dweight + channel) * deviation / rows
    else:
        shift = tl.load(beta_before + channel)
    first = part * rows_each
    last = tl.minimum(first + rows_each, rows)
    total = tl.zeros((CHANNELS,), tl.float32)
    second = tl.zeros((CHANNELS,), tl.float32)
    for start in tl.range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        tall = row // WIDTH % HEIGHT
        wide = row % WIDTH
        acc = tl.zeros((ROWS, CHANNELS), tl.float32)
        for tap in tl.range(0, 9, num_stages=STAGES):
            down = tap // 3 - 1
            along = tap % 3 - 1
            inside = (
                (tall + down >= 0) & (tall + down < HEIGHT) & (wide + along >= 0) & (wide + along < WIDTH)
            )
            inside = (inside & (row < rows))[:, None]
            place = (row + down * WIDTH + along)[:, None] * CHANNELS + channel[None, :]
            value = tl.load(x + place, mask=inside, other=0).to(tl.float32)
            if GRADIENT:
                centred = tl.load(inner + place, mask=inside, other=0).to(tl.float32) - centre[None, :]
                value = (value - from_mean[None, :] - centred * from_variance[None, :]) * scale[None, :]
                taps = weight + channel[:, None] * (9 * CHANNELS) + (8 - tap) * CHANNELS + channel[None, :]
            else:
                value = (value - centre[None, :]) * scale[None, :] + shift[None, :]
                value = tl.where(value <= 0, 0.0, value)
                taps = weight + channel[None, :] * (9 * CHANNELS) + tap * CHANNELS + channel[:, None]
            value = tl.where(inside, value, 0.0).to(x.dtype.element_ty)
            acc = tl.dot(value, tl.load(taps), acc)
        total, second = _write_tile(
            acc, y, seen, mean, rstd, gamma, beta, row, rows, channel, total, second, CHANNELS, GRADIENT, True
        )
    count = (last - first).to(tl.float32)
    _write_part(partial, part, parts, channel, total, second, count, CHANNELS, GRADIENT)
