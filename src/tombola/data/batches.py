"""Batches of normalised float images, cropped and flipped on the device that holds them.

The whole split lies on the device as padded bytes. One gather by computed positions does padding, crop and
flip at once, without a loop over images, without waiting for the device, and with shapes that depend on the
batch size alone, so that it can be part of a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad as padded

from tombola.data.imageset import Data, ImageSet

# Of images that are copied to a GPU at a time.
_FRAMED_BYTES = 2**26


class Batches:
    """The images and labels of one split on a device, from which batches are cut.

    split: the images and labels.
    data: gives the mean and standard deviation of its train split for normalisation.
    pad: pixels added on each side for crops.
    fill: value of the added pixels, "black" for raw pixel 0 or "mean" for zero after normalisation.
    device: where the images are kept and the batches are made.
    """

    def __init__(
        self,
        split: ImageSet,
        data: Data,
        *,
        pad: int = 0,
        fill: Literal["black", "mean"] = "black",
        device: torch.device | str = "cpu",
    ) -> None:
        channels, height, width = split.images.shape[1:]
        self.size = (int(height), int(width))
        rows, columns = height + 2 * pad, width + 2 * pad
        self.pad, self.fill = pad, fill
        self.padded = _padded(split.images, pad, torch.device(device))
        self.all_labels = split.labels.to(device)
        # (pixel / 255 - mean) / std, as one multiplication and one addition.
        self.scale = (1 / (255 * data.std.double())).float().view(-1, 1, 1).to(device)
        self.shift = (-data.mean.double() / data.std.double()).float().view(-1, 1, 1).to(device)
        self._row = torch.arange(height, device=device)
        self._column = torch.arange(width, device=device)
        self._plane = torch.arange(channels, device=device).view(-1, 1, 1) * (rows * columns)

    def __len__(self) -> int:
        return len(self.all_labels)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of these images from reuse until ``stream``, which reads them, is done."""
        for tensor in vars(self).values():
            if isinstance(tensor, Tensor):
                tensor.record_stream(stream)

    def images(
        self,
        indices: Tensor,
        rows: Tensor,
        columns: Tensor,
        flips: Tensor | None = None,
        *,
        strays: Tensor | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Augmented, normalised images as contiguous float32 ``(B, C, H, W)``.

        indices: int64 ``(B,)``, which images.
        rows, columns: int64 ``(B,)``, where each crop starts in the padded image, 0 to ``2 * pad``.
        flips: bool ``(B,)``, which crops are mirrored left to right; None for none.
        strays: int64 ``(1,)``, raised where a position lies out of range, which is brought into range; None
            leaves it to PyTorch, after whose assertion a GPU cannot be used.
        change: what becomes of the raw pixels ``(B, C, H, W)`` of the crops before they are normalised.

        All arguments lie on the device. Unless changed otherwise, an image depends on its own entries only,
        not on the batch.
        """
        _, channels, tall, wide = self.padded.shape
        row = rows[:, None] + self._row
        column = self._column
        if flips is not None:
            column = torch.where(flips[:, None], len(column) - 1 - column, column)
        column = columns[:, None] + column
        plane = self._plane
        if strays is not None:
            row, column = brought_within(row, tall - 1, strays), brought_within(column, wide - 1, strays)
            plane = brought_within(plane, (channels - 1) * tall * wide, strays)
        start = indices * (channels * tall * wide)
        position = (start[:, None] + row * wide)[:, None, :, None] + column[:, None, None, :] + plane
        # On contiguous bytes this gather takes half the time of one that makes channels-last batches.
        pixels = self.padded.view(-1).index_select(0, position.view(-1)).view(position.shape)
        images = self._normalised(pixels if change is None else change(pixels))
        if self.pad and self.fill == "mean":
            inside = (
                self._inside(row, self._row)[:, None, :, None]
                & self._inside(column, self._column)[:, None, None]
            )
            images.masked_fill_(~inside, 0)
        return images

    def labels(self, indices: Tensor) -> Tensor:
        """Labels of the images at ``indices`` as int64 ``(B,)``."""
        return self.all_labels.index_select(0, indices)

    def unaugmented(self, first: int, last: int) -> Tensor:
        """Images ``first`` to ``last - 1``, normalised but not augmented, as float32 ``(B, C, H, W)``."""
        inner = slice(self.pad, self.pad + len(self._row)), slice(self.pad, self.pad + len(self._column))
        return self._normalised(self.padded[first:last, :, inner[0], inner[1]])

    def unaugmented_labels(self, first: int, last: int) -> Tensor:
        """Labels of images ``first`` to ``last - 1`` as int64 ``(B,)``."""
        return self.all_labels[first:last]

    def _normalised(self, pixels: Tensor) -> Tensor:
        # Two roundings in two operations rather than one fused: the same bits on every device and in every
        # place of a batch.
        images: Tensor = pixels.float()
        return images.mul_(self.scale).add_(self.shift)

    def _inside(self, position: Tensor, side: Tensor) -> Tensor:
        """Which rows or columns of the padded image belong to the image itself."""
        return (position >= self.pad) & (position < self.pad + len(side))


def _padded(images: Tensor, pad: int, device: torch.device) -> Tensor:
    """Raw images on a device with so many black pixels on each side.

    A GPU lays them into their frames itself, a stretch at a time, so that it holds at most 64 MB of them
    twice.
    """
    if not pad:
        return images.contiguous().to(device)
    if device.type == "cpu":
        return padded(images, (pad,) * 4)
    bytes_each = math.prod(images.shape[1:]) * images.element_size()
    frames = framed(images, pad, device, max(1, _FRAMED_BYTES // bytes_each))
    if device.type == "cuda":  # as after a copy from the host: other streams read and write beside it
        torch.cuda.current_stream(device).synchronize()
    return frames


def framed(images: Tensor, pad: int, device: torch.device, at_once: int) -> Tensor:
    """Raw images on a device with so many black pixels on each side, copied ``at_once`` images at a time."""
    count, channels, height, width = images.shape
    frames = torch.zeros(
        count, channels, height + 2 * pad, width + 2 * pad, dtype=images.dtype, device=device
    )
    inner = frames[:, :, pad : pad + height, pad : pad + width]
    for places, some in zip(inner.split(at_once), images.split(at_once), strict=True):  # type: ignore[no-untyped-call]
        places.copy_(some.to(device))
    return frames


def padded_bytes(split: ImageSet, pad: int) -> int:
    """Bytes that the images of a split take on a device, with so many pixels added on each side."""
    count, channels, height, width = split.images.shape
    return int(count * channels * (height + 2 * pad) * (width + 2 * pad))


def cut_out(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """The normalised images ``(B, C, H, W)`` with a square of each set to zero, in place.

    centres: int64 ``(B, 2)``, row and column of its middle; of an even side the pixel after it. Where the
        square reaches beyond the image, it is clipped.
    """
    inside = []
    for length, centre in zip(images.shape[2:], centres.unbind(1), strict=True):
        after_first = torch.arange(length, device=images.device) - (centre - side // 2)[:, None]
        inside.append((after_first >= 0) & (after_first < side))
    return images.masked_fill_(inside[0][:, None, :, None] & inside[1][:, None, None, :], 0)


def brought_within(values: Tensor, last: int, strays: Tensor) -> Tensor:
    """Indices brought into the range 0 to ``last``; ``strays`` is raised by how many were not in it."""
    within = values.clamp(0, last)
    strays.add_((within != values).sum())
    return within
