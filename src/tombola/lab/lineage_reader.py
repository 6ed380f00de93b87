"""The reading of lineages: from a job to those behind it, through its description or the store's.

What each function makes of a lineage is in the steps of :class:`~tombola.lab.lineages.Lineages`; here is in
which order jobs are read, each once, and what becomes of those that are gone, damaged or not declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tombola.data.imageset import Data
from tombola.errors import JobError, StoreError
from tombola.lab.call_values import axis_name, job_names, options_of, references, scalar
from tombola.lab.job import Job, described_type, everything_behind
from tombola.lab.lineage import Description, Kind, Lineage
from tombola.lab.store import Store
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.training.trunk import Point

Step = Callable[[str, Mapping[str, Any]], Lineage]
"""From the name and arguments of a call, those behind it read, to the lineage of its result."""


class LineageReader:
    """The lineages of jobs by name, each read once.

    store: has the descriptions of finished jobs. jobs: those that may not be finished.
    """

    def __init__(self, store: Store, jobs: Iterable[Job]) -> None:
        self._store = store
        self._descriptions: dict[str, Description | None] = {}
        for job in everything_behind(jobs):
            self._add(job.name, job.description())
        self._lineages: dict[str, Lineage] = {}
        self._steps: dict[str, Step] = {}

    def description(self, name: str) -> Description:
        """The call that a job is.

        Raises :class:`~tombola.errors.JobError` if it is not there, and
        :class:`~tombola.errors.StoreError` if it is damaged.
        """
        if self._descriptions.get(name) is None:
            self._add(name, self._store.checked_description(name))
        return self._descriptions[name] or {}

    def of(self, name: str) -> Lineage:
        """The lineage of a job; what is behind a job that is gone or damaged is not known."""
        pending, opened = [name], set()
        while pending:  # an explicit stack: a chain of hundreds of rounds must not hit the recursion limit
            current = pending[-1]
            if current in self._lineages:
                pending.pop()
                continue
            description = self.readable(current)
            needed = [] if description is None else list(job_names(description["arguments"]))
            if current not in opened and any(parent not in self._lineages for parent in needed):
                opened.add(current)
                pending += [parent for parent in needed if parent not in opened]
                continue
            self._lineages[current] = (
                Lineage(kind="measure") if description is None else self._lineage(current, description)
            )
        return self._lineages[name]

    def within(self, value: Any) -> list[tuple[str, Lineage]]:
        """The jobs and the caller's own tickets and runs in an argument, by name, in their order."""
        lineages: list[tuple[str, Lineage]] = []
        for reference in references(value):
            if "job" in reference:
                lineages.append((reference["job"], self.of(reference["job"])))
            elif "data" in reference:
                lineages.append(("", Lineage(kind="data", dataset=reference["data"])))
            else:
                kind: Kind = "run" if reference["type"] == "Run" else "ticket"
                name = reference["value"]
                lineages.append((name, Lineage(kind=kind, axes={"own": name[:12]})))
        return lineages

    def _add(self, name: str, description: Description) -> None:
        """Remember a description, and those that are written out within it."""
        pending = [(name, description)]
        while pending:
            current, called = pending.pop()
            self._descriptions[current] = called
            pending += [
                (reference["job"], reference["call"])
                for value in called["arguments"].values()
                for reference in references(value)
                if "job" in reference and "call" in reference
            ]

    def readable(self, name: str) -> Description | None:
        """The call that a job is; None if it is gone or damaged."""
        if name not in self._descriptions:
            try:
                self.description(name)
            except (JobError, StoreError):
                self._descriptions[name] = None
        return self._descriptions[name]

    def _lineage(self, name: str, description: Description) -> Lineage:
        """The lineage of a job, those behind it known."""
        arguments = description["arguments"]
        step = self._steps.get(description["function"])
        if step is not None:
            return step(name, arguments)
        before = self.first(list(arguments.values())) or Lineage(kind="measure")
        options = options_of(arguments)
        function = axis_name("own", description["function"])
        axes = {**before.axes, function: scalar(options) if options else True}
        kind = kind_of(description)
        if kind in ("ticket", "run"):  # an own function may have done anything to the mask
            return replace(before, kind=kind, axes=axes, prunings=None)
        return replace(before, kind=kind, axes=axes)

    def first(self, value: Any) -> Lineage | None:
        """The lineage of the first job in an argument."""
        return next((lineage for _, lineage in self.within(value)), None)

    def subject(self, value: Any, kind: Kind) -> Lineage:
        """The lineage of a ticket or run that is an argument, now as a result of another kind."""
        return replace(self.first(value) or Lineage(kind=kind), kind=kind)


def kind_of(description: Description) -> Kind:
    """What a described call gives; a measure where its function is not declared here."""
    try:
        kind = described_type(description)
    except JobError:
        return "measure"
    kinds: dict[Any, Kind] = {Ticket: "ticket", Point: "ticket", Run: "run", Data: "data"}
    return kinds.get(kind, "measure")
