"""Transfer: a network under a new head, on another data set, with a frozen body or trained as a whole.

The head is replaced by a fresh, dense one with the target's classes. The paper freezes everything else
(section 5.1, Appendix E.2), so that it is a linear probe (:mod:`tombola.measures.probe`) in its place; Morcos
et al. (2019) train the ticket. The upper limit, a dense network retrained on the target, needs no function
here: ``target = fit_images(data)``, then ``train(initialize("resnet18", target), target, recipe)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tombola.cost import Cost, Outline, Size
from tombola.data.fitting import fit_images
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.measures.frozen import BatchNorm, FrozenBody, body_precision, network_of
from tombola.measures.heads import HEAD_RECIPE, evaluate_heads, heads_cost, train_heads
from tombola.pruning.rehead import rehead
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.estimate import train_cost
from tombola.training.evaluation import device_batches
from tombola.training.loop import train
from tombola.training.recipe import Recipe
from tombola.training.run import Run


@dataclass(frozen=True)
class Transfer:
    """Accuracy and loss of a fresh head on a frozen body, on the target data.

    accuracy: accuracy on the target's test split, in percent; batch norm adapted to the target.
    loss: mean cross-entropy there, in nats.
    frozen_accuracy, frozen_loss: the same under the batch-norm statistics that the body came with.
    """

    accuracy: float
    loss: float
    frozen_accuracy: float
    frozen_loss: float


def _transfer_cost(subject: Outline, data: Size, recipe: Recipe) -> Cost:
    """Heads trained twice, with adapting and with frozen batch norm."""
    return heads_cost(subject, data, recipe, times=2)


@declare("transfer", cost=_transfer_cost)
def transfer(
    subject: Ticket | Run,
    data: DataLike,
    *,
    recipe: Recipe = HEAD_RECIPE,
    size: tuple[int, int] = (32, 32),
    head: str | None = None,
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Transfer:
    """Accuracy and loss of a fresh head that is trained for another data set on a frozen network.

    subject: the body: the masked start of a ticket, or the final weights of a run.
    data: the target; its images are fitted by :func:`~tombola.data.fitting.fit_images` and normalised with
        their own mean and standard deviation.
    recipe: of the head, as for :func:`~tombola.measures.probe.probe` (protocol, G6).
    size: height and width that the target's images are resized to.
    head: name of the layer that is replaced, for a network of one's own: its final linear layer.
    seed: number of the streams from which the head's initial weights, order and augmentation are drawn.
    watch: gets a sign of life at every step while heads are trained.

    Raises :class:`~tombola.errors.DataError` for images whose channels do not correspond to the network's,
    :class:`~tombola.errors.NetworkError` for a network that cannot take images of that size or a head that is
    not there, and :class:`~tombola.errors.RecipeError` for a recipe that cannot be followed.
    """
    data = load_data(data)
    where = resolve_device(device)
    watch = watch or Watch()
    target = fit_images(data, size=size, channels=network_of(subject).channels)

    def measured(body: FrozenBody, batch_norm: BatchNorm) -> tuple[float, float]:
        heads = train_heads(body, target, recipe, batch_norm=batch_norm, seed=seed, watch=watch)
        (loss,), (accuracy,) = evaluate_heads(body, heads, device_batches(target, target.test, where), watch)
        return accuracy, loss

    with repeatable(where):
        body = FrozenBody(subject, (), head, where, body_precision(subject, recipe, where))
        return Transfer(*measured(body, "adapting"), *measured(body, "frozen"))


def _transfer_training_cost(ticket: Outline, data: Size, recipe: Recipe) -> Cost:
    """A training from epoch 0."""
    return train_cost(replace(ticket, epoch=0), data, recipe)


@declare("transfer-training", cost=_transfer_training_cost)
def transfer_training(
    ticket: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    size: tuple[int, int] | None = None,
    head: str | None = None,
    seed: int = 0,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Run:
    """The run of a ticket trained as a whole on another data set, under a new head (Morcos et al., 2019).

    ticket: found anywhere; its round numbers the noise.
    data: the target; its images are fitted by :func:`~tombola.data.fitting.fit_images` and normalised with
        their own mean and standard deviation.
    recipe: of the training, from its first epoch to its last. In an experiment by default that of the chains.
    size: height and width that the target's images are resized to; by default those that the ticket was found
        with.
    head, seed: as for :func:`tombola.rehead`, whose ticket is trained.
    noise: number of the noise of the training.

    The same in two steps, for controls and searches on the target: ``moved = rehead(ticket, target)`` and
    ``train(moved, target, recipe)``, where ``target = fit_images(data, size=..., channels=...)``. The
    baselines of the paper are ``moved`` under :func:`tombola.permute` and :func:`tombola.reinitialize`.

    Raises as ``fit_images``, ``rehead`` and :func:`~tombola.train` do.
    """
    data = load_data(data)
    network, target = ticket.network, data
    if data.kind == "images" and len(network.size) == 2:
        height, width = network.size
        target = fit_images(data, size=(height, width) if size is None else size, channels=network.channels)
    moved = rehead(ticket, target, head=head, seed=seed)
    return train(moved, target, recipe, noise=noise, device=device, watch=watch)
