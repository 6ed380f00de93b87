"""tombola: the laboratory for lottery tickets and for the SGD noise that decides whether they win.

Everything public is here under ``import tombola as tb``. Names are loaded when first used, so that the
command line can answer without waiting for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tombola.data.augmentation import Augmentation as Augmentation
    from tombola.data.fitting import fit_images as fit_images
    from tombola.data.imageset import Data as Data
    from tombola.data.imageset import ImageSet as ImageSet
    from tombola.data.imageset import data_from_tensors as data_from_tensors
    from tombola.data.load import load_data as load_data
    from tombola.data.subset import subset as subset
    from tombola.declared import declare as declare
    from tombola.errors import TombolaError as TombolaError
    from tombola.lab.job import Job as Job
    from tombola.lab.job import job as job
    from tombola.lab.lab import Lab as Lab
    from tombola.lab.stable import first_stable_epochs as first_stable_epochs
    from tombola.measures.connectivity import Barrier as Barrier
    from tombola.measures.connectivity import barrier as barrier
    from tombola.measures.convergence import convergence as convergence
    from tombola.measures.difficulty import drop_by_difficulty as drop_by_difficulty
    from tombola.measures.difficulty import forgotten_subset as forgotten_subset
    from tombola.measures.few_shot import few_shot as few_shot
    from tombola.measures.first_stable import FirstStable as FirstStable
    from tombola.measures.first_stable import first_stable_epoch as first_stable_epoch
    from tombola.measures.first_stable import over_starts as over_starts
    from tombola.measures.forgetting import Forgetting as Forgetting
    from tombola.measures.forgetting import SummedForgetting as SummedForgetting
    from tombola.measures.forgetting import forgetting as forgetting
    from tombola.measures.forgetting import forgetting_curve as forgetting_curve
    from tombola.measures.forgetting import forgetting_ranking as forgetting_ranking
    from tombola.measures.forgetting import summed_forgetting as summed_forgetting
    from tombola.measures.instability import Instability as Instability
    from tombola.measures.instability import between_rounds as between_rounds
    from tombola.measures.instability import instability as instability
    from tombola.measures.instability import noise_copies as noise_copies
    from tombola.measures.probe import Probes as Probes
    from tombola.measures.probe import probe as probe
    from tombola.measures.statistics import Summary as Summary
    from tombola.measures.statistics import difference as difference
    from tombola.measures.statistics import summarize as summarize
    from tombola.measures.transfer import Transfer as Transfer
    from tombola.measures.transfer import transfer as transfer
    from tombola.measures.untrained import untrained as untrained
    from tombola.networks.initialization import declare_init as declare_init
    from tombola.networks.network import Network as Network
    from tombola.networks.network import declare_network as declare_network
    from tombola.pruning.controls import densify as densify
    from tombola.pruning.controls import permute as permute
    from tombola.pruning.controls import randomize as randomize
    from tombola.pruning.controls import reinitialize as reinitialize
    from tombola.pruning.prune import prune as prune
    from tombola.search import imp as imp
    from tombola.search import mask_search as mask_search
    from tombola.search import one_shot as one_shot
    from tombola.studies.own import OwnStudy as OwnStudy
    from tombola.ticket import Ticket as Ticket
    from tombola.ticket import initialize as initialize
    from tombola.training.checkpoint import Checkpoints as Checkpoints
    from tombola.training.checkpoint import Watch as Watch
    from tombola.training.loop import pretrain as pretrain
    from tombola.training.loop import train as train
    from tombola.training.recipe import Recipe as Recipe
    from tombola.training.run import Run as Run
    from tombola.training.trunk import ticket_at as ticket_at
    from tombola.training.trunk import trunk as trunk

__version__ = "0.1.0"

_HOMES = {
    "tombola.data.augmentation": ("Augmentation",),
    "tombola.data.fitting": ("fit_images",),
    "tombola.data.imageset": (
        "Data",
        "ImageSet",
        "data_from_tensors",
    ),
    "tombola.data.load": ("load_data",),
    "tombola.data.subset": ("subset",),
    "tombola.declared": ("declare",),
    "tombola.errors": ("TombolaError",),
    "tombola.lab.job": (
        "Job",
        "job",
    ),
    "tombola.lab.lab": ("Lab",),
    "tombola.lab.stable": ("first_stable_epochs",),
    "tombola.measures.connectivity": (
        "Barrier",
        "barrier",
    ),
    "tombola.measures.convergence": ("convergence",),
    "tombola.measures.difficulty": (
        "drop_by_difficulty",
        "forgotten_subset",
    ),
    "tombola.measures.few_shot": ("few_shot",),
    "tombola.measures.first_stable": (
        "FirstStable",
        "first_stable_epoch",
        "over_starts",
    ),
    "tombola.measures.forgetting": (
        "Forgetting",
        "SummedForgetting",
        "forgetting",
        "forgetting_curve",
        "forgetting_ranking",
        "summed_forgetting",
    ),
    "tombola.measures.instability": (
        "Instability",
        "between_rounds",
        "instability",
        "noise_copies",
    ),
    "tombola.measures.probe": (
        "Probes",
        "probe",
    ),
    "tombola.measures.statistics": (
        "Summary",
        "difference",
        "summarize",
    ),
    "tombola.measures.transfer": (
        "Transfer",
        "transfer",
    ),
    "tombola.measures.untrained": ("untrained",),
    "tombola.networks.initialization": ("declare_init",),
    "tombola.networks.network": (
        "Network",
        "declare_network",
    ),
    "tombola.pruning.controls": (
        "densify",
        "permute",
        "randomize",
        "reinitialize",
    ),
    "tombola.pruning.prune": ("prune",),
    "tombola.search": (
        "imp",
        "mask_search",
        "one_shot",
    ),
    "tombola.studies.own": ("OwnStudy",),
    "tombola.ticket": (
        "Ticket",
        "initialize",
    ),
    "tombola.training.checkpoint": (
        "Checkpoints",
        "Watch",
    ),
    "tombola.training.loop": (
        "pretrain",
        "train",
    ),
    "tombola.training.recipe": ("Recipe",),
    "tombola.training.run": ("Run",),
    "tombola.training.trunk": (
        "ticket_at",
        "trunk",
    ),
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
