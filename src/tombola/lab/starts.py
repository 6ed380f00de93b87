"""Dense starts that are gone: which job makes them again, and whether it can.

A ticket refers to its dense start, which the store keeps once. An export of tickets leaves the start behind
where a job makes it again from its seed; in the store it comes to, that happens before a training needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tombola.errors import JobError, NetworkError, StoreError
from tombola.lab.description import own_values, parents, shared_start
from tombola.lab.job import Job, checked_description, described_function
from tombola.lab.objects import lacks_start
from tombola.lab.store import Store
from tombola.networks.network import Network
from tombola.networks.versions import as_written

_FROM = {"prune": "run", "train": "ticket", "permute": "ticket", "randomize": "ticket", "densify": "ticket"}
"""Functions whose ticket or run has the dense start of an argument, with the name of that argument."""


@dataclass(frozen=True)
class _Call:
    """A call that is followed to where a start comes from.

    name: of its job if a store keeps its result; None if it runs again wherever that is needed.
    job: the call as a job, where it was not read from the store.
    """

    function: str
    arguments: Mapping[str, Any]
    name: str | None
    job: Job | None = None


def maker_of_start(store: Store, job: Job) -> Job | None:
    """The stored job whose result the dense start of a ticket or run first was; the job itself, it may be.

    None if it comes from a ticket of the caller's own, from a call that no store keeps, or from a job that is
    neither among the arguments nor in the store.

    Raises :class:`~tombola.errors.JobError` if that job is of a function that is not known here.
    """
    source = _source(store, _as_call(job))
    if source is None or source.name is None:
        return None
    return source.job or _job(store, source.name)


def maker_of_described_start(store: Store, description: Mapping[str, Any]) -> str | None:
    """The same for a described call: the name of the job, which may not be there."""
    source = _source(store, _Call(description["function"], description["arguments"], None))
    return None if source is None else source.name


def _source(store: Store, call: _Call) -> _Call | None:
    """The call that made the dense start of what a call gives, as far as it can be followed."""
    followed: _Call | None = call
    while followed is not None and followed.function in _FROM:
        followed = _referred(store, followed.arguments.get(_FROM[followed.function]))
    return followed


def _as_call(job: Job) -> _Call:
    return _Call(job.declaration.name, job.arguments, job.name if job.stored else None, job)


def _referred(store: Store, value: Any) -> _Call | None:
    """The call that an argument refers to, if it is one and known."""
    if isinstance(value, Job):
        return _as_call(value)
    if not isinstance(value, dict) or "job" not in value:
        return None
    called = value.get("call")
    if called is not None:
        # A store of before describes tickets so too, which are followed further and never the source.
        return _Call(called["function"], called["arguments"], None)
    return _stored_call(store, value["job"])


def _stored_call(store: Store, name: str) -> _Call | None:
    """A finished job as a call; None if it is gone.

    Raises :class:`~tombola.errors.StoreError` if its description is of another job: names are hashes, so no
    chain of true descriptions comes round to its beginning.
    """
    if not store.has(name):
        return None
    description = checked_description(store, name)
    return _Call(description["function"], description["arguments"], name)


def _job(store: Store, name: str) -> Job:
    """A finished job whose parents are jobs too, as far as the store knows them."""
    description = store.description(name)
    arguments = {key: _deepened(store, value) for key, value in description["arguments"].items()}
    return Job(described_function(description), arguments)


def _deepened(store: Store, value: Any) -> Any:
    if isinstance(value, list):
        return [_deepened(store, item) for item in value]
    if isinstance(value, dict) and "job" in value and "call" not in value:
        return _job(store, value["job"]) if _stored_call(store, value["job"]) else value
    return value


def awaited(store: Store, job: Job, jobs: Collection[str]) -> Iterator[str]:
    """Those of some jobs that one has to wait for: what it needs, and what makes the starts of it again."""
    for need in job.needs:
        if need.name in jobs:
            yield need.name
        elif lacks_start(store, need.name):
            maker = maker_of_start(store, need)
            if maker is not None and maker.name in jobs:
                yield maker.name


def cause_to_carry(store: Store, name: str) -> str | None:
    """Why the dense start of a finished ticket cannot be made again from a seed; None if it can.

    A store may then leave it out: whoever needs it has its job computed again.
    """
    start = shared_start(store.details(name))
    source = _stored_source(store, name)
    if source is None:
        return "it comes from a ticket of the caller's own, or from a job that is gone"
    if source.name is None:
        return f"{source.function} made it, whose results no store keeps"
    if store.numbers(source.name).get("start") != start:
        return f"job {source.name[:12]} that made it has made another since"
    try:
        return _not_repeatable(store, source.name)
    except (JobError, NetworkError) as error:
        return str(error)


def _stored_source(store: Store, name: str) -> _Call | None:
    """The call that made the dense start of a finished job."""
    call = _stored_call(store, name)
    return None if call is None else _source(store, call)


def _not_repeatable(store: Store, name: str) -> str | None:
    """Why a finished job cannot be computed again from what is declared here, if it cannot."""
    pending = [name]
    while pending:
        each = pending.pop()
        if not store.has(each):
            return f"job {each[:12]} behind it is gone"
        description = store.description(each)
        if own_values(description):
            return "it comes from a ticket of the caller's own"
        described_function(description)
        network, init = (description["arguments"].get(key) for key in ("network", "init"))
        if isinstance(network, str):
            drawn_by = as_written(init) if isinstance(init, str) else None
            Network.of(as_written(network), channels=1, size=(1, 1), classes=1, init=drawn_by)
        pending.extend(parents(description))
    return None


def is_made_again(store: Store, name: str) -> bool:
    """Whether a thin job of the store makes the dense start that a ticket lacks, once it is needed.

    Whether its function is known here is not asked: it may be by then.
    """
    source, start = _stored_source(store, name), shared_start(store.details(name))
    if source is None or source.name is None:
        return False
    return store.is_thin(source.name) and store.numbers(source.name).get("start") == start


def lost_start(store: Store, name: str) -> str | None:
    """What to say of a finished job whose dense start is gone with the job that made it; None for any other.

    Where that job is there, its own file is what is damaged.
    """
    if not lacks_start(store, name):
        return None
    source, start = _stored_source(store, name), shared_start(store.details(name)) or ""
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
    """Refuse another dense start than a thin job made before, if finished tickets are of that one.

    Raises :class:`~tombola.errors.StoreError`, which says on what it was made then.
    """
    before = store.numbers(name).get("start") if store.is_thin(name) else None
    if before is None or before == start:
        return
    needing = [each for each in store.names() if each != name and _has_start(store, each, before)]
    if needing:
        made = store.provenance(name)
        where = ", ".join(str(made[key]) for key in ("hardware", "torch") if made.get(key))
        raise StoreError(
            f"the dense start of {len(needing)} tickets here (job {needing[0][:12]}) came out as "
            f"{start[:12]}, not as {before[:12]} like when it was made ({where}); go on on such a machine, "
            "or begin anew in another store"
        )


def _has_start(store: Store, name: str, start: str) -> bool:
    try:
        return not store.is_thin(name) and shared_start(store.details(name)) == start
    except StoreError:
        return False  # its own damage is told when it is read
