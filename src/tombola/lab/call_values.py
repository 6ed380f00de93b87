"""Arguments of described calls: what they refer to, and their values as keys of the table can have them.

Descriptions may come from strangers: a value of another type than it should have counts as unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tombola.table.key import KEY_FIELDS, Scalar

_WIDEST = 2**63
"""Whole numbers from which a column of a frame could not hold them."""


def references(value: Any) -> Iterator[dict[str, Any]]:
    """The jobs, data and values of the caller's own in an argument, also within lists, in their order."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(reversed(item))
        elif isinstance(item, dict) and (
            "job" in item or item.keys() == {"data"} or item.keys() == {"value", "type"}
        ):
            yield item


def job_names(arguments: Mapping[str, Any]) -> Iterator[str]:
    """The names of the jobs among the arguments of a call."""
    return (item["job"] for value in arguments.values() for item in references(value) if "job" in item)


def options_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that refer to nothing."""
    return {name: value for name, value in arguments.items() if not any(True for _ in references(value))}


def relative(number: Any, seed: int | None) -> Scalar:
    """A noise or seed as it goes with the seed of a run, so that runs of other seeds have the same."""
    value = whole(number)
    if value is None or seed is None:
        return scalar(number)
    return "seed" if value == seed else f"seed{value - seed:+d}"


def whole(value: Any) -> int | None:
    """A whole number that any column can hold; None for anything else."""
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _WIDEST
    return value if fits else None


def real(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _WIDEST and math.isfinite(value) else None


def scalar(value: Any) -> Scalar:
    """A value as an axis of a key can have it; lists and objects as JSON text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if whole(value) is not None else str(value)[:40]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, ensure_ascii=False)


def axis_name(prefix: str, name: str) -> str:
    """The name of an axis, with a prefix where a field of every key is called so."""
    return f"{prefix}.{name}" if name in KEY_FIELDS else name
