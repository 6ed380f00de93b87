"""Accuracy of untrained networks under masks that were learned for them.

The masks are those of :mod:`tombola.pruning.learned_mask`, with their sources. Unlike their tickets, networks
here have the running statistics of batch norm that the learning of the mask has left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tombola.cost import Cost, Outline, Size, forward
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, Undefined
from tombola.measures.statistics import mean
from tombola.measures.untrained import Untrained
from tombola.pruning.learned_mask import learned_edge_popup, learned_supermask, mask_from, popped_up
from tombola.pruning.mask_actions import rescale
from tombola.pruning.masked_network import network_state_of, scores_of
from tombola.registry import declare
from tombola.ticket import Mask, State, Ticket, apply_mask
from tombola.training.checkpoint import Watch
from tombola.training.device import Mode, repeatable, resolve_device, resolve_precision
from tombola.training.estimate import train_cost
from tombola.training.evaluation import Evaluator
from tombola.training.flat_network import FlatNetwork
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class SupermaskAccuracy:
    """Test accuracy of an untrained network under masks drawn from learned probabilities.

    accuracy: mean over the drawn masks, in percent. accuracies: of each.
    likeliest: under the mask of all weights of probability 1/2 at least, in percent.
    density: mean share of the weights that a drawn mask keeps.
    """

    accuracy: float
    accuracies: tuple[float, ...]
    likeliest: float
    density: float


def _popup_cost(start: Outline, data: Size, recipe: Recipe) -> Cost:
    return _masked_cost(start, data, recipe, 1)


def _supermask_cost(start: Outline, data: Size, recipe: Recipe, draws: int) -> Cost:
    return _masked_cost(start, data, recipe, 1 + draws)


def _masked_cost(start: Outline, data: Size, recipe: Recipe, masks: int) -> Cost:
    """A training by the whole recipe, and an evaluation of each mask."""
    learning = train_cost(replace(start, epoch=0), data, recipe)
    evaluations = forward(start, masks * data.test)
    return replace(learning, images=learning.images + evaluations.images, disk=evaluations.disk)


@declare("edge-popup-accuracy", cost=_popup_cost)
def edge_popup_accuracy(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    sparsity: float = 0.5,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Untrained:
    """Test accuracy and loss of the untrained network under the mask that :func:`tombola.edge_popup` learns.

    The arguments and errors are as there; a learning that diverged is refused, too.
    """
    data = load_data(data)
    state = learned_edge_popup(start, data, recipe, sparsity, noise, device, mode, watch)
    mask = popped_up(_finite_scores(state, start), sparsity)
    return _accuracy_of(start, data, recipe, state, device, mode)(mask, False)


@declare("supermask-accuracy", cost=_supermask_cost)
def supermask_accuracy(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    dynamic_scaling: bool = False,
    draws: int = 10,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> SupermaskAccuracy:
    """Accuracy under masks drawn from the probabilities that :func:`tombola.supermask` learns.

    draws: how many masks; the paper has ten. They are those of ``supermask(..., draw=0)`` and so on.
    The other arguments and errors are as there; a learning that diverged is refused, too. With
    ``dynamic_scaling`` each mask's layers are scaled by their own number of weights.
    """
    data = load_data(data)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise RecipeError(f"draws is {draws!r}; it must be a whole number, at least 1")
    state = learned_supermask(start, data, recipe, dynamic_scaling, noise, device, mode, watch)
    scores = _finite_scores(state, start)
    accuracy_of = _accuracy_of(start, data, recipe, state, device, mode)
    masks = [mask_from(scores, noise, draw) for draw in range(draws)]
    accuracies = tuple(accuracy_of(mask, dynamic_scaling).accuracy for mask in masks)
    likeliest = accuracy_of(mask_from(scores, noise, None), dynamic_scaling).accuracy
    kept = sum(int(keep.sum()) for mask in masks for keep in mask.values())
    return SupermaskAccuracy(mean(accuracies), accuracies, likeliest, kept / (draws * start.total))


def _finite_scores(state: State, start: Ticket) -> dict[str, Tensor]:
    """The learned scores; Undefined where the learning of the mask diverged."""
    scores = scores_of(state, start)
    for name, values in scores.items():
        if not bool(values.isfinite().all()):
            raise Undefined(
                f"the learning of the mask diverged: scores of {name} are not all finite", "take a lower rate"
            )
    return scores


def _accuracy_of(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    state: State,
    device: str | torch.device | None,
    mode: Mode,
) -> Callable[[Mask, bool], Untrained]:
    """A function that evaluates the start under a mask, its layers rescaled if asked.

    state: of the masked network after its scores were learned.
    """
    where = resolve_device(device)
    precision = resolve_precision(recipe, where)
    with repeatable(where, mode):
        body = FlatNetwork(start.network, where)
        evaluate = Evaluator(body, precision)
    learned = network_state_of(state)

    def accuracy_of(mask: Mask, rescaled: bool) -> Untrained:
        ticket = start.with_mask(mask)
        weights = (rescale(ticket) if rescaled else ticket).weights()
        with repeatable(where, mode):
            body.load(apply_mask({**learned, **{name: weights[name] for name in mask}}, mask), mask)
            loss, accuracy = evaluate(data, data.test)
        return Untrained(accuracy, loss)

    return accuracy_of
