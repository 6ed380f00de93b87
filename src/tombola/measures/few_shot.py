"""Little data: sparse training of a ticket on a class-balanced subset (section 5.2 and Appendix F).

The mask, and with late rewinding the start, come from all the data (reading H7); only the sparse training is
on the subset. It runs as many epochs over the subset as a training runs over all the data (reading H1).
"""

from __future__ import annotations

import torch

from tombola.calls import Call, Written, directly
from tombola.data.imageset import DataLike
from tombola.data.subsets import subset
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.loop import train
from tombola.training.recipe import Recipe
from tombola.training.run import Run


def few_shot(
    ticket: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    share: float | None = None,
    shots: int | None = None,
    seed: int = 0,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Run:
    """The run of a ticket trained on a random subset and tested on the whole test split.

    ticket: a dense network is a ticket with a full mask; a control is a ticket too.
    share, shots, seed: of the subset, as for :func:`~tombola.data.subsets.subset`. One seed gives all
        configurations the same images, and smaller subsets lie within larger ones (reading H3).
    The other arguments and errors are as for :func:`~tombola.train`. For images of a chosen difficulty, train
    on what :func:`~tombola.measures.difficulty.forgotten_subset` gives.
    """
    call = directly(device, watch)
    return few_shot_training(
        call, ticket, data, recipe, share=share, shots=shots, seed=seed, noise=noise,
        order_noise=order_noise, augmentation_noise=augmentation_noise,
    )  # fmt: skip


def few_shot_training(
    call: Call[Written],
    ticket: Ticket | Written,
    data: object,
    recipe: Recipe,
    *,
    share: float | None = None,
    shots: int | None = None,
    seed: int = 0,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
) -> Run | Written:
    """The run of :func:`few_shot`, subset and training both made by ``call``."""
    part = call(subset, data, share=share, shots=shots, seed=seed)
    return call(
        train, ticket, part, recipe, noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise,
    )  # fmt: skip
