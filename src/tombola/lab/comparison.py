"""Several trainings side by side: what tells them apart, their numbers and their learning curves.

Behind ``tombola compare``; :mod:`tombola.report.comparison` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tombola.errors import JobError
from tombola.lab.item import Results
from tombola.lab.job_table import numbers_of_jobs
from tombola.lab.store import Store
from tombola.table.key import Key, Scalar
from tombola.table.number import many
from tombola.training.recipe import Recipe
from tombola.untrusted import OTHER_FORM
from tombola.views.layout import fields_of

ACCURACY = "val_accuracy"
"""The metric of a training's final test accuracy."""

CURVES = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
"""The columns of a history that are compared, in percent and nats."""

_PLACE = "epoch"
_MOST_RUNS = 50


@dataclass(frozen=True)
class ComparedRun:
    """One training among several.

    name: of its job. key: what was trained on what. fields: those of the key with its further axes, seed and
    budget in epochs.
    numbers: by metric, None where there is no value. failed: whether it diverged or stayed at chance.
    seconds: that it took. epochs: the places of its history.
    curves: by column, NaN where there is no value.
    """

    name: str
    key: Key
    fields: dict[str, Scalar]
    numbers: Mapping[str, float | None]
    failed: bool
    seconds: float
    epochs: Sequence[float]
    curves: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class RunComparison:
    """Some trainings of a store, in the order in which they were named."""

    store: Store
    runs: Sequence[ComparedRun]

    @property
    def differing(self) -> tuple[str, ...]:
        """The fields in which two of the runs differ."""
        return tuple(name for name in self._fields() if len({run.fields.get(name) for run in self.runs}) > 1)

    @property
    def shared(self) -> dict[str, Scalar]:
        """The fields that all runs have in common, as far as they say anything."""
        differing, first = self.differing, self.runs[0].fields
        values = {name: first.get(name) for name in self._fields() if name not in differing}
        return {name: value for name, value in values.items() if value not in (None, "")}

    def to_json(self) -> dict[str, Any]:
        """The same as an object, its runs by the full names of their jobs."""
        differing = self.differing
        return {
            "store": str(self.store.root),
            "shared": self.shared,
            "differing": list(differing),
            "runs": [
                {
                    "job": run.name,
                    "fields": {name: run.fields.get(name) for name in differing},
                    "numbers": dict(run.numbers),
                    "failed": run.failed,
                    "seconds": run.seconds,
                    "epochs": list(run.epochs),
                    "curves": {name: list(values) for name, values in run.curves.items()},
                }
                for run in self.runs
            ],
        }

    def _fields(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.fields))


def comparison(store: Store, prefixes: Sequence[str]) -> RunComparison:
    """Some finished trainings side by side, each by its name or the beginning of it.

    Raises :class:`~tombola.errors.JobError` for fewer than two or more than 50 of them, for a name that is
    not in the store, and for a job that is no training; :class:`~tombola.errors.StoreError` for a damaged
    one.
    """
    names = list(dict.fromkeys(store.find(prefix) for prefix in prefixes))
    if not 1 < len(names) <= _MOST_RUNS:
        trainings = many(len(names), "training")
        raise JobError(f"{trainings} named; compare shows from 2 to {_MOST_RUNS} different ones")
    numbers, _ = numbers_of_jobs(Results(store), names)
    runs = []
    for name in names:
        history = store.history(name)
        main = next((one for one in numbers if one.jobs == (name,) and one.key.metric == ACCURACY), None)
        if main is None or not history:
            function = store.description(name)["function"]
            raise JobError(
                f"job {name[:12]} is of {function!r} and has no learning curve; compare takes trainings, and "
                "tombola table shows the numbers of any job"
            )
        try:
            places = [float(row[_PLACE]) for row in history]
            curves = {column: [float(row[column]) for row in history] for column in CURVES}
            seconds = float(store.provenance(name)["seconds"])
        except OTHER_FORM as error:
            raise store.damaged(name, "its history has another form") from error
        runs.append(
            ComparedRun(
                name,
                main.key,
                {**_fields_of(main.key), "seed": main.seed, "epochs": main.epochs},
                {one.key.metric: one.value for one in numbers if one.jobs == (name,)},
                main.failed,
                seconds,
                places,
                {column: [_finite(value) for value in values] for column, values in curves.items()},
            )
        )
    return RunComparison(store, _with_defaults(runs))


def _fields_of(key: Key) -> dict[str, Scalar]:
    """The fields and further axes of a key, without what every accuracy has in common."""
    return {name: key.get(name) for name in fields_of([key]) if name not in ("metric", "over", "reading")}


def _with_defaults(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Runs with the defaults of a recipe where another run has something else: keys leave them out."""
    named = dict.fromkeys(name for run in runs for name in run.fields)
    defaults = {field.name: field.default for field in fields(Recipe) if isinstance(field.default, Scalar)}
    filled = {name: defaults[name] for name in named if name in defaults}
    return [
        replace(run, fields=run.fields | {k: v for k, v in filled.items() if run.fields.get(k) is None})
        for run in runs
    ]


def _finite(value: float) -> float:
    """A value that can be drawn: NaN for an infinite one."""
    return value if math.isfinite(value) else math.nan
