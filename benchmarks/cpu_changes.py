"""Changes of a training step on the CPU that were tried and left out, each against the step as it is.

Both epochs train the same ticket on the same images, in pairs, and are measured in processor time; the ratio
is the median of the pairs. Nothing here is part of tombola: each change is patched in for as long as its
epoch lasts. ``cpu.md`` has what came of it.

Run: python benchmarks/cpu_changes.py [--change products] [--network convnet] [--pairs 31]
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import tyro
from torch import Tensor, nn

from tombola import Watch
from tombola.training import engines, epoch
from tombola.training.engines import EagerEngine
from tombola.training.epoch import gathered
from tombola.training.flat_network import FlatNetwork
from tombola.training.losses import mean_loss
from tombola.training.optimizers import move

sys.path.insert(0, str(Path(__file__).parent))
from cpu_step import Case, made_up, tombola_training
from measure import report

# Digits of the demo, and networks of the README at the batch sizes of their recipes.
CASES = (
    Case("convnet", 32, 1347, 8, 1),
    Case("convnet", 128, 1347, 8, 1),
    Case("lenet300", 60, 2400, 28, 1),
    Case("lenet5", 100, 600, 28, 1),
    Case("resnet20", 128, 256, 32, 3),
)
# Floats of the columns up to which a strided convolution is computed by products: what fits into a cache.
COLUMNS = 1 << 18


def main(change: str | None = None, network: str | None = None, pairs: int = 31) -> None:
    """Time each change on each case, one thread.

    change: only this one: nchw, products, tally, gradients, pool, all or inference.
    network: only cases of this network.
    pairs: counted pairs of epochs; of ResNet-20 a quarter of them.
    """
    torch.set_num_threads(1)
    cases = [case for case in CASES if network in (None, case.network)]
    rows = [_row(case, name, pairs) for case in cases for name in CHANGES if change in (None, name)]
    report("a training epoch with a change against one without, processor time, one thread", rows)


def _row(case: Case, name: str, pairs: int) -> dict[str, Any]:
    if case.network.startswith("resnet"):
        pairs = max(3, pairs // 4)
    ticket, data, recipe = made_up(case)
    work = _evaluation if name == "inference" else _epoch
    changes = {"as it is": nullcontext, name: CHANGES[name]}
    runs: dict[str, Callable[[], None]] = {}
    for what, patched in changes.items():
        with patched():
            runs[what] = work(tombola_training(ticket, data, recipe))
    seconds: dict[str, list[float]] = {what: [] for what in changes}
    for pair in range(-2, pairs):  # two that do not count
        for what in sorted(changes, reverse=pair % 2 == 0):
            with changes[what]():
                started = time.process_time()
                runs[what]()
                spent = time.process_time() - started
            if pair >= 0:
                seconds[what].append(spent)
    before, after = seconds["as it is"], seconds[name]
    ratios = sorted(b / a for a, b in zip(before, after, strict=True))
    steps = 1 if name == "inference" else -(-case.images // case.batch_size)
    return {
        "what": f"{case.network}, batch {case.batch_size}: {name}",
        "before ms": 1e3 * statistics.median(before) / steps,
        "after ms": 1e3 * statistics.median(after) / steps,
        "ratio": statistics.median(ratios),
        "quartiles": " to ".join(f"{ratios[len(ratios) * part // 4]:.3f}" for part in (1, 3)),
        "of minima": min(after) / min(before),
        "pairs": pairs,
    }


def _epoch(training: Any) -> Callable[[], None]:
    return lambda: training.train_epoch(Watch())


def _evaluation(training: Any) -> Callable[[], None]:
    engine, images = training.engine, training.data.test

    def evaluate() -> None:
        EagerEngine.evaluate(engine, images)

    return evaluate


@contextmanager
def nchw() -> Iterator[None]:
    """Weights and images in PyTorch's default layout."""

    def view(self: Any, flat: Tensor, name: str) -> Tensor:
        offset, shape = self._spans[name]
        return flat[offset : offset + math.prod(shape)].view(shape)

    with (
        mock.patch.object(FlatNetwork, "_view", view),
        mock.patch.object(epoch, "channels_last", torch.Tensor.contiguous),
    ):
        yield


class StridedProducts(torch.autograd.Function):
    """A 3x3 convolution of stride 2 and padding 1 as products of matrices, forward and backward.

    The gradient of the input is one product too: the four pixels of a square of 2x2 inputs depend on a square
    of 2x2 gradients of outputs, by a matrix of the nine taps and seven blocks of zeros.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        rows, columns, out = (height + 1) // 2, (width + 1) // 2, weight.shape[0]
        padded = x.new_zeros(count, 2 * rows + 1, 2 * columns + 1, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
        patches = _patches(padded, 3, 2, rows, columns)
        ctx.save_for_backward(patches, weight)
        ctx.shape = x.shape
        product = patches @ _flat(weight).view(out, -1).t()
        return product.view(count, rows, columns, out).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        patches, weight = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        out, rows, columns = gradient.shape[1:]
        lines = gradient.permute(0, 2, 3, 1)
        of_weight = lines.reshape(-1, out).t() @ patches
        padded = lines.new_zeros(count, rows + 1, columns + 1, out)
        padded[:, :rows, :columns] = lines
        places, zeros = _taps(out, channels)
        taps = _flat(weight).index_select(0, places).masked_fill_(zeros, 0).view(4 * out, 4 * channels)
        squares = _patches(padded, 2, 1, rows, columns) @ taps
        squares = squares.view(count, rows, columns, 2, 2, channels).transpose(2, 3)
        of_input = squares.reshape(count, 2 * rows, 2 * columns, channels)[:, :height, :width]
        return of_input.permute(0, 3, 1, 2), of_weight.view(out, 3, 3, channels).permute(0, 3, 1, 2)


def _flat(weight: Tensor) -> Tensor:
    """The values of a weight in the order in which they lie in memory."""
    return weight.permute(0, 2, 3, 1).reshape(-1)


def _patches(padded: Tensor, side: int, stride: int, rows: int, columns: int) -> Tensor:
    """Squares of images ``(N, H, W, C)`` as a matrix, a row for each place."""
    count, _, _, channels = padded.shape
    image, row, column, _ = padded.stride()
    shape = (count, rows, columns, side, side * channels)
    squares = padded.as_strided(shape, (image, row * stride, column * stride, row, 1))
    return squares.reshape(count * rows * columns, -1)


@lru_cache
def _taps(out: int, channels: int) -> tuple[Tensor, Tensor]:
    """Which weight stands where in the matrix of :class:`StridedProducts`, and where there is none."""
    # By place of the gradient and parity of the pixel; 3 stands for no tap.
    table = torch.tensor([[1, 2], [3, 0]])
    row, column = table.view(2, 1, 1, 2, 1, 1), table.view(1, 2, 1, 1, 2, 1)
    place = ((torch.arange(out).view(-1, 1, 1, 1) * 3 + row) * 3 + column) * channels + torch.arange(channels)
    zeros = ((row == 3) | (column == 3)).expand(place.shape)
    return place.masked_fill(zeros, 0).flatten(), zeros.flatten()


@contextmanager
def products() -> Iterator[None]:
    """Strided convolutions by products of matrices, where the columns are few."""
    plain = nn.Conv2d.forward

    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        form = (self.kernel_size, self.stride, self.padding, self.groups, self.bias)
        if form != ((3, 3), (2, 2), (1, 1), 1, None) or not torch.is_grad_enabled():
            return plain(self, x)
        if x.numel() * 9 // 4 > COLUMNS:
            return plain(self, x)
        return cast(Tensor, StridedProducts.apply(x, self.weight))  # type: ignore[no-untyped-call]

    with mock.patch.object(nn.Conv2d, "forward", forward):
        yield


@contextmanager
def tally() -> Iterator[None]:
    """Losses and predictions entered once in a stretch of steps; the same bits."""

    def advance(self: Any, first: int, last: int) -> None:
        network, recipe = self.flat_network, self._recipe
        network.module.train()
        losses, outputs, labels = [], [], []
        for step, inputs, targets in gathered(self._plan, self._batches, first, last, self.stretch()):
            logits = network.module(inputs)
            loss = mean_loss(recipe, logits, targets)
            network.gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                move(network, recipe, self._plan.rates[step])
            network.enforce_mask()
            losses.append(loss.detach())
            outputs.append(logits.detach())
            labels.append(targets)
        right = torch.cat(outputs).argmax(1) == torch.cat(labels)
        place = first * self._plan.batch_size
        self._tally.losses[first:last] = torch.stack(losses)
        self._tally.right[place : place + len(right)] = right

    with mock.patch.object(EagerEngine, "advance", advance):
        yield


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients taken from autograd and copied into the flat tensor at once, instead of added one by one."""

    @lru_cache(maxsize=1)
    def parameters_of(network: FlatNetwork) -> list[nn.Parameter]:
        return list(network.trainable().values())

    def step(network: Any, recipe: Any, _: str, inputs: Tensor, targets: Tensor, rate: Any, *__: Any) -> Any:
        parameters = parameters_of(network)
        outputs = network.module(inputs)
        loss = mean_loss(recipe, outputs, targets)
        found = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_copy_([parameter.grad for parameter in parameters], found)
            move(network, recipe, rate)
            return loss.detach(), outputs.argmax(1) == targets

    with mock.patch.object(engines, "take_step", step):
        yield


@contextmanager
def pool() -> Iterator[None]:
    """Global average pooling whose gradient lies in memory as the activations do."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[:, :, None, None]

    with mock.patch.object(nn.AdaptiveAvgPool2d, "forward", forward):
        yield


@contextmanager
def together() -> Iterator[None]:
    """Products, tally and pool at once."""
    with products(), tally(), pool():
        yield


@contextmanager
def inference() -> Iterator[None]:
    """Evaluation in inference mode."""
    with torch.inference_mode():
        yield


CHANGES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "nchw": nchw,
    "products": products,
    "tally": tally,
    "gradients": gradients,
    "pool": pool,
    "all": together,
    "inference": inference,
}

if __name__ == "__main__":
    tyro.cli(main)
