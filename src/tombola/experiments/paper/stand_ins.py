"""Small generated image sets, which stand in for the paper's at the scale that only proves the machinery.

Each class is a smooth pattern of its own, moved about and under noise, so that a small network learns it in a
few epochs. All draws come from keyed streams: a set has the same pixels on every machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from tombola import seeds
from tombola.data.imageset import Data, data_from_tensors

_SIDE = 8
_TRAIN, _TEST = 60, 20
"""Images a class: 1% of the train images still is one of each."""
_NOISE = 45.0
_FARTHEST = 1
"""Pixels by which a pattern is moved at most."""


@cache
def stand_in(name: str, classes: int) -> Data:
    """A grey set of 8x8 images: of each class 60 to train and 20 to test.

    name: of the set, by which jobs know it; also the key of its patterns.
    """
    number = int.from_bytes(name.encode(), "big")
    draws = seeds.generator("stand-in", number, classes)
    coarse = draws.uniform(0, 255, size=(classes, 3, 3))
    patterns = np.kron(coarse, np.ones((3, 3)))[:, :_SIDE, :_SIDE]

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = np.arange(count * classes) % classes
        moved = draws.integers(-_FARTHEST, _FARTHEST + 1, size=(len(labels), 2))
        images = [
            np.roll(patterns[label], move, axis=(0, 1)) for label, move in zip(labels, moved, strict=True)
        ]
        noisy = np.stack(images) + draws.normal(0, _NOISE, size=(len(labels), _SIDE, _SIDE))
        pixels = torch.from_numpy(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))[:, None]
        return pixels, torch.from_numpy(labels.astype(np.int64))

    return data_from_tensors(split(_TRAIN), split(_TEST), name=name, mirrored=False)
