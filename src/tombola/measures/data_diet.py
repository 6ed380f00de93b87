"""Data diets: what of a search is done on a part of the train images only (Paul et al., 2022).

Paul, Larsen, Ganguli, Frankle & Dziugaite, "Lottery tickets on a data diet: finding initializations with
sparse trainable networks". They pretrain on few images, as many steps as on all, and search and train on all
(:func:`pretrain_on_part`); in :func:`data_diet` the masks are searched for on the part. Few-shot training
(:mod:`tombola.measures.few_shot`) is the mirror image. A part is made by :func:`tombola.subset` (random),
:func:`tombola.forgotten_subset` (by forgetting) or :func:`tombola.take` (by any score).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Unpack

import torch

from tombola.calls import Call, Written, directly
from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.data.subsets import rounded_half_up
from tombola.errors import DataError
from tombola.pruning.prune import Pruning, PruningOptions
from tombola.registry import declare
from tombola.search import check_rounds, tickets
from tombola.seeds import NOISES
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.estimate import pretrain_cost
from tombola.training.length import Length, iterations_of, place_of, steps_of_epoch
from tombola.training.loop import pretrain, train
from tombola.training.preflight import check_rewind
from tombola.training.recipe import Recipe
from tombola.training.run import Run


def as_many_steps(recipe: Recipe, share: float) -> Recipe:
    """The recipe that takes on a share of the images as many steps as the given one on all.

    share: above 0 and at most 1. Epochs, milestones and warm-up become 1 / share times as many, rounded to
        whole epochs, half up; lengths in iterations stay.

    Raises :class:`~tombola.errors.DataError` for another share, and
    :class:`~tombola.errors.RecipeError` for more epochs than a recipe can have.
    """
    if not 0 < share <= 1:
        raise DataError(f"share is {share}; it must lie above 0 and be at most 1")

    def longer(length: Length) -> Length:
        if iterations_of(length) is not None:
            return length
        return rounded_half_up(int(length) / share)

    fields: dict[str, Any] = {
        "epochs": longer(recipe.epochs),
        "milestones": tuple(map(longer, recipe.milestones)),
        "warmup": longer(recipe.warmup),
    }
    return replace(recipe, **fields)


def _pretrain_on_part_cost(start: Outline, data: Size, recipe: Recipe, epochs: Length) -> Cost:
    """As many steps as a pretraining on all images takes."""
    return pretrain_cost(start, data, recipe, epochs)


@declare("pretrain-on-part", cost=_pretrain_on_part_cost, default_to=NOISES)
def pretrain_on_part(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    part: Data,
    epochs: Length = 2,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Ticket:
    """Train a dense start on a part of the images for as many steps as its first epochs on all would take.

    data: all images, by which ``epochs`` is measured; the search and its trainings follow on them.
    recipe: of the trainings on all images; the pretraining goes by :func:`as_many_steps` of it, so that the
        learning rate is at each step about what it would be on all.
    part: the images that are trained on.
    epochs: place in the schedule, as for :func:`tombola.pretrain`: Paul et al. (2022) have ``"200it"`` and
        more, on 3,200 images of CIFAR-10 and up.

    The ticket stands at that place of the schedule of ``data``: a search from it on all images goes on as
    after :func:`tombola.pretrain`. The other arguments and errors are as there.
    """
    data = load_data(data)
    steps = steps_of_epoch(len(data.train), recipe.batch_size)
    check_rewind(epochs, recipe, steps)
    epoch, step = place_of(epochs, steps)
    pretrained = pretrain(
        start, part, as_many_steps(recipe, min(1.0, len(part.train) / len(data.train))),
        epochs=f"{epoch * steps + step}it", noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, device=device, watch=watch,
    )  # fmt: skip
    return at_same_step(pretrained, before=part, data=data, batch_size=recipe.batch_size)


def _at_same_step_cost(ticket: Outline, before: Size, data: Size) -> Cost:
    """No training; the place is that of other data."""
    ratio = before.train * before.share / (data.train * data.share) if data.train else 1.0
    return Cost(result=replace(ticket, epoch=ticket.epoch * ratio))


@declare("at-same-step", stored=False, cost=_at_same_step_cost)
def at_same_step(ticket: Ticket, *, before: Data, data: Data, batch_size: int) -> Ticket:
    """The ticket at the same step of the schedule of other data, where an epoch has another number of steps.

    before: the data that its place in the schedule is of. data: that it shall be of. batch_size: of both.
    """
    steps = steps_of_epoch(len(before.train), batch_size)
    now = steps_of_epoch(len(data.train), batch_size)
    epoch, step = divmod(ticket.epoch * steps + ticket.step, now)
    return replace(ticket, epoch=epoch, step=step, steps=now if step else 1)


def data_diet(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    part: Data,
    rounds: int,
    search: Recipe | None = None,
    noise: int = 0,
    same_noise: bool = False,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
    **pruning: Unpack[PruningOptions],
) -> Iterator[Run]:
    """Trainings on all images of tickets that were searched for on a part: ``rounds + 1``, the first dense.

    start: what every round is rewound to.
    data: what tickets are trained on in the end, and their runs tested.
    recipe: of these trainings.
    part: the images of the mask search, such as ``subset(data, share=0.25)``.
    search: recipe of the mask search; by default :func:`as_many_steps` of ``recipe``, for Paul et al. (2021,
        2022) compare equal numbers of steps. A start that was taken later than at the initialisation is at
        the same step of both schedules.
    rounds, noise, same_noise, pruning: as for :func:`tombola.imp`. The training of a ticket sees noise that
        none of those behind its mask has seen.

    Raises as ``imp`` does.
    """
    data = load_data(data)
    settings = Pruning(**pruning)
    check_rounds(rounds, settings, sum(int(start.mask[name].sum()) for name in settings.ranked(start)))
    if search is None:
        search = as_many_steps(recipe, min(1.0, len(part.train) / len(data.train)))
    return diet_trainings(
        directly(device, watch), start, data, recipe, part=part, search=search, rounds=rounds, noise=noise,
        same_noise=same_noise, pruning=settings,
    )  # fmt: skip


def diet_trainings(
    call: Call[Written],
    start: Ticket | Written,
    data: object,
    recipe: Recipe,
    *,
    part: object,
    search: Recipe,
    rounds: int,
    noise: int = 0,
    same_noise: bool = False,
    pruning: Pruning | None = None,
) -> Iterator[Run | Written]:
    """The runs of :func:`data_diet`, each made by ``call`` when it is wanted."""
    size = recipe.batch_size
    begun = call(at_same_step, start, before=data, data=part, batch_size=size)
    searched = tickets(
        call, begun, part, search, rounds=rounds, noise=noise, same_noise=same_noise, pruning=pruning
    )
    options = {"noise": noise, "noise_round": 0 if same_noise else None}
    yield call(train, start, data, recipe, **options)
    for ticket in islice(searched, 1, None):
        back = call(at_same_step, ticket, before=part, data=data, batch_size=size)
        yield call(train, back, data, recipe, **options)
