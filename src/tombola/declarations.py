"""Names with versions: ``resnet18@2`` is the second definition of the network ``resnet18``.

Weights and results belong to one definition. When its numbers change, its version is raised; the old
definition stays buildable under its number, so that old tickets keep their meaning. In jobs and files version
1 is written without a number, as in stores older than versions; in what a user types, no number means the
newest version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from tombola.errors import NetworkError, TombolaError, unknown
from tombola.source import Kind, remember_source

D = TypeVar("D", bound=Callable[..., object])

BY_KIND: dict[Kind, Definitions[Any]] = {}
"""All definitions with versions, by the kind under which their sources are remembered."""


def written(name: str, version: int | str) -> str:
    """Name and version as in jobs and files: ``"resnet18@2"``; version 1 is not written.

    version: a number, or of a library's network the version of the library.
    """
    return name if version == 1 else f"{name}@{version}"


def parsed(text: str, error: type[TombolaError] = NetworkError) -> tuple[str, int | None]:
    """The bare name and the version in a text; None where it has no version.

    Raises the error for a version that is not a number of at least 1.
    """
    name, mark, version = text.partition("@")
    if not mark or not name:
        return text, None
    if not (version.isascii() and version.isdecimal() and version[0] != "0"):
        raise error(f"{text!r} has the version {version!r}; write a number from 1, such as {name}@1")
    return name, int(version)


def bare_name(text: str) -> str:
    """The name without its version, as in figures of cost, speed and memory."""
    return text.partition("@")[0]


def as_written(text: str) -> str:
    """A name out of a job or a file as a user has to type it: ``resnet18`` there is ``resnet18@1``."""
    return text if "@" in text else f"{text}@1"


class Definitions(Generic[D]):
    """Definitions by name and version: those that come with tombola, and those that users declare.

    kind: for errors, such as "network". source: the kind under which sources are remembered.
    built_in: by name, the versions in order, each a function that returns the definition.
    error: what is raised for a name or version that cannot be had.
    decorator: the name of the function that declares such a definition; None: declare_ and the kind.
    numbered: version 1 of a user's definition is written with its number too, as where no file is older than
        versions; then a written name means one definition, whichever is the newest.
    """

    def __init__(
        self,
        kind: str,
        source: Kind,
        built_in: dict[str, tuple[Callable[[], D], ...]],
        error: type[TombolaError] = NetworkError,
        *,
        decorator: str | None = None,
        numbered: bool = False,
    ) -> None:
        self._numbered = numbered
        self.kind = kind
        self.decorator = decorator or f"declare_{kind}"
        self._source: Kind = source
        self._error = error
        self._built_in = built_in
        self._declared: dict[str, dict[int, D]] = {}
        BY_KIND[source] = self

    def declare(self, name: str, version: int, definition: D) -> None:
        """Register a user's definition and its source; one of the same qualified name replaces the first.

        Raises the error if the name is tombola's or another definition's.
        """
        if not name or "@" in name:
            raise self._error(
                f"{self.kind} name {name!r} cannot be declared; choose one without '@', and give a version "
                "as version=2"
            )
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise self._error(f"version of {self.kind} {name!r} is {version!r}; it must be 1, 2, ...")
        before = self._declared.get(name, {}).get(version)
        same = before is None or _qualified_name(before) == _qualified_name(definition)
        if name in self._built_in or not same:
            raise self._error(
                f"the {self.kind} name {name!r} is taken; choose another, or version={self.newest(name) + 1}"
                if name not in self._built_in
                else f"the {self.kind} name {name!r} is taken; choose another"
            )
        self._declared.setdefault(name, {})[version] = definition
        remember_source(self._source, self.lasting_name(name, version), definition)

    def is_built_in(self, name: str) -> bool:
        """Whether that bare name comes with tombola."""
        return name in self._built_in

    def names(self) -> list[str]:
        """All bare names, built-in ones first."""
        return [*self._built_in, *self._declared]

    def newest(self, name: str) -> int:
        """The newest version of a bare name; raises the error if there is none."""
        return max(self._versions(name))

    def find(self, name: str, version: int) -> D:
        """The definition; raises the error for a name or version not declared here."""
        versions = self._versions(name)
        if version not in versions:
            numbers = ", ".join(map(str, sorted(versions)))
            raise self._error(f"no version {version} of {self.kind} {name!r} here; there is {numbers}")
        return versions[version]()

    def written(self, definition: str | D) -> str:
        """Name and version of a definition as in jobs and files; the newest version unless one is named.

        Raises the error for an unknown name or version, or a definition that was never declared.
        """
        if not isinstance(definition, str):
            declared = self.name_of(definition)
            if declared is None:
                label = getattr(definition, "__qualname__", type(definition).__qualname__)
                raise self._error(
                    f"{self.kind} {label} is not declared; put @tombola.{self.decorator}('a-name') above it"
                )
            return self.lasting_name(*declared)
        name, version = parsed(definition, self._error)
        version = self.newest(name) if version is None else version
        self.find(name, version)
        return self.lasting_name(name, version)

    def name_of(self, definition: object) -> tuple[str, int] | None:
        """Name and version of a definition that a user declared; None of one that was not."""
        matches = [
            (version, name) for name, version, declared in self.declarations() if declared is definition
        ]
        version, name = max(matches, default=(0, ""))
        return (name, version) if matches else None

    def lasting_name(self, name: str, version: int) -> str:
        """Name and version as in jobs and files."""
        return (
            f"{name}@1"
            if self._numbered and version == 1 and name in self._declared
            else written(name, version)
        )

    def _versions(self, name: str) -> dict[int, Callable[[], D]]:
        if name in self._built_in:
            return dict(enumerate(self._built_in[name], start=1))
        if name not in self._declared:
            raise self._error(unknown(self.kind, name, self.names()))
        return {version: _returning(definition) for version, definition in self._declared[name].items()}

    def declarations(self) -> Iterator[tuple[str, int, D]]:
        """Name, version and definition of all that users declared."""
        for name, versions in self._declared.items():
            for version, definition in versions.items():
                yield name, version, definition


def only_version(definition: D) -> tuple[Callable[[], D], ...]:
    """The versions of a built-in definition of which there is one so far."""
    return (_returning(definition),)


def _returning(definition: D) -> Callable[[], D]:
    """A function that returns the definition."""
    return lambda: definition


def _qualified_name(definition: Callable[..., object]) -> str:
    return getattr(definition, "__qualname__", type(definition).__qualname__)
