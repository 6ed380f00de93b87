"""Triton and Gluon kernels of 3x3 convolutions that ``fused_convolutions.py`` times beside cuDNN's plans.

Stride 1, padding 1, as many channels out as in, bfloat16 in channels_last, sums float32. Each is the product
of pixels by weights, taken tap by tap, and each also computes the gradient of the input (``GRADIENT``). With
``SUMS`` their epilogue adds up, per channel and in a fixed order, what batch norm needs: the mean and the sum
of squares around it of what was written, or, of a gradient, after ReLU's mask, its sum and its product with
the centred input of the norm. A program takes ``rows_each`` pixels in a row and writes its sums as one part.

``plain_kernel`` gathers pixels by pointers. ``tma_kernel`` has blocks of images loaded by TMA, which fills
what lies around an image with zeros; Triton takes them through registers. ``lines_kernel`` is Gluon: one warp
loads, two groups of four multiply by wgmma from shared memory, the weights from the left, so that a sum over
pixels stays within four threads. With ``HALO`` it loads the lines of an image once for three taps above one
another.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from tombola.training.cuda.norm import _merge_statistics


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


@gluon.jit
def _load_taps(
    weight, channel, tap, out, barrier, tile, CHANNELS: gl.constexpr, GRADIENT: gl.constexpr
):  # fmt: skip
    mbarrier.expect(barrier, weight.block_type.nbytes)
    if GRADIENT:
        tma.async_copy_global_to_shared(weight, [channel, (8 - tap) * CHANNELS + out], barrier, tile)
    else:
        tma.async_copy_global_to_shared(weight, [out, tap * CHANNELS + channel], barrier, tile)


@gluon.jit
def _load(
    x, edge, weight, lines, weight_tiles, pixels_full, pixels_empty, weights_full, weights_empty,
    rows, rows_each,
    HEIGHT: gl.constexpr, WIDTH: gl.constexpr, CHANNELS: gl.constexpr,
    IMAGES: gl.constexpr, TALL: gl.constexpr, OUT: gl.constexpr, PIXEL_STAGES: gl.constexpr,
    WEIGHT_STAGES: gl.constexpr, HALO: gl.constexpr, RESIDENT: gl.constexpr,
    APART: gl.constexpr, GRADIENT: gl.constexpr,
):  # fmt: skip
    """The loading warp: fills the two rings of tiles in the order in which they are used."""
    ROWS: gl.constexpr = IMAGES * TALL * WIDTH
    LINES: gl.constexpr = TALL + 2 if HALO else IMAGES * TALL
    PARTS: gl.constexpr = 2 if APART else 1
    out = gl.program_id(1) * OUT
    part = gl.program_id(0) * PARTS
    pixel_count = 0
    weight_count = 0
    if RESIDENT:
        for tap in gl.static_range(9):
            _load_taps(
                weight, 0, tap, out, weights_full.index(tap), weight_tiles.index(tap), CHANNELS, GRADIENT
            )
    for offset in range(0, rows_each, ROWS):
        for apart in gl.static_range(PARTS):
            start = (part + apart) * rows_each + offset
            if start < rows:
                image = start // (HEIGHT * WIDTH)
                top = start % (HEIGHT * WIDTH) // WIDTH
                for group in range(0, 3 * (CHANNELS // 64)):
                    channel = group // 3 * 64
                    along = group % 3
                    for down in gl.static_range(3):
                        if down == 0 or not HALO:
                            place = pixel_count % PIXEL_STAGES
                            barrier = pixels_full.index(place)
                            mbarrier.wait(pixels_empty.index(place), pixel_count // PIXEL_STAGES & 1 ^ 1)
                            tile = lines.index(place * LINES)._reinterpret(
                                x.dtype, x.block_type.shape, x.layout
                            )
                            line = top + down - 1
                            if HALO:
                                rest = lines.index(place * LINES + TALL)
                                rest = rest._reinterpret(x.dtype, edge.block_type.shape, edge.layout)
                                mbarrier.expect(barrier, x.block_type.nbytes + edge.block_type.nbytes)
                                tma.async_copy_global_to_shared(
                                    edge, [image, line + TALL, along - 1, channel], barrier, rest
                                )
                            else:
                                mbarrier.expect(barrier, x.block_type.nbytes)
                            tma.async_copy_global_to_shared(
                                x, [image, line, along - 1, channel], barrier, tile
                            )
                            pixel_count += 1
                        if not RESIDENT:
                            place = weight_count % WEIGHT_STAGES
                            mbarrier.wait(weights_empty.index(place), weight_count // WEIGHT_STAGES & 1 ^ 1)
                            _load_taps(
                                weight, channel, down * 3 + along, out, weights_full.index(place),
                                weight_tiles.index(place), CHANNELS, GRADIENT,
                            )  # fmt: skip
                            weight_count += 1


@gluon.jit
def _multiply(
    y, seen, mean, rstd, gamma, beta, partial, lines, weight_tiles, out_tiles, pixels_full, pixels_empty,
    weights_full, weights_empty, seen_full, turns, rows, rows_each, parts, consumer: gl.constexpr,
    HEIGHT: gl.constexpr, WIDTH: gl.constexpr, CHANNELS: gl.constexpr,
    IMAGES: gl.constexpr, TALL: gl.constexpr, OUT: gl.constexpr, PIXEL_STAGES: gl.constexpr,
    WEIGHT_STAGES: gl.constexpr, HALO: gl.constexpr, RESIDENT: gl.constexpr,
    APART: gl.constexpr, GRADIENT: gl.constexpr, SUMS: gl.constexpr,
):  # fmt: skip
    """Four warps that multiply: 64 channels by the pixels of a tile.

    Apart, the two groups take tiles of their own, and one multiplies while the other writes; together, each
    takes 64 channels of the same tile.
    """
    ROWS: gl.constexpr = IMAGES * TALL * WIDTH
    LINES: gl.constexpr = TALL + 2 if HALO else IMAGES * TALL
    GROUPS: gl.constexpr = 3 * (CHANNELS // 64)
    HALF: gl.constexpr = 0 if APART else 64 * consumer
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    part = gl.program_id(0) * 2 + consumer if APART else gl.program_id(0)
    first_out = gl.program_id(1) * OUT + HALF
    out = first_out + gl.arange(0, 64, gl.SliceLayout(1, layout))
    first = part * rows_each
    total = gl.full((64,), 0, gl.float32, gl.SliceLayout(1, layout))
    second = gl.full((64,), 0, gl.float32, gl.SliceLayout(1, layout))
    if GRADIENT and SUMS:
        centre = gl.load(mean + out)
        scale = gl.load(rstd + out) * gl.load(gamma + out)
        shift = gl.load(beta + out)
    own = out_tiles.index(consumer)
    matrix = own.reshape([ROWS, 64]).permute((1, 0))
    # Tiles of the second group, which come in between those of the first.
    between = gl.maximum(gl.minimum(rows_each, rows - (gl.program_id(0) * 2 + 1) * rows_each), 0)
    between = (between + ROWS - 1) // ROWS
    tile = 0
    for offset in range(0, rows_each, ROWS):
        start = first + offset
        if start < rows:
            if not APART:
                before = tile
            elif consumer == 0:
                before = tile + gl.minimum(tile, between)
            else:
                before = 2 * tile + 1
            image = start // (HEIGHT * WIDTH)
            top = start % (HEIGHT * WIDTH) // WIDTH
            tma.store_wait(0)
            if GRADIENT and SUMS:
                mbarrier.expect(seen_full.index(consumer), seen.block_type.nbytes)
                tma.async_copy_global_to_shared(
                    seen, [image, top, 0, first_out], seen_full.index(consumer), own
                )
            # Who waits for a tile must know that all before it were loaded: a barrier tells rounds apart by
            # one bit only.
            if APART:
                if consumer == 0:
                    mbarrier.wait(turns.index(0), tile & 1 ^ 1, pred=tile <= between)
                else:
                    mbarrier.wait(turns.index(1), tile & 1)
            acc = gl.full((64, ROWS), 0, gl.float32, layout)
            pixel_count = before * (GROUPS if HALO else 3 * GROUPS)
            weight_count = before * (3 * GROUPS)
            pixel_place = pixel_count % PIXEL_STAGES
            for group in range(0, GROUPS):
                for down in gl.static_range(3):
                    if down == 0 or not HALO:
                        pixel_place = pixel_count % PIXEL_STAGES
                        mbarrier.wait(pixels_full.index(pixel_place), pixel_count // PIXEL_STAGES & 1)
                    line = pixel_place * LINES + down if HALO else pixel_place * LINES
                    pixels = lines.index(line)._reinterpret(y.dtype, [ROWS, 64], lines.layout)
                    if RESIDENT:
                        weight_place = down * 3 + group
                        mbarrier.wait(weights_full.index(weight_place), 0)
                    else:
                        weight_place = weight_count % WEIGHT_STAGES
                        mbarrier.wait(weights_full.index(weight_place), weight_count // WEIGHT_STAGES & 1)
                    if GRADIENT:
                        taps = weight_tiles.index(weight_place).slice(HALF, 64, 1).permute((1, 0))
                    else:
                        taps = weight_tiles.index(weight_place).slice(HALF, 64, 0)
                    acc = warpgroup_mma(taps, pixels.permute((1, 0)), acc, is_async=True)
                    acc = warpgroup_mma_wait(1, deps=[acc])
                    # All products but this one are done, and what they read may be overwritten.
                    begun = (group > 0) | (down > 0)
                    if not RESIDENT:
                        freed = weights_empty.index((weight_count + WEIGHT_STAGES - 1) % WEIGHT_STAGES)
                        mbarrier.arrive(freed, count=1, pred=begun)
                    if down == 0 or not HALO:
                        freed = pixels_empty.index((pixel_count + PIXEL_STAGES - 1) % PIXEL_STAGES)
                        mbarrier.arrive(freed, count=1, pred=begun)
                        pixel_count += 1
                    weight_count += 1
            acc = warpgroup_mma_wait(0, deps=[acc])
            if not RESIDENT:
                mbarrier.arrive(
                    weights_empty.index((weight_count + WEIGHT_STAGES - 1) % WEIGHT_STAGES), count=1
                )
            mbarrier.arrive(pixels_empty.index((pixel_count + PIXEL_STAGES - 1) % PIXEL_STAGES), count=1)
            if APART:
                mbarrier.arrive(turns.index(1 - consumer), count=1)
            if GRADIENT and SUMS:
                mbarrier.wait(seen_full.index(consumer), tile & 1)
                centred = matrix.load(layout).to(gl.float32) - gl.expand_dims(centre, 1)
                closed = centred * gl.expand_dims(scale, 1) + gl.expand_dims(shift, 1) <= 0
                acc = gl.where(closed, 0.0, acc)
            rounded = acc.to(y.dtype)
            matrix.store(rounded)
            fence_async_shared()
            tma.async_copy_shared_to_global(y, [image, top, 0, first_out], own)
            if SUMS:  # what lies beyond the last image is zero
                value = rounded.to(gl.float32)
                total += gl.sum(value, 1)
                if GRADIENT:
                    second += gl.sum(value * centred, 1)
                else:
                    second += gl.sum(value * value, 1)
            tile += 1
    tma.store_wait(0)
    if SUMS and first < rows:
        if not GRADIENT:
            mid = total / gl.minimum(rows_each, rows - first).to(gl.float32)
            second = gl.maximum(second - total * mid, 0.0)
            total = mid
        gl.store(partial + part * CHANNELS + out, total)
        gl.store(partial + (parts + part) * CHANNELS + out, second)


@gluon.jit(do_not_specialize=["parts"])
def lines_kernel(
    x, edge, weight, y, seen, mean, rstd, gamma, beta, partial, rows, rows_each, parts,
    HEIGHT: gl.constexpr, WIDTH: gl.constexpr, CHANNELS: gl.constexpr,
    IMAGES: gl.constexpr, TALL: gl.constexpr, OUT: gl.constexpr, PIXEL_STAGES: gl.constexpr,
    WEIGHT_STAGES: gl.constexpr, HALO: gl.constexpr, RESIDENT: gl.constexpr,
    APART: gl.constexpr, GRADIENT: gl.constexpr, SUMS: gl.constexpr,
):  # fmt: skip
    """x, edge, weight, y, seen: descriptors of blocks of pixels, the two lines below, weights and results."""
    READERS: gl.constexpr = 1 if APART else 2
    LINES: gl.constexpr = TALL + 2 if HALO else IMAGES * TALL
    swizzled: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    ring: gl.constexpr = mbarrier.MBarrierLayout()
    lines = gl.allocate_shared_memory(x.dtype, [PIXEL_STAGES * LINES, WIDTH, 64], swizzled)
    weight_block: gl.constexpr = [WEIGHT_STAGES] + weight.block_type.shape  # noqa: RUF005
    out_block: gl.constexpr = [2] + y.block_type.shape  # noqa: RUF005
    weight_tiles = gl.allocate_shared_memory(x.dtype, weight_block, weight.layout)
    out_tiles = gl.allocate_shared_memory(x.dtype, out_block, y.layout)
    pixels_full = gl.allocate_shared_memory(gl.int64, [PIXEL_STAGES, 1], ring)
    pixels_empty = gl.allocate_shared_memory(gl.int64, [PIXEL_STAGES, 1], ring)
    weights_full = gl.allocate_shared_memory(gl.int64, [WEIGHT_STAGES, 1], ring)
    weights_empty = gl.allocate_shared_memory(gl.int64, [WEIGHT_STAGES, 1], ring)
    seen_full = gl.allocate_shared_memory(gl.int64, [2, 1], ring)
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], ring)
    for place in gl.static_range(PIXEL_STAGES):
        mbarrier.init(pixels_full.index(place), count=1)
        mbarrier.init(pixels_empty.index(place), count=READERS)
    for place in gl.static_range(WEIGHT_STAGES):
        mbarrier.init(weights_full.index(place), count=1)
        mbarrier.init(weights_empty.index(place), count=READERS)
    for place in gl.static_range(2):
        mbarrier.init(seen_full.index(place), count=1)
        mbarrier.init(turns.index(place), count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (_multiply, (
                y, seen, mean, rstd, gamma, beta, partial, lines, weight_tiles, out_tiles, pixels_full,
                pixels_empty, weights_full, weights_empty, seen_full, turns, rows, rows_each, parts, 0,
                HEIGHT, WIDTH, CHANNELS, IMAGES, TALL, OUT, PIXEL_STAGES, WEIGHT_STAGES, HALO, RESIDENT,
                APART, GRADIENT, SUMS,
            )),
            (_multiply, (
                y, seen, mean, rstd, gamma, beta, partial, lines, weight_tiles, out_tiles, pixels_full,
                pixels_empty, weights_full, weights_empty, seen_full, turns, rows, rows_each, parts, 1,
                HEIGHT, WIDTH, CHANNELS, IMAGES, TALL, OUT, PIXEL_STAGES, WEIGHT_STAGES, HALO, RESIDENT,
                APART, GRADIENT, SUMS,
            )),
            (_load, (
                x, edge, weight, lines, weight_tiles, pixels_full, pixels_empty, weights_full, weights_empty,
                rows, rows_each,
                HEIGHT, WIDTH, CHANNELS, IMAGES, TALL, OUT, PIXEL_STAGES, WEIGHT_STAGES, HALO, RESIDENT,
                APART, GRADIENT,
            )),
        ],
        [4, 1],
        [232, 40],
    )  # fmt: skip


@triton.jit(do_not_specialize=["parts"])
def merge_statistics_kernel(
    partial, parts, mean, rstd, running_mean, running_var, rows, channels, rows_each, momentum, eps,
    CHANNELS: tl.constexpr, MERGED: tl.constexpr,
):  # fmt: skip
    """The package's own merge of the parts' means and squares, as a kernel."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    _merge_statistics(
        partial, parts, mean, rstd, running_mean, running_var, mean, mean, channel, channel < channels,
        rows, channels, rows_each, momentum, eps, 1.0, False, False, CHANNELS, MERGED,
    )  # fmt: skip


@triton.jit(do_not_specialize=["parts"])
def merge_gradients_kernel(
    partial, parts, rstd, dweight, dbias, channels, CHANNELS: tl.constexpr, MERGED: tl.constexpr
):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.arange(0, MERGED)
    inside = (part < parts)[:, None] & (channel < channels)[None, :]
    place = partial + part[:, None] * channels + channel[None, :]
    totals = tl.sum(tl.load(place, mask=inside, other=0), 0)
    products = tl.sum(tl.load(place + parts * channels, mask=inside, other=0), 0)
    tl.store(dbias + channel, totals, mask=channel < channels)
    tl.store(dweight + channel, products * tl.load(rstd + channel), mask=channel < channels)
