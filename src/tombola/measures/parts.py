"""What measures are made of: a run or ticket as a module on a device, and a split in normalised batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, unknown
from tombola.ticket import Ticket
from tombola.training.device import resolve_device
from tombola.training.evaluation import EVALUATION_BATCH, device_batches
from tombola.training.run import Run

Split = Literal["test", "train"]


def module(subject: Run | Ticket, device: str | torch.device | None = "cpu") -> nn.Module:
    """The network of a run with its final weights, or of a ticket with those that training starts from.

    It is in evaluation mode and takes images as :func:`batches` gives them. Changes to it change no run.
    """
    return subject.module().to(resolve_device(device))


def batches(
    data: DataLike,
    split: Split = "test",
    *,
    batch_size: int = EVALUATION_BATCH,
    device: str | torch.device | None = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and labels of a split in their order, without augmentation, normalised as for training.

    split: ``"test"`` or ``"train"``.
    batch_size: images at a time; the last batch has what is left.

    Each batch is float32 ``(B, C, H, W)`` and int64 ``(B,)``, on the device.

    Raises :class:`~tombola.errors.RecipeError` for another split or a batch size below 1.
    """
    data = load_data(data)
    if split not in get_args(Split):
        raise RecipeError(unknown("split", str(split), get_args(Split)))
    if batch_size < 1:
        raise RecipeError(f"batch_size is {batch_size}; it must be at least 1")
    images = data.test if split == "test" else data.train
    batches = device_batches(data, images, resolve_device(device))
    return (
        (
            batches.unaugmented(first, first + batch_size),
            batches.unaugmented_labels(first, first + batch_size),
        )
        for first in range(0, len(batches), batch_size)
    )
