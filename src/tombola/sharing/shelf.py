"""The shelf: finished tickets by name, out of an export, wherever that lies.

An export of tickets (``tombola export all FILE --tickets ...``) such as ``results/store.zip`` is imported
once into the user's cache, which verifies all of it, and read from there. A dense start that was drawn from a
seed is drawn again and must have the fingerprint that the ticket names; no data are needed for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from tombola import disk, files
from tombola.data.cache import folder as data_cache
from tombola.errors import StoreError, reason, unknown
from tombola.hub_origin import HubOrigin, is_repository
from tombola.lab.archive import import_
from tombola.lab.lineages import Lineages
from tombola.lab.measurement import measurement_of
from tombola.lab.objects import lacks_start
from tombola.lab.results import unpack
from tombola.lab.starts import dense_start, maker_of_described_start
from tombola.lab.store import Store
from tombola.lab.tickets import is_ticket
from tombola.networks.network import Network
from tombola.one_line import OneLine
from tombola.sharing.hub_traffic import snapshot
from tombola.table.number import many
from tombola.ticket import State, Ticket
from tombola.untrusted import OTHER_FORM, open_regular
from tombola.views.layout import momentum_text

if TYPE_CHECKING:
    import pandas as pd

EXPORT = "store.zip"
"""What the export is called in a folder or repository that holds a shelf."""

_VARIABLE = "TOMBOLA_SHELF"
_LARGEST = 4 * 2**30  # bytes of an export that is fetched
_PART = 2**20
# Where the results of the project lie beside its sources; absent where only the package was installed.
_RESULTS = Path(__file__).parents[3] / "results"


@dataclass(frozen=True)
class ShelvedTicket:
    """A ticket of a shelf.

    name: by which :func:`shelf` loads it. sparsity: share that is pruned, from 0 to 1. round: prunings.
    accuracy: test accuracy of the run that was trained from it, in percent; None if the shelf has none.
    start: ``"seed"``, drawn again when it is loaded; ``"there"``, in the export; or ``"missing"``: it was
        trained and is not in the export, so the ticket cannot be loaded.
    job: the name of its job in the store.
    """

    name: str
    network: str
    dataset: str
    momentum: float | None
    batch_size: int | None
    rewind: int | str
    seed: int | None
    round: int
    sparsity: float
    accuracy: float | None
    start: Literal["seed", "there", "missing"]
    job: str


class Shelf(OneLine, Sequence[ShelvedTicket]):
    """The tickets of an export, sorted by name.

    store: into which it was imported. source: where it lies. origin: of one from the hub, its revision.
    """

    def __init__(self, store: Store, source: str, origin: HubOrigin | None = None) -> None:
        self.store, self.source, self.origin = store, source, origin
        self._tickets = _tickets(store)

    def __len__(self) -> int:
        return len(self._tickets)

    @overload
    def __getitem__(self, index: int) -> ShelvedTicket: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ShelvedTicket]: ...
    def __getitem__(self, index: int | slice) -> ShelvedTicket | Sequence[ShelvedTicket]:
        return self._tickets[index]

    def _in_one_line(self) -> str:
        return f"<shelf of {many(len(self), 'ticket')} from {self.source}; print(shelf) lists them>"

    def _facts(self) -> Mapping[str, object]:
        return {entry.name: f"{100 * entry.sparsity:.2f}% sparse" for entry in self}

    def __str__(self) -> str:
        columns = ["name", "sparsity", "accuracy", "start"]
        rows = [
            [
                entry.name,
                f"{100 * entry.sparsity:.2f}%",
                "" if entry.accuracy is None else f"{entry.accuracy:.2f}%",
                entry.start,
            ]
            for entry in self
        ]
        widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in [columns, *rows])
        return "\n".join(lines)

    def frame(self) -> pd.DataFrame:
        """The tickets as a data frame, whose columns are the fields of :class:`ShelvedTicket`."""
        import pandas as pd

        names = [entry.name for entry in fields(ShelvedTicket)]
        return pd.DataFrame([asdict(entry) for entry in self], columns=names)

    def load(self, name: str) -> Ticket:
        """A ticket with its dense start, as controls need it.

        Raises :class:`~tombola.errors.StoreError` for a name that is not here, a start that is not in the
        export, and damage.
        """
        entries = {entry.name: entry for entry in self}
        if name not in entries:
            raise StoreError(unknown("ticket on the shelf", name, entries))
        job = entries[name].job
        ticket: Ticket = unpack(self.store.packed(job), Ticket, lambda start: _start(self.store, job, start))
        return ticket if self.origin is None else replace(ticket, hub=self.origin)


@overload
def shelf(
    name: None = None, *, source: str | os.PathLike[str] | None = None, revision: str | None = None
) -> Shelf: ...
@overload
def shelf(
    name: str, *, source: str | os.PathLike[str] | None = None, revision: str | None = None
) -> Ticket: ...
def shelf(
    name: str | None = None, *, source: str | os.PathLike[str] | None = None, revision: str | None = None
) -> Shelf | Ticket:
    """The shelf of finished tickets, or a ticket of it by name.

    source: an export (``.zip``), a folder with ``store.zip``, a store, or a data set of the Hugging Face hub
        with ``store.zip``, such as ``"me/x"``; by default ``TOMBOLA_SHELF``, or the ``results`` folder of the
        project's sources where tombola runs from a copy of these. No shelf is published on a hub yet.
    revision: of a source on the hub: a branch, tag or commit.

    The first call for an export takes seconds, in which it is verified and unpacked into the cache.

    Raises :class:`~tombola.errors.StoreError` for a source that is none or a name that is not on the shelf,
    and :class:`~tombola.errors.HubError` for a repository that cannot be reached.
    """
    place = source if source is not None else os.environ.get(_VARIABLE) or None
    if place is None and (_RESULTS / EXPORT).is_file():
        place = _RESULTS
    if place is None:
        raise StoreError(
            "no shelf is at hand, and none is published on a hub yet; give source=, the results folder of a "
            f"copy of the project's sources or an export of tickets, or set {_VARIABLE}"
        )
    opened = _opened(os.fspath(place), revision)
    return opened if name is None else opened.load(name)


def _opened(source: str, revision: str | None) -> Shelf:
    """The shelf of a source."""
    path = Path(source).expanduser()
    if (path / "tombola.json").is_file():
        return Shelf(Store(path, create=False), source)
    if (path / EXPORT).is_file():
        path = path / EXPORT
    if path.is_file():
        return Shelf(_imported(path), source)
    if path.exists() or not is_repository(source) or "/" not in source:
        raise StoreError(
            f"{source} is no shelf; give an export of tickets (.zip), a folder with {EXPORT}, a store, or a "
            "data set of the hub as user/name"
        )
    there = snapshot(source, "dataset", revision, (EXPORT,))
    fetched = there.file(EXPORT, _LARGEST)
    if fetched is None:
        raise StoreError(f"{there.origin} holds no shelf: it has no {EXPORT}; {there.contents()}")
    return Shelf(_imported(fetched), source, there.origin)


def _imported(export: Path) -> Store:
    """A store in the user's cache with what an export holds; imported once, by the export's SHA-256."""
    digest = hashlib.sha256()
    with open_regular(export, _LARGEST, follow=True) as content:
        while part := content.read(_PART):
            digest.update(part)
    place = data_cache().with_name("shelf") / digest.hexdigest()
    if place.is_dir():
        return Store(place, create=False)
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        import_(Store(partial), export)
        try:
            disk.replace(partial, place)
        except OSError:  # another process was faster
            if not place.is_dir():
                raise
    finally:
        disk.remove_tree(partial, ignore_errors=True)
    return Store(place, create=False)


def _tickets(store: Store) -> list[ShelvedTicket]:
    """The tickets of rounds that a store has with their masks, sorted by what they are.

    Raises :class:`~tombola.errors.StoreError` for a damaged job.
    """
    lineages = Lineages(store, ())
    tickets: dict[str, ShelvedTicket] = {}
    jobs = [job for job in store.names() if is_ticket(store, job) and not store.is_thin(job)]
    accuracies = _accuracies(store, jobs)
    for job in jobs:
        try:
            ticket = _shelved(store, lineages, job, accuracies.get(job))
        except OTHER_FORM as error:
            raise store.damaged(job, f"{type(error).__name__} {reason(error)}") from error
        if ticket.name in tickets:  # what else tells them apart has no place in a name
            ticket = replace(ticket, name=f"{ticket.name}-{job[:8]}")
        tickets[ticket.name] = ticket
    return sorted(tickets.values(), key=_place)


def _shelved(store: Store, lineages: Lineages, job: str, accuracy: float | None) -> ShelvedTicket:
    """A ticket as its descriptions and numbers tell it."""
    measured, numbers = measurement_of(lineages, job), store.numbers(job)
    fields_of_key: Mapping[str, Any] = measured.fields
    momentum, batch_size = fields_of_key.get("momentum"), fields_of_key.get("batch_size")
    network, dataset = str(fields_of_key.get("network")), str(fields_of_key.get("dataset"))
    rewind, rounds = fields_of_key.get("rewind", 0), int(numbers["round"])
    parts = [
        network.partition("@")[0],
        dataset,
        "" if momentum is None else momentum_text(momentum),
        "" if batch_size is None else str(batch_size),
        f"rewind{rewind}" if rewind else "",
        f"seed{measured.seed}" if measured.seed else "",
        f"round{rounds}",
    ]
    # As the name of a file, too, whoever called the network and the data what they are called.
    name = re.sub(r"[^\w.:+-]", "_", "-".join(filter(None, parts)))
    return ShelvedTicket(
        name, network, dataset, momentum, batch_size, rewind, measured.seed, rounds,
        float(numbers["sparsity"]), accuracy, _kind_of_start(store, job), job,
    )  # fmt: skip


def _place(ticket: ShelvedTicket) -> tuple[Any, ...]:
    """Where a ticket is sorted: its rounds by number."""
    configuration = ticket.momentum or 0.0, ticket.batch_size or 0, str(ticket.rewind), ticket.seed or 0
    return ticket.network, ticket.dataset, *configuration, ticket.round, ticket.name


def _accuracies(store: Store, tickets: Collection[str]) -> dict[str, float]:
    """The test accuracy, in percent, of the first run that was trained from each ticket on full data."""
    accuracies: dict[str, float] = {}
    for job in store.names():
        description = store.description(job)
        arguments = description["arguments"]
        ticket, data = arguments.get("ticket"), arguments.get("data")
        if description["function"] != "train" or not isinstance(data, dict) or data.keys() != {"data"}:
            continue
        if isinstance(ticket, dict) and ticket.get("job") in tickets:
            accuracy = store.numbers(job).get("accuracy")
            if isinstance(accuracy, float):
                accuracies.setdefault(ticket["job"], accuracy)
    return accuracies


def _kind_of_start(store: Store, job: str) -> Literal["seed", "there", "missing"]:
    if not lacks_start(store, job):
        return "there"
    return "seed" if _seeded(store, job) is not None else "missing"


def _seeded(store: Store, job: str) -> int | None:
    """The seed that a ticket's dense start was drawn from; None if it was made in another way."""
    maker = maker_of_described_start(store, store.description(job))
    description = store.checked_description(maker) if maker is not None else None
    if description is None or description["function"] != "initialize":
        return None
    seed = description["arguments"].get("seed", 0)
    return seed if isinstance(seed, int) else None


def _start(store: Store, job: str, fingerprint: str) -> State:
    """The dense start of a ticket, from the store or drawn again from its seed.

    Raises :class:`~tombola.errors.StoreError` for one that was made otherwise, or comes out otherwise here.
    """
    if not lacks_start(store, job):
        return dense_start(store, job, fingerprint)
    seed = _seeded(store, job)
    if seed is None:
        raise StoreError(
            f"the dense start {fingerprint[:12]} of this ticket was trained and is not in the export; import "
            "it into a store of your own with tombola import, where a run makes it again"
        )
    network = Network.described(store.details(job)["network"])
    start = dict(network.initialized(seed).state_dict())
    if files.fingerprint(start) != fingerprint:
        raise StoreError(
            f"seed {seed} gives another start of {network.written} here than {fingerprint[:12]}, which this "
            "ticket names: another version of torch draws other weights"
        )
    return start
