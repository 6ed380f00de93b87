"""Finished jobs as trackers are told of them: curve, numbers of the table, parameters and parents.

Trackers show what they are told on terminals and pages, and the store may be a stranger's: all text is made
printable here, and bounded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from itertools import islice
from typing import Any

from tombola.errors import JobError, StoreError, reason
from tombola.lab.call_values import job_names, scalar
from tombola.lab.details import flattened
from tombola.lab.item import Results
from tombola.lab.job_table import numbers_of_jobs
from tombola.lab.lineage_reader import kind_of
from tombola.lab.lineages import Lineages
from tombola.lab.measurement import Measurement, measurement_of
from tombola.lab.store import HISTORY, Store
from tombola.lab.tracker import Parameter, TrackedJob, TrackedPoint
from tombola.table.key import Scalar
from tombola.table.metrics import LAYERS
from tombola.table.number import Number
from tombola.training.recipe import Recipe
from tombola.training.run import Epoch
from tombola.untrusted import OTHER_FORM, printable

# Of the provenance, what says nothing about a result.
_LEFT_OUT = ("sums.", "pid")
# In the name of a number that is one of a list, such as a point of a line.
_POINT = re.compile(r"\[\d+\]")
# Jobs whose results are read together.
_TOGETHER = 100
# Parameters and parents of one job, and characters of a text.
_MOST, _LONGEST = 1_000, 1_000
_LONGEST_NAME = 200


def tracked_jobs(
    store: Store, names: Iterable[str], damaged: Callable[[StoreError], None]
) -> Iterator[TrackedJob]:
    """Yields the runs and measures among some finished jobs, and nothing of jobs that are gone.

    damaged: is called with the error of each job that cannot be read.
    """
    lineages = Lineages(store, ())
    rest = iter(names)
    while some := list(islice(rest, _TOGETHER)):
        present = [name for name in some if store.has(name)]
        try:
            numbers, errors = numbers_of_jobs(Results(store), present, strict=False, measured_only=True)
        except JobError:  # one was removed by another process just now
            for name in present if len(present) > 1 else ():
                yield from tracked_jobs(store, [name], damaged)
            continue
        for error in errors:
            damaged(error)
        by_job: dict[str, list[Number]] = {}
        for number in numbers:
            by_job.setdefault(number.jobs[0], []).append(number)
        for name, own in by_job.items():
            try:
                yield _tracked_job(store, lineages, name, own)
            except StoreError as error:
                damaged(error)
            except JobError:
                continue
            except OTHER_FORM as error:
                damaged(store.damaged(name, f"{type(error).__name__} {reason(error)}"))


def _tracked_job(store: Store, lineages: Lineages, name: str, numbers: Sequence[Number]) -> TrackedJob:
    measurement = measurement_of(lineages, name)
    provenance = store.provenance(name)
    started = datetime.fromisoformat(provenance["started"]).timestamp()
    return TrackedJob(
        name=name,
        function=_text(measurement.function),
        title=_title(measurement),
        started=started,
        ended=started + float(provenance["seconds"]),
        curve=_curve(store, name, started),
        numbers=_numbers(numbers),
        parameters=_parameters(measurement, lineages.description(name)["arguments"], provenance),
        parents=_parents(lineages, name),
    )


def _title(measurement: Measurement) -> str:
    """What was measured on what, and the beginning of the job's name."""
    present = measurement.fields
    words = [measurement.function, present.get("network"), present.get("dataset")]
    if present.get("momentum") is not None and present.get("batch_size") is not None:
        words.append(f"{present['momentum']}/{present['batch_size']}")
    words += [f"{name} {present[name]}" for name in ("sparsity", "baseline") if present.get(name) is not None]
    words += [] if measurement.seed is None else [f"seed {measurement.seed}"]
    words += [f"noise {present['noise']}"] if present.get("noise") is not None else []
    return " ".join([*(_text(word)[:40] for word in words if word), measurement.name[:12]])


def _curve(store: Store, name: str, started: float) -> list[TrackedPoint]:
    """The rows of a run's history; none of another job.

    Steps are epochs. A row of a part of an epoch, where a training begins or ends within one, counts as the
    epoch that it begins or ends with.
    """
    rows = store.history(name)
    if rows:
        store.check(name, HISTORY)
    columns = [entry.name for entry in fields(Epoch)]
    curve: list[TrackedPoint] = []
    time, first = started, 0
    for index, row in enumerate(rows):
        values = {column: float(row[column]) for column in columns if row.get(column)}
        first = first if index else math.floor(values["epoch"])
        time += values["seconds"]
        if not index:  # the state before any step: what is of a training is no number
            values = {column: value for column, value in values.items() if not math.isnan(value)}
        curve.append(TrackedPoint(first + index, time, values))
    return curve


def _numbers(numbers: Sequence[Number]) -> dict[str, float]:
    """The numbers that have a value, by metric; several of one metric by what tells them apart, too."""
    shown = [number for number in numbers if number.value is not None]
    shown = [number for number in shown if not _POINT.search(number.key.metric)]
    count = Counter(number.key.metric for number in shown)
    values: dict[str, float] = {}
    for number in shown:
        name = number.key.metric
        if count[name] > 1:
            layer = number.key.get(LAYERS)
            marks = (("pair", number.pair), ("block", number.key.block), ("", layer))
            name += "".join(f".{mark}{value}" for mark, value in marks if value is not None)
        values[_text(name)[:_LONGEST_NAME]] = float(number.value or 0.0)
    return values


def _parameters(
    measurement: Measurement, arguments: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Parameter]:
    """What was measured on what, the whole recipe with its defaults, and the provenance."""
    values: dict[str, Scalar] = {
        "function": measurement.function, "seed": measurement.seed, "epochs": measurement.epochs,
        **measurement.hidden, **measurement.fields,
    }  # fmt: skip
    recipe = arguments.get("recipe")
    if isinstance(recipe, dict):
        complete = {**flattened(asdict(Recipe())), **flattened(recipe)}
        values |= {f"recipe.{name}": scalar(value) for name, value in complete.items()}
    values |= {
        f"provenance.{name}": scalar(value)
        for name, value in flattened(provenance).items()
        if not name.startswith(_LEFT_OUT)
    }
    present = ((name, value) for name, value in values.items() if value is not None)
    return {
        _text(name)[:_LONGEST_NAME]: _text(value) if isinstance(value, str) else value
        for name, value in islice(present, _MOST)
    }


def _parents(lineages: Lineages, name: str) -> list[str]:
    """The nearest runs and measures that a job was made from: of a ticket, those behind it."""
    pending, seen = [name], {name}
    parents: list[str] = []
    for current in pending:  # which grows meanwhile
        call = lineages.readable(current)
        for parent in job_names(call["arguments"]) if call else ():
            if parent in seen or len(parents) >= _MOST:
                continue
            seen.add(parent)
            description = lineages.readable(parent)
            (
                parents if description is None or kind_of(description) in ("run", "measure") else pending
            ).append(parent)
    return parents


def _text(value: object) -> str:
    return printable(str(value))[:_LONGEST]
