"""Arguments of declared functions as JSON values, and JSON values as arguments again.

A job's description (:mod:`tombola.lab.description`) is written and read here. The type hint of the parameter
decides: 1 for a float is written as 1.0, and text for data, a network, an initialisation scheme, a score or
an augmentation is its name.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy
from torch.nn import Module

from tombola.data.augmentation import AugmentationName
from tombola.data.catalogue import origin_of
from tombola.data.imageset import Data
from tombola.data.transform import written_augmentation
from tombola.declarations import as_written
from tombola.errors import JobError
from tombola.networks.initialization import Scheme, written_init
from tombola.networks.network import Factory, written_network
from tombola.pruning.scores import Score, written_score
from tombola.ticket import Ticket
from tombola.training.length import Iterations, written_length
from tombola.training.recipe import Recipe
from tombola.training.run import Run

# Parameters that the lab fills in where a job runs. They say how, not what, and never enter a name.
RUNTIME = frozenset({"device", "mode", "watch"})

# The keys of references to data and to the caller's own values: no dataclass may be written with these alone.
_REFERENCES = ({"data"}, {"value", "type"})


@dataclasses.dataclass(frozen=True)
class JobSignature:
    """How a declared function is called.

    signature: of the parameters that enter a job.
    runtime: the names of those that the lab fills in.
    hints: the types of all parameters and of the result.
    """

    signature: inspect.Signature
    runtime: frozenset[str]
    hints: dict[str, Any]

    def bind(self, arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by parameter, in the order of the parameters; TypeError if they do not fit.

        As ``inspect.Signature.bind``, which takes as long as all the rest of writing a call down.
        """
        named = {**dict(zip(self._positional, arguments, strict=False)), **options}
        bound = {key: named[key] for key in self._names if key in named}
        fits = len(bound) == len(named) == len(arguments) + len(options) and self._required <= bound.keys()
        return bound if fits else dict(self.signature.bind(*arguments, **options).arguments)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.signature.parameters)

    @cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(
            key for key, entry in self.signature.parameters.items() if entry.default is entry.empty
        )

    @cached_property
    def _positional(self) -> tuple[str, ...]:
        parameters = self.signature.parameters.items()
        return tuple(key for key, entry in parameters if entry.kind is entry.POSITIONAL_OR_KEYWORD)


@cache
def job_signature(function: Callable[..., object]) -> JobSignature:
    """How a declared function is called; :class:`~tombola.errors.JobError` if no call of it can be a job."""
    label = getattr(function, "__qualname__", repr(function))
    parameters = inspect.signature(function).parameters
    entering = [parameter for key, parameter in parameters.items() if key not in RUNTIME]
    for parameter in entering:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise JobError(
                f"{label} cannot be a job: {parameter.name} has no name to be given by; "
                "write each parameter out"
            )
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise JobError(
            f"{label} cannot be a job: its type hints cannot be read ({error}); import what they name at the "
            "top of its module"
        ) from error
    if "return" not in hints:
        raise JobError(f"{label} cannot be a job: it does not say what it returns; add a return type")
    return JobSignature(inspect.Signature(entering), RUNTIME & parameters.keys(), hints)


@cache
def written_defaults(function: Callable[..., object]) -> dict[str, Any]:
    """The defaults of a function's parameters, as JSON values."""
    called = job_signature(function)
    writer = ArgumentWriter(getattr(function, "__qualname__", "function"), ())
    return {
        key: writer.write(key, parameter.default, called.hints.get(key, Any))
        for key, parameter in called.signature.parameters.items()
        if parameter.default is not parameter.empty
    }


@cache
def field_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields by name."""
    return typing.get_type_hints(kind, include_extras=True)


@cache
def _written_field_defaults(kind: type) -> dict[str, Any]:
    """The defaults of a dataclass's fields, as JSON values."""
    writer, hints = ArgumentWriter(kind.__name__, ()), field_hints(kind)
    defaults = {}
    for entry in dataclasses.fields(kind):
        if entry.default is not dataclasses.MISSING:
            defaults[entry.name] = writer.write(entry.name, entry.default, hints[entry.name])
        elif entry.default_factory is not dataclasses.MISSING:
            defaults[entry.name] = writer.write(entry.name, entry.default_factory(), hints[entry.name])
    return defaults


_written_recipes: dict[int, tuple[Recipe, dict[str, Any]]] = {}


class ArgumentWriter:
    """Writes the arguments of one call as JSON values, and collects the data and own values among them.

    function: its name, for errors.
    kept: types whose values are left as they are, such as jobs.
    """

    def __init__(self, function: str, kept: tuple[type, ...]) -> None:
        self._function = function
        self._kept = kept
        self.data: dict[str, str | Data] = {}
        self.values: dict[str, Ticket | Run] = {}

    def write(self, key: str, value: Any, hint: Any) -> Any:
        """One argument as a JSON value; :class:`~tombola.errors.JobError` if it has none.

        key: the name of the parameter, for errors.
        hint: its type hint.
        """
        # The commonest first: a plan writes a hundred thousand arguments.
        if value is None or value is True or value is False or isinstance(value, self._kept):
            return value
        if type(value) is Recipe:
            return self._write_fields(key, value)
        if isinstance(value, numpy.generic):
            value = value.item()
            if isinstance(value, bool):
                return value
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value) if wants_float(hint) else value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise JobError(f"{self._function}: {key} is {value}; a job takes finite numbers only")
            return value
        if isinstance(value, Mapping) and wants_pairs(hint) and all(isinstance(name, str) for name in value):
            value = sorted(value.items())  # as chains write them
        if isinstance(value, list | tuple):
            return [
                self.write(f"{key}[{index}]", item, item_hint(hint, index))
                for index, item in enumerate(value)
            ]
        if isinstance(value, Data) or (isinstance(value, str | os.PathLike) and Data in alternatives(hint)):
            return self._write_data(value)
        if isinstance(value, Ticket | Run):
            name = value.fingerprint
            self.values[name] = value
            return {"value": name, "type": type(value).__name__}
        form = form_of_text(hint)
        if isinstance(value, str):
            return value if form is None else form(value)
        if callable(value) and form in (written_init, written_score):
            return form(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._write_fields(key, value)
        if callable(value):
            return self._write_network(value)
        raise JobError(
            f"{self._function}: {key} is a {type(value).__name__}, which cannot be written down; "
            "give numbers, text, lists, dataclasses, data, tickets, runs or jobs"
        )

    def _write_data(self, value: Data | str | os.PathLike[str]) -> dict[str, str]:
        if isinstance(value, Data):
            name, source = value.name, value if value.source is None else value.source
        elif value == "digits":
            name, source = "digits", "digits"
        else:
            origin = origin_of(value)
            name, source = origin.name, origin.source
        if not same_source(self.data.setdefault(name, source), source):
            raise JobError(f"{self._function}: two different data sets are called {name!r}; rename one")
        return {"data": name}

    def _write_fields(self, key: str, value: Any) -> dict[str, Any]:
        """The fields of a dataclass that differ from their defaults."""
        if type(value) is Recipe:  # of many jobs a few, and the slowest to write
            recipe, written = _written_recipes.get(id(value), (None, {}))
            if recipe is value:
                return written
        kind: Any = type(value)
        hints, defaults = field_hints(kind), _written_field_defaults(kind)
        written = {}
        for entry in dataclasses.fields(value):
            item = getattr(value, entry.name)
            if isinstance(item, (Data, Ticket, Run, *self._kept)):
                raise JobError(
                    f"{self._function}: {key}.{entry.name} is a {type(item).__name__} within another value; "
                    "give it as an argument of its own"
                )
            encoded = self.write(f"{key}.{entry.name}", item, hints[entry.name])
            if entry.name not in defaults or encoded != defaults[entry.name]:
                written[entry.name] = encoded
        if "job" in written or written.keys() in _REFERENCES:
            raise JobError(
                f"{self._function}: {key} would read as something else, for the names of its fields "
                f"({', '.join(written)}); rename them"
            )
        # Which version a declared augmentation is of may change: its newest, unless one is named.
        if kind is Recipe and value.augmentation.declared is None:
            if len(_written_recipes) >= 1_000:
                _written_recipes.clear()
            _written_recipes[id(value)] = (value, written)
        return written

    def _write_network(self, network: str | Callable[..., Module]) -> str:
        name = written_network(network)
        if name is None:
            label = getattr(network, "__qualname__", type(network).__qualname__)
            raise JobError(
                f"{self._function}: <{label}> is not declared and cannot enter a job; "
                "put @tombola.declare_network('a-name') above it"
            )
        return name


def same_source(first: str | Data, second: str | Data) -> bool:
    """Whether two sources of data are the same, compared without loading them."""
    if isinstance(first, Data) and isinstance(second, Data):
        return first.fingerprint == second.fingerprint
    return first == second


def from_json(value: Any, hint: Any) -> Any:
    """The argument that a JSON value stands for, of the type that the parameter is declared with.

    References to jobs, data and own values are returned as they are.
    """
    if isinstance(value, dict):
        for kind in alternatives(hint):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                hints = field_hints(kind)
                return kind(**{key: from_json(item, hints.get(key, Any)) for key, item in value.items()})
        return value
    if isinstance(value, list):
        return tuple(from_json(item, item_hint(hint, index)) for index, item in enumerate(value))
    if isinstance(value, str):
        if form_of_text(hint) not in (None, written_length):
            return as_written(value)
        if Path in alternatives(hint):
            return Path(value)
    return value


@cache
def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint itself."""
    origin = typing.get_origin(hint)
    return typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)


@cache
def wants_float(hint: Any) -> bool:
    """Whether an integer of this type is written as a float: 1 and 1.0 must not name different jobs."""
    kinds = alternatives(hint)
    return float in kinds and int not in kinds


_FORMS_OF_TEXT: dict[Any, Callable[[Any], Any]] = {
    Factory: written_network,
    Scheme: written_init,
    Score: written_score,
    AugmentationName: written_augmentation,
    Iterations: written_length,
}


@cache
def form_of_text(hint: Any) -> Callable[[Any], Any] | None:
    """What writes text of this type: a name with its version, a length in one form; None: it stays as it is.

    Else a new version of a network would be the old job, and 2 and "2ep" two jobs.
    """
    kinds = alternatives(hint)
    return next((written for kind, written in _FORMS_OF_TEXT.items() if kind in kinds), None)


@cache
def wants_pairs(hint: Any) -> bool:
    """Whether a mapping of this type may be written as pairs of a name and a value."""
    kinds = alternatives(hint)
    pairs = (item_hint(kind, 0) for kind in kinds if typing.get_origin(kind) is Sequence)
    return any(typing.get_origin(kind) is Mapping for kind in kinds) and any(
        typing.get_origin(pair) is tuple and typing.get_args(pair)[0] is str for pair in pairs
    )


@cache
def wants_tuple(hint: Any) -> bool:
    """Whether a JSON list of this type is a tuple."""
    return any((typing.get_origin(kind) or kind) is tuple for kind in alternatives(hint))


@cache
def item_hint(hint: Any, index: int) -> Any:
    """The type of one item of a list or tuple."""
    for kind in alternatives(hint):
        origin, items = typing.get_origin(kind), typing.get_args(kind)
        if not items or origin in (typing.Literal, Callable):
            continue
        if origin is not tuple or items[-1] is Ellipsis:
            return items[0]
        return items[index] if index < len(items) else Any
    return Any


@cache
def value_hint(hint: Any) -> Any:
    """The type of the values of a mapping."""
    for kind in alternatives(hint):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return typing.get_args(kind)[1]
    return Any
