"""The engines that take the steps of a training: eager on any device, or by replaying CUDA graphs.

The training loop (:mod:`tombola.training.loop`) hands an engine the plan of an epoch and asks for stretches
of steps. The images lie on the device as uint8, or come there batch by batch where they would not fit
(:mod:`tombola.data.streamed`); batches are gathered, cropped, flipped and normalised there.
Within an epoch only one loss a step and one bit an image are written down, so that a GPU is never waited for.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tombola import seeds
from tombola.data.augmentation import draw
from tombola.data.imageset import Data, ImageSet
from tombola.data.streamed import StreamedBatches
from tombola.networks.network import Network
from tombola.training.cuda.capture import STRETCH, CapturedSteps
from tombola.training.cuda.memory import check
from tombola.training.definitions import OPTIMIZERS, is_own
from tombola.training.epoch import DevicePlan, EpochPlan, gathered
from tombola.training.evaluation import Evaluator, compile_ahead, device_batches, prepare_gpu
from tombola.training.flat_network import FlatNetwork
from tombola.training.footprint import is_streamed
from tombola.training.losses import Teacher
from tombola.training.optimizers import DeclaredOptimizer
from tombola.training.recipe import Recipe
from tombola.training.step import PlainStep, take_step

# Images that are prepared for several small steps at once.
PREPARED_IMAGES = 512


@dataclass(frozen=True)
class EpochTally:
    """What the steps of an epoch left for its history, on the engine's device.

    losses: float32 ``(steps,)``, mean loss of each step so far.
    right: bool ``(N,)`` in order of presentation, whether the prediction made in its step was right.
    strays: int64 ``(1,)``, as in a :class:`~tombola.training.epoch.DevicePlan`.
    """

    losses: Tensor
    right: Tensor
    strays: Tensor


class Engine(Protocol):
    """Trains one network on one device, a stretch of steps at a time."""

    flat_network: FlatNetwork

    @property
    def name(self) -> str:
        """What takes the steps, as runs record it: bits rest on it."""

    def set_numbers(self, recipe: Recipe) -> bool:
        """Train by a recipe that differs in :attr:`~Recipe.optimizer_numbers` only; False if it cannot."""

    def begin(self, plan: EpochPlan) -> None:
        """Take over the plan of the next epoch, which lies on the device, and clear the tally."""

    def advance(self, first: int, last: int) -> None:
        """Train steps ``first`` to ``last - 1`` of the plan."""

    def stretch(self) -> int:
        """Number of steps to take in one call of :meth:`advance`; checkpoints are taken between calls."""

    def tally(self) -> EpochTally:
        """Results of the steps so far; the engine's own tensors, which a resumed epoch copies into.

        Raises :class:`~tombola.errors.DeviceLost` if bits of these steps may depend on what else a GPU holds.
        """

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent, in evaluation mode, without augmentation."""


class EagerEngine:
    """An :class:`Engine` of plain PyTorch operations: on a CPU, and for what cannot be captured.

    draws: whether the network draws random numbers in training mode. Then torch's global generators are set
        to the seed of each step, and meanwhile no other thread can draw from them.
    teacher: for distillation.
    """

    def __init__(
        self,
        network: Network,
        data: Data,
        recipe: Recipe,
        device: torch.device,
        precision: str,
        *,
        draws: bool = False,
        teacher: Teacher | None = None,
    ) -> None:
        self.flat_network = FlatNetwork(network, device, recipe.optimizer_states)
        self._draws = draws
        self._teacher = teacher
        self.name = "eager" if teacher is None else "eager, distillation"
        if is_own(OPTIMIZERS, recipe.optimizer):
            self.name += ", declared optimizer"
            self.flat_network.declared = DeclaredOptimizer(self.flat_network.trainable(), recipe)
        self._recipe = recipe
        self._device = device
        self._precision = precision
        self._data = data
        # Not by fused passes: their copies of the weights follow the fused steps only.
        self._evaluator = Evaluator(self.flat_network, precision, fused=False)
        augmentation = recipe.augmentation
        pad = augmentation.padding(data)
        self._batches = device_batches(data, data.train, device, pad=pad, fill=augmentation.fill)

    def set_numbers(self, recipe: Recipe) -> bool:
        self._recipe = recipe
        return True

    def begin(self, plan: EpochPlan) -> None:
        self._plan = plan
        self._tally = EpochTally(
            torch.zeros(plan.steps, device=self._device),
            torch.zeros(len(plan.order), dtype=torch.bool, device=self._device),
            torch.zeros(1, dtype=torch.int64, device=self._device),
        )

    def advance(self, first: int, last: int) -> None:
        self.flat_network.module.train()
        # A CPU raises by itself.
        strays = self._tally.strays if self._device.type == "cuda" else None
        batches = gathered(self._plan, self._batches, first, last, self.stretch(), strays)
        for step, inputs, targets in batches:
            self._train_step(step, inputs, targets)

    def _train_step(self, step: int, inputs: Tensor, targets: Tensor) -> None:
        """Move the weights by one batch, apply the mask, and enter loss and predictions in the tally."""
        rate = self._plan.rates[step]
        # Around the backward pass too, in which checkpointed layers draw again.
        with seeds.torch_seeded(self._plan.step_seeds[step], self._device) if self._draws else nullcontext():
            loss, right = take_step(
                self.flat_network, self._recipe, self._precision, inputs, targets, rate, self._teacher
            )
        self.flat_network.enforce_mask()
        place = step * self._plan.batch_size
        self._tally.losses[step] = loss
        self._tally.right[place : place + len(targets)] = right

    def stretch(self) -> int:
        return max(1, PREPARED_IMAGES // self._recipe.batch_size)

    def tally(self) -> EpochTally:
        check(self._device)
        return self._tally

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        return self._evaluator(self._data, images)


class GraphedEngine:
    """An :class:`Engine` that captures its steps as CUDA graphs, fused where possible, and replays them.

    draws: whether the network draws random numbers in training mode: from a generator of these graphs alone,
        which is set to the seed of each step.

    Raises ``RuntimeError`` for a network whose step cannot be captured, one that waits for the GPU, say.
    """

    def __init__(
        self,
        network: Network,
        data: Data,
        recipe: Recipe,
        device: torch.device,
        precision: str,
        *,
        draws: bool = False,
    ) -> None:
        if device.type == "cuda" and data.kind == "images":
            prepare_gpu(torch.device("cuda", torch.cuda.current_device()))
        self.flat_network = FlatNetwork(network, device, recipe.optimizer_states)
        self._data = data
        self._device = device
        augmentation = recipe.augmentation
        pad, fill = augmentation.padding(data), augmentation.fill
        count = len(data.train)
        self._streamed: StreamedBatches | None = None
        if is_streamed(network, data, recipe, device, precision):
            self._streamed = StreamedBatches(
                data.train, data, min(recipe.batch_size, count), pad=pad, fill=fill, device=device
            )
        batches = self._streamed or device_batches(data, data.train, device, pad=pad, fill=fill)
        # Of any epoch, for their shapes.
        drawn = draw(augmentation, data, noise=0, round=0, epoch=0)
        self._plan = DevicePlan.empty(count, min(recipe.batch_size, count), device, drawn)
        self._tally = EpochTally(
            torch.zeros_like(self._plan.rates),
            torch.zeros(count, dtype=torch.bool, device=device),
            self._plan.strays,
        )
        compile_ahead(network, data, recipe, device, precision, drawn)
        self._evaluator = Evaluator(self.flat_network, precision)
        fused = self._evaluator.step(batches, recipe, self._plan.batch_size)
        self._step = fused or PlainStep(self.flat_network, batches, precision, recipe)
        # The steps taken in capturing leave no trace: a training loads a state first, and begins a plan.
        generator = torch.Generator(self._plan.step.device) if draws else None
        self._steps = CapturedSteps(self._train_step, self._plan, generator)
        # Captured now, when memory can still be freed for it.
        self._evaluator(data, data.test)

    @property
    def name(self) -> str:
        """Which engine, and what its steps are made of."""
        return f"graphed, {self._step.name}"

    def _train_step(self, size: int) -> None:
        """One step on the batch of that size which the step counter points to."""
        plan = self._plan
        inputs, targets = self._step.inputs(plan, size)
        rate = plan.rates[plan.step].squeeze(0)
        loss, right = self._step.learn(inputs, targets, rate)
        place = plan.step * plan.batch_size + torch.arange(size, device=self._device)
        self._tally.losses.index_copy_(0, plan.step, loss.float().view(1))
        self._tally.right.index_copy_(0, place, right)

    def set_numbers(self, recipe: Recipe) -> bool:
        return self._step.set_numbers(recipe)

    def begin(self, plan: EpochPlan) -> None:
        self._step_seeds = plan.step_seeds
        self._plan.begin(plan)
        if self._streamed is not None:
            self._streamed.begin(plan.order)
            self._plan.order.copy_(self._streamed.ring(len(plan.order)))
        self._tally.losses.zero_()
        self._tally.right.zero_()

    def advance(self, first: int, last: int) -> None:
        self._steps.replay(first, last, self._step_seeds, self._streamed)

    def stretch(self) -> int:
        return STRETCH

    def tally(self) -> EpochTally:
        return self._tally

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        return self._evaluator(self._data, images)
