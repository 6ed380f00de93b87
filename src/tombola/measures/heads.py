"""Linear heads on a frozen body, one at each place that is read, all trained in one pass over the images.

Probes and transfer are such heads; their body is in :mod:`tombola.measures.frozen`. Each head has its own
weights, loss and gradient, so training them together or one by one is the same. Together they are one product
over features that are filled up with zeros to the widest place; a head's weights beyond its own width stay
zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import seeds
from tombola.cost import Cost, Outline, Size, forward
from tombola.data.augmentation import Draws, draw
from tombola.data.batches import Batches
from tombola.data.imageset import Data
from tombola.errors import RecipeError
from tombola.measures.frozen import BatchNorm, FrozenBody
from tombola.source import note_use
from tombola.training.checkpoint import Watch
from tombola.training.choice import captured_or_cause
from tombola.training.cuda.capture import STRETCH, CapturedSteps, knows_this_torch
from tombola.training.engines import PREPARED_IMAGES
from tombola.training.epoch import DevicePlan, EpochPlan, check_strays, gathered, gathered_at_step
from tombola.training.evaluation import EVALUATION_BATCH, device_batches
from tombola.training.preflight import check_augmentation, check_whole_epochs
from tombola.training.recipe import Recipe
from tombola.training.step import TakeStep
from tombola.warn import warn

Epoch = Callable[[EpochPlan], Iterator[None]]
"""Trains an epoch, and yields now and then so that the caller can give signs of life."""

# How heads on a frozen body are trained: 5 epochs at a constant rate of 0.005 with weight decay 1e-4 are the
# paper's (Appendix G); momentum and batch size it does not give (protocol, reading G1).
HEAD_RECIPE = Recipe(
    epochs=5, batch_size=100, lr=0.005, momentum=0.9, weight_decay=1e-4, schedule="constant"
)  # fmt: skip

_TRAININGS = "trainings of heads"


def heads_cost(subject: Outline, data: Size, recipe: Recipe, *, times: int = 1) -> Cost:
    """The cost of training and testing heads on a frozen body, in which all images only pass forward."""
    images = check_whole_epochs(recipe, _TRAININGS) * data.train * data.share + data.test
    return replace(forward(subject, times * images), heads=True)


def initial_heads(body: FrozenBody, widths: tuple[int, ...], classes: int, seed: int) -> Tensor:
    """Heads as PyTorch initialises a linear layer, each from a stream named after its place.

    Returns float32 ``(places, classes, 1 + widest)``: bias, weights, and zeros up to the widest place.
    """
    heads = torch.zeros(len(widths), classes, 1 + max(widths))
    for head, name, width in zip(heads, body.places, widths, strict=True):
        with seeds.torch_stream(f"probe head {name}", seed):
            layer = nn.Linear(width, classes)
        head[:, 0] = layer.bias.detach()
        head[:, 1 : 1 + width] = layer.weight.detach()
    return heads.to(body.device)


def train_heads(
    body: FrozenBody, data: Data, recipe: Recipe, *, batch_norm: BatchNorm, seed: int, watch: Watch
) -> Tensor:
    """Train a head at each place of a body on the train split; returns them as :func:`initial_heads` does.

    The body starts from its own weights and statistics. The order of the images and their crops and flips
    depend on the seed and the epoch alone, so that all bodies are compared under the same presentations.
    Raises as :meth:`FrozenBody.begin` does, before the first step, and :class:`~tombola.errors.RecipeError`
    for a recipe of another optimizer or loss.
    """
    _check_plain(recipe)
    note_use("schedules", recipe.schedule)
    first = initial_heads(body, body.begin(data, recipe.batch_size, batch_norm), data.classes, seed)
    heads, momentum = first.clone(), torch.zeros_like(first)
    augmentation = recipe.augmentation
    check_augmentation(augmentation, data)
    pad = augmentation.padding(data)
    batches = device_batches(data, data.train, body.device, pad=pad, fill=augmentation.fill)
    classes = torch.arange(data.classes, device=body.device)
    steps = -(-len(data.train) // recipe.batch_size)

    def take_step(images: Tensor, labels: Tensor, rate: float | Tensor) -> None:
        targets = (labels[:, None] == classes).float()
        _sgd_step(heads, momentum, body.features(images), targets, recipe, rate)

    replay = None
    if body.device.type == "cuda" and knows_this_torch():
        drawn = draw(augmentation, data, noise=seed, round=0, epoch=0, stream="probe augmentation")
        replay = _captured_epoch(take_step, batches, drawn, recipe.batch_size)
        # The steps of the capture's trial leave no trace.
        body.restart()
        heads.copy_(first)
        momentum.zero_()
    for epoch in range(check_whole_epochs(recipe, _TRAININGS)):
        order = torch.from_numpy(seeds.generator("probe order", seed, epoch).permutation(len(data.train)))
        draws = draw(augmentation, data, noise=seed, round=0, epoch=epoch, stream="probe augmentation")
        rates = [recipe.rate(epoch, step, steps) for step in range(steps)]
        plan = EpochPlan(order, draws, rates, recipe.batch_size).to(body.device)
        for _ in replay(plan) if replay else _eager_epoch(take_step, plan, batches):
            watch.beat()
    return heads


def _check_plain(recipe: Recipe) -> None:
    """Raises RecipeError for fields of a recipe that the training of heads would not follow."""
    check_whole_epochs(recipe, _TRAININGS)
    usual = Recipe()
    for name in ("optimizer", "loss", "label_smoothing"):
        value = getattr(recipe, name)
        if value != getattr(usual, name):
            raise RecipeError(
                f"{name} is {value!r}, but heads are trained by SGD on cross-entropy; leave it out"
            )


def _eager_epoch(take_step: TakeStep, plan: EpochPlan, batches: Batches) -> Iterator[None]:
    """Train an epoch step by step, and yield after each."""
    together = max(1, PREPARED_IMAGES // plan.batch_size)
    # As captured steps read them, so that a GPU gives the same bits without a capture.
    rates = torch.tensor(plan.rates, device=plan.order.device) if plan.order.is_cuda else plan.rates
    strays = torch.zeros(1, dtype=torch.int64, device=plan.order.device) if plan.order.is_cuda else None
    for step, images, labels in gathered(plan, batches, 0, plan.steps, together, strays):
        take_step(images, labels, rates[step])
        yield
    if strays is not None:
        check_strays(strays)


def _captured_epoch(take_step: TakeStep, batches: Batches, drawn: Draws, batch_size: int) -> Epoch | None:
    """A function that trains an epoch with captured steps; None, with a warning, where capture fails.

    drawn: the draws of any epoch.
    """
    size, device = min(batch_size, len(batches)), batches.padded.device
    device_plan = DevicePlan.empty(len(batches), size, device, drawn)

    def captured(size: int) -> None:
        rate = device_plan.rates[device_plan.step].squeeze(0)
        take_step(*gathered_at_step(device_plan, batches, size), rate)

    steps = captured_or_cause(lambda: CapturedSteps(captured, device_plan))
    if isinstance(steps, str):
        warn(f"heads are trained without CUDA graphs: {steps}")
        return None

    def epoch(plan: EpochPlan) -> Iterator[None]:
        device_plan.begin(plan)
        for first in range(0, plan.steps, STRETCH):
            steps.replay(first, min(first + STRETCH, plan.steps))
            yield
        # Waits, so that no more than an epoch is pending, and nothing is when the graphs go.
        check_strays(device_plan.strays)

    return epoch


@torch.no_grad()
def _sgd_step(
    heads: Tensor, momentum: Tensor, features: Tensor, targets: Tensor, recipe: Recipe, rate: float | Tensor
) -> None:
    """One step of SGD on each head's own mean cross-entropy; ``targets`` are one-hot ``(B, classes)``."""
    gradient = outputs_of(heads, features).softmax(2).sub_(targets).div_(len(targets))
    torch._fused_sgd_(
        [heads], [torch.bmm(gradient.mT, features)], [momentum] if recipe.momentum else [],
        weight_decay=recipe.weight_decay, momentum=recipe.momentum, lr=rate,
        dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip


def outputs_of(heads: Tensor, features: Tensor) -> Tensor:
    """Logits ``(places, B, classes)`` of features ``(places, B, 1 + widest)``."""
    return torch.bmm(features, heads.mT)


@torch.no_grad()
def evaluate_heads(
    body: FrozenBody, heads: Tensor, batches: Batches, watch: Watch
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean cross-entropy in nats and accuracy in percent of each head, batch norm in evaluation mode."""
    body.freeze()
    losses, right = [], []
    count = len(batches)
    for first in range(0, count, EVALUATION_BATCH):
        last = min(first + EVALUATION_BATCH, count)
        labels = batches.unaugmented_labels(first, last)
        outputs = outputs_of(heads, body.features(batches.unaugmented(first, last)))
        loss = functional.cross_entropy(outputs.mT, labels.expand(len(heads), -1), reduction="none")
        losses.append(loss.double().sum(1))
        right.append((outputs.argmax(2) == labels).sum(1))
        watch.beat()
    loss_sums, hits = torch.stack(losses).sum(0).tolist(), torch.stack(right).sum(0).tolist()
    return tuple(total / count for total in loss_sums), tuple(100 * total / count for total in hits)
