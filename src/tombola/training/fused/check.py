"""Whether the fused form of a network computes what the network does: tried, before anybody relies on it.

Tracing sees operations, not intentions: a branch on training mode, a stretch without gradients or an aliased
tensor may come out as something else. So both forms run once on made-up images, and must agree.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tombola.errors import NetworkError
from tombola.training.fused.rewrite import fused

_IMAGES = 4
# Of the norm of what is expected. Rounding decides about a ReLU here and there, and its gradient with it: in
# deep networks a few percent. What is computed otherwise is off by its own size.
_ALLOWED = 0.15


def check_fused(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Compare outputs, gradients and buffers of a network and its fused form, in training and in evaluation.

    shape: of one image, ``(C, H, W)``.

    Raises :class:`~tombola.errors.NetworkError` where they differ, and what :func:`fused` raises.
    """
    device = next(module.parameters()).device
    draws = torch.Generator().manual_seed(0)
    plain, other = copy.deepcopy(module), copy.deepcopy(module)
    # Initial values hide mistakes: scales of 1, shifts of 0.
    for ours, theirs in zip(_values(plain), _values(other), strict=True):
        noise = torch.rand(ours.shape, generator=draws).to(ours)
        with torch.no_grad():
            ours.add_(0.5 * noise * (ours.abs().mean() + 0.1))
            theirs.copy_(ours)
    rewritten = fused(other)
    images = torch.randn(_IMAGES, *shape, generator=draws).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    for training in (True, False):
        plain.train(training)
        other.train(training)
        rewritten.train(training)
        expected, found = plain(images.clone()), rewritten(images.clone())
        _compare("outputs", found, expected)
        if training:
            weight = torch.randn(expected.shape, generator=draws).to(expected)
            _compare_gradients((found * weight).sum(), other, (expected * weight).sum(), plain)
        buffers = dict(other.named_buffers())
        for name, value in plain.named_buffers():
            if not name.endswith("num_batches_tracked"):  # whoever takes steps counts
                _compare(name, buffers[name], value)


def _compare_gradients(found: Tensor, ours: nn.Module, expected: Tensor, plain: nn.Module) -> None:
    expected.backward()  # type: ignore[no-untyped-call]
    found.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in ours.named_parameters()}
    size = sum(float(value.grad.norm()) ** 2 for value in plain.parameters() if value.grad is not None) ** 0.5
    for name, value in plain.named_parameters():
        wanted = torch.zeros_like(value) if value.grad is None else value.grad
        given = gradients[name]
        # The bias of a convolution before batch norm has no gradient but rounding; it is left out altogether.
        off = float((wanted if given is None else given - wanted).norm())
        if not off <= _ALLOWED * float(wanted.norm()) + 1e-3 * size:
            raise NetworkError(f"its fused form has other gradients of {name}")


def _compare(what: str, found: Tensor, expected: Tensor) -> None:
    off = float((found.detach().double() - expected.detach().double()).norm())
    if found.shape != expected.shape or not off <= 1e-3 * float(expected.detach().double().norm()) + 1e-6:
        raise NetworkError(f"its fused form has other {what}")


def _values(module: nn.Module) -> list[Tensor]:
    """All parameters and floating-point buffers."""
    return [value for value in (*module.parameters(), *module.buffers()) if value.is_floating_point()]
