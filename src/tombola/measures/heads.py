"""Linear heads on a frozen body, one at each place that is read, all trained in one pass over the images.

The heads do not know of each other: each has its own weights, its own loss and its own gradient, so training
them together or one by one is the same. Together they are one batched product over features that are filled
up with zeros to the widest place; what a head has beyond its own width stays zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import seeds
from tombola.data.augmentation import draw
from tombola.data.batches import Batches
from tombola.data.imageset import Data
from tombola.measures.frozen import BatchNorm, FrozenBody
from tombola.training.checkpoint import Watch
from tombola.training.eager import PREPARED_IMAGES
from tombola.training.evaluation import EVALUATION_BATCH, channels_last, device_batches
from tombola.training.recipe import Recipe

# How heads on a frozen body are trained: 5 epochs at a constant rate of 0.005 with weight decay 1e-4 are the
# paper's (Appendix G); momentum and batch size it does not give (protocol, reading G1).
HEAD_RECIPE = Recipe(
    epochs=5, batch_size=100, lr=0.005, momentum=0.9, weight_decay=1e-4, schedule="constant"
)  # fmt: skip


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
    Raises as :meth:`FrozenBody.begin` does, before the first step.
    """
    heads = initial_heads(body, body.begin(data, recipe.batch_size, batch_norm), data.classes, seed)
    momentum = torch.zeros_like(heads)
    augmentation = recipe.augmentation
    pad = augmentation.padding(data)
    batches = device_batches(data, data.train, body.device, pad=pad, fill=augmentation.fill)
    classes = torch.arange(data.classes, device=body.device)
    count, size = len(data.train), recipe.batch_size
    steps = -(-count // size)
    together = max(1, PREPARED_IMAGES // size)
    for epoch in range(recipe.epochs):
        order = torch.from_numpy(seeds.generator("probe order", seed, epoch).permutation(count))
        order = order.to(body.device)
        draws = draw(augmentation, data, noise=seed, round=0, epoch=epoch, stream="probe augmentation")
        draws = draws.to(body.device)
        for first in range(0, steps, together):
            stretch = slice(first * size, (first + together) * size)
            indices = order[stretch]
            images = channels_last(
                batches.images(indices, draws.rows[stretch], draws.columns[stretch], draws.flips[stretch])
            )
            wanted = (batches.labels(indices)[:, None] == classes).float()
            parts = zip(torch.split(images, size), torch.split(wanted, size), strict=True)
            for step, (inputs, targets) in enumerate(parts, first):
                rate = recipe.rate(epoch, step, steps)
                _take_step(heads, momentum, body.features(inputs), targets, recipe, rate)
            watch.beat()
    return heads


@torch.no_grad()
def _take_step(
    heads: Tensor, momentum: Tensor, features: Tensor, targets: Tensor, recipe: Recipe, rate: float
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
        labels = batches.plain_labels(first, last)
        outputs = outputs_of(heads, body.features(batches.plain(first, last)))
        loss = functional.cross_entropy(outputs.mT, labels.expand(len(heads), -1), reduction="none")
        losses.append(loss.double().sum(1))
        right.append((outputs.argmax(2) == labels).sum(1))
        watch.beat()
    loss_sums, hits = torch.stack(losses).sum(0).tolist(), torch.stack(right).sum(0).tolist()
    return tuple(total / count for total in loss_sums), tuple(100 * total / count for total in hits)
