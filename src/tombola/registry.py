"""The registry of declared functions: the name and version by which a function enters jobs.

A job (see :mod:`tombola.lab`) must still mean the same after its code was moved or renamed. So a function
enters it by the name declared here, together with a version that is raised by hand when its numbers change.
Where they change for some calls only, the others keep the version that they had: see :func:`declare`.
Networks have names and versions of their own (:mod:`tombola.declarations`).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

from tombola.cost import Cost
from tombola.errors import JobError, unknown
from tombola.source import remember_source

F = TypeVar("F", bound=Callable[..., Any])
Unchanged = Callable[[Mapping[str, Any]], bool]
"""Whether a call with these arguments has the numbers of the version before."""


@dataclass(frozen=True)
class Declaration:
    """A declared function with its name, version and options; see :func:`declare`.

    stored: False for a function that is exact and cheap, and runs again wherever its result is needed.
    unchanged: by version, a function that tells the calls whose numbers that version left alone.
    cost: the cost of a call from those of its arguments that it names; None where it is not stated.
    default_to: by parameter, the other one whose value it takes by default.
    """

    name: str
    version: int
    stored: bool
    function: Callable[..., Any]
    unchanged: Mapping[int, Unchanged] = field(default_factory=dict, compare=False)
    cost: Callable[..., Cost] | None = field(default=None, compare=False)
    default_to: Mapping[str, str] = field(default_factory=dict, compare=False)

    def for_call(self, arguments: Mapping[str, Any]) -> Declaration:
        """This declaration at the earliest version that has the numbers of a call.

        arguments: by name; data sets by name, loaded, or as jobs.
        """
        version = self.version
        while version in self.unchanged and self.unchanged[version](arguments):
            version -= 1
        return self if version == self.version else replace(self, version=version)

    def at(self, version: int) -> Declaration:
        """This declaration at a version that some calls still have.

        Raises :class:`~tombola.errors.JobError` for any other version.
        """
        earliest = self.version
        while earliest in self.unchanged:
            earliest -= 1
        if not earliest <= version <= self.version:
            here = f"here is version {self.version}"
            if earliest < self.version:
                here += f", and of some calls a version from {earliest} on"
            raise JobError(f"the job asks for version {version} of {self.name}; {here}")
        return self if version == self.version else replace(self, version=version)

    def changed_by(self, arguments: Mapping[str, Any]) -> int | None:
        """The first later version that gives a call of this version other numbers; None if none does."""
        later = sorted(version for version in self.unchanged if version > self.version)
        return next((version for version in later if not self.unchanged[version](arguments)), None)


_declarations: dict[str, Declaration] = {}

# Where the built-in functions are declared: imported on first need, so that naming a job loads no torch.
_BUILT_IN = ("tombola.data", "tombola.ticket", "tombola.training", "tombola.pruning", "tombola.measures")


def declare(
    name: str,
    *,
    version: int = 1,
    stored: bool = True,
    unchanged: Mapping[int, Unchanged] | None = None,
    cost: Callable[..., Cost] | None = None,
    default_to: Mapping[str, str] | None = None,
) -> Callable[[F], F]:
    """Decorator that declares a function under a lasting name, so that calls of it can be jobs.

    version: raised by hand when numbers change, which gives every call another name.
    stored: False for a function that is exact and cheap, and runs again wherever its result is needed.
    unchanged: for a version that changed the numbers of some calls only, a function of a call's arguments
        that returns True where the numbers stayed, and False where that is unknown: a call that stayed is
        written with the version before, and keeps its name. The entry stays when later versions come.

    cost: for plans, a function of some of the call's arguments, by name, that returns a
        :class:`~tombola.cost.Cost`. It gets an :class:`~tombola.cost.Outline` for a ticket or run and a
        :class:`~tombola.data.sizes.Size` for data. Without it a stored function of tickets or runs and data
        costs an evaluation of each of them on the test split, and any other nothing.
    default_to: by parameter, the other one whose value it takes where it is None. A job leaves it out where
        both are equal.

    Raises :class:`~tombola.errors.JobError` if another function holds the name already, or for a cost or
    default that names an argument which the function does not have.
    """

    def register(function: F) -> F:
        before = _declarations.get(name)
        # One definition may be declared twice: a notebook cell run again, a module under two names.
        if before is not None and before.function.__qualname__ != function.__qualname__:
            raise JobError(f"the name {name!r} is declared already, by {before.function.__qualname__}")
        defaults = dict(default_to or {})
        _check_parameters(name, function, "cost", inspect.signature(cost).parameters if cost else ())
        _check_parameters(name, function, "default", [*defaults, *defaults.values()])
        _declarations[name] = Declaration(
            name, version, stored, function, dict(unchanged or {}), cost, defaults
        )
        remember_source("functions", name, function)
        return function

    return register


def _check_parameters(name: str, function: Callable[..., Any], what: str, arguments: Iterable[str]) -> None:
    """Raises JobError for an argument, of its cost or a default, that the function does not have."""
    parameters = inspect.signature(function).parameters
    for argument in arguments:
        if argument not in parameters:
            raise JobError(f"the {what} of {name!r}: " + unknown("parameter", argument, parameters))


def declaration(name: str) -> Declaration:
    """The declaration of that name; :class:`~tombola.errors.JobError` if there is none."""
    if name not in _declarations:
        _import_built_in()
    if name not in _declarations:
        raise JobError(unknown("declared function", name, _declarations))
    return _declarations[name]


def function_names() -> list[str]:
    """All declared names, built-in functions included."""
    _import_built_in()
    return list(_declarations)


@cache
def _import_built_in() -> None:
    """Import every module that may declare a function, so that a new measure needs no entry anywhere."""
    for name in _BUILT_IN:
        module = importlib.import_module(name)
        for entry in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{name}.{entry.name}")


def declaration_of(function: Callable[..., Any]) -> Declaration:
    """The declaration of that function; :class:`~tombola.errors.JobError` with the remedy if it has none."""
    if getattr(function, "__module__", None) == "tombola":  # as the public face shows it
        function = inspect.unwrap(function)
    for declared in _declarations.values():
        if declared.function is function:
            return declared
    label = getattr(function, "__qualname__", repr(function))
    raise JobError(f"{label} is not declared and cannot be a job; put @tombola.declare('a-name') above it")
