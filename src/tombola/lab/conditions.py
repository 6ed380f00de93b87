"""Finished jobs chosen by what they measured: behind ``tombola ls --where momentum=0.9``.

The fields are those of the table's keys (:mod:`tombola.table.key`), read off the descriptions of a job and of
all behind it: a barrier has the momentum of its runs, and a default counts like a value that was written.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tombola.errors import JobError, unknown
from tombola.table.key import Scalar

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([\w.-]+)\s*(!=|<=|>=|=|<|>)\s*([^=<>!\s].*?)\s*")
# Values that a number should equal may be rounded to this share of it: 89.2625 is found by sparsity=89.26.
# Whole numbers are not rounded by anybody: seed=1000 is not seed 1001.
_ROUNDED = 1e-3


@dataclass(frozen=True)
class Condition:
    """A field of a job's key, compared with a value."""

    field: str
    comparison: str
    value: str

    def holds(self, value: Scalar) -> bool:
        """Whether it holds for the field's value; a field without a value fulfils only ``!=``."""
        if value is None:
            return self.comparison == "!="
        here, there = _number(value), _number(self.value)
        if here is None or there is None:
            equal = str(value).lower() == self.value.lower()
            return {"=": equal, "!=": not equal}.get(self.comparison, False)
        if self.comparison in ("=", "!="):
            rounded = 0 if isinstance(value, int) else _ROUNDED * max(abs(here), abs(there))
            equal = abs(here - there) <= rounded
            return equal == (self.comparison == "=")
        return _COMPARISONS[self.comparison](here, there)


def parse_condition(text: str) -> Condition:
    """The condition that a text says; :class:`~tombola.errors.JobError` for a text that says none."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        allowed = ", ".join(_COMPARISONS)
        raise JobError(f"{text!r} is no condition; say a field, one of {allowed}, and a value: momentum=0.9")
    return Condition(match[1].replace("-", "_"), match[2], match[3])


def jobs_where(
    fields_by_name: Mapping[str, Mapping[str, Scalar]], conditions: Sequence[Condition]
) -> set[str]:
    """Those of some jobs, by name with their fields, for which all conditions hold.

    Raises :class:`~tombola.errors.JobError` for a field that none of the jobs has.
    """
    fields_there = {field for fields in fields_by_name.values() for field in fields}
    for condition in conditions:
        if fields_by_name and condition.field not in fields_there:
            raise JobError(unknown("field", condition.field, fields_there))
    return {
        name
        for name, fields in fields_by_name.items()
        if all(condition.holds(fields.get(condition.field)) for condition in conditions)
    }


def _number(value: Scalar) -> float | None:
    """A value as a number, if it is one; true and false are words."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
