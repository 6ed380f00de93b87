"""What the versions running here mean for a store: behind ``tombola upgrades``, which changes nothing.

Names of jobs hold no version of torch or the engine, so an upgrade leaves every finished job where it is.
What changes are the bits of new work beside it (:mod:`tombola.lab.mixture`), and, where the version of a
declared function or network was raised, which jobs the same experiment asks for
(:mod:`tombola.lab.job_versions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from tombola import files
from tombola.errors import TombolaError
from tombola.lab.description import TICKET_FUNCTION, is_fingerprint
from tombola.lab.item import Results
from tombola.lab.job_table import numbers_of_jobs
from tombola.lab.job_versions import Environment, JobVersions, environment_here, newest_name, read_versions
from tombola.lab.mixture import is_training
from tombola.lab.store import Store
from tombola.table.key import Key
from tombola.table.number import Number
from tombola.training.device import environment, resolve_device
from tombola.untrusted import OTHER_FORM

T = TypeVar("T", str, Environment)


@dataclass(frozen=True)
class JobGroup:
    """Finished jobs with what they took.

    names: of all. trainings: how many of them train. seconds: of work, where it was done. bytes: of their
    folders, without dense starts that many share.
    """

    names: tuple[str, ...] = ()
    trainings: int = 0
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class MixedCell:
    """Numbers of one key and budget that rest on results of several environments.

    what: the key in words. jobs: names of the measured jobs.
    """

    what: str
    environments: tuple[Environment, ...]
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Upgrades:
    """What the running versions mean for the finished jobs of a store.

    here: the running environment, on the device that jobs would take.
    environments: jobs that computed on a device. exact: those that give the same bits anywhere.
    networks: by written name, with the newest written name here; None where there is none.
    renamed: by cause, jobs that the same experiment would not find any more; made_from_renamed: those that
        rest on them, which it would not find either.
    not_judged: by what is not declared here, jobs of which it cannot be said.
    valid: all others; they keep their names.
    to_continue: trainings of other bits that nothing was trained on from yet.
    thin: jobs of other bits without weights; what asks for these has them trained again, with other numbers.
    begin_anew: unfinished jobs whose checkpoints are of another environment.
    mixed: jobs recorded as mixed. mixed_cells: comparisons that mix environments already.
    damaged: errors of jobs that cannot be read.
    """

    store: str
    here: Environment
    environments: Mapping[Environment, JobGroup]
    numpy: Mapping[Environment, str]
    exact: JobGroup
    networks: Mapping[str, tuple[str | None, JobGroup]]
    renamed: Mapping[str, JobGroup]
    made_from_renamed: JobGroup
    not_judged: Mapping[str, JobGroup]
    valid: JobGroup
    to_continue: tuple[str, ...] = ()
    thin: tuple[str, ...] = ()
    begin_anew: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    mixed_cells: Sequence[MixedCell] = ()
    damaged: Sequence[str] = ()

    @property
    def others(self) -> dict[Environment, JobGroup]:
        """The environments whose bits are not those of here."""
        return {
            environment: group
            for environment, group in self.environments.items()
            if not environment.same_bits(self.here)
        }

    def to_json(self) -> dict[str, Any]:
        """The same as an object, with the full names of all jobs."""
        return {
            "store": self.store,
            "here": asdict(self.here),
            "environments": [
                {
                    **asdict(environment),
                    "numpy": self.numpy[environment],
                    "same_bits_as_here": environment.same_bits(self.here),
                    **asdict(group),
                }
                for environment, group in self.environments.items()
            ],
            "exact": asdict(self.exact),
            "networks": [
                {"network": name, "newest_here": newest, **asdict(group)}
                for name, (newest, group) in self.networks.items()
            ],
            "valid": asdict(self.valid),
            "renamed": [{"cause": cause, **asdict(group)} for cause, group in self.renamed.items()],
            "made_from_renamed": asdict(self.made_from_renamed),
            "not_judged": [{"cause": cause, **asdict(group)} for cause, group in self.not_judged.items()],
            "to_continue": list(self.to_continue),
            "without_weights": list(self.thin),
            "begin_anew": list(self.begin_anew),
            "mixed": list(self.mixed),
            "mixed_comparisons": [
                {
                    "what": cell.what,
                    "environments": [asdict(environment) for environment in cell.environments],
                    "jobs": list(cell.jobs),
                }
                for cell in self.mixed_cells
            ],
            "damaged": list(self.damaged),
        }


def upgrades(store: Store, device: str = "auto") -> Upgrades:
    """What the running versions mean for a store, read off its descriptions, provenance and numbers.

    device: on which jobs would run here.

    Raises :class:`~tombola.errors.DeviceError` for a device that is not there.
    """
    here = environment_here(device)
    jobs, damaged = read_versions(store)
    changed = [job for job in jobs.values() if job.changed]
    resting = _resting_on_changed(jobs)
    not_judged = [job for job in jobs.values() if job.not_declared and not job.changed]
    lost = {job.name for job in (*changed, *resting, *not_judged)}
    foreign = {name for name, job in jobs.items() if job.environment and not job.environment.same_bits(here)}
    environments = _by(jobs.values(), lambda job: [job.environment] if job.environment else [])
    networks = _by(jobs.values(), lambda job: sorted(job.networks))
    return Upgrades(
        store=str(store.root),
        here=here,
        environments=environments,
        numpy={
            environment: _commonest(jobs[name].numpy for name in group.names)
            for environment, group in environments.items()
        },
        exact=_group(job for job in jobs.values() if job.environment is None),
        networks={network: (newest_name(network), group) for network, group in networks.items()},
        renamed=_by(changed, lambda job: job.changed),
        made_from_renamed=_group(resting),
        not_judged=_by(not_judged, lambda job: job.not_declared),
        valid=_group(job for job in jobs.values() if job.name not in lost),
        to_continue=tuple(sorted(foreign & _newest_trainings(jobs))),
        thin=tuple(sorted(name for name in foreign if jobs[name].thin)),
        begin_anew=tuple(_begin_anew(store, device)),
        mixed=tuple(sorted(name for name, job in jobs.items() if job.mixed)),
        mixed_cells=_mixed_cells(store, jobs),
        damaged=tuple(str(error) for error in damaged),
    )  # fmt: skip


def _resting_on_changed(jobs: Mapping[str, JobVersions]) -> list[JobVersions]:
    """The jobs made from changed ones, directly or not; gives every job the networks of those behind it."""
    resting: list[JobVersions] = []
    reached: set[str] = set()
    for job in _parents_first(jobs):
        behind = [jobs[parent] for parent in job.parents if parent in jobs]
        job.networks.update(*(parent.networks for parent in behind))
        if any(parent.changed or parent.name in reached for parent in behind):
            reached.add(job.name)
            if not job.changed:
                resting.append(job)
    return resting


def _parents_first(jobs: Mapping[str, JobVersions]) -> list[JobVersions]:
    """All jobs, each after those that it was made from."""
    ordered: dict[str, JobVersions] = {}
    for first in jobs:
        pending = [first]
        under_way: set[str] = set()
        while pending:
            name = pending[-1]
            missing = [one for one in jobs[name].parents if one in jobs and one not in ordered]
            if not missing or name in under_way:  # a circle, which no store has that was not made up
                ordered.setdefault(name, jobs[name])
                pending.pop()
            else:
                under_way.add(name)
                pending += missing
    return list(ordered.values())


def _group(jobs: Iterable[JobVersions]) -> JobGroup:
    members = sorted(jobs, key=lambda job: job.name)
    return JobGroup(
        tuple(job.name for job in members),
        sum(is_training(job.function) for job in members),
        sum(job.seconds for job in members),
        sum(job.bytes for job in members),
    )


def _by(jobs: Iterable[JobVersions], keys: Callable[[JobVersions], Iterable[T]]) -> dict[T, JobGroup]:
    """Groups of jobs by their keys, in the order of these."""
    members: dict[T, list[JobVersions]] = {}
    for job in jobs:
        for key in keys(job):
            members.setdefault(key, []).append(job)
    return {key: _group(members[key]) for key in sorted(members)}


def _commonest(texts: Iterable[str]) -> str:
    return max(Counter(texts).items(), key=lambda entry: (entry[1], entry[0]))[0]


def _newest_trainings(jobs: Mapping[str, JobVersions]) -> set[str]:
    """The trainings from which no other training went on."""
    gone_on: set[str] = set()
    behind: dict[str, set[str]] = {}  # by job: the nearest trainings behind it
    for job in _parents_first(jobs):
        nearest: set[str] = set()
        for parent in job.parents & jobs.keys():
            nearest |= {parent} if is_training(jobs[parent].function) else behind.get(parent, set())
        behind[job.name] = nearest
        if is_training(job.function):
            gone_on |= nearest
    return {name for name, job in jobs.items() if is_training(job.function)} - gone_on


def _begin_anew(store: Store, device: str) -> Iterator[str]:
    """The unfinished jobs with a checkpoint of another environment, from which no training goes on here."""
    here = _of_machine(environment(resolve_device(device), "", "", "default"))
    for workplace in sorted((store.root / "work").iterdir()):
        if is_fingerprint(workplace.name) and (workplace / "checkpoint").exists():
            with suppress(TombolaError, OSError, *OTHER_FORM):
                recorded = files.read_description(workplace / "checkpoint")["environment"]
                if _of_machine(recorded) != here:
                    yield workplace.name


def _of_machine(made: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a checkpoint without what the options of a run decide."""
    kept = {key: value for key, value in made.items() if key not in ("precision", "engine", "mode")}
    return {**kept, "hardware": str(made["hardware"]).partition(", ")[0]}  # without the threads of a CPU


def _mixed_cells(store: Store, jobs: Mapping[str, JobVersions]) -> list[MixedCell]:
    """The comparisons whose numbers rest on results of several environments, each once."""
    measured = [name for name, job in jobs.items() if job.function != TICKET_FUNCTION]
    numbers, _ = numbers_of_jobs(Results(store), measured, strict=False, measured_only=True)
    cells: dict[tuple[Key, int], list[Number]] = {}
    for number in numbers:
        cells.setdefault((number.key, number.epochs), []).append(number)
    mixed: dict[tuple[str, ...], MixedCell] = {}
    for (key, _), of_cell in cells.items():
        names = tuple(sorted({name for number in of_cell for name in number.jobs}))
        environments = {environment for name in names for environment in _environments(jobs, name)}
        if (
            len(
                {
                    (environment.torch, environment.engine, environment.hardware)
                    for environment in environments
                }
            )
            > 1
        ):
            # A run has many numbers; the first of them stands for all.
            mixed.setdefault(names, MixedCell(str(key), tuple(sorted(environments)), names))
    return list(mixed.values())


def _environments(jobs: Mapping[str, JobVersions], name: str) -> Iterator[Environment]:
    """The environments of a job and of what it was measured on."""
    if name in jobs:
        for job in (jobs[name], *(jobs[parent] for parent in jobs[name].parents if parent in jobs)):
            if job.environment is not None:
                yield job.environment
