"""Kernels of a training, compiled by several threads before the first of them is launched.

Triton compiles each kernel where it is first launched, one after the other, and a ResNet-18 has over a
hundred. Which they are follows from shapes and types alone: all that a training does is done once on meta
tensors, which have nothing else, and there kernels are compiled and not launched
(:class:`~tombola.training.cuda.kernels.Kernel`). Nothing rests on it: one that is missed is compiled later.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
import triton
from torch import nn
from triton.runtime.cache import get_cache_manager

from tombola.cores import available_cores
from tombola.data.augmentation import Draws
from tombola.data.batches import Batches
from tombola.data.imageset import Data, ImageSet
from tombola.networks.network import Network
from tombola.training.cuda.fused import FusedNetwork, FusedStep
from tombola.training.cuda.kernels import KERNELS, crop, cross_entropy
from tombola.training.cuda.rewrite import CHECKED_IMAGES, fused
from tombola.training.epoch import DevicePlan
from tombola.training.evaluation import EVALUATION_BATCH, prepare_gpu
from tombola.training.flat_network import FlatNetwork, channels_last
from tombola.training.recipe import Recipe

_META = torch.device("meta")
_THREADS = 16

# Trainings that begin together would compile the same kernels.
_compiling = threading.Lock()


def compile_kernels(network: Network, data: Data, recipe: Recipe, precision: str, drawn: Draws) -> None:
    """Compile the kernels of a training on the current GPU, unless a process did so before.

    drawn: of one epoch, for shapes.
    """
    with suppress(Exception), _compiling:
        mark = get_cache_manager(_key(network, data, recipe, precision))
        if mark.get_file("compiled") is not None:
            return
        in_threads = triton.AsyncCompileMode  # not every Triton has it
        for thread in prepare_gpu(torch.device("cuda", torch.cuda.current_device())):
            thread.join()
        with ThreadPoolExecutor(max(1, min(_THREADS, available_cores()))) as pool:
            # What cannot be done without values is compiled as it comes, and not tried again.
            with suppress(Exception), in_threads(pool, ignore_errors=True):
                _train_and_evaluate(network, data, recipe, precision, drawn)
            mark.put(b"", "compiled")
            _build_launchers(pool)


def _key(network: Network, data: Data, recipe: Recipe, precision: str) -> str:
    """What the kernels of a training follow from, as hexadecimal digits."""
    parts = (
        triton.__version__, torch.__version__, triton.runtime.driver.active.get_current_target(),
        sorted(kernel.function.cache_key for kernel in KERNELS),
        network.description(), precision, recipe.batch_size, recipe.optimizer, recipe.loss,
        recipe.label_smoothing, str(recipe.augmentation), data.shape, len(data.train), len(data.test),
        EVALUATION_BATCH,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _train_and_evaluate(network: Network, data: Data, recipe: Recipe, precision: str, drawn: Draws) -> None:
    """On meta tensors, what checking the fused network, its steps and its evaluation launch."""
    flat_network = FlatNetwork(network, _META, recipe.optimizer_states)
    _check(flat_network.module, flat_network.images)
    fused_network = FusedNetwork(flat_network, precision)
    augmentation = recipe.augmentation
    pad, fill = augmentation.padding(data), augmentation.fill
    batches = Batches(_without_values(data.train), data, pad=pad, fill=fill, device=_META)
    count = len(data.train)
    size = min(recipe.batch_size, count)
    step = FusedStep(flat_network, fused_network, batches, recipe, size)
    plan = DevicePlan.empty(count, size, _META, drawn)
    for images in _sizes(count, size):
        step.learn(*step.inputs(plan, images), plan.rates[0])
    batches = Batches(_without_values(data.test), data, device=_META)
    count = len(data.test)
    plan = DevicePlan.unaugmented(count, min(EVALUATION_BATCH, count), 0, _META)
    with torch.no_grad():
        for size in _sizes(count, plan.batch_size):
            inputs, targets = crop(batches, plan, size, fused_network.dtype)
            cross_entropy(fused_network(inputs, training=False), targets)


def _check(module: nn.Module, shape: tuple[int, ...]) -> None:
    rewritten = fused(copy.deepcopy(module))
    images = channels_last(torch.zeros(CHECKED_IMAGES, *shape, device=_META))
    for training in (True, False):
        rewritten.train(training)
        outputs = rewritten(images)
        if training:
            outputs.sum().backward()


def _without_values(split: ImageSet) -> ImageSet:
    return replace(split, images=split.images.to(_META), labels=split.labels.to(_META))


def _sizes(count: int, size: int) -> Iterator[int]:
    """Of full batches and of a smaller last one."""
    yield size
    if count % size:
        yield count % size


def _build_launchers(pool: ThreadPoolExecutor) -> None:
    """Compile what launches the kernels, in C: one for all of the same types of arguments."""
    driver = triton.runtime.driver.active
    device = driver.get_current_device()
    compiled: dict[Any, Any] = {}
    for kernel in KERNELS:
        for one in kernel.function.device_caches[device][0].values():
            types = [str(type_) for type_ in one.src.signature.values()]
            compiled.setdefault(tuple("*" if type_[0] == "*" else type_ for type_ in types), one)
    for built in [pool.submit(driver.launcher_cls, one.src, one.metadata) for one in compiled.values()]:
        built.result()
