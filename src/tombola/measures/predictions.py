"""What a run or ticket says of each image of a split: its logits, from which scores and margins are made.

Evaluation mode, no augmentation, float32 under any precision of training: scores rank images, and bfloat16
leaves ties between them. What diverged has no predictions, and is refused before a number comes of it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tombola.cost import RESULT_BYTES, Cost, Outline, Size, forward
from tombola.data.imageset import Data
from tombola.errors import TicketError, Undefined
from tombola.measures.frozen import network_of
from tombola.measures.parts import Split, batches, module
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.flat_network import channels_last
from tombola.training.preflight import check_images
from tombola.training.run import Run


def split_images(data: Size, split: str) -> float:
    """How many images a split of data of that size has."""
    return data.test if split == "test" else data.train * data.share


def pass_cost(subject: Outline, data: Size, split: str) -> Cost:
    """The cost of passing a split once, with 8 bytes an image as the result."""
    images = split_images(data, split)
    return replace(forward(subject, images), disk=RESULT_BYTES + 8 * images)


@torch.no_grad()
def logits_of(
    subject: Ticket | Run,
    data: Data,
    *,
    what: str,
    split: Split = "train",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits, float64 ``(N, classes)``, and labels, int64 ``(N,)``, of a split in its order, on the CPU.

    subject: a run with its final weights, or a ticket with those that training starts from.
    what: is made of them, for errors.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged or logits that are not finite, and
    :class:`~tombola.errors.NetworkError` for images that do not fit.
    """
    check_images(network_of(subject), data)
    check_trained(subject, what)
    where = resolve_device(device)
    watch = watch or Watch()
    outputs, targets = [], []
    with repeatable(where):
        network = module(subject, where)
        for images, labels in batches(data, split, device=where):
            outputs.append(network(channels_last(images)).double().cpu())
            targets.append(labels.cpu())
            watch.beat()
    logits = torch.cat(outputs)
    check_finite(logits, what, f"its logits on the {split} images of {data.name}", subject)
    return logits, torch.cat(targets)


def check_trained(subject: Ticket | Run, what: str) -> None:
    """Raises Undefined for a run whose history or weights say that it diverged."""
    if isinstance(subject, Run) and subject.diverged:
        raise Undefined(
            f"the run diverged, so there is no {what} of it",
            "measure one that trained, or an earlier ticket of its training",
        )


def check_finite_weights(run: Run, what: str) -> None:
    """Raises Undefined for a run that diverged or has weights that are not finite, before work is done."""
    check_trained(run, what)
    for name, values in run.weights.items():
        check_finite(values, what, f"values of {name}", run)


def _is_finite(run: Run) -> bool:
    return all(bool(values.isfinite().all()) for values in run.weights.values())


def check_finite(values: Tensor, what: str, name: str, subject: Ticket | Run) -> None:
    """Raises Undefined where not all of some values are finite numbers; ``name`` says what they are.

    TicketError for a run that did not diverge.
    """
    if not bool(values.isfinite().all()):
        kind = "run" if isinstance(subject, Run) else "ticket"
        if isinstance(subject, Run) and not subject.diverged and _is_finite(subject):
            # An accident of the computation, which may not happen again: nothing that stays.
            raise TicketError(
                f"{name} are not all finite, though the run did not diverge and its weights are; "
                f"compute its {what} again, in float32 or on another device"
            )
        raise Undefined(
            f"there is no {what} of this {kind}: {name} are not all finite, "
            "as after a training that diverged",
            "measure one with finite weights",
        )
