"""Memorisation of training images (Feldman & Zhang, 2020): what a network gets right only if it has seen it.

It is estimated from many trainings, each on a random part of the images: how often an image is right where it
was trained on, minus how often it is where it was not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tombola.cost import Cost, Outline, Size, forward
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError
from tombola.files import checksum
from tombola.measures.example_scores import ExampleScores
from tombola.measures.predictions import logits_of
from tombola.measures.selection import Selection, members_of, random_selection, selected
from tombola.registry import declare
from tombola.training.checkpoint import Watch
from tombola.training.run import Run


def _predictions_cost(runs: Sequence[Outline], data: Size) -> Cost:
    """A pass over the train images, of each run."""
    return forward(runs[0], len(runs) * data.train * data.share)


@declare("memorization", cost=_predictions_cost)
def memorization(
    runs: Sequence[Run],
    data: DataLike,
    *,
    share: float = 0.7,
    seeds: Sequence[int] | None = None,
    selections: Sequence[Selection] | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> ExampleScores:
    """The memorisation of each train image, -1 to 1, high where it is right only if trained on.

    mem(i) = P(i is right | i was trained on) - P(i is right | it was not), each the share of the runs of that
    kind, in evaluation mode without augmentation (Feldman & Zhang, 2020, who train on random selections of
    0.7 of the images, 4,000 times on CIFAR-100, and call 0.25 and above memorised).

    runs: each trained on another part of the train images of ``data``.
    share, seeds: of the parts, ``tb.selected(data, tb.random_selection(data, share=share, seed=seed))``, in
        the order of the runs; by default the seeds are 0, 1, and so on. A run that was trained on other
        data is refused, where it knows what it was trained on.
    selections: in place of these, what each run was trained on, which is not looked into.

    NaN for an image that all runs were trained on, or none. With t runs on a share q the standard deviation
    of an estimate is about sqrt(p (1 - p) (1 / (q t) + 1 / ((1 - q) t))): up to 0.11 for a hundred at 0.7.

    Raises :class:`~tombola.errors.RecipeError` for other than as many parts as runs, two or more, for seeds
    beside selections, and for parts that are all of the images, :class:`~tombola.errors.TicketError` for a
    run trained on another number of images or on other ones than its seed gives, and
    :class:`~tombola.errors.Undefined` for one that diverged.
    """
    data = load_data(data)
    if selections is not None and seeds is not None:
        raise RecipeError("seeds are given beside selections, which say already what each run was trained on")
    chosen = selections
    if selections is None:
        numbers = range(len(runs)) if seeds is None else seeds
        selections = [random_selection(data, share=share, seed=number) for number in numbers]
    if len(runs) != len(selections) or len(runs) < 2:
        raise RecipeError(
            f"there are {len(runs)} runs and {len(selections)} parts of the data; give two runs or more, and "
            "for each what it was trained on"
        )
    members = members_of(selections)
    if members.all():
        raise RecipeError("every part is all of the images; memorisation compares runs with and without each")
    for run, selection in zip(runs, selections, strict=True):
        if not run.foreign and len(run.forgetting.events) != selection.count:
            raise TicketError(
                f"a run was trained on {len(run.forgetting.events):,} images, but its part has "
                f"{selection.count:,}; give the share and the seeds that it was trained with"
            )
    if chosen is None:
        _check_parts(runs, data, selections)
    right = []
    for run in runs:
        logits, labels = logits_of(run, data, what="memorization", device=device, watch=watch)
        right.append(logits.argmax(1) == labels)
    values = memorization_of(torch.stack(right), members)
    digest = checksum(data.train.labels)
    return ExampleScores("memorization", values, runs=len(runs), labels_checksum=digest)


def _check_parts(runs: Sequence[Run], data: Data, selections: Sequence[Selection]) -> None:
    """Raises TicketError for a run that was trained on other data than its random selection leaves."""
    for place, (run, selection) in enumerate(zip(runs, selections, strict=True)):
        if run.data is not None and run.data != selected(data, selection).fingerprint:
            raise TicketError(
                f"runs[{place}] was trained on other data than its part; give the share and the seeds "
                "that it was trained with, or as selections what each run was trained on"
            )


def memorization_of(right: Tensor, members: Tensor) -> Tensor:
    """The memorisation of each image, float64 ``(N,)``; NaN where all runs had it, or none.

    right: bool ``(runs, N)``, whether a run classifies an image as labelled.
    members: bool ``(runs, N)``, whether it was trained on it.
    """
    shares = [(right & rows).sum(0).double() / rows.sum(0) for rows in (members, ~members)]
    return shares[0] - shares[1]
