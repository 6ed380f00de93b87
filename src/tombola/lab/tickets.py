"""The tickets of a store: which ones an export takes, and those that have to be added to it first.

The ticket of a round is a result of its own: the mask that pruning gave, and the fingerprint of a dense
start. A chain goes on from its tickets, the numbers of its runs and the start, which is made again from its
seed; no weights are needed. Older stores have tickets only within their runs.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tombola.errors import JobError, StoreError, StoreUnwritable, TombolaError, unknown
from tombola.lab.description import TICKET_FUNCTION, described_in_full, name_of, parents
from tombola.lab.execute import LeaseHeld, Settings, execute
from tombola.lab.finished import ticket_of
from tombola.lab.results import pack
from tombola.lab.store import Store

ALL, NEWEST = "all", "newest"


@dataclass(frozen=True)
class Choice:
    """Which tickets an export takes: all, or the newest of each chain and those of some rounds."""

    all: bool = False
    newest: bool = False
    rounds: frozenset[int] = frozenset()

    @classmethod
    def of(cls, words: str | int | Iterable[str | int]) -> Choice:
        """The choice for ``"all"``, ``"newest"``, numbers of rounds, or several of these; nothing means all.

        Raises :class:`~tombola.errors.JobError` for any other word.
        """
        several = [words] if isinstance(words, str | int) else list(words)
        parts = [part.strip() for word in several for part in str(word).split(",")] or [ALL]
        for part in parts:
            if part not in (ALL, NEWEST) and not (part.isascii() and part.isdigit()):
                problem = unknown("choice of tickets", part, (ALL, NEWEST))
                raise JobError(f"{problem} (a round goes by its number)")
        rounds = frozenset(int(part) for part in parts if part.isdigit())
        return cls(ALL in parts, NEWEST in parts, rounds)


def chosen_tickets(store: Store, names: Collection[str], choice: Choice) -> set[str]:
    """The tickets among some finished jobs that a choice takes and that have their masks.

    Raises :class:`~tombola.errors.JobError` for a round of which there is none.
    """
    tickets = {name for name in names if is_ticket(store, name) and not store.is_thin(name)}
    if choice.all:
        return tickets
    numbers = {name: store.numbers(name).get("round") for name in tickets}
    rounds = sorted({number for number in numbers.values() if isinstance(number, int)})
    for number in sorted(choice.rounds - set(rounds)):
        raise JobError(f"no ticket of round {number} here; there are {', '.join(map(str, rounds)) or 'none'}")
    of_rounds = {name for name in tickets if numbers[name] in choice.rounds}
    if not choice.newest:
        return of_rounds
    runs = {run for name in tickets for run in parents(store.description(name))}
    return of_rounds | (tickets - with_ancestors(store, runs))


def is_ticket(store: Store, name: str) -> bool:
    """Whether a finished job is the ticket of a round."""
    return bool(store.description(name)["function"] == TICKET_FUNCTION)


def following_tickets(store: Store, names: Collection[str]) -> set[str]:
    """The finished tickets that were pruned from some finished runs."""
    return {
        name
        for name in store.names()
        if is_ticket(store, name) and not parents(store.description(name)).isdisjoint(names)
    }


def with_ancestors(store: Store, names: Iterable[str]) -> set[str]:
    """The finished ones among these jobs and all that they were made from; a damaged one ends its branch."""
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in reached and store.has(name):
            reached.add(name)
            try:
                description = store.description(name)
                pending.extend(parents(description) | described_in_full(description))
            except StoreError:
                continue
    return reached


_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def write_missing_tickets(store: Store, names: Iterable[str]) -> None:
    """Publish the tickets of some finished trainings that are no results yet, as far as that is possible.

    In a store from before tickets were results, the ticket of a training is taken from its run. The next
    ticket of a chain is pruned from its last run, as all before, if its weights are there. Tickets are
    skipped where a job is damaged or under way, or the store may only be read.

    Raises :class:`~tombola.errors.StoreUnwritable` for a full or failing disk: a ticket would be missing
    without a word.
    """
    for name in sorted(names):
        try:
            _write_tickets_of(store, name)
        except StoreUnwritable as error:
            if getattr(error.__cause__, "errno", None) not in _READ_ONLY:
                raise
        except (TombolaError, LeaseHeld):
            continue


def _write_tickets_of(store: Store, name: str) -> None:
    description = store.description(name)
    pruning = _ticket_call(store, description)
    if pruning is None or pruning["function"] != TICKET_FUNCTION:
        return
    if not store.has(name_of(pruning)):
        _publish_own_ticket(store, name, pruning)
    following = _next_pruning(store, name, description, pruning)
    if following is not None and not store.is_thin(name) and not store.has(name_of(following)):
        execute(store, following, Settings(device="cpu"))


def _ticket_call(store: Store, description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The call that made the ticket of a training; None if it is no training, or the call is gone."""
    value = description["arguments"].get("ticket") if description["function"] == "train" else None
    if not isinstance(value, dict) or "job" not in value:
        return None
    if "call" in value:
        call: dict[str, Any] = value["call"]
        return call
    return store.description(value["job"]) if store.has(value["job"]) else None


def _next_pruning(
    store: Store, name: str, description: Mapping[str, Any], pruning: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The call that prunes a run for the next round; None unless it was trained as the run before it was.

    pruning: the call that made the run's own ticket.
    """
    before = pruning["arguments"].get("run")
    if not isinstance(before, dict) or not store.has(str(before.get("job"))):
        return None
    if _without_ticket(store.description(before["job"])) != _without_ticket(description):
        return None
    arguments = {**pruning["arguments"], "run": {"job": name}}
    return {"function": pruning["function"], "version": pruning["version"], "arguments": arguments}


def _without_ticket(description: Mapping[str, Any]) -> tuple[Any, ...]:
    arguments = {key: value for key, value in description["arguments"].items() if key != "ticket"}
    return description["function"], description["version"], arguments


def _publish_own_ticket(store: Store, name: str, pruning: Mapping[str, Any]) -> None:
    """Publish the ticket of a finished run as the result of the call that made it."""
    ticket = ticket_of(store, name)
    if ticket is None:
        return
    # The run's own provenance: the process that trained the ticket had pruned it.
    provenance = {**store.provenance(name), "seconds": 0.0, "precision": None, "engine": None, "data": {}}
    store.publish(name_of(pruning), pruning, pack(ticket), provenance)
