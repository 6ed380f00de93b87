"""Chooses the engine of a training, by rule and never by timing, because bits rest on it.

On a CPU steps are eager. On a GPU they are captured, and fused wherever they can be: fused steps were faster
than plain and than compiled ones for every network, batch size and number of packed runs measured
(benchmarks/gpu.md). With a PyTorch that they are not made for, steps are eager there too.
GPU engines are kept for the next training: capturing takes a second, and a pruning chain needs it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch

from tombola.data.imageset import Data
from tombola.errors import DeviceError, reason
from tombola.networks.network import Network
from tombola.training.cuda.capture import (
    forget_engines,
    keep_idle,
    knows_this_torch,
    raise_if_lost,
    take_idle,
    with_room,
)
from tombola.training.cuda.memory import note_caught, out_of_memory, watched
from tombola.training.definitions import LOSSES, OPTIMIZERS, definition_of, is_own
from tombola.training.device import Mode
from tombola.training.engines import EagerEngine, Engine, GraphedEngine
from tombola.training.losses import Teacher
from tombola.training.recipe import Recipe
from tombola.warn import warn

T = TypeVar("T")


@contextmanager
def engine_for(
    network: Network,
    data: Data,
    recipe: Recipe,
    device: torch.device,
    precision: str,
    mode: Mode,
    *,
    draws: bool = False,
    teacher: Teacher | None = None,
) -> Iterator[Engine]:
    """Lend the engine for a training, exclusively, for as long as the context lasts.

    draws: whether the network draws random numbers in training mode.
    teacher: for distillation.

    A network whose steps cannot be captured trains eagerly on a GPU too, with a warning. So do
    declared optimizers and distillation, as the engine's name says.

    Raises :class:`~tombola.errors.DeviceError` if the memory of the GPU does not suffice, and
    :class:`~tombola.errors.DeviceLost` if it did not in silence (:mod:`tombola.training.cuda.memory`).
    """
    never_captured = teacher is not None or is_own(OPTIMIZERS, recipe.optimizer)
    if device.type == "cpu" or never_captured or not knows_this_torch():
        with watched(device):
            yield EagerEngine(network, data, recipe, device, precision, draws=draws, teacher=teacher)
        return
    augmentation = recipe.augmentation
    key = (
        network, network.maker(), id(data), recipe.batch_size, recipe.optimizer, recipe.label_smoothing,
        recipe.loss, definition_of(LOSSES, recipe.loss),
        augmentation.padding(data), augmentation.fill, augmentation.cutout, augmentation.transform(),
        device, precision, mode,
    )  # fmt: skip
    try:
        engine: Engine | None = take_idle(key)
        if engine is None or not engine.set_numbers(recipe):
            engine = _captured(network, data, recipe, device, precision, draws)
            engine.set_numbers(recipe)
        # Captured steps have chosen their algorithms; eager ones choose as they go.
        with watched(device) if isinstance(engine, EagerEngine) else nullcontext():
            yield engine
    except torch.OutOfMemoryError as error:
        note_caught(error)
        forget_engines()
        raise DeviceError(
            f"{out_of_memory(device)}: {network.name} at batch size {recipe.batch_size} does not fit beside "
            "what else runs there; use fewer slots or a smaller batch"
        ) from error
    # What this thread has launched may still be under way, and the next user's stream does not wait for it.
    torch.cuda.current_stream(device).synchronize()
    # Not after an error, which may leave an engine in any state.
    keep_idle(key, engine)


def _captured(
    network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str, draws: bool
) -> Engine:
    """A new graphed engine; an eager one, with a warning, for a network that cannot be captured."""
    engine = captured_or_cause(lambda: GraphedEngine(network, data, recipe, device, precision, draws=draws))
    if isinstance(engine, str):
        transform = recipe.augmentation.transform()
        under = "" if transform is None else f" under augmentation {transform.name}"
        warn(
            f"network {network.name}{under} cannot be captured as a CUDA graph and trains step by step: "
            f"{engine}"
        )
        return EagerEngine(network, data, recipe, device, precision, draws=draws)
    return engine


def captured_or_cause(make: Callable[[], T]) -> T | str:
    """What ``make`` returns, or as text why it cannot be captured, because it waits for the GPU, say.

    Where cuDNN fails, as it may while others fill the GPU, idle engines are evicted and it is called again:
    eager steps have other bits.

    Raises ``torch.OutOfMemoryError`` where memory does not suffice, and ``torch.AcceleratorError`` for a
    device in trouble.
    """
    for _ in range(2):
        try:
            return with_room(make)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError as error:
            raise_if_lost()  # Triton has an error of its own for a device that another thread has lost
            cause = reason(error)
        if "cudnn" not in cause.lower():
            break
        forget_engines()
    return cause
