"""Pruning at initialisation: a dense start becomes a sparse ticket by scores alone, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tombola.cost import HEADER_BYTES, RESULT_BYTES, Cost, Outline
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError
from tombola.pruning.allocation import Scope, highest, nearest_count, remaining_of
from tombola.pruning.prune import Pruning, prune
from tombola.pruning.scores import Score, check_ranking, written_score
from tombola.pruning.sensitivity import scored_in_one_batch
from tombola.pruning.synaptic_flow import OpenWeights, SynapticFlow
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.warn import warn

SYNFLOW_ROUNDS = 100
"""As in the paper of Tanaka et al. (2020); one round, as in their code by default, loses whole layers."""


def _at_initialization_cost(start: Outline, sparsity: float) -> Cost:
    """No training; disk for the mask as bits, and the ticket that is left."""
    pruned = replace(start, density=start.density * (1 - sparsity))
    return Cost(disk=RESULT_BYTES + HEADER_BYTES + start.weights / 8, result=pruned)


@declare(
    "prune-at-initialization", version=2, unchanged={2: scored_in_one_batch}, cost=_at_initialization_cost
)
def prune_at_initialization(
    start: Ticket,
    data: DataLike,
    *,
    score: str | Score,
    sparsity: float,
    rounds: int | None = None,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    invert: bool = False,
) -> Ticket:
    """The ticket of a dense start at a sparsity, pruned by a score of its untrained weights.

    start: any ticket with a full mask; a rewound one is pruned at its place in the schedule.
    score: ``"snip"``, ``"grasp"`` or ``"synflow"``; ``"random"`` and ``"magnitude"`` as what they have to
        beat; or any other score that takes tickets.
    sparsity: share of the ranked weights to remove, between 0 and 1, both excluded.
    rounds: prunings, each by new scores of what is left; after round e of n the density is
        ``(1 - sparsity) ** (e / n)``. None: 100 for synflow, and 1 for all others.
    scope, exclude, invert: as for :class:`tombola.Pruning`; ``scope="erk"`` with ``"random"`` is the random
        ticket of sparse training.

    The ticket stands at the round after its start's, however many rounds it took, and is trained like any
    other. The controls of Frankle et al. (2021), "Pruning neural networks at initialization: why are we
    missing the mark?", are :func:`tombola.permute` (their shuffle), :func:`tombola.reinitialize` and
    ``invert=True``.

    Warns of layer collapse: a layer none of whose weights is left, so that nothing passes through it.

    Raises :class:`~tombola.errors.TicketError` for a start that is sparse already, and
    :class:`~tombola.errors.RecipeError` for a sparsity or number of rounds out of range.
    """
    data = load_data(data)
    if not 0 < sparsity < 1:
        raise RecipeError(f"sparsity is {sparsity}; it must lie between 0 and 1, both excluded")
    declared = written_score(score)
    if rounds is None:
        rounds = SYNFLOW_ROUNDS if declared == "synflow" else 1
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise RecipeError(f"rounds is {rounds!r}; it must be a whole number, at least 1")
    check_dense(start)
    densities = [(1 - sparsity) ** (number / rounds) for number in range(1, rounds + 1)]
    pruning = Pruning(sparsity, scope, exclude, score, invert=invert)
    _check_count(start, pruning, sparsity)
    if declared == "synflow" and scope == "global":
        ticket = _pruned_by_flow(start, pruning, densities)
    else:
        ticket = _pruned(start, pruning, densities, data)
    warn_of_collapse(ticket)
    return replace(ticket, round=start.round + 1, density=start.density * (1 - sparsity))


def check_dense(start: Ticket) -> None:
    """Raises TicketError for a start that is sparse already."""
    if start.kept < start.total:
        raise TicketError(
            f"the start has sparsity {start.sparsity:.4f} already; give a dense one, such as densify(ticket)"
        )


def warn_of_collapse(ticket: Ticket) -> None:
    """Warn of layers of a ticket that keep no weight."""
    if collapsed := ticket.collapsed_layers:
        shown = ", ".join(collapsed[:3]) + (", ..." if len(collapsed) > 3 else "")
        warn(f"layer collapse: {len(collapsed)} of {len(ticket.mask)} layers keep no weight ({shown})")


def _check_count(start: Ticket, pruning: Pruning, sparsity: float) -> None:
    """Raises RecipeError for a sparsity that removes none of the ranked weights, or all."""
    total = sum(start.mask[name].numel() for name in pruning.ranked(start))
    count = nearest_count(total, 1 - sparsity)
    if count in (0, total):
        left = "none" if count == 0 else "all"
        raise RecipeError(
            f"sparsity is {sparsity}, which keeps {left} of {total:,} weights; "
            f"give {0.5 / total:.1e} to {1 - 0.5 / total:.8g}"
        )


def _pruned(start: Ticket, pruning: Pruning, densities: Sequence[float], data: Data) -> Ticket:
    """The ticket after prunings to these densities, one after the other."""
    ticket = start
    for density in densities:
        options = pruning.options(1, data) | {"fraction": 1 - density / ticket.density}
        ticket = prune(ticket, **options)
    return ticket


def _pruned_by_flow(start: Ticket, pruning: Pruning, densities: Sequence[float]) -> Ticket:
    """What :func:`_pruned` gives by SynFlow over all layers, in a network that is built once."""
    names = list(pruning.ranked(start))
    weights = OpenWeights(SynapticFlow(start), names)
    total = count = len(weights)
    before = start.density
    for density in densities:
        scores = weights.scores()
        check_ranking("synflow", names, weights.by_layer(scores))
        fraction = 1 - density / before
        count = remaining_of(count, total, before, fraction)
        before *= 1 - fraction
        weights.close(highest(-scores if pruning.invert else scores, count, weights.order))
    return replace(
        start,
        mask=dict(start.mask) | weights.mask(),
        nonfinite=0,
        trained=None,
    )
