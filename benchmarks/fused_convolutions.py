"""Times convolutions with batch norm's sums in their epilogue, and kernels that start before others end.

Two questions of [gpu.md](gpu.md), each answered by numbers or by the error that stood in the way.

**Sums in the epilogue.** Forward, a convolution's results are read again for batch norm's statistics;
backward, the gradient of its input for ReLU's mask and two sums. The kernels of ``convolution_kernels.py``
and the package's own (``lines``) add them up as they write. For the 3x3 convolutions of ResNet-18 each is
timed without sums, with sums of parts, and with these merged, beside the package's named cuDNN plan and the
plan followed by the package's own reduction. It is ``taken`` where it is within 10% of the plan and, with
merged sums, faster than plan and reduction.

The same for the few channels of ResNet-20 at batch 128, with the batch norm before the convolution taken
along as its input is read, beside three kernels: the package's pass, the plan, and the package's reduction.

**Programmatic dependent launch.** The package's Triton kernels are given ``griddepcontrol`` instructions and
launched so that each may start before its predecessor ends: a chain of the batch norms of each stage of
ResNet-18, and the whole step at batch 256, as they are and so.

Timings are medians of 20 replays of a CUDA graph of 20 launches, all candidates in turn, on so many sets of
tensors that no L2 cache holds them. Each part is a process of its own with its own time limit, and begins
anew behind a convolution that lost the device or never ended; all compile at once and measure one after the
other.

    python benchmarks/fused_convolutions.py
    python benchmarks/fused_convolutions.py --parts lines --operations forward --seconds 60

Each row is printed at once as a line of JSON, a failure with its ``error``. All times are microseconds.
"""

from __future__ import annotations

import argparse
import ast
import functools
import gc
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn
from triton.runtime.jit import JITFunction

from tombola.training.cuda import kernels, norm
from tombola.training.cuda.cudnn import Convolution, ConvolutionPlan, plan
from tombola.training.cuda.norm import Normed
from tombola.training.cuda.plans import table_for
from tombola.training.cuda.tiles import LineProduct
from tombola.training.cuda.tiles import Tiles as LineTiles

PARTS = {"plain": 45, "norms": 45, "lines": 70, "step": 60, "few": 40, "tma": 45}
"""Each part and the seconds that it may take once it is its turn."""

SHAPES = ((64, 32), (128, 16), (256, 8), (512, 4))
"""Channels and the side of the images."""

BATCHES = (256, 100)
FEW_SHAPES, FEW_BATCH = ((16, 32), (32, 16), (64, 8)), 128
"""Of ResNet-20."""

LAUNCHES, REPLAYS, REPEATS = 20, 20, 100
DEVICE = "cuda"
_SPREAD_BYTES = 120e6  # an H200's L2 cache has 60 MB
_MULTIPROCESSORS = 132
_SMALL = 10  # images of the check against float64
_EPS, _MOMENTUM = 1e-5, 0.1
_CASE_SECONDS = 15

Launch = tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--operations", nargs="+", choices=("forward", "input"), default=["forward", "input"])
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=185, help="after which whatever still runs is ended")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is None:
        supervise(options)
        return
    torch.set_num_threads(1)
    with torch.cuda.stream(torch.cuda.Stream()):
        if options.part == "norms":
            measure_norms()
        elif options.part == "step":
            measure_step()
        elif options.part == "few":
            measure_few_channels(options.operations)
        else:
            measure_convolutions(options.part, options.operations, options.batches, options.skip)


def supervise(options: argparse.Namespace) -> None:
    """Start a process for each part, and let them measure one after the other."""
    started = time.perf_counter()
    arguments = ["--operations", *options.operations, "--batches", *map(str, options.batches)]
    say(part="all", gpu=torch.cuda.get_device_name(), torch=torch.__version__, triton=triton.__version__)
    processes = {
        part: subprocess.Popen(
            [sys.executable, __file__, "--part", part, *arguments], stdin=subprocess.PIPE, text=True
        )
        for part in options.parts
    }
    for part, process in processes.items():
        begun = time.perf_counter()
        left = started + options.seconds - begun
        try:
            if left > 0:
                process.stdin.write("measure\n")
                process.stdin.flush()
            process.wait(max(min(PARTS[part], left), 0.1))
        except (subprocess.TimeoutExpired, OSError) as error:
            say(part=part, error=f"ended: {type(error).__name__}")
        finally:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        say(part=part, seconds=round(time.perf_counter() - begun, 1), status=process.returncode)
    say(part="all", seconds=round(time.perf_counter() - started, 1))


def say(**row: Any) -> None:
    """Print a row as one line, in one piece, whatever other processes print."""
    os.write(1, (json.dumps(row) + "\n").encode())


def wait_for_turn() -> None:
    sys.stdin.readline()


# Convolutions


@dataclass(frozen=True)
class Case:
    """A 3x3 convolution with stride 1: ``operation`` is ``"forward"``, or ``"input"`` for its gradient."""

    operation: str
    channels: int
    side: int
    batch: int

    @property
    def rows(self) -> int:
        return self.batch * self.side**2

    @property
    def product(self) -> Convolution:
        shape = self.batch, self.channels, self.side, self.side
        return Convolution(self.operation, shape, (self.channels, self.channels, 3, 3), (1, 1), (1, 1))


class Tensors(NamedTuple):
    """What one launch reads and writes.

    x: what is convolved, ``(N, C, H, W)``; for ``"input"`` the gradient of the output.
    y: what is written. seen: the input of the batch norm whose gradient follows; read for ``"input"`` only.
    """

    x: Tensor
    weight: Tensor
    y: Tensor
    seen: Tensor


class Sums:
    """Results of batch norm's sums, and room for those of the parts."""

    def __init__(self, channels: int, seed: int = 1) -> None:
        def numbers(value: float) -> Tensor:
            return torch.full((channels,), value, dtype=torch.float32, device=DEVICE)

        draws = torch.Generator(DEVICE).manual_seed(seed)
        self.partial = torch.empty(2 * 2048 * channels, device=DEVICE)
        self.counters = torch.zeros(channels, dtype=torch.int32, device=DEVICE)
        self.mean, self.rstd, self.running_mean, self.running_var = (numbers(value) for value in (0, 1, 0, 1))
        self.dweight, self.dbias = numbers(0), numbers(0)
        # Of the norm that a gradient goes back through.
        self.centre = 0.1 * torch.randn(channels, generator=draws, device=DEVICE)
        self.deviation = 1 + 0.1 * torch.rand(channels, generator=draws, device=DEVICE)
        self.gamma = 1 + 0.1 * torch.randn(channels, generator=draws, device=DEVICE)
        self.beta = 0.1 * torch.randn(channels, generator=draws, device=DEVICE)

    def results(self, operation: str) -> tuple[Tensor, Tensor]:
        return (self.mean, self.rstd) if operation == "forward" else (self.dbias, self.dweight)


@dataclass(frozen=True)
class Tiles:
    """How a kernel cuts a convolution up.

    images, tall: lines of pixels of a tile; out: channels of it; stages: of pixels, and of weights.
    apart: of ``lines``, whether two groups of warps take tiles of their own.
    """

    images: int
    tall: int
    out: int
    warps: int = 8
    stages: tuple[int, int] = (3, 0)
    apart: bool = False


# By kernel and channels; the first that fits best at batch 256, then one for fewer images.
TILES: dict[str, dict[int, tuple[Tiles, ...]]] = {
    "plain": {
        64: (Tiles(1, 4, 64, 4), Tiles(1, 8, 64, 8)),
        128: (Tiles(1, 8, 128, 8), Tiles(1, 8, 64, 4)),
        256: (Tiles(2, 8, 128, 8), Tiles(1, 8, 128, 4)),
        512: (Tiles(8, 4, 128, 8), Tiles(4, 4, 128, 4)),
    },
    "tma": {
        64: (Tiles(1, 4, 64, 4, (4, 0)), Tiles(1, 8, 64, 8, (4, 0))),
        128: (Tiles(1, 8, 128, 8, (4, 0)), Tiles(1, 16, 128, 8, (4, 0))),
        256: (Tiles(2, 8, 128, 8, (4, 0)), Tiles(1, 8, 128, 4, (4, 0))),
        512: (Tiles(8, 4, 128, 8, (4, 0)), Tiles(4, 4, 128, 4, (4, 0))),
    },
    "lines": {
        64: (Tiles(1, 8, 64, 4, (2, 9), True), Tiles(1, 4, 64, 4, (4, 9), True)),
        128: (Tiles(1, 16, 128, 4, (2, 4)), Tiles(1, 8, 128, 4, (3, 6))),
        256: (Tiles(4, 8, 128, 4, (3, 4)), Tiles(2, 8, 128, 4, (5, 5))),
        512: (Tiles(8, 4, 128, 4, (5, 5)), Tiles(4, 4, 128, 4, (6, 6))),
    },
}


def tensors_of(case: Case, sets: int) -> list[Tensors]:
    draws = torch.Generator(DEVICE).manual_seed(0)
    shape, square = (case.batch, case.channels, case.side, case.side), (case.channels, case.channels, 3, 3)

    def drawn(shape: Sequence[int], scale: float = 1.0) -> Tensor:
        values = scale * torch.randn(tuple(shape), generator=draws, device=DEVICE)
        return values.bfloat16().contiguous(memory_format=torch.channels_last)

    sets_drawn = []
    for _ in range(sets):
        x, weight, seen = drawn(shape), drawn(square, (9 * case.channels) ** -0.5), drawn(shape)
        sets_drawn.append(Tensors(x, weight, torch.empty_like(x), seen))
    return sets_drawn


def sets_of(case: Case) -> int:
    """So many sets of tensors that what is read and written does not stay in the L2 cache."""
    read = 3 if case.operation == "input" else 2
    numel = read * case.rows * case.channels + 9 * case.channels**2
    return max(2, min(LAUNCHES, math.ceil(_SPREAD_BYTES / (2 * numel))))


def convolution_launch(
    kind: str, case: Case, tiles: Tiles, tensors: Tensors, sums: Sums, with_sums: bool
) -> tuple[Launch, int, int]:
    """The launch of one of our kernels, rows of a part, and number of parts."""
    if kind == "lines":
        return lines_launch(case, tiles, tensors, sums, with_sums)
    import convolution_kernels as own

    side, channels = case.side, case.channels
    at_once = tiles.images * tiles.tall * side
    across = channels // tiles.out
    wanted = max(1, 2 * _MULTIPROCESSORS // across)
    rows_each = triton.cdiv(triton.cdiv(case.rows, wanted), at_once) * at_once
    parts = triton.cdiv(case.rows, rows_each)
    gradient = case.operation == "input"
    norm_numbers = sums.centre, sums.deviation, sums.gamma, sums.beta
    numbers = *norm_numbers, sums.partial, case.rows, rows_each, parts
    common = {"HEIGHT": side, "WIDTH": side, "CHANNELS": channels, "OUT": tiles.out}
    common |= {"GRADIENT": gradient, "SUMS": with_sums, "num_warps": tiles.warps}
    x, weight, y, seen = tensors
    if kind == "plain":
        launch: Launch = (
            own.plain_kernel, (parts, across), (x, weight, y, seen, *numbers),
            {**common, "ROWS": at_once, "DEPTH": 64, "STAGES": tiles.stages[0]},
        )  # fmt: skip
        return launch, rows_each, parts
    images = [len(x), side, side, channels]
    strides = [side * side * channels, side * channels, channels, 1]
    taps = [channels, 9 * channels], [9 * channels, 1], [64, tiles.out] if gradient else [tiles.out, 64]
    pixels = descriptor(x, images, strides, [tiles.images, tiles.tall, side, 64])
    launch = (
        own.tma_kernel, (parts, across), (pixels, descriptor(weight, *taps), y, seen, *numbers),
        {**common, "IMAGES": tiles.images, "TALL": tiles.tall, "DEPTH": 64, "STAGES": tiles.stages[0]},
    )  # fmt: skip
    return launch, rows_each, parts


def lines_launch(
    case: Case, tiles: Tiles, tensors: Tensors, sums: Sums, with_sums: bool
) -> tuple[Launch, int, int]:
    """The same of the package's kernel."""
    from tombola.training.cuda.lines import Lines, lines_kernel

    product = LineProduct(case.operation, case.channels, case.side, case.batch, with_sums)  # type: ignore[arg-type]
    cut = LineTiles(tiles.images, tiles.tall, tiles.out, *tiles.stages, tiles.apart)
    own = Lines(product, cut)
    x, weight, y, seen = tensors
    normed = Normed(seen, sums.centre, sums.deviation, sums.gamma, sums.beta)
    partial = sums.partial if with_sums else sums.partial[:1]
    backward = normed if with_sums and case.operation == "input" else None
    grid, arguments, options = own.launch(x, weight, y, partial, backward)
    return (lines_kernel, grid, arguments, options), own.rows_each, own.parts


def descriptor(tensor: Tensor, shape: list[int], strides: list[int], block: list[int]) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(tensor, shape, strides, block)


def merge_launch(case: Case, rows_each: int, parts: int, sums: Sums) -> Launch:
    """The package's own merge of the sums of parts."""
    merged, channels = triton.next_power_of_2(parts), case.channels
    width = norm._MERGED_CHANNELS
    grid, options = (channels // width,), {"CHANNELS": width, "MERGED": merged, "num_warps": 4}
    if case.operation == "input":
        numbers = sums.partial, parts, sums.deviation, sums.dweight, sums.dbias, channels
        return norm._merge_gradients_kernel, grid, numbers, options
    statistics = sums.mean, sums.rstd, sums.running_mean, sums.running_var, None, None
    sizes = case.rows, channels, rows_each, _MOMENTUM, _EPS, float(case.batch)
    options |= {"HAS_CONV_BIAS": False, "AVERAGED": False}
    return norm._merge_statistics_kernel, grid, (sums.partial, parts, *statistics, *sizes), options


def reduction_launch(case: Case, tensors: Tensors, sums: Sums) -> Launch:
    """The package's own reduction over what a plan has written."""
    rows, channels = case.rows, case.channels
    grid, rows_each, wide = norm._reduction(rows, channels)
    sizes = {"CHANNELS": wide, "ROWS": norm._REDUCED_ROWS, "MERGED": triton.next_power_of_2(grid[0])}
    sizes["num_warps"] = norm._REDUCING_WARPS
    y, seen = tensors.y, tensors.seen
    if case.operation == "forward":
        numbers = sums.partial, sums.counters, sums.mean, sums.rstd, sums.running_mean, sums.running_var
        scalars = None, None, rows, channels, rows_each, _MOMENTUM, _EPS, float(case.batch)
        options = {"HAS_CONV_BIAS": False, "AVERAGED": False}
        return norm._statistics_kernel, grid, (y, *numbers, *scalars), {**options, **sizes}
    read = y, y, seen, None, None, y, sums.partial, sums.counters
    norm_numbers = sums.centre, sums.deviation, sums.gamma, sums.beta
    options = {
        "TWICE": False,
        "RESIDUAL": False,
        "RELU": True,
        "REWRITE": False,
        "GRID": None,
        "SIGNS": False,
    }
    arguments = *read, *norm_numbers, sums.dweight, sums.dbias, rows, channels, rows_each
    return norm._gradient_sums_kernel, grid, arguments, {**options, **sizes}


def run(launch: Launch) -> None:
    kernel, grid, arguments, options = launch
    kernel[grid](*arguments, **options)


def compile_ahead(launch: Launch) -> Any:
    kernel, grid, arguments, options = launch
    return getattr(kernel, "function", kernel).warmup(
        *arguments, grid=grid, **options
    )  # the package's, or ours


def run_plan(one: ConvolutionPlan, case: Case, tensors: Tensors) -> None:
    if case.operation == "forward":
        one(tensors.x, tensors.weight, tensors.y)
    else:
        one(tensors.y, tensors.weight, tensors.x)


def measure_convolutions(kind: str, operations: Sequence[str], batches: Sequence[int], skipped: int) -> None:
    cases = [
        Case(operation, *shape, batch) for operation in operations for shape in SHAPES for batch in batches
    ]
    all_sums = {channels: Sums(channels) for channels, _ in SHAPES}
    failed = compile_convolutions(kind, cases, all_sums)
    if not skipped:
        wait_for_turn()
    version = torch.backends.cudnn.version()
    table = table_for(torch.cuda.get_device_name(), version)
    for number, case in enumerate(cases[skipped:], start=skipped):
        head = {
            "part": kind, "operation": case.operation, "shape": f"{case.channels}@{case.side}x{case.side}",
            "batch": case.batch,
        }  # fmt: skip
        algorithm = None if table is None else table.algorithms.get(case.product)
        if algorithm is None:
            say(**head, error=f"no plan for cuDNN {version}")
            continue
        tiles = [
            one for one in TILES[kind][case.channels] if (case.operation, case.channels, one) not in failed
        ]
        with begun_anew_after(_CASE_SECONDS, head, number + 1):
            try:
                measure_case(head, kind, case, tiles, plan(case.product, algorithm), all_sums[case.channels])
                torch.cuda.synchronize()
            except Exception as error:
                say(**head, error=short(error))
                if is_lost():
                    begin_anew(number + 1)
        gc.collect()


def is_lost() -> bool:
    """Whether the device does no more work for this process."""
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device=DEVICE).item()
    except RuntimeError:
        return True
    return False


@contextmanager
def begun_anew_after(seconds: float, head: dict[str, Any], skipped: int) -> Iterator[None]:
    """Context that, should it take too long, begins this process anew behind the first cases."""

    def give_up() -> None:
        say(**head, error=f"not done after {seconds} s")
        begin_anew(skipped)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def begin_anew(skipped: int) -> None:
    arguments = sys.argv[1:]
    if "--skip" in arguments:
        arguments = arguments[: arguments.index("--skip")]
    os.execv(sys.executable, [sys.executable, __file__, *arguments, "--skip", str(skipped)])


def short(error: BaseException) -> str:
    """The innermost cause of an error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"[-400:].replace("\n", " ")


def compile_convolutions(kind: str, cases: Sequence[Case], all_sums: dict[int, Sums]) -> set[Any]:
    """Compile all kernels in parallel; returns operation, channels and tiles of those that do not compile."""
    launches = {}
    for operation, channels, side in dict.fromkeys((one.operation, one.channels, one.side) for one in cases):
        small = Case(operation, channels, side, _SMALL)
        (tensors,) = tensors_of(small, 1)
        for tiles in TILES[kind][channels]:
            for with_sums in (False, True):
                key = operation, channels, tiles, with_sums
                launches[key] = convolution_launch(
                    kind, small, tiles, tensors, all_sums[channels], with_sums
                )[0]
    failed = set()
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        pending = {key: pool.submit(compile_ahead, launch) for key, launch in launches.items()}
        for (operation, channels, tiles, _), result in pending.items():
            try:
                result.result()
            except Exception as error:
                failed.add((operation, channels, tiles))
                say(part=kind, operation=operation, channels=channels, tiles=str(tiles), error=short(error))
    seconds = round(time.perf_counter() - started, 1)
    say(part=kind, compiled=len(launches), failed=len(failed), seconds=seconds)
    return failed


def measure_case(
    head: dict[str, Any],
    kind: str,
    case: Case,
    all_tiles: Sequence[Tiles],
    named: ConvolutionPlan,
    sums: Sums,
) -> None:
    """Check and time our kernels beside the plan; a row for each way to cut the case up."""
    sets = tensors_of(case, sets_of(case))
    work: dict[Any, Callable[[Tensors], None]] = {}

    def with_reduction(tensors: Tensors) -> None:
        run_plan(named, case, tensors)
        run(reduction_launch(case, tensors, sums))

    work["plan"] = lambda tensors: run_plan(named, case, tensors)
    work["plan + reduction"] = with_reduction
    checks = {}
    for tiles in all_tiles:
        try:
            checks[tiles] = checked(kind, case, tiles, named, sets[0], sums)
        except Exception as error:
            say(**head, tiles=str(tiles), error=short(error))
            if is_lost():
                raise
            continue
        for name in ("none", "parts", "merged"):
            work[tiles, name] = functools.partial(run_own, kind, case, tiles, sums, name)
    times = timed_in_turns(work, sets)
    plan_time, both = times["plan"], times["plan + reduction"]
    for tiles, check in checks.items():
        own, parts, merged = (times[tiles, name] for name in ("none", "parts", "merged"))
        right = check["bits_repeat"] and check["error"] < 0.01 and check["sums_error"] < 1e-3
        say(
            **head, plan=plan_time, reduction=round(both - plan_time, 2), plan_and_reduction=both, ours=own,
            ours_with_parts=parts, ours_with_sums=merged, ratio=round(own / plan_time, 3),
            saved=round(both - merged, 2), taken=bool(right and own <= 1.1 * plan_time and merged < both),
            tiles=f"{tiles.images}x{tiles.tall}x{case.side} pixels, {tiles.out} channels", **check,
        )  # fmt: skip


def run_own(kind: str, case: Case, tiles: Tiles, sums: Sums, name: str, tensors: Tensors) -> None:
    launch, rows_each, parts = convolution_launch(kind, case, tiles, tensors, sums, name != "none")
    run(launch)
    if name == "merged":
        run(merge_launch(case, rows_each, parts, sums))


def checked(
    kind: str, case: Case, tiles: Tiles, named: ConvolutionPlan, tensors: Tensors, sums: Sums
) -> dict[str, Any]:
    """Errors of one of our kernels, and whether its bits repeat.

    error: of few images, relative to float64; error_pytorch: PyTorch's. error_plan: difference to the plan,
    of the whole batch. sums_error: of both sums, relative to float64.
    """
    small = Case(case.operation, case.channels, case.side, _SMALL)
    (few,) = tensors_of(small, 1)
    few.y.fill_(math.nan)
    run_own(kind, small, tiles, sums, "none", few)
    expected = by_pytorch(case.operation, few.x.double(), few.weight.double())
    error = relative(few.y, expected)
    error_pytorch = relative(by_pytorch(case.operation, few.x, few.weight), expected)
    run_plan(named, case, tensors)
    planned = tensors.y.clone()
    tensors.y.fill_(math.nan)
    run_own(kind, case, tiles, sums, "none", tensors)
    error_plan = relative(tensors.y, planned.double())
    tensors.y.fill_(math.nan)
    run_own(kind, case, tiles, sums, "merged", tensors)
    firsts = [tensors.y.clone(), *(result.clone() for result in sums.results(case.operation))]
    sums_error = max(
        relative(result, wanted)
        for result, wanted in zip(firsts[1:], sums_in_float64(case, tensors, sums, planned), strict=True)
    )
    differences = torch.zeros((), dtype=torch.int64, device=DEVICE)
    for _ in range(REPEATS):
        for result in (tensors.y, *sums.results(case.operation), sums.partial):
            result.fill_(math.nan)
        run_own(kind, case, tiles, sums, "merged", tensors)
        for result, first in zip((tensors.y, *sums.results(case.operation)), firsts, strict=True):
            differences += (result != first).sum()
    return {
        "error": float(f"{error:.3g}"), "error_pytorch": float(f"{error_pytorch:.3g}"),
        "error_plan": float(f"{error_plan:.3g}"), "sums_error": float(f"{sums_error:.3g}"),
        "bits_repeat": int(differences) == 0,
    }  # fmt: skip


def by_pytorch(operation: str, x: Tensor, weight: Tensor) -> Tensor:
    if operation == "forward":
        return torch.conv2d(x, weight, padding=1)
    return torch.nn.grad.conv2d_input(x.shape, weight, x, padding=1)


def relative(result: Tensor, wanted: Tensor) -> float:
    return float((result.double() - wanted).norm() / wanted.norm())


def sums_in_float64(case: Case, tensors: Tensors, sums: Sums, planned: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of what was written, and that what was written is the masked gradient."""
    written = tensors.y.double()

    def over(values: Tensor) -> Tensor:
        return values.sum((0, 2, 3))

    if case.operation == "forward":
        mean = written.mean((0, 2, 3))
        return mean, 1 / (written.var((0, 2, 3), correction=0) + _EPS).sqrt()
    centred = tensors.seen.float() - sums.centre[:, None, None]
    out = centred * (sums.deviation * sums.gamma)[:, None, None] + sums.beta[:, None, None]
    masked = torch.where(out <= 0, 0.0, planned.double())
    # A rounding may put what is all but zero on the other side of the mask.
    if not relative(tensors.y, masked) < 0.01:
        raise ValueError(f"the masked gradient is off by {relative(tensors.y, masked):.3g}")
    return over(written), over(written * centred.double()) * sums.deviation.double()


def timed_in_turns(work: dict[Any, Callable[[Tensors], None]], sets: Sequence[Tensors]) -> dict[Any, float]:
    """Median microseconds of each, under graphs that are replayed in turn."""
    graphs = {name: captured(call, sets) for name, call in work.items()}
    for graph in graphs.values():
        graph.replay()
    times: dict[Any, list[float]] = {name: [] for name in graphs}
    for _ in range(REPLAYS):
        for name, graph in graphs.items():
            times[name].append(replay_microseconds(graph) / LAUNCHES)
    return {name: round(statistics.median(replays), 2) for name, replays in times.items()}


def captured(call: Callable[[Tensors], None], sets: Sequence[Tensors]) -> torch.cuda.CUDAGraph:
    call(sets[0])
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        for launch in range(LAUNCHES):
            call(sets[launch % len(sets)])
    finally:
        graph.capture_end()
    return graph


def replay_microseconds(graph: torch.cuda.CUDAGraph) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end)


# Few channels


class FewTensors(NamedTuple):
    """What one launch with a norm before the convolution reads and writes.

    x: the norm's input, or for ``"input"`` the masked gradient of its output. inner: the norm's input.
    between: what the norm's pass writes for the plan to read. The others are as in :class:`Tensors`.
    """

    x: Tensor
    inner: Tensor
    between: Tensor
    weight: Tensor
    y: Tensor
    seen: Tensor


def measure_few_channels(operations: Sequence[str]) -> None:
    """Norm, convolution and sums in one kernel, beside the package's pass, the plan and its reduction.

    The gradient of the weight, which reads the norm's output too, is left out on both sides.
    """
    wait_for_turn()
    version = torch.backends.cudnn.version()
    table = table_for(torch.cuda.get_device_name(), version)
    for operation in operations:
        for channels, side in FEW_SHAPES:
            case = Case(operation, channels, side, FEW_BATCH)
            head = {"part": "few", "operation": operation, "shape": f"{channels}@{side}x{side}"}
            try:
                algorithm = None if table is None else table.algorithms.get(case.product)
                if algorithm is None:
                    say(**head, error=f"no plan for cuDNN {version}")
                else:
                    measure_few_case(head, case, plan(case.product, algorithm))
            except Exception as error:
                say(**head, error=short(error))


def measure_few_case(head: dict[str, Any], case: Case, named: ConvolutionPlan) -> None:
    before, after = Sums(case.channels, seed=2), Sums(case.channels)
    draws = torch.Generator(DEVICE).manual_seed(3)
    for result in (before.dweight, before.dbias):
        result.copy_(case.rows * 0.1 * torch.randn(case.channels, generator=draws, device=DEVICE))
    sets = [few_tensors(case, tensors, before) for tensors in tensors_of(case, sets_of(case))]

    def apart(tensors: FewTensors) -> None:
        run(pass_launch(case, tensors, before))
        plain = Tensors(tensors.between, tensors.weight, tensors.y, tensors.seen)
        run_plan(named, case, plain)
        run(reduction_launch(case, plain, after))

    work: dict[Any, Callable[[Any], None]] = {
        "plan": lambda tensors: run_plan(
            named, case, Tensors(tensors.between, tensors.weight, tensors.y, tensors.seen)
        ),
        "apart": apart,
    }
    checks = {}
    for rows, warps in ((128, 4), (256, 8), (64, 2)):
        own = functools.partial(run_few, case, rows, warps, before, after)
        try:
            checks[rows] = few_checks(case, own, apart, sets[0], after)
            work[rows] = own
        except Exception as error:
            say(**head, rows=rows, error=short(error))
    times = timed_in_turns(work, sets)
    for rows, check in checks.items():
        say(
            **head, batch=FEW_BATCH, plan=times["plan"], norm_plan_and_reduction=times["apart"],
            ours=times[rows], saved=round(times["apart"] - times[rows], 2), rows=rows, **check,
        )  # fmt: skip


def few_tensors(case: Case, tensors: Tensors, before: Sums) -> FewTensors:
    x, inner = tensors.x, torch.randn_like(tensors.x)
    if case.operation == "forward":
        x = inner
    else:
        centred = inner.float() - before.centre[:, None, None]
        out = centred * (before.deviation * before.gamma)[:, None, None] + before.beta[:, None, None]
        x = torch.where(out <= 0, 0.0, x.float()).to(x.dtype)
    between = torch.empty_like(inner)
    return FewTensors(x, inner, between, tensors.weight, tensors.y, tensors.seen)


def pass_launch(case: Case, tensors: FewTensors, before: Sums) -> Launch:
    """The package's own second pass of a batch norm, forward or backward."""
    rows, channels = case.rows, case.channels
    grid, tall, wide = norm._elementwise(rows, channels)
    sizes = {"RELU": True, "CHANNELS": wide, "ROWS": tall, "num_warps": 8}
    numbers = before.centre, before.deviation, before.gamma, before.beta
    if case.operation == "forward":
        options = {"LEARNED": False, "HAS_CONV_BIAS": False, "RESIDUAL": False, "GRID": None, "SIGNS": False}
        arguments = tensors.x, None, tensors.between, None, None, *numbers, None, rows, channels, _EPS
        return norm._normalise_kernel, grid, arguments, {**options, **sizes}
    sums = before.dweight, before.dbias
    arguments = tensors.x, tensors.inner, tensors.between, *numbers, *sums, rows, channels
    return norm._gradient_kernel, grid, arguments, sizes


def run_few(case: Case, rows: int, warps: int, before: Sums, after: Sums, tensors: FewTensors) -> None:
    import convolution_kernels as own

    rows_each = triton.cdiv(triton.cdiv(case.rows, 4 * _MULTIPROCESSORS), rows) * rows
    parts = triton.cdiv(case.rows, rows_each)
    x, inner, _, weight, y, seen = tensors
    own.few_channels_kernel[(parts,)](
        x, inner, weight, y, seen, before.centre, before.deviation, before.gamma, before.beta,
        before.dweight, before.dbias, after.centre, after.deviation, after.gamma, after.beta, after.partial,
        case.rows, rows_each, parts, HEIGHT=case.side, WIDTH=case.side, CHANNELS=case.channels, ROWS=rows,
        STAGES=3, GRADIENT=case.operation == "input", num_warps=warps,
    )  # fmt: skip
    run(merge_launch(case, rows_each, parts, after))


def few_checks(
    case: Case,
    own: Callable[[FewTensors], None],
    apart: Callable[[FewTensors], None],
    tensors: FewTensors,
    after: Sums,
) -> dict[str, Any]:
    """Difference to pass, plan and reduction, of results and of sums, and whether bits repeat."""
    apart(tensors)
    expected = [tensors.y.clone(), *(result.clone() for result in after.results(case.operation))]
    if case.operation == "input":  # which the reduction masks as it reads
        centred = tensors.seen.float() - after.centre[:, None, None]
        out = centred * (after.deviation * after.gamma)[:, None, None] + after.beta[:, None, None]
        expected[0] = torch.where(out <= 0, 0.0, expected[0].float())
    differences = torch.zeros((), dtype=torch.int64, device=DEVICE)
    firsts: list[Tensor] = []
    for _ in range(REPEATS + 1):
        for result in (tensors.y, *after.results(case.operation), after.partial):
            result.fill_(math.nan)
        own(tensors)
        results = [tensors.y, *after.results(case.operation)]
        firsts = firsts or [result.clone() for result in results]
        for result, first in zip(results, firsts, strict=True):
            differences += (result != first).sum()
    errors = [relative(first, wanted.double()) for first, wanted in zip(firsts, expected, strict=True)]
    return {
        "error_apart": float(f"{errors[0]:.3g}"), "sums_error": float(f"{max(errors[1:]):.3g}"),
        "bits_repeat": int(differences) == 0,
    }  # fmt: skip


# Programmatic dependent launch

VARIANTS: dict[str, tuple[str, ...]] = {
    "off": (),
    "wait": ("gdc_wait",),
    "wait, then launch": ("gdc_wait", "gdc_launch_dependents"),
    "launch, then wait": ("gdc_launch_dependents", "gdc_wait"),
}
"""What a kernel does first: wait for its predecessor, and let its successor start."""


@functools.cache
def package_kernels() -> tuple[tuple[JITFunction[Any], str], ...]:
    """The package's kernels that are launched, with their source."""
    return tuple((kernel.function, kernel.function.src) for kernel in kernels.KERNELS)


def launch_dependently(variant: str) -> None:
    """Have the package's kernels begin with the instructions of a variant, from their next capture on."""
    for kernel, source in package_kernels():
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        lines = source.splitlines()
        place = body[0].lineno - 1
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place:place] = [f"{indent}tl.extra.cuda.{one}()" for one in VARIANTS[variant]]
        kernel._unsafe_update_src("\n".join(lines) + "\n")
        kernel.device_caches.clear()
        dependent = {"launch_pdl": True} if VARIANTS[variant] else {}
        kernel.run = functools.partial(JITFunction.run, kernel, **dependent)  # type: ignore[method-assign]


def measure_norms() -> None:
    """Chains of the four batch norms of each stage of ResNet-18, forward and backward: 16 kernels."""
    wait_for_turn()
    for channels, side in SHAPES:
        graphs: dict[str, torch.cuda.CUDAGraph] = {}
        digests: dict[str, str] = {}
        errors: dict[str, str] = {}
        for variant in VARIANTS:
            try:
                launch_dependently(variant)
                graph, results = norm_chain(channels, side, BATCHES[0])
                graph.replay()
                torch.cuda.current_stream().synchronize()
                graphs[variant], digests[variant] = graph, digest(results)
            except Exception as error:
                errors[variant] = short(error)
        measured: dict[str, list[float]] = {variant: [] for variant in graphs}
        for _ in range(REPLAYS):
            for variant, graph in graphs.items():
                measured[variant].append(replay_microseconds(graph))
        say(
            part="norms", shape=f"{channels}@{side}x{side}", batch=BATCHES[0], kernels=16,
            times={variant: round(statistics.median(times), 2) for variant, times in measured.items()},
            bits_as_off={variant: one == digests.get("off") for variant, one in digests.items()},
            errors=errors,
        )  # fmt: skip


def norm_chain(channels: int, side: int, batch: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A captured chain of norms with ReLU, every second one after an addition, and what it computes."""
    torch.manual_seed(0)
    shape = batch, channels, side, side
    x, dy = (
        torch.randn(shape, device=DEVICE).bfloat16().contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    x.requires_grad_()
    layers = [
        norm.FusedNorm(
            nn.BatchNorm2d(channels).to(DEVICE), relu=True, conv_bias=None, twice=False, signs=True
        ).train()
        for _ in range(4)
    ]
    leaves = [x, *(parameter for layer in layers for parameter in (layer.norm.weight, layer.norm.bias))]

    def work() -> list[Tensor]:
        y = x
        for number, layer in enumerate(layers):
            y = layer(y, x.detach()) if number % 2 else layer(y)
        return [y, *torch.autograd.grad(y, leaves, dy)]

    for _ in range(3):
        work()
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        results = work()
    finally:
        graph.capture_end()
    return graph, results


def digest(tensors: Sequence[Tensor]) -> str:
    """A digest of the bits of tensors."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return sha.hexdigest()[:12]


def measure_step() -> None:
    """Whole steps of ResNet-18 at batch 256, all variants in turn, and the weights after 100 steps."""
    from tombola.training.cuda.fused import GraphedEvaluation
    from tombola.training.device import repeatable
    from tombola.training.throughput import EPOCH_IMAGES, _random_data

    # Evaluations, which are not timed, would spread over streams in their capture.
    GraphedEvaluation.__init__.__defaults__ = (1,)  # type: ignore[misc]
    data = _random_data(32, 3, 10, EPOCH_IMAGES, True)
    wait_for_turn()
    steps = 100
    engines: dict[str, Any] = {}
    digests: dict[str, str] = {}
    device = torch.device("cuda", torch.cuda.current_device())
    with repeatable(device, "default"), ExitStack() as stack:
        for variant in VARIANTS:
            try:
                launch_dependently(variant)
                engines[variant] = engine_with_plan(data, device, stack)
                engines[variant].advance(0, steps)
                torch.cuda.current_stream().synchronize()
                digests[variant] = digest([engines[variant].flat_network.weights])
            except Exception as error:
                say(part="step", variant=variant, error=short(error))
        measured: dict[str, list[float]] = {variant: [] for variant in engines}
        for _ in range(9):
            for variant, engine in engines.items():
                torch.cuda.current_stream().synchronize()
                started = time.perf_counter()
                engine.advance(0, steps)
                torch.cuda.current_stream().synchronize()
                measured[variant].append(1e6 * (time.perf_counter() - started) / steps)
        for variant, times in measured.items():
            say(
                part="step", network="resnet18", batch=256, variant=variant, engine=engines[variant].name,
                step=round(statistics.median(times), 1), spread=round(max(times) - min(times), 1),
                bits_as_off=digests[variant] == digests.get("off"),
            )  # fmt: skip


def engine_with_plan(data: Any, device: torch.device, stack: ExitStack) -> Any:
    """An engine that is about to train ResNet-18 from its first weights, its steps captured."""
    import tombola as tb
    from tombola.training.choice import engine_for
    from tombola.training.device import resolve_precision
    from tombola.training.preflight import check_trainable
    from tombola.training.recipe import Recipe
    from tombola.training.throughput import _Runner

    ticket, recipe = tb.initialize("resnet18", data), Recipe(epochs=200, batch_size=256)
    draws = check_trainable(ticket.network, data, recipe, ticket.epoch, ticket.step)
    precision = resolve_precision(recipe, device)
    engine = stack.enter_context(
        engine_for(ticket.network, data, recipe, device, precision, "default", draws=draws)
    )
    engine.flat_network.load(ticket.weights(), ticket.mask)
    engine.begin(_Runner("resnet18", data, recipe, device, "default")._plan())
    return engine


if __name__ == "__main__":
    main()
