"""Loss and accuracy of a network on a split, in evaluation mode and without augmentation.

All evaluation of trained networks, at the end of an epoch or along a line between two runs, goes through an
:class:`Evaluator`, so that the same weights have the same error everywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from tombola.data.augmentation import Draws
from tombola.data.batches import Batches
from tombola.data.imageset import Data, ImageSet
from tombola.data.inputs import InputBatches, batches_of
from tombola.errors import reason
from tombola.networks.network import Network
from tombola.training.cuda.capture import knows_this_torch, with_room
from tombola.training.cuda.cudnn import load_cudnn
from tombola.training.cuda.memory import watched
from tombola.training.cuda.plans import table_for
from tombola.training.flat_network import FlatNetwork, channels_last
from tombola.training.recipe import Recipe
from tombola.warn import warn

if TYPE_CHECKING:  # Only a GPU needs these, and Triton with them.
    from tombola.training.cuda.fused import (
        FusedNetwork,
        FusedStep,
        GraphedEvaluation,
        GraphedStatistics,
    )

# Fixed, because the size of a batch may change the last bits of a convolution.
EVALUATION_BATCH = 500

# So that slots that begin together share one copy of the images.
_uploading = threading.Lock()


def device_batches(
    data: Data,
    images: ImageSet,
    device: torch.device,
    *,
    pad: int = 0,
    fill: Literal["black", "mean"] = "black",
) -> Batches:
    """The images of a split on a device, normalised as ``data``; cached for the next training on them."""
    with _uploading:
        batches = _uploaded(data, images, device, pad, fill)
        if device.type == "cuda":
            batches.record_stream(torch.cuda.current_stream(device))
        return batches


def forget_batches() -> None:
    """Free the images that are cached on devices and not in use."""
    with _uploading:
        _uploaded.cache_clear()


@lru_cache(maxsize=6)
def _uploaded(
    data: Data, images: ImageSet, device: torch.device, pad: int, fill: Literal["black", "mean"]
) -> Batches:
    batches = batches_of(images, data, pad, fill, device)
    if device.type == "cuda":
        # Other streams will read what this one has written.
        torch.cuda.current_stream(device).synchronize()
    return batches


class Evaluator:
    """Evaluates a network with the weights that it has when called.

    On a GPU by replaying captured batches of the fused network, where it can be traced.

    fused: False for plain operations everywhere.
    """

    def __init__(self, flat_network: FlatNetwork, precision: str, *, fused: bool = True) -> None:
        self._flat_network = flat_network
        self._precision = precision
        self._device = flat_network.weights.device
        self._network = _fused_network(flat_network, precision) if fused else None
        if self._network is not None:
            self._network.plan_evaluation(EVALUATION_BATCH)
        self._graphs: dict[ImageSet, GraphedEvaluation] = {}
        self._statistics: tuple[Batches, GraphedStatistics] | None = None
        self._has_step = False

    def __call__(self, data: Data, images: ImageSet) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent over a split of ``data``."""
        batches = device_batches(data, images, self._device)
        if self._network is None or isinstance(batches, InputBatches):
            with watched(self._device):
                return evaluate(self._flat_network.module, batches, self._precision)
        from tombola.training.cuda.fused import GraphedEvaluation

        if images not in self._graphs:
            network = self._network
            self._graphs[images] = with_room(lambda: GraphedEvaluation(network, batches, EVALUATION_BATCH))
        return self._graphs[images]()

    def measures_batch_norm(self, batches: Batches, spans: Sequence[tuple[int, int]]) -> bool:
        """Measure the running statistics of batch norm anew by fused passes; False where there are none.

        batches: unaugmented images. spans: first and last (exclusive) index of each batch, all of one size
            but the last. What is measured, :func:`~tombola.measures.interpolation.recalibrate_batch_norm`
            says.
        """
        network = self._network
        if network is None or isinstance(batches, InputBatches) or len(batches) == 1:
            return False
        if not network.norms() or not network.fuses_every_norm():
            return False
        from tombola.training.cuda.fused import GraphedStatistics

        if self._statistics is None or self._statistics[0] is not batches:
            self._statistics = None
            self._statistics = batches, with_room(lambda: GraphedStatistics(network, batches, spans))
        self._statistics[1]()
        return True

    def step(self, batches: Batches, recipe: Recipe, size: int) -> FusedStep | None:
        """The training step of the same fused network; None where it cannot be traced, or for no images.

        size: images of a full batch.

        Raises ``ValueError`` the second time: the counters of batch norm would follow the second step alone.
        """
        if self._network is None or isinstance(batches, InputBatches):
            return None
        if self._has_step:
            raise ValueError("the network of this evaluator has its training step; make another evaluator")
        self._has_step = True
        from tombola.training.cuda.fused import FusedStep

        return FusedStep(self._flat_network, self._network, batches, recipe, size)


def _fused_network(flat_network: FlatNetwork, precision: str) -> FusedNetwork | None:
    """The fused network, or None where there is no GPU for it or its outputs or gradients would differ."""
    device = flat_network.weights.device
    if len(flat_network.images) != 3:  # its passes are those of images
        return None
    if not _has_fused_passes(device):
        return None
    try:
        from tombola.training.cuda.fused import FusedNetwork
        from tombola.training.cuda.rewrite import check_fused
    except ImportError as error:  # PyTorch without Triton, as on Windows
        if find_spec("triton") is not None:
            warn(
                f"networks are computed by plain operations, since Triton cannot be imported: {reason(error)}"
            )
        return None
    prepare_gpu(device)
    try:
        check_fused(flat_network.module, flat_network.images)
        return FusedNetwork(flat_network, precision)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # tracing a network whose path depends on values may fail in any way
        warn(
            f"{type(flat_network.module).__name__} is computed by plain operations, not by fused ones: "
            f"{reason(error)}"
        )
        return None


def _has_fused_passes(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) and knows_this_torch()


COMPILES_AHEAD = False
"""Whether trainings do; not until a GPU has run it (benchmarks/first_step.py --ahead)."""


def compile_ahead(
    network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str, drawn: Draws
) -> None:
    """Compile kernels of a training before the first is launched, where that is wanted and Triton can.

    drawn: the draws of one epoch, for their shapes.
    """
    if COMPILES_AHEAD and data.kind == "images" and _has_fused_passes(device):
        with suppress(ImportError, AttributeError):  # no Triton, or one that compiles in its own way
            from tombola.training.cuda.compilation import compile_kernels

            compile_kernels(network, data, recipe, precision, drawn)


@cache
def prepare_gpu(device: torch.device) -> tuple[threading.Thread, ...]:
    """Begin in threads, once a process, what the first fused passes on a GPU would wait for.

    Triton is imported, hashes its own files, 400 MB, by which it finds compiled kernels, and asks other
    programs for the versions of its assembler and for where the driver lies. Where convolution plans are
    named, cuDNN is loaded. Meanwhile the network is built and traced and images are copied. What fails here
    fails again, and is told, where it is needed.

    device: a GPU with its index, since each thread has a current one of its own.
    """
    if not _has_fused_passes(device):
        return ()
    works = _prepare_triton, _prepare_cudnn
    threads = tuple(threading.Thread(target=work, args=(device,), daemon=True) for work in works)
    for thread in threads:
        thread.start()
    return threads


def _prepare_cudnn(device: torch.device) -> None:
    with suppress(Exception):
        version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        if table_for(torch.cuda.get_device_name(device), version) is not None:
            load_cudnn(device)


def _prepare_triton(device: torch.device) -> None:
    # Whole, before parts of it: two threads that import parts in different order hand each other unfinished
    # ones.
    with suppress(Exception):
        import triton  # noqa: F401
    # A Triton that has these elsewhere computes them in its own time.
    with suppress(Exception):
        from triton.runtime.cache import triton_key

        triton_key()
    with suppress(Exception):
        from triton.backends.nvidia.driver import library_dirs

        library_dirs()
    with suppress(Exception):
        from triton.backends.nvidia.compiler import get_ptxas_version

        major, minor = torch.cuda.get_device_capability(device)
        get_ptxas_version(10 * major + minor)


@torch.no_grad()
def evaluate(module: nn.Module, batches: Batches, precision: str) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in percent over all images, in evaluation mode."""
    module.eval()
    losses, right = [], []
    for first in range(0, len(batches), EVALUATION_BATCH):
        last = min(first + EVALUATION_BATCH, len(batches))
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = module(channels_last(batches.unaugmented(first, last)))
        labels = batches.unaugmented_labels(first, last)
        losses.append(functional.cross_entropy(outputs.float(), labels, reduction="none").double().sum())
        right.append((outputs.argmax(1) == labels).sum())
    count = len(batches)
    return float(torch.stack(losses).sum()) / count, 100 * int(torch.stack(right).sum()) / count
