"""Scores by gradients of the loss: SNIP and GraSP, as pruning at initialisation ranks weights by them.

They rank the weights of a run as well. Networks are built on the CPU, in copies of the subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tombola import seeds
from tombola.data.imageset import Data, ImageSet
from tombola.data.inputs import batches_of
from tombola.data.sizes import known_size
from tombola.declarations import bare_name
from tombola.errors import DataError
from tombola.pruning.subject import Subject, stream_of, ticket_of
from tombola.training.losses import weights_of

EXAMPLES = 10
"""Training images of each class that SNIP and GraSP look at, as in GraSP's and SynFlow's public code."""

AT_ONCE = 1000
"""Images up to which they are one batch: those of a hundred classes. More would need memory for the graph of
all of them, as the 2,000 of TinyImageNet; they go in parts of :data:`_IN_A_PART`, of all classes alike."""
_IN_A_PART = 400
_TEMPERATURE = 200
"""By which GraSP divides logits."""


def snip(subject: Subject, data: Data) -> dict[str, Tensor]:
    """Weight times gradient of the loss, absolute (Lee et al., 2019, "SNIP").

    It is how much the loss changes when the weight's connection begins to close: |dL/dc| at c = 1. The loss
    is the mean cross-entropy on ten training images of each class (all there are, of smaller classes), not
    augmented, drawn from a stream of the dense start, the round and the noise number; batch norm takes the
    statistics of these images, of more than a hundred classes those of parts of them (:data:`AT_ONCE`).
    SNIP's own batch is 100 to 128 images of any classes; it counts biases, which are 0 at initialisation and
    so all pruned, where masks here are over weights alone.

    Raises :class:`~tombola.errors.DataError` for data of one class: the loss would have no gradient to rank.
    """
    module, parts = _scored_network(subject), _examples("snip", subject, data)
    weights = _prunable(module, subject)
    gradients = _mean_gradients(module, parts, weights)
    return {
        name: (weights[name].detach() * gradient).abs()
        for name, gradient in zip(weights, gradients, strict=True)
    }


def grasp(subject: Subject, data: Data) -> dict[str, Tensor]:
    """Weight times the product of Hessian and gradient (Wang et al., 2020, "GraSP"): high is kept.

    Removing a weight changes the squared norm of the gradient by about minus twice that, so what is kept
    preserves the flow of the gradient. Images and batch norm as in :func:`snip` (the public
    code cuts one that is sorted by class into halves, so that scores depend on the cut); logits are divided
    by 200. The public code redraws linear layers before it scores; here those of the ticket are scored.

    Raises as :func:`snip` does.
    """
    module, parts = _scored_network(subject), _examples("grasp", subject, data)
    weights = _prunable(module, subject)
    # Of a single batch the gradient is at hand below.
    mean = _mean_gradients(module, parts, weights, _TEMPERATURE) if len(parts) > 1 else None
    totals = [torch.zeros_like(weight) for weight in weights.values()]
    for part in parts:
        loss = cross_entropy(module(part.images) / _TEMPERATURE, part.labels)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        fixed = mean or [gradient.detach() for gradient in gradients]
        product = sum((one * other).sum() for one, other in zip(gradients, fixed, strict=True))
        assert isinstance(product, Tensor)
        for total, values in zip(totals, torch.autograd.grad(product, list(weights.values())), strict=True):
            total += part.share * values
    return {name: weights[name].detach() * values for name, values in zip(weights, totals, strict=True)}


@dataclass(frozen=True)
class _Part:
    """Normalised images that pass at once, their labels, and the share of all images that they are."""

    images: Tensor
    labels: Tensor
    share: float


def _mean_gradients(
    module: nn.Module, parts: Sequence[_Part], weights: Mapping[str, nn.Parameter], temperature: float = 1
) -> list[Tensor]:
    """The gradient of the mean cross-entropy over all parts, logits divided by a temperature."""
    totals = [torch.zeros_like(weight) for weight in weights.values()]
    for part in parts:
        loss = cross_entropy(module(part.images) / temperature, part.labels)
        for total, gradient in zip(totals, torch.autograd.grad(loss, list(weights.values())), strict=True):
            total += part.share * gradient
    return totals


def _scored_network(subject: Subject) -> nn.Module:
    """The subject's network whose batch norm takes the statistics of a batch; nothing in it draws."""
    module = ticket_of(subject).network.initialized(0).eval()
    module.load_state_dict(dict(weights_of(subject)[1]))
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
    return module


def scored_in_one_batch(call: Mapping[str, object]) -> bool:
    """Whether a call has the numbers of version 1, in which SNIP and GraSP had all their images in one batch.

    call: its arguments by name, ``data`` among them. Data whose classes only loading would tell count as of a
        hundred at most, so that no name changes without need.
    """
    if bare_name(str(call.get("score"))) not in ("snip", "grasp"):
        return True
    size = known_size(call.get("data"))
    return size is None or EXAMPLES * size.classes <= AT_ONCE


def _prunable(module: nn.Module, subject: Subject) -> dict[str, nn.Parameter]:
    return {name: module.get_parameter(name) for name in ticket_of(subject).mask}


def _examples(score: str, subject: Subject, data: Data) -> list[_Part]:
    """Normalised training images of all classes, from a stream of the subject, in batches."""
    draws = seeds.generator(f"{score} examples", *stream_of(subject))
    labels = data.train.labels.numpy()
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(f"score {score} needs images of two classes or more; {data.name} has one")
    chosen: Sequence[np.ndarray] = [
        draws.permutation(np.flatnonzero(labels == label))[:EXAMPLES] for label in present
    ]
    count = sum(map(len, chosen))
    if count <= AT_ONCE:
        cuts = [np.concatenate(chosen)]
    else:
        per_class = max(1, _IN_A_PART // len(present))
        cuts = [
            np.concatenate([one[at : at + per_class] for one in chosen])
            for at in range(0, EXAMPLES, per_class)
        ]
    parts = []
    for indices in (torch.from_numpy(cut) for cut in cuts if len(cut)):
        examples = ImageSet(data.train.images[indices], data.train.labels[indices])
        images = batches_of(examples, data, 0, "black", "cpu").unaugmented(0, len(examples))
        parts.append(_Part(images, examples.labels, len(examples) / count))
    return parts
