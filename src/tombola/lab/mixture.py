"""Mixed origins: trainings that go on from results of another engine version, torch or kind of device.

Equal jobs have equal bits only where engine version, torch, hardware and convolution plans are equal. A chain
that was begun elsewhere may be continued here, but no single machine would have given it: the provenance of
the training lists the differences, the driver warns once, and ``strict`` refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tombola.errors import JobError, StoreError
from tombola.lab.arguments import job_signature
from tombola.lab.description import parents
from tombola.lab.job import Job
from tombola.lab.starts import maker_of_described_start, maker_of_start
from tombola.lab.store import Store
from tombola.registry import declaration
from tombola.training.device import ENGINE_VERSIONS, convolution_plans, hardware_name, resolve_device

if TYPE_CHECKING:
    from distributed import Client

STRICT_REMEDY = "leave out --strict to mix them, or use another store"
"""What a user can do where strict refuses."""

# The keys of an origin in provenance, and the words for them.
_WORDS = {
    "engine_version": "engine version",
    "torch": "torch",
    "hardware": "hardware",
    "convolution_plans": "convolution plans",
}


@dataclass(frozen=True)
class OriginDifference:
    """A difference between the origins of a training and of a result behind it, as provenance lists it.

    job: the name of the result's job.
    what: ``"engine version"``, ``"torch"``, ``"hardware"`` or ``"convolution plans"``.
    there, here: of the result and of the training.
    """

    job: str
    what: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.what} {self.there} computed job {self.job[:12]}, here is {self.here}"


def origin(device: torch.device) -> dict[str, str]:
    """What decides the bits of a training on a device of this process.

    Engine version, torch, hardware, and on a GPU the table of convolution plans, else ``""``.
    """
    return {
        "engine_version": str(ENGINE_VERSIONS[device.type]),
        "torch": _release(torch.__version__),
        "hardware": hardware_name(device),
        "convolution_plans": convolution_plans(device) or "",
    }


def mixtures(
    store: Store, description: Mapping[str, Any], device: torch.device, *, strict: bool = False
) -> list[dict[str, str]]:
    """The differences between a training about to run and the results it goes on from, for its provenance.

    device: of this process, on which it will run.

    Results that are not in the store yet are left out. A job that is no training has no differences.

    Raises :class:`~tombola.errors.JobError` with ``strict``, if there are differences or one of the results
    is mixed itself.
    """
    if not is_training(description["function"]):
        return []
    behind = dict(_computed_behind(store, description))
    differences = _differences(behind, origin(device))
    if strict and differences:
        raise JobError(f"strict: {differences[0]}; {STRICT_REMEDY}")
    mixed = next((name for name, provenance in behind.items() if provenance.get("mixed")), None)
    if strict and mixed is not None:
        raise JobError(f"strict: job {mixed[:12]} is mixed itself; {STRICT_REMEDY}")
    return [asdict(difference) for difference in differences]


def _differences(behind: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]) -> list[OriginDifference]:
    """The differences between the origins of finished jobs, from their provenance, and another origin."""
    origins = {name: origin_of(provenance) for name, provenance in behind.items()}
    return [
        OriginDifference(name, word, there[key], here[key])
        for name, there in origins.items()
        for key, word in _WORDS.items()
        if there[key] != here[key] and "" not in (there[key], here[key])
    ]


def mixed_line(
    store: Store, missing: Iterable[Job], here: Mapping[str, str], removed: Collection[str] = ()
) -> str | None:
    """One line that warns of trainings that will go on from results of another origin; None if none will.

    here: the origin that the missing trainings will have.
    removed: names of finished jobs that will be computed anew.
    """
    differences = [
        difference
        for job in missing
        if is_training(job.declaration.name)
        for difference in _differences(dict(_computed_before(store, job)), here)
        if difference.job not in removed
    ]
    if not differences:
        return None
    kinds = sorted({f"{one.what} {one.there} (here {one.here})" for one in differences})
    count = len({one.job for one in differences})
    return (
        f"{count} result{'s' if count > 1 else ''} that trainings go on from came from {', '.join(kinds)}: "
        "such trainings are recorded as mixed, and refused with --strict"
    )


def distinct_origins(client: Client, device: str) -> list[dict[str, str]]:
    """The origins of trainings on the workers of a Dask cluster, each different one once.

    device: the kind that jobs will run on, ``"cpu"`` or ``"cuda"``; workers without it are left out.
    """
    answers = client.run(_worker_origin, device).values()
    return [dict(entries) for entries in sorted({tuple(answer.items()) for answer in answers if answer})]


def _worker_origin(device: str) -> dict[str, str]:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        return {}
    return origin(resolve_device(device))


def _computed_behind(store: Store, description: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the nearest finished jobs behind a call that computed on a device, with their provenance.

    Exact jobs (an initialisation, a pruning) are followed to those behind them. The job that made the dense
    start of a chain, a pretraining for example, is behind every round.
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
        with suppress(StoreError):  # a damaged one is reported, with a remedy, by what reads it
            behind = store.description(name)
            if computes(behind["function"]):
                yield name, store.provenance(name)
            else:
                pending.extend(sorted(parents(behind)))


def _computed_before(store: Store, job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the same for a job whose exact parents, such as the pruning of a run, may not be finished."""
    pending, seen = [*job.parents], set[str]()
    with suppress(StoreError):
        maker = maker_of_start(store, job.parents[0]) if job.parents else None
        pending += [maker] if maker is not None else []
    while pending:
        parent = pending.pop()
        if parent.name in seen:
            continue
        seen.add(parent.name)
        if not computes(parent.declaration.name):
            pending.extend(parent.parents)
        elif store.has(parent.name):
            with suppress(StoreError):
                yield parent.name, store.provenance(parent.name)


def origin_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The origin in a provenance.

    Results from before engines had versions have version 1; those of a CPU, or from before tables of
    convolution plans were recorded, have ``""`` there, which differs from none.
    """
    return {
        "engine_version": str(provenance.get("engine_version", 1)),
        "torch": _release(str(provenance.get("torch"))),
        "hardware": str(provenance.get("hardware")),
        "convolution_plans": provenance.get("convolution_plans") or "",
    }


def _release(version: str) -> str:
    """A version of torch without its build, such as ``+cu126``."""
    return version.partition("+")[0]


def is_training(function: str) -> bool:
    """Whether a declared function trains; such a function takes ``mode``."""
    return "mode" in _runtime(function)


def computes(function: str) -> bool:
    return "device" in _runtime(function)


def _runtime(function: str) -> Collection[str]:
    """The parameters of a declared function that the lab fills in."""
    try:
        return job_signature(declaration(function).function).runtime
    except JobError:
        return ()  # of a user's function that is not declared here
