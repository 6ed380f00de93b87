"""The gradient noise scale (McCandlish et al., 2018): at how many images a batch's noise is as large as its
gradient.

With G the gradient of the mean loss and S the covariance of the gradients of single images, a batch of B has
a gradient of mean G and covariance S / B. The simple noise scale is tr(S) / |G|^2. It follows from squared
norms of batch gradients of two sizes alone, E|G_B|^2 = |G|^2 + tr(S) / B (their appendix A.1); the sizes here
are the whole split and small batches, single images if nothing is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tombola import seeds
from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import Data, DataLike, ImageSet
from tombola.data.inputs import batches_of
from tombola.data.load import load_data
from tombola.errors import RecipeError
from tombola.measures.gradient_norms import gradient_norms
from tombola.measures.loss_surface import LossSurface, surface_cost
from tombola.measures.parts import Split
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.run import Run


@dataclass(frozen=True)
class GradientNoise:
    """The noise of the gradients of single images beside their mean.

    trace: of their covariance, in squared nats a unit of weight. squared_gradient: of the mean gradient, its
        squared norm, likewise. Both are unbiased estimates for the distribution that the images are drawn
        from, so the second may be below 0 where the gradient has vanished.
    images: of the split. batch_size: of the small batches.
    """

    trace: float
    squared_gradient: float
    images: int
    batch_size: int

    @property
    def scale(self) -> float:
        """The simple noise scale in images, trace over squared gradient; NaN where the latter is not above 0.

        A ratio of unbiased estimates is not unbiased itself.
        """
        return self.trace / self.squared_gradient if self.squared_gradient > 0 else math.nan


def _noise_cost(subject: Outline, data: Size, split: str, batch_size: int) -> Cost:
    """Two gradients over the split; of single images they cost about ten."""
    return surface_cost(subject, data, split, gradients=2 if batch_size > 1 else 11, products=0)


@declare("gradient-noise", cost=_noise_cost)
def gradient_noise(
    subject: Ticket | Run,
    data: DataLike,
    *,
    batch_size: int = 1,
    split: Split = "train",
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> GradientNoise:
    """The simple gradient noise scale of McCandlish et al. (2018, "An empirical model of large-batch
    training"): B_simple = tr(S) / |G|^2.

    subject: a run at its final weights, or a ticket at those that it has: for the scale early in a training,
        the ticket that :func:`~tombola.pretrain` takes there.
    batch_size: of the small batches, up to half of the split: 1 is exact for these images; larger ones of a
        random order, as many as the split has whole ones, cost a tenth and vary by the order.
    split: ``"train"`` or ``"test"``, all images, without augmentation.
    seed: number of the stream of the order.

    Of the cross-entropy by the weights that the mask keeps, biases and normalisation included, in float32;
    batch norm at its running statistics, so that an image has a gradient of its own, where the paper's
    batches are those of the training.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` for a batch size out of range.
    """
    data = load_data(data)
    where = resolve_device(device)
    with repeatable(where):
        surface = LossSurface(subject, data, what="gradient noise", split=split, device=where, watch=watch)
        most = surface.images // 2
        if not 1 <= batch_size <= most:
            raise RecipeError(
                f"batch_size is {batch_size}; of {surface.images:,} images it must be from 1 to {most:,}"
            )
        _, mean = surface.gradient()
        large = float(mean.double().square().sum())
        if batch_size == 1:
            norms = gradient_norms(subject, data, split=split, device=device, watch=watch)
            small = float(norms.square().mean())
        else:
            small = _mean_square(surface, data, split, batch_size, seed, where)
    images = surface.images
    trace = (small - large) / (1 / batch_size - 1 / images)
    squared = (images * large - batch_size * small) / (images - batch_size)
    return GradientNoise(trace, squared, images, batch_size)


def _mean_square(
    surface: LossSurface, data: Data, split: Split, batch_size: int, seed: int, device: torch.device
) -> float:
    """The mean squared norm of the gradients of all whole batches of a random order."""
    images = data.train if split == "train" else data.test
    order = torch.from_numpy(seeds.generator("gradient noise", seed).permutation(len(images)))
    shuffled = ImageSet(images.images[order], images.labels[order])
    batches = batches_of(shuffled, data, 0, "black", device)
    firsts = range(0, len(images) - batch_size + 1, batch_size)
    squares = [
        surface.batch_gradient(
            batches.unaugmented(first, first + batch_size),
            batches.unaugmented_labels(first, first + batch_size),
        )
        .double()
        .square()
        .sum()
        for first in firsts
    ]
    return float(torch.stack(squares).mean())
