"""Linear heads on a frozen body, one at each place that is read, all trained in one pass over the images.

The heads do not know of each other: each has its own weights, its own loss and its own gradient, so training
them together or one by one is the same. Together, they are one batched product over features that are filled
up to the widest place; weights beyond a head's own width start at zero and get no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import seeds
from tombola.data.augmentation import draw
from tombola.data.batches import Batches
from tombola.data.imageset import Data
from tombola.measures.frozen import BatchNorm, FrozenBody
from tombola.training.checkpoint import Watch
from tombola.training.evaluation import EVALUATION_BATCH, device_batches
from tombola.training.recipe import Recipe

# How heads on a frozen body are trained: 5 epochs at a constant rate of 0.005 with weight decay 1e-4 are the
# paper's (Appendix G); momentum and batch size it does not give (protocol, reading G1).
HEAD_RECIPE = Recipe(
    epochs=5, batch_size=100, lr=0.005, momentum=0.9, weight_decay=1e-4, schedule="constant"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of all places.

    weights: float32 ``(places, classes, widest)``, zero beyond a head's own width.
    biases: float32 ``(places, classes)``.
    """

    weights: Tensor
    biases: Tensor

    def outputs(self, features: Tensor) -> Tensor:
        """Logits ``(places, B, classes)`` of features ``(places, B, widest)``."""
        return torch.baddbmm(self.biases[:, None], features, self.weights.mT)


def initial_heads(
    places: tuple[str, ...], widths: tuple[int, ...], classes: int, seed: int, device: torch.device
) -> Heads:
    """Heads as PyTorch initialises a linear layer, each from a stream named after its place."""
    weights = torch.zeros(len(places), classes, max(widths))
    biases = torch.zeros(len(places), classes)
    for index, (name, width) in enumerate(zip(places, widths, strict=True)):
        with seeds.torch_stream(f"probe head {name}", seed):
            layer = nn.Linear(width, classes)
        weights[index, :, :width], biases[index] = layer.weight.detach(), layer.bias.detach()
    return Heads(weights.to(device), biases.to(device))


def train_heads(
    body: FrozenBody, data: Data, recipe: Recipe, *, batch_norm: BatchNorm, seed: int, watch: Watch
) -> Heads:
    """Train a head at each place of a body, from its own weights, on the train split.

    The order of the images and their crops and flips depend on the seed and the epoch alone, so that bodies
    are compared under the same presentations. Raises as :meth:`FrozenBody.begin` does, before the first step.
    """
    widths = body.begin(data, recipe.batch_size, batch_norm)
    heads = initial_heads(body.places, widths, data.classes, seed, body.device)
    momentum = Heads(torch.zeros_like(heads.weights), torch.zeros_like(heads.biases))
    augmentation = recipe.augmentation
    pad = augmentation.padding(data)
    batches = device_batches(data, data.train, body.device, pad=pad, fill=augmentation.fill)
    count, size = len(data.train), recipe.batch_size
    steps = -(-count // size)
    for epoch in range(recipe.epochs):
        order = torch.from_numpy(seeds.generator("probe order", seed, epoch).permutation(count))
        order = order.to(body.device)
        draws = draw(augmentation, data, noise=seed, round=0, epoch=epoch, stream="probe augmentation")
        draws = draws.to(body.device)
        for step in range(steps):
            batch = slice(step * size, (step + 1) * size)
            indices = order[batch]
            images = batches.images(indices, draws.rows[batch], draws.columns[batch], draws.flips[batch])
            rate = recipe.rate(epoch, step, steps)
            _take_step(heads, momentum, body.features(images), batches.labels(indices), recipe, rate)
            watch.beat()
    return heads


@torch.no_grad()
def _take_step(
    heads: Heads, momentum: Heads, features: Tensor, labels: Tensor, recipe: Recipe, rate: float
) -> None:
    """One step of SGD on every head's mean cross-entropy; no gradient leaves a head."""
    classes = torch.arange(heads.biases.shape[1], device=labels.device)
    wanted = (labels[:, None] == classes).float()
    gradient = heads.outputs(features).softmax(2).sub_(wanted).div_(len(labels))
    torch._fused_sgd_(
        [heads.weights, heads.biases],
        [torch.bmm(gradient.mT, features), gradient.sum(1)],
        [momentum.weights, momentum.biases] if recipe.momentum else [],
        weight_decay=recipe.weight_decay, momentum=recipe.momentum, lr=rate,
        dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip


@torch.no_grad()
def evaluate_heads(
    body: FrozenBody, heads: Heads, batches: Batches, watch: Watch
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean cross-entropy in nats and accuracy in percent of each head, in evaluation mode."""
    body.freeze()
    losses, right = [], []
    count = len(batches)
    for first in range(0, count, EVALUATION_BATCH):
        last = min(first + EVALUATION_BATCH, count)
        labels = batches.plain_labels(first, last)
        outputs = heads.outputs(body.features(batches.plain(first, last)))
        repeated = labels.expand(len(outputs), -1)
        loss = functional.cross_entropy(outputs.mT, repeated, reduction="none")
        losses.append(loss.double().sum(1))
        right.append((outputs.argmax(2) == labels).sum(1))
        watch.beat()
    total_loss, total_right = torch.stack(losses).sum(0).tolist(), torch.stack(right).sum(0).tolist()
    return tuple(loss / count for loss in total_loss), tuple(100 * hits / count for hits in total_right)
