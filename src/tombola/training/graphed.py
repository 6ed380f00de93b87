"""The graphed engine: a whole training step as one CUDA graph.

Gather, crop, flip, normalise, forward, backward, SGD, mask and the tally are captured once and replayed for
every step; a second graph serves the last, smaller batch. Which batch it is, and at which learning rate, is
read on the device, so nothing waits for the GPU within an epoch. The operations are those of the eager
engine, in the same order: so are the bits.
"""

from __future__ import annotations

import threading

import torch

from tombola.data.imageset import Data, ImageSet
from tombola.networks.network import Network
from tombola.training.body import Body
from tombola.training.engine import EpochPlan, EpochTally
from tombola.training.evaluation import channels_last, device_batches, evaluate
from tombola.training.recipe import Recipe
from tombola.training.step import take_step

# Steps before a capture, in which libraries choose their algorithms and take their workspaces.
_WARM_UP_STEPS = 3
# Replays launched between two looks at the clock.
_STRETCH = 64

# Captures of several threads must not overlap.
_capturing = threading.Lock()


class GraphedEngine:
    """Trains a body by replaying captured steps; see :class:`~tombola.training.engine.Engine`.

    Raises ``RuntimeError`` for a network whose step cannot be captured, one that waits for the GPU, say.
    """

    name = "graphed"

    def __init__(
        self, network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str
    ) -> None:
        self.body = Body(network, device)
        self._recipe = recipe
        self._precision = precision
        self._data = data
        self._device = device
        augmentation = recipe.augmentation
        self._batches = device_batches(
            data, data.train, device, pad=augmentation.padding(data), fill=augmentation.fill
        )
        count, size = len(data.train), min(recipe.batch_size, len(data.train))
        self._size = size
        self._steps = -(-count // size)
        # What a step reads and writes, at addresses that the graphs keep: an epoch's plan is copied in.
        self._order, self._rows, self._columns = (
            torch.zeros(count, dtype=torch.int64, device=device) for _ in range(3)
        )
        self._flips = torch.zeros(count, dtype=torch.bool, device=device)
        self._rates = torch.zeros(self._steps, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._tally = EpochTally(
            torch.zeros(self._steps, device=device), torch.zeros(count, dtype=torch.bool, device=device)
        )
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        # The steps taken here leave no trace: whoever trains loads a state first, and begins a plan.
        self.body.module.train()
        with _capturing, torch.cuda.device(device):
            self._whole = self._capture(size)
            self._last = self._capture(count % size) if count % size else self._whole

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """The step of a batch of that size as a graph."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_STEPS):
                self._step.zero_()
                self._train_step(size)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        self._step.zero_()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            self._train_step(size)
        return graph

    def _train_step(self, size: int) -> None:
        """One step on the batch of that size which the step counter points to; then the counter goes on."""
        body, recipe = self.body, self._recipe
        place = self._step * self._size + torch.arange(size, device=self._device)
        indices = self._order[place]
        inputs = channels_last(
            self._batches.images(indices, self._rows[place], self._columns[place], self._flips[place])
        )
        targets = self._batches.labels(indices)
        rate = self._rates[self._step].squeeze(0)
        loss, right = take_step(body, recipe, self._precision, inputs, targets, rate)
        # Also under a full mask: the next round copies another one in.
        body.select_kept()
        self._tally.losses.index_copy_(0, self._step, loss.float().view(1))
        self._tally.right.index_copy_(0, place, right)
        self._step += 1

    def begin(self, plan: EpochPlan) -> None:
        draws = plan.draws
        rates = torch.tensor(plan.rates)
        for kept, new in (
            (self._order, plan.order),
            (self._rows, draws.rows),
            (self._columns, draws.columns),
            (self._flips, draws.flips),
            (self._rates, rates),
        ):
            kept.copy_(new, non_blocking=True)
        self._tally.losses.zero_()
        self._tally.right.zero_()

    def advance(self, first: int, last: int) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step.fill_(first)
            for step in range(first, last):
                (self._last if step == self._steps - 1 else self._whole).replay()
        current.wait_stream(self._stream)

    def stretch(self) -> int:
        return _STRETCH

    def tally(self) -> EpochTally:
        return self._tally

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        batches = device_batches(self._data, images, self._device)
        return evaluate(self.body.module, batches, self._precision)
