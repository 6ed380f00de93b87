"""Masks that are learned while the weights stay as they were drawn: edge-popup and supermasks.

Both train scores on a dense start (:mod:`tombola.pruning.masked_network`) by the usual training loop, with
any recipe. What comes back is a ticket like any other: the start's weights under the learned mask. It can be
measured as it is (:func:`tombola.untrained`), trained, pruned further and controlled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tombola import seeds
from tombola.cost import HEADER_BYTES, RESULT_BYTES, Cost, Outline, Size
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError
from tombola.pruning.allocation import nearest_count
from tombola.pruning.at_initialization import check_dense, warn_of_collapse
from tombola.pruning.masked_network import (
    Bernoulli,
    HighestScores,
    MaskRule,
    mask_of_highest,
    masked_start,
    scores_of,
)
from tombola.registry import declare
from tombola.seeds import Streams
from tombola.ticket import State, Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import Mode
from tombola.training.estimate import train_cost
from tombola.training.length import place_of, steps_of_epoch
from tombola.training.loop import train_until
from tombola.training.recipe import Recipe
from tombola.warn import warn


def _learning_cost(start: Outline, data: Size, recipe: Recipe) -> Cost:
    """A training by the whole recipe; disk for the mask as bits."""
    learning = train_cost(replace(start, epoch=0), data, recipe)
    return replace(learning, disk=RESULT_BYTES + HEADER_BYTES + start.weights / 8)


def _edge_popup_cost(start: Outline, data: Size, recipe: Recipe, sparsity: float) -> Cost:
    pruned = replace(start, density=start.density * (1 - sparsity))
    return replace(_learning_cost(start, data, recipe), result=pruned)


@declare("edge-popup", cost=_edge_popup_cost)
def edge_popup(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    sparsity: float = 0.5,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Ticket:
    """The ticket of a dense start whose mask edge-popup learns, its weights untrained.

    Each weight has a score. The weights of the largest absolute scores of each layer are on, the same
    share of each; the loss is that of the network under this mask. Scores are trained by the recipe, with the
    gradient of the mask passed straight to the absolute score: w * dL/d(m w) * sign(score). All else stays as
    it is: weights, biases, batch norm's parameters. Source: Ramanujan et al. (2020), "What's hidden in a
    randomly weighted neural network?".

    start: any ticket with a full mask. The paper's draws: ``init="signed-constant"`` (its best) or
        ``init="kaiming-normal-fan-in"`` of :func:`tombola.initialize`; scaled by the surviving fan in,
        ``rescale(start, density=1 - sparsity, exponent=0.5)`` (the public code scales by the other share).
    recipe: of the scores, from epoch 0 to its end; its weight decay acts on them. For CIFAR-10 the paper has
        SGD at rate 0.1, momentum 0.9, weight decay 1e-4, batches of 128 and 100 epochs of a cosine.
    sparsity: share of each layer that is off, between 0 and 1, both excluded; the number of weights that are
        on is the nearest, half up. The paper's best are 0.3 to 0.7.
    noise: number of the noise, as for :func:`tombola.train`, and of the first scores, which are uniform
        between -1/sqrt(fan in) and 1/sqrt(fan in).
    device, mode, watch: as for :func:`tombola.train`; a checkpoint resumes to the same bits.

    The ticket stands at the round after its start's. Batch norm has the start's running statistics, under
    which a masked network may be at chance: see ``recalibrate`` of :func:`tombola.untrained`. Warns of a
    learning that diverged.

    Raises :class:`~tombola.errors.TicketError` for a start that is sparse already,
    :class:`~tombola.errors.RecipeError` for a sparsity out of range or that leaves nothing of a layer, and
    what ``train`` raises.
    """
    data = load_data(data)
    scores = scores_of(learned_edge_popup(start, data, recipe, sparsity, noise, device, mode, watch), start)
    ticket = _ticket_under(start, popped_up(scores, sparsity), scores)
    return replace(ticket, density=start.density * (1 - sparsity))


@declare("supermask", cost=_learning_cost)
def supermask(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    dynamic_scaling: bool = False,
    draw: int | None = None,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Ticket:
    """The ticket of a dense start under a mask from learned probabilities, its weights untrained.

    Each weight has a score s, 0 at first, and is on with probability sigmoid(s); masks are drawn anew in each
    step. Scores are trained by the recipe, with the gradient of the mask passed straight to the probability:
    w * dL/d(m w) * sigmoid'(s). Nothing asks for sparsity. All else stays as it is. Source: Zhou et al.
    (2019), "Deconstructing lottery tickets: zeros, signs, and the supermask".

    start: any ticket with a full mask. The paper's best has one magnitude a layer:
        ``signed_constant(start)``.
    recipe: of the scores, from epoch 0 to its end; the paper's rates are large (SGD at 100, momentum 0.9).
    dynamic_scaling: multiply each layer by its number of weights over the number of those that are on, as the
        paper's best does. The ticket's weights are not: ``rescale(ticket)`` gives those.
    draw: which of the masks drawn from the probabilities, counted from 0; None for the likeliest, which has
        the weights of probability 1/2 at least. The paper's accuracies are means over ten drawn ones:
        :func:`tombola.supermask_accuracy`.
    noise: number of the noise, as for :func:`tombola.train`, of the masks of each step too.
    device, mode, watch: as for :func:`tombola.train`; a checkpoint resumes to the same bits.

    The ticket stands at the round after its start's; for batch norm see :func:`edge_popup`. Warns of layer
    collapse, a layer none of whose weights is left, and of a learning that diverged.

    Raises :class:`~tombola.errors.TicketError` for a start that is sparse already, and what ``train`` raises.
    """
    data = load_data(data)
    if draw is not None and (isinstance(draw, bool) or not isinstance(draw, int) or draw < 0):
        raise RecipeError(f"draw is {draw!r}; it must be a whole number from 0 on, or None for the likeliest")
    state = learned_supermask(start, data, recipe, dynamic_scaling, noise, device, mode, watch)
    scores = scores_of(state, start)
    mask = mask_from(scores, noise, draw)
    ticket = _ticket_under(start, mask, scores)
    warn_of_collapse(ticket)
    return ticket


def learned_edge_popup(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    sparsity: float,
    noise: int,
    device: str | torch.device | None,
    mode: Mode,
    watch: Watch | None,
) -> State:
    """The state of the masked network whose scores :func:`edge_popup` has learned."""
    _check_maskable(start)
    _check_sparsity(sparsity, start)
    streams = Streams.of(noise, start.round)
    with seeds.torch_stream("edge-popup scores", streams.noise, streams.round):
        first = {
            name: nn.init.kaiming_uniform_(torch.empty(full.shape), a=math.sqrt(5))
            for name, full in start.mask.items()
        }
    return learned_state(start, data, recipe, HighestScores(sparsity), first, noise, device, mode, watch)


def popped_up(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """The mask of the largest absolute scores of each layer; what is not finite ranks lowest."""
    # NaN would sort above all else.
    sizes = {name: torch.where(values.isfinite(), values.abs(), -1.0) for name, values in scores.items()}
    return {
        name: mask_of_highest(size, nearest_count(size.numel(), 1 - sparsity)).bool()
        for name, size in sizes.items()
    }


def learned_supermask(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    dynamic_scaling: bool,
    noise: int,
    device: str | torch.device | None,
    mode: Mode,
    watch: Watch | None,
) -> State:
    """The state of the masked network whose scores :func:`supermask` has learned."""
    _check_maskable(start)
    first = {name: torch.zeros(keep.shape) for name, keep in start.mask.items()}
    return learned_state(start, data, recipe, Bernoulli(dynamic_scaling), first, noise, device, mode, watch)


def mask_from(scores: Mapping[str, Tensor], noise: int, draw: int | None) -> dict[str, Tensor]:
    """A mask drawn from learned probabilities, sigmoid of the scores, or for None the likeliest one."""
    if draw is None:
        return {name: values >= 0 for name, values in scores.items()}
    draws = seeds.generator("supermask", noise, draw)
    return {
        name: torch.from_numpy(draws.random(tuple(values.shape))) < values.double().sigmoid()
        for name, values in scores.items()
    }


def learned_state(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    rule: MaskRule,
    first: Mapping[str, Tensor],
    noise: int,
    device: str | torch.device | None,
    mode: Mode,
    watch: Watch | None,
) -> State:
    """The state of the masked network of a start after the whole recipe, from the first scores."""
    masked = masked_start(start, rule, first)
    streams = Streams.of(noise, start.round)
    end = place_of(recipe.epochs, steps_of_epoch(len(data.train), recipe.batch_size))
    with train_until(masked, data, recipe, end, streams, device, mode, watch) as training:
        return training.engine.flat_network.state()


def _ticket_under(start: Ticket, mask: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> Ticket:
    """The start under a learned mask, which counts as a pruning also where it keeps everything."""
    nonfinite = sum(int((~values.isfinite()).sum()) for values in scores.values())
    if nonfinite:
        warn(
            f"the learning of the mask diverged: {nonfinite:,} of {start.total:,} scores are not finite, and "
            "rank lowest; take a lower rate"
        )
    return replace(start.with_mask(mask), round=start.round + 1, nonfinite=nonfinite)


def _check_maskable(start: Ticket) -> None:
    """Raises TicketError for a start that is sparse already, or has nothing to mask."""
    if not start.total:
        raise TicketError(f"nothing to mask: {start.network.name} has no prunable weight")
    check_dense(start)


def _check_sparsity(sparsity: float, start: Ticket) -> None:
    """Raises RecipeError for a share out of range, or one that leaves nothing of a layer."""
    if not 0 < sparsity < 1:
        raise RecipeError(f"sparsity is {sparsity}; it must lie between 0 and 1, both excluded")
    sizes = {name: full.numel() for name, full in start.mask.items()}
    name = min(sizes, key=sizes.__getitem__)
    if nearest_count(sizes[name], 1 - sparsity) == 0:
        raise RecipeError(
            f"sparsity is {sparsity}, which leaves nothing of the {sizes[name]} weights of {name}, so that "
            f"nothing passes through it; give at most {1 - 0.5 / sizes[name]:.8g}"
        )
