"""The fused step: a training step on a GPU in as few passes over memory as its parts allow."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.data.batches import Batches
from tombola.training.body import Body
from tombola.training.fused.crop import crop
from tombola.training.fused.head import cross_entropy
from tombola.training.fused.network import FusedNetwork
from tombola.training.fused.sgd import sgd
from tombola.training.plan import DevicePlan
from tombola.training.recipe import Recipe


class FusedStep:
    """Takes steps with a body on a GPU; see :class:`~tombola.training.step.Step`."""

    name = "fused"

    def __init__(self, body: Body, network: FusedNetwork, batches: Batches) -> None:
        self._body = body
        self._network = network
        self._batches = batches
        split = len(body.kept)
        weights = body.weights[:split] if body.copy is None else body.copy
        self._gradients = torch.zeros_like(weights), torch.zeros_like(body.weights[split:])
        self._all_kept = torch.full_like(self._gradients[1], -1, dtype=torch.int8)
        self._numbers = torch.zeros(2, device=body.weights.device)
        self._count_together()

    def _count_together(self) -> None:
        """Lay the batch counters of all fused batch norms side by side, to be raised at once."""
        norms = self._network.norms()
        counted = list(dict.fromkeys(norms))
        self._counts: Tensor | None = None
        if counted:
            self._counts = torch.stack([norm.num_batches_tracked for norm in counted])  # type: ignore[misc]
            for norm, count in zip(counted, self._counts, strict=True):
                norm.num_batches_tracked = count
            calls = [norms.count(norm) for norm in counted]
            self._calls = torch.tensor(calls, device=self._counts.device)

    def set_numbers(self, recipe: Recipe) -> bool:
        self._numbers.copy_(torch.tensor([recipe.momentum, recipe.weight_decay]))
        return True

    def inputs(self, plan: DevicePlan, size: int) -> tuple[Tensor, Tensor]:
        return crop(self._batches, plan, size, self._network.dtype)

    def learn(self, inputs: Tensor, targets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._network(inputs, training=True)
        losses, right, gradient = cross_entropy(outputs, targets)
        leaves = self._network.leaves
        found = torch.autograd.grad(outputs, leaves, gradient, allow_unused=True)
        with torch.no_grad():
            flat = [
                _flat(torch.zeros_like(leaf) if gradient is None else gradient)
                for leaf, gradient in zip(leaves, found, strict=True)
            ]
            self._move(flat[: len(self._body.prunable)], flat[len(self._body.prunable) :], rate)
            if self._counts is not None:
                self._counts += self._calls
            return losses.mean(), right

    def _move(self, prunable: list[Tensor], others: list[Tensor], rate: Tensor) -> None:
        """SGD by flat gradients, the prunable weights under their mask and the others under none."""
        body, split = self._body, len(self._body.kept)
        stretches = (slice(split), body.kept, body.copy), (slice(split, None), self._all_kept, None)
        for parts, gradient, (stretch, kept, copy) in zip(
            (prunable, others), self._gradients, stretches, strict=True
        ):
            if parts:
                torch.cat(parts, out=gradient[: sum(map(len, parts))])
                sgd(body.weights[stretch], gradient, body.momentum[stretch], kept, copy, rate, self._numbers)


def _flat(gradient: Tensor) -> Tensor:
    """A gradient in one dimension, in the order in which a body lays out that parameter."""
    return (gradient.permute(0, 2, 3, 1) if gradient.dim() == 4 else gradient).reshape(-1)
