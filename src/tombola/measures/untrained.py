"""The untrained ticket with its own head: what pruning alone has made of a network (section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tombola.data.imageset import Data
from tombola.declared import declare
from tombola.ticket import Ticket
from tombola.training.body import Body
from tombola.training.checks import check_images
from tombola.training.device import repeatable, resolve_device, resolve_precision
from tombola.training.evaluation import Evaluator
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class Untrained:
    """A ticket before any step of training.

    accuracy: on the test split, in percent.
    loss: mean cross-entropy on the test split, in nats.
    """

    accuracy: float
    loss: float


@declare("untrained")
def untrained(
    ticket: Ticket,
    data: Data,
    *,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str | torch.device | None = "cpu",
) -> Untrained:
    """Accuracy and loss of a ticket as it is, its own head and batch-norm statistics included.

    The same numbers, to the bit, as the first row of the history of its training on these test images.
    precision: as in a recipe; by default what a training on that device would have.

    Raises :class:`~tombola.errors.NetworkError` for images that do not fit the network.
    """
    check_images(ticket.network, data)
    where = resolve_device(device)
    computed_in = resolve_precision(Recipe(precision=precision), where)
    with repeatable(where):
        body = Body(ticket.network, where)
        evaluate = Evaluator(body, computed_in)
        body.load(ticket.weights(), ticket.mask)
        loss, accuracy = evaluate(data, data.test)
    return Untrained(accuracy, loss)
