"""The mean cross-entropy of a split as a function of the weights: loss, gradient, and products with its
Hessian.

Curvature and sharpness rest on it. Batch norm is fixed at its running statistics, so that the loss of an
image does not depend on the others, and every image weighs the same, in a short last batch too. Weights are
those that the mask keeps, with biases and the parameters of normalisation; weight decay is no part of the
loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import Data
from tombola.measures.frozen import network_of
from tombola.measures.parts import Split, batches, module
from tombola.measures.predictions import check_finite, check_trained, split_images
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.flat_network import channels_last
from tombola.training.preflight import check_images
from tombola.training.run import Run

SURFACE_BATCH = 250
"""Images at a time; the graph of second derivatives takes about four times the memory of a training's."""


def surface_cost(subject: Outline, data: Size, split: str, *, gradients: float, products: float) -> Cost:
    """The cost of so many gradients over a split, and products with the Hessian, twice as long each."""
    images = split_images(data, split) * (gradients + 2 * products)
    return Cost(images=images, network=subject.network)


class LossSurface:
    """The mean cross-entropy over a split near the weights of a run or ticket, in float32 on a device.

    Vectors are flat: of all trainable parameters in the network's order, 0 where the mask is 0.

    weights: float32 ``(D,)``, where the surface is looked at. kept: bool ``(D,)``, what may change.
    what: is measured, for errors.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.NetworkError` for images that do not fit.
    """

    def __init__(
        self,
        subject: Ticket | Run,
        data: Data,
        *,
        what: str,
        split: Split = "train",
        device: torch.device,
        watch: Watch | None = None,
    ) -> None:
        check_images(network_of(subject), data)
        check_trained(subject, what)
        self._subject, self._data, self._split, self._what = subject, data, split, what
        self._device, self._watch = device, watch or Watch()
        self._module = module(subject, device)
        named = {name: values for name, values in self._module.named_parameters() if values.requires_grad}
        self._parameters = list(named.values())
        mask = (subject.ticket if isinstance(subject, Run) else subject).mask
        self.kept = torch.cat(
            [
                (mask[name] if name in mask else torch.ones(values.shape, dtype=torch.bool)).flatten()
                for name, values in named.items()
            ]
        ).to(device)
        self.weights = torch.cat([values.detach().flatten() for values in self._parameters])
        self.images = len(data.train if split == "train" else data.test)

    @property
    def parameters(self) -> int:
        """How many parameters may change."""
        return int(self.kept.sum())

    def move(self, offset: Tensor | None = None) -> None:
        """Look at the surface at the weights plus an offset ``(D,)``; at the weights themselves without."""
        moved = self.weights if offset is None else self.weights + offset
        with torch.no_grad():
            for values, part in zip(self._parameters, self._parts(moved), strict=True):
                values.copy_(part)

    def batches(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Images, labels and the share of all images that they are, batch by batch, in their order."""
        for images, labels in batches(self._data, self._split, batch_size=SURFACE_BATCH, device=self._device):
            yield channels_last(images), labels, len(labels) / self.images
            self._watch.beat()

    @torch.no_grad()
    def loss(self) -> float:
        """The mean cross-entropy in nats where the surface is looked at."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for images, labels, share in self.batches():
            total += share * cross_entropy(self._module(images), labels).double()
        self._check(total, "the loss")
        return float(total)

    def gradient(self) -> tuple[float, Tensor]:
        """The mean cross-entropy in nats and its gradient ``(D,)`` where the surface is looked at."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        sums = torch.zeros_like(self.weights)
        for images, labels, share in self.batches():
            with sdpa_kernel(SDPBackend.MATH):
                loss = cross_entropy(self._module(images), labels)
                gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
            total += share * loss.detach().double()
            sums += share * _flat(gradients)
        self._check(total, "the loss")
        self._check(sums, "the gradient")
        return float(total), sums * self.kept

    def batch_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient ``(D,)`` of the mean over one batch where the surface is looked at."""
        with sdpa_kernel(SDPBackend.MATH):
            loss = cross_entropy(self._module(channels_last(images)), labels)
            gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        gradient = _flat(gradients) * self.kept
        self._check(gradient, "the gradient")
        self._watch.beat()
        return gradient

    def product(self, vector: Tensor) -> Tensor:
        """The Hessian at the kept weights times a vector ``(D,)``."""
        sums = torch.zeros_like(self.weights)
        for images, labels, share in self.batches():
            sums += share * next(self.batch_products(images, labels, [vector]))
        return sums

    def batch_products(self, images: Tensor, labels: Tensor, vectors: Sequence[Tensor]) -> Iterator[Tensor]:
        """The Hessian of the mean over one batch times each of some vectors; its graph is built once."""
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            loss = cross_entropy(self._module(images), labels)
            gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, materialize_grads=True)
            places = [place for place, gradient in enumerate(gradients) if gradient.requires_grad]
            for number, vector in enumerate(vectors, start=1):
                parts = self._parts(vector * self.kept)
                # Not into .grad, where a second product would be added to the first.
                products = (
                    torch.autograd.grad(
                        [gradients[place] for place in places],
                        self._parameters,
                        [parts[place] for place in places],
                        retain_graph=number < len(vectors),
                        materialize_grads=True,
                    )
                    if places
                    else [torch.zeros_like(values) for values in self._parameters]
                )
                flat = _flat(products) * self.kept
                self._check(flat, "the second derivatives")
                yield flat

    def _parts(self, flat: Tensor) -> list[Tensor]:
        """The stretches of a flat vector in the shapes of the parameters."""
        stretches = torch.split(flat, [values.numel() for values in self._parameters])
        return [part.view(values.shape) for part, values in zip(stretches, self._parameters, strict=True)]

    def _check(self, values: Tensor, name: str) -> None:
        what = f"{name} on the {self._split} images of {self._data.name}"
        check_finite(values, self._what, what, self._subject)


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1) for part in values])
