"""Makes the table of named convolution plans (tombola/training/cuda/plans) for this GPU and this cuDNN.

For every product of the convolutions of some networks (forward, gradient of input, gradient of weight) it
times what cuDNN's heuristics propose, under a CUDA graph, on so many sets of tensors that no L2 cache holds
them, beside what PyTorch takes. A proposal is taken if its error against float64 is at most 5% above
PyTorch's and its bits are equal in 100 repeats over poisoned memory. The file is written after each product.
With ``--evaluation`` these are the forward products of full batches of evaluations instead; with ``--known``
they come behind those of a table, which stay as they are. A table that ships with other plans is a new
version of the GPU's engine (docs/design.md).

Run: python benchmarks/convolutions.py --output table.json [--seconds 240] [--known table.json] [--evaluation]
"""

from __future__ import annotations

import json
import math
import statistics
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
import tyro
from torch import Tensor, nn

import tombola as tb
from tombola.training.cuda.convolution import has_own_weight_gradient, is_of_few_channels, is_of_images
from tombola.training.cuda.cudnn import (
    Algorithm,
    Convolution,
    ConvolutionPlan,
    CudnnError,
    Operation,
    plan,
    proposals,
)
from tombola.training.cuda.plans import fingerprint, read_table
from tombola.training.device import process_settings
from tombola.training.evaluation import EVALUATION_BATCH

# Network, side of its images, batch size: the most wanted first.
NETWORKS = (
    ("resnet18", 32, 256),
    ("resnet18", 32, 100),
    ("vgg16", 32, 256),
    ("resnet20", 32, 128),
    ("vgg16", 32, 100),
    ("resnet34", 64, 256),
)

EVALUATED = tuple(
    (network, side, EVALUATION_BATCH)
    for network, side in (("resnet18", 32), ("vgg16", 32), ("resnet20", 32), ("resnet34", 64))
)
"""The same of evaluations."""

MOST_WORKSPACE = 2**26
_SPREAD_BYTES = 100e6  # that the sets of tensors together have at least; an H200's L2 cache has 60 MB
_FINALISTS, _REPEATS = 5, 100

_KEEPERS: list[torch.cuda.CUDAGraph] = []

Call = Callable[[Tensor, Tensor, Tensor], object]
Tensors = tuple[Tensor, Tensor, Tensor]


def main(output: Path, seconds: float = 240, known: Path | None = None, evaluation: bool = False) -> None:
    """Time all products for as long as there is time.

    output: the table to write.
    seconds: no product is begun after so long.
    known: a table whose products are left out here and taken over.
    evaluation: time those of evaluations alone, in place of those of training.
    """
    started = time.perf_counter()
    if evaluation:
        counts = {network: products(*network, operations=("forward",)) for network in EVALUATED}
    else:
        counts = {network: products(*network) for network in NETWORKS}
    print(f"{sum(map(len, counts.values()))} products of {len(counts)} networks", flush=True)
    device = torch.device("cuda")
    rows: dict[Convolution, dict[str, Any]] = {}
    if known is not None:
        algorithms = read_table(known).algorithms
        rows = dict(zip(algorithms, json.loads(known.read_text())["plans"], strict=True))
    with process_settings("default"), torch.cuda.stream(torch.cuda.Stream()):
        for product in dict.fromkeys(product for counted in counts.values() for product in counted):
            if product in rows or time.perf_counter() - started > seconds:
                continue
            try:
                row = best(product)
            except Exception:
                traceback.print_exc()
                continue
            if row is not None:
                rows[product] = row
                write(output, device, rows)
    for (network, size, batch), counted in counts.items():
        measured = [(count, rows[one]) for one, count in counted.items() if one in rows]
        before, after = (
            sum(count * row[key] for count, row in measured) / 1e3
            for key in ("pytorch_microseconds", "microseconds")
        )
        print(
            f"{network} {size}x{size} batch {batch}: {before:.3f} -> {after:.3f} ms in "
            f"{len(measured)} of {len(counted)} products"
        )
    write(output, device, rows)
    print(f"{time.perf_counter() - started:.0f} s; fingerprint {fingerprint(read_table(output).algorithms)}")


def write(output: Path, device: torch.device, rows: dict[Convolution, dict[str, Any]]) -> None:
    """Write the table, one plan a line."""
    head = {"gpu": torch.cuda.get_device_name(device), "cudnn": torch.backends.cudnn.version()}
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows.values())
    text = json.dumps(head)[:-1] + f', "plans": [\n{lines}\n]}}\n'
    part = output.with_suffix(".part")
    part.write_text(text)
    part.replace(output)


def products(
    name: str, side: int, batch: int, operations: Sequence[Operation] = get_args(Operation)
) -> Counter[Convolution]:
    """The products of one training step of a network and how often each comes, those of most work first.

    operations: those that are wanted.
    """
    images = torch.zeros(20, 3, side, side, dtype=torch.uint8), torch.arange(20) % 10
    network = tb.initialize(name, tb.data_from_tensors(images, images, name="shapes")).network
    module = network.initialized(0).eval()
    seen: Counter[Convolution] = Counter()

    def note(layer: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        shape = (batch, *inputs[0].shape[1:])
        # As the fused network computes: strided 1x1 convolutions and the first one are matrix products.
        if is_of_images(layer) or (layer.kernel_size == (1, 1) and layer.stride != (1, 1)):
            return
        for operation in operations:
            one = Convolution(operation, shape, tuple(layer.weight.shape), layer.stride, layer.padding)
            own = operation == "weight" and has_own_weight_gradient(one.weight, one.output)
            if not (own and is_of_few_channels(layer)) and (operation != "input" or shape[1] != 3):
                seen[one] += 1

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            layer.register_forward_pre_hook(note)
    with torch.no_grad():
        module(torch.zeros(1, *network.shape))
    work = {one: count * math.prod(one.output) * math.prod(one.weight[1:]) for one, count in seen.items()}
    return Counter({one: seen[one] for one in sorted(seen, key=lambda one: -work[one])})


def best(product: Convolution) -> dict[str, Any] | None:
    """The row of the table for a product; None, said, where no proposal passes."""
    started = time.perf_counter()
    sets = tensor_sets(product)
    pytorch = timed(product_by_pytorch(product), sets, replays=5)
    times: dict[Algorithm, float] = {}
    refused = 0
    for algorithm in proposals(product):
        try:
            candidate = ConvolutionPlan(product, algorithm)
            if candidate.workspace <= MOST_WORKSPACE and is_promising(candidate, sets[0], pytorch):
                times[algorithm] = timed(candidate, sets, replays=3)
        except (CudnnError, torch.OutOfMemoryError) as error:
            refused += 1
            print(f"  {algorithm}: {error}", flush=True)
    finalists = sorted(times, key=times.__getitem__)[:_FINALISTS]
    graphs = {one: captured(plan(product, one), sets) for one in finalists}
    graphs[None] = captured(product_by_pytorch(product), sets)
    in_turns: dict[Algorithm | None, list[float]] = {one: [] for one in graphs}
    for _ in range(15):
        for one, graph in graphs.items():
            in_turns[one].append(replay_microseconds(graph, len(sets)))
    medians = {one: statistics.median(found) for one, found in in_turns.items()}
    allowed = 1.05 * error_of(product, product_by_pytorch(product), sets[0]) + 1e-5
    for algorithm in sorted(finalists, key=medians.__getitem__):
        error = error_of(product, plan(product, algorithm), sets[0])
        repeats = bits_repeat(product, plan(product, algorithm), sets[0])
        if error <= allowed and repeats:
            break
        print(f"  {algorithm}: error {error:.2e} of {allowed:.2e}, bits repeat: {repeats}", flush=True)
    else:
        print(f"NONE for {product}")
        return None
    workspace = plan(product, algorithm).workspace
    print(
        f"{product.operation:8} {product.input} {product.weight} stride {product.stride[0]}: "
        f"{medians[None]:.1f} -> {medians[algorithm]:.1f} us, engine {algorithm.engine}, "
        f"{len(times)} of {len(times) + refused} timed, workspace {workspace}, error {error:.2e} of "
        f"{allowed:.2e}, {time.perf_counter() - started:.1f} s",
        flush=True,
    )
    return {
        "operation": product.operation,
        "input": product.input,
        "weight": product.weight,
        "stride": product.stride,
        "padding": product.padding,
        "engine": algorithm.engine,
        "knobs": {str(knob): value for knob, value in algorithm.knobs},
        "workspace": workspace,
        "microseconds": round(medians[algorithm], 2),
        "pytorch_microseconds": round(medians[None], 2),
    }


def tensor_sets(product: Convolution) -> list[Tensors]:
    """Random input, weight and output, in so many sets that a cache does not hold them all."""
    shapes = product.input, product.weight, product.output
    numel = sum(math.prod(shape) for shape in shapes)
    count = max(2, min(16, math.ceil(_SPREAD_BYTES / (2 * numel))))
    draws = torch.Generator("cuda").manual_seed(0)
    fan_in = math.prod(product.weight[1:])

    def drawn(shape: Sequence[int], scale: float) -> Tensor:
        values = scale * torch.randn(tuple(shape), generator=draws, device="cuda")
        return values.bfloat16().contiguous(memory_format=torch.channels_last)

    return [(drawn(shapes[0], 1), drawn(shapes[1], fan_in**-0.5), drawn(shapes[2], 1)) for _ in range(count)]


def written(product: Convolution, tensors: Tensors) -> Tensor:
    """The one of three tensors that a product writes."""
    return tensors[("input", "weight", "forward").index(product.operation)]


def product_by_pytorch(product: Convolution) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A product by PyTorch's own choice, in any precision, which returns its result."""
    rest = product.stride, product.padding, (1, 1), False, (0, 0), 1

    def compute(input: Tensor, weight: Tensor, output: Tensor) -> Tensor:
        if product.operation == "forward":
            return torch.ops.aten.convolution(input, weight, None, *rest)
        mask = [product.operation == "input", product.operation == "weight", False]
        gradients = torch.ops.aten.convolution_backward(output, input, weight, None, *rest, mask)
        return gradients[0] if mask[0] else gradients[1]

    return compute


def is_promising(candidate: ConvolutionPlan, tensors: Tensors, pytorch: float) -> bool:
    """Whether one call takes less than four times what PyTorch takes; one before it loads the code."""
    candidate(*tensors)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    candidate(*tensors)
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end) < max(4 * pytorch, 300)


def captured(call: Call, sets: list[Tensors]) -> torch.cuda.CUDAGraph:
    """A graph that calls on each set once, replayed once."""
    call(*sets[0])
    graph = capture(lambda: [call(*tensors) for tensors in sets], _pool())
    graph.replay()
    return graph


def capture(work: Callable[[], object], pool: Any) -> torch.cuda.CUDAGraph:
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(pool, capture_error_mode="thread_local")
    try:
        work()
    finally:
        graph.capture_end()
    return graph


@cache
def _pool() -> Any:
    """The memory that all graphs share, which one of them keeps: they run one after the other."""
    pool = torch.cuda.graph_pool_handle()
    _KEEPERS.append(capture(lambda: torch.zeros(1, device="cuda"), pool))
    return pool


def replay_microseconds(graph: torch.cuda.CUDAGraph, calls: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end) / calls


def timed(call: Call, sets: list[Tensors], replays: int) -> float:
    """Median microseconds of a call."""
    graph = captured(call, sets)
    return statistics.median(replay_microseconds(graph, len(sets)) for _ in range(replays))


def error_of(product: Convolution, call: Call, tensors: Tensors) -> float:
    """Norm of the difference to the product in float64, relative to its norm."""
    target = written(product, tensors)
    kept = target.clone()
    target.fill_(math.nan)
    result = call(*tensors)
    found = (result if isinstance(result, Tensor) else target).double()
    target.copy_(kept)
    expected = product_by_pytorch(product)(*(tensor.double() for tensor in tensors))
    return float((found - expected).norm() / expected.norm())


def bits_repeat(product: Convolution, call: Call, tensors: Tensors) -> bool:
    """Whether 100 results have equal bits, each written over poison."""
    target = written(product, tensors)
    kept = target.clone()
    call(*tensors)
    first = target.clone().view(torch.int16)
    differences = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(_REPEATS):
        target.fill_(math.nan)
        call(*tensors)
        differences += (target.view(torch.int16) != first).sum()
    target.copy_(kept)
    return not int(differences)


if __name__ == "__main__":
    tyro.cli(main)
