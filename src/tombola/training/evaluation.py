"""Evaluation: what a network makes of a whole split, in evaluation mode and without augmentation."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from tombola.data.batches import Batches
from tombola.data.imageset import Data, ImageSet

# Fixed, because the size of a batch may change the last bits of what a convolution gives.
EVALUATION_BATCH = 500


@lru_cache(maxsize=6)
def device_batches(
    data: Data,
    images: ImageSet,
    device: torch.device,
    *,
    pad: int = 0,
    fill: Literal["black", "mean"] = "black",
) -> Batches:
    """The images of a split on a device, normalised as ``data``; kept for the next training on them."""
    return Batches(images, data, pad=pad, fill=fill, device=device)


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """The images as the weights of a :class:`~tombola.training.body.Body` lie in memory."""
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def evaluate(module: nn.Module, batches: Batches, precision: str) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in percent over all images, in evaluation mode."""
    module.eval()
    losses, right = [], []
    for first in range(0, len(batches), EVALUATION_BATCH):
        last = min(first + EVALUATION_BATCH, len(batches))
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = module(channels_last(batches.plain(first, last)))
        labels = batches.plain_labels(first, last)
        losses.append(functional.cross_entropy(outputs.float(), labels, reduction="none").double().sum())
        right.append((outputs.argmax(1) == labels).sum())
    count = len(batches)
    return float(torch.stack(losses).sum()) / count, 100 * int(torch.stack(right).sum()) / count
