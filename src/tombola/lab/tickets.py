"""Tickets as results of their own: which of a store travel, and those that are not written down yet.

A ticket is the mask that a round's pruning gives, and the name of a dense start. With the tickets of a chain,
the numbers of its runs and the start, which is made again from its seed, the chain goes on: none of its
weights are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tombola import files
from tombola.errors import JobError, StoreError, TombolaError, unknown
from tombola.lab.description import TICKET_FUNCTION, described_in_full, parents, shared_start
from tombola.lab.execute import LeaseHeld, Settings, execute, load_result
from tombola.lab.job import name_of
from tombola.lab.objects import lacks_start, stored_object
from tombola.lab.results import pack
from tombola.lab.store import TICKET, Store
from tombola.ticket import Ticket
from tombola.training.run import Run

ALL, NEWEST = "all", "newest"


@dataclass(frozen=True)
class Choice:
    """Which tickets to take: every one, or the last of each chain, those of some rounds, or both of these."""

    all: bool = False
    newest: bool = False
    rounds: frozenset[int] = frozenset()

    @classmethod
    def of(cls, words: str | int | Iterable[str | int]) -> Choice:
        """The choice that words make: ``"all"``, ``"newest"``, numbers of rounds; nothing means all.

        Raises :class:`~tombola.errors.JobError` for any other word.
        """
        given = [words] if isinstance(words, str | int) else list(words)
        parts = [part.strip() for word in given for part in str(word).split(",")] or [ALL]
        for part in parts:
            if part not in (ALL, NEWEST) and not (part.isascii() and part.isdigit()):
                problem = unknown("choice of tickets", part, (ALL, NEWEST))
                raise JobError(f"{problem} (a round goes by its number)")
        rounds = frozenset(int(part) for part in parts if part.isdigit())
        return cls(ALL in parts, NEWEST in parts, rounds)


def chosen_tickets(store: Store, names: Collection[str], choice: Choice) -> set[str]:
    """Those tickets among some finished jobs that a choice takes and that have their masks here."""
    tickets = {name for name in names if is_ticket(store, name) and not store.is_thin(name)}
    if choice.all:
        return tickets
    numbers = {name: store.numbers(name).get("round") for name in tickets}
    there = sorted({number for number in numbers.values() if isinstance(number, int)})
    for number in sorted(choice.rounds - set(there)):
        raise JobError(f"no ticket of round {number} here; there are {', '.join(map(str, there)) or 'none'}")
    rounds = {name for name in tickets if numbers[name] in choice.rounds}
    if not choice.newest:
        return rounds
    runs = {run for name in tickets for run in parents(store.description(name))}
    return rounds | (tickets - with_ancestors(store, runs))


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


def is_ticket(store: Store, name: str) -> bool:
    """Whether a finished job is the ticket of a round."""
    return bool(store.description(name)["function"] == TICKET_FUNCTION)


def following_tickets(store: Store, names: Collection[str]) -> set[str]:
    """The tickets that were made from some finished runs."""
    return {
        name
        for name in store.names()
        if is_ticket(store, name) and not parents(store.description(name)).isdisjoint(names)
    }


def write_missing_tickets(store: Store, names: Iterable[str]) -> None:
    """Write down the tickets that some finished trainings had or lead to, as far as the store can tell them.

    Those that were trained, in a store of before tickets were results, are taken from their run; the next one
    of a chain is pruned from its last run, as all before, if its weights are there. What cannot be, since a
    job is damaged, somebody works on it, or nothing can be written here, is left.
    """
    for name in sorted(names):
        with suppress(TombolaError, LeaseHeld):
            description = store.description(name)
            called = _ticket_call(store, description)
            if called is None or called["function"] != TICKET_FUNCTION:
                continue
            if not store.has(name_of(called)):
                _write_own(store, name, called)
            following = _next(store, name, description, called)
            if following is not None and not store.is_thin(name) and not store.has(name_of(following)):
                execute(store, following, Settings(device="cpu"))


def _ticket_call(store: Store, description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The call that made the ticket of a training, if a job or a call within it did."""
    value = description["arguments"].get("ticket") if description["function"] == "train" else None
    if not isinstance(value, dict) or "job" not in value:
        return None
    if "call" in value:
        called: dict[str, Any] = value["call"]
        return called
    return store.description(value["job"]) if store.has(value["job"]) else None


def _next(
    store: Store, name: str, description: Mapping[str, Any], called: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The call that prunes a run further, if it was trained like the run before it: both are of one chain."""
    before = called["arguments"].get("run")
    if not isinstance(before, dict) or not store.has(str(before.get("job"))):
        return None
    if _without_ticket(store.description(before["job"])) != _without_ticket(description):
        return None
    arguments = {**called["arguments"], "run": {"job": name}}
    return {"function": called["function"], "version": called["version"], "arguments": arguments}


def _without_ticket(description: Mapping[str, Any]) -> tuple[Any, ...]:
    arguments = {key: value for key, value in description["arguments"].items() if key != "ticket"}
    return description["function"], description["version"], arguments


def _write_own(store: Store, name: str, called: Mapping[str, Any]) -> None:
    """Publish the ticket that a finished run has, as the result of the call that made it."""
    ticket = _own_ticket(store, name)
    if ticket is None:
        return
    # It was pruned by the process that trained it.
    provenance = {**store.provenance(name), "seconds": 0.0, "precision": None, "engine": None, "data": {}}
    store.publish(name_of(called), called, pack(ticket), provenance)


def _own_ticket(store: Store, name: str) -> Ticket | None:
    """The ticket of a run, whole or thin; None if only its numbers are here, or its start is gone."""
    if not store.is_thin(name):
        run = load_result(store, name)
        return run.ticket if isinstance(run, Run) else None
    if not store.details(name) or lacks_start(store, name):
        return None
    details, tensors = files.read_tensors(store.folder(name) / TICKET, "tombola.ticket/1")
    start = shared_start(details)
    return Ticket.unpack(details, tensors, start=stored_object(store, start)[1] if start else None)
