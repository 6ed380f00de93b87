"""Alignment of two runs: the hidden units of one in the order of the other's, before they are compared.

Networks that differ in the order of their hidden units alone compute the same, and yet the straight line
between them may lead over a barrier (Entezari et al., 2022; Ainsworth et al., 2023). :func:`align` finds
which unit of the second run is which of the first, by weights or by activations; a run or ticket is brought
into that order with all that belongs to it: weights, batch-norm statistics, start and mask. Which units may
change places at all follows from the network (:mod:`tombola.networks.symmetry`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tombola import files
from tombola.cost import Cost, Outline, Size, forward
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import NetworkError, RecipeError, unknown
from tombola.measures.activation_matching import match_activations
from tombola.measures.matching import match_weights
from tombola.networks.network import Network
from tombola.networks.symmetry import Permutations, Symmetry, check_same_outputs, symmetry
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.ticket import State, Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import device_batches
from tombola.training.preflight import check_images
from tombola.training.run import Run

By = Literal["weights", "activations"]

MOST_STARTS = 1000
_IMAGES_AT_ONCE = 100


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(OneLine):
    """Which hidden unit of the second of two runs is which of the first.

    network: of both runs, as written in jobs.
    by: what was compared, ``"weights"`` or ``"activations"``.
    similarity: cosine of the angle between all parameters of the first run and of the second in its order, -1
        to 1; NaN where a weight is not finite.
    before: the same with the second run as it was.
    permutations: int64 ``(units,)`` for each group of units that may change places, by the place where the
        group first occurs: the unit of the second run that comes to stand where the first has each of its
        units.
    products: the inner product of these parameters at the end of each start of weight matching; the largest
        is the one that was taken. Empty by activations.
    """

    network: str
    by: By
    similarity: float
    before: float
    permutations: Mapping[str, Tensor]
    products: tuple[float, ...] = ()

    @property
    def moved(self) -> float:
        """Share of the units of the second run that stand at another place of their group, 0 to 1."""
        moved = sum(int((order != torch.arange(len(order))).sum()) for order in self.permutations.values())
        return moved / self.units if self.units else 0.0

    @property
    def units(self) -> int:
        """How many units, and groups of grouped convolutions, may change places."""
        return sum(map(len, self.permutations.values()))

    def _in_one_line(self) -> str:
        return (
            f"<alignment of {self.network} by {self.by}: {100 * self.moved:.1f}% of {self.units:,} units "
            f"moved, similarity {self.before:.3f} before and {self.similarity:.3f} after>"
        )

    def _facts(self) -> dict[str, object]:
        return {
            "network": self.network,
            "by": self.by,
            "units": f"{self.units:,} in {len(self.permutations)} groups",
            "units moved": f"{100 * self.moved:.1f}%",
            "similarity before": f"{self.before:.4f}",
            "similarity after": f"{self.similarity:.4f}",
        }


def _align_cost(first: Outline, data: Size, by: By, images: int) -> Cost:
    """By activations, two passes of the images; by weights no work of a device."""
    if by == "weights":
        return Cost()
    return forward(first, 2 * min(images, data.train * data.share))


@declare("align", cost=_align_cost)
def align(
    first: Run,
    second: Run,
    data: DataLike,
    *,
    by: By = "weights",
    starts: int = 5,
    seed: int = 0,
    images: int = 10_000,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Alignment:
    """The order of the second run's hidden units in which it is most like the first run.

    first, second: runs of one network.
    data: whose train images activations are of; weights are matched without them.
    by: ``"weights"`` maximises the inner product of all parameters by coordinate descent over linear
        assignments (Ainsworth et al., 2023, Algorithm 1), on the CPU. ``"activations"`` maximises the sum of
        correlations of units, each group by itself.
    starts: how often weight matching begins, first as the run is and then at random orders; the best end is
        taken. From the first start alone it misses some planted permutations, such as 3 of 15 of a residual
        stream with nine blocks.
    seed: number of the random stream of weight matching.
    images: how many train images activations are taken of, the first ones, without augmentation.

    A run with weights that are not finite is aligned with nothing: all units stay.

    Raises :class:`~tombola.errors.NetworkError` for runs of different networks, or a network whose units
    cannot be followed, with the module and the operation; :class:`~tombola.errors.RecipeError` for settings
    out of range.
    """
    data = load_data(data)
    check_one_network(first, second, "an alignment")
    check_alignment(by)
    if not 1 <= starts <= MOST_STARTS:
        raise RecipeError(f"starts is {starts}; it must be from 1 to {MOST_STARTS:,}")
    if images < 2:
        raise RecipeError(f"images is {images}; correlations need at least 2")
    beat = (watch or Watch()).beat
    network = first.ticket.network
    symmetries = symmetry(network)
    parameters = [name for name, _ in network.initialized(0).named_parameters()]
    products: tuple[float, ...] = ()
    if not all(_finite(run.weights) for run in (first, second)):
        permutations: Permutations = symmetries.identity()
    elif by == "weights":
        match = match_weights(
            symmetries, parameters, first.weights, second.weights, starts=starts, seed=seed, beat=beat
        )
        permutations, products = match.permutations, match.products
    else:
        check_images(network, data)
        where = resolve_device(device)
        with repeatable(where):
            modules = [run.module().to(where) for run in (first, second)]
            batches = device_batches(data, data.train, where)
            count = min(images, len(batches))
            shown = (
                batches.unaugmented(begin, min(begin + _IMAGES_AT_ONCE, count))
                for begin in range(0, count, _IMAGES_AT_ONCE)
            )
            permutations = match_activations(symmetries, modules, shown, beat)
    moved = symmetries.permuted(second.weights, permutations)
    if _finite(second.weights):
        check_same_outputs(network, second.weights, moved)
    return Alignment(
        network.written,
        by,
        _cosine(first.weights, moved, parameters),
        _cosine(first.weights, second.weights, parameters),
        {
            group.name: torch.from_numpy(order)
            for group, order in zip(symmetries.groups, permutations, strict=True)
        },
        products,
    )


@declare("aligned-run", stored=False)
def aligned_run(run: Run, alignment: Alignment) -> Run:
    """The run with its hidden units in the order of an alignment; its outputs are those that it gave.

    Weights, batch-norm statistics, and start, mask and trained weights of its ticket go along; history and
    forgetting record are the run's. Any run of the network may be given, such as a later one of the same
    chain: one order for a whole chain is what Sharma et al. (2024) ask for.

    Raises :class:`~tombola.errors.NetworkError` for a run of another network.
    """
    symmetries, permutations = _permutations(run.ticket.network, alignment)
    return replace(
        run,
        ticket=_in_order(run.ticket, symmetries, permutations),
        weights=symmetries.permuted(run.weights, permutations),
    )


@declare("aligned-ticket", stored=False)
def aligned_ticket(ticket: Ticket, alignment: Alignment) -> Ticket:
    """The ticket with its hidden units in the order of an alignment: start, mask and trained weights.

    Its mask fits the first run's units: ``other.with_mask(aligned_ticket(ticket, alignment).mask)`` is the
    mask of one run over the start of another (Adnan et al., 2025).

    Raises :class:`~tombola.errors.NetworkError` for a ticket of another network.
    """
    return _in_order(ticket, *_permutations(ticket.network, alignment))


def _permutations(network: Network, alignment: Alignment) -> tuple[Symmetry, list[np.ndarray]]:
    """The groups of a network with the order of each; NetworkError for an alignment of another network."""
    symmetries = symmetry(network)
    sizes = {group.name: group.size for group in symmetries.groups}
    if network.written != alignment.network or sizes != {
        name: len(order) for name, order in alignment.permutations.items()
    }:
        raise NetworkError(
            f"the alignment is of runs of {alignment.network}, and this is of {network.written}; "
            "align runs of this network"
        )
    permutations = [alignment.permutations[group.name].numpy() for group in symmetries.groups]
    for order in permutations:
        if sorted(order.tolist()) != list(range(len(order))):
            raise NetworkError("the alignment is damaged: it has units twice; align the runs again")
    return symmetries, permutations


def _in_order(ticket: Ticket, symmetries: Symmetry, permutations: list[np.ndarray]) -> Ticket:
    start = symmetries.permuted(ticket.start, permutations)
    fingerprint = ticket.start_fingerprint
    if ticket.has_start and ticket.complete:
        fingerprint = files.fingerprint(start)
    elif ticket.has_start:  # of which not all values are known
        orders = [order.tolist() for order in permutations]
        fingerprint = hashlib.sha256(json.dumps([fingerprint, orders]).encode()).hexdigest()
    return replace(
        ticket,
        start=start,
        mask=symmetries.permuted(ticket.mask, permutations),
        start_fingerprint=fingerprint,
        trained=None if ticket.trained is None else symmetries.permuted(ticket.trained, permutations),
    )


def check_alignment(by: str) -> None:
    """Raises RecipeError for an unknown way to align."""
    if by not in get_args(By):
        raise RecipeError(unknown("way to align", str(by), get_args(By)))


def check_one_network(first: Run, second: Run, what: str) -> None:
    """Raises NetworkError for runs of different networks, of which there is no ``what``."""
    networks = first.ticket.network, second.ticket.network
    if networks[0] != networks[1]:
        first_one, second_one = (
            f"{network.written} for {network.inputs} of {network.classes} classes" for network in networks
        )
        raise NetworkError(f"{what} needs two runs of one network; got {first_one} and {second_one}")
    shapes = [{name: value.shape for name, value in run.weights.items()} for run in (first, second)]
    if shapes[0] != shapes[1]:  # two factories may share a label, such as <lambda>
        raise NetworkError(
            f"{what} needs two runs of one network; these differ, yet both are {networks[0].name}"
        )


def _finite(state: State) -> bool:
    return all(bool(value.isfinite().all()) for value in state.values())


def _cosine(first: State, second: State, names: list[str]) -> float:
    """Cosine of the angle between the tensors of these names, taken together."""
    product = sum(float((first[name].double() * second[name].double()).sum()) for name in names)
    squares = [sum(float(state[name].double().square().sum()) for name in names) for state in (first, second)]
    size = math.sqrt(squares[0] * squares[1])
    return product / size if size else math.nan
