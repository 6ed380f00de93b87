"""Batches of images that stay on the host, for data sets larger than a GPU.

What lies on the device is a ring of a few batches, in their order of presentation. While one is computed
with, the next are gathered into pinned memory and copied in a stream of their own. What crops and flips them
reads the same bytes as where the whole split lies on the device, so bits are the same.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tombola.data.batches import Batches
from tombola.data.imageset import Data, ImageSet

_DEPTH = 4
_PINNED = 2


class StreamedBatches(Batches):
    """The ring of batches of one split; image ``i`` of step ``s`` lies at ``ring(...)[s * batch_size + i]``.

    split: the images and labels, on the CPU; they may be mapped from a file.
    batch_size: images of a full step.
    The other arguments are as for :class:`~tombola.data.batches.Batches`.

    :meth:`begin` takes the order of an epoch; then :meth:`load` is called before each step is launched and
    :meth:`launched` after it, in the stream that computes.
    """

    def __init__(
        self,
        split: ImageSet,
        data: Data,
        batch_size: int,
        *,
        pad: int = 0,
        fill: Literal["black", "mean"] = "black",
        device: torch.device | str = "cpu",
    ) -> None:
        places = _DEPTH * batch_size
        blank = torch.zeros(places, *split.images.shape[1:], dtype=torch.uint8)
        labels = torch.zeros(places, dtype=torch.int64)
        super().__init__(ImageSet(blank, labels), data, pad=pad, fill=fill, device=device)
        self._split, self._batch_size = split, batch_size
        self._gpu = self.padded.device.type == "cuda"
        shape = batch_size, *self.padded.shape[1:]
        self._pixels = [torch.zeros(shape, dtype=torch.uint8, pin_memory=self._gpu) for _ in range(_PINNED)]
        self._labels = [
            torch.zeros(batch_size, dtype=torch.int64, pin_memory=self._gpu) for _ in range(_PINNED)
        ]
        if self._gpu:
            # Of high priority, so none of those that others compute and capture in.
            self._copying = torch.cuda.Stream(self.padded.device, priority=-1)  # type: ignore[no-untyped-call]
            self.record_stream(self._copying)
            # Of each place in the ring, whether its batch is there, and whether it is no longer needed.
            self._ready = [torch.cuda.Event() for _ in range(_DEPTH)]  # type: ignore[no-untyped-call]
            self._used = [torch.cuda.Event() for _ in range(_DEPTH)]  # type: ignore[no-untyped-call]
        self.begin(torch.arange(len(split)))

    def begin(self, order: Tensor) -> None:
        """Present the images in another order, int64 ``(N,)``."""
        self._order = order.cpu()
        self._loaded = 0  # the batch to be loaded next

    def ring(self, count: int) -> Tensor:
        """Where on the device the image of each presentation lies in its time, int64 ``(count,)``."""
        return torch.arange(count, device=self.padded.device) % len(self)

    def load(self, step: int) -> None:
        """Let the current stream wait for the batch of a step, which is loaded now unless it was before."""
        if not self._loaded - _DEPTH <= step < self._loaded:
            if self._gpu:
                self._copying.synchronize()
            self._loaded = step
            self._load_next()
        if self._gpu:
            torch.cuda.current_stream(self.padded.device).wait_event(self._ready[step % _DEPTH])

    def launched(self, step: int) -> None:
        """Load what comes after a step that was launched in the current stream, while it runs."""
        if self._gpu:
            self._used[step % _DEPTH].record(torch.cuda.current_stream(self.padded.device))
        steps = -(-len(self._order) // self._batch_size)
        while self._loaded < min(step + _DEPTH, steps):
            self._load_next()

    def _load_next(self) -> None:
        batch, self._loaded = self._loaded, self._loaded + 1
        indices = self._order[batch * self._batch_size : (batch + 1) * self._batch_size]
        pinned, place = batch % _PINNED, (batch % _DEPTH) * self._batch_size
        if self._gpu:
            self._ready[(batch - _PINNED) % _DEPTH].synchronize()
        pixels, labels = (values[pinned][: len(indices)] for values in (self._pixels, self._labels))
        inside = pixels[..., self.pad : self.pad + self.size[0], self.pad : self.pad + self.size[1]]
        if self.pad:
            inside.copy_(self._split.images.index_select(0, indices))
        else:
            torch.index_select(self._split.images, 0, indices, out=pixels)
        torch.index_select(self._split.labels, 0, indices, out=labels)
        ring = slice(place, place + len(indices))
        if not self._gpu:
            self.padded[ring], self.all_labels[ring] = pixels, labels
            return
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(self._used[batch % _DEPTH])
            self.padded[ring].copy_(pixels, non_blocking=True)
            self.all_labels[ring].copy_(labels, non_blocking=True)
            self._ready[batch % _DEPTH].record(self._copying)
