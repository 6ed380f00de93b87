"""How results are kept: numbers as JSON, tensors as safetensors, put together again by the declared type."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
from torch import Tensor

from tombola.errors import JobError, StoreError
from tombola.lab.arguments import alternatives, item_hint, value_hint, wants_tuple
from tombola.ticket import State, Ticket
from tombola.training.run import Run


@dataclass(frozen=True)
class Packed:
    """A result taken apart.

    numbers: what a reader wants to see, as JSON.
    details: what else is needed to put the result together again, as JSON.
    tensors: by name.
    table: the rows of a history.
    start: the dense start that the tensors leave out, with its fingerprint.
    """

    numbers: dict[str, Any]
    details: dict[str, Any]
    tensors: dict[str, Tensor]
    table: list[dict[str, Any]] = field(default_factory=list)
    start: tuple[str, State] | None = None


def pack(result: Any) -> Packed:
    """Take a result apart: a ticket, a run, or any plain value, dataclass or tensor."""
    if isinstance(result, Ticket):
        details, tensors = result.pack(start=_start_kept(result))
        numbers = {
            "sparsity": result.sparsity,
            "epoch": result.epoch,
            "round": result.round,
            "start": result.start_fingerprint,
        }
        return Packed(numbers, details, tensors, start=_shared_start(result))
    if isinstance(result, Run):
        details, tensors = result.pack(start=_start_kept(result.ticket))
        start = _shared_start(result.ticket)
        return Packed(_plain(result.summary()), details, tensors, result.history.table(), start)
    tensors = {}
    value = _plain(result, tensors)
    return Packed({"value": value}, {}, tensors)


def unpack(packed: Packed, kind: Any, find_start: Callable[[str], State]) -> Any:
    """Put a result of a declared type together again.

    find_start: gives the dense start of a fingerprint.
    """
    if kind is Ticket or kind is Run:
        ticket = packed.details if kind is Ticket else packed.details["ticket"]
        start = find_start(ticket["start"]) if ticket["start_kept"] == "none" else None
        return kind.unpack(packed.details, packed.tensors, start=start)
    return _rebuilt(packed.numbers["value"], kind, packed.tensors)


def _start_kept(ticket: Ticket) -> str:
    """A dense start is kept once for all its tickets; what survives of one that is not whole, here."""
    return "none" if ticket.complete else "surviving"


def _shared_start(ticket: Ticket) -> tuple[str, State] | None:
    return (ticket.start_fingerprint, ticket.start) if ticket.complete else None


# How values that JSON does not have are spelled; what only looks so is put under the last of these.
_SPELLED = ("float", "tensor", "plain")


def _plain(value: Any, tensors: dict[str, Tensor] | None = None, place: str = "value") -> Any:
    """A value as JSON; tensors are moved out, and numbers that JSON does not have are spelled."""
    if isinstance(value, numpy.generic):
        value = value.item()
    if isinstance(value, bool | int | str | types.NoneType):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor) and tensors is not None:
        tensors[place] = value.detach().clone()  # parts of one tensor would share its memory
        return {"tensor": place}
    if isinstance(value, list | tuple):
        return [_plain(item, tensors, f"{place}.{index}") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return _told_apart({key: _plain(item, tensors, f"{place}.{key}") for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        return _told_apart({key: _plain(item, tensors, f"{place}.{key}") for key, item in fields.items()})
    raise JobError(
        f"a job cannot return a {type(value).__name__}; return numbers, text, tensors, or a dataclass of them"
    )


def _told_apart(entries: dict[str, Any]) -> dict[str, Any]:
    """A mapping, marked as one where it reads like the spelling of something else."""
    return {"plain": entries} if len(entries) == 1 and next(iter(entries)) in _SPELLED else entries


def _rebuilt(value: Any, kind: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"}:
            return float(value["float"])
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        if value.keys() == {"plain"}:
            value = value["plain"]
        for candidate in alternatives(kind):
            if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
                hints = typing.get_type_hints(candidate)
                try:
                    return candidate(**{k: _rebuilt(v, hints.get(k, Any), tensors) for k, v in value.items()})
                except TypeError as error:
                    raise StoreError(f"a stored {candidate.__name__} does not fit: {error}") from error
        return {key: _rebuilt(item, value_hint(kind), tensors) for key, item in value.items()}
    if isinstance(value, list):
        items = [_rebuilt(item, item_hint(kind, index), tensors) for index, item in enumerate(value)]
        return tuple(items) if wants_tuple(kind) else items
    return value


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
