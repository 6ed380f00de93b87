"""Convolutions of few channels, and norms before strided ones, against plain PyTorch in float64.

Where there is no GPU but Triton, ``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs the kernels in its
interpreter.
"""

import pytest
import torch
from kernels import CUDA, DEVICE, error, needs_kernels, on_gpu_only
from torch import Tensor, nn
from torch.nn import functional, grad

pytestmark = needs_kernels
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


@PRECISIONS
@pytest.mark.parametrize("shape", [(3, 16, 5, 7), (2, 40, 4, 6), (1, 96, 3, 3), (2, 1030, 2, 3)])
@pytest.mark.parametrize("stride", [None, (2, 2), (3, 2)])
@pytest.mark.parametrize("used", ["both", "first", "second"])
def test_a_norm_hands_on_the_pixels_that_a_stride_leaves_and_keeps_one_bit_of_each_number(
    dtype: torch.dtype, allowed: float, shape: tuple[int, ...], stride: tuple[int, int] | None, used: str
) -> None:
    from tombola.training.cuda.norm import FusedNorm

    norm = nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.copy_(drawn(shape[1], seed=1))
        norm.bias.copy_(drawn(shape[1], seed=2))
    plain = nn.BatchNorm2d(shape[1]).double()
    plain.load_state_dict(norm.state_dict())
    x, residual = drawn(*shape, seed=4, dtype=dtype), drawn(*shape, seed=5, dtype=dtype)
    theirs, theirs_residual = x.clone().requires_grad_(), residual.clone().requires_grad_()
    expected = plain(theirs) + theirs_residual
    # Rounding decides about ReLU next to zero, so no gradient comes from there.
    clear = expected.abs() > 100 * allowed * expected.abs().mean()
    expected = functional.relu(expected)
    down, along = stride or (1, 1)
    wanted = expected, expected[:, :, ::down, ::along]
    weights = [drawn(*out.shape, seed=7, dtype=dtype) for out in wanted]
    weights = [weights[0] * clear, weights[1] * clear[:, :, ::down, ::along]]
    parts = [index for index in (0, 1) if used in ("both", ("first", "second")[index])]
    sum((wanted[index] * weights[index]).sum() for index in parts).backward()  # type: ignore[union-attr]

    op = FusedNorm(norm.to(DEVICE), relu=True, conv_bias=None, twice=True, stride=stride, signs=True)
    ours, ours_residual = on_device(x, dtype).requires_grad_(), on_device(residual, dtype).requires_grad_()
    found = op(ours, ours_residual)
    sum((found[index] * on_device(weights[index], dtype)).float().sum() for index in parts).backward()  # type: ignore[union-attr]
    for index in (0, 1):
        assert error(found[index], wanted[index].detach()) < 3 * allowed
    for value, exact in (
        (ours, theirs),
        (ours_residual, theirs_residual),
        *zip(norm.parameters(), plain.parameters(), strict=True),
    ):
        assert error(value.grad, exact.grad) < 10 * allowed
    op.eval()
    plain.eval()
    with torch.no_grad():
        again, known = op(ours, ours_residual), functional.relu(plain(x) + residual)
    assert error(again[0], known) < 3 * allowed
    assert error(again[1], known[:, :, ::down, ::along]) < 3 * allowed


def test_bits_leave_the_gradient_as_it_is_without_them() -> None:
    from tombola.training.cuda.norm import FusedNorm

    gradients = []
    for signs in (False, True):
        op = FusedNorm(nn.BatchNorm2d(48).to(DEVICE), relu=True, conv_bias=None, twice=False, signs=signs)
        x, residual = (on_device(drawn(5, 48, 7, 9, seed=seed), torch.float32) for seed in (0, 1))
        x[0, 3, 2, 2] = float("nan")
        x, residual = x.requires_grad_(), residual.requires_grad_()
        op(x, residual).backward(on_device(drawn(5, 48, 7, 9, seed=2), torch.float32))
        gradients.append((x.grad, residual.grad, op.norm.weight.grad, op.norm.bias.grad))
    for without, with_bits in zip(*gradients, strict=True):
        assert torch.equal(without.nan_to_num(7), with_bits.nan_to_num(7))  # type: ignore[union-attr]


@on_gpu_only
@pytest.mark.parametrize("channels", [3, 16, 64])
def test_in_bfloat16_a_rewritten_convolution_has_the_gradients_of_pytorch(channels: int) -> None:
    from tombola.training.cuda.convolution import FewChannels, FirstConvolution

    layer = nn.Conv2d(channels, 32, 3, padding=1, bias=False).to(CUDA, memory_format=torch.channels_last)
    exact = nn.Conv2d(channels, 32, 3, padding=1, bias=False).double()
    with torch.no_grad():
        exact.weight.copy_(layer.weight.bfloat16())
    x, dy = drawn(5, channels, 9, 6, dtype=torch.bfloat16), drawn(5, 32, 9, 6, seed=1, dtype=torch.bfloat16)
    ours = on_device(x, torch.bfloat16).requires_grad_()
    theirs = x.requires_grad_()
    own = FirstConvolution(layer) if channels == 3 else FewChannels(layer)
    with torch.autocast("cuda", torch.bfloat16):
        found = own(ours)
    found.backward(on_device(dy, torch.bfloat16))
    expected = exact(theirs)
    expected.backward(dy)
    assert error(found, expected.detach()) < 4e-3
    assert ours.grad is not None
    assert theirs.grad is not None
    assert error(ours.grad, theirs.grad) < 4e-3
    assert layer.weight.grad is not None
    assert exact.weight.grad is not None
    assert error(layer.weight.grad, exact.weight.grad) < 4e-3
