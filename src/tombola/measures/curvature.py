"""Curvature where a training ended: largest eigenvalues of the Hessian (Lanczos), and its trace (Hutchinson).

Of the mean cross-entropy over all images of a split, batch norm fixed (:mod:`tombola.measures.loss_surface`).
Neither is invariant to rescaling: before batch norm, weights of half the size have four times the curvature,
so compare networks of one weight norm, or beside the adaptive sharpness of :func:`~tombola.sam_sharpness`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola import seeds
from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError
from tombola.measures.loss_surface import LossSurface, surface_cost
from tombola.measures.parts import Split
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.run import Run


@dataclass(frozen=True)
class HessianEigenvalues:
    """The largest eigenvalues of a Hessian.

    values: in nats a squared unit of weight, falling.
    residuals: of each, the norm of H v - value v for its unit vector v; no eigenvalue is farther away than
        that.
    steps: of Lanczos. parameters: how many weights the Hessian is by.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    steps: int
    parameters: int

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return self.values[0]


@dataclass(frozen=True)
class HessianTrace:
    """An estimate of the trace of a Hessian.

    trace: in nats a squared unit of weight.
    standard_error: of the estimate, by the spread of its draws.
    draws: random vectors for each batch of images. parameters: how many weights the Hessian is by.
    """

    trace: float
    standard_error: float
    draws: int
    parameters: int

    @property
    def mean_curvature(self) -> float:
        """The mean eigenvalue: the trace over the number of parameters."""
        return self.trace / self.parameters


_USUAL_STEPS = 30


def _eigenvalues_cost(subject: Outline, data: Size, split: str, count: int) -> Cost:
    """A few dozen products with the Hessian."""
    return surface_cost(subject, data, split, gradients=_USUAL_STEPS, products=_USUAL_STEPS + 5 * count)


@declare("hessian-eigenvalues", cost=_eigenvalues_cost)
def hessian_eigenvalues(
    subject: Ticket | Run,
    data: DataLike,
    *,
    count: int = 1,
    split: Split = "train",
    tolerance: float = 1e-3,
    steps: int = 100,
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> HessianEigenvalues:
    """The largest eigenvalues of the Hessian of the mean cross-entropy over a split.

    subject: a run at its final weights, or a ticket at those that it has; by the weights that its mask keeps,
        biases and normalisation included, batch norm at its running statistics, in float32.
    count: how many, from the largest on; not the largest in absolute value, as power iteration finds.
    split: ``"train"`` or ``"test"``, all images, without augmentation.
    tolerance: how large a residual may be, as a share of the largest eigenvalue in absolute value.
    steps: of Lanczos at most, each a product with the Hessian over all images.
    seed: number of the first vector's draw.

    Lanczos with full reorthogonalisation, each vector twice (Lanczos, 1950; Saad, 2011). Of equal eigenvalues
    it may find one alone.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` where the steps do not suffice or an option is out of range.
    """
    data = load_data(data)
    if count < 1 or steps < count:
        raise RecipeError(f"count is {count} and steps is {steps}; count must be at least 1, steps no less")
    if not 0 < tolerance < 1:
        raise RecipeError(f"tolerance is {tolerance}; it must lie between 0 and 1, such as 1e-3")
    where = resolve_device(device)
    with repeatable(where):
        surface = LossSurface(subject, data, what="Hessian", split=split, device=where, watch=watch)
        if count > surface.parameters:
            raise RecipeError(f"count is {count}; the Hessian is by {surface.parameters} parameters")
        surface.loss()  # refuses what diverged by its loss, before any second derivative

        def draw(number: int) -> Tensor:
            normal = seeds.generator("lanczos", seed, number).standard_normal(len(surface.kept), np.float32)
            return torch.from_numpy(normal).to(where) * surface.kept

        return largest_eigenvalues(
            surface.product, draw, surface.parameters, count=count, tolerance=tolerance, steps=steps
        )


def largest_eigenvalues(
    product: Callable[[Tensor], Tensor],
    draw: Callable[[int], Tensor],
    dimension: int,
    *,
    count: int,
    tolerance: float,
    steps: int,
) -> HessianEigenvalues:
    """The largest eigenvalues of a symmetric matrix that is known by its products.

    product: of the matrix with a vector. draw: a random vector, by a number.
    dimension: of the space that the vectors lie in.

    Raises :class:`~tombola.errors.RecipeError` where the steps do not suffice.
    """
    basis: list[Tensor] = []
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    vector, drawn = _normalised(draw(0)), 1
    while True:
        basis.append(vector)
        following = product(vector)
        diagonal.append(float(vector @ following))
        following = _orthogonal(following, basis)
        length = float(following.norm())
        matrix = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
        values, vectors = np.linalg.eigh(matrix)
        scale = float(np.abs(values).max())
        closed = length <= 1e-6 * scale or scale == 0  # the vectors so far span what the product leads to
        residuals = np.abs(vectors[-1]) * (0.0 if closed else length)
        enough = len(basis) >= count
        converged = not closed and bool((residuals[-count:] <= tolerance * scale).all())
        if len(basis) == dimension or (enough and (converged or (closed and len(basis) == steps))):
            largest = slice(None, -count - 1, -1)
            return HessianEigenvalues(
                tuple(values[largest].tolist()), tuple(residuals[largest].tolist()), len(basis), dimension
            )
        if len(basis) == steps:
            worst = float(residuals[-count:].max()) / scale
            raise RecipeError(
                f"after {steps} steps the residual of the largest {count} eigenvalues is {worst:.2g} of the "
                f"largest; tolerance is {tolerance:g}: allow more steps or a larger tolerance"
            )
        if closed:  # a direction that no product leads to
            following = _orthogonal(_normalised(draw(drawn)), basis)
            drawn += 1
        off_diagonal.append(0.0 if closed else length)
        vector = _normalised(following)


def _orthogonal(vector: Tensor, basis: list[Tensor]) -> Tensor:
    """What of a vector is orthogonal to all of a basis; taken twice, since once leaves rounding behind."""
    for _ in range(2):
        for other in basis:
            vector = vector - (other @ vector) * other
    return vector


def _normalised(vector: Tensor) -> Tensor:
    normalised: Tensor = vector / vector.norm()
    return normalised


def _trace_cost(subject: Outline, data: Size, split: str, draws: int) -> Cost:
    """A gradient, and a product for each draw."""
    return surface_cost(subject, data, split, gradients=1, products=draws)


@declare("hessian-trace", cost=_trace_cost)
def hessian_trace(
    subject: Ticket | Run,
    data: DataLike,
    *,
    split: Split = "train",
    draws: int = 4,
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> HessianTrace:
    """The trace of the Hessian of the mean cross-entropy over a split, with its standard error.

    subject, split: as for :func:`hessian_eigenvalues`.
    draws: random vectors for each batch of 250 images, two or more.
    seed: number of their streams.

    Hutchinson's estimate with vectors v of random signs: the mean of v H v, whose variance for one draw is
    2 sum over i != j of H_ij^2 (Hutchinson, 1990). Each batch has draws of its own, so with B batches the
    estimate is about as exact as B times as many draws of vectors that all batches share. The standard error
    is from the spread of draws within batches. There is no early end, where two draws that happen to be close
    would pass for a converged mean.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` for fewer than two draws.
    """
    data = load_data(data)
    if draws < 2:
        raise RecipeError(f"draws is {draws}; it must be at least 2, or there is no standard error")
    where = resolve_device(device)
    trace = variance = 0.0
    with repeatable(where):
        surface = LossSurface(subject, data, what="Hessian", split=split, device=where, watch=watch)
        for number, (images, labels, share) in enumerate(surface.batches()):
            vectors = [
                random_signs(len(surface.kept), "hessian trace", seed, number, draw).to(where)
                for draw in range(draws)
            ]
            values = torch.stack(
                [
                    # Products are 0 where the mask is.
                    (vector.double() * image.double()).sum()
                    for vector, image in zip(
                        vectors, surface.batch_products(images, labels, vectors), strict=True
                    )
                ]
            )
            trace += share * float(values.mean())
            variance += share**2 * float(values.var()) / draws
    return HessianTrace(trace, math.sqrt(variance), draws, surface.parameters)


def random_signs(count: int, stream: str, *numbers: int) -> Tensor:
    """Random signs, float32 ``(count,)``, each bit of a stream one."""
    words = seeds.generator(stream, *numbers).bit_generator.random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=count)
    return torch.from_numpy(bits).float().mul_(2).sub_(1)
