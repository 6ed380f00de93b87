"""How a machine is divided among jobs: its cores and GPUs, worker processes, and the slots of each.

On a CPU every core is a worker process of one slot. On GPUs there is one process a GPU, whose slots train at
once: three, or six where networks or batches are so small that three leave the GPU idle; fewer on one whose
free memory has no room for as many.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from tombola.declarations import bare_name
from tombola.errors import RecipeError
from tombola.lab.job import Job, data_behind, everything_behind
from tombola.networks.network import Network
from tombola.training.footprint import CONTEXT_BYTES, DataFootprint, training_bytes
from tombola.training.recipe import Recipe

_USUAL, _SMALL_STEPS = 3, 6
_SMALL_NETWORKS = frozenset({"convnet", "resnet20"})
_SMALL_BATCH = 32
_MOST_SLOTS = 64


def check_slots(slots: int | None) -> None:
    """Raises RecipeError for more jobs at once than a GPU of any size has memory for."""
    if slots is not None and slots > _MOST_SLOTS:
        raise RecipeError(f"slots is {slots}; no more than {_MOST_SLOTS} jobs share a GPU")


@dataclass(frozen=True)
class Crew:
    """The worker processes of one machine.

    slots: for each process its threads, which each run a job at a time: one on a CPU. On GPUs there is one
        process for each.
    gpus: for each process the GPU it sees, as in ``CUDA_VISIBLE_DEVICES``; empty on a CPU.
    """

    slots: tuple[int, ...]
    gpus: tuple[str, ...] = ()


def crew_for(
    jobs: Collection[Job],
    device: torch.device,
    workers: int,
    slots: int | None,
    data: Mapping[str, DataFootprint] = MappingProxyType({}),
) -> Crew:
    """The worker processes for these jobs on this machine, no more of them than there is work for.

    workers: the most processes on a CPU; on GPUs each GPU has one.
    slots: jobs at once on each GPU; None for :func:`default_slots`, or on each as many of them as fit.
    data: what the data of the jobs are, by name.
    """
    work = max(1, sum(job.counted for job in jobs))
    if device.type == "cpu":
        return Crew((1,) * min(workers, work))
    gpus = available_gpus()
    if device.index is not None:
        gpus = (gpus[device.index],)
    fitting = (
        [slots] * len(gpus) if slots else fitting_slots(jobs, default_slots(jobs), free_memory(gpus), data)
    )
    # The GPUs with most room, in their order.
    threads, places = 0, list[int]()
    for place in sorted(range(len(gpus)), key=lambda place: -fitting[place]):
        if threads < work:
            places.append(place)
            threads += fitting[place]
    places.sort()
    return Crew(tuple(fitting[place] for place in places), tuple(gpus[place] for place in places))


def default_slots(jobs: Iterable[Job]) -> int:
    """Trainings at once on one GPU for these jobs and all behind them: what suits the largest of them."""
    described, recipes = _trained(jobs)
    networks = {bare_name(network) for network in described if isinstance(network, str)}
    batches = {recipe.get("batch_size", _SMALL_BATCH + 1) for recipe in recipes}
    small = (networks and networks <= _SMALL_NETWORKS) or (batches and max(batches) <= _SMALL_BATCH)
    return _SMALL_STEPS if small else _USUAL


def _trained(jobs: Iterable[Job]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The networks and the recipes of these jobs and all behind them, as their arguments have them."""
    networks, recipes = [], []
    for job in everything_behind(jobs):
        if job.arguments.get("network") is not None:
            networks.append(job.arguments["network"])
        if isinstance(job.arguments.get("recipe"), dict):
            recipes.append(job.arguments["recipe"])
    return networks, recipes


def fitting_slots(
    jobs: Collection[Job], most: int, free: Sequence[int | None], data: Mapping[str, DataFootprint]
) -> list[int]:
    """For each of some GPUs as many trainings at once as fit its free memory, from one to ``most``.

    free: bytes of each; None where it is not known, which leaves it at ``most``. So do networks that cannot
        be looked at here, and data that are not among ``data``.
    """
    if most == 1 or all(room is None for room in free):
        return [most] * len(free)
    try:
        footprints = [data[name] for name in data_behind(jobs)]
        described, recipes = _trained(jobs)
        networks = [
            Network.described(network)
            if isinstance(network, dict)
            else Network.of(
                network, channels=inputs.channels, size=inputs.size, classes=inputs.classes,
                vocabulary=inputs.vocabulary,
            )
            for network in {json.dumps(network): network for network in described}.values()
            for inputs in footprints
        ]  # fmt: skip
        kinds = {
            (recipe.get("batch_size", Recipe.batch_size), recipe.get("precision", Recipe.precision))
            for recipe in recipes
        }
        needs = [
            training_bytes(network, size, "float32" if precision == "float32" else "bfloat16")
            for network in networks
            for size, precision in kinds
        ]
    except Exception:  # a user's network may fail in any way; the job that trains it will say so
        return [most] * len(free)
    if not needs:
        return [most] * len(free)
    shared = CONTEXT_BYTES + sum(inputs.bytes for inputs in footprints)
    return [most if room is None else max(1, min(most, (room - shared) // max(needs))) for room in free]


def free_memory(gpus: Sequence[str]) -> list[int | None]:
    """Bytes that are free now on each of some GPUs, as :func:`available_gpus` names them.

    By the driver's library, because PyTorch would take a part of that memory itself to ask. None where that
    library is missing or does not know a GPU, such as a part of one.
    """
    names = [_drivers_name(gpu) for gpu in gpus]
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2():
            return [None] * len(gpus)
        try:
            return [None if name is None else _free_memory(library, name) for name in names]
        finally:
            library.nvmlShutdown()
    except (OSError, AttributeError):
        return [None] * len(gpus)


def _drivers_name(gpu: str) -> str | None:
    """The name by which the driver's library knows a GPU; None where it cannot be told.

    A number says nothing there: CUDA counts the fastest GPU first, the library in the order of their slots.
    """
    if not gpu.isdecimal():
        return gpu
    try:
        return f"GPU-{torch.cuda.get_device_properties(available_gpus().index(gpu)).uuid}"
    except (AttributeError, AssertionError, RuntimeError, ValueError):
        return None


def _free_memory(library: ctypes.CDLL, name: str) -> int | None:
    handle, sizes = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
    failed = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
    if failed or library.nvmlDeviceGetMemoryInfo(handle, sizes):
        return None
    return int(sizes[1])


def available_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names each of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    return tuple(str(index) for index in range(torch.cuda.device_count()))
