"""Devices, precisions, and the environment on which equal bits rest."""

from __future__ import annotations

from typing import Any

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


def environment(device: torch.device, precision: str, engine: str) -> dict[str, Any]:
    """What must be equal for two trainings to give equal bits."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return {
        "tombola": tombola.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,  # its generators draw every order and augmentation
        "device": device.type,
        "hardware": hardware,
        "precision": precision,
        "engine": engine,
    }
