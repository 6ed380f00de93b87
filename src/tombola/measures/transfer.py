"""Transfer: a frozen network under a new head, on another data set (section 5.1, Appendix E.2).

The head is replaced by a fresh, dense one with the target's classes and everything else stays frozen, so it
is a linear probe (:mod:`tombola.measures.probe`) in its place. The upper limit, a dense network retrained
on the target, needs no function here: ``target = fit_images(data)``, then
``train(initialize("resnet18", target), target, recipe)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tombola.cost import Cost, Outline, Size
from tombola.data.fitting import fit_images
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.measures.frozen import BatchNorm, FrozenBody, body_precision, network_of
from tombola.measures.heads import HEAD_RECIPE, evaluate_heads, heads_cost, train_heads
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import device_batches
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
