"""Convolutions of few channels against plain PyTorch in float64, and what is read of them where they are strided.

Where there is no GPU but Triton, ``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs the kernels in its
interpreter.
"""

import importlib.util
import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional, grad

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
CUDA = torch.device("cuda")
DEVICE = torch.device("cpu") if INTERPRETED else CUDA
on_gpu_only = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="PyTorch sees no GPU"),
]
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "allowed"),
    # Rounding of the result; sums are float32.
    [(torch.float32, 1e-6), pytest.param(torch.bfloat16, 4e-3, marks=on_gpu_only)],
)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values that ``dtype`` has exactly, in float64."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).double()


def on_device(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference relative to the norm of what is expected."""
    return float((found.detach().cpu().double() - expected).norm() / expected.norm())


@PRECISIONS
@pytest.mark.parametrize(
    ("count", "channels", "out", "height", "width", "stride"),
    [
        (3, 16, 16, 5, 7, 1), (2, 16, 32, 7, 6, 2), (2, 32, 32, 4, 9, 1), (1, 32, 64, 9, 9, 2),
        (2, 64, 64, 3, 4, 1), (1, 64, 16, 8, 3, 2), (2, 16, 16, 1, 1, 1),
    ],
)  # fmt: skip
def test_the_weight_gradient_of_few_channels_is_that_of_pytorch(
    dtype: torch.dtype, allowed: float, count: int, channels: int, out: int, height: int, width: int,
    stride: int,
) -> None:  # fmt: skip
    from tombola.training.cuda.convolution import Tiles, weight_gradient

    x, weight = drawn(count, channels, height, width, dtype=dtype), drawn(out, channels, 3, 3)
    dy = drawn(count, out, (height - 1) // stride + 1, (width - 1) // stride + 1, seed=1, dtype=dtype)
    expected = grad.conv2d_weight(x, weight.shape, dy, stride=stride, padding=1)
    ours = [on_device(values, dtype) for values in (dy, x, weight)]
    for tiles in (None, Tiles(rows=16, out=16, programs=12, warps=4, stages=2)):
        found = weight_gradient(*ours, stride, tiles)
        assert error(found, expected) < allowed
        assert found.is_contiguous(memory_format=torch.channels_last)


@PRECISIONS
@pytest.mark.parametrize(
    ("count", "channels", "out", "height", "width"),
    [(3, 3, 16, 5, 7), (2, 1, 64, 6, 4), (1, 2, 32, 3, 3), (2, 3, 64, 9, 8), (1, 3, 128, 2, 2)],
)
def test_the_first_convolution_and_its_weight_gradient_are_those_of_pytorch(
    dtype: torch.dtype, allowed: float, count: int, channels: int, out: int, height: int, width: int
) -> None:
    from tombola.training.cuda.convolution import Tiles, first_forward, first_weight_gradient

    x = drawn(count, channels, height, width, dtype=dtype)
    weight, dy = (
        drawn(out, channels, 3, 3, seed=1, dtype=dtype),
        drawn(count, out, height, width, dtype=dtype),
    )
    ours, ours_dy, ours_weight = (on_device(values, dtype) for values in (x, dy, weight))
    assert error(first_forward(ours, ours_weight), functional.conv2d(x, weight, padding=1)) < allowed
    expected = grad.conv2d_weight(x, weight.shape, dy, padding=1)
    assert error(first_weight_gradient(ours_dy, ours, ours_weight), expected) < allowed
    small = Tiles(rows=16, out=0, programs=5, warps=4, stages=2)
    assert error(first_weight_gradient(ours_dy, ours, ours_weight, small), expected) < allowed
