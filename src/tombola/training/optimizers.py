"""The optimizers: one pass over the flat tensors of a network each, by the kernels behind torch.optim.

What they keep between steps stands in the :class:`~tombola.training.flat_network.FlatNetwork`, so that mask,
checkpoints and rewinding need not know which optimizer it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.training.flat_network import FlatNetwork
from tombola.training.recipe import Recipe


def move(flat_network: FlatNetwork, recipe: Recipe, rate: float | Tensor) -> None:
    """Move the weights by their gradient, without the mask, which the caller applies.

    rate: the learning rate; a tensor if the step is captured.

    To be called without gradients being recorded.
    """
    weights, gradient = [flat_network.weights], [flat_network.gradient]
    if recipe.optimizer == "adamw":
        states = flat_network.states
        flat_network.steps_taken.add_(1)
        torch._fused_adamw_(
            weights, gradient, [states["first_moment"]], [states["second_moment"]], [],
            [flat_network.steps_taken], lr=rate, beta1=recipe.betas[0], beta2=recipe.betas[1],
            weight_decay=recipe.weight_decay, eps=recipe.eps, amsgrad=False, maximize=False,
        )  # fmt: skip
        return
    torch._fused_sgd_(
        weights, gradient, [flat_network.momentum] if recipe.momentum else [],
        weight_decay=recipe.weight_decay, momentum=recipe.momentum, lr=rate,
        dampening=0.0, nesterov=recipe.optimizer == "nesterov", maximize=False, is_first_step=False,
    )  # fmt: skip
