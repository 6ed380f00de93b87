"""Kernels of our own and named plans, a thousand times in a captured graph: equal bits, and near float64.

Where there is no GPU but Triton, ``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs the kernels in its
interpreter, in float32 and a few times.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from kernels import (
    CUDA,
    DEVICE,
    INTERPRETED,
    LINE_TILES,
    by_pytorch,
    error,
    needs_kernels,
    on_gpu_only,
    with_gluon_only,
    written,
)
from torch import Tensor, nn
from torch.nn import functional, grad

from tombola.training.cuda import cudnn, plans
from tombola.training.cuda.capture import capture
from tombola.training.cuda.cudnn import Convolution
from tombola.training.cuda.tiles import LineProduct
from tombola.training.device import repeatable

pytestmark = needs_kernels

REPLAYS = 3 if INTERPRETED else 1000
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
# Allowed of the norm: one rounding of each number to its type, at most half a unit in the last place; what is
# computed of rounded numbers and rounded again; sums in float32; those of a GPU's matrix units; and cuDNN's.
ROUNDED = 1e-6 if INTERPRETED else 2e-3
TWICE_ROUNDED = 1e-5 if INTERPRETED else 4e-3
SUMMED = 1e-5
MULTIPLIED = 1e-5 if INTERPRETED else 1e-4
PLANNED = 4e-3
# Enough rows for many programs on a GPU, and channels that do not fill the last one.
SHAPE = (8 if INTERPRETED else 128, 48, 9, 12)


def drawn(*shape: int, seed: int) -> Tensor:
    """Values that ``DTYPE`` has exactly, in float64."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(DTYPE).double()


def on_device(values: Tensor, dtype: torch.dtype = DTYPE) -> Tensor:
    return values.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def bits(values: Tensor) -> Tensor:
    return values.view({2: torch.int16, 4: torch.int32}[values.element_size()])


def replayed(compute: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
    """The results of a computation, which all replays of its graph gave with equal bits, written over NaN."""
    with repeatable(DEVICE):
        first = [result.detach().clone() for result in compute()]
        differences = torch.zeros((), dtype=torch.int64, device=DEVICE)

        def step() -> None:
            for result, expected in zip(compute(), first, strict=True):
                differences.add_((bits(result.detach()) != bits(expected)).sum())
                result.detach().fill_(math.nan)

        replay = step
        if not INTERPRETED:
            replay = capture(step, torch.cuda.graph_pool_handle(), before=lambda: None).replay  # type: ignore[no-untyped-call]
        for _ in range(REPLAYS):
            replay()
        assert int(differences) == 0
    return first


@pytest.mark.parametrize(
    ("added", "stride", "signs"),
    [
        pytest.param(False, None, False, id="alone"),
        pytest.param(True, None, False, id="added"),
        pytest.param(True, (2, 2), False, id="strided shortcut"),
        pytest.param(True, None, True, id="one bit"),
        pytest.param(True, (2, 3), True, id="both"),
    ],
)
def test_norms_and_their_gradients(added: bool, stride: tuple[int, int] | None, signs: bool) -> None:
    from tombola.training.cuda.norm import FusedNorm

    channels = SHAPE[1]
    norm, plain = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        norm.weight.copy_(drawn(channels, seed=1))
        norm.bias.copy_(drawn(channels, seed=2))
    plain.load_state_dict(norm.state_dict())
    # Far from zero, where sums of squares would fail.
    x, residual = drawn(*SHAPE, seed=3) + 4, drawn(*SHAPE, seed=4)
    x = x.to(DTYPE).double()
    theirs = [x.clone().requires_grad_(), residual.clone().requires_grad_()][: 1 + added]
    out = plain(theirs[0]) + (theirs[1] if added else 0)
    # Rounding decides about ReLU next to zero, so no gradient comes from there.
    clear = out.abs() > 0.1
    out = functional.relu(out)
    outs = [out] if stride is None else [out, out[:, :, :: stride[0], :: stride[1]]]
    weights = [drawn(*SHAPE, seed=5) * clear, drawn(*SHAPE, seed=6) * clear]
    weights = [weights[0], weights[1][:, :, :: stride[0], :: stride[1]]] if stride else weights[:1]
    parameters = plain.weight, plain.bias
    gradients = torch.autograd.grad(outs, [*theirs, *parameters], weights)

    op = FusedNorm(norm.to(DEVICE), relu=True, conv_bias=None, twice=bool(stride), stride=stride, signs=signs)
    ours = [on_device(values.detach()).requires_grad_() for values in theirs]
    ours_weights = [on_device(weight) for weight in weights]

    def compute() -> list[Tensor]:
        norm.reset_running_stats()
        found = op(*ours)
        found = list(found) if stride else [found]
        found_gradients = torch.autograd.grad(found, [*ours, norm.weight, norm.bias], ours_weights)
        # What is fixed is not poisoned: the next call reads it.
        return [*found, *found_gradients, norm.running_mean.clone(), norm.running_var.clone()]

    expected = [*outs, *gradients, plain.running_mean, plain.running_var]
    rewritten = added or bool(stride)  # the gradient behind ReLU, in DTYPE
    of_inputs = [TWICE_ROUNDED if rewritten else ROUNDED, ROUNDED][: 1 + added]
    of_parameters = [TWICE_ROUNDED if rewritten else SUMMED] * 2
    allowed = [*[ROUNDED] * len(outs), *of_inputs, *of_parameters, SUMMED, SUMMED]
    errors = [error(*each) for each in zip(replayed(compute), expected, strict=True)]
    assert all(one < most for one, most in zip(errors, allowed, strict=True)), (errors, allowed)


@pytest.mark.parametrize(("channels", "out"), [(3, 16), (1, 64), (3, 128)])
def test_convolutions_of_patches_and_their_gradients(channels: int, out: int) -> None:
    from tombola.training.cuda.convolution import first_forward, first_weight_gradient

    count, _, height, width = SHAPE
    x, weight = drawn(count, channels, height, width, seed=0), drawn(out, channels, 3, 3, seed=1)
    dy = drawn(count, out, height, width, seed=2)
    ours, ours_weight, ours_dy = on_device(x), on_device(weight), on_device(dy)
    # The gradient in float32, so that nothing hides its sums.
    like = on_device(weight, torch.float32)
    found, gradient = replayed(
        lambda: [first_forward(ours, ours_weight), first_weight_gradient(ours_dy, ours, like)]
    )
    assert error(found, functional.conv2d(x, weight, padding=1)) < ROUNDED
    assert error(gradient, grad.conv2d_weight(x, weight.shape, dy, padding=1)) < MULTIPLIED


@pytest.mark.parametrize(
    ("channels", "out", "stride"), [(16, 16, 1), (16, 32, 2), (32, 32, 1), (64, 32, 2), (64, 64, 1)]
)
def test_weight_gradients_of_few_channels(channels: int, out: int, stride: int) -> None:
    from tombola.training.cuda.convolution import weight_gradient

    count, _, height, width = SHAPE
    x = drawn(count, channels, height, width, seed=0)
    dy = drawn(count, out, (height - 1) // stride + 1, (width - 1) // stride + 1, seed=1)
    ours, ours_dy = on_device(x), on_device(dy)
    like = torch.zeros(out, channels, 3, 3, device=DEVICE)
    (found,) = replayed(lambda: [weight_gradient(ours_dy, ours, like, stride)])
    expected = grad.conv2d_weight(x, like.shape, dy, stride=stride, padding=1)
    assert error(found, expected) < MULTIPLIED


@on_gpu_only
@pytest.mark.parametrize("operation", ["forward", "input", "weight"])
def test_planned_convolutions(operation: str) -> None:
    key = torch.cuda.get_device_name(), torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    table = plans.tables().get(key)
    if table is None:
        product = Convolution(operation, (16, 64, 8, 8), (64, 64, 3, 3), (1, 1), (1, 1))  # type: ignore[arg-type]
        with repeatable(CUDA):
            algorithm = cudnn.proposals(product, ["A"])[0]
    else:  # the smallest of those that ship
        product, algorithm = min(
            ((one, named) for one, named in table.algorithms.items() if one.operation == operation),
            key=lambda item: math.prod(item[0].input) * math.prod(item[0].weight),
        )
    values = [drawn(*shape, seed=seed) for seed, shape in enumerate((product.input, product.weight))]
    values.append(drawn(*product.output, seed=2))
    expected = by_pytorch(product, *values)
    ours = [on_device(each) for each in values]

    def compute(plan: cudnn.ConvolutionPlan) -> list[Tensor]:
        plan(*ours)
        return [written(product, ours)]

    with repeatable(CUDA):
        plan = cudnn.plan(product, algorithm)
    (found,) = replayed(partial(compute, plan))
    assert error(found, expected) < PLANNED


@with_gluon_only
@pytest.mark.parametrize("count", [256, 100, 33])
@pytest.mark.parametrize(("channels", "side"), LINE_TILES)
def test_our_own_convolutions_with_sums(channels: int, side: int, count: int) -> None:
    from tombola.training.cuda.lines import Lines
    from tombola.training.cuda.norm import Normed

    x, seen = (drawn(count, channels, side, side, seed=seed) for seed in (0, 1))
    weight = drawn(channels, channels, 3, 3, seed=2)
    numbers = [(1 + 0.1 * drawn(channels, seed=seed)).float().to(CUDA) for seed in (3, 4, 5, 6)]
    ours, ours_weight, normed = on_device(x), on_device(weight), Normed(on_device(seen), *numbers)
    cuts = LINE_TILES[channels, side]
    forward, backward = (
        [Lines(LineProduct(operation, channels, side, count, True), cut) for cut in cuts]  # type: ignore[arg-type]
        for operation in ("forward", "input")
    )

    def compute() -> list[Tensor]:
        found = []
        for lines, given in [(one, None) for one in forward] + [(one, normed) for one in backward]:
            y = torch.empty_like(ours)
            parts = lines(ours, ours_weight, y, given)
            assert parts is not None
            found += [y, parts.values]
        return found

    y, _, other, *_ = replayed(compute)
    expected = functional.conv2d(x.to(CUDA), weight.to(CUDA), padding=1).cpu()
    assert error(y, expected) < ROUNDED
    assert error(other, expected) < ROUNDED
