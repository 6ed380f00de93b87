"""The margin distribution: how far images are on the right side of the decision (4.1; Jelassi & Li, 2022).

The margin of an image is what its own class has over the best of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError
from tombola.measures.parts import Split
from tombola.measures.predictions import logits_of, pass_cost
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.run import Run


@dataclass(frozen=True)
class Margins:
    """The distribution of margins over the images of a split.

    mean: of the margins in logits.
    lowest, lower, median, upper, highest: their quantiles at 1, 10, 50, 90 and 99 percent.
    wrong: share of images with a margin of 0 or less, 0 to 1: the classification error.
    small: share of images with a margin in probabilities above 0 and below the threshold: right, but barely.
    """

    mean: float
    lowest: float
    lower: float
    median: float
    upper: float
    highest: float
    wrong: float
    small: float


_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def _margins_cost(subject: Outline, data: Size, split: str) -> Cost:
    """A pass over the split."""
    return pass_cost(subject, data, split)


@declare("margins", cost=_margins_cost)
def margins(
    subject: Ticket | Run,
    data: DataLike,
    *,
    split: Split = "test",
    small: float = 0.5,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Margins:
    """The margins of a split: of an image of class y with logits f, f_y - max over j != y of f_j.

    subject: a run with its final weights, or a ticket with those that it has.
    split: ``"test"`` or ``"train"``, all images, without augmentation, in evaluation mode, float32.
    small: the margin in probabilities, p_y - max p_j, below which an image that is right counts as barely so,
        above 0 and at most 1. Shares of probabilities do not grow with the length of training as logits do.

    The quantile at q of n margins is linear between those at places of the sorted ones around q (n - 1).

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` for another threshold.
    """
    data = load_data(data)
    if not 0 < small <= 1:
        raise RecipeError(f"small is {small}; it must be above 0 and at most 1")
    logits, labels = logits_of(subject, data, what="margin", split=split, device=device, watch=watch)
    of_logits, of_probabilities = margins_of(logits, labels), margins_of(logits.softmax(1), labels)
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    lowest, lower, median, upper, highest = of_logits.quantile(levels).tolist()
    barely = (of_logits > 0) & (of_probabilities < small)
    return Margins(
        mean=float(of_logits.mean()),
        lowest=lowest,
        lower=lower,
        median=median,
        upper=upper,
        highest=highest,
        wrong=float((of_logits <= 0).double().mean()),
        small=float(barely.double().mean()),
    )


def margins_of(values: Tensor, labels: Tensor) -> Tensor:
    """What each label has over the best of the others, ``(N,)``; values ``(N, classes)``, labels ``(N,)``."""
    own = values.gather(1, labels[:, None])
    others = values.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own[:, 0] - others
