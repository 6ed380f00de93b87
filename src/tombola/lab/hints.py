"""What the lab reads out of type hints, to write arguments down and read results back."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from tombola.networks.initialization import Scheme
from tombola.networks.network import Factory


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint itself."""
    origin = typing.get_origin(hint)
    return typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)


def wants_float(hint: Any) -> bool:
    """Whether an integer given here means a float: 1 and 1.0 must not name different jobs."""
    kinds = alternatives(hint)
    return float in kinds and int not in kinds


def wants_network(hint: Any) -> bool:
    """Whether text given here names a network: its version must enter the job."""
    return Factory in alternatives(hint)


def wants_init(hint: Any) -> bool:
    """Whether text given here names an initialisation scheme, likewise."""
    return Scheme in alternatives(hint)


def wants_tuple(hint: Any) -> bool:
    """Whether a JSON list given here is a tuple."""
    return any((typing.get_origin(kind) or kind) is tuple for kind in alternatives(hint))


def item_hint(hint: Any, index: int) -> Any:
    """The type of one item of a list or tuple."""
    for kind in alternatives(hint):
        origin, items = typing.get_origin(kind), typing.get_args(kind)
        if not items or origin is typing.Literal:
            continue
        if origin is not tuple or items[-1] is Ellipsis:
            return items[0]
        return items[index] if index < len(items) else Any
    return Any


def value_hint(hint: Any) -> Any:
    """The type of the values of a mapping."""
    for kind in alternatives(hint):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return typing.get_args(kind)[1]
    return Any
