"""Tickets: a start to train from, with a mask (Frankle & Carbin, 2019).

A ticket keeps its mask and the complete dense start, because controls need the weights at pruned positions;
all tickets of one pruning chain share the same start tensors. A dense network is the ticket whose mask keeps
everything. Files of tickets are tensor files (:mod:`tombola.files`), checked against the network they name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola import files
from tombola.cost import Cost, Outline
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.declarations import as_written, bare_name
from tombola.errors import NetworkError, TicketError, reason
from tombola.hub_origin import HubOrigin
from tombola.networks.fit import check_fits
from tombola.networks.frozen_rest import has_rest, overlaps
from tombola.networks.initialization import Scheme
from tombola.networks.module import loaded_module
from tombola.networks.network import Factory, Network, weights_of
from tombola.networks.prunable import Coverage, coverage, empty_module, layout, prunable_names
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.untrusted import OTHER_FORM, printable

if TYPE_CHECKING:
    from tombola.sharing.hub_traffic import Push

State = Mapping[str, Tensor]
Mask = Mapping[str, Tensor]

_KIND = "tombola.ticket/1"
_TRAINED = "trained."

UNKNOWN_START = 64 * "0"
"""In place of the fingerprint of a start of which nothing is known."""


@dataclass(frozen=True, eq=False, repr=False)
class Ticket(OneLine):
    """A start to train from, with a mask.

    network: the description of the network to build.
    start: the dense start, one CPU tensor for each entry of the network's ``state_dict``. If ``complete`` is
        False, the values at pruned positions are not known and are 0. Of a run that was trained elsewhere no
        value may be known: then they are meta tensors, which have a shape only.
    mask: one bool CPU tensor for each prunable weight, True where the weight is kept.
    epoch: the place in the schedule at which the start was taken; 0 is the initialisation.
    step, steps: after how many steps of that epoch the start was taken, of how many; 0 of 1 at its beginning.
    round: number of prunings so far.
    density: the exact share of weights that ``round`` prunings should leave, from which counts are rounded.
    start_fingerprint: names the dense start, also where its values are not all known.
    complete: whether ``start`` has its values at pruned positions too.
    nonfinite: number of non-finite weights that the last pruning met (they were pruned first).
    trained: the whole ``state_dict`` that training goes on from in place of the start, 0 where the mask is 0:
        learning-rate rewinding keeps the trained weights and goes back to the start's place in the schedule.
        The start stays that of the chain, for controls.
    hub: the revision of a repository that it, or what it was made from, was pulled from; no part of the
        fingerprint.
    """

    network: Network
    start: State
    mask: Mask
    epoch: int = 0
    round: int = 0
    density: float = 1.0
    start_fingerprint: str = ""
    complete: bool = True
    nonfinite: int = 0
    trained: State | None = None
    step: int = 0
    steps: int = 1
    hub: HubOrigin | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.step < self.steps:
            raise TicketError(
                f"step is {self.step} of {self.steps}; it must be from 0 to one below the steps"
            )
        for name, keep in self.mask.items():
            if name not in self.start:
                raise TicketError(f"the mask has {name!r}, which {self.network.name} does not have")
            if keep.dtype != torch.bool or keep.shape != self.start[name].shape:
                raise TicketError(
                    f"the mask of {name} must be bool {tuple(self.start[name].shape)}; "
                    f"got {keep.dtype} {tuple(keep.shape)}"
                )
        if has_rest(self.network) and overlaps(self.start, self.mask):
            raise TicketError(
                f"the frozen rest of {self.network.name} has values where the mask keeps weights; take "
                "controls before freeze_pruned"
            )
        if not self.start_fingerprint:
            object.__setattr__(self, "start_fingerprint", files.fingerprint(self.start))

    def _in_one_line(self) -> str:
        weights = f"{self.kept:,} of {self.total:,} weights, {100 * self.sparsity:.2f}% sparse"
        place = f"round {self.round}, taken at {self.place}"
        if self.trained is not None:
            place += ", with trained weights"
        try:
            parameters = f"; {self.coverage}"
        except NetworkError:  # of a factory that is not at hand
            parameters = ""
        return f"<ticket of {self.network.written}: {weights}, {place}{parameters}>"

    @property
    def place(self) -> str:
        """The place in the schedule at which the start was taken, in words."""
        return f"epoch {self.epoch}" + (f", step {self.step} of {self.steps}" if self.step else "")

    def _facts(self) -> dict[str, object]:
        return {
            "network": self.network.written,
            "weights kept": f"{self.kept:,} of {self.total:,}",
            "sparsity": f"{100 * self.sparsity:.2f}%",
            "round": self.round,
            "taken at": self.place,
            "start": self.start_fingerprint[:12] if self.has_start else "not known",
        } | ({} if self.hub is None else {"pulled from": self.hub})

    @property
    def has_start(self) -> bool:
        """Whether the weights are known that training started from."""
        return self.start_fingerprint != UNKNOWN_START

    @cached_property
    def kept(self) -> int:
        """Number of prunable weights that the mask keeps."""
        return sum(int(keep.sum()) for keep in self.mask.values())

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(keep.numel() for keep in self.mask.values())

    @property
    def sparsity(self) -> float:
        """Share of prunable weights that are pruned, 0 to 1."""
        return 1.0 - self.kept / self.total if self.total else 0.0

    @property
    def collapsed_layers(self) -> list[str]:
        """Names of the weights of which nothing is left (layer collapse), in the order of the network."""
        return [name for name, keep in self.mask.items() if keep.numel() and not keep.any()]

    @cached_property
    def coverage(self) -> Coverage:
        """How many of the network's parameters are prunable, and which are left out.

        Raises :class:`~tombola.errors.NetworkError` for a network that cannot be built here.
        """
        return coverage(self.network, self.mask)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything a training of this ticket depends on."""
        parts: list[Any] = [self.network.description(), self.start_fingerprint, files.fingerprint(self.mask)]
        parts += [self.epoch, self.round, self.density]
        if self.step:
            parts += ["step", self.step, self.steps]
        if self.trained is not None:
            parts += ["trained", files.fingerprint(self.trained)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def weights(self) -> dict[str, Tensor]:
        """The weights that training starts from: the start, or trained weights, exactly 0 where pruned.

        Raises :class:`~tombola.errors.TicketError` if they are not known.
        """
        weights = apply_mask(self.known_start() if self.trained is None else self.trained, self.mask)
        for name, first in self._tied_names().items():
            weights[name] = weights[first]
        return weights

    def _tied_names(self) -> Mapping[str, str]:
        """Further names of tied weights, by which the mask does not have them."""
        shapes = {keep.shape for keep in self.mask.values()}
        others = [value for name, value in self.start.items() if name not in self.mask]
        # The network is built only where there may be any.
        return layout(self.network).tied if any(value.shape in shapes for value in others) else {}

    def known_start(self) -> State:
        """The start; :class:`~tombola.errors.TicketError` if it is not known what training started from."""
        if not self.has_start:
            raise TicketError(
                "it is not known what training started from; say run_from(..., start=...), or give the "
                "start to ticket.with_start(...)"
            )
        return self.start

    def dense_start(self) -> State:
        """The dense start; :class:`~tombola.errors.TicketError` if this ticket does not carry it."""
        self.known_start()
        if not self.complete:
            raise TicketError(
                f"this ticket does not carry its dense start {printable(self.start_fingerprint[:12])}; "
                "save it with with_start=True, or give it back with ticket.with_start(...)"
            )
        return self.start

    def with_start(self, start: State) -> Ticket:
        """The same ticket with its dense start; TicketError if that is not the start this ticket names.

        A ticket whose start is not known takes any of its network.
        """
        fingerprint = files.fingerprint(start)
        if not self.has_start:
            return _in_network_order(
                replace(self, start=dict(start), start_fingerprint=fingerprint, complete=True)
            )
        if fingerprint != self.start_fingerprint:
            needed = printable(self.start_fingerprint[:12])
            raise TicketError(f"that is start {fingerprint[:12]}; this ticket needs {needed}")
        return replace(self, start=start, complete=True)

    def with_mask(self, mask: Mask, *, same_round: bool = False) -> Ticket:
        """The same start under another mask, which counts as a pruning.

        same_round: count none, as a control, so that a training draws the very noise of this ticket's.

        Raises :class:`~tombola.errors.TicketError` where the mask's names or shapes are not the network's.
        """
        if mask.keys() != self.mask.keys():
            odd = sorted(set(mask) ^ set(self.mask))[0]
            raise TicketError(
                f"the mask must have exactly the prunable weights of {self.network.name}: {odd!r}"
            )
        partial = not self.complete or self.trained is not None
        if partial and any((keep & ~self.mask[name]).any() for name, keep in mask.items()):
            self.dense_start()
            raise TicketError(
                "the mask keeps weights that were pruned, which have no trained values here; give a part of "
                "the ticket's own mask, or take the dense start with densify(ticket)"
            )
        kept = sum(int(keep.sum()) for keep in mask.values())
        in_order = {name: mask[name] for name in self.mask}
        changed = any(not torch.equal(keep, self.mask[name]) for name, keep in mask.items())
        return replace(
            self,
            mask=in_order,
            round=self.round + (changed and not same_round),
            density=kept / self.total if self.total else 1.0,
            trained=None if self.trained is None else apply_mask(self.trained, in_order),
        )

    def module(self, *, normalize: DataLike | None = None) -> nn.Module:
        """The network with the weights that training starts from, as a plain module in evaluation mode.

        normalize: data, or a name or folder of them, whose mean and standard deviation are put in front: the
            module then takes pixel values from 0 to 255, uint8 or float ``(N, C, H, W)``.
        """
        return loaded_module(self.network, self.weights(), normalize)

    def save(self, path: str | os.PathLike[str], *, with_start: bool = False) -> None:
        """Write the ticket to one safetensors file: packed mask, surviving weights, description.

        with_start: also keep the pruned weights of the dense start, as controls need them.
        """
        if with_start:
            self.dense_start()
        description, tensors = self.pack(start="whole" if with_start else "surviving")
        files.write_tensors(path, _KIND, description, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, network: str | Factory | None = None) -> Ticket:
        """Read a ticket that :meth:`save` wrote.

        network: the expected network; needed for one whose factory was never declared.

        Raises :class:`~tombola.errors.TicketError` for a file that is damaged, altered or of another network.
        """
        return cls.unpack(*files.read_tensors(path, _KIND, follow=True), network=network)

    def push_to_hub(
        self,
        repository: str,
        *,
        data: DataLike | None = None,
        private: bool = False,
        license: str | None = None,
        with_start: bool = False,
        dry_run: bool = False,
    ) -> Push:
        """Upload the ticket to a model repository of the Hugging Face hub, which is made if it is not there.

        repository: such as ``"me/x"``. data: whose normalisation and name the model card tells.
        private: make the repository private; one that is public is refused.
        license: for the card, such as "mit". dry_run: upload nothing; what would be stands in the result.

        There are this ticket as :meth:`save` writes it, ``with_start`` or without; the weights that training
        starts from as a plain ``state_dict``; and a card with a program that loads both in PyTorch alone. The
        account is the one of ``hf auth login`` or ``HF_TOKEN``, the hub that of ``HF_ENDPOINT``.

        Raises :class:`~tombola.errors.HubError` without a token, rights or network.
        """
        from tombola.sharing.model_card import Background
        from tombola.sharing.models import push

        background = Background(None if data is None else load_data(data))
        return push(
            self,
            repository,
            background,
            private=private,
            license=license,
            with_start=with_start,
            dry_run=dry_run,
        )

    @classmethod
    def from_hub(
        cls, repository: str, *, revision: str | None = None, network: str | Factory | None = None
    ) -> Ticket:
        """The ticket of a model repository of the Hugging Face hub; of a run's the ticket that was trained.

        repository: such as ``"me/x"``. revision: a branch, tag or commit; by default the newest of main.
        network: as for :meth:`load`.

        What is pulled is read like any untrusted file; the exact revision is in the ticket's ``hub`` and in
        the provenance of jobs that take it.

        Raises :class:`~tombola.errors.HubError` for a repository or revision that cannot be reached or holds
        neither ticket nor run, and :class:`~tombola.errors.TicketError` as :meth:`load` does.
        """
        from tombola.sharing.models import pull_ticket

        return pull_ticket(repository, revision, network)

    def pack(self, *, start: str = "surviving") -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors of this ticket.

        start: which weights go along: ``"surviving"`` ones, the ``"whole"`` dense start, or ``"none"`` where
            the start is kept elsewhere under its fingerprint.
        """
        if not self.has_start:
            start = "unknown"
        description = {
            "network": self.network.description(),
            "epoch": self.epoch,
            "round": self.round,
            "density": self.density,
            "start": self.start_fingerprint,
            "start_kept": start if self.complete or start in ("none", "unknown") else "surviving",
            "nonfinite": self.nonfinite,
            "shapes": {name: list(keep.shape) for name, keep in self.mask.items()},
        }
        tensors = {f"mask.{name}": files.pack_bits(keep) for name, keep in self.mask.items()}
        if start not in ("none", "unknown"):
            tensors |= pack_state(self.start, self.mask)
        if start == "whole":
            tensors |= {f"pruned.{name}": self.start[name][~keep] for name, keep in self.mask.items()}
        if self.step:
            description |= {"step": self.step, "steps": self.steps}
        if self.trained is not None:
            description["trained"] = True
            tensors |= pack_state(self.trained, self.mask, prefix=_TRAINED)
        if self.hub is not None:
            description["hub"] = self.hub.description()
        return description, tensors

    @classmethod
    def unpack(
        cls,
        description: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        network: str | Factory | None = None,
        start: State | None = None,
    ) -> Ticket:
        """The ticket that :meth:`pack` described; ``start`` is needed if it was packed without one."""
        try:
            described = _described_network(description["network"], network)
            shapes = {name: tuple(shape) for name, shape in description["shapes"].items()}
            mask = {name: files.unpack_bits(tensors[f"mask.{name}"], shape) for name, shape in shapes.items()}
            if description["start_kept"] == "unknown":
                if description["start"] != UNKNOWN_START:
                    raise TicketError("a ticket names a start that it says is not known")
                start = unknown_state(described)
            elif description["start_kept"] != "none":
                start = unpack_state(tensors, mask)
                if description["start_kept"] == "whole":
                    for name, keep in mask.items():
                        start[name][~keep] = tensors[f"pruned.{name}"]
            if start is None:
                raise TicketError(f"the dense start {printable(description['start'][:12])} is not at hand")
            trained = unpack_state(tensors, mask, prefix=_TRAINED) if description.get("trained") else None
            # A dense ticket's surviving weights are all of them.
            complete = description["start_kept"] in ("none", "whole") or (
                description["start_kept"] == "surviving" and all(keep.all() for keep in mask.values())
            )
            ticket = cls(
                described, start, mask, int(description["epoch"]), int(description["round"]),
                float(description["density"]), str(description["start"]),
                complete=complete, nonfinite=int(description["nonfinite"]), trained=trained,
                step=int(description.get("step", 0)), steps=int(description.get("steps", 1)),
                hub=HubOrigin.described(description.get("hub")),
            )  # fmt: skip
        except OTHER_FORM as error:
            raise TicketError(f"not a ticket: {type(error).__name__} {reason(error)}") from error
        ticket = _in_network_order(ticket)
        # A start that is kept elsewhere was checked where it was read.
        return ticket.with_start(ticket.start) if complete and description["start_kept"] != "none" else ticket


def _initialize_cost(network: str) -> Cost:
    """No training; disk for the dense weights."""
    try:
        weights = weights_of(network)
    except NetworkError:  # it cannot be built for images as CIFAR-10's
        weights = 0
    return Cost(disk=4 * weights, result=Outline(network, weights))


def _prunes_as_before(arguments: Mapping[str, Any]) -> bool:
    """Whether version 1 gave a call the same mask: it left the weights of attention layers out.

    Data that are not loaded may be of any kind: the first of some that the network can be built for decides,
    and one that can be built for none counts as having no attention, so that no name changes without need.
    """
    data = arguments.get("data")
    shapes = [(data.channels, data.size)] if isinstance(data, Data) else _USUAL_IMAGES
    vocabulary = data.vocabulary if isinstance(data, Data) else None
    for channels, size in shapes:
        with suppress(NetworkError, KeyError):
            network = Network.of(
                arguments["network"], channels=channels, size=size, classes=10, vocabulary=vocabulary
            )
            return not (network.own and _prunes_attention(network, network.maker()))
    return True


_USUAL_IMAGES: list[tuple[int, tuple[int, ...]]] = [
    (3, (32, 32)), (1, (28, 28)), (1, (8, 8)), (3, (64, 64)),
]  # fmt: skip
"""Channels and size of CIFAR-10, MNIST, digits, and EuroSAT and TinyImageNet."""


@lru_cache(maxsize=64)
def _prunes_attention(network: Network, maker: Factory) -> bool:
    return layout(network).prunes_attention


@declare("initialize", version=2, unchanged={2: _prunes_as_before}, cost=_initialize_cost)
def initialize(
    network: str | Factory, data: DataLike, *, seed: int = 0, init: str | Scheme | None = None
) -> Ticket:
    """A dense ticket at initialisation: a full mask over newly drawn weights.

    network: a declared name (``"resnet18"``, ``"convnet"``, ...) or any factory of an ``nn.Module``, called
        with those of ``classes``, ``channels`` and ``size`` that it takes, or of what others call them (see
        :func:`tombola.declare_network`). A name means its newest version; ``"resnet18@1"`` is an older one.
        Or a built module, whose weights are the start; not in a job, which no other process could do.
    data: says how many channels, pixels and classes the network is for, or which features or tokens.
    seed: number of the initialisation stream.
    init: a declared initialisation scheme, ``"pytorch"``, ``"kaiming-normal"``, ``"kaiming-normal-fan-in"``,
        ``"glorot-normal"``, ``"lecun-normal"``, ``"signed-constant"``, ``"orthogonal"`` or one of
        :func:`tombola.declare_init`; None for the network's own. Controls that draw weights anew
        (``reinitialize``) draw by the same.

    Raises :class:`~tombola.errors.NetworkError` for an unknown name, a scheme that cannot be applied to the
    network, a network that cannot take the images or does not give one number for each class, and a seed for
    a built module.
    """
    data = load_data(data)
    described = Network.of(
        network, channels=data.channels, size=data.size, classes=data.classes, vocabulary=data.vocabulary,
        init=init,
    )  # fmt: skip
    module = described.initialized(seed)
    check_fits(module, described)
    start = {name: value.detach().clone() for name, value in module.state_dict().items()}
    mask = {name: torch.ones(start[name].shape, dtype=torch.bool) for name in prunable_names(module)}
    return Ticket(described, start, mask)


def apply_mask(state: State, mask: Mask) -> dict[str, Tensor]:
    """The state with exactly 0 where the mask is 0, also where the weight had diverged."""
    return {
        name: value.masked_fill(~mask[name], 0) if name in mask else value for name, value in state.items()
    }


def pack_state(state: State, mask: Mask, prefix: str = "") -> dict[str, Tensor]:
    """A state as its surviving weights (flat, in order of position) and everything that is never pruned."""
    packed = {f"{prefix}kept.{name}": state[name][keep] for name, keep in mask.items()}
    return packed | {f"{prefix}state.{name}": value for name, value in state.items() if name not in mask}


def unpack_state(tensors: State, mask: Mask, prefix: str = "") -> dict[str, Tensor]:
    """The state that :func:`pack_state` packed, exactly 0 at pruned positions."""
    state = {
        name.removeprefix(f"{prefix}state."): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}state.")
    }
    for name, keep in mask.items():
        values = tensors[f"{prefix}kept.{name}"]
        state[name] = torch.zeros(keep.shape, dtype=values.dtype).masked_scatter_(keep, values)
        if values.numel() != int(keep.sum()):
            raise TicketError(f"{values.numel()} weights for {int(keep.sum())} kept positions of {name}")
    return state


def _described_network(description: Mapping[str, Any], expected: str | Factory | None) -> Network:
    """The network that a file describes; TicketError if it is not the expected one, or not declared."""
    name = str(description["name"])
    if isinstance(expected, str):
        if expected not in (name, bare_name(name), as_written(name)):
            raise TicketError(f"this is a ticket of network {name!r}, not {expected!r}")
        expected = None
    try:
        return Network.described(description, expected)
    except NetworkError as error:
        raise TicketError(
            f"{error}; for a network of your own, say Ticket.load(path, network=factory)"
        ) from error


def _in_network_order(ticket: Ticket) -> Ticket:
    """The ticket with its tensors in the order of the network, in which ties are broken and masks drawn.

    A file keeps no order. Raises :class:`~tombola.errors.TicketError` if the tensors are not those of the
    network that the ticket names.
    """
    network = ticket.network
    tensors = layout(network)
    expected, prunable = tensors.shapes, tensors.prunable
    states = [ticket.start] if ticket.trained is None else [ticket.start, ticket.trained]
    for state in states:
        for name in sorted(expected.keys() | state.keys()):
            seen = tuple(state[name].shape) if name in state else None
            if seen != expected.get(name):
                raise TicketError(
                    f"these tensors are not of network {network.name!r}: "
                    f"{name} is {seen}, not {expected.get(name)}"
                )
    if odd := sorted(ticket.mask.keys() - set(prunable)):
        raise TicketError(f"the mask has {odd[0]!r}, which is no prunable weight of {network.name!r}")
    mask = {name: ticket.mask[name] for name in prunable if name in ticket.mask}
    start, *trained = ({name: state[name] for name in expected} for state in states)
    return replace(ticket, start=start, mask=mask, trained=trained[0] if trained else None)


def unknown_state(network: Network) -> dict[str, Tensor]:
    """A state of the network without values, as meta tensors."""
    return {
        name: torch.empty_like(value, device="meta")
        for name, value in empty_module(network).state_dict().items()
    }
