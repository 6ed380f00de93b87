"""What a claim is, and the one rule that decides all of them.

A claim is a sentence with a function that lists comparisons between cells. Every comparison holds: the claim
holds. Some hold: partly. None: it fails. Gaps within the noise of the seeds could make it another: undecided.
A cell is missing: not computable yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tombola.errors import ExperimentError
from tombola.experiments.claims.quantities import Comparison, Quantity, of_cell
from tombola.table.key import Key
from tombola.table.number import Cell, copies_of, many

Status = Literal["holds", "partly", "fails", "undecided", "not computable yet"]
Find = Callable[[Key], Quantity]
Checks = Iterator[tuple[str, Comparison]]
"""The comparisons of a claim, each with a few words that say what it is about."""


@dataclass(frozen=True)
class Claim:
    """A testable sentence of the paper.

    section: where the paper says it.
    rests_on: names of the tables and figures that show its numbers.
    ours: what the paper does not say and we had to choose; empty if nothing.
    checks: lists its comparisons, given a way of finding cells.
    also: lists comparisons over figures for which the paper prints no numbers, in a claim that has printed
        numbers too. They count like the others as soon as all of them can be computed.
    letter: of its name; Q for an answer to what the paper leaves open.
    """

    number: int
    sentence: str
    section: str
    rests_on: tuple[str, ...]
    ours: str
    checks: Callable[[Find], Checks]
    also: Callable[[Find], Checks] | None = None
    letter: str = "C"

    @property
    def name(self) -> str:
        return f"{self.letter}{self.number}"


def claim(
    number: int,
    sentence: str,
    *,
    section: str,
    rests_on: tuple[str, ...],
    ours: str = "",
    also: Callable[[Find], Checks] | None = None,
) -> Callable[[Callable[[Find], Checks]], Claim]:
    """Make a claim of the function that lists its comparisons."""

    def made(checks: Callable[[Find], Checks]) -> Claim:
        return Claim(number, sentence, section, rests_on, ours, checks, also)

    return made


def question(
    number: int, sentence: str, *, section: str, rests_on: tuple[str, ...], ours: str
) -> Callable[[Callable[[Find], Checks]], Claim]:
    """Likewise for a possible answer to what the paper leaves open, or says without a number."""

    def made(checks: Callable[[Find], Checks]) -> Claim:
        return Claim(number, sentence, section, rests_on, ours, checks, letter="Q")

    return made


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of a claim.

    comparisons: with their words; while cells are missing, those that can be made without them.
    listed: how many comparisons the claim has.
    missing: the keys whose cells are needed and not there.
    undefined: words of the comparisons with an undefined number, such as a spread of single runs.
    cells: everything that was looked up.
    """

    claim: Claim
    status: Status
    comparisons: tuple[tuple[str, Comparison], ...]
    missing: tuple[Key, ...]
    undefined: tuple[str, ...]
    cells: tuple[Cell, ...]
    listed: int

    @property
    def holding(self) -> int:
        """How many of the comparisons hold."""
        return sum(comparison.holds for _, comparison in self.comparisons)

    @property
    def runs(self) -> tuple[int, int] | None:
        """Fewest and most runs behind a cell; None where all are of pairs of noise copies."""
        return _range(cell.runs for cell in self.cells if not cell.of_pairs)

    @property
    def behind(self) -> str:
        """What its cells are of, in words: runs, and pairs of the noise copies of one run."""
        parts = []
        if self.runs:
            parts.append(_many(self.runs, "run"))
        if pairs := _range(cell.runs for cell in self.cells if cell.of_pairs):
            fewest, most = map(copies_of, pairs)
            copies = f"{fewest} to {most}" if fewest < most else f"{most}"
            parts.append(f"{_many(pairs, 'pair')} of {copies} noise copies of one run")
        return " and ".join(parts)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Budgets of the trainings it rests on, in rising order; one, unless cells of several scales mix."""
        return tuple(sorted({cell.epochs for cell in self.cells}))

    @property
    def within_noise(self) -> bool | None:
        """Whether the verdict would be another if gaps within the noise of the seeds were turned around.

        None where that hangs on a gap whose spread is unknown: of printed numbers, of single runs, or in
        another unit than the cells.
        """
        listed = [comparison for _, comparison in self.comparisons]
        firm = {one.holds for one in listed if not one.within_noise}
        if any(one.within_noise for one in listed) and len(firm) < 2:
            return True
        # Clear ones that hold beside clear ones that fail make "partly" certain, whatever the others are.
        clear = {one.holds for one in listed if one.noise is not None and not one.within_noise}
        certain = len(clear) == 2 or all(one.noise is not None for one in listed)
        return False if certain else None

    @property
    def so_far(self) -> str:
        """What the comparisons that can be made come to, while cells are missing."""
        return f"so far {self.holding} of {len(self.comparisons)} hold, {self.listed} in all"

    def __str__(self) -> str:
        if self.status == "not computable yet":
            if not self.missing:
                return f"{self.claim.name}: {self.status}, undefined: {'; '.join(self.undefined)}"
            cells = "1 cell is" if len(self.missing) == 1 else f"{len(self.missing)} cells are"
            so_far = f"; {self.so_far}" if self.comparisons else ""
            return f"{self.claim.name}: {self.status}, {cells} missing{so_far}"
        budgets = " and ".join(str(epochs) for epochs in self.epochs)
        compared = len(self.comparisons)
        return (
            f"{self.claim.name}: {self.status}, {self.holding} of "
            f"{'1 comparison holds' if compared == 1 else f'{compared} comparisons hold'}, "
            f"{self.behind} of {budgets} epoch{'s' * (budgets != '1')}"
        )


def judge(claim: Claim, cells: Mapping[Key, Cell]) -> Verdict:
    """The verdict of some cells, ours or the paper's, on a claim."""
    reading = _Reading(cells)
    listed = tuple(claim.checks(reading.find))
    if not listed:
        raise ExperimentError(f"{claim.name} lists no comparison; a claim needs at least one")
    if reading.missing:
        possible = tuple((words, comparison) for words, comparison in listed if comparison.defined)
        status: Status = "not computable yet"
        return Verdict(claim, status, possible, reading.missing, (), reading.found, len(listed))
    if claim.also:
        further = _Reading(cells)
        comparisons = tuple(claim.also(further.find))
        if not further.missing and all(comparison.defined for _, comparison in comparisons):
            listed += comparisons
            reading.asked.update(further.asked)
    undefined = tuple(words for words, comparison in listed if not comparison.defined)
    holding = [comparison.holds for _, comparison in listed]
    verdict = Verdict(claim, _status(holding, undefined), listed, (), undefined, reading.found, len(listed))
    if verdict.status != "not computable yet" and verdict.within_noise:
        return replace(verdict, status="undecided")
    return verdict


def needed(claim: Claim, *, also: bool = False) -> tuple[Key, ...]:
    """The keys whose cells a claim needs; with ``also``, of its comparisons that may be left out too."""
    reading = _Reading({})
    for _ in claim.checks(reading.find):
        pass
    if also and claim.also:
        for _ in claim.also(reading.find):
            pass
    return reading.missing


class _Reading:
    """Looks up cells for a claim and keeps what was asked for. A missing one reads as an undefined number."""

    def __init__(self, cells: Mapping[Key, Cell]) -> None:
        self._cells = cells
        self.asked: dict[Key, Cell | None] = {}

    def find(self, key: Key) -> Quantity:
        cell = self.asked[key] = self._cells.get(key)
        return of_cell(cell)

    @property
    def missing(self) -> tuple[Key, ...]:
        return tuple(key for key, cell in self.asked.items() if cell is None)

    @property
    def found(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.asked.values() if cell is not None)


def _range(counts: Iterable[int]) -> tuple[int, int] | None:
    ordered = sorted(counts)
    return (ordered[0], ordered[-1]) if ordered else None


def _many(counts: tuple[int, int], what: str) -> str:
    """Fewest and most of something, in words."""
    fewest, most = counts
    return f"{fewest} to {many(most, what)}" if fewest < most else many(most, what)


def _status(holding: Sequence[bool], undefined: Sequence[str]) -> Status:
    """The one rule."""
    if undefined:
        return "not computable yet"
    if all(holding):
        return "holds"
    return "partly" if any(holding) else "fails"
