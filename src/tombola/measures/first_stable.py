"""The first stable epoch: how long to pretrain until the children are stable (Table 15, Appendix C.3).

One trunk (:mod:`tombola.training.trunk`) grows from a start. At each length that the search asks about, a
ticket is taken and several children are trained from it to the end under different noise. The length is
stable if their mean barrier (:mod:`tombola.measures.instability`) is below the threshold. A child of length k
trains only what is left of the budget, so a search costs less than the full trainings by which the paper
counts (9 steps of 3 copies for each of 3 starts, 81 in all).

Momentum restarts in the children. At momentum 0 there is nothing to restart: the child under the trunk's own
noise is the trunk itself, trained to its end once for all lengths. The search is a bisection
(:func:`questions`) whose interval shrinks to round numbers, so that trunks share points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import torch

from tombola.calls import Call, Written, directly
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError
from tombola.measures.connectivity import Recalibrate, Split, check_line
from tombola.measures.instability import (
    Difference,
    Instability,
    check_difference,
    check_noises,
    copy_noise,
    instability,
)
from tombola.measures.limits import STABLE_BELOW
from tombola.measures.statistics import Summary
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.loop import train
from tombola.training.preflight import check_whole_epochs
from tombola.training.recipe import Recipe
from tombola.training.run import Run
from tombola.training.trunk import Point, point_before, ticket_at, trunk

PAPER_STEPS = 9
"""Number of lengths that the paper's search asks about for each start."""


@dataclass(frozen=True)
class FirstStable:
    """The first stable epoch of one start, with the instabilities that it follows from.

    epoch: the smallest pretraining length, in epochs, from which all children that were asked about are
        stable; the budget if no shorter one is.
    budget: epochs of the recipe. Children of that length would be identical, so it is stable by definition.
    instabilities: by length, in rising order, of all lengths that were asked about.
    monotonic: whether the answers bear out what the search assumes, that there is one change from unstable to
        stable. The neighbours of the found length are asked about for that.
    epochs_trained: what trunk and children cost together.
    """

    epoch: int
    budget: int
    instabilities: Mapping[int, Instability]
    monotonic: bool
    epochs_trained: int

    @property
    def only_at_the_end(self) -> bool:
        """Whether no length shorter than the budget is stable."""
        return self.epoch == self.budget

    @property
    def heights(self) -> dict[int, float]:
        """The mean barrier at each length, in percentage points."""
        return {length: copies.height for length, copies in self.instabilities.items()}

    @property
    def failed(self) -> int:
        """Number of copies, over all lengths, that diverged or stayed near chance."""
        return sum(copies.failed for copies in self.instabilities.values())

    @property
    def copies(self) -> int:
        """Number of copies at each length."""
        return max((len(copies.noises) for copies in self.instabilities.values()), default=0)

    @property
    def asked_epochs(self) -> int:
        """Epochs that the same lengths would cost as full trainings."""
        return len(self.instabilities) * self.copies * self.budget

    @property
    def paper_epochs(self) -> int:
        """Epochs that the paper counts for one start: nine steps of full trainings."""
        return PAPER_STEPS * self.copies * self.budget


class Branches(Generic[Written]):
    """The children of one trunk, whose instability is measured by pretraining length.

    call: makes trunk and children: :func:`~tombola.calls.directly`, or ``job`` to write them down.
    start: the trunk's start, at epoch 0.
    noise: number of the trunk's noise; noises: those of the children, or of the cause that they differ in.
    The others are as for :func:`~tombola.measures.instability.instability`.
    """

    def __init__(
        self,
        call: Call[Written],
        start: Ticket | Written,
        data: object,
        recipe: Recipe,
        *,
        noise: int = 0,
        noises: Sequence[int] = (0, 1, 2),
        differ_in: Difference = "noise",
        points: int = 21,
        recalibrate: Recalibrate = False,
        split: Split = "test",
        threshold: float = STABLE_BELOW,
    ) -> None:
        check_noises(noises)
        check_difference(differ_in)
        check_line(points, recalibrate, split)
        self.budget = check_whole_epochs(recipe, "lengths of pretraining")
        self._call, self._start, self._data, self._recipe = call, start, data, recipe
        self._noise, self._noises, self._differ_in = noise, tuple(noises), differ_in
        self._reading: dict[str, object] = {
            "points": points, "recalibrate": recalibrate, "split": split, "threshold": threshold
        }  # fmt: skip
        self._points: dict[int, Point | Written] = {}
        self._trunk: Run | Written | None = None  # its training to the end, where that is one of the copies

    def instability(self, length: int) -> Instability | Written:
        """The instability of the ticket that the trunk gives at a length, from 0 to below the budget."""
        ticket = self._call(ticket_at, self._start, self._point(length)) if length else self._start
        shared = shares_trunk(self._recipe, self._noise, self._noises)
        if shared and self._trunk is None:
            self._trunk = self._call(train, self._start, self._data, self._recipe, noise=self._noise)
        branching = [number for number in self._noises if not (shared and number == self._noise)]
        noises = [copy_noise(number, self._differ_in, self._noise) for number in branching]
        runs = [self._call(train, ticket, self._data, self._recipe, **noise) for noise in noises]
        if self._trunk is not None and length == 0:
            runs.insert(0, self._trunk)
        through = self._trunk if length else None
        return self._call(instability, runs, self._data, trunk=through, **self._reading)

    def _point(self, length: int) -> Point | Written:
        if length not in self._points:
            before = point_before(length)
            self._points[length] = self._call(
                trunk, self._start, self._data, self._recipe,
                epochs=length, after=self._point(before) if before else None, noise=self._noise,
            )  # fmt: skip
        return self._points[length]

    def found(self, instabilities: Mapping[int, Instability]) -> FirstStable:
        """The first stable epoch that the answers of a finished search give."""
        budget = self.budget
        answers = stabilities(instabilities)
        return FirstStable(
            bracket(answers, budget)[1],
            budget,
            dict(sorted(instabilities.items())),
            is_monotonic(answers, budget),
            epochs_trained(
                instabilities, budget,
                copies=len(self._noises), shared=shares_trunk(self._recipe, self._noise, self._noises),
            ),
        )  # fmt: skip


def first_stable_epoch(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    noise: int = 0,
    noises: Sequence[int] = (0, 1, 2),
    differ_in: Difference = "noise",
    neighbours: int = 1,
    points: int = 21,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    threshold: float = STABLE_BELOW,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> FirstStable:
    """The smallest pretraining length from which the children of one start are stable, by bisection.

    start: an initialisation; for the paper's table, one search for each of three.
    recipe: of trunk and children, of whole epochs; lengths run from 0 to these.
    noise: number of the trunk's noise.
    noises: of the children, one copy for each. At momentum 0 the copy of the trunk's own number is the trunk,
        gone on to its end, and is trained once.
    differ_in: what the children differ in, as for :func:`~tombola.measures.instability.noise_copies`; the
        number of a cause that they share is the trunk's.
    neighbours: how many more lengths are measured on each side of the first stable one, to check that
        stability is monotonic.
    points, recalibrate, split, threshold: as for :func:`~tombola.measures.instability.instability`.

    Raises :class:`~tombola.errors.RecipeError` for a start that is pretrained already or settings out of
    range, and what ``train`` and ``barrier`` raise.
    """
    data = load_data(data)
    check_start(start)
    branches = Branches(
        directly(device, watch), start, data, recipe,
        noise=noise, noises=noises, differ_in=differ_in, points=points, recalibrate=recalibrate, split=split,
        threshold=threshold,
    )  # fmt: skip
    instabilities: dict[int, Instability] = {}
    while lengths := questions(stabilities(instabilities), branches.budget, neighbours=neighbours):
        instabilities |= {length: branches.instability(length) for length in lengths}
    return branches.found(instabilities)


def over_starts(found: Sequence[FirstStable]) -> Summary:
    """The first stable epochs of several starts as an entry of Table 15; starred where a copy failed.

    The table prints population standard deviations; a summary has the sample's, as everywhere (reading D11).
    """
    epochs = tuple(float(search.epoch) for search in found)
    return Summary(epochs, sum(search.failed > 0 for search in found))


def stabilities(instabilities: Mapping[int, Instability]) -> dict[int, bool]:
    """Whether each length is stable, which is what a search goes by."""
    return {length: copies.stable for length, copies in instabilities.items()}


def check_start(start: Ticket) -> None:
    """Raises RecipeError for a start that is not at epoch 0, from which lengths are counted."""
    if start.epoch or start.step:
        raise RecipeError(
            f"the start was taken at {start.place}; a first stable epoch is searched from epoch 0"
        )


def shares_trunk(recipe: Recipe, noise: int, noises: Sequence[int]) -> bool:
    """Whether one copy is the trunk itself: under its noise, and nothing of its optimizer would restart."""
    return not recipe.keeps_state and noise in noises


def epochs_trained(lengths: Iterable[int], budget: int, *, copies: int, shared: bool) -> int:
    """Epochs of a search: the trunk's stretches, and the children of each length.

    shared: whether one copy of all lengths is the trunk itself; then it is trained to its end, once.
    """
    lengths = tuple(lengths)
    reached = set(itertools.chain.from_iterable(map(_points_to, lengths)))
    stretches = sum(length - point_before(length) for length in reached)
    branched = sum(budget - length for length in lengths)
    if not shared:
        return stretches + copies * branched
    return stretches + (copies - 1) * branched + (budget if lengths else 0)


def _points_to(length: int) -> list[int]:
    """The points of the trunk on the way to a length, that one included, last first."""
    path = []
    while length:
        path.append(length)
        length = point_before(length)
    return path


def bracket(answers: Mapping[int, bool], budget: int) -> tuple[int, int]:
    """The longest unstable length, and the shortest above it from which all answers are stable.

    answers: whether each length that was asked about is stable. -1 counts as unstable, the budget as stable.
    """
    low = max((length for length, stable in answers.items() if not stable), default=-1)
    return low, min((length for length, stable in answers.items() if stable and length > low), default=budget)


def questions(
    answers: Mapping[int, bool], budget: int, *, at_once: int = 1, neighbours: int = 1
) -> tuple[int, ...]:
    """The lengths to ask about next, in rising order; none when the search is over.

    at_once: how many at most; several at once take fewer rounds and more answers.
    neighbours: once the first stable length is known, this many more are asked about on each side of it, as a
        check that stability is monotonic. An unstable one above moves the search up.

    Raises :class:`~tombola.errors.RecipeError` for settings out of range.
    """
    for name, value, least in (("budget", budget, 1), ("at_once", at_once, 1), ("neighbours", neighbours, 0)):
        if value < least:
            raise RecipeError(f"{name} is {value}; it must be at least {least}")
    low, high = bracket(answers, budget)
    if high - low > 1:
        return _halving_points(low, high, at_once)
    around = [*range(low - neighbours, low), *range(high + 1, high + neighbours + 1)]
    return tuple(k for k in around if 0 <= k < budget and k not in answers)[:at_once]


def roundest(low: int, high: int) -> int:
    """The number strictly between two that the largest power of two divides; 0 only if there is no other."""
    inside = max(low + 1, 1)
    while inside < high:
        beyond = inside + (inside & -inside)
        if beyond >= high:
            return inside
        inside = beyond
    return 0


def is_monotonic(answers: Mapping[int, bool], budget: int) -> bool:
    """Whether no stable length lies below an unstable one."""
    low, _ = bracket(answers, budget)
    return not any(stable and length < low for length, stable in answers.items())


def _halving_points(low: int, high: int, count: int) -> tuple[int, ...]:
    """Lengths within an interval: its halving point, then that of the widest part left, and so on."""
    lengths: list[int] = []
    gaps = [(low, high)]
    while gaps and len(lengths) < count:
        gap = max(gaps, key=lambda ends: (ends[1] - ends[0], -ends[0]))
        gaps.remove(gap)
        middle = roundest(*gap)
        lengths.append(middle)
        gaps += [ends for ends in ((gap[0], middle), (middle, gap[1])) if ends[1] - ends[0] > 1]
    return tuple(sorted(lengths))
