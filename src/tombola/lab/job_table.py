"""The numbers of single jobs as rows of the table: keys read off their descriptions.

An experiment knows the keys of its numbers; of a job that is asked for by itself, or found in a store, only
its description tells what it measured on what (:mod:`tombola.lab.lineages`). See docs/table.md.
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
from tombola.lab.lineages import Lineages
from tombola.lab.measurement import Measurement, measurement_of
from tombola.lab.results import UndefinedResult, numbers_of, undefined_result
from tombola.lab.store import NUMBERS
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.table.key import KEY_FIELDS, Key, Over
from tombola.table.metrics import FACTORS, LAYER_SPARSITY, LAYERS, METRIC_OF_QUANTITY, metric_name
from tombola.table.number import Curve, Number, State
from tombola.untrusted import OTHER_FORM

_OVER: Mapping[str, Over] = {"": "seeds", "copies": "pairs", "rounds": "rounds"}


@dataclass(frozen=True)
class NumberSlot:
    """Which of the numbers of a job one is: of a pair of copies, a block of a probe (from 1), or a layer."""

    metric: str
    over: Over = "seeds"
    pair: int | None = None
    block: int | None = None
    layer: str = ""


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
    values: dict[str, dict[NumberSlot, float | None]] = {}
    measurements: list[Measurement] = []
    for name, job in by_name.items():
        try:
            measurement = measurement_of(reader.lineages, name)
            if measured_only and measurement.kind in ("ticket", "data"):
                continue
            result = reader.result(name, job)
            if measured_only and isinstance(result, Mapping) and not {"value", "failed"} & result.keys():
                continue  # a ticket of a function that is not declared here
            read = None if result is None else _numbers_by_slot(measurement, result)
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
        for measurement, slots in zip(measurements, _slots(measurements, values), strict=True)
        for number in reader.numbers(measurement, slots, values.get(measurement.name))
    ]
    return _told_apart(numbers, {item.name: item for item in measurements}, list(others)), damaged


def _slots(
    measurements: Sequence[Measurement], values: Mapping[str, Mapping[NumberSlot, object]]
) -> list[list[NumberSlot]]:
    """The numbers of each job; of one that is not finished those that finished ones like it have."""
    alike: dict[object, dict[NumberSlot, None]] = {}
    for measurement in measurements:
        shared = alike.setdefault(_likeness(measurement), {})
        shared |= dict.fromkeys(
            replace(slot, pair=None) if slot.pair is not None else slot
            for slot in values.get(measurement.name, ())
        )
    slots = []
    for measurement in measurements:
        own = list(values.get(measurement.name, ()))
        if measurement.pair is not None:
            expected = [
                replace(slot, pair=measurement.pair) if slot.over == "pairs" else slot
                for slot in alike[_likeness(measurement)]
            ]
        else:
            expected = list(alike[_likeness(measurement)])
        slots.append(own or expected or [_main_slot(measurement)])
    return slots


def _likeness(measurement: Measurement) -> object:
    """What two jobs have in common whose results have the same numbers."""
    return measurement.function, measurement.between, measurement.recalibrated


def _main_slot(measurement: Measurement) -> NumberSlot:
    """The number for which a job stands of which nothing is known yet."""
    if measurement.function == "train":
        return NumberSlot("val_accuracy")
    if measurement.function == "instability":
        metric = metric_name("instability", "heights", "copies", recalibrated=measurement.recalibrated)
        return NumberSlot(metric, "pairs")
    names = (name for function, name, _ in METRIC_OF_QUANTITY if function == measurement.function)
    quantity = next(names, "")
    metric = metric_name(
        measurement.function, quantity, measurement.between, recalibrated=measurement.recalibrated
    )
    return NumberSlot(metric, _OVER[measurement.between], measurement.pair)


def _numbers_by_slot(measurement: Measurement, result: Any) -> dict[NumberSlot, float | None]:
    """All numbers of a result; None for one that is not defined, and none where the whole of it is not."""
    if isinstance(result, UndefinedResult):
        return {}
    if isinstance(result, Mapping) and "value" not in result:  # of a run or ticket, as the store has it
        numbers = numbers_of(result)
        if measurement.function == LAYER_SPARSITY:
            return {_slot_of(measurement, name): item for name, item in numbers.items()}
        of_run = {"accuracy", "failed"} <= numbers.keys()
        accuracy = {NumberSlot("val_accuracy"): numbers.pop("accuracy")} if of_run else {}
        return {
            **accuracy,
            **{NumberSlot(f"{measurement.function}.{name}"): item for name, item in numbers.items()},
        }
    if isinstance(result, Mapping):  # of a function that is not declared here: its fields as JSON
        result = result["value"]
    values: dict[NumberSlot, float | None] = {}
    for name, value in numbers_of(result).items():
        slot = _slot_of(measurement, name)
        values[slot] = value * FACTORS.get(slot.metric, 1) if math.isfinite(value) else None
    for name in _undefined(result):
        values.setdefault(_slot_of(measurement, name), None)
    return values


_OF_PAIR = re.compile(r"(recalibrated\.)?(heights|lines)\[(\d+)\](.*)")
_OF_BLOCK = re.compile(r"(accuracy|losses)\[(\d+)\]")


def _slot_of(measurement: Measurement, quantity: str) -> NumberSlot:
    """The slot of a number of a result, by its name there."""
    function, recalibrated = measurement.function, measurement.recalibrated
    if function == "instability" and (match := _OF_PAIR.fullmatch(quantity)):
        reading, kind, pair, rest = match[1] or "", match[2], int(match[3]), match[4]
        if kind == "heights":
            metric = metric_name(function, kind, "copies", recalibrated=recalibrated or bool(reading))
        else:
            metric = f"{function}.{reading}{kind}{rest}"
        return NumberSlot(metric, "pairs", pair)
    if function == "probe" and (match := _OF_BLOCK.fullmatch(quantity)):
        return NumberSlot(metric_name(function, match[1]), block=int(match[2]) + 1)
    metric = metric_name(function, quantity, measurement.between, recalibrated=recalibrated)
    layer = quantity if function == LAYER_SPARSITY else ""
    return NumberSlot(metric, _OVER[measurement.between], measurement.pair, layer=layer)


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
        self.lineages = Lineages(results.store, jobs)
        self._curves: dict[tuple[str, bool], tuple[Curve, ...]] = {}
        self._failed: dict[str, bool] = {}
        self._between: dict[str, Barrier | Instability] = {}
        self._undefined: dict[str, str] = {}

    def result(self, name: str, job: Job | str) -> Any:
        """The result of a job as it is declared, or the numbers that the store has; None if there is none."""
        result = self._result(name, job)
        if isinstance(result, UndefinedResult):
            self._undefined[name] = result.why
        return result

    def _result(self, name: str, job: Job | str) -> Any:
        store = self._results.store
        if isinstance(job, Job) and not job.stored:
            return self._results.of(job)
        if not store.has(name):
            return None
        numbers = store.numbers(name)
        if (undefined := undefined_result(numbers)) is not None:
            store.check(name, NUMBERS)
            return undefined
        if "value" not in numbers:
            store.check(name, NUMBERS)
            self._failed[name] = numbers.get("failed") is True
            return numbers
        if isinstance(job, str):
            description = self.lineages.description(name)
            try:
                job = Job(described_function(description), description["arguments"])
            except JobError:  # declared elsewhere, or at another version
                store.check(name, NUMBERS)
                return numbers
        result = self._results.of(job)
        if isinstance(result, Barrier | Instability):
            self._between[name] = result
        for recalibrated in (False, True):
            self._curves[name, recalibrated] = _courses(result, recalibrated=recalibrated)
        return result

    def numbers(
        self,
        measurement: Measurement,
        slots: Iterable[NumberSlot],
        values: Mapping[NumberSlot, float | None] | None,
    ) -> list[Number]:
        """The numbers of a job in some slots."""
        failed = values is not None and any(map(self._has_failed, measurement.runs))
        common = [_key_fields(measurement, recalibrated=recalibrated) for recalibrated in (False, True)]
        numbers = []
        for slot in slots:
            fields = common[slot.metric.startswith("recalibrated_")]
            key = Key(**{**fields, "metric": slot.metric, "over": slot.over, "block": slot.block})
            if slot.layer:
                key = replace(key, more=(*key.more, (LAYERS, slot.layer)))
            value = None if values is None else values.get(slot)
            state: State = "missing" if values is None else "undefined" if value is None else "measured"
            failure = self._failure(measurement.name, slot)
            numbers.append(
                Number(
                    key=key, value=value, state=state, epochs=measurement.epochs,
                    seed=measurement.seed, pair=slot.pair, jobs=(measurement.name,),
                    failed=failed if failure is None else bool(failure), note=failure or "",
                    curve=self._curve(measurement, slot) if value is not None else None,
                )
            )  # fmt: skip
        return numbers

    def _failure(self, name: str, slot: NumberSlot) -> str | None:
        """Why a measure is undefined, of a barrier which run failed; None where that was not recorded."""
        if name in self._undefined:
            return self._undefined[name]
        between = self._between.get(name)
        lines = between.lines if isinstance(between, Instability) else (between,)
        if between is None or any(line is None or line.ends is None for line in lines):
            return None
        if isinstance(between, Instability) and slot.pair is not None:
            return between.failures_of_pairs()[slot.pair]
        return between.failures()

    def _curve(self, measurement: Measurement, slot: NumberSlot) -> Curve | None:
        """The error along the line whose barrier a number is."""
        if slot.metric not in _HEIGHTS:
            return None
        recalibrated = slot.metric == "recalibrated_barrier" and not measurement.recalibrated
        curves = self._curves.get((measurement.name, recalibrated), ())
        number = slot.pair if measurement.function == "instability" and slot.pair is not None else 0
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
    covered = {(number.jobs, number.key.metric) for number in others}
    numbers = [number for number in numbers if (number.jobs, number.key.metric) not in covered]
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
