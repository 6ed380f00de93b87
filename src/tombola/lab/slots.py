"""How many trainings share a GPU, unless somebody says so.

Measured on an H200 (benchmarks/gpu.md): three at once keep it busy at batch sizes of 100 and more; steps of a
few images, and small networks, leave so much room that six do.
"""

from __future__ import annotations

from collections.abc import Iterable

from tombola.lab.job import Job, everything_behind
from tombola.networks.versions import bare_name

_USUAL, _SMALL_STEPS = 3, 6
_SMALL_NETWORKS = frozenset({"convnet", "resnet20"})
_SMALL_BATCH = 32


def default_slots(jobs: Iterable[Job]) -> int:
    """Trainings at once on one GPU for these jobs and all behind them: what suits the largest of them."""
    networks, batches = set(), set()
    for each in everything_behind(jobs):
        if isinstance(each.arguments.get("network"), str):
            networks.add(bare_name(each.arguments["network"]))
        recipe = each.arguments.get("recipe")
        if isinstance(recipe, dict):
            batches.add(recipe.get("batch_size", _SMALL_BATCH + 1))
    small = (networks and networks <= _SMALL_NETWORKS) or (batches and max(batches) <= _SMALL_BATCH)
    return _SMALL_STEPS if small else _USUAL
