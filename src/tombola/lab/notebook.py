"""What was declared in a notebook or at a prompt, sent to workers: there is no file that they could import.

Definitions of ``__main__`` travel by Dask with the jobs that need them, pickled by value together with their
sources, and never enter a store. Those of modules and of imported files (:mod:`tombola.lab.user_code`) are
declared by an import on both sides and do not travel.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import cloudpickle

from tombola import registry
from tombola.data.transform import declare_transform, declared_transform
from tombola.declarations import BY_KIND
from tombola.errors import JobError, reason
from tombola.lab.job import Job, everything_behind
from tombola.source import Kind, declared_source, restore_source
from tombola.ticket import Ticket

_MAIN = "__main__"
_declaring = threading.Lock()
_declared_last = b""


def sent_definitions(jobs: Collection[Job]) -> bytes:
    """All that ``__main__`` declares, for :func:`declare_sent` in another process; empty if that is nothing.

    Raises :class:`~tombola.errors.JobError` for a definition that these jobs need and that cannot be sent.
    """
    sent = []
    for kind, name, definition in _declared_in_main():
        written = _written(kind, name)
        transform = declared_transform(written) if kind == "augmentations" else None
        try:
            sent.append(
                cloudpickle.dumps((kind, name, definition, declared_source(kind, written), transform))
            )
        except Exception as error:  # whatever a definition refers to: a lock, an open file
            if written in _names(jobs):
                raise JobError(
                    f"{written} is declared in {_MAIN} and cannot be sent to workers "
                    f"({type(error).__name__}: {reason(error)}); put it in a file and import that, or use "
                    "workers=0"
                ) from error
    return cloudpickle.dumps(sent) if sent else b""


def declare_sent(sent: bytes) -> None:
    """Declare in this process what :func:`sent_definitions` gave in another.

    Raises :class:`~tombola.errors.JobError` if it rests on something that is not there.
    """
    global _declared_last
    with _declaring:
        if not sent or sent == _declared_last:
            return
        for pickled in cloudpickle.loads(sent):
            try:
                kind, name, definition, source, transform = cloudpickle.loads(pickled)
            except Exception as error:  # a module that only the driver has
                raise JobError(
                    f"what {_MAIN} declares cannot be read on a worker ({type(error).__name__}: "
                    f"{reason(error)}); install there what it imports"
                ) from error
            if kind == "functions":
                registry._declarations[name] = definition
            else:
                bare, version = name
                if kind == "augmentations":
                    declare_transform(bare, version, definition, transform)
                else:
                    BY_KIND[kind].declare(bare, version, definition)
            restore_source(kind, _written(kind, name), source)
        _declared_last = sent


def _declared_in_main() -> Iterator[tuple[Kind, Any, Any]]:
    """Kind, name (with the version, but for functions) and definition of all that ``__main__`` declares."""
    for name, declaration in list(registry._declarations.items()):
        if declaration.function.__module__ == _MAIN:
            yield "functions", name, declaration
    for kind, declared in BY_KIND.items():
        for name, version, definition in declared.declarations():
            if getattr(definition, "__module__", None) == _MAIN:
                yield kind, (name, version), definition


def _written(kind: Kind, name: str | tuple[str, int]) -> str:
    """The name under which jobs and sources have a definition."""
    return name if isinstance(name, str) else BY_KIND[kind].lasting_name(*name)


def _names(jobs: Collection[Job]) -> set[str]:
    """All names of functions, networks and other definitions in jobs and behind them, and other texts."""
    texts: set[str] = set()
    for job in everything_behind(jobs):
        texts.add(job.declaration.name)
        texts |= set(_texts(list(job.arguments.values())))
        for value in job.values.values():
            network = (value if isinstance(value, Ticket) else value.ticket).network
            texts |= {network.written, network.init or ""}
    return texts


def _texts(value: object) -> Iterator[str]:
    """The texts in an argument."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
