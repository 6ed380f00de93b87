"""Finished jobs read as the library objects they were, with what is wrong with them in words.

Everything that is read comes through here: a result whose description is proven to have its name, whose
tensors have their checksums, and whose dense start is the one that it names; and of a run whose tensors were
removed the ticket that is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tombola import files
from tombola.errors import JobError, NetworkError, TicketError, TombolaError, Undeclared, Undefined, reason
from tombola.lab.job import Job, described_function, described_type, result_type
from tombola.lab.objects import start_is_gone
from tombola.lab.results import Packed, unpack
from tombola.lab.staleness import is_edited_network
from tombola.lab.starts import dense_start
from tombola.lab.store import Store
from tombola.source import declared_here
from tombola.ticket import Ticket
from tombola.training.run import Run
from tombola.untrusted import OTHER_FORM

# What gives a kind of result, where its name alone does not say it.
_IN_WORDS = {
    "Alignment": "job of align",
    "ConnectingCurve": "job of curve",
    "ExampleScores": "job of scores, such as example-scores gives",
}


def load_result(store: Store, name: str) -> Any:
    """The result of a finished job as the library object it was.

    Raises :class:`~tombola.errors.StoreError` if it is damaged, and its subclass
    :class:`~tombola.errors.Undeclared` if its network is not declared here, or was edited since; and
    :class:`~tombola.errors.Undefined` if it is of something that diverged.
    """
    kind = described_type(store.checked_description(name))
    return _unpacked(store, name, store.packed(name), kind)


def stored_ticket(store: Store, run: Job) -> Ticket | None:
    """The ticket that a finished run began from; None where the store has numbers only."""
    ticket = run.arguments["ticket"].name
    return ticket_of(store, ticket if store.has(ticket) and not store.is_thin(ticket) else run.name)


def ticket_of(store: Store, name: str) -> Ticket | None:
    """A finished ticket, or that of a finished run; None if numbers only are left, or its start is gone."""
    if not store.is_thin(name):
        result = load_result(store, name)
        return result.ticket if isinstance(result, Run) else result if isinstance(result, Ticket) else None
    packed = store.packed_ticket(name)
    if packed is None or start_is_gone(store, packed.details):
        return None
    ticket: Ticket = _unpacked(store, name, packed, Ticket)
    return ticket


def finished_job(store: Store, prefix: str) -> Job:
    """The one finished job whose name begins so; what is behind it stays as described, not needed again.

    Raises :class:`~tombola.errors.JobError` if there is none or several, or for a function unknown here,
    and :class:`~tombola.errors.StoreError` if it is damaged.
    """
    description = store.checked_description(store.find(prefix))
    return Job(described_function(description), description["arguments"])


def run_or_ticket(path: str) -> Run | Ticket:
    """The run or ticket that a file holds."""
    return (Run if files.file_kind(path) == "tombola.run/1" else Ticket).load(path)


def subject_of(
    store: Store, measure: str, key: str, text: str, kinds: tuple[type, ...]
) -> Job | Ticket | Run:
    """A finished job by the beginning of its name, or a ticket or run out of a file.

    measure, key: what takes it, for the :class:`~tombola.errors.JobError` for one of none of these kinds.
    """
    wanted = " or ".join(_IN_WORDS.get(kind.__name__, kind.__name__.lower()) for kind in kinds)
    if Path(text).is_file():
        loaded = run_or_ticket(text)
        if not isinstance(loaded, kinds):
            raise JobError(
                f"{measure}: {key} wants a {wanted}; {text} holds a {type(loaded).__name__.lower()}"
            )
        return loaded
    finished = finished_job(store, text)
    if result_type(finished.declaration) not in kinds:
        gives = finished.declaration.name
        remedy = "; tombola ls --function prune lists tickets" if Ticket in kinds else ""
        raise JobError(f"{measure}: {key} wants a {wanted}; job {finished.name[:12]} is of {gives}{remedy}")
    return finished


def _unpacked(store: Store, name: str, packed: Packed, kind: Any) -> Any:
    """What a finished job keeps, as an object of its type; raises as :func:`load_result`."""
    try:
        return unpack(packed, kind, lambda start: dense_start(store, name, start))
    except Undefined:
        raise
    except (TicketError, NetworkError) as error:
        raise _reading_error(store, name, packed.details, error) from error
    except OTHER_FORM as error:
        raise store.damaged(name, f"{type(error).__name__} {reason(error)}") from error


def _reading_error(store: Store, name: str, details: Mapping[str, Any], error: TombolaError) -> TombolaError:
    """What to raise for a ticket or run with right checksums that does not go with what is declared here."""
    if isinstance(error.__cause__, NetworkError) and isinstance(error, TicketError):
        return Undeclared(
            f"job {name[:12]} cannot be read here: {error.__cause__}; import the file that declares it"
        )
    try:
        described = details.get("ticket", details)["network"]
        network, init = str(described["name"]), described.get("init")
    except OTHER_FORM:
        return store.damaged(name, str(error))
    if is_edited_network(store, name, network):
        return Undeclared(
            f"job {name[:12]} was made with another text of network {network}; raise its version, or "
            f"--recompute {network} replaces what was made with it"
        )
    own = declared_here()
    if isinstance(error, NetworkError) and (network in own["networks"] or init in own["inits"]):
        return Undeclared(f"job {name[:12]} cannot be read here: {error}; mend what declares it")
    return store.damaged(name, str(error))
