"""Makes the table of tiles of our own convolutions (tombola/training/cuda/tiles) for this GPU and Triton.

For the 3x3 convolutions with stride 1 of some networks, and ways to cut them up, it times what the engine
would do: forward our own and the merge of its sums beside the named cuDNN plan and batch norm's first pass;
backward the gradient of the input, masked and with sums, and batch norm's backward beside the plan and that
backward; and the plain gradient beside the plan. Medians of replays of CUDA graphs, all in turn, on so many
sets of tensors that no L2 cache holds them. Tiles are taken if they save 2%, their error against float64 is
at most 5% above PyTorch's, and results and sums have equal bits in 100 repeats over poisoned memory. The file
is written after each convolution. A table that ships with other tiles is a new version of the GPU's engine
(docs/design.md).

Run: python benchmarks/convolution_lines.py --output tiles.json [--seconds 60]
"""

from __future__ import annotations

import json
import math
import statistics
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from convolutions import captured, product_by_pytorch, products, replay_microseconds, tensor_sets
from torch import Tensor, nn

from tombola.training.cuda import norm
from tombola.training.cuda.cudnn import Convolution, ConvolutionPlan, plan
from tombola.training.cuda.lines import Lines
from tombola.training.cuda.norm import FusedNorm, Normed, Note, Parts
from tombola.training.cuda.plans import fingerprint, table_for
from tombola.training.cuda.tiles import LineOperation, LineProduct, Tiles, misfit, read_tiles, triton_version
from tombola.training.device import process_settings

# Network, side of its images, batch size: the most wanted first.
NETWORKS = (
    ("resnet18", 32, 256),
    ("resnet18", 32, 100),
    ("vgg16", 32, 256),
    ("vgg16", 32, 100),
    ("resnet34", 64, 256),
    ("resnet20", 32, 128),
)

# By channels and side of the images.
CANDIDATES = {
    (64, 8): (Tiles(2, 8, 64, 5, 9, True), Tiles(1, 8, 64, 5, 9, True)),
    (64, 32): (Tiles(1, 4, 64, 4, 9, True), Tiles(1, 8, 64, 2, 9, True)),
    (64, 64): (Tiles(1, 2, 64, 3, 9, True), Tiles(1, 1, 64, 4, 9, True)),
    (128, 16): (Tiles(1, 8, 128, 3, 6, False), Tiles(1, 16, 128, 2, 4, False)),
    (128, 32): (Tiles(1, 4, 128, 3, 6, False), Tiles(1, 8, 128, 2, 4, False)),
    (256, 8): (Tiles(2, 8, 128, 5, 5, False), Tiles(4, 8, 128, 3, 4, False)),
    (256, 16): (Tiles(1, 8, 128, 3, 6, False), Tiles(1, 16, 128, 2, 4, False)),
    (512, 2): (Tiles(8, 2, 128, 6, 6, False), Tiles(16, 2, 128, 6, 6, False)),
    (512, 4): (Tiles(8, 4, 128, 5, 5, False), Tiles(4, 4, 128, 6, 6, False)),
    (512, 8): (Tiles(2, 8, 128, 5, 5, False), Tiles(4, 8, 128, 3, 4, False)),
}

KINDS: tuple[tuple[LineOperation, bool], ...] = (("forward", True), ("input", True), ("input", False))
"""Operations that networks have, and whether with sums: a norm follows every convolution."""

DEVICE = "cuda"
_REPLAYS, _REPEATS, _SAVED, _THREADS = 15, 100, 0.02, 8

Call = Callable[["Tensors"], object]


class Tensors:
    """What one call reads and writes, and the norm that a gradient goes back through.

    x: what is convolved. y: what is written.
    """

    def __init__(self, product: LineProduct, input: Tensor, weight: Tensor, output: Tensor) -> None:
        forward = product.operation == "forward"
        self.x, self.weight, self.y = (input, weight, output) if forward else (output, weight, input)
        layer = nn.BatchNorm2d(product.channels).to(DEVICE)
        with torch.no_grad():  # so that ReLU does not mask just a half
            layer.bias.add_(0.1)
        self.norm = FusedNorm(layer, relu=True, conv_bias=None, twice=False).train()
        self.normed: Normed | None = None
        if not forward and product.sums:
            self.seen = torch.randn_like(self.y).requires_grad_()
            self.norm.normed, self.norm.gradient_sums = Note(), Note()
            self.out = self.norm(self.seen)
            self.normed = self.norm.normed.take(self.out)

    def backward(self, parts: Parts | None) -> None:
        """Batch norm's backward, of the gradient in ``y``."""
        if parts is not None and self.norm.gradient_sums is not None:
            self.norm.gradient_sums.leave(self.y, parts)
        leaves = self.seen, self.norm.norm.weight, self.norm.norm.bias
        torch.autograd.grad(self.out, leaves, self.y, retain_graph=True)


def main(output: Path, seconds: float = 60) -> None:
    """Time all convolutions for as long as there is time.

    output: the table to write.
    seconds: no convolution is begun after so long.
    """
    started = time.perf_counter()
    gpu, version = torch.cuda.get_device_name(), torch.backends.cudnn.version()
    table = table_for(gpu, version)
    if torch.cuda.get_device_capability() != (9, 0) or table is None:
        raise SystemExit(f"{gpu} is not of compute capability 9.0, or has no plans for cuDNN {version}")
    forward = dict.fromkeys(one for each in NETWORKS for one in products(*each, operations=("forward",)))
    rows: list[dict[str, Any]] = []
    with (
        process_settings("default"),
        torch.cuda.stream(torch.cuda.Stream()),
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        wanted = [
            (product, of_operation(one, operation))
            for one in forward
            for operation, sums in KINDS
            if (product := LineProduct.of(one, operation, sums)) is not None
            and (product.channels, product.side) in CANDIDATES
        ]
        compiled = compile_all(dict.fromkeys(product for product, _ in wanted), pool)
        for product, convolution in wanted:
            late = time.perf_counter() - started > seconds
            algorithm = table.algorithms.get(convolution)
            if late or algorithm is None:
                print(f"LEFT OUT, {'no time' if late else 'no plan'}: {product}", flush=True)
                continue
            try:
                row = best(product, convolution, plan(convolution, algorithm), compiled)
            except Exception:
                traceback.print_exc()
                torch.cuda.synchronize()
                continue
            if row is not None:
                rows.append(row)
                write(output, gpu, rows)
        pool.shutdown(cancel_futures=True)
    write(output, gpu, rows)
    print(
        f"{len(rows)} of {len(wanted)} taken; {time.perf_counter() - started:.0f} s; fingerprint "
        f"{fingerprint(read_tiles(output).tiles)}"
    )


def of_operation(forward: Convolution, operation: LineOperation) -> Convolution:
    return Convolution(operation, forward.input, forward.weight, forward.stride, forward.padding)


def write(output: Path, gpu: str, rows: list[dict[str, Any]]) -> None:
    """Write the table, one convolution a line."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    text = json.dumps({"gpu": gpu, "triton": triton_version()})[:-1] + f', "tiles": [\n{lines}\n]}}\n'
    part = output.with_suffix(".part")
    part.write_text(text)
    part.replace(output)


Key = tuple[LineOperation, bool, int, int, Tiles]


def key_of(product: LineProduct, tiles: Tiles) -> Key:
    """What a compiled kernel rests on: not the number of images."""
    return product.operation, product.sums, product.channels, product.side, tiles


def compile_all(wanted: dict[LineProduct, None], pool: ThreadPoolExecutor) -> dict[Key, Future[object]]:
    """Begin to compile the kernels of all candidates, in their order."""
    compiled: dict[Key, Future[object]] = {}
    for product in wanted:
        for tiles in CANDIDATES[product.channels, product.side]:
            key = key_of(product, tiles)
            if key not in compiled:
                compiled[key] = pool.submit(compile_one, product, tiles)
    return compiled


def compile_one(product: LineProduct, tiles: Tiles) -> object:
    cause = misfit(product, tiles)
    if cause is not None:
        raise ValueError(cause)
    return Lines(product, tiles).compile(torch.device(DEVICE))


def best(
    product: LineProduct,
    convolution: Convolution,
    named: ConvolutionPlan,
    compiled: dict[Key, Future[object]],
) -> dict[str, Any] | None:
    """The row of the table for a convolution; None, said, where no tiles are worth it."""
    started = time.perf_counter()
    plain_sets = tensor_sets(convolution)
    sets = [Tensors(product, *tensors) for tensors in plain_sets]
    work: dict[Tiles | None, Call] = {None: partial(by_plan, product, named)}
    exact = product_by_pytorch(convolution)(*(tensor.double() for tensor in plain_sets[0]))
    allowed = 1.05 * relative(product_by_pytorch(convolution)(*plain_sets[0]), exact) + 1e-5
    for tiles in CANDIDATES[product.channels, product.side]:
        try:
            compiled[key_of(product, tiles)].result()
            lines = Lines(product, tiles)
            error, repeats = error_of(lines, sets[0], exact), bits_repeat(lines, sets[0])
        except Exception as caught:
            print(f"  {tiles}: {type(caught).__name__}: {str(caught)[-300:]}", flush=True)
            torch.cuda.synchronize()  # raises for a lost device
            continue
        if error <= allowed and repeats:
            work[tiles] = partial(by_lines, product, lines)
        else:
            print(f"  {tiles}: error {error:.2e} of {allowed:.2e}, bits repeat: {repeats}", flush=True)
    graphs = {tiles: captured(call, [(one,) for one in sets]) for tiles, call in work.items()}
    times: dict[Tiles | None, list[float]] = {tiles: [] for tiles in graphs}
    for _ in range(_REPLAYS):
        for tiles, graph in graphs.items():
            times[tiles].append(replay_microseconds(graph, len(sets)))
    medians = {tiles: statistics.median(measured) for tiles, measured in times.items()}
    replaced = medians.pop(None)
    tiles = min(medians, key=medians.__getitem__, default=None)
    own = math.inf if tiles is None else medians[tiles]
    taken = own < (1 - _SAVED) * replaced
    print(
        f"{product.operation:8} {product.channels}@{product.side}x{product.side} batch {product.batch} "
        f"{'with sums' if product.sums else 'plain':9}: {replaced:.1f} -> {own:.1f} us by {tiles}"
        f"{'' if taken else ', NOT TAKEN'}, {time.perf_counter() - started:.1f} s",
        flush=True,
    )
    if tiles is None or not taken:
        return None
    return {
        "operation": product.operation, "channels": product.channels, "side": product.side,
        "batch": product.batch, "sums": product.sums, "images": tiles.images, "tall": tiles.tall,
        "out": tiles.out, "pixel_stages": tiles.pixel_stages, "weight_stages": tiles.weight_stages,
        "apart": tiles.apart, "microseconds": round(own, 2), "replaced_microseconds": round(replaced, 2),
    }  # fmt: skip


def by_plan(product: LineProduct, named: ConvolutionPlan, tensors: Tensors) -> None:
    """What the engine does without lines."""
    if product.operation == "forward":
        named(tensors.x, tensors.weight, tensors.y)
        norm._statistics(tensors.norm, tensors.y, None)
    else:
        named(tensors.y, tensors.weight, tensors.x)
        if product.sums:
            tensors.backward(None)


def by_lines(product: LineProduct, lines: Lines, tensors: Tensors) -> None:
    """What the engine does with them."""
    parts = lines(tensors.x, tensors.weight, tensors.y, tensors.normed)
    if product.operation == "forward":
        norm._statistics(tensors.norm, tensors.y, parts)
    elif product.sums:
        tensors.backward(parts)


def error_of(lines: Lines, tensors: Tensors, exact: Tensor) -> float:
    """The error of a product that is not masked."""
    tensors.y.fill_(math.nan)
    lines(tensors.x, tensors.weight, tensors.y)
    return relative(tensors.y, exact)


def relative(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference relative to the norm of what is exact."""
    return float((found.double() - exact).norm() / exact.norm())


def bits_repeat(lines: Lines, tensors: Tensors) -> bool:
    """Whether 100 results and sums have equal bits, each written over poison."""

    def computed() -> list[Tensor]:
        tensors.y.fill_(math.nan)
        parts = lines(tensors.x, tensors.weight, tensors.y, tensors.normed)
        return [tensors.y.view(torch.int16), *(() if parts is None else (parts.values.view(torch.int32),))]

    first = [result.clone() for result in computed()]
    differences = torch.zeros((), dtype=torch.int64, device=DEVICE)
    for _ in range(_REPEATS):
        for result, expected in zip(computed(), first, strict=True):
            differences += (result != expected).sum()
    return not int(differences)


if __name__ == "__main__":
    tyro.cli(main)
