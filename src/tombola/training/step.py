"""One training step, the same for every engine: forward, backward and SGD on a body's flat tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tombola.training.body import Body
from tombola.training.recipe import Recipe


def take_step(
    body: Body, recipe: Recipe, precision: str, inputs: Tensor, targets: Tensor, rate: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch; the mask is left to the caller.

    inputs: float32 ``(B, C, H, W)``; targets: int64 ``(B,)``.
    rate: the learning rate; a captured step gives a tensor, because a number would be captured for good.

    Returns the mean cross-entropy, float32, and whether each prediction was right, bool ``(B,)``.
    """
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = body.module(inputs)
        loss = functional.cross_entropy(outputs, targets)
    body.gradient.zero_()
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # The kernel behind torch.optim.SGD(fused=True), called on the one flat tensor.
        torch._fused_sgd_(
            [body.weights], [body.gradient], [body.momentum] if recipe.momentum else [],
            weight_decay=recipe.weight_decay, momentum=recipe.momentum, lr=rate,
            dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip
        return loss.detach(), outputs.argmax(1) == targets
