"""Estimates the memory of a GPU that a training takes, before anything is on it.

What a backward pass keeps is found by a pass of two images on the CPU; the rest are multiples that were
fitted to measured trainings (benchmarks/gpu.md). An estimate decides how many trainings share a GPU, so it is
rather too high: a training that does not fit fails.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from tombola import seeds
from tombola.data.batches import padded_bytes
from tombola.data.imageset import Data
from tombola.errors import RecipeError
from tombola.networks.network import Network
from tombola.training.cuda.memory import capacity
from tombola.training.evaluation import EVALUATION_BATCH
from tombola.training.recipe import Recipe

CONTEXT_BYTES = 700 * 2**20
"""What a process takes on a GPU for itself: kernels, libraries and their workspaces."""

# Weights, optimizer state, gradients twice, a bfloat16 copy and a mask.
_BYTES_A_WEIGHT = 24
# Steps are warmed up outside of the memory that their capture takes, and neither has the other's.
_TWICE = 2
# Activations of an evaluation that are alive at once, in each of the batches under way at once.
_ALIVE = 3 * 2
# Images that take no more of a GPU than this lie there whatever is trained.
_SMALL_SHARE = 0.1
# For what blocks of memory leave unused, and workspaces; those of float32 convolutions are far larger.
_SLACK = {"bfloat16": 1.25, "float32": 2.5}


def training_bytes(network: Network, batch_size: int, precision: str) -> int:
    """Bytes on a GPU of a training, without its images.

    precision: ``"bfloat16"`` or ``"float32"``.
    """
    kept, largest, weights = _of_one_input(network)
    width = 2 if precision == "bfloat16" else 4
    activations = _TWICE * width * (batch_size * kept + EVALUATION_BATCH * _ALIVE * largest)
    return int(_SLACK[precision] * (activations + _BYTES_A_WEIGHT * weights))


def data_bytes(data: Data, pad: int = 4) -> int:
    """Bytes on a GPU of both splits of a data set, its train images padded for crops."""
    if data.kind == "images":
        return padded_bytes(data.train, pad) + padded_bytes(data.test, 0)
    return sum(split.images.numel() * split.images.element_size() for split in (data.train, data.test))


@dataclass(frozen=True)
class DataFootprint:
    """What estimates ask of a data set, without its images.

    channels, size, classes, vocabulary: as of the data. bytes: on a GPU, as :func:`data_bytes` has them.
    """

    channels: int
    size: tuple[int, ...]
    classes: int
    vocabulary: int | None
    bytes: int

    @classmethod
    def of(cls, data: Data) -> DataFootprint:
        """That of a loaded data set."""
        return cls(data.channels, data.size, data.classes, data.vocabulary, data_bytes(data))


def is_streamed(network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str) -> bool:
    """Whether a captured training takes its train images from the host, batch by batch.

    So it is where they would not fit a GPU beside the training; ``TOMBOLA_STREAM`` set to 1 or 0 says it for
    all images. Bits do not depend on it.

    Raises :class:`~tombola.errors.RecipeError` for another value of that variable.
    """
    wanted = os.environ.get("TOMBOLA_STREAM", "")
    if wanted not in ("", "0", "1"):
        raise RecipeError(f"TOMBOLA_STREAM is {wanted!r:.20}; it must be 0 or 1")
    if data.kind != "images" or device.type != "cuda":
        return False
    if wanted:
        return wanted == "1"
    images, room = data_bytes(data, recipe.augmentation.padding(data)), capacity(device)
    if images <= _SMALL_SHARE * room:
        return False
    return images + CONTEXT_BYTES + training_bytes(network, recipe.batch_size, precision) > room


def _of_one_input(network: Network) -> tuple[int, int, int]:
    """Numbers kept for the backward pass, those of the largest activation, and the network's weights."""
    module = network.initialized(0).train()
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    sizes: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            sizes[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    count = 2  # of a single one batch norm may have no statistics
    with (
        seeds.torch_stream("footprint", 0),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        outputs = module(network.zeros(count))
    numbers = [
        tensor.untyped_storage().nbytes() // tensor.element_size()
        for place, tensor in sizes.items()
        if place not in weights
    ]
    del outputs
    total = sum(p.numel() for p in module.parameters())
    return sum(numbers) // count, max(numbers, default=0) // count, total
