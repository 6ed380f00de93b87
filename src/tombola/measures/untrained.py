"""Accuracy of an untrained ticket with its own head: what pruning alone has made of a network (section 5).

The batch-norm statistics of an initialisation are mean 0 and variance 1, under which a network with any mask
is near chance. So there is a second reading, with statistics measured on the train images (D3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tombola.cost import Cost, Outline, Size, evaluated_images, forward
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.measures.connectivity import Recalibrate, check_recalibrate
from tombola.measures.interpolation import recalibrate_batch_norm
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.device import repeatable, resolve_device, resolve_precision
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.flat_network import FlatNetwork
from tombola.training.preflight import check_images
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class Untrained:
    """A ticket before any step of training.

    accuracy: on the test split, in percent.
    loss: mean cross-entropy on the test split, in nats.
    recalibrated: the same with batch-norm statistics measured anew, if that was asked for as well.
    """

    accuracy: float
    loss: float
    recalibrated: Untrained | None = None


def _untrained_cost(ticket: Outline, data: Size, recalibrate: Recalibrate) -> Cost:
    """One evaluation."""
    return forward(ticket, evaluated_images(data, recalibrate))


@declare("untrained", cost=_untrained_cost)
def untrained(
    ticket: Ticket,
    data: DataLike,
    *,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    recalibrate: Recalibrate = False,
    device: str | torch.device | None = "cpu",
) -> Untrained:
    """Accuracy and loss of a ticket before training, with its own head; no weight is changed.

    precision: as in a recipe; by default what a training on that device would have.
    recalibrate: by default batch norm has the statistics that the ticket was taken with, and the numbers are
        to the bit those of the first row of the history of its training on these test images. With True the
        statistics are measured anew on the unaugmented train split, as for :func:`~tombola.barrier`. With
        ``"beside"`` the numbers are the former and carry the others as a second reading.

    Raises :class:`~tombola.errors.NetworkError` for images that do not fit the network.
    """
    data = load_data(data)
    check_images(ticket.network, data)
    check_recalibrate(recalibrate)
    where = resolve_device(device)
    computed_in = resolve_precision(Recipe(precision=precision), where)
    with repeatable(where):
        body = FlatNetwork(ticket.network, where)
        evaluate = Evaluator(body, computed_in)
        body.load(ticket.weights(), ticket.mask)
        if recalibrate is True:
            recalibrate_batch_norm(
                body.module, device_batches(data, data.train, where), computed_in, evaluate
            )
        loss, accuracy = evaluate(data, data.test)
        if recalibrate != "beside":
            return Untrained(accuracy, loss)
        recalibrate_batch_norm(body.module, device_batches(data, data.train, where), computed_in, evaluate)
        measured_loss, measured_accuracy = evaluate(data, data.test)
    return Untrained(accuracy, loss, Untrained(measured_accuracy, measured_loss))
