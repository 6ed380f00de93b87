"""From one round of pruning to the next in the space of weights (Paul et al., 2023).

The weights that a mask keeps span its axial subspace, A(m) = {w : w = m w}. Pruning projects what a round has
trained on the subspace of the next, which the next training then stays in. :func:`axial_projection` measures
the projection and the lines from it to either round; :func:`pruning_robustness` whether a training finds back
to its basin from a start that was moved as far as pruning moves it. Both take any two rounds of a chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError, unknown
from tombola.measures.connectivity import Barrier, Recalibrate, Split, barrier, check_line, lines_cost
from tombola.networks.prunable import layout
from tombola.pruning.perturb import flat, perturb, pruned_distance
from tombola.registry import declare
from tombola.ticket import Mask, Ticket, apply_mask
from tombola.training.checkpoint import Watch
from tombola.training.estimate import train_cost
from tombola.training.loop import train
from tombola.training.recipe import Recipe
from tombola.training.run import Run

Direction = Literal["random", "pruned"]


@dataclass(frozen=True)
class AxialProjection:
    """The final weights of a run, projected on the mask of a later round.

    removed: Euclidean distance from the run's weights to their projection, over the prunable weights.
    to_second: from the projection to the weights of the later run.
    cosine: of the angle between these two, as vectors from the origin; None where one of them is 0.
    from_first: the line from the run to its projection, which carries the line with batch-norm statistics
        measured anew.
    into_second: the line from the projection to the later run, likewise.
    """

    removed: float
    to_second: float
    cosine: float | None
    from_first: Barrier
    into_second: Barrier

    @property
    def error(self) -> float:
        """Error of the projection, in percent, with the batch-norm statistics of the run."""
        return self.into_second.errors[0]

    @property
    def recalibrated_error(self) -> float:
        """The same with batch-norm statistics measured anew on the train images."""
        assert self.into_second.recalibrated is not None
        return self.into_second.recalibrated.errors[0]

    @property
    def height(self) -> float:
        """The barrier from the projection to the later run, batch norm measured anew, in points."""
        assert self.into_second.recalibrated is not None
        return self.into_second.recalibrated.height

    @property
    def excess(self) -> float:
        """The same over the line between the two end errors; from a plateau it is 0, too."""
        assert self.into_second.recalibrated is not None
        return self.into_second.recalibrated.excess


def _axial_cost(first: Outline, data: Size, points: int) -> Cost:
    """Evaluations on two lines, in both readings of batch norm."""
    return lines_cost(first, data, points, "beside", lines=2)


@declare("axial-projection", cost=_axial_cost)
def axial_projection(
    first: Run,
    second: Run,
    data: DataLike,
    *,
    points: int = 11,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> AxialProjection:
    """What is left of a run in the subspace of a later round's mask: distances, errors and barriers there.

    first, second: runs of one chain, the second pruned further. The first's prunable weights outside the
        second's mask are set to 0; biases and batch norm stay.
    points, split: as for :func:`~tombola.barrier`. Lines are measured with batch-norm statistics interpolated
        and, beside, measured anew: those of a projection are of other activations.

    Raises what ``barrier`` raises.
    """
    data = load_data(data)
    check_line(points, "beside", split)
    projection = projected(first, second.ticket.mask)
    from_first, into_second = (
        barrier(
            start, end, data, points=points, recalibrate="beside", split=split, device=device, watch=watch
        )
        for start, end in ((first, projection), (projection, second))
    )
    mask = second.ticket.mask
    trained, part, later = (flat(run.weights, mask) for run in (first, projection, second))
    norms = float(part.norm()) * float(later.norm())
    return AxialProjection(
        float((trained - part).norm()), float((part - later).norm()),
        float(part @ later) / norms if norms else None, from_first, into_second,
    )  # fmt: skip


def projected(run: Run, mask: Mask) -> Run:
    """The run with its final weights projected on a mask of the same network."""
    weights = apply_mask(run.weights, mask)
    for name, first in layout(run.ticket.network).tied.items():
        weights[name] = weights[first]
    return replace(run, weights=weights, ticket=run.ticket.with_mask(mask, same_round=True))


@dataclass(frozen=True)
class PruningRobustness:
    """The training of a moved start beside that of the start itself.

    distance: Euclidean, by which the start was moved; norm: of its surviving weights before.
    accuracy: of the training from the moved start, in percent; failed: whether it diverged or stayed near
        chance.
    line: from the run to that training.
    """

    distance: float
    norm: float
    accuracy: float
    failed: bool
    line: Barrier

    @property
    def height(self) -> float:
        """The barrier between the two, in percentage points."""
        return self.line.height


def _robustness_cost(
    first: Outline, data: Size, recipe: Recipe, points: int, recalibrate: Recalibrate
) -> Cost:
    """A training, and evaluations on a line."""
    trained, line = train_cost(first, data, recipe), lines_cost(first, data, points, recalibrate)
    return replace(trained, images=trained.images + line.images, disk=line.disk)


@declare("pruning-robustness", cost=_robustness_cost)
def pruning_robustness(
    first: Run,
    second: Run,
    data: DataLike,
    recipe: Recipe,
    *,
    direction: Direction = "random",
    factor: float = 1.0,
    seed: int = 0,
    points: int = 11,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> PruningRobustness:
    """Whether a training finds back to its basin from a start moved as far as the next pruning moves it.

    first, second: runs of one chain, the second pruned further. The distance is that from the first's rewound
        start to its projection on the second's mask (Paul et al., 2023).
    recipe: of the chain; in an experiment it is given. The training from the moved start has the noise of the
        first run, so that all that differs is where it starts.
    direction: ``"random"`` within the first's mask, or ``"pruned"``: the weights that the second lacks are 0
        at the start, and free to grow again.
    factor: the random direction is so many times as long, 0 or more.
    seed: of the direction, as for :func:`tombola.perturb`.
    points, recalibrate, split: as for :func:`~tombola.barrier`.

    Raises :class:`~tombola.errors.TicketError` for a second run of another start or with weights that the
    first lacks, :class:`~tombola.errors.RecipeError` for settings out of range, and what ``train`` and
    ``barrier`` raise.
    """
    data = load_data(data)
    check_line(points, recalibrate, split)
    _check_direction(direction, factor)
    ticket, mask = first.ticket, second.ticket.mask
    _check_rounds(ticket, second.ticket)
    distance = pruned_distance(ticket, mask)
    if direction == "pruned":
        moved = _without(ticket, mask)
    else:
        distance *= factor
        moved = perturb(ticket, distance=distance, seed=seed)
    run = train(
        moved, data, recipe, noise=first.noise, order_noise=first.order_noise,
        augmentation_noise=first.augmentation_noise, device=device, watch=watch,
    )  # fmt: skip
    line = barrier(
        first, run, data, points=points, recalibrate=recalibrate, split=split, device=device, watch=watch
    )
    norm = float(flat(ticket.weights(), ticket.mask).norm())
    return PruningRobustness(distance, norm, run.accuracy, run.failed, line)


def _without(ticket: Ticket, mask: Mask) -> Ticket:
    """The ticket with the weights outside another mask at 0, and not pruned."""
    dense = ticket.dense_start()
    if ticket.trained is not None:
        return replace(ticket, trained=apply_mask(ticket.trained, mask))
    return replace(ticket, start=apply_mask(dense, mask), start_fingerprint="")


def _check_direction(direction: str, factor: float) -> None:
    """Raises RecipeError for a direction or length that there is not."""
    if direction not in get_args(Direction):
        raise RecipeError(unknown("direction", str(direction), get_args(Direction)))
    if not 0 <= factor < float("inf"):
        raise RecipeError(f"factor is {factor}; it must be finite and at least 0")
    if direction == "pruned" and factor != 1:
        raise RecipeError(f"factor is {factor}, but the pruned direction has one length; leave it out")


def _check_rounds(first: Ticket, second: Ticket) -> None:
    """Raises TicketError for tickets of two starts, or a second one that was not pruned further."""
    if first.start_fingerprint != second.start_fingerprint:
        raise TicketError("the runs are of two starts; give two rounds of one chain")
    if any(bool((keep & ~first.mask[name]).any()) for name, keep in second.mask.items()):
        raise TicketError(
            "the second run keeps weights that the first lacks; give the earlier round first, and the later "
            "one second"
        )
