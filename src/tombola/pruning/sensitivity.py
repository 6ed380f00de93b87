"""Scores by gradients of the loss: SNIP and GraSP, as pruning at initialisation ranks weights by them.

They rank the weights of a run as well. Networks are built on the CPU, in copies of the subject.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tombola import seeds
from tombola.data.imageset import Data, ImageSet
from tombola.data.inputs import batches_of
from tombola.errors import DataError
from tombola.pruning.subject import Subject, stream_of, ticket_of
from tombola.training.losses import weights_of

EXAMPLES = 10
"""Training images of each class that SNIP and GraSP look at, as in GraSP's and SynFlow's public code."""

_TEMPERATURE = 200
"""By which GraSP divides logits."""


def snip(subject: Subject, data: Data) -> dict[str, Tensor]:
    """Weight times gradient of the loss, absolute (Lee et al., 2019, "SNIP").

    It is how much the loss changes when the weight's connection begins to close: |dL/dc| at c = 1. The loss
    is the mean cross-entropy on ten training images of each class (all there are, of smaller classes), not
    augmented, drawn from a stream of the dense start, the round and the noise number; batch norm takes the
    statistics of these images. SNIP's own batch is 100 to 128 images of any classes; it counts
    biases, which are 0 at initialisation and so all pruned, where masks here are over weights alone.

    Raises :class:`~tombola.errors.DataError` for data of one class: the loss would have no gradient to rank.
    """
    module, images, labels = _scored_network(subject), *_examples("snip", subject, data)
    weights = _prunable(module, subject)
    gradients = torch.autograd.grad(cross_entropy(module(images), labels), list(weights.values()))
    return {
        name: (weights[name].detach() * gradient).abs()
        for name, gradient in zip(weights, gradients, strict=True)
    }


def grasp(subject: Subject, data: Data) -> dict[str, Tensor]:
    """Weight times the product of Hessian and gradient (Wang et al., 2020, "GraSP"): high is kept.

    Removing a weight changes the squared norm of the gradient by about minus twice that, so what is kept
    preserves the flow of the gradient. Images and batch norm as in :func:`snip`, in one batch (the public
    code cuts one that is sorted by class into halves, so that scores depend on the cut); logits are divided
    by 200. The public code redraws linear layers before it scores; here those of the ticket are scored.

    Raises as :func:`snip` does.
    """
    module, images, labels = _scored_network(subject), *_examples("grasp", subject, data)
    weights = _prunable(module, subject)
    loss = cross_entropy(module(images) / _TEMPERATURE, labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    product = sum((gradient * gradient.detach()).sum() for gradient in gradients)
    assert isinstance(product, Tensor)
    hessian_gradient = torch.autograd.grad(product, list(weights.values()))
    return {
        name: weights[name].detach() * values for name, values in zip(weights, hessian_gradient, strict=True)
    }


def _scored_network(subject: Subject) -> nn.Module:
    """The subject's network whose batch norm takes the statistics of a batch; nothing in it draws."""
    module = ticket_of(subject).network.initialized(0).eval()
    module.load_state_dict(dict(weights_of(subject)[1]))
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
    return module


def _prunable(module: nn.Module, subject: Subject) -> dict[str, nn.Parameter]:
    return {name: module.get_parameter(name) for name in ticket_of(subject).mask}


def _examples(score: str, subject: Subject, data: Data) -> tuple[Tensor, Tensor]:
    """Normalised training images of all classes, and their labels, from a stream of the subject."""
    draws = seeds.generator(f"{score} examples", *stream_of(subject))
    labels = data.train.labels.numpy()
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(f"score {score} needs images of two classes or more; {data.name} has one")
    chosen: Sequence[np.ndarray] = [
        draws.permutation(np.flatnonzero(labels == label))[:EXAMPLES] for label in present
    ]
    indices = torch.from_numpy(np.concatenate(chosen))
    examples = ImageSet(data.train.images[indices], data.train.labels[indices])
    return batches_of(examples, data, 0, "black", "cpu").unaugmented(0, len(examples)), examples.labels
