"""Results as the store keeps them, numbers as JSON and tensors apart, and unpacked by their declared type.

:func:`pack` and :func:`unpack` stand between what a declared function returns and :mod:`tombola.lab.store`;
:func:`numbers_of` lists the numbers in a result by name, for tables.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
from torch import Tensor

from tombola.errors import JobError, StoreError, Undefined
from tombola.lab.arguments import alternatives, field_hints, item_hint, value_hint, wants_tuple
from tombola.ticket import State, Ticket
from tombola.training.run import Run


@dataclass(frozen=True)
class Packed:
    """A result as JSON and tensors.

    numbers: what a reader wants to see, as JSON.
    details: what else is needed to unpack the result, as JSON.
    tensors: by name.
    table: the rows of a run's history.
    start: the dense start that is kept apart from the tensors, with its fingerprint.
    """

    numbers: dict[str, Any]
    details: dict[str, Any]
    tensors: dict[str, Tensor]
    table: list[dict[str, Any]] = field(default_factory=list)
    start: tuple[str, State] | None = None


def pack(result: object) -> Packed:
    """A result as JSON and tensors; :class:`~tombola.errors.JobError` if its type cannot be stored.

    result: a ticket, a run, or numbers, text, tensors, and lists, mappings and dataclasses of them.
    """
    if isinstance(result, Ticket):
        details, tensors = result.pack(start=_start_kept(result))
        numbers = {
            "sparsity": result.sparsity,
            "epoch": result.epoch,
            "round": result.round,
            "start": result.start_fingerprint,
        } | ({"step": result.step} if result.step else {})
        return Packed(numbers, details, tensors, start=_shared_start(result))
    if isinstance(result, Run):
        details, tensors = result.pack(start=_start_kept(result.ticket))
        start = _shared_start(result.ticket)
        return Packed(_as_json(result.summary()), details, tensors, result.history.table(), start)
    tensors = {}
    value = _as_json(result, tensors)
    return Packed({"value": value}, {}, tensors)


@dataclass(frozen=True)
class UndefinedResult:
    """What a finished job has in place of a result where what it measures diverged; why: in words."""

    why: str


# The one entry of the numbers of such a job; those of tickets, runs and measures have other names.
_UNDEFINED = "undefined"


def pack_undefined(error: Undefined) -> Packed:
    """What the store keeps of a measure that has no value."""
    return Packed({_UNDEFINED: error.why}, {}, {})


def undefined_result(numbers: Mapping[str, Any]) -> UndefinedResult | None:
    """What the numbers of a finished job say if it is undefined; None if it has a result."""
    return UndefinedResult(str(numbers[_UNDEFINED])) if numbers.keys() == {_UNDEFINED} else None


def unpack(packed: Packed, kind: Any, find_start: Callable[[str], State]) -> Any:
    """The result that was packed.

    kind: the type that the function is declared to return.
    find_start: gives the dense start with a fingerprint.

    Raises :class:`~tombola.errors.StoreError` if a dataclass has other fields now, and
    :class:`~tombola.errors.Undefined` if there is no result.
    """
    if (undefined := undefined_result(packed.numbers)) is not None:
        raise Undefined(undefined.why)
    if kind is Ticket or kind is Run:
        ticket = packed.details if kind is Ticket else packed.details["ticket"]
        start = find_start(ticket["start"]) if ticket["start_kept"] == "none" else None
        return kind.unpack(packed.details, packed.tensors, start=start)
    return _rebuilt(packed.numbers["value"], kind, packed.tensors)


def _start_kept(ticket: Ticket) -> str:
    """Which part of its dense start a packed ticket keeps: a complete start is kept once, as an object."""
    return "none" if ticket.complete else "surviving"


def _shared_start(ticket: Ticket) -> tuple[str, State] | None:
    return (ticket.start_fingerprint, ticket.start) if ticket.complete else None


# Keys of the one-entry objects that stand for what JSON does not have: {"float": "nan"}, {"tensor": name}.
# A mapping or dataclass of the user's that looks like one is put under "plain".
_ESCAPES = ("float", "tensor", "plain")


def _as_json(value: Any, tensors: dict[str, Tensor] | None = None, place: str = "value") -> Any:
    """A value as JSON. Tensors are moved to ``tensors``, each under its place in the value."""
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
        return [_as_json(item, tensors, f"{place}.{index}") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return _escaped({key: _as_json(item, tensors, f"{place}.{key}") for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        return _escaped({key: _as_json(item, tensors, f"{place}.{key}") for key, item in fields.items()})
    raise JobError(
        f"a job cannot return a {type(value).__name__}; return numbers, text, tensors, or a dataclass of them"
    )


def _escaped(entries: dict[str, Any]) -> dict[str, Any]:
    """A mapping as JSON, put under "plain" where it would read as something else."""
    return {"plain": entries} if len(entries) == 1 and next(iter(entries)) in _ESCAPES else entries


def _rebuilt(value: Any, kind: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value of a type that :func:`_as_json` wrote."""
    if isinstance(value, dict):
        if value.keys() == {"float"}:
            return float(value["float"])
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        if value.keys() == {"plain"}:
            value = value["plain"]
        for candidate in alternatives(kind):
            if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
                hints = field_hints(candidate)
                try:
                    return candidate(**{k: _rebuilt(v, hints.get(k, Any), tensors) for k, v in value.items()})
                except TypeError as error:
                    raise StoreError(f"a stored {candidate.__name__} does not fit: {error}") from error
        return {key: _rebuilt(item, value_hint(kind), tensors) for key, item in value.items()}
    if isinstance(value, list):
        items = [_rebuilt(item, item_hint(kind, index), tensors) for index, item in enumerate(value)]
        return tuple(items) if wants_tuple(kind) else items
    return value


# Items of the longest list whose numbers are listed; a longer one is a curve.
_LONGEST = 32


def numbers_of(result: object) -> dict[str, float]:
    """The numbers in a result by name, such as ``barrier`` or ``runs[0].accuracy``; a single number's is "".

    Fields, properties and lists of up to 32 items are followed. Truth values count as 0 and 1; None, text and
    tensors are left out.
    """
    return dict(_named_numbers("", result))


def _named_numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, Ticket | Run):
        value = pack(value).numbers
    if isinstance(value, bool | int | float):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _named_numbers(_dotted(name, str(key)), item)
    elif isinstance(value, list | tuple) and len(value) <= _LONGEST:
        for index, item in enumerate(value):
            yield from _named_numbers(f"{name}[{index}]", item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for key in number_names(type(value)):
            yield from _named_numbers(_dotted(name, key), getattr(value, key))


def number_names(kind: type) -> list[str]:
    """The fields and properties of a dataclass: the names that numbers of its results can have."""
    fields = [entry.name for entry in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    return fields + [key for key, value in vars(kind).items() if isinstance(value, property)]


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
