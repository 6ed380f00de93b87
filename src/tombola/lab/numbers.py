"""What a result says in plain numbers, whatever its type: for tables and for the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tombola.lab.result import pack
from tombola.ticket import Ticket
from tombola.training.run import Run

_LONGEST = 32
"""Items of a list that is still told; a longer one is a curve."""


def numbers_of(result: Any) -> dict[str, float]:
    """All numbers of a result by name: fields, properties and short lists, those within others with a dot.

    A number that is the whole result has the empty name. Truth values count as 0 and 1; what is undefined,
    text and tensors are left out.
    """
    return dict(_numbers("", result))


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Ticket | Run):
        value = pack(value).numbers
    if isinstance(value, bool | int | float):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(_dotted(name, str(key)), item)
    elif isinstance(value, list | tuple) and len(value) <= _LONGEST:
        for index, item in enumerate(value):
            yield from _numbers(f"{name}[{index}]", item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for key in number_names(type(value)):
            yield from _numbers(_dotted(name, key), getattr(value, key))


def number_names(kind: type) -> list[str]:
    """The fields and properties of a dataclass, in which its results have their numbers."""
    fields = [each.name for each in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    return fields + [key for key, value in vars(kind).items() if isinstance(value, property)]


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
