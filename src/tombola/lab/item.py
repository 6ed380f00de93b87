"""Items: what an experiment asks for, as keys with the jobs that fill them, and how results become numbers.

An experiment is a list of items. A fixed one (:class:`Measured`) knows its jobs beforehand; an adaptive
one, a search, learns from results what to ask next. Both answer the same three questions, so one driver
runs both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from tombola.errors import JobError, StoreError, Undefined, reason
from tombola.lab.finished import load_result
from tombola.lab.job import Job, result_type
from tombola.lab.results import UndefinedResult
from tombola.lab.store import HISTORY, NUMBERS, Store
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.table.key import Key
from tombola.table.number import Curve, Number, Together
from tombola.training.run import End, Run
from tombola.untrusted import OTHER_FORM

Guess = Literal["printed", "cheapest", "dearest"]
"""What planning takes a search to find: what the paper prints, or one of the extremes of its cost."""


class Results:
    """The finished jobs of a store: the summary of a run, the whole result of a measure; each read once.

    evaluate: gives the result of a job that no store keeps because it is exact and cheap.
    """

    def __init__(self, store: Store, evaluate: Callable[[Job], Any] | None = None) -> None:
        self.store = store
        self._evaluate = evaluate
        self._read: dict[str, Any] = {}
        self._ends: dict[str, End] = {}

    def of(self, job: Job) -> Any:
        """The result of a measure, of a run its summary, or None if it is not there.

        An :class:`~tombola.lab.results.UndefinedResult` for a measure of something that diverged.

        Raises :class:`~tombola.errors.StoreError` if it is damaged.
        """
        if job.name not in self._read:
            if not self.has(job):
                return None
            try:
                self._read[job.name] = self._result(job)
            except Undefined as error:
                self._read[job.name] = UndefinedResult(error.why)
        return self._read[job.name]

    def _result(self, job: Job) -> Any:
        """The result of a job that is there, read or computed; raises Undefined if it has none."""
        if not job.stored and self._evaluate is not None:
            return self._evaluate(job)
        if result_type(job.declaration) is Run:
            self.store.check(job.name, NUMBERS)
            return self.store.numbers(job.name)
        return self._with_ends(job, load_result(self.store, job.name))

    def _with_ends(self, job: Job, result: Any) -> Any:
        """A barrier or instability from before ends were recorded, with those of its runs in the store."""
        lines = result.lines if isinstance(result, Instability) else (result,)
        if not all(isinstance(line, Barrier) and line.ends is None for line in lines):
            return result
        if job.declaration.name not in ("barrier", "instability"):
            return result  # of a function of the user's own, of which runs is not known
        arguments = job.description()["arguments"]
        if isinstance(result, Barrier):
            return _ending(result, (self._end(arguments["first"]), self._end(arguments["second"])))
        copies = [self._end(run) for run in (arguments.get("trunk"), *arguments["runs"]) if run is not None]
        pairs = itertools.combinations(copies, 2)
        return replace(result, lines=tuple(map(_ending, result.lines, pairs)))

    def _end(self, run: Any) -> End | None:
        """How the training of a described run ended; None of one that is no job, gone or damaged."""
        try:
            name = run["job"]
            if name not in self._ends:
                self._ends[name] = _ended(self.store.numbers(name))
            return self._ends[name]
        except (JobError, StoreError, *OTHER_FORM):
            return None

    def has(self, job: Job) -> bool:
        """Whether a job is finished."""
        if job.name in self._read:
            return True
        if not job.stored and self._evaluate is not None:
            return all(map(self.has, job.needs))
        return self.store.has(job.name)

    def curve(self, run: Job) -> Curve | None:
        """Test error in percent by epoch, from row 0 before any step; None of a run that is not there."""
        if not self.store.has(run.name):
            return None
        rows = self.store.history(run.name)
        try:
            errors = tuple(100 - float(row["test_accuracy"]) for row in rows)
            return Curve(tuple(_place(row["epoch"]) for row in rows), errors)
        except OTHER_FORM as error:
            raise self.store.damaged(run.name, f"{HISTORY}: {reason(error)}") from error


def _place(text: str) -> float:
    """A place in the schedule as a history has it: whole, but where a training ends within an epoch."""
    place = float(text)
    if not math.isfinite(place):
        raise ValueError(f"epoch {text}")
    return place


def _ended(run: Mapping[str, Any]) -> End:
    """How a training ended, by its numbers."""
    return "diverged" if run.get("diverged") else "at chance" if run.get("failed") else "trained"


def _ending(line: Barrier, ends: tuple[End | None, End | None]) -> Barrier:
    """A line with how its runs ended, where that is known of both; one of infinite loss has diverged."""
    losses = line.losses[0], line.losses[-1]
    first, second = (
        end if math.isfinite(loss) else "diverged" for end, loss in zip(ends, losses, strict=True)
    )
    if first is None or second is None:
        return line
    recalibrated = line.recalibrated and _ending(line.recalibrated, (first, second))
    return replace(line, ends=(first, second), recalibrated=recalibrated)


@dataclass(frozen=True)
class Reading:
    """What one finished job says of a key.

    values: one, or for an instability one of each pair of copies; NaN for one that is undefined, none where
        all of it is.
    failed: whether a run stayed at chance or diverged. note: what else is to be said.
    failures: of each value which of the runs behind it failed, in words; empty for none.
    together: of a number that several runs have together. curves: of each value, where it sums one up.
    """

    values: tuple[float, ...]
    failed: bool = False
    note: str = ""
    together: Together | None = None
    curves: tuple[Curve, ...] = ()
    failures: tuple[str, ...] = ()


Read = Callable[[Any], Reading]
"""From the result of a job to what it says of a key."""


class Itemized(Protocol):
    """An experiment at a scale, as far as its numbers are concerned."""

    @property
    def items(self) -> Sequence[Item]:
        """Everything that it measures."""


class Item(Protocol):
    """One key of an experiment, and the jobs behind its numbers."""

    @property
    def key(self) -> Key:
        """What is measured."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs that are known beforehand; none of a search."""

    def numbers(self, results: Results) -> list[Number]:
        """All numbers of the key; those that are not computed yet as missing ones."""

    def wanted(self, results: Results) -> Sequence[Job]:
        """The jobs to run next that are not finished; none when all is done."""

    def planned(self, results: Results | None, guess: Guess) -> Sequence[Job]:
        """All jobs that it will have asked for, finished or not, if a search finds what is guessed."""

    def done(self, results: Results) -> Sequence[Job]:
        """The finished jobs that its numbers rest on."""

    def searches(self, results: Results | None) -> tuple[int, int]:
        """How many searches are over, and how many there are; none of an item whose jobs are known."""


@dataclass(frozen=True)
class Measured:
    """An item whose jobs are known beforehand.

    jobs: one a run. read: what the result of one says. epochs: budget of the trainings behind them.
    stand_in: what is really trained, where something stands in for the network and data of the key.
    """

    key: Key
    jobs: tuple[Job, ...]
    read: Read
    epochs: int
    stand_in: str = ""

    def numbers(self, results: Results) -> list[Number]:
        """One number a job, of an instability one a pair of copies."""
        return [
            number for place, job in enumerate(self.jobs) for number in self._numbers(place, job, results)
        ]

    def _numbers(self, place: int, job: Job, results: Results) -> list[Number]:
        common: dict[str, Any] = {
            "key": self.key, "epochs": self.epochs, "seed": place if self.key.over == "seeds" else None,
            "pair": place if self.key.over == "copies" else None,
            "jobs": (job.name,), "stand_in": self.stand_in,
        }  # fmt: skip
        result = results.of(job)
        if result is None:
            return [Number(value=None, state="missing", **common)]
        undefined = isinstance(result, UndefinedResult)
        reading = Reading((), failed=True, note=result.why) if undefined else self.read(result)
        if not reading.values:
            common |= {"failed": reading.failed, "note": reading.note}
            return [Number(value=None, state="undefined", **common)]
        if len(reading.values) > 1 or self.key.over == "pairs":
            common = {name: value for name, value in common.items() if name != "pair"}
            return [_number(reading, pair, pair=pair, **common) for pair in range(len(reading.values))]
        return [_number(reading, 0, **common)]

    def wanted(self, results: Results) -> list[Job]:
        """Those of its jobs that are not finished."""
        return [job for job in self.jobs if not results.has(job)]

    def planned(self, results: Results | None, guess: Guess) -> tuple[Job, ...]:
        """All of its jobs, for every guess."""
        return self.jobs

    def done(self, results: Results) -> list[Job]:
        """Those of its jobs that are finished."""
        return [job for job in self.jobs if results.has(job)]

    def searches(self, results: Results | None) -> tuple[int, int]:
        """None: it asks once."""
        return 0, 0


def _number(reading: Reading, place: int, **fields: Any) -> Number:
    """One of the numbers of a reading."""
    value = reading.values[place]
    defined = math.isfinite(value)
    failure = reading.failures[place] if reading.failures else ""
    undefined = "" if defined or failure else "a loss on the line is not finite"
    note = "; ".join(filter(None, [reading.note, failure, undefined]))
    return Number(
        value=value if defined else None, state="measured" if defined else "undefined",
        failed=reading.failed or bool(failure), note=note,
        together=reading.together, curve=reading.curves[place] if reading.curves else None, **fields,
    )  # fmt: skip


def jobs_of(items: Iterable[Item]) -> list[Job]:
    """All jobs of some items that are known beforehand, each once."""
    return list({job.name: job for item in items for job in item.jobs}.values())


def wanted_of(items: Iterable[Item], results: Results) -> list[Job]:
    """The jobs that some items want next, each once."""
    wanted = (job for item in items for job in item.wanted(results))
    return list({job.name: job for job in wanted}.values())
