"""Batches of data that are no images: tokens, and features, normalised only if that is declared.

They lie on the device as they came, and a batch is a gather by index: nothing is padded, cropped or mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tombola.data.batches import Batches, brought_within
from tombola.data.imageset import Data, ImageSet


class InputBatches(Batches):
    """The features or tokens and the labels of one split on a device, from which batches are cut."""

    def __init__(self, split: ImageSet, data: Data, *, device: torch.device | str = "cpu") -> None:
        self.pad = 0
        self.padded = split.images.contiguous().to(device)
        self.all_labels = split.labels.to(device)
        self._normalises = data.normalization is not None
        if self._normalises:
            along = (-1, *(1,) * (split.images.ndim - 2))
            self.scale = (1 / data.std.double()).float().view(along).to(device)
            self.shift = (-data.mean.double() / data.std.double()).float().view(along).to(device)

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
        """The inputs at ``indices``; rows, columns and flips are of images, and not used."""
        if strays is not None:
            indices = brought_within(indices, len(self) - 1, strays)
        values = self.padded.index_select(0, indices)
        return self._normalised(values if change is None else change(values))

    def unaugmented(self, first: int, last: int) -> Tensor:
        """Inputs ``first`` to ``last - 1``."""
        return self._normalised(self.padded[first:last])

    def _normalised(self, values: Tensor) -> Tensor:
        return values * self.scale + self.shift if self._normalises and values.is_floating_point() else values


def batches_of(
    split: ImageSet, data: Data, pad: int, fill: Literal["black", "mean"], device: torch.device | str
) -> Batches:
    """The batches of a split on a device; pad and fill are of images alone."""
    if data.kind != "images":
        return InputBatches(split, data, device=device)
    return Batches(split, data, pad=pad, fill=fill, device=device)
