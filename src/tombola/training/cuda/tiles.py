"""How 3x3 convolutions of our own (:mod:`.lines`) are cut up, by shape, for one kind of GPU and one Triton.

A table is made once, by timing, with ``benchmarks/convolution_lines.py``, and ships with the package; until
one does, cuDNN computes all of them. It serves where the GPU's name and Triton's version are exactly its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from tombola.training.cuda.cudnn import Convolution
from tombola.training.cuda.plans import each_once, malformed

FOLDER = Path(__file__).with_name("tiles")
"""Where tables are looked for, each a JSON file."""

LineOperation = Literal["forward", "input"]

_SQUARE, _ONES = (3, 3), (1, 1)
_MOST_PIXELS = 256


@dataclass(frozen=True)
class LineProduct:
    """A 3x3 convolution with stride 1 and padding 1 of square images, as many channels out as in.

    operation: ``"forward"``, or the gradient of its ``"input"``.
    side: pixels of an image down and across. batch: images.
    sums: whether it adds up what the batch norm beside it needs.
    """

    operation: LineOperation
    channels: int
    side: int
    batch: int
    sums: bool

    @classmethod
    def of(cls, convolution: Convolution, operation: LineOperation, sums: bool) -> LineProduct | None:
        """That of a convolution; None for a convolution of another kind."""
        batch, channels, height, width = convolution.input
        square = convolution.weight == (channels, channels, *_SQUARE) and height == width
        if not square or convolution.stride != _ONES or convolution.padding != _ONES:
            return None
        return cls(operation, channels, height, batch, sums)


@dataclass(frozen=True)
class Tiles:
    """The part of a convolution that a program computes at a time: whole lines of images, some channels.

    images, tall: how many images, and how many lines of each; if several images, all of their lines.
    out: channels.
    pixel_stages, weight_stages: tiles of pixels and of weights in shared memory.
    apart: whether the two groups of warps take tiles of their own, of 64 channels, or halves of one of 128.
    """

    images: int
    tall: int
    out: int
    pixel_stages: int
    weight_stages: int
    apart: bool


@dataclass(frozen=True)
class TileTable:
    """Tiles of convolutions in bfloat16 and channels_last.

    gpu: its name, as PyTorch gives it. triton: its version, such as 3.6.0.
    """

    gpu: str
    triton: str
    tiles: Mapping[LineProduct, Tiles]


def misfit(product: LineProduct, tiles: Tiles) -> str | None:
    """Why a convolution cannot be cut up so; None if it can. Whether shared memory suffices is not told."""
    pixels = tiles.images * tiles.tall * product.side
    if product.channels % 64:
        return "channels must be a multiple of 64"
    if tiles.out != (64 if tiles.apart else 128) or product.channels % tiles.out:
        return "out must be 64 where groups are apart, else 128, and divide the channels"
    if product.side % tiles.tall or (tiles.images > 1 and tiles.tall != product.side):
        return "tall must divide the side, and be all of it for several images"
    if tiles.images == 1 and product.side % 8:
        return "sides of single images must be multiples of 8"  # lines begin where the swizzle does
    if pixels > _MOST_PIXELS or pixels & (pixels - 1) or pixels < 16:
        return f"a tile must have a power of two of pixels, at most {_MOST_PIXELS}"
    if (product.channels == 64) != (tiles.weight_stages == 9):
        return "64 channels need nine stages of weights, which stay, and others less"
    return None


def read_tiles(path: Path) -> TileTable:
    """The table in a file; raises ``ValueError`` for one that is malformed."""
    with malformed(path, "tiles"):
        content = json.loads(path.read_text())
        if not (type(content["gpu"]) is str and type(content["triton"]) is str):
            raise ValueError("gpu and triton must be text")
        tiles = each_once(_entry(row) for row in content["tiles"])
    return TileTable(content["gpu"], content["triton"], tiles)


def _entry(row: Mapping[str, Any]) -> tuple[LineProduct, Tiles]:
    if row["operation"] not in get_args(LineOperation):
        raise ValueError(f"operation {row['operation']!r} is none of {', '.join(get_args(LineOperation))}")
    for name in ("sums", "apart"):
        if type(row[name]) is not bool:
            raise ValueError(f"{name} must be true or false, not {row[name]!r}")
    for name in ("channels", "side", "batch", "images", "tall", "out", "pixel_stages", "weight_stages"):
        if type(row[name]) is not int or row[name] < 1:
            raise ValueError(f"{name} must be a whole number from 1, not {row[name]!r}")
    product = LineProduct(**{field.name: row[field.name] for field in fields(LineProduct)})
    tiles = Tiles(**{field.name: row[field.name] for field in fields(Tiles)})
    cause = misfit(product, tiles)
    if cause is not None:
        raise ValueError(f"{cause}: {product}, {tiles}")
    return product, tiles


@cache
def tile_tables() -> Mapping[tuple[str, str], TileTable]:
    """The tables that ship, by GPU and version of Triton."""
    read = [read_tiles(path) for path in sorted(FOLDER.glob("*.json"))]
    return {(table.gpu, table.triton): table for table in read}


def tiles_for(gpu: str, triton: str | None) -> TileTable | None:
    """The table for a kind of GPU and a version of Triton; None where there is none."""
    return None if triton is None else tile_tables().get((gpu, triton))


@cache
def triton_version() -> str | None:
    """The version of Triton, which is not imported; None where there is none, or one of another name."""
    try:
        return importlib.metadata.version("triton") if importlib.util.find_spec("triton") else None
    except importlib.metadata.PackageNotFoundError:
        return None
