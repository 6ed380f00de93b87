"""Table 15 as a study: searches whose next jobs follow from what the store already has.

It is the search of :mod:`tombola.measures.first_stable`, its answers read from finished jobs. Nothing is kept
of how far it got: the same questions, asked again of the store, lead to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from tombola.lab.chains import as_job
from tombola.lab.job import Job
from tombola.measures.first_stable import bracket, epochs_trained, questions, shares_trunk
from tombola.measures.instability import Instability
from tombola.studies.cells import Cell, Place, measured
from tombola.studies.paper.jobs import Work
from tombola.studies.paper.printed import EPOCHS, printed_cells
from tombola.studies.paper.settings import CONFIGURATIONS, Configuration, Pair
from tombola.studies.results import Results


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
    _asked: dict[int, Job] = field(default_factory=dict)

    def job(self, length: int) -> Job:
        """The instability of the children of one pretraining length."""
        if length not in self._asked:
            self._asked[length] = self.ask(length)
        return self._asked[length]

    def progress(self, results: Results) -> tuple[dict[int, Instability], list[Job]]:
        """What is answered so far by length, and the jobs that are asked next; none if it is over."""
        found: dict[int, Instability] = {}
        while lengths := self._questions({length: each.stable for length, each in found.items()}):
            asked = {length: self.job(length) for length in lengths}
            answers = {length: results.of(job) for length, job in asked.items()}
            if any(answer is None for answer in answers.values()):
                return found, [asked[length] for length, answer in answers.items() if answer is None]
            found |= answers
        return found, []

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
    """An entry of the table: a search from each of several starts."""

    place: Place
    searches: tuple[Search, ...]

    def cell(self, results: Results, *, epochs: int) -> Cell | None:
        """The first stable epochs of all starts, once all searches are over."""
        values, failed, at_the_end = [], False, 0
        for search in self.searches:
            found, asked = search.progress(results)
            if asked:
                return None
            stable = {length: each.stable for length, each in found.items()}
            values.append(float(bracket(stable, search.budget)[1]))
            failed = failed or any(each.failed for each in found.values())
            at_the_end += values[-1] == search.budget
        note = f"{at_the_end} of {len(values)} stable only at the end" if at_the_end else ""
        return measured(self.place, values, epochs=epochs, starred=failed, note=note)

    def next_jobs(self, results: Results) -> list[Job]:
        """What the searches ask next."""
        return [job for search in self.searches for job in search.progress(results)[1]]

    def as_printed(self) -> list[tuple[Search, int]]:
        """Each search with a first stable epoch such that the entry becomes the paper's, for planning."""
        printed = printed_cells().get(self.place)
        if printed is None:
            return [(search, search.budget // 4) for search in self.searches]
        epochs = _whole_epochs(printed.mean, printed.std or 0.0)
        return [
            (search, round(epochs[search.number % len(epochs)] * search.budget / EPOCHS))
            for search in self.searches
        ]


def first_stable_searches(*pairs: Pair) -> Callable[[Work, str], Iterator[Searched]]:
    """The first stable epoch of each configuration, over the starts of all runs."""

    def listed(work: Work, study: str) -> Iterator[Searched]:
        for pair in pairs:
            for configuration in work.scale.chosen(CONFIGURATIONS):
                place = Place(
                    study=study, metric="first_stable_epoch", network=pair.network, dataset=pair.dataset,
                    momentum=configuration.momentum, batch_size=configuration.batch_size, sparsity=0.0,
                )  # fmt: skip
                starts = range(work.scale.seeds)
                yield Searched(place, tuple(_search(work, pair, configuration, n) for n in starts))

    return listed


def _search(work: Work, pair: Pair, configuration: Configuration, number: int) -> Search:
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
            spread = (sum((each - center) ** 2 for each in epochs) / 3) ** 0.5
            if third >= second and abs(center - mean) < 0.051 and abs(spread - std) < 0.051:
                return epochs
    return (round(mean),) * 3
