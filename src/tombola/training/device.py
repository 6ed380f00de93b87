"""Devices, precisions, and the environment on which equal bits rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy
import torch

import tombola
from tombola.errors import RecipeError
from tombola.training.recipe import Recipe


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device meant; None or ``"auto"`` takes a GPU if there is one.

    Raises :class:`~tombola.errors.RecipeError` for a device that is not there.
    """
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise RecipeError(f"no device {device!r}; known: auto, cpu, cuda, cuda:0, ...") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise RecipeError(f"device {str(device)!r} asked for, but PyTorch sees no GPU; use cpu or auto")
    if resolved.type not in ("cpu", "cuda"):
        raise RecipeError(f"device {str(device)!r} is not supported; use cpu or cuda")
    return resolved


def resolve_precision(recipe: Recipe, device: torch.device) -> str:
    """``"float32"`` or ``"bfloat16"``: what convolutions and products are computed in."""
    if recipe.precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if recipe.precision == "bfloat16" and device.type == "cpu":
        raise RecipeError("precision 'bfloat16' is for GPUs; on a CPU use 'float32' or 'auto'")
    return recipe.precision


def hardware_name(device: torch.device) -> str:
    """The name of a GPU, or the instruction set of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def environment(device: torch.device, precision: str, engine: str) -> dict[str, Any]:
    """What must be equal for two trainings to give equal bits."""
    hardware = hardware_name(device)
    if device.type == "cpu":
        hardware += f", {torch.get_num_threads()} threads"
    return {
        "tombola": tombola.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,  # its generators draw every order and augmentation
        "device": device.type,
        "hardware": hardware,
        "precision": precision,
        "engine": engine,
    }


class _Repeatable:
    """The settings of PyTorch on which equal bits on a GPU rest, and how many trainings want them now."""

    _WANTED: ClassVar[tuple[tuple[Any, str, bool], ...]] = (
        (torch.backends.cudnn, "benchmark", False),  # chooses by timing, another day otherwise
        (torch.backends.cudnn, "deterministic", True),
        (torch.backends.cudnn, "allow_tf32", False),  # float32 is meant where a recipe says so
        (torch.backends.cuda.matmul, "allow_tf32", False),
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[bool] = []

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = [getattr(place, name) for place, name, _ in self._WANTED]
                for place, name, value in self._WANTED:
                    setattr(place, name, value)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for (place, name, _), value in zip(self._WANTED, self._before, strict=True):
                    setattr(place, name, value)


_repeatable = _Repeatable()


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let PyTorch compute on a GPU so that bits repeat; afterwards its settings are what they were.

    The settings belong to the process, so trainings in several threads share them: the first brings them in,
    the last takes them back. Measured on an H200: without cuDNN's deterministic mode float32 trainings never
    repeated; with it all did, and bfloat16 epochs took as long as without.
    """
    if device.type != "cuda":
        yield
        return
    _repeatable.enter()
    try:
        yield
    finally:
        _repeatable.leave()
