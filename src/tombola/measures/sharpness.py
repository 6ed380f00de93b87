"""Sharpness: the rise of the loss near the weights, in a box (Keskar et al., 2017) or a step uphill (SAM).

Of the mean cross-entropy over all images of a split, batch norm fixed (:mod:`tombola.measures.loss_surface`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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

_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class BoxSharpness:
    """How much the loss rises within a box around the weights.

    loss: mean cross-entropy at the weights, highest: the largest that was found in the box; in nats.
    parameters: how many weights the box has, or dimensions of the subspace.
    """

    loss: float
    highest: float
    parameters: int

    @property
    def sharpness(self) -> float:
        """100 (highest - loss) / (1 + loss), as Keskar et al. define it."""
        return 100 * (self.highest - self.loss) / (1 + self.loss)


def _box_cost(subject: Outline, data: Size, split: str, iterations: int) -> Cost:
    """A gradient an iteration, and some for line searches."""
    return surface_cost(subject, data, split, gradients=1 + 1.5 * iterations, products=0)


@declare("box-sharpness", cost=_box_cost)
def box_sharpness(
    subject: Ticket | Run,
    data: DataLike,
    *,
    epsilon: float = 1e-3,
    subspace: int | None = None,
    iterations: int = 10,
    split: Split = "train",
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> BoxSharpness:
    """The sharpness of Keskar et al. (2017): the largest loss in a small box around the weights.

    With x the weights and f the mean cross-entropy: 100 (max f(x + A z) - f(x)) / (1 + f(x)) over all z with
    abs(z_i) <= epsilon (abs((A+ x)_i) + 1), A+ the pseudo-inverse.

    subject, split: as for :func:`~tombola.hessian_eigenvalues`.
    epsilon: 1e-3 and 5e-4 in the paper.
    subspace: None for the full space, A the identity; or its dimension, 100 in the paper, A of standard
        normal entries.
    iterations: of L-BFGS-B from z = 0, which looks for the maximum; 10 in the paper, so it is a lower bound.
    seed: number of the subspace's draw.

    Not invariant to rescaling: with batch norm it says nothing about networks of different weight norms. The
    authors' code was never released; public ones differ in f's mode and the search.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` for an option out of range.
    """
    data = load_data(data)
    if not 0 < epsilon < 1:
        raise RecipeError(f"epsilon is {epsilon}; it must lie between 0 and 1, such as 1e-3")
    if iterations < 1:
        raise RecipeError(f"iterations is {iterations}; it must be at least 1")
    from scipy import optimize  # takes a third of a second, which only this is worth

    where = resolve_device(device)
    with repeatable(where):
        surface = LossSurface(subject, data, what="sharpness", split=split, device=where, watch=watch)
        kept = surface.kept.nonzero().flatten()
        weights = surface.weights[kept].double().cpu().numpy()
        if subspace is not None and not 1 <= subspace <= len(weights):
            raise RecipeError(f"subspace is {subspace}; it must be from 1 to {len(weights):,}, or None")
        basis = None if subspace is None else _random_basis(len(weights), subspace, seed)
        center = weights if basis is None else np.linalg.lstsq(basis, weights, rcond=None)[0]
        reach = epsilon * (np.abs(center) + 1)
        seen: list[float] = []

        def descent(place: _Vector) -> tuple[float, _Vector]:
            offset = torch.zeros_like(surface.weights)
            moved = place if basis is None else basis @ place
            offset[kept] = torch.from_numpy(moved).to(offset)
            surface.move(offset)
            loss, gradient = surface.gradient()
            seen.append(loss)
            slope = gradient[kept].double().cpu().numpy()
            return -loss, -(slope if basis is None else basis.T @ slope)

        bounds = optimize.Bounds(-reach, reach)
        optimize.minimize(
            descent, np.zeros_like(reach), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": iterations},
        )  # fmt: skip
    return BoxSharpness(seen[0], max(seen), len(reach))


def _random_basis(count: int, dimension: int, seed: int) -> _Vector:
    """Standard normal numbers ``(count, dimension)`` of a keyed stream."""
    return seeds.generator("sharpness subspace", seed).standard_normal((count, dimension))


@dataclass(frozen=True)
class SamSharpness:
    """How much the loss rises by one step uphill.

    loss: mean cross-entropy at the weights, perturbed: after the step; in nats.
    gradient_norm: of the gradient at the weights.
    """

    loss: float
    perturbed: float
    gradient_norm: float

    @property
    def sharpness(self) -> float:
        """The loss after the step minus that at the weights, in nats."""
        return self.perturbed - self.loss


def _sam_cost(subject: Outline, data: Size, split: str) -> Cost:
    """A gradient and a loss."""
    return surface_cost(subject, data, split, gradients=1.34, products=0)


@declare("sam-sharpness", cost=_sam_cost)
def sam_sharpness(
    subject: Ticket | Run,
    data: DataLike,
    *,
    rho: float = 0.05,
    adaptive: bool = False,
    split: Split = "train",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> SamSharpness:
    """The sharpness that SAM minimises (Foret et al., 2021): the rise of the loss by a step uphill.

    With g the gradient of the mean cross-entropy L over the split: L(w + e) - L(w) for e = rho g / norm(g);
    adaptive (Kwon et al., 2021, ASAM): e = rho w^2 g / norm(abs(w) g), which rescaling does not change.

    subject, split: as for :func:`~tombola.hessian_eigenvalues`; SAM itself takes g of a batch.
    rho: 0.05 in SAM; adaptive ones take larger ones, 0.5 in ASAM and 2.0 in a public implementation of both.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` for a rho that is not above 0.
    """
    data = load_data(data)
    if not 0 < rho < float("inf"):
        raise RecipeError(f"rho is {rho}; it must be above 0, such as 0.05")
    where = resolve_device(device)
    with repeatable(where):
        surface = LossSurface(subject, data, what="sharpness", split=split, device=where, watch=watch)
        loss, gradient = surface.gradient()
        surface.move(uphill(surface.weights, gradient, rho, adaptive=adaptive))
        perturbed = surface.loss()
    return SamSharpness(loss, perturbed, float(gradient.norm()))


def uphill(weights: Tensor, gradient: Tensor, rho: float, *, adaptive: bool) -> Tensor:
    """SAM's step, of norm rho; adaptive, of norm rho in units of each weight. 0 where the gradient is 0."""
    scaled = gradient * weights.abs() if adaptive else gradient
    norm = scaled.norm()
    if not norm:
        return torch.zeros_like(gradient)
    step: Tensor = rho / norm * (scaled * weights.abs() if adaptive else scaled)
    return step
