"""tombola: the laboratory for lottery tickets and for the SGD noise that decides whether they win.

Everything public is here under ``import tombola as tb``. Names are loaded when first used, so that the
command line can answer without waiting for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tombola.data.augmentation import Augmentation as Augmentation
    from tombola.data.imageset import Data as Data
    from tombola.data.imageset import ImageSet as ImageSet
    from tombola.data.imageset import data_from_tensors as data_from_tensors
    from tombola.data.load import load_data as load_data
    from tombola.declared import declare as declare
    from tombola.errors import TombolaError as TombolaError
    from tombola.lab.job import Job as Job
    from tombola.lab.job import job as job
    from tombola.lab.lab import Lab as Lab
    from tombola.measures.connectivity import Barrier as Barrier
    from tombola.measures.connectivity import barrier as barrier
    from tombola.measures.convergence import convergence as convergence
    from tombola.measures.forgetting import Forgetting as Forgetting
    from tombola.measures.forgetting import forgetting as forgetting
    from tombola.networks.network import Network as Network
    from tombola.networks.network import declare_network as declare_network
    from tombola.pruning.controls import permute as permute
    from tombola.pruning.controls import randomize as randomize
    from tombola.pruning.controls import reinitialize as reinitialize
    from tombola.pruning.prune import prune as prune
    from tombola.search import imp as imp
    from tombola.ticket import Ticket as Ticket
    from tombola.ticket import initialize as initialize
    from tombola.training.checkpoint import Checkpoints as Checkpoints
    from tombola.training.checkpoint import Watch as Watch
    from tombola.training.loop import pretrain as pretrain
    from tombola.training.loop import train as train
    from tombola.training.recipe import Recipe as Recipe
    from tombola.training.run import Run as Run

__version__ = "0.1.0"

_HOMES = {
    "tombola.data.augmentation": ("Augmentation",),
    "tombola.data.imageset": ("Data", "ImageSet", "data_from_tensors"),
    "tombola.data.load": ("load_data",),
    "tombola.declared": ("declare",),
    "tombola.errors": ("TombolaError",),
    "tombola.lab.job": ("Job", "job"),
    "tombola.lab.lab": ("Lab",),
    "tombola.measures.connectivity": ("Barrier", "barrier"),
    "tombola.measures.convergence": ("convergence",),
    "tombola.measures.forgetting": ("Forgetting", "forgetting"),
    "tombola.networks.network": ("Network", "declare_network"),
    "tombola.pruning.controls": ("permute", "randomize", "reinitialize"),
    "tombola.pruning.prune": ("prune",),
    "tombola.search": ("imp",),
    "tombola.ticket": ("Ticket", "initialize"),
    "tombola.training.checkpoint": ("Checkpoints", "Watch"),
    "tombola.training.loop": ("pretrain", "train"),
    "tombola.training.recipe": ("Recipe",),
    "tombola.training.run": ("Run",),
}
_home_of = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_home_of)


def __getattr__(name: str) -> Any:
    if name not in _home_of:
        raise AttributeError(f"module 'tombola' has no attribute {name!r}")
    value = getattr(importlib.import_module(_home_of[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
