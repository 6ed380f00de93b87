"""Tickets and runs as model repositories of the Hugging Face hub: what is in one, pushed and pulled.

A repository has tombola's own file, from which the ticket or run comes back to the bit; the weights as a
plain ``state_dict`` for all other programs; the learning curve; and the card.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from tombola.errors import DataError, HubError, StoreError, TicketError
from tombola.hub_origin import HubOrigin
from tombola.lab.arguments import from_json
from tombola.lab.lineages import Lineages
from tombola.lab.measurement import measurement_of
from tombola.lab.objects import stored_data
from tombola.lab.store import Store
from tombola.networks.factory import Factory
from tombola.report.figure import picture_files
from tombola.sharing.hub_traffic import CARD, Push, check_repository, push_files, snapshot
from tombola.sharing.model_card import CURVE, Background, model_card
from tombola.sharing.plain_pytorch import definition, program
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe
from tombola.training.run import Run
from tombola.untrusted import LARGEST_TENSORS
from tombola.views.learning_curve import learning_curve

RUN, TICKET = "run.safetensors", "ticket.safetensors"
"""Tombola's own file of a run and of a ticket; a repository has one of them."""

PLAIN = "model.safetensors"
"""The plain ``state_dict``: final weights of a run, of a ticket those that training starts from."""


def background_of_job(store: Store, name: str) -> Background:
    """What a store knows of a finished run or ticket: data, recipe, and how its job was computed.

    Data that are not at hand are told by their name alone.

    Raises :class:`~tombola.errors.StoreError` for a damaged job.
    """
    description = store.checked_description(name)
    recipe = description["arguments"].get("recipe")
    dataset = measurement_of(Lineages(store, ()), name).fields.get("dataset")
    data = None
    with suppress(DataError, StoreError):
        data = stored_data(store, str(dataset)) if dataset is not None else None
    return Background(
        data,
        str(dataset or ""),
        None if recipe is None else from_json(recipe, Recipe),
        name,
        store.provenance(name),
    )


def push(
    subject: Run | Ticket,
    repository: str,
    background: Background,
    *,
    private: bool = False,
    license: str | None = None,
    with_start: bool = False,
    dry_run: bool = False,
) -> Push:
    """Upload a run or ticket; arguments and errors as of :meth:`Ticket.push_to_hub`."""
    check_repository(repository)
    files = repository_files(subject, repository, background, license, with_start=with_start)
    ticket = subject.ticket if isinstance(subject, Run) else subject
    message = f"{type(subject).__name__} of {ticket.network.written}, {100 * ticket.sparsity:.2f}% sparse"
    return push_files(repository, "model", files, private=private, dry_run=dry_run, message=message)


def repository_files(
    subject: Run | Ticket, repository: str, background: Background, license: str | None, *, with_start: bool
) -> Mapping[str, bytes]:
    """The files of a repository by name, the card first."""
    network = (subject.ticket if isinstance(subject, Run) else subject).network
    exact = RUN if isinstance(subject, Run) else TICKET
    state = _plain_state(subject)
    lines = definition(network, state)
    text = program(network, lines, repository, (PLAIN, exact), background.data)
    files = {CARD: model_card(subject, background, repository, text, license).encode()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / exact
        subject.save(path, with_start=with_start)
        files[exact] = path.read_bytes()
    files[PLAIN] = save(state, {"format": "pt"})
    if isinstance(subject, Run) and not subject.foreign:
        files[CURVE] = picture_files(learning_curve(subject.history), ["png"])["png"]
    return files


def _plain_state(subject: Run | Ticket) -> dict[str, Tensor]:
    """The weights, each in memory of its own, with pruned ones as zeros."""
    weights = subject.weights if isinstance(subject, Run) else subject.weights()
    return {name: value.contiguous().clone() for name, value in weights.items()}


def pull_ticket(repository: str, revision: str | None, network: str | Factory | None) -> Ticket:
    """The ticket of a repository, or that of its run; arguments and errors as of :meth:`Ticket.from_hub`."""
    pulled = pull(repository, revision, network)
    return pulled.ticket if isinstance(pulled, Run) else pulled


def pull_run(repository: str, revision: str | None, network: str | Factory | None) -> Run:
    """The run of a repository; arguments and errors as of :meth:`Run.from_hub`."""
    pulled = pull(repository, revision, network)
    if isinstance(pulled, Ticket):
        raise HubError(f"{pulled.hub} holds a ticket and no run; read it with Ticket.from_hub")
    return pulled


def pull(repository: str, revision: str | None, network: str | Factory | None = None) -> Run | Ticket:
    """The run or ticket of a repository, with where it was pulled from in its ticket's ``hub``."""
    there = snapshot(repository, "model", revision, (RUN, TICKET))
    for name, kind in ((RUN, Run), (TICKET, Ticket)):
        path = there.file(name, LARGEST_TENSORS)
        if path is None:
            continue
        try:
            return _from(kind.load(path, network=network), there.origin)
        except TicketError as error:
            raise TicketError(f"{there.origin}: {str(error).replace(str(path), name)}") from error
    raise HubError(
        f"{there.origin} is no repository of tombola: it has neither {RUN} nor {TICKET}; {there.contents()}"
    )


def _from(pulled: Run | Ticket, origin: HubOrigin) -> Run | Ticket:
    """The same with where it is from."""
    if isinstance(pulled, Ticket):
        return replace(pulled, hub=origin)
    return replace(pulled, ticket=replace(pulled.ticket, hub=origin))
