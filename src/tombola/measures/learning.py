"""Forgetting and convergence: how a run learned, from its record of training (section 3.2, Fig. 6; Eq. 4).

Both are exact and cheap once a run is in memory. At paper scale reading its weights is what takes long, so
:func:`learning` keeps their numbers as a small result of its own, from which reports are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.errors import RecipeError, TicketError
from tombola.registry import declare
from tombola.seeds import generator
from tombola.training.run import ForgettingRecord, Run


@dataclass(frozen=True)
class Learning:
    """Forgetting and convergence of one run.

    images: number of training images.
    forgetting: statistics over them.
    curve: forgetting events by epoch, over all of them.
    convergence: Eq. 4; None for a run that learned nothing.
    failed: whether the run diverged or stayed near chance.
    """

    images: int
    forgetting: Forgetting
    curve: ForgettingCurve
    convergence: float | None
    failed: bool


@declare("learning")
def learning(run: Run) -> Learning:
    """Forgetting and convergence of a run, without its weights."""
    return Learning(
        len(run.forgetting.events), forgetting(run), forgetting_curve(run), convergence(run), run.failed
    )


@declare("convergence", stored=False)
def convergence(run: Run) -> float | None:
    """Mean over the epochs of the error reduction so far, divided by the final error reduction.

    The error before training is that of the history's first row, before any step. A part of an epoch, with
    which a training by iterations may begin or end, counts as one. None for a run that
    learned nothing (a final error no lower than the first one), where the ratio is undefined. Can exceed 1.
    """
    errors: list[float] = [100.0 - accuracy for accuracy in run.history.column("test_accuracy")]
    reduction = errors[0] - errors[-1]
    if not math.isfinite(reduction) or reduction <= 0:
        return None
    return sum(errors[0] - error for error in errors[1:]) / (len(errors) - 1) / reduction


SUMMED_RUNS = 3
"""Runs that the paper's number of forgetting events is summed over (reading D8)."""


@dataclass(frozen=True)
class Forgetting:
    """Forgetting statistics of one run.

    events_mean, events_std: forgetting events a training image, mean and spread (sample standard deviation)
        over images; never-learned images count 0 here and are told apart by ``never_learned``.
    unforgettable: share of all images that were learned and never forgotten after, 0 to 1.
    never_learned: number of images that were never classified correctly in training.
    """

    events_mean: float
    events_std: float
    unforgettable: float
    never_learned: int


@declare("forgetting", stored=False)
def forgetting(run: Run) -> Forgetting:
    """Statistics over the training images of a run, counted at each presentation in training."""
    record = run.forgetting
    events = record.events.double()
    return Forgetting(
        events_mean=float(events.mean()),
        events_std=float(events.std()) if len(events) > 1 else 0.0,
        unforgettable=float((record.learned & (record.events == 0)).double().mean()),
        never_learned=int((~record.learned).sum()),
    )


@dataclass(frozen=True)
class SummedForgetting:
    """Forgetting statistics of three runs together, as the paper's tables in all likelihood count them.

    events_mean, events_std: of the events of an image summed over the runs, halved: mean and spread (sample
        standard deviation) over images. A run that never learned an image counts 0 for it (reading D9).
    images: number of training images.
    never_learned: how many of them at least one of the runs never classified correctly in training.
    failed: whether a run diverged or stayed near chance.
    """

    events_mean: float
    events_std: float
    images: int
    never_learned: int
    failed: bool


@declare("summed-forgetting")
def summed_forgetting(runs: Sequence[Run]) -> SummedForgetting:
    """Forgetting events of an image summed over three runs on the same images, and halved (reading D8).

    Toneva et al. count events of a run, as :func:`forgetting` does; this is for comparison with the numbers
    that the paper prints, which are 1.5 times as large in the mean. It is kept beside the runs, as what they
    learned is: a report need not load any weights.

    Raises :class:`~tombola.errors.RecipeError` unless there are three different runs, and
    :class:`~tombola.errors.TicketError` for runs on different numbers of images.
    """
    if len(runs) != SUMMED_RUNS:
        raise RecipeError(
            f"forgetting events of {len(runs)} run(s) cannot be summed as the paper's; give {SUMMED_RUNS}"
        )
    if len({run.fingerprint for run in runs}) != len(runs):
        raise RecipeError("a run was given twice; forgetting events are summed over three different runs")
    return summed_events([run.forgetting for run in runs], failed=any(run.failed for run in runs))


def summed_events(records: Sequence[ForgettingRecord], *, failed: bool = False) -> SummedForgetting:
    """The same from the forgetting records of the runs."""
    counts = [len(record.events) for record in records]
    if len(set(counts)) != 1:
        raise TicketError(
            f"the runs were trained on {', '.join(map(str, counts))} images; "
            "forgetting events are summed image by image"
        )
    events = torch.stack([record.events.double() for record in records]).sum(0) / 2
    learned = torch.stack([record.learned for record in records]).all(0)
    return SummedForgetting(
        events_mean=float(events.mean()),
        events_std=float(events.std()) if len(events) > 1 else 0.0,
        images=len(events),
        never_learned=int((~learned).sum()),
        failed=failed,
    )


@dataclass(frozen=True)
class ForgettingCurve:
    """Forgetting over training (Fig. 6).

    epochs: the epochs trained, by their place in the schedule; a ticket taken at epoch 2 begins with 3.
    events: forgetting events in each of these epochs, over all training images (reading E2: not cumulative).
    """

    epochs: tuple[int, ...]
    events: tuple[int, ...]


@declare("forgetting-curve", stored=False)
def forgetting_curve(run: Run) -> ForgettingCurve:
    """Forgetting events of a run in each epoch; none in the first, in which all images are new.

    A part of an epoch with which a training by iterations ends is left out: it does not count for forgetting.
    """
    trained = [(row.epoch, row.forgetting_events) for row in run.history[1:]]
    ended = [(int(epoch), events) for epoch, events in trained if epoch == int(epoch)]
    return ForgettingCurve(tuple(epoch for epoch, _ in ended), tuple(events for _, events in ended))


@declare("forgetting-ranking", stored=False)
def forgetting_ranking(run: Run, *, seed: int = 0) -> Tensor:
    """The training images of a run from the least to the most forgotten, as int64 indices ``(N,)``.

    An image that was never learned counts as forgotten most, before any that was (reading D9). Images with
    equally many events, on CIFAR-10 almost half of all, stand in an order drawn from the stream
    ``("forgetting ties", seed)`` (reading H5).
    """
    record = run.forgetting
    events = torch.where(record.learned, record.events.long(), torch.iinfo(torch.int64).max)
    words = generator("forgetting ties", seed).bit_generator.random_raw(len(events))
    # By events, and by the drawn words where these are equal.
    return torch.from_numpy(np.lexsort((words, events.numpy())))
