"""Instability: how far SGD noise alone drives trainings of one ticket apart (section 3.2 of the paper).

A ticket is trained several times under different noise, and the error barriers between all pairs of these
copies (:mod:`tombola.measures.connectivity`) are averaged (reading D4). Below 2 points the ticket is called
stable. The same barriers between the runs of consecutive rounds of a pruning chain say whether the search
stays in one valley (Appendix B).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from tombola.calls import Call, Written, directly
from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError, unknown
from tombola.measures.connectivity import (
    Barrier,
    Recalibrate,
    Split,
    barrier,
    check_line,
    lines_cost,
    weighs_batches_alike,
)
from tombola.measures.limits import STABLE_BELOW
from tombola.measures.statistics import mean
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.loop import train
from tombola.training.recipe import Recipe
from tombola.training.run import Run

Difference = Literal["noise", "order", "augmentation"]
"""What copies of one training differ in: the noise, or one of its two causes alone."""
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)


@dataclass(frozen=True)
class Instability:
    """The error barriers between trainings of one ticket under different SGD noise.

    lines: between all pairs of copies: first and second, first and third, ..., second and third, ...
    noises: number of the noise of each copy; of the data order or augmentation, if they differ in that alone.
    failed: number of copies that diverged or stayed near chance. Two failed copies may well have no barrier,
        so anything but 0 wants a star.
    threshold: mean barrier in percentage points below which the ticket is stable.
    """

    lines: tuple[Barrier, ...]
    noises: tuple[int, ...]
    failed: int
    threshold: float = STABLE_BELOW

    @property
    def heights(self) -> tuple[float, ...]:
        """The barrier of each pair, in percentage points."""
        return tuple(line.height for line in self.lines)

    @property
    def height(self) -> float:
        """The mean barrier, in percentage points."""
        return mean(self.heights)

    @property
    def loss_height(self) -> float:
        """The mean barrier of the loss, in nats."""
        return mean([line.loss_height for line in self.lines])

    @property
    def stable(self) -> bool:
        """Whether the mean barrier is below the threshold."""
        return self.height < self.threshold

    @property
    def alphas(self) -> tuple[float, ...]:
        """Positions on the lines."""
        return self.lines[0].alphas

    @property
    def errors(self) -> tuple[float, ...]:
        """Error at each position, in percent, mean over the pairs."""
        return tuple(map(mean, zip(*(line.errors for line in self.lines), strict=True)))

    @property
    def losses(self) -> tuple[float, ...]:
        """Cross-entropy at each position, in nats, mean over the pairs."""
        return tuple(map(mean, zip(*(line.losses for line in self.lines), strict=True)))

    def failures_of_pairs(self) -> tuple[str, ...]:
        """Of each pair which copies failed, such as "the copy of noise 2 diverged"; empty for none."""
        pairs = itertools.combinations([f"the copy of noise {noise}" for noise in self.noises], 2)
        return tuple(line.failures(pair) for line, pair in zip(self.lines, pairs, strict=False))

    def failures(self) -> str:
        """The same of all copies together."""
        failed = (words for text in self.failures_of_pairs() for words in text.split(" and ") if words)
        return " and ".join(dict.fromkeys(failed))

    @property
    def recalibrated(self) -> Instability | None:
        """The same with batch-norm statistics measured anew; None if the lines do not carry that reading."""
        lines = tuple(line.recalibrated for line in self.lines if line.recalibrated is not None)
        return replace(self, lines=lines) if lines else None


def _instability_cost(
    runs: Sequence[Outline], data: Size, trunk: Outline | None, points: int, recalibrate: Recalibrate
) -> Cost:
    """Evaluations on the lines between all pairs of copies."""
    copies = len(runs) + (trunk is not None)
    return lines_cost(runs[0], data, points, recalibrate, lines=math.comb(copies, 2))


@declare("instability", version=2, unchanged={2: weighs_batches_alike}, cost=_instability_cost)
def instability(
    runs: Sequence[Run],
    data: DataLike,
    *,
    trunk: Run | None = None,
    points: int = 21,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    threshold: float = STABLE_BELOW,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Instability:
    """Barriers between all pairs of finished trainings of one ticket, and their mean.

    runs: trainings of one ticket under different noise, such as :func:`noise_copies` gives; at least two.
    trunk: one more copy, put first: the training that the ticket was taken from, gone on to its end. At
        momentum 0 it is to the bit the ticket's training under the trunk's noise; above 0 its momentum was
        not restarted.
    points, recalibrate, split: as for :func:`~tombola.barrier`.
    threshold: mean barrier in percentage points below which the ticket is called stable.

    Raises :class:`~tombola.errors.TicketError` for runs that do not start from one ticket,
    :class:`~tombola.errors.RecipeError` for too few of them, and what ``barrier`` raises.
    """
    data = load_data(data)
    check_line(points, recalibrate, split)
    if trunk is not None and runs:
        _check_passes(trunk, runs[0])
    copies = [*runs] if trunk is None else [trunk, *runs]
    _check_copies(runs, copies)
    lines = [
        barrier(
            first,
            second,
            data,
            points=points,
            recalibrate=recalibrate,
            split=split,
            device=device,
            watch=watch,
        )
        for first, second in itertools.combinations(copies, 2)
    ]
    return Instability(tuple(lines), _noises(copies), sum(run.failed for run in copies), threshold)


def _noises(copies: Sequence[Run]) -> tuple[int, ...]:
    """The number of each copy: of its noise, or of the one cause of noise in which the copies differ."""
    numbers = [tuple(run.noise for run in copies)]
    for apart in ([run.order_noise for run in copies], [run.augmentation_noise for run in copies]):
        pairs = zip(copies, apart, strict=True)
        numbers.append(tuple(run.noise if number is None else number for run, number in pairs))
    return next((several for several in numbers if len(set(several)) > 1), numbers[0])


def _check_copies(runs: Sequence[Run], copies: Sequence[Run]) -> None:
    """Raises TicketError for runs of several tickets, RecipeError for copies that cannot be compared."""
    if len(copies) < 2:
        raise RecipeError(f"instability of {len(copies)} run(s); it needs at least 2 copies, the paper has 3")
    for run in runs[1:]:
        tickets = runs[0].ticket, run.ticket
        if tickets[0].fingerprint != tickets[1].fingerprint:
            seen = " and ".join(
                f"{ticket.fingerprint[:12]} ({ticket.place}, round {ticket.round})" for ticket in tickets
            )
            raise TicketError(
                f"instability needs runs of one ticket; got {seen}; for other pairs there is barrier"
            )
    for first, second in itertools.combinations(copies, 2):
        if first.fingerprint == second.fingerprint:
            raise RecipeError(
                f"the same run under noise {first.noise} was given twice; every copy needs a noise of its own"
            )
        if not (len(first.history) and len(second.history)):
            continue  # trained elsewhere
        ends = first.history[-1].epoch, second.history[-1].epoch
        if ends[0] != ends[1]:
            raise RecipeError(
                f"the runs end at epochs {ends[0]:.6g} and {ends[1]:.6g}; copies are trained by one recipe"
            )


def _check_passes(trunk: Run, copy: Run) -> None:
    """Raises TicketError for a trunk without the ticket's loss and accuracy at the ticket's epoch."""
    ticket, start = copy.ticket, copy.history[0]
    passed = [row for row in trunk.history if row.epoch == ticket.epoch and not ticket.step]
    # As text, in which an undefined loss is equal to itself: a diverged trunk is a result like any other.
    seen = [repr((row.test_loss, row.test_accuracy)) for row in (start, *passed)]
    if len(seen) != 2 or seen[0] != seen[1]:
        raise TicketError(
            f"the trunk did not pass through the ticket at {ticket.place}; "
            "give the training from whose epochs the ticket was taken, on the same kind of device"
        )


def noise_copies(
    ticket: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    noises: Sequence[int] = (1, 2, 3),
    differ_in: Difference = "noise",
    teacher: Run | Ticket | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Iterator[Run]:
    """Trainings of a ticket, one under each of several noises, one after the other.

    noises: number of the noise of each copy, all different.
    differ_in: ``"noise"``, or one of its causes alone, ``"order"`` or ``"augmentation"``: the copies then
        share the other one, that of the first number.
    teacher: of every copy, for a recipe of loss ``"distillation"``, as for :func:`~tombola.train`.

    Raises as :func:`~tombola.train` does, and :class:`~tombola.errors.RecipeError` for a noise named twice.
    """
    call = directly(device, watch)
    return copies(call, ticket, data, recipe, noises=noises, differ_in=differ_in, teacher=teacher)


def copies(
    call: Call[Written],
    ticket: Ticket | Written,
    data: object,
    recipe: Recipe,
    *,
    noises: Sequence[int] = (1, 2, 3),
    differ_in: Difference = "noise",
    teacher: Run | Ticket | Written | None = None,
) -> Iterator[Run | Written]:
    """The trainings of one ticket under several noises, each made by ``call`` when it is wanted."""
    check_noises(noises)
    check_difference(differ_in)
    numbers = [copy_noise(number, differ_in, noises[0]) for number in noises]
    return (call(train, ticket, data, recipe, teacher=teacher, **noise) for noise in numbers)


def copy_noise(number: int, differ_in: Difference, shared: int) -> dict[str, int]:
    """The numbers of noise of one copy, as arguments of :func:`~tombola.train`.

    number: of what the copies differ in. shared: of the noise, where they differ in one cause of it alone.
    """
    return {"noise": number} if differ_in == "noise" else {"noise": shared, f"{differ_in}_noise": number}


def check_difference(differ_in: str) -> None:
    """Raises RecipeError for copies that shall differ in something else than noise or one of its causes."""
    if differ_in not in DIFFERENCES:
        raise RecipeError(unknown("difference between copies", differ_in, DIFFERENCES))


def check_noises(noises: Sequence[int]) -> None:
    """Raises RecipeError for fewer than two copies, or two of one noise."""
    if len(noises) < 2 or len(set(noises)) < len(noises):
        raise RecipeError(f"noises are {tuple(noises)}; give at least two, all different, such as (1, 2, 3)")


def between_rounds(
    runs: Sequence[Run],
    data: DataLike,
    *,
    points: int = 11,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Iterator[Barrier]:
    """Barriers between the trained runs of consecutive rounds of a chain, one after the other (Appendix B).

    runs: as :func:`~tombola.imp` gives them; for any other pair of them there is :func:`~tombola.barrier`.
        Each barrier records the sparsities of its ends.
    points, recalibrate, split: as for ``barrier``; 11 points is the paper's reading (D2).

    Raises :class:`~tombola.errors.RecipeError` for fewer than two runs, and what ``barrier`` raises.
    """
    return consecutive(
        directly(device, watch), runs, data, points=points, recalibrate=recalibrate, split=split
    )


def consecutive(
    call: Call[Written],
    runs: Sequence[Run | Written],
    data: object,
    *,
    points: int = 11,
    recalibrate: Recalibrate = False,
    split: Split = "test",
) -> Iterator[Barrier | Written]:
    """The barriers between consecutive runs, each made by ``call`` when it is wanted.

    Written down as jobs, a longer chain only adds barriers to those of a shorter one.
    """
    check_line(points, recalibrate, split)
    if len(runs) < 2:
        raise RecipeError(
            f"barriers between the rounds of {len(runs)} run(s); give at least two runs of a chain"
        )
    return (
        call(barrier, first, second, data, points=points, recalibrate=recalibrate, split=split)
        for first, second in itertools.pairwise(runs)
    )
