"""Curves between two runs along which the error stays low (Garipov et al., 2018).

Where the straight line between two runs leads over a barrier, a curve with the same ends may not. It has one
bend, trained so that the loss is low at places drawn uniformly along it: a quadratic Bezier curve or two
straight pieces. Of runs whose tickets have one mask the whole curve lies within that mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from tombola import seeds
from tombola.cost import Cost, Outline, Size, evaluated_images, forward
from tombola.data.augmentation import draw
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, unknown
from tombola.measures.alignment import check_one_network
from tombola.measures.connectivity import Split, check_line, common_precision
from tombola.measures.interpolation import recalibrate_batch_norm
from tombola.measures.predictions import check_finite_weights
from tombola.measures.repair import has_batch_norm
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.ticket import State
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.epoch import EpochPlan, gathered, step_seeds
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.flat_network import FlatNetwork
from tombola.training.length import steps_of_epoch, whole_epochs
from tombola.training.losses import mean_loss
from tombola.training.optimizers import move
from tombola.training.preflight import check_trainable
from tombola.training.recipe import Recipe
from tombola.training.run import Run

Shape = Literal["bezier", "chain"]

CURVE_RECIPE = Recipe(epochs=200, batch_size=128, lr=0.03, schedule="ramp", weight_decay=3e-4)
"""As for the PreResNet-164 of Garipov et al.; their VGG16 took 600 epochs at 0.015 and weight decay 5e-4."""


@dataclass(frozen=True, eq=False, repr=False)
class ConnectingCurve(OneLine):
    """Errors and losses along a trained curve between two runs.

    shape: ``"bezier"`` or ``"chain"``.
    positions: along the curve, 0 at the first run and 1 at the second.
    errors: classification error on the split at each position, in percent.
    losses: mean cross-entropy on the split at each position, in nats.
    split: ``"test"`` or unaugmented ``"train"``.
    bend: the ``state_dict`` of the bend; exactly 0 where both masks are 0. Buffers lie halfway between the
        ends.
    train_losses: mean loss over the places that were drawn in each epoch of the bend's training, in nats.
    same_mask: whether the two tickets have one mask.
    ends: fingerprints of the two runs; None where they were not recorded.
    """

    shape: Shape
    positions: tuple[float, ...]
    errors: tuple[float, ...]
    losses: tuple[float, ...]
    split: str
    bend: Mapping[str, Tensor]
    train_losses: tuple[float, ...]
    same_mask: bool
    ends: tuple[str, str] | None = None

    @property
    def height(self) -> float:
        """Largest error minus the mean of the two end errors, in percentage points, as of a barrier.

        NaN where a loss on the curve is not finite.
        """
        return self._height(self.errors)

    @property
    def loss_height(self) -> float:
        """The same for the loss, in nats."""
        return self._height(self.losses)

    @property
    def lowest(self) -> float:
        """Smallest error on the curve, in percent."""
        return min(self.errors)

    @property
    def highest(self) -> float:
        """Largest error on the curve, in percent."""
        return max(self.errors)

    def _height(self, values: Sequence[float]) -> float:
        if not all(map(math.isfinite, self.losses)):
            return math.nan
        return max(values) - (values[0] + values[-1]) / 2

    def _in_one_line(self) -> str:
        return (
            f"<{self.shape} curve with errors from {self.lowest:.2f}% to {self.highest:.2f}% on the "
            f"{self.split} images, {len(self.positions)} positions>"
        )

    def _facts(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "height": "undefined" if math.isnan(self.height) else f"{self.height:.2f} points",
            "lowest error": f"{self.lowest:.2f}%",
            "highest error": f"{self.highest:.2f}%",
            "errors at the ends": f"{self.errors[0]:.2f}% and {self.errors[-1]:.2f}%",
            "images": self.split,
            "positions": len(self.positions),
        }


def _curve_cost(first: Outline, data: Size, recipe: Recipe, points: int) -> Cost:
    """A training and the evaluations at all positions."""
    evaluations = forward(first, points * evaluated_images(data, True))
    epochs = whole_epochs(recipe.epochs) * data.share
    images = evaluations.images + epochs * data.train
    return replace(evaluations, epochs=epochs, images=images, disk=evaluations.disk + 4 * first.weights)


@declare("curve", cost=_curve_cost)
def curve(
    first: Run,
    second: Run,
    data: DataLike,
    *,
    shape: Shape = "bezier",
    recipe: Recipe = CURVE_RECIPE,
    noise: int = 0,
    points: int = 61,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> ConnectingCurve:
    """Train the bend of a curve between the final weights of two runs, and measure errors along it.

    first, second: runs of one network; to be aligned before, if at all (:func:`~tombola.aligned_run`).
    shape: ``"bezier"``: (1 - t)^2 first + 2 t (1 - t) bend + t^2 second; ``"chain"``: straight to the bend at
        t = 1/2, and straight on.
    recipe: of the bend's training, which begins halfway between the ends: each step draws t uniformly between
        0 and 1 and moves the bend by the gradient of the loss at t, its weight decay that of the weights at
        t. Its optimizer must be ``"sgd"`` or ``"nesterov"``; precision is that of the runs.
    noise: number of the streams of the places, the order and the augmentation.
    points: number of evenly spaced positions t that are measured, ends included; at least 3.
    split: the images that errors and losses are of, without augmentation.
    watch: gets a sign of life after every epoch and position.

    Batch-norm statistics are measured anew at every position, ends included, on the unaugmented train split,
    as in a barrier with ``recalibrate=True``. Positions that both masks prune stay 0.

    Raises :class:`~tombola.errors.NetworkError` for runs of different networks or images that do not fit,
    :class:`~tombola.errors.Undefined` for a run that diverged, and :class:`~tombola.errors.RecipeError` for
    a recipe that cannot train a curve or settings out of range.
    """
    data = load_data(data)
    check_one_network(first, second, "a curve")
    if shape not in get_args(Shape):
        raise RecipeError(unknown("shape of a curve", str(shape), get_args(Shape)))
    if recipe.optimizer not in ("sgd", "nesterov"):
        raise RecipeError(f"optimizer is {recipe.optimizer!r}; a curve is trained by 'sgd' or 'nesterov'")
    if recipe.loss == "distillation":
        raise RecipeError("loss is 'distillation'; a curve has no teacher, so give it another")
    if isinstance(recipe.epochs, str):
        raise RecipeError(f"epochs is {recipe.epochs!r}; the training of a curve has whole epochs")
    check_line(points, True, split)
    network = first.ticket.network
    draws = check_trainable(network, data, recipe, 0)
    where = resolve_device(device)
    precision = common_precision(first, second, where)
    for end in (first, second):
        check_finite_weights(end, "curve")
    watch = watch or Watch()
    images = data.train if split == "train" else data.test
    with repeatable(where):
        body = FlatNetwork(network, where)
        training = _BendTraining(body, first, second, shape, recipe, precision, draws=draws)
        train_losses = []
        for epoch in range(whole_epochs(recipe.epochs)):
            train_losses.append(training.train_epoch(data, noise, epoch))
            watch.beat()
        bend = training.bend()
        evaluate = Evaluator(body, precision)
        ends = [_on_device(run.weights, where) for run in (first, second)]
        middle = _on_device(bend, where)
        measured = []
        for index in range(points):
            place_on_curve(body.module.state_dict(), ends[0], middle, ends[1], index / (points - 1), shape)
            body.refresh_copy()
            if has_batch_norm(body.module):
                recalibrate_batch_norm(
                    body.module, device_batches(data, data.train, where), precision, evaluate
                )
            measured.append(evaluate(data, images))
            watch.beat()
    return ConnectingCurve(
        shape,
        tuple(index / (points - 1) for index in range(points)),
        tuple(100.0 - accuracy for _, accuracy in measured),
        tuple(loss for loss, _ in measured),
        split,
        bend,
        tuple(train_losses),
        all(torch.equal(keep, second.ticket.mask[name]) for name, keep in first.ticket.mask.items()),
        (first.fingerprint, second.fingerprint),
    )


def shares(place: float, shape: Shape) -> tuple[float, float, float]:
    """What the first end, the bend and the second end contribute at a place between 0 and 1."""
    if shape == "bezier":
        return (1 - place) ** 2, 2 * place * (1 - place), place**2
    to_bend = 1 - abs(2 * place - 1)
    return max(1 - 2 * place, 0.0), to_bend, max(2 * place - 1, 0.0)


@torch.no_grad()
def place_on_curve(live: State, first: State, bend: State, second: State, place: float, shape: Shape) -> None:
    """Bring ``live`` to a place on the curve, in place; integer buffers are taken from the nearer end."""
    of_first, of_bend, of_second = shares(place, shape)
    for name, value in live.items():
        if value.is_floating_point():
            mixed = of_first * first[name] + of_bend * bend[name] + of_second * second[name]
            value.copy_(mixed)
        else:
            value.copy_(first[name] if place <= 0.5 else second[name])


class _BendTraining:
    """Trains the bend of a curve, whose weights a network has between steps."""

    def __init__(
        self,
        body: FlatNetwork,
        first: Run,
        second: Run,
        shape: Shape,
        recipe: Recipe,
        precision: str,
        *,
        draws: bool,
    ) -> None:
        self._body, self._shape, self._recipe = body, shape, recipe
        self._precision, self._draws = precision, draws
        self._ends = []
        for run in (first, second):
            body.load(run.weights)
            self._ends.append(body.weights.clone())
        middle = {
            name: (value + second.weights[name]) / 2 if value.is_floating_point() else value
            for name, value in first.weights.items()
        }
        self._buffers = middle
        either = {name: keep | second.ticket.mask[name] for name, keep in first.ticket.mask.items()}
        body.load(middle, either)
        self._bend = body.weights.clone()

    def bend(self) -> dict[str, Tensor]:
        """The ``state_dict`` of the bend, on the CPU; buffers halfway between the ends."""
        self._body.weights.copy_(self._bend)
        trained = set(self._body.trainable())
        return {
            name: value if name in trained else self._buffers[name]
            for name, value in self._body.state().items()
        }

    def train_epoch(self, data: Data, noise: int, epoch: int) -> float:
        """Train an epoch; returns its mean loss, in nats."""
        body, recipe = self._body, self._recipe
        device = body.weights.device
        plan = _plan(data, recipe, noise, epoch).to(device)
        augmentation = recipe.augmentation
        batches = device_batches(
            data, data.train, device, pad=augmentation.padding(data), fill=augmentation.fill
        )
        places = seeds.generator("curve", noise, epoch).random(plan.steps)
        body.module.train()
        losses = torch.zeros((), device=device)
        for step, inputs, targets in gathered(plan, batches, 0, plan.steps, 1):
            seeded = seeds.torch_seeded(plan.step_seeds[step], device) if self._draws else nullcontext()
            with seeded:
                loss = self._step(inputs, targets, plan.rates[step], float(places[step]))
            losses += loss * len(targets)
        return float(losses) / len(plan.order)

    def _step(self, inputs: Tensor, targets: Tensor, rate: float, place: float) -> Tensor:
        """Move the bend by the gradient of the loss, weight decay included, at a place of the curve."""
        body, recipe = self._body, self._recipe
        of_first, of_bend, of_second = shares(place, self._shape)
        with torch.no_grad():
            point = of_first * self._ends[0] + of_bend * self._bend + of_second * self._ends[1]
            body.weights.copy_(point)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._precision == "bfloat16"):
            outputs = body.module(inputs)
        loss = mean_loss(recipe, outputs.float(), targets)
        body.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            body.gradient.add_(point, alpha=recipe.weight_decay).mul_(of_bend)
            body.weights.copy_(self._bend)
            move(body, replace(recipe, weight_decay=0.0), rate)
            body.enforce_mask()
            self._bend.copy_(body.weights)
        return loss.detach()


def _plan(data: Data, recipe: Recipe, noise: int, epoch: int) -> EpochPlan:
    """Order, augmentation and rates of an epoch, from streams of their own."""
    count, size = len(data.train), recipe.batch_size
    steps = steps_of_epoch(count, size)
    order = torch.from_numpy(seeds.generator("curve order", noise, epoch).permutation(count))
    draws = draw(recipe.augmentation, data, noise=noise, round=0, epoch=epoch)
    rates = [recipe.rate(epoch, step, steps) for step in range(steps)]
    return EpochPlan(order, draws, rates, size, step_seeds(noise, 0, epoch, steps))


def _on_device(state: State, device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in state.items()}
