"""Dense starts that are gone from a store: which job makes them again, and whether it can.

A ticket refers to its dense start, which the store keeps once (:mod:`tombola.lab.objects`). An export of
tickets leaves out a start that a job makes again from its seed; after the import that job runs before a
training needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tombola.declarations import as_written
from tombola.errors import JobError, NetworkError, StoreError
from tombola.lab.description import objects_in, own_values, parents, shared_start
from tombola.lab.job import Job, described_function
from tombola.lab.objects import lacks_start, object_path, stored_object
from tombola.lab.store import Store
from tombola.networks.network import Network
from tombola.table.number import many
from tombola.ticket import State

# Functions whose result has the dense start of one of their arguments, with the name of that argument.
_PASSED_ON = {
    "prune": "run",
    "train": "ticket",
    "permute": "ticket",
    "randomize": "ticket",
    "densify": "ticket",
    "prune-at-initialization": "start",
    "edge-popup": "start",
    "supermask": "start",
    "at-same-step": "ticket",
}


@dataclass(frozen=True)
class _FollowedCall:
    """A call on the way back to the origin of a dense start.

    name: of its job; None if no store keeps its result.
    job: the call as a job, unless it was read from the store.
    """

    function: str
    arguments: Mapping[str, Any]
    name: str | None
    job: Job | None = None


def maker_of_start(store: Store, job: Job) -> Job | None:
    """The stored job that made the dense start of a job's ticket or run; this may be the job itself.

    None if the start comes from a ticket of the caller's own, from a call whose result no store keeps, or
    from a job that is neither among the arguments nor in the store.

    Raises :class:`~tombola.errors.JobError` if that job is of a function that is not declared here.
    """
    source = _source(store, _as_call(job))
    if source is None or source.name is None:
        return None
    return source.job or rebuilt_job(store, source.name)


def maker_of_described_start(store: Store, description: Mapping[str, Any]) -> str | None:
    """The name of the stored job that made the dense start of a described call's ticket or run, if any."""
    source = _source(store, _FollowedCall(description["function"], description["arguments"], None))
    return None if source is None else source.name


def _source(
    store: Store, call: _FollowedCall, sources: dict[str, _FollowedCall | None] | None = None
) -> _FollowedCall | None:
    """The call that made the dense start of a call's result; None where it cannot be followed further.

    sources: those of finished jobs that were followed before, by name; to these it adds.
    """
    sources = {} if sources is None else sources
    passed: list[str] = []
    followed: _FollowedCall | None = call
    while followed is not None and followed.function in _PASSED_ON:
        name = followed.name
        if name is not None and name in sources:
            followed = sources[name]
            break
        passed += [name] if name is not None else []
        followed = _argument_call(store, followed.arguments.get(_PASSED_ON[followed.function]))
    sources |= dict.fromkeys(passed, followed)
    return followed


def _as_call(job: Job) -> _FollowedCall:
    return _FollowedCall(job.declaration.name, job.arguments, job.name if job.stored else None, job)


def _argument_call(store: Store, value: object) -> _FollowedCall | None:
    """The call whose result an argument is; None for any other argument, or if the call is gone."""
    if isinstance(value, Job):
        return _as_call(value)
    if not isinstance(value, dict) or "job" not in value:
        return None
    call = value.get("call")
    if call is not None:
        # Older stores describe tickets so too, which are followed further and never the source.
        return _FollowedCall(call["function"], call["arguments"], None)
    return _stored_call(store, value["job"])


def _stored_call(store: Store, name: str) -> _FollowedCall | None:
    """A finished job as a call; None if it is gone.

    Raises :class:`~tombola.errors.StoreError` if its description is of another job: names are hashes, so true
    descriptions cannot form a circle.
    """
    if not store.has(name):
        return None
    description = store.checked_description(name)
    return _FollowedCall(description["function"], description["arguments"], name)


def rebuilt_job(store: Store, name: str) -> Job:
    """A finished job as a :class:`~tombola.lab.job.Job`, its parents too, as far as the store has them.

    Each is read and made once, after those behind it: a long chain must not hit the recursion limit.
    """
    jobs: dict[str, Job | None] = {}  # None where it is gone
    descriptions: dict[str, dict[str, Any]] = {}
    pending = [name]
    while pending:
        current = pending[-1]
        if current in jobs or not store.has(current):
            jobs.setdefault(current, None)
            pending.pop()
            continue
        if current not in descriptions:
            descriptions[current] = store.checked_description(current)
            behind = objects_in(list(descriptions[current]["arguments"].values()))
            pending += [value["job"] for value in behind if "job" in value and "call" not in value]
            continue
        description = descriptions[pending.pop()]
        arguments = {key: _with_jobs(jobs, value) for key, value in description["arguments"].items()}
        job = jobs[current] = Job(described_function(description), arguments)
        _ = job.name, job.needs  # now, when those behind it have theirs
    finished = jobs[name]
    if finished is None:
        raise JobError(f"job {name[:12]} is not in the store at {store.root}")
    return finished


def _with_jobs(jobs: Mapping[str, Job | None], value: Any) -> Any:
    """An argument of a description with finished jobs in place of their names."""
    if isinstance(value, list):
        return [_with_jobs(jobs, item) for item in value]
    if isinstance(value, dict) and "job" in value and "call" not in value:
        return jobs[value["job"]] or value
    return value


def awaited(store: Store, job: Job, jobs: Collection[str]) -> Iterator[str]:
    """Which of some jobs a job waits for: those it needs, and those that make its dense starts again."""
    for need in job.needs:
        if need.name in jobs:
            yield need.name
        elif lacks_start(store, need.name):
            maker = maker_of_start(store, need)
            if maker is not None and maker.name in jobs:
                yield maker.name


class StartMakers:
    """What made the dense starts of a store's finished jobs; of many jobs of one chain it is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: dict[str, _FollowedCall | None] = {}
        self._not_repeatable: dict[str, str | None] = {}

    def cause_to_carry(self, name: str) -> str | None:
        """Why an export must include a finished ticket's dense start; None if a job makes it from a seed."""
        start = shared_start(self._store.details(name))
        source = _stored_source(self._store, name, self._sources)
        if source is None:
            return "it comes from a ticket of the caller's own, or from a job that is gone"
        if source.name is None:
            return f"{source.function} made it, whose results no store keeps"
        if self._store.numbers(source.name).get("start") != start:
            return f"job {source.name[:12]} that made it has made another since"
        if source.name not in self._not_repeatable:
            try:
                self._not_repeatable[source.name] = _not_repeatable(self._store, source.name)
            except (JobError, NetworkError) as error:
                self._not_repeatable[source.name] = str(error)
        return self._not_repeatable[source.name]

    def is_made_again(self, name: str) -> bool:
        """Whether a ticket's dense start comes from a thin job of the store, which makes it when needed.

        Its function need not be declared yet.
        """
        source = _stored_source(self._store, name, self._sources)
        start = shared_start(self._store.details(name))
        if source is None or source.name is None:
            return False
        return self._store.is_thin(source.name) and self._store.numbers(source.name).get("start") == start


def _stored_source(
    store: Store, name: str, sources: dict[str, _FollowedCall | None] | None = None
) -> _FollowedCall | None:
    """The call that made the dense start of a finished job; sources: as for :func:`_source`."""
    if sources is not None and name in sources:
        return sources[name]
    call = _stored_call(store, name)
    return None if call is None else _source(store, call, sources)


def _not_repeatable(store: Store, name: str) -> str | None:
    """Why a finished job cannot be computed again with what is declared here; None if it can.

    Raises :class:`~tombola.errors.JobError` or :class:`~tombola.errors.NetworkError` where a function or
    network is not declared in the version of a job.
    """
    pending, seen = [name], set[str]()
    while pending:
        ancestor = pending.pop()
        if ancestor in seen:
            continue
        seen.add(ancestor)
        if not store.has(ancestor):
            return f"job {ancestor[:12]} behind it is gone"
        description = store.description(ancestor)
        if own_values(description):
            return "it comes from a ticket of the caller's own"
        described_function(description)
        network, init = (description["arguments"].get(key) for key in ("network", "init"))
        if isinstance(network, str):
            drawn_by = as_written(init) if isinstance(init, str) else None
            Network.of(as_written(network), channels=1, size=(1, 1), classes=1, init=drawn_by)
        pending.extend(parents(description))
    return None


def dense_start(store: Store, name: str, start: str) -> State:
    """The dense start of a finished job's ticket or run, by its fingerprint.

    Raises :class:`~tombola.errors.StoreError` if it is damaged, or gone: then with the remedy.
    """
    try:
        return stored_object(store, start)[1]
    except StoreError as error:
        if object_path(store, start).exists():
            raise
        raise StoreError(_lost(store, name, start)) from error


def _lost(store: Store, name: str, start: str) -> str:
    """The message for a finished job whose dense start is gone, with the remedy."""
    source = _stored_source(store, name)
    if source is not None and source.name is not None and not store.is_thin(source.name):
        return (
            f"job {name[:12]} is of the dense start {start[:12]}, whose tensors are gone from the store at "
            f"{store.root}; delete {store.folder(source.name)}, and they are made again"
        )
    return (
        f"job {name[:12]} is of the dense start {start[:12]}, which is gone from the store at {store.root}, "
        "and no job there has made it again; import a file that carries it, or delete what is of it to begin "
        "anew"
    )


def check_same_start(store: Store, name: str, start: str) -> None:
    """Check the dense start that a thin job made anew, by its fingerprint, if finished tickets rest on it.

    Raises :class:`~tombola.errors.StoreError` for another one than before, with the hardware and torch of
    then.
    """
    before = store.numbers(name).get("start") if store.is_thin(name) else None
    if before is None or before == start:
        return
    needing = [other for other in store.names() if other != name and _has_start(store, other, before)]
    if needing:
        provenance = store.provenance(name)
        where = ", ".join(str(provenance[key]) for key in ("hardware", "torch") if provenance.get(key))
        raise StoreError(
            f"the dense start of {many(len(needing), 'ticket')} here (job {needing[0][:12]}) came out as "
            f"{start[:12]}, not as {before[:12]} like when it was made ({where}); go on on such a machine, "
            "or begin anew in another store"
        )


def _has_start(store: Store, name: str, start: str) -> bool:
    try:
        return not store.is_thin(name) and shared_start(store.details(name)) == start
    except StoreError:
        return False  # its own damage is reported when it is read
