"""What finished jobs were made with, and whether the running versions would ask for them by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tombola.declarations import BY_KIND, bare_name
from tombola.errors import JobError, NetworkError, StoreError, reason
from tombola.lab.arguments import from_json, job_signature
from tombola.lab.description import calls, is_reference, parents
from tombola.lab.job import described_function
from tombola.lab.mixture import computes, origin, origin_of
from tombola.lab.store import Store
from tombola.networks.libraries import is_library_name, library_version
from tombola.registry import declaration, function_names
from tombola.training.device import resolve_device
from tombola.untrusted import OTHER_FORM
from tombola.version import __version__


@dataclass(frozen=True, order=True)
class Environment:
    """What a result was computed with; bits rest on all but tombola's own version.

    torch: without its build. hardware: name of a GPU, or instruction set of a CPU.
    """

    tombola: str
    torch: str
    engine: str
    hardware: str

    def __str__(self) -> str:
        return f"tombola {self.tombola}, torch {self.torch}, engine {self.engine}, {self.hardware}"

    def same_bits(self, other: Environment) -> bool:
        """Whether equal jobs have equal bits in both."""
        return (self.torch, self.engine, self.hardware) == (other.torch, other.engine, other.hardware)


@dataclass
class JobVersions:
    """A finished job with the versions that it was made by.

    environment: what it was computed with; None of one that is exact, and the same anywhere.
    seconds: of work, all parts of an interrupted training together. bytes: of its folder.
    thin: whether its weights were removed. mixed: whether it went on from results of another environment.
    changed: why the same experiment would ask for another job here; not_declared: what is not known here.
    networks: written names of the networks that it is of.
    """

    name: str
    function: str
    parents: frozenset[str]
    environment: Environment | None
    numpy: str
    seconds: float
    bytes: int
    thin: bool
    mixed: bool
    changed: tuple[str, ...] = ()
    not_declared: tuple[str, ...] = ()
    networks: set[str] = field(default_factory=set)


def environment_here(device: str) -> Environment:
    """The running environment on a device; DeviceError for one that is not there."""
    here = origin(resolve_device(device))
    return Environment(__version__, here["torch"], here["engine_version"], here["hardware"])


def read_versions(store: Store) -> tuple[dict[str, JobVersions], list[StoreError]]:
    """All finished jobs of a store by name, and the errors of those that cannot be read."""
    jobs: dict[str, JobVersions] = {}
    damaged: list[StoreError] = []
    for name in store.names():
        try:
            jobs[name] = _read(store, name)
        except JobError:
            continue  # removed by another process just now
        except StoreError as error:
            damaged.append(error)
        except (OSError, *OTHER_FORM) as error:
            cause = f"its provenance has another form: {type(error).__name__} {reason(error)}"
            damaged.append(store.damaged(name, cause))
    return jobs, damaged


def _read(store: Store, name: str) -> JobVersions:
    description, provenance = store.description(name), store.provenance(name)
    function = str(description["function"])
    there = origin_of(provenance)
    environment = Environment(
        str(provenance["tombola"]), there["torch"], there["engine_version"], there["hardware"]
    )
    history = store.history(name)
    is_exact = function in function_names() and not computes(function)
    changed, not_declared, networks = set[str](), set[str](), set[str]()
    for call in calls(description):
        cause, is_known = _judged_function(call)
        (changed if is_known else not_declared).update([cause] if cause else [])
        for text in _texts(call["arguments"]):
            cause, is_known, is_network = _judged_part(text)
            (changed if is_known else not_declared).update([cause] if cause else [])
            networks.update([text] if is_network else [])
        network = call["arguments"].get("network")
        if call["function"] == "initialize" and isinstance(network, str) and network not in networks:
            networks.add(network)
            not_declared.add(f"network {network} is not declared here")
    return JobVersions(
        name, function, frozenset(parents(description)),
        None if is_exact else environment,
        str(provenance.get("numpy", "")),
        max(float(provenance["seconds"]), sum(float(row["seconds"]) for row in history)),
        sum(path.lstat().st_size for path in store.folder(name).iterdir()),
        store.is_thin(name), bool(provenance.get("mixed")),
        tuple(sorted(changed)), tuple(sorted(not_declared)), networks,
    )  # fmt: skip


def _judged_function(call: Mapping[str, Any]) -> tuple[str, bool]:
    """Why a call would be written down otherwise now, if it would; and whether its function is declared."""
    name, version = str(call["function"]), call["version"]
    if name not in function_names():
        return f"function {name} is not declared here", False
    try:
        described = described_function(call)
    except JobError:
        return _of_version(name, declaration(name).version, version), True
    if not any(later > version for later in described.unchanged):
        return "", True
    hints = job_signature(described.function).hints
    values = {key: _value(value, hints.get(key, Any)) for key, value in call["arguments"].items()}
    later = described.changed_by(values)
    return "" if later is None else _of_version(name, later, version), True


def _of_version(function: str, here: int, there: object) -> str:
    return f"function {function} has version {here} here, and these are of version {there}"


def _value(written: Any, hint: Any) -> Any:
    """An argument as :func:`tombola.declare` hands it to ``unchanged``: data by name, jobs as they are."""
    if isinstance(written, dict) and is_reference(written):
        return written.get("data", written)
    return from_json(written, hint)


def newest_name(network: str) -> str | None:
    """What the bare name of a network means here, as jobs have it; None where it is not declared."""
    bare = bare_name(network)
    with suppress(NetworkError):
        if is_library_name(bare):
            return f"{bare}@{library_version(bare, None)}"
        return BY_KIND["networks"].written(bare)
    return None


@cache
def _judged_part(text: str) -> tuple[str, bool, bool]:
    """Why a named part would be written otherwise now, "" if it would not; is it known, is it a network."""
    bare = bare_name(text)
    if is_library_name(bare) or bare in BY_KIND["networks"].names():
        newest = newest_name(text)
        if newest is None:
            return f"network {text} is not installed here", False, True
        return "" if text == newest else _newer("network", text, newest), True, True
    for definitions in BY_KIND.values():
        if bare in definitions.names():
            newest = definitions.written(bare)
            return "" if text == newest else _newer(definitions.kind, text, newest), True, False
    return "", True, False


def _newer(kind: str, text: str, newest: str) -> str:
    """The cause for an older version; the experiment can name it, and then it is found."""
    typed = text if "@" in text else f"{text}@1"
    return f"{kind} {bare_name(text)} means {newest} here, and these are of {typed}"


def _texts(value: object) -> Iterator[str]:
    """All texts in an argument of a description, without those in references."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            if not ("job" in item or item.keys() == {"data"}):
                pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
