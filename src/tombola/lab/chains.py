"""Pruning chains as jobs: the library's own searches (:mod:`tombola.search`), written down instead of run.

What can be refused before anything is trained is refused here, before the first job.
"""

from __future__ import annotations

import os
from typing import Unpack

from tombola.data.imageset import Data
from tombola.data.sizes import train_images
from tombola.lab.job import Job, job
from tombola.lab.teacher import Teacher, check_taught
from tombola.networks.network import Network
from tombola.networks.prunable import prunable_names
from tombola.pruning.prune import Pruning, PruningOptions
from tombola.search import chain, check_rounds
from tombola.ticket import initialize
from tombola.training.length import Length, steps_of_epoch, written_length
from tombola.training.loop import pretrain
from tombola.training.preflight import check_rewind
from tombola.training.recipe import Recipe


def start_job(
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    rewind: Length = 0,
    seed: int = 0,
    init: str | None = None,
    pretraining_noise: int | None = None,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Teacher | None = None,
) -> Job:
    """The start of a chain: an initialisation, pretrained to the place ``rewind`` if that is not 0.

    rewind: in epochs or iterations, as for :func:`tombola.pretrain`. A place past the budget is refused here
        if the number of images is known without loading them, and else when it is pretrained.
    init: initialisation scheme, as for :func:`tombola.initialize`.
    pretraining_noise: number of the noise of the pretraining; by default the seed. Under the chain's own
        number a rewound dense training goes on as if there had been no rewinding (at momentum 0, to the bit).
    order_noise, augmentation_noise: numbers of its two causes apart, as for :func:`~tombola.train`.
    teacher: of the pretraining, for a recipe of loss ``"distillation"``.
    """
    if isinstance(network, str):
        Network.of(network, channels=1, size=(1, 1), classes=1)  # refuses an unknown name
    start = job(initialize, network, data, seed=seed, init=init)
    if written_length(rewind) == 0:
        return start
    images = train_images(data)
    check_rewind(rewind, recipe, None if images is None else steps_of_epoch(images, recipe.batch_size))
    noise = seed if pretraining_noise is None else pretraining_noise
    return job(
        pretrain, start, data, recipe, epochs=rewind, noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, teacher=teacher,
    )  # fmt: skip


def imp_jobs(
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    rounds: int,
    rewind: Length = 0,
    same_noise: bool = False,
    seed: int = 0,
    init: str | None = None,
    pretraining_noise: int | None = None,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Teacher | None = None,
    **pruning: Unpack[PruningOptions],
) -> list[Job]:
    """The ``rounds + 1`` trainings of a pruning chain, the first of them dense.

    rewind: place that every round goes back to, an epoch or iterations, ``"500it"``; 0 is the initialisation.
    seed: number of both the initialisation and the noise.
    init, pretraining_noise: as for :func:`start_job`.
    order_noise, augmentation_noise: of all trainings, and of the pretraining unless that has its own noise.
    teacher: a run or ticket or the job of one, of all trainings and the pretraining, for a recipe of loss
        ``"distillation"``. One of another number of classes is refused here if these are known.
    The other arguments are as for :func:`tombola.imp`.
    """
    settings = Pruning(**pruning)
    check_chain(recipe, rounds, rewind, settings, teacher, data)
    check_layers(network, settings)
    causes = {"order_noise": order_noise, "augmentation_noise": augmentation_noise}
    start = start_job(
        network, data, recipe, rewind=rewind, seed=seed, init=init, pretraining_noise=pretraining_noise,
        teacher=teacher, **(causes if pretraining_noise is None else {}),
    )  # fmt: skip
    runs = chain(
        job, start, data, recipe, rounds=rounds, noise=seed, same_noise=same_noise, teacher=teacher,
        pruning=settings, **causes,
    )  # fmt: skip
    return [as_job(run) for run in runs]


def training_job(
    ticket: Job,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    seed: int = 0,
    same_noise: bool = False,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Teacher | None = None,
) -> Job:
    """The training of a ticket that was found in another way, as :func:`imp_jobs` trains those of a chain."""
    runs = chain(
        job, ticket, data, recipe, rounds=0, noise=seed, same_noise=same_noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, teacher=teacher,
    )  # fmt: skip
    return as_job(next(runs))


def check_chain(
    recipe: Recipe,
    rounds: int,
    rewind: Length,
    pruning: Pruning,
    teacher: Teacher | None = None,
    data: object = None,
) -> None:
    """Raises RecipeError for a rewinding, a number of rounds or a teacher that no such chain can have."""
    check_rounds(rounds, pruning, _BEYOND)
    check_taught(recipe, teacher, data)
    if written_length(rewind) != 0:
        check_rewind(rewind, recipe)


def check_layers(network: str, pruning: Pruning) -> None:
    """Raises RecipeError for layers named in a pruning that a network does not have."""
    if pruning.exclude or pruning.rates:
        # Which weights there are does not depend on the images.
        module = Network.of(network, channels=3, size=(32, 32), classes=10).initialized(0)
        pruning.check_names(prunable_names(module), f"prunable weight of {network}")


_BEYOND = 10**12
"""More weights than any network has that is trained on one device; how many, only the data tells."""


def ticket_jobs(
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    rounds: int,
    rewind: Length = 0,
    same_noise: bool = False,
    seed: int = 0,
    init: str | None = None,
    pretraining_noise: int | None = None,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Teacher | None = None,
    **pruning: Unpack[PruningOptions],
) -> list[Job]:
    """The ``rounds + 1`` tickets of a mask search, the first of them its start.

    recipe: of the mask search. For sparse training by another one (AIMP, section 4.3; the grid of section
        4.4) write down ``job(train, tickets[n], data, other, noise=seed)`` for the rounds that are wanted.
        One-shot pruning is a single round with the sparsity as its fraction.
    The other arguments are as for :func:`imp_jobs`, whose trainings these tickets share.
    """
    runs = imp_jobs(
        network, data, recipe, rounds=rounds, rewind=rewind, same_noise=same_noise, seed=seed, init=init,
        pretraining_noise=pretraining_noise, order_noise=order_noise, augmentation_noise=augmentation_noise,
        teacher=teacher, **pruning,
    )  # fmt: skip
    return [as_job(run.arguments["ticket"]) for run in runs]


def as_job(value: object) -> Job:
    """The same value, which is a job: what a call gave that was written down by ``job``."""
    assert isinstance(value, Job)
    return value
