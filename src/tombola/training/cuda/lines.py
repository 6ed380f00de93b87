"""3x3 convolutions that add up batch norm's sums as they write.

Forward, a convolution's results would be read again for batch norm's statistics; backward, the gradient of
its input for ReLU's mask and the two sums of batch norm's gradient. This kernel has both in its epilogue.
Stride 1, padding 1, as many channels out as in, bfloat16 in channels_last; sums are float32, split by
constants and added up in a fixed order. :mod:`.tiles` says for which shapes it is taken, :mod:`.pairing`
beside which norms.

It is Gluon's, for GPUs of compute capability 9.0: one warp loads by TMA, which fills what lies around an
image with zeros, and two groups of four multiply by wgmma from shared memory. Products are of pixels by
weights, tap by tap, with the weights on the left, so that a sum over pixels stays within four threads. Where
a tile has lines of one image (``HALO``) these are loaded once for three taps above one another.

Squares around a mean come from plain sums of squares, of at most some thousand pixels. That loses digits
where a channel's mean is many deviations from zero, but fewer than rounding to bfloat16 does there.

Imported only where a table has tiles, because Gluon is an experiment that not every Triton has.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from tombola.training.cuda.norm import Normed, Parts
from tombola.training.cuda.tiles import LineProduct, Tiles

# Of an H200; a constant because bits rest on how many programs share the pixels.
_MULTIPROCESSORS = 132
_COMPILERS = 8


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


class Lines:
    """A convolution or the gradient of its input, cut up into tiles.

    rows_each: pixels of a program, or of each of its two groups of warps.
    parts: how many such parts there are.
    """

    def __init__(self, product: LineProduct, tiles: Tiles) -> None:
        self.product = product
        self._tiles = tiles
        self.rows = product.batch * product.side**2
        at_once = tiles.images * tiles.tall * product.side
        self._across = product.channels // tiles.out
        wanted = max(1, (2 if tiles.apart else 1) * _MULTIPROCESSORS // self._across)
        self.rows_each = triton.cdiv(triton.cdiv(self.rows, wanted), at_once) * at_once
        self.parts = triton.cdiv(self.rows, self.rows_each)

    def __call__(self, x: Tensor, weight: Tensor, y: Tensor, normed: Normed | None = None) -> Parts | None:
        """Compute on the current stream, which may be captured.

        x: ``(N, C, H, W)``, what is convolved: the gradient of the output for ``"input"``.
        weight: ``(C, C, 3, 3)``. y: of the shape of ``x``, what is written.
        normed: for ``"input"`` with sums, the norm whose result the convolution has read; its ReLU masks the
            gradient. Without it nothing is masked or added up.

        Returns the sums of parts, None without sums.
        """
        with_sums = self.product.sums and (self.product.operation == "forward" or normed is not None)
        size = (2, self.parts, self.product.channels) if with_sums else (1,)
        partial = torch.empty(size, device=y.device, dtype=torch.float32)
        grid, arguments, options = self.launch(x, weight, y, partial, normed if with_sums else None)
        lines_kernel[grid](*arguments, **options)
        return Parts(partial, self.rows_each) if with_sums else None

    def compile(self, device: torch.device) -> object:
        """Compile what a call launches, unless that was done before; it takes two seconds."""
        values = torch.empty(8, device=device, dtype=torch.bfloat16)
        room = torch.empty(2 if self.product.sums else 1, device=device)
        backward = self.product.sums and self.product.operation == "input"
        normed = Normed(values, room, room, room, room) if backward else None
        grid, arguments, options = self.launch(values, values, values, room, normed)
        return lines_kernel.warmup(*arguments, grid=grid, **options)

    def launch(
        self, x: Tensor, weight: Tensor, y: Tensor, partial: Tensor, normed: Normed | None
    ) -> tuple[tuple[int, int], tuple[Any, ...], dict[str, Any]]:
        """Grid, arguments and options of the kernel, which adds up sums if ``partial`` has room for them."""
        tiles, side, channels = self._tiles, self.product.side, self.product.channels
        gradient = self.product.operation == "input"
        images = [self.product.batch, side, side, channels]
        strides = [side * side * channels, side * channels, channels, 1]
        block = [tiles.images, tiles.tall, side, 64]
        taps = [64, tiles.out] if gradient else [tiles.out, 64]
        seen, *numbers = (y, *[partial] * 4) if normed is None else normed
        arguments = (
            _descriptor(x, images, strides, block),
            _descriptor(x, images, strides, [tiles.images, 2, side, 64]),
            _descriptor(weight, [channels, 9 * channels], [9 * channels, 1], taps),
            _descriptor(y, images, strides, block),
            _descriptor(seen, images, strides, block),
            *numbers, partial, self.rows, self.rows_each, self.parts,
        )  # fmt: skip
        options = {
            "HEIGHT": side, "WIDTH": side, "CHANNELS": channels, "IMAGES": tiles.images, "TALL": tiles.tall,
            "OUT": tiles.out, "PIXEL_STAGES": tiles.pixel_stages, "WEIGHT_STAGES": tiles.weight_stages,
            "HALO": tiles.images == 1, "RESIDENT": channels == 64, "APART": tiles.apart,
            "GRADIENT": gradient, "SUMS": partial.numel() > 1, "num_warps": 4,
        }  # fmt: skip
        programs = triton.cdiv(self.parts, 2) if tiles.apart else self.parts
        return (programs, self._across), arguments, options


def compiled(tiles: Mapping[LineProduct, Tiles], device: torch.device) -> dict[LineProduct, Lines]:
    """Convolutions that are cut up so, compiled side by side for a GPU."""
    lines = {product: Lines(product, cut) for product, cut in tiles.items()}
    with ThreadPoolExecutor(_COMPILERS, initializer=torch.cuda.set_device, initargs=(device,)) as pool:
        for _ in pool.map(lambda one: one.compile(device), lines.values()):
            pass
    return lines


def _descriptor(tensor: Tensor, shape: list[int], strides: list[int], block: list[int]) -> TensorDescriptor:
    return TensorDescriptor(tensor, shape, strides, block, gl.NVMMASharedLayout(128, 16, len(block)))
