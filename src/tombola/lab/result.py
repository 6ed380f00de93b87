"""How results are kept: numbers as JSON, tensors as safetensors, told apart by the function's declared type."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tombola.errors import JobError, StoreError
from tombola.lab.hints import alternatives, item_hint, wants_tuple
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
        details, tensors = result.pack(start="none")
        numbers = {
            "sparsity": result.sparsity,
            "epoch": result.epoch,
            "round": result.round,
            "start": result.start_fingerprint,
        }
        return Packed(numbers, details, tensors, start=(result.start_fingerprint, result.dense_start()))
    if isinstance(result, Run):
        details, tensors = result.pack(start="none")
        start = (result.ticket.start_fingerprint, result.ticket.dense_start())
        return Packed(_plain(result.summary()), details, tensors, result.history.table(), start)
    tensors = {}
    value = _plain(result, tensors)
    return Packed({"value": value}, {}, tensors)


def unpack(packed: Packed, kind: Any, find_start: Callable[[str], State]) -> Any:
    """Put a result of a declared type together again.

    find_start: gives the dense start of a fingerprint.
    """
    if kind is Ticket:
        return Ticket.unpack(packed.details, packed.tensors, start=find_start(packed.details["start"]))
    if kind is Run:
        start = find_start(packed.details["ticket"]["start"])
        return Run.unpack(packed.details, packed.tensors, start=start)
    return _rebuilt(packed.numbers["value"], kind, packed.tensors)


def _plain(value: Any, tensors: dict[str, Tensor] | None = None, place: str = "value") -> Any:
    """A value as JSON; tensors are moved out, and numbers that JSON does not have are spelled."""
    if isinstance(value, bool | int | str | types.NoneType):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor) and tensors is not None:
        tensors[place] = value
        return {"tensor": place}
    if isinstance(value, list | tuple):
        return [_plain(item, tensors, f"{place}.{index}") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, tensors, f"{place}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            entry.name: _plain(getattr(value, entry.name), tensors, f"{place}.{entry.name}")
            for entry in dataclasses.fields(value)
        }
    raise JobError(
        f"a job cannot return a {type(value).__name__}; return numbers, text, tensors, or a dataclass of them"
    )


def _rebuilt(value: Any, kind: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"}:
            return float(value["float"])
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        for candidate in alternatives(kind):
            if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
                hints = typing.get_type_hints(candidate)
                try:
                    return candidate(**{k: _rebuilt(v, hints.get(k, Any), tensors) for k, v in value.items()})
                except TypeError as error:
                    raise StoreError(f"a stored {candidate.__name__} does not fit: {error}") from error
        return {key: _rebuilt(item, Any, tensors) for key, item in value.items()}
    if isinstance(value, list):
        items = [_rebuilt(item, item_hint(kind), tensors) for item in value]
        return tuple(items) if wants_tuple(kind) else items
    return value
