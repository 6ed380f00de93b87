"""What a training does where a GPU's memory nearly suffices: its bits, an error, or other bits in silence.

    python benchmarks/full_memory.py
    python benchmarks/full_memory.py --unwatched
    python benchmarks/full_memory.py --neighbour 20 --bounds 12 --precision float32

A convolution whose workspace does not fit is computed by another algorithm, and PyTorch does not say so.
Under one bound on memory after the other, from ample to too small, a ResNet-18 is trained for an epoch, each
time in a process of its own. It must end with the bits it has under no bound, or with an error.
``--unwatched`` shows what it does where nobody looks for failed allocations. With ``--neighbour`` nothing
bounds the process itself: another one fills the GPU and leaves that many GiB, then fewer, so that what cuDNN
and the driver allocate by themselves, which PyTorch does not count, fails as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import report

import tombola as tb
from tombola.errors import DeviceError, DeviceLost
from tombola.training.cuda import memory

_IMAGES = 1024
_PATIENCE = 90
"""Seconds that a training of one epoch may take, start and compilation included."""


def trained(batch_size: int, precision: str, megabytes: int | None, *, watched: bool) -> dict[str, Any]:
    """Train under a bound in this process; its outcome, peak of memory in MB, and failed allocations."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(_IMAGES) % 10
    data = tb.data_from_tensors((images, labels), (images[:500], labels[:500]), name="full")
    recipe = tb.Recipe(epochs=1, batch_size=batch_size, precision=precision)  # type: ignore[arg-type]
    if not watched:
        memory._look = lambda index: None
    if megabytes is not None:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(megabytes * 1e6 / whole)
    try:
        outcome = tb.train(tb.initialize("resnet18", data), data, recipe, device="cuda").fingerprint
    except DeviceLost:
        outcome = "lost"
    except DeviceError:
        outcome = "too small"
    except RuntimeError as error:  # of CUDA, cuDNN or cuBLAS
        outcome = f"error: {str(error).splitlines()[0][:60]}"
        if "out of memory" in str(error).lower():
            outcome = "too small"
    failed = torch.cuda.memory_stats_as_nested_dict(0)["num_ooms"]
    return {"outcome": outcome, "MB": torch.cuda.max_memory_reserved() / 1e6, "failed": failed}


def in_own_process(*arguments: object) -> dict[str, Any]:
    """The same, in a new process."""
    command = [sys.executable, str(Path(__file__)), *map(str, arguments), "--one"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return {"outcome": f"error: no end in {_PATIENCE} s", "MB": 0.0, "failed": 0}
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"]
        return {"outcome": f"error: {lines[-1][:60]}", "MB": 0.0, "failed": 0}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def fill() -> None:
    """For each line of standard input, fill the GPU but for so many MiB, and say how many are left."""
    held: list[torch.Tensor] = []
    for line in sys.stdin:
        held.clear()
        for size in (2**30, 2**26, 2**21):
            while torch.cuda.mem_get_info()[0] - size > int(line) * 2**20:
                held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        print(torch.cuda.mem_get_info()[0] // 2**20, flush=True)


@contextmanager
def neighbour() -> Iterator[Callable[[int], int]]:
    """A process that fills the GPU: called with the MiB to leave, it returns those that are left."""
    command = [sys.executable, str(Path(__file__)), "--fill"]
    # Without PyTorch's cache of the driver's memory every block is one of the driver's.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    lines, answers = process.stdin, process.stdout
    assert lines is not None
    assert answers is not None

    def leave(mebibytes: int) -> int:
        lines.write(f"{mebibytes}\n")
        lines.flush()
        return int(answers.readline())

    try:
        yield leave
    finally:
        lines.close()  # it ends by itself
        process.wait(60)


def main() -> None:
    """Prints a line for each bound, and fails if any training ended with other bits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--megabytes", type=int, help="one bound only")
    parser.add_argument("--bounds", type=int, default=24)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--unwatched", action="store_true")
    parser.add_argument("--neighbour", type=float, help="GiB that another process leaves at first")
    parser.add_argument("--fill", action="store_true", help="be that process")
    parser.add_argument("--one", action="store_true", help="train once in this process, and print JSON")
    options = parser.parse_args()
    if options.fill:
        fill()
        return
    if options.one:
        found = trained(
            options.batch_size, options.precision, options.megabytes, watched=not options.unwatched
        )
        print(json.dumps(found))
        return
    common = ["--batch-size", options.batch_size, "--precision", options.precision]
    common += ["--unwatched"] * options.unwatched
    free = in_own_process(*common)
    if free["outcome"] in ("lost", "too small") or free["outcome"].startswith("error"):
        raise SystemExit(f"unbounded, it does not train: {free['outcome']}")
    most, unit = free["MB"], "MB"
    if options.neighbour is not None:
        most, unit = options.neighbour * 1024, "MiB left by a neighbour"
    bounds = [round(most * (index + 1) / options.bounds) for index in range(options.bounds)]
    if options.neighbour is None:
        with ThreadPoolExecutor(options.processes) as pool:
            found = list(pool.map(lambda bound: in_own_process(*common, "--megabytes", bound), bounds))
    else:
        with neighbour() as leave:
            left = []
            for bound in bounds:
                left.append((leave(bound), in_own_process(*common)))
                print(*left[-1], flush=True)  # a run may be cut off before the table
        bounds, found = [mebibytes for mebibytes, _ in left], [each for _, each in left]
    outcomes = Counter[str]()
    rows: list[dict[str, Any]] = []
    for bound, each in zip(bounds, found, strict=True):
        outcome = each["outcome"]
        if outcome not in ("lost", "too small") and not outcome.startswith("error"):
            outcome = "same bits" if outcome == free["outcome"] else "OTHER BITS"
        outcomes[outcome] += 1
        rows.append({"what": f"{bound} {unit}", "outcome": outcome, "failed allocations": each["failed"]})
    report(f"ResNet-18, batch {options.batch_size}, {options.precision}; {free['MB']:.0f} MB unbounded", rows)
    print(dict(outcomes))
    if outcomes["OTHER BITS"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
