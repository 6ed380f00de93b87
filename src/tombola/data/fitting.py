"""Resizes images to fit a network built for another size (section 5.1 and Appendix E.2 of the paper).

The paper resizes every target to 32x32 and gives grey images three channels. The fitted set is a data set
like any other: its normalisation is its own, and a network can be initialised for it and trained on it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from tombola.data.imageset import Data, DataLike, ImageSet
from tombola.data.load import load_data
from tombola.errors import DataError
from tombola.registry import declare

# Images resized at a time, which bounds the memory for intermediate results.
_TOGETHER = 4096


@declare("fit_images", stored=False)
def fit_images(data: DataLike, *, size: tuple[int, int] = (32, 32), channels: int = 3) -> Data:
    """The same data with images of another size and number of channels.

    size: height and width in pixels. Images are resized bilinearly with antialiasing; the aspect ratio is
        not kept.
    channels: grey images are repeated to that many; images of several channels must have that many already.

    Labels, classes and whether images may be mirrored stay. Data that fits already is returned unchanged.
    For a subset of a fitted set, fit first: then it is normalised as the full set.

    Raises :class:`~tombola.errors.DataError` for channels that do not correspond, an impossible size, or data
    that are no images.
    """
    data = load_data(data)
    if data.kind != "images":
        raise DataError(f"{data.name} has {data.kind}; only images can be given another size")
    if data.channels not in (1, channels):
        raise DataError(
            f"{data.name} has images of {data.channels} channels, not {channels}; only grey images, of one "
            "channel, can be given another number"
        )
    if channels < 1:
        raise DataError(f"channels is {channels}; it must be at least 1")
    if len(size) != 2 or not all(isinstance(side, int) and side >= 1 for side in size):
        raise DataError(f"size is {size}; it must be height and width in pixels, such as (32, 32)")
    return _fitted(data, tuple(size), channels)


# Many tickets are measured on one target: its images are resized, and copied to a device, once.
@lru_cache(maxsize=2)
def _fitted(data: Data, size: tuple[int, int], channels: int) -> Data:
    if (data.size, data.channels) == (size, channels):
        return data
    train, test = (
        ImageSet(_resized(split.images, size).repeat(1, channels // data.channels, 1, 1), split.labels)
        for split in (data.train, data.test)
    )
    name = f"{data.name}-{channels}x{size[0]}x{size[1]}"
    return Data(name, train, test, data.class_names, data.mirrored)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images ``(N, C, H, W)`` at another size, rounded to whole pixel values."""
    if tuple(images.shape[2:]) == size:
        return images
    parts = [
        functional.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)
        for part in torch.split(images, _TOGETHER)
    ]
    return torch.cat(parts)
