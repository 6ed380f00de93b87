"""Table 15 as a study: searches whose next jobs follow from what the store already has.

It is the search of :mod:`tombola.measures.first_stable`, its answers read from finished jobs. Nothing is kept
of how far it got: the same questions, asked again of the store, lead to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.printed import printed_cells
from tombola.experiments.paper.settings import CONFIGURATIONS, EPOCHS, Configuration, Pair, key_of
from tombola.lab.chains import as_job
from tombola.lab.item import Guess, Results
from tombola.lab.job import Job
from tombola.measures.first_stable import bracket, epochs_trained, questions, shares_trunk
from tombola.measures.instability import Instability
from tombola.table.key import Key
from tombola.table.number import Number


@dataclass(frozen=True, eq=False)
class Search:
    """The search from one start.

    number: of the run. budget: epochs. ask: gives the instability of a length as a job.
    """

    number: int
    budget: int
    neighbours: int
    ask: Callable[[int], Job]
    shared: bool
    copies: int
    _jobs: dict[int, Job] = field(default_factory=dict)

    def job(self, length: int) -> Job:
        """The instability of the children of one pretraining length."""
        if length not in self._jobs:
            self._jobs[length] = self.ask(length)
        return self._jobs[length]

    def progress(self, results: Results) -> tuple[dict[int, Instability], list[Job]]:
        """What is answered so far by length, and the jobs that are asked next; none if it is over."""
        answers: dict[int, Instability] = {}
        while lengths := self._questions({length: answer.stable for length, answer in answers.items()}):
            jobs = {length: self.job(length) for length in lengths}
            next_answers = {length: results.of(job) for length, job in jobs.items()}
            if any(answer is None for answer in next_answers.values()):
                return answers, [jobs[length] for length, answer in next_answers.items() if answer is None]
            answers |= next_answers
        return answers, []

    def asked(self, results: Results | None) -> list[Job]:
        """The jobs that a search which is over asked for; none of one that is not."""
        if results is None:
            return []
        answers, wanted = self.progress(results)
        return [] if wanted else [self.job(length) for length in answers]

    def simulated(self, first_stable: int) -> tuple[int, ...]:
        """The lengths that would be asked about if this were the first stable one."""
        return _lengths(first_stable, self.budget, self.neighbours)

    @property
    def extremes(self) -> tuple[int, int]:
        """First stable lengths with which the search would be cheapest and dearest."""
        return _extremes(self.budget, self.neighbours, self.copies, self.shared)

    def _questions(self, answers: Mapping[int, bool]) -> tuple[int, ...]:
        return questions(answers, self.budget, neighbours=self.neighbours)


@dataclass(frozen=True)
class Searched:
    """An item of the table: a search from each of several starts.

    epochs: budget of the full trainings. stand_in: what is really trained, where that is something else.
    jobs: none, for all of them follow from results.
    """

    key: Key
    starts: tuple[Search, ...]
    epochs: int
    stand_in: str = ""
    jobs: tuple[Job, ...] = ()

    def numbers(self, results: Results) -> list[Number]:
        """The first stable epoch of each start whose search is over; an upper bound at the full budget."""
        return [self._number(search, results) for search in self.starts]

    def _number(self, search: Search, results: Results) -> Number:
        answers, wanted = search.progress(results)
        failed = any(answer.failed for answer in answers.values())
        if wanted:
            return Number(
                key=self.key, value=None, state="missing", epochs=self.epochs, seed=search.number,
                stand_in=self.stand_in,
            )  # fmt: skip
        stable = {length: answer.stable for length, answer in answers.items()}
        first = bracket(stable, search.budget)[1]
        return Number(
            key=self.key, value=float(first), epochs=self.epochs, seed=search.number, failed=failed,
            bound="stable only at the end" if first == search.budget else "",
            jobs=tuple(search.job(length).name for length in answers), stand_in=self.stand_in,
        )  # fmt: skip

    def wanted(self, results: Results) -> list[Job]:
        """What the searches ask next."""
        return [job for search in self.starts for job in search.progress(results)[1]]

    def planned(self, results: Results | None, guess: Guess) -> list[Job]:
        """What its searches ask: of one that is over those that it asked, else as guessed."""
        return [
            job
            for search, first in zip(self.starts, self._guessed(guess), strict=True)
            for job in search.asked(results) or map(search.job, search.simulated(first))
        ]

    def done(self, results: Results) -> list[Job]:
        """The answers that the searches have so far."""
        return [search.job(length) for search in self.starts for length in search.progress(results)[0]]

    def searches(self, results: Results | None) -> tuple[int, int]:
        """How many of its searches are over, and how many there are."""
        over = sum(not search.progress(results)[1] for search in self.starts) if results else 0
        return over, len(self.starts)

    def _guessed(self, guess: Guess) -> list[int]:
        """A first stable epoch for each search."""
        if guess != "printed":
            return [search.extremes[guess == "dearest"] for search in self.starts]
        printed = printed_cells().get(self.key)
        if printed is None:
            return [search.budget // 4 for search in self.starts]
        epochs = _whole_epochs(printed.mean, printed.std or 0.0)
        return [round(epochs[search.number % len(epochs)] * search.budget / EPOCHS) for search in self.starts]


def first_stable_searches(*pairs: Pair) -> Callable[[PaperJobs], Iterator[Searched]]:
    """The first stable epoch of each configuration, over the starts of all runs."""

    def listed(work: PaperJobs) -> Iterator[Searched]:
        for pair in pairs:
            for configuration in work.scale.chosen(CONFIGURATIONS):
                key = key_of("first_stable_epoch", pair, configuration, 0.0, pretrained=None)
                searches = (_search(work, pair, configuration, n) for n in range(work.scale.seeds))
                yield Searched(key, tuple(searches), work.scale.epochs, work.stand_in(key))

    return listed


def _search(work: PaperJobs, pair: Pair, configuration: Configuration, number: int) -> Search:
    scale = work.scale
    noises = range(number, number + scale.copies)
    shared = shares_trunk(work.recipe(pair, configuration), number, noises)
    branches = work.branches(pair, configuration, number)

    def ask(length: int) -> Job:
        return as_job(branches.instability(length))

    return Search(number, scale.epochs, scale.neighbours, ask, shared, scale.copies)


@cache
def _lengths(first_stable: int, budget: int, neighbours: int) -> tuple[int, ...]:
    """What a search asks about if this is the first stable length."""
    answers: dict[int, bool] = {}
    while lengths := questions(answers, budget, neighbours=neighbours):
        answers |= {length: length >= first_stable for length in lengths}
    return tuple(answers)


@cache
def _extremes(budget: int, neighbours: int, copies: int, shared: bool) -> tuple[int, int]:
    """First stable lengths that take the fewest and the most epochs of training."""

    def cost(first_stable: int) -> int:
        lengths = _lengths(first_stable, budget, neighbours)
        return epochs_trained(lengths, budget, copies=copies, shared=shared)

    by_cost = sorted(range(budget + 1), key=cost)
    return by_cost[0], by_cost[-1]


def _whole_epochs(mean: float, std: float) -> Sequence[int]:
    """Three whole epochs whose mean and population standard deviation are printed so (protocol, part 2)."""
    low, high = int(mean - 2 * std) - 1, int(mean + 2 * std) + 2
    for first in range(max(0, low), high + 1):
        for second in range(first, high + 1):
            third = round(3 * mean) - first - second
            epochs = (first, second, third)
            center = sum(epochs) / 3
            spread = (sum((epoch - center) ** 2 for epoch in epochs) / 3) ** 0.5
            if third >= second and abs(center - mean) < 0.051 and abs(spread - std) < 0.051:
                return epochs
    return (round(mean),) * 3
