"""How a machine is divided among jobs: its cores and GPUs, worker processes, and the slots of each.

On a CPU every core is a worker process of one slot. On GPUs there is one process a GPU, whose slots train at
once: three, or six where networks or batches are so small that three leave the GPU idle.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch

from tombola.declarations import bare_name
from tombola.errors import RecipeError
from tombola.lab.job import Job, everything_behind

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

    processes: their number; on GPUs one for each.
    slots: threads of each process, which each run a job at a time: one on a CPU.
    gpus: for each process the GPU it sees, as in ``CUDA_VISIBLE_DEVICES``; empty on a CPU.
    """

    processes: int
    slots: int = 1
    gpus: tuple[str, ...] = ()


def crew_for(jobs: Collection[Job], device: torch.device, workers: int, slots: int | None) -> Crew:
    """The worker processes for these jobs on this machine, no more of them than there is work for.

    workers: the most processes on a CPU; on GPUs each GPU has one.
    slots: jobs at once on each GPU; None for :func:`default_slots`.
    """
    work = max(1, sum(job.counted for job in jobs))
    if device.type == "cpu":
        return Crew(min(workers, work))
    slots = slots or default_slots(jobs)
    gpus = available_gpus()
    if device.index is not None:
        gpus = (gpus[device.index],)
    gpus = gpus[: -(-work // slots)]
    return Crew(len(gpus), slots, gpus)


def default_slots(jobs: Iterable[Job]) -> int:
    """Trainings at once on one GPU for these jobs and all behind them: what suits the largest of them."""
    networks, batches = set(), set()
    for job in everything_behind(jobs):
        if isinstance(job.arguments.get("network"), str):
            networks.add(bare_name(job.arguments["network"]))
        recipe = job.arguments.get("recipe")
        if isinstance(recipe, dict):
            batches.add(recipe.get("batch_size", _SMALL_BATCH + 1))
    small = (networks and networks <= _SMALL_NETWORKS) or (batches and max(batches) <= _SMALL_BATCH)
    return _SMALL_STEPS if small else _USUAL


def available_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names each of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    return tuple(str(index) for index in range(torch.cuda.device_count()))
