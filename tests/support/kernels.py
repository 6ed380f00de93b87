"""Where tests of Triton's kernels run: on a GPU, or without one in Triton's interpreter, which is on the CPU.

``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs them there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tombola.training.cuda.cudnn import Convolution
from tombola.training.cuda.tiles import Tiles

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
CUDA = torch.device("cuda")
DEVICE = torch.device("cpu") if INTERPRETED else CUDA

on_gpu_only = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
needs_kernels = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="PyTorch sees no GPU"),
]
"""The marks of a file of such tests."""

with_gluon_only = pytest.mark.skipif(
    not torch.cuda.is_available()
    or torch.cuda.get_device_capability() != (9, 0)
    or importlib.util.find_spec("triton.experimental.gluon") is None,
    reason="no GPU of compute capability 9.0, or no Gluon",
)
"""The mark of tests of our own convolutions."""

LINE_TILES = {
    (64, 32): (Tiles(1, 4, 64, 4, 9, True), Tiles(1, 8, 64, 2, 9, True)),
    (128, 16): (Tiles(1, 8, 128, 3, 6, False), Tiles(1, 16, 128, 2, 4, False)),
    (256, 8): (Tiles(2, 8, 128, 5, 5, False), Tiles(4, 8, 128, 3, 4, False)),
    (512, 4): (Tiles(8, 4, 128, 5, 5, False), Tiles(4, 4, 128, 6, 6, False)),
}
"""By channels and side of the images, the stages of ResNet-18, how our own convolutions may be cut up."""


def error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference relative to the norm of what is expected, which is in float64."""
    expected = expected.detach()
    return float((found.detach().cpu().double() - expected).norm() / expected.norm())


def by_pytorch(product: Convolution, x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    """A product of a convolution by PyTorch's own choice."""
    rest = product.stride, product.padding, (1, 1), False, (0, 0), 1
    if product.operation == "forward":
        return functional.conv2d(x, weight, None, product.stride, product.padding)
    mask = [product.operation == "input", product.operation == "weight", False]
    gradients = torch.ops.aten.convolution_backward(y, x, weight, None, *rest, mask)
    return gradients[0] if mask[0] else gradients[1]


def written(product: Convolution, tensors: Sequence[Tensor]) -> Tensor:
    """The one of input, weight and output that a product writes."""
    return tensors[("input", "weight", "forward").index(product.operation)]
