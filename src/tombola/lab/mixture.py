"""Mixed origins: trainings that go on from results whose bits another engine, torch or kind of device made.

Equal jobs have equal bits only where engine version, torch and hardware are equal. A chain that was begun
elsewhere may be continued here, but it is then no chain that any one machine would have given: the record of
the training says so, the driver says it once, and ``strict`` refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tombola.errors import JobError, StoreError
from tombola.lab.arguments import face
from tombola.lab.description import parents
from tombola.lab.job import Job
from tombola.lab.starts import maker_of_described_start, maker_of_start
from tombola.lab.store import Store
from tombola.registry import declaration
from tombola.training.device import ENGINE_VERSION, hardware_name, resolve_device

STRICT_REMEDY = "leave out --strict to mix them, or use another store"
"""What to do where strict refuses."""

# What bits rest on, as provenance has it, and what a user calls it.
_WORDS = {"engine_version": "engine version", "torch": "torch", "hardware": "hardware"}


@dataclass(frozen=True)
class Difference:
    """A result behind a training that was computed otherwise than the training is.

    job: its name. what: ``"engine version"``, ``"torch"`` or ``"hardware"``. there, here: of the result and
    of the training.
    """

    job: str
    what: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.what} {self.there} computed job {self.job[:12]}, here is {self.here}"


def origin(device: torch.device) -> dict[str, str]:
    """What the bits of a training on a device of this process rest on."""
    return {
        "engine_version": str(ENGINE_VERSION),
        "torch": _release(torch.__version__),
        "hardware": hardware_name(device),
    }


def mixtures(
    store: Store, description: Mapping[str, Any], device: torch.device, *, strict: bool = False
) -> list[dict[str, str]]:
    """How the results that a training goes on from differ from where it is about to run, for its record.

    device: of this process, on which it will run. Results that are not in the store yet are left out; a job
    that is no training has none.

    Raises :class:`~tombola.errors.JobError` where there are any, or one of the results is mixed itself, if
    that is to be refused (``strict``).
    """
    if not _is_training(description["function"]):
        return []
    behind = dict(_computed_behind(store, description))
    unequal = _unequal(behind, origin(device))
    if strict and unequal:
        raise JobError(f"strict: {unequal[0]}; {STRICT_REMEDY}")
    itself = next((name for name, made in behind.items() if made.get("mixed")), None)
    if strict and itself is not None:
        raise JobError(f"strict: job {itself[:12]} is mixed itself; {STRICT_REMEDY}")
    return [asdict(difference) for difference in unequal]


def _unequal(behind: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]) -> list[Difference]:
    """The differences of finished jobs, given with their provenance."""
    origins = {name: _origin_of(made) for name, made in behind.items()}
    return [
        Difference(name, word, there[key], here[key])
        for name, there in origins.items()
        for key, word in _WORDS.items()
        if there[key] != here[key]
    ]


def mixed_line(
    store: Store, missing: Iterable[Job], here: Mapping[str, str], removed: Collection[str] = ()
) -> str | None:
    """What there is to say before trainings go on from results of another origin; None if none does.

    removed: names of finished jobs that will be computed anew.
    """
    unequal = [
        difference
        for job in missing
        if _is_training(job.declaration.name)
        for difference in _unequal(dict(_computed_before(store, job)), here)
        if difference.job not in removed
    ]
    if not unequal:
        return None
    kinds = sorted({f"{each.what} {each.there} (here {each.here})" for each in unequal})
    count = len({each.job for each in unequal})
    return (
        f"{count} result{'s' if count > 1 else ''} that trainings go on from came from {', '.join(kinds)}: "
        "such trainings are recorded as mixed, and refused with --strict"
    )


def distinct_origins(client: Any, device: str) -> list[dict[str, str]]:
    """What the bits of trainings rest on for each kind of worker of a Dask cluster.

    device: the kind that jobs will run on, ``"cpu"`` or ``"cuda"``; workers without it are left out.
    """
    answers = client.run(_worker_origin, device).values()
    return [dict(entries) for entries in sorted({tuple(answer.items()) for answer in answers if answer})]


def _worker_origin(device: str) -> dict[str, str]:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        return {}
    return origin(resolve_device(device))


def _computed_behind(store: Store, description: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nearest finished jobs behind a call that computed on a device, each with its provenance.

    What is exact (an initialisation, a pruning) is looked through. Behind every round of a chain is also what
    its dense start was made by: a pretraining.
    """
    pending, seen = [*sorted(parents(description))], set[str]()
    with suppress(StoreError):
        maker = maker_of_described_start(store, description)
        pending += [maker] if maker is not None else []
    while pending:
        name = pending.pop()
        if name in seen or not store.has(name):
            continue
        seen.add(name)
        with suppress(StoreError):  # one that is damaged fails what reads it, with a remedy
            behind = store.description(name)
            if _computes(behind["function"]):
                yield name, store.provenance(name)
            else:
                pending.extend(sorted(parents(behind)))


def _computed_before(store: Store, job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of a job whose exact parents may not be there yet, such as the pruning of a finished run."""
    pending, seen = [*job.parents], set[str]()
    with suppress(StoreError):
        maker = maker_of_start(store, job.parents[0]) if job.parents else None
        pending += [maker] if maker is not None else []
    while pending:
        parent = pending.pop()
        if parent.name in seen:
            continue
        seen.add(parent.name)
        if not _computes(parent.declaration.name):
            pending.extend(parent.parents)
        elif store.has(parent.name):
            with suppress(StoreError):
                yield parent.name, store.provenance(parent.name)


def _origin_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The origin of a finished job; results of before engines had versions are of the first."""
    return {
        "engine_version": str(provenance.get("engine_version", 1)),
        "torch": _release(str(provenance.get("torch"))),
        "hardware": str(provenance.get("hardware")),
    }


def _release(version: str) -> str:
    """A version of torch without the platform that it was built for."""
    return version.partition("+")[0]


def _is_training(function: str) -> bool:
    """Whether a declared function trains: the lab then tells it what may be chosen on a GPU."""
    return "mode" in _runtime(function)


def _computes(function: str) -> bool:
    return "device" in _runtime(function)


def _runtime(function: str) -> Collection[str]:
    try:
        return face(declaration(function).function).runtime
    except JobError:
        return ()  # of a user's function that is not declared here
