"""The numbers of single jobs as rows of the table: keys read off their descriptions.

An experiment knows the keys of its numbers; of a job that is asked for by itself, or found in a store, only
its description tells what it measured on what (:mod:`tombola.lab.lineage`). See docs/table.md.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tombola.errors import JobError, StoreError, reason
from tombola.lab.arguments import alternatives
from tombola.lab.item import Results
from tombola.lab.job import Job, described_function
from tombola.lab.lineage import Kind, Lineage, Lineages, relative, scalar, whole
from tombola.lab.results import numbers_of
from tombola.lab.store import NUMBERS
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.table.key import KEY_FIELDS, Key, Over, Scalar
from tombola.table.metrics import METRIC_OF_QUANTITY, metric_name
from tombola.table.number import Curve, Number, State
from tombola.untrusted import OTHER_FORM

_OVER: Mapping[str, Over] = {"": "seeds", "copies": "pairs", "rounds": "rounds"}


@dataclass(frozen=True)
class Place:
    """Which of the numbers of a job one is: of a pair of copies, or of a probe's block, from 1."""

    metric: str
    over: Over = "seeds"
    pair: int | None = None
    block: int | None = None


@dataclass(frozen=True)
class Measurement:
    """A job whose numbers are asked for, and all that its keys have in common.

    between: ``"copies"`` or ``"rounds"`` of a measure of two such runs. runs: names of those that it is of.
    hidden: axes that are told only where two jobs would have one key.
    """

    name: str
    function: str
    kind: Kind
    fields: Mapping[str, Scalar]
    hidden: Mapping[str, Scalar]
    epochs: int
    seed: int | None
    between: str = ""
    pair: int | None = None
    runs: tuple[str, ...] = ()
    recalibrated: bool = False


def numbers_of_jobs(
    results: Results,
    jobs: Iterable[Job | str],
    others: Iterable[Number] = (),
    *,
    strict: bool = True,
    measured_only: bool = False,
) -> tuple[list[Number], list[StoreError]]:
    """Every number of some jobs, gaps included, and what is damaged among them.

    jobs: also by their full names in the store. others: numbers of the same table that an experiment has;
        what is among them is left out here.
    measured_only: leave tickets, data and the like out: only runs and measures have measured anything.
    strict: raise the first :class:`~tombola.errors.StoreError` instead of leaving that job out.

    Raises :class:`~tombola.errors.JobError` for a name that is not in the store.
    """
    by_name = {job if isinstance(job, str) else job.name: job for job in jobs}
    reader = _Reader(results, [job for job in by_name.values() if isinstance(job, Job)])
    damaged: list[StoreError] = []
    values: dict[str, dict[Place, float | None]] = {}
    measurements: list[Measurement] = []
    for name, job in by_name.items():
        try:
            measurement = reader.measurement(name)
            if measured_only and measurement.kind in ("ticket", "data"):
                continue
            result = reader.result(name, job)
            if measured_only and isinstance(result, Mapping) and not {"value", "failed"} & result.keys():
                continue  # a ticket of a function that is not declared here
            read = None if result is None else _values(measurement, result)
        except StoreError as error:
            if strict:
                raise
            damaged.append(error)
            continue
        except OTHER_FORM as error:
            cause = f"its numbers have another form: {type(error).__name__} {reason(error)}"
            damaged.append(results.store.damaged(name, cause))
            if strict:
                raise damaged[-1] from error
            continue
        measurements.append(measurement)
        if read is not None:
            values[name] = read
    numbers = [
        number
        for measurement, places in zip(measurements, _places(measurements, values), strict=True)
        for number in reader.numbers(measurement, places, values.get(measurement.name))
    ]
    return _told_apart(numbers, {item.name: item for item in measurements}, list(others)), damaged


def _places(
    measurements: Sequence[Measurement], values: Mapping[str, Mapping[Place, object]]
) -> list[list[Place]]:
    """The numbers of each job; of one that is not finished those that finished ones like it have."""
    alike: dict[object, dict[Place, None]] = {}
    for measurement in measurements:
        known = alike.setdefault(_likeness(measurement), {})
        known |= dict.fromkeys(
            replace(place, pair=None) if place.pair is not None else place
            for place in values.get(measurement.name, ())
        )
    places = []
    for measurement in measurements:
        own = list(values.get(measurement.name, ()))
        if measurement.pair is not None:
            expected = [
                replace(place, pair=measurement.pair) if place.over == "pairs" else place
                for place in alike[_likeness(measurement)]
            ]
        else:
            expected = list(alike[_likeness(measurement)])
        places.append(own or expected or [_main_place(measurement)])
    return places


def _likeness(measurement: Measurement) -> object:
    """What two jobs have in common whose results have the same numbers."""
    return measurement.function, measurement.between, measurement.recalibrated


def _main_place(measurement: Measurement) -> Place:
    """The number for which a job stands of which nothing is known yet."""
    if measurement.function == "train":
        return Place("val_accuracy")
    if measurement.function == "instability":
        metric = metric_name("instability", "heights", "copies", recalibrated=measurement.recalibrated)
        return Place(metric, "pairs")
    names = (name for function, name, _ in METRIC_OF_QUANTITY if function == measurement.function)
    quantity = next(names, "")
    metric = metric_name(
        measurement.function, quantity, measurement.between, recalibrated=measurement.recalibrated
    )
    return Place(metric, _OVER[measurement.between], measurement.pair)


def _values(measurement: Measurement, result: Any) -> dict[Place, float | None]:
    """All numbers of a result; None for one that is not defined."""
    if isinstance(result, Mapping) and "value" not in result:  # of a run or ticket, as the store has it
        numbers = numbers_of(result)
        of_run = {"accuracy", "failed"} <= numbers.keys()
        accuracy = {Place("val_accuracy"): numbers.pop("accuracy")} if of_run else {}
        return {
            **accuracy,
            **{Place(f"{measurement.function}.{name}"): item for name, item in numbers.items()},
        }
    if isinstance(result, Mapping):  # of a function that is not declared here: its fields as JSON
        result = result["value"]
    values: dict[Place, float | None] = {}
    for name, value in numbers_of(result).items():
        values[_place(measurement, name)] = value if math.isfinite(value) else None
    for name in _undefined(result):
        values.setdefault(_place(measurement, name), None)
    return values


_OF_PAIR = re.compile(r"(recalibrated\.)?(heights|lines)\[(\d+)\](.*)")
_OF_BLOCK = re.compile(r"(accuracy|losses)\[(\d+)\]")


def _place(measurement: Measurement, quantity: str) -> Place:
    """Where a number of a result stands, by its name there."""
    function, recalibrated = measurement.function, measurement.recalibrated
    if function == "instability" and (match := _OF_PAIR.fullmatch(quantity)):
        beside, kind, pair, rest = match[1] or "", match[2], int(match[3]), match[4]
        if kind == "heights":
            metric = metric_name(function, kind, "copies", recalibrated=recalibrated or bool(beside))
        else:
            metric = f"{function}.{beside}{kind}{rest}"
        return Place(metric, "pairs", pair)
    if function == "probe" and (match := _OF_BLOCK.fullmatch(quantity)):
        return Place(metric_name(function, match[1]), block=int(match[2]) + 1)
    metric = metric_name(function, quantity, measurement.between, recalibrated=recalibrated)
    return Place(metric, _OVER[measurement.between], measurement.pair)


def _undefined(result: Any) -> list[str]:
    """The fields of a result that would have a number and are None; the empty name for the whole of it."""
    if result is None:
        return [""]
    kind: Any = type(result)
    return [name for name in _optional_numbers(kind) if getattr(result, name) is None]


@cache
def _optional_numbers(kind: Hashable) -> tuple[str, ...]:
    """The fields of a dataclass that have a number or None."""
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        return ()
    hints = typing.get_type_hints(kind)
    return tuple(
        entry.name
        for entry in dataclasses.fields(kind)
        if {int, float, type(None)} & set(alternatives(hints[entry.name])) not in (set(), {type(None)})
    )


class _Reader:
    """Descriptions and results of jobs, each read once."""

    def __init__(self, results: Results, jobs: Sequence[Job]) -> None:
        self._results = results
        self._lineages = Lineages(results.store, jobs)
        self._curves: dict[tuple[str, bool], tuple[Curve, ...]] = {}
        self._failed: dict[str, bool] = {}

    def result(self, name: str, job: Job | str) -> Any:
        """The result of a job as it is declared, or the numbers that the store has; None if there is none."""
        store = self._results.store
        if isinstance(job, Job) and not job.stored:
            return self._results.of(job)
        if not store.has(name):
            return None
        numbers = store.numbers(name)
        if "value" not in numbers:
            store.check(name, NUMBERS)
            self._failed[name] = numbers.get("failed") is True
            return numbers
        if isinstance(job, str):
            description = self._lineages.description(name)
            try:
                job = Job(described_function(description), description["arguments"])
            except JobError:  # declared elsewhere, or at another version
                store.check(name, NUMBERS)
                return numbers
        result = self._results.of(job)
        for beside in (False, True):
            self._curves[name, beside] = _courses(result, recalibrated=beside)
        return result

    def measurement(self, name: str) -> Measurement:
        """A job with all that its description tells of its keys."""
        description = self._lineages.description(name)
        function, arguments = str(description["function"]), description["arguments"]
        lineage = self._lineages.of(name)
        if lineage.kind in ("ticket", "run", "data"):
            runs = (name,) if lineage.kind == "run" else ()
            return Measurement(
                name, function, lineage.kind, lineage.fields(), lineage.hidden, lineage.epochs, lineage.seed,
                runs=runs,
            )  # fmt: skip
        return self._measure(name, function, arguments)

    def _measure(self, name: str, function: str, arguments: Mapping[str, Any]) -> Measurement:
        """A measure, by what it was taken of."""
        parents = [parent for value in arguments.values() for parent in self._lineages.within(value)]
        subjects = [(parent, lineage) for parent, lineage in parents if lineage.kind != "data"]
        lineages = [lineage for _, lineage in subjects]
        first = lineages[0] if lineages else Lineage(kind="measure")
        hidden: dict[str, Scalar] = dict(first.hidden)
        listed = any(isinstance(value, list) for value in arguments.values())
        two = len(lineages) == 2 and not listed
        between, pair = _between(subjects) if two else ("", None)
        if pair is not None:
            fields = replace(first, noise=None).fields()
        elif two and between != "rounds":
            fields = first.fields() | _second(*lineages)
        else:
            fields = _common(lineages[:1] if between == "rounds" else lineages)
        fields |= _baseline(function, first)
        fields |= _measured_on(function, first, [lineage for _, lineage in parents if lineage.kind == "data"])
        options = {key: value for key, value in arguments.items() if not self._lineages.within(value)}
        recalibrated = options.get("recalibrate") is True
        for key, value in options.items():
            if key == "seed" and whole(value) is not None:
                hidden[f"{function}.seed"] = whole(value)
                if first.seed is not None and value != first.seed:
                    fields[f"{function}.seed"] = relative(value, first.seed)
            else:
                fields[f"{function}.{key}"] = scalar(value)
        seeds = {lineage.seed for lineage in lineages}
        epochs = max((lineage.epochs for lineage in lineages), default=0)
        return Measurement(
            name, function, "measure", fields, hidden, epochs,
            seeds.pop() if len(seeds) == 1 else None, between, pair,
            tuple(parent for parent, lineage in subjects if lineage.kind == "run"), recalibrated,
        )  # fmt: skip

    def numbers(
        self, measurement: Measurement, places: Iterable[Place], values: Mapping[Place, float | None] | None
    ) -> list[Number]:
        """The numbers of a job at some places."""
        failed = values is not None and any(map(self._has_failed, measurement.runs))
        common = [_key_fields(measurement, recalibrated=recalibrated) for recalibrated in (False, True)]
        numbers = []
        for place in places:
            fields = common[place.metric.startswith("recalibrated_")]
            key = Key(**{**fields, "metric": place.metric, "over": place.over, "block": place.block})
            value = None if values is None else values.get(place)
            state: State = "missing" if values is None else "undefined" if value is None else "measured"
            numbers.append(
                Number(
                    key=key, value=value, state=state, epochs=measurement.epochs,
                    seed=measurement.seed, pair=place.pair, failed=failed, jobs=(measurement.name,),
                    curve=self._curve(measurement, place) if value is not None else None,
                )
            )  # fmt: skip
        return numbers

    def _curve(self, measurement: Measurement, place: Place) -> Curve | None:
        """The error along the line whose barrier a number is."""
        if place.metric not in _HEIGHTS:
            return None
        beside = place.metric == "recalibrated_barrier" and not measurement.recalibrated
        curves = self._curves.get((measurement.name, beside), ())
        number = place.pair if measurement.function == "instability" and place.pair is not None else 0
        return curves[number] if number < len(curves) else None

    def _has_failed(self, run: str) -> bool:
        """Whether a run diverged or stayed at chance; not one that is gone or damaged."""
        if run not in self._failed:
            try:
                self._failed[run] = self._results.store.numbers(run).get("failed") is True
            except (JobError, StoreError):
                self._failed[run] = False
        return self._failed[run]


_HEIGHTS = ("barrier", "recalibrated_barrier", "barrier_to_next", "barrier.height")


def _courses(result: Any, *, recalibrated: bool) -> tuple[Curve, ...]:
    """The errors along the lines of a barrier or instability, or along those that they carry beside."""
    lines = result.lines if isinstance(result, Instability) else (result,)
    barriers = [line for line in lines if isinstance(line, Barrier)]
    chosen = [line.recalibrated for line in barriers] if recalibrated else barriers
    return tuple(Curve(line.alphas, line.errors) for line in chosen if line is not None)


def _between(subjects: Sequence[tuple[str, Lineage]]) -> tuple[str, int | None]:
    """What two runs are of each other: noise copies, with the number of their pair, or consecutive rounds."""
    (first_name, first), (_, second) = subjects
    if (first.kind, second.kind) != ("run", "run"):
        return "", None
    if first.ticket and first.ticket == second.ticket and first.training == second.training:
        return "copies", _pair(first, second)
    if second.pruned == first_name and _rest(first) == _rest(second):
        return "rounds", None
    return "", None


def _rest(lineage: Lineage) -> tuple[object, ...]:
    """What the runs of consecutive rounds have in common."""
    return lineage.training, lineage.noise, lineage.dataset, lineage.subset_criterion, lineage.baseline


def _pair(first: Lineage, second: Lineage) -> int | None:
    """The number of a pair of copies: 0 of the first two noises from the seed on, 1 and 2 with the third."""
    if first.seed is None:
        return None
    earlier, later = sorted((lineage.noise or 0) - first.seed for lineage in (first, second))
    if earlier < 0 or later == earlier or later > _MOST_COPIES:
        return None
    return later * (later - 1) // 2 + earlier


_MOST_COPIES = 1000


def _second(first: Lineage, second: Lineage) -> dict[str, Scalar]:
    """What the second of two runs has otherwise than the first."""
    told, other = first.fields() | {"epochs": first.epochs}, second.fields() | {"epochs": second.epochs}
    if first.seed != second.seed:
        told["seed"], other["seed"] = first.seed, second.seed
    differing = [name for name in dict.fromkeys((*told, *other)) if told.get(name) != other.get(name)]
    return {f"second_{name}": other.get(name, "default") for name in differing}


def _common(lineages: Sequence[Lineage]) -> dict[str, Scalar]:
    """What several runs have in common, None for what they differ in, and their noises."""
    fields = [lineage.fields() for lineage in lineages]
    told: dict[str, Scalar] = {}
    for name in dict.fromkeys(name for one in fields for name in one):
        values = [one.get(name) for one in fields]
        told[name] = values[0] if all(value == values[0] for value in values) else None
    noises = [relative(lineage.noise or 0, lineage.seed) for lineage in lineages if lineage.kind == "run"]
    if len(set(noises)) > 1:
        told |= {"noise": None, "noises": ", ".join(map(str, noises))}
    return told


def _baseline(function: str, subject: Lineage) -> dict[str, Scalar]:
    """What a measure is told by that takes tickets and runs alike."""
    if function not in ("probe", "transfer") or subject.kind != "run":
        return {}
    dense = not subject.sparsity and subject.baseline is None
    return {"baseline": "frozen_dense"} if dense else {"trained": True}


def _measured_on(function: str, subject: Lineage, data: Sequence[Lineage]) -> dict[str, Scalar]:
    """The data that a measure was taken on, where it is not that of the training."""
    if not data:
        return {}
    first = data[0]
    part: dict[str, Scalar] = {
        f"data_{name}": value for name, value in first.axes.items() if subject.axes.get(name) != value
    }
    if first.subset_criterion is not None:
        part |= {"data_subset": first.subset_criterion, "data_subset_percent": first.subset_percent}
    if function == "transfer":
        return {"target": first.dataset, **part}
    if first.dataset in (None, subject.dataset):
        return part
    if subject.dataset is None:
        return {"dataset": first.dataset, **part}
    return {"target" if function == "probe" else "data": first.dataset, **part}


def _key_fields(measurement: Measurement, *, recalibrated: bool) -> dict[str, Any]:
    """What the keys of all numbers of a job have in common.

    recalibrated: of a metric whose name says that batch norm was measured anew, so that no axis need.
    """
    fields = dict(measurement.fields)
    if recalibrated and measurement.recalibrated:
        fields.pop(f"{measurement.function}.recalibrate", None)
    common: dict[str, Any] = {name: fields.pop(name) for name in KEY_FIELDS if name in fields}
    axes = [(name, fields[name]) for name in sorted(fields) if fields[name] is not None]
    return {**common, "more": tuple(axes)}


def _told_apart(
    numbers: Sequence[Number], measurements: Mapping[str, Measurement], others: Sequence[Number]
) -> list[Number]:
    """The numbers under keys of which each says which job it is of.

    Two jobs that differ in nothing that their keys have are told apart by what is usually left out, a noise
    or the seed of a draw, and else by the beginning of their names.
    """
    taken = {(number.jobs, number.key.metric) for number in others}
    numbers = [number for number in numbers if (number.jobs, number.key.metric) not in taken]
    for more in (_with_hidden, _with_name):
        jobs: dict[object, set[tuple[str, ...]]] = {}
        identities = [(_identity(number), number) for number in numbers]
        for identity, number in (*((_identity(number), number) for number in others), *identities):
            jobs.setdefault(identity, set()).add(number.jobs)
        if len(jobs) == sum(map(len, jobs.values())):
            break
        numbers = [
            more(number, measurements[number.jobs[0]]) if len(jobs[identity]) > 1 else number
            for identity, number in identities
        ]
    return numbers


def _identity(number: Number) -> object:
    return number.key, number.epochs, number.seed, number.pair


def _with_hidden(number: Number, measurement: Measurement) -> Number:
    present = {name for name, _ in number.key.more}
    axes = tuple((name, value) for name, value in measurement.hidden.items() if name not in present)
    return replace(number, key=replace(number.key, more=(*number.key.more, *axes)))


def _with_name(number: Number, measurement: Measurement) -> Number:
    axes = (*number.key.more, ("job", measurement.name[:12]))
    return replace(number, key=replace(number.key, more=axes))
