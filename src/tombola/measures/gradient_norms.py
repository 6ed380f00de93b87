"""Norms of the gradients of single images: GraNd (Paul et al., 2021), by all layers or by the last.

A gradient of each image is as large as the network, so images go through in chunks that fit memory.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from tombola.data.imageset import Data
from tombola.measures.frozen import network_of
from tombola.measures.parts import Split, batches, module
from tombola.measures.predictions import check_finite, check_trained
from tombola.networks.blocks import block_names
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.preflight import check_images
from tombola.training.run import Run

Layers = Literal["all", "last"]

_NUMBERS_AT_ONCE = 2**28
"""Of all gradients of a chunk of images together: 1 GiB."""
_MOST_IMAGES = 100


def gradient_norms(
    subject: Ticket | Run,
    data: Data,
    *,
    layers: Layers = "all",
    split: Split = "train",
    head: str | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Tensor:
    """Euclidean norm of the gradient of each image's cross-entropy, float64 ``(N,)`` on the CPU.

    layers: by all parameters, or by weight and bias of the ``"last"`` layer. Pruned weights do not count.
    head: name of the last layer in a network of one's own.

    Raises :class:`~tombola.errors.Undefined` for what diverged, and
    :class:`~tombola.errors.NetworkError` for images that do not fit or a head that is not named.
    """
    network = network_of(subject)
    what = "grand" if layers == "all" else "grand-last-layer"
    check_images(network, data)
    check_trained(subject, what)
    where = resolve_device(device)
    watch = watch or Watch()
    mask = (subject.ticket if isinstance(subject, Run) else subject).mask
    norms = []
    with repeatable(where):
        body = module(subject, where)
        chosen = {name: values.detach() for name, values in body.named_parameters() if values.requires_grad}
        if layers == "last":
            last = block_names(network.name, body, (), head).head
            chosen = {name: values for name, values in chosen.items() if name.rpartition(".")[0] == last}
        body.requires_grad_(False)
        kept = {name: mask[name].to(where) for name in chosen if name in mask}
        numbers = sum(values.numel() for values in chosen.values())
        size = max(1, min(_MOST_IMAGES, _NUMBERS_AT_ONCE // numbers))
        for images, labels in batches(data, split, batch_size=size, device=where):
            norms.append(_norms(body, chosen, kept, images, labels).cpu())
            watch.beat()
    joined = torch.cat(norms)
    check_finite(joined, what, f"its gradients on the {split} images of {data.name}", subject)
    return joined


def _norms(
    body: nn.Module, chosen: dict[str, Tensor], kept: dict[str, Tensor], images: Tensor, labels: Tensor
) -> Tensor:
    """The norm of each image's gradient by the chosen parameters, float64 ``(B,)``."""

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(body, parameters, (image[None],)), label[None])

    gradient = grad(loss)
    with sdpa_kernel(SDPBackend.MATH):
        try:
            gradients = vmap(gradient, in_dims=(None, 0, 0))(chosen, images, labels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a network whose path depends on values cannot take all images at once
            singles = [gradient(chosen, image, label) for image, label in zip(images, labels, strict=True)]
            gradients = {name: torch.stack([single[name] for single in singles]) for name in chosen}
    squares = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for name, values in gradients.items():
        selected = values * kept[name] if name in kept else values
        squares += selected.flatten(1).norm(dim=1).double().square()
    return squares.sqrt()
