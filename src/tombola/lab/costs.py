"""The costs of jobs, as their functions state them (:mod:`tombola.cost`), for plans to add up.

Each job is worked out once, with the outline of its result for the jobs that take it. Only data whose size is
not in :mod:`tombola.data.sizes` is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from tombola.cost import Cost, Outline, Size, forward
from tombola.data.imageset import Data
from tombola.data.load import load_data
from tombola.data.sizes import SIZES
from tombola.declarations import bare_name
from tombola.lab.arguments import from_json, item_hint, job_signature, written_defaults
from tombola.lab.job import Job, result_type
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe
from tombola.training.run import Run

_SUBJECTS = ("ticket", "run", "start", "subject")
"""Parameters whose outline is the result's, unless the cost states another; the first one wins."""


class Costs:
    """The costs of jobs, each worked out once."""

    def __init__(self) -> None:
        self._costs: dict[str, Cost] = {}
        self._results: dict[str, Outline | Size] = {}
        self._recipes: dict[int, tuple[dict[str, Any], Recipe]] = {}  # of many jobs a few; by what is written
        self._sizes = dict(SIZES)
        self.unsized: set[str] = set()
        """Networks that cannot be built for images as CIFAR-10's, whose weights are counted as nothing."""

    def of(self, job: Job) -> Cost:
        """The cost of a job, without the jobs that it needs.

        Raises :class:`~tombola.errors.DataError` for a data set of the caller's own that cannot be loaded.
        """
        cost = self._costs.get(job.name)
        if cost is None:
            cost = self._costs[job.name] = self._stated(job)
        return cost

    def _stated(self, job: Job) -> Cost:
        """The cost that the job's function states; without one, that of an evaluation if it is stored."""
        cost = job.declaration.cost
        if cost is None:
            return self._evaluation(job) if job.stored else Cost()
        stated = cost(**dict(self._arguments(job, _parameters(cost))))
        if isinstance(stated.result, Outline) and stated.result.network and not stated.result.weights:
            self.unsized.add(bare_name(stated.result.network))
        return stated

    def _evaluation(self, job: Job) -> Cost:
        """The cost of evaluating the tickets or runs that a job takes on the data that it takes."""
        arguments = [self._planned(job, value, Any) for value in job.arguments.values()]
        values = [item for value in arguments for item in (value if isinstance(value, tuple) else (value,))]
        sizes = [value for value in values if isinstance(value, Size)]
        outlines = [value for value in values if isinstance(value, Outline)]
        if not sizes or not outlines:
            return Cost()
        return forward(outlines[0], len(outlines) * sizes[0].test)

    def _result(self, job: Job) -> Outline | Size:
        """The outline or size of a job's result."""
        if job.name not in self._results:
            self._results[job.name] = self.of(job).result or self._passed_on(job)
        return self._results[job.name]

    def _passed_on(self, job: Job) -> Outline | Size:
        """The size of the data that a data function takes, else the outline of the ticket or run taken."""
        if result_type(job.declaration) is Data:
            values = (value for _, value in self._arguments(job, job.arguments))
            # Of data made from nothing no size is known.
            return next((value for value in values if isinstance(value, Size)), Size(0, 0, 0))
        subjects = self._arguments(job, [key for key in _SUBJECTS if key in job.arguments])
        return next((value for _, value in subjects if isinstance(value, Outline)), Outline())

    def _arguments(self, job: Job, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Yields arguments of a job by name, or their defaults, as a cost function takes them."""
        function = job.declaration.function
        hints, written = job_signature(function).hints, {**written_defaults(function), **job.arguments}
        for key in keys:
            yield key, self._planned(job, written[key], hints.get(key, Any))

    def _planned(self, job: Job, value: Any, hint: Any) -> Any:
        """The value of a written argument, with outlines and sizes in place of tickets, runs and data."""
        if isinstance(value, Job):
            return self._result(value)
        if isinstance(value, list):
            return tuple(self._planned(job, item, item_hint(hint, index)) for index, item in enumerate(value))
        if not isinstance(value, dict):
            return from_json(value, hint)
        if "job" in value:  # gone from the store that a finished job was read from
            return Outline()
        if value.keys() == {"data"}:
            return self._size(value["data"], job.data)
        if value.keys() == {"value", "type"}:
            return _outline(job.values[value["value"]]) if value["value"] in job.values else Outline()
        if hint is not Recipe:
            return from_json(value, hint)
        if id(value) not in self._recipes:
            self._recipes[id(value)] = (value, from_json(value, Recipe))
        return self._recipes[id(value)][1]

    def _size(self, name: str, sources: Mapping[str, str | Data]) -> Size:
        if name not in self._sizes:
            if name not in sources:  # of a finished job, read from a store
                return Size(0, 0, 0)
            data = load_data(sources[name])
            self._sizes[name] = Size(len(data.train), len(data.test), data.classes)
        return self._sizes[name]


def _outline(value: Ticket | Run) -> Outline:
    """The outline of a ticket or run of the caller's own."""
    ticket = value if isinstance(value, Ticket) else value.ticket
    weights = sum(tensor.numel() for tensor in ticket.start.values())
    return Outline(ticket.network.written, weights, ticket.epoch + ticket.step / ticket.steps, ticket.density)


@cache
def _parameters(cost: Callable[..., Cost]) -> tuple[str, ...]:
    return tuple(inspect.signature(cost).parameters)
