"""Our own 3x3 convolutions with batch norm's sums, on a GPU: near float64, and with equal bits every time.

What they pair with is tested in ``test_pairing.py``, replays of a graph in ``test_replays.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import product as every
from pathlib import Path

import pytest
import torch
from kernels import CUDA, LINE_TILES, error, with_gluon_only
from tabled import Everything, images_of, put_tables, trained
from torch import Tensor, nn

import tombola as tb
from tombola.training.checkpoint import Checkpoint, Checkpoints
from tombola.training.cuda.capture import forget_engines
from tombola.training.cuda.plans import PlanTable, fingerprint
from tombola.training.cuda.tiles import LineProduct, Tiles
from tombola.training.device import repeatable

pytestmark = [pytest.mark.cuda, with_gluon_only]

# Allowed of the norm: one rounding to bfloat16, and sums in float32 of what was rounded.
ROUNDED, SUMMED = 2e-3, 1e-5

CASES = [
    pytest.param(*shape, cut, id=f"{shape[0]}@{shape[1]}, {cut.images}x{cut.tall} lines")
    for shape, cuts in LINE_TILES.items()
    for cut in cuts
]
COUNTS = [1, 10, 100, 256]

KINDS = (("forward", True), ("input", True), ("input", False))


def tiles_of(batch: int) -> dict[LineProduct, Tiles]:
    """A table for all stages of ResNet-18."""
    return {
        LineProduct(operation, channels, side, batch, sums): cuts[0]  # type: ignore[arg-type]
        for ((channels, side), cuts), (operation, sums) in every(LINE_TILES.items(), KINDS)
    }


def drawn(*shape: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Values that bfloat16 has exactly, in float64 on the GPU."""
    values = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift
    return values.bfloat16().double().to(CUDA)


def on_device(values: Tensor) -> Tensor:
    return values.bfloat16().contiguous(memory_format=torch.channels_last)


def matrix(values: Tensor) -> Tensor:
    """Rows of pixels by channels, float64."""
    return values.double().permute(0, 2, 3, 1).reshape(-1, values.shape[1])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("channels", "side", "cut"), CASES)
def test_a_convolution_and_its_statistics(channels: int, side: int, cut: Tiles, count: int) -> None:
    from tombola.training.cuda.lines import Lines

    # Means of the results of about a deviation.
    x = drawn(count, channels, side, side, seed=0, shift=1)
    weight = drawn(channels, channels, 3, 3, seed=1, scale=(9 * channels) ** -0.5, shift=1 / (9 * channels))
    expected = torch.conv2d(x, weight, padding=1)
    for sums in (False, True):
        y = torch.full_like(on_device(x), torch.nan)
        with repeatable(CUDA):
            lines = Lines(LineProduct("forward", channels, side, count, sums), cut)
            parts = lines(on_device(x), on_device(weight), y)
        assert error(y, expected.cpu()) < ROUNDED
        assert (parts is not None) == sums
        if parts is not None:
            rows = matrix(y).split(parts.rows_each)
            assert parts.values.shape == (2, len(rows), channels)
            means = torch.stack([part.mean(0) for part in rows])
            squares = torch.stack([part.var(0, correction=0) * len(part) for part in rows])
            assert error(parts.values[0], means.cpu()) < SUMMED
            assert error(parts.values[1], squares.cpu()) < SUMMED


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("channels", "side", "cut"), CASES)
def test_a_gradient_of_the_input_its_mask_and_its_sums(
    channels: int, side: int, cut: Tiles, count: int
) -> None:
    from tombola.training.cuda.lines import Lines
    from tombola.training.cuda.norm import Normed

    dy, seen = (drawn(count, channels, side, side, seed=seed) for seed in (0, 1))
    weight = drawn(channels, channels, 3, 3, seed=2, scale=(9 * channels) ** -0.5)
    mean, rstd, scale, shift = (
        drawn(channels, seed=seed, scale=0.2, shift=place) for seed, place in ((3, 0), (4, 1), (5, 1), (6, 0))
    )
    normed = Normed(on_device(seen), *(number.float() for number in (mean, rstd, scale, shift)))
    plain = torch.nn.grad.conv2d_input(dy.shape, weight, dy, padding=1)
    centred = seen - mean[:, None, None]
    out = centred * (rstd * scale)[:, None, None] + shift[:, None, None]
    clear = out.abs() > 1e-5  # of what float32 decides otherwise
    lines = Lines(LineProduct("input", channels, side, count, True), cut)
    dx = torch.full_like(normed.x, torch.nan)
    with repeatable(CUDA):
        assert lines(on_device(dy), on_device(weight), dx) is None
        assert error(dx, plain.cpu()) < ROUNDED
        dx.fill_(torch.nan)
        parts = lines(on_device(dy), on_device(weight), dx, normed)
    assert parts is not None
    masked = torch.where(clear & (out > 0), plain, 0.0)
    assert error(torch.where(clear, dx.double(), 0.0), masked.cpu()) < ROUNDED
    rows = matrix(dx)
    assert parts.values.shape == (2, len(rows.split(parts.rows_each)), channels)
    for found, values in zip(parts.values, (rows, rows * matrix(centred)), strict=True):
        sums = torch.stack([part.sum(0) for part in values.split(parts.rows_each)])
        assert error(found, sums.cpu()) < SUMMED


class Block(nn.Module):
    """A residual block, in which two convolutions pair with the norms after them and one with that before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.first_norm = convolution(channels), nn.BatchNorm2d(channels)
        self.second, self.second_norm = convolution(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + x)


def convolution(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def results(module: nn.Module, network: nn.Module, images: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics of a step of ``network``, by the names of ``module``."""
    images.requires_grad_()
    with torch.autocast("cuda", torch.bfloat16, enabled=images.dtype == torch.bfloat16):
        out = network.train()(images)
    out.backward(gradient)
    named = {name: value.grad for name, value in module.named_parameters()}
    named |= {name: value for name, value in module.named_buffers() if value.is_floating_point()}
    named |= {"outputs": out, "images": images.grad}
    return {name: value.detach().cpu() for name, value in named.items() if value is not None}


@pytest.mark.parametrize(("channels", "side"), LINE_TILES)
def test_blocks_are_as_near_to_float64_as_those_by_plans(channels: int, side: int) -> None:
    from tombola.training.cuda.pairing import use_lines
    from tombola.training.cuda.planned import plan_convolutions
    from tombola.training.cuda.rewrite import fused

    torch.manual_seed(0)
    exact = nn.Sequential(nn.BatchNorm2d(channels), Block(channels), Block(channels)).double()
    with torch.no_grad():
        for parameter in exact.parameters():  # scales of 1 and shifts of 0 hide mistakes
            parameter.add_(0.2 * (parameter.abs().mean() + 0.1) * torch.randn_like(parameter))
            parameter.copy_(parameter.bfloat16())
    before = {name: value.clone() for name, value in exact.state_dict().items()}
    x, dy = (drawn(32, channels, side, side, seed=seed) for seed in (0, 1))
    wanted = results(exact.to(CUDA), exact, x.clone(memory_format=torch.channels_last), dy)

    def errors(cuts: dict[LineProduct, Tiles]) -> dict[str, float]:
        ours = nn.Sequential(nn.BatchNorm2d(channels), Block(channels), Block(channels))
        ours.load_state_dict(before)
        for layer in ours.to(CUDA).modules():
            if isinstance(layer, nn.Conv2d):
                layer.bfloat16().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = fused(ours)
        plans = PlanTable("GPU", 1, Everything())
        plan_convolutions(network, on_device(x), plans, lambda weight: weight, lambda _: None)
        used = use_lines(network, cuts, on_device(x).device)
        assert {(one.operation, one.sums) for one in used} == (set(KINDS) if cuts else set())
        found = results(ours, network, on_device(x), on_device(dy))
        assert found.keys() == wanted.keys()
        return {name: error(found[name], value) for name, value in wanted.items()}

    with repeatable(CUDA):
        by_plans, by_lines = errors({}), errors(tiles_of(32))
    # Rounding decides about ReLU here and there; a gradient by another formula is off by its own size.
    assert max(by_lines.values()) < 0.3, by_lines
    assert all(by_lines[name] < 1.5 * by_plans[name] + 0.01 for name in by_plans), (by_lines, by_plans)


@pytest.mark.parametrize("network", ["resnet18", "vgg16", "resnet20"])
def test_a_training_by_lines_says_so_repeats_and_has_the_gradients_of_one_by_plans(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.training.cuda import pairing

    used: dict[LineProduct, Tiles] = {}
    lines_of = pairing.lines_of

    def noted(tiles: dict[LineProduct, Tiles], device: torch.device) -> object:
        used.update(tiles)
        return lines_of(tiles, device)

    monkeypatch.setattr(pairing, "lines_of", noted)
    table = Everything()
    put_tables(monkeypatch, table)
    plain, expected = trained(network)
    assert plain == f"graphed, fused, convolution plans {fingerprint(table)}"
    assert not used
    put_tables(monkeypatch, table, tiles_of(32))
    name, first = trained(network)
    again, second = trained(network)
    # Of ResNet-20 none has so many channels and such a side: 64 of them come with 8x8 pixels.
    assert {product.channels for product in used} == {
        "resnet18": {64, 128, 256, 512}, "vgg16": {64, 128, 256, 512}, "resnet20": set(),
    }[network]  # fmt: skip
    assert name == again == (f"{plain}, tiles {fingerprint(used)}" if used else plain)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    momentum = [key for key in expected if key.startswith("momentum.")]
    off = sum(float((first[key] - expected[key]).norm()) ** 2 for key in momentum)
    # Rounding, and the ReLU that it decides about; a gradient by another formula is off by its own size.
    assert off <= 0.15**2 * sum(float(expected[key].norm()) ** 2 for key in momentum)
    for key, value in expected.items():
        if key.endswith(("running_mean", "running_var")):
            assert torch.allclose(first[key], value, rtol=0.05, atol=0.05), key


def test_packed_trainings_by_lines_have_the_bits_of_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    put_tables(monkeypatch, Everything(), tiles_of(32))
    name, alone = trained("resnet18")
    assert ", tiles " in name
    packed: list[dict[str, Tensor]] = []
    threads = [threading.Thread(target=lambda: packed.append(trained("resnet18")[1])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(packed) == 3
    assert all(torch.equal(value, state[key]) for state in packed for key, value in alone.items())


class Cut(Exception):
    pass


class CutOff(Checkpoints):
    """Is interrupted at its first checkpoint."""

    def keep(self, checkpoint: Checkpoint) -> None:
        super().keep(checkpoint)
        raise Cut


def test_an_interrupted_training_by_lines_has_the_bits_of_one_that_was_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, same_run: Callable[[tb.Run, tb.Run], bool]
) -> None:
    data = images_of(40)
    recipe = tb.Recipe(epochs=2, batch_size=8, lr=0.1, precision="bfloat16")
    ticket = tb.initialize("resnet18", data, seed=0)
    put_tables(monkeypatch, Everything(), tiles_of(8))
    try:
        forget_engines()  # of other tables
        whole = tb.train(ticket, data, recipe, device="cuda")
        assert ", tiles " in whole.engine
        with pytest.raises(Cut):
            tb.train(ticket, data, recipe, device="cuda", watch=CutOff(tmp_path, every=0))
        forget_engines()
        rest = tb.train(ticket, data, recipe, device="cuda", watch=Checkpoints(tmp_path))
    finally:
        forget_engines()
    assert same_run(rest, whole)


def test_float32_and_other_batches_know_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.training.cuda import pairing

    def refuse(*_: object) -> None:
        raise AssertionError("a convolution of our own where there should be none")

    monkeypatch.setattr(pairing, "lines_of", refuse)
    table = Everything()
    put_tables(monkeypatch, table, tiles_of(64))
    assert trained("resnet18")[0] == f"graphed, fused, convolution plans {fingerprint(table)}"
    put_tables(monkeypatch, {}, tiles_of(32))  # without plans, which compute all else
    assert trained("resnet18")[0] == "graphed, fused"
    put_tables(monkeypatch, table, tiles_of(32))
    data = images_of(40)
    recipe = tb.Recipe(epochs=1, batch_size=32, lr=0.1, precision="float32")
    try:
        forget_engines()
        run = tb.train(tb.initialize("resnet18", data, seed=0), data, recipe, device="cuda")
    finally:
        forget_engines()
    assert run.engine == "graphed, fused"
