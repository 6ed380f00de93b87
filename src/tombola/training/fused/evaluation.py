"""Evaluation of a whole split by replaying captured batches."""

from __future__ import annotations

import torch

from tombola.data.batches import Batches
from tombola.training.capture import capture
from tombola.training.fused.crop import crop
from tombola.training.fused.head import cross_entropy
from tombola.training.fused.network import FusedNetwork
from tombola.training.plan import DevicePlan


class GraphedEvaluation:
    """Loss and accuracy of a network on one split, for whatever weights it has when called."""

    def __init__(self, network: FusedNetwork, batches: Batches, batch_size: int) -> None:
        device = batches.padded.device
        self._network = network
        self._batches = batches
        size = min(batch_size, len(batches))
        self._plan = DevicePlan.plain(len(batches), size, batches.pad, device)
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        self._whole = capture(lambda: self._take(size), pool, before=self._begin)
        last = len(batches) % size
        self._last = capture(lambda: self._take(last), pool, before=self._begin) if last else self._whole

    def __call__(self) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent."""
        self._begin()
        for _ in range(len(self._plan.rates) - 1):
            self._whole.replay()
        self._last.replay()
        loss, right = self._sums.tolist()
        return loss / len(self._batches), 100 * right / len(self._batches)

    def _begin(self) -> None:
        self._plan.step.zero_()
        self._sums.zero_()

    @torch.no_grad()
    def _take(self, size: int) -> None:
        """Add up one batch, the one that the step counter points to."""
        images, targets = crop(self._batches, self._plan, size, self._network.dtype)
        losses, right, _ = cross_entropy(self._network(images, training=False), targets)
        self._sums += torch.stack([losses.double().sum(), right.sum()])
        self._plan.step.add_(1)
