"""What a training does where a GPU's memory nearly suffices: its bits, an error, or other bits in silence.

    python benchmarks/full_memory.py
    python benchmarks/full_memory.py --unwatched

A convolution whose workspace does not fit is computed by another algorithm, and PyTorch does not say so.
Under one bound on memory after the other, from ample to too small, a ResNet-18 is trained for an epoch, each
time in a process of its own. It must end with the bits it has under no bound, or with an error.
``--unwatched`` shows what it does where nobody looks for failed allocations.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from measure import report

import tombola as tb
from tombola.errors import DeviceError, DeviceLost
from tombola.training.cuda import memory

_IMAGES = 1024


def trained(batch_size: int, precision: str, megabytes: int | None, *, watched: bool) -> dict[str, Any]:
    """Train under a bound in this process; its outcome, peak of memory in MB, and failed allocations."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(_IMAGES) % 10
    data = tb.data_from_tensors((images, labels), (images[:500], labels[:500]), name="full")
    recipe = tb.Recipe(epochs=1, batch_size=batch_size, precision=precision)  # type: ignore[arg-type]
    if not watched:
        memory.Shortage.remember = lambda self, **_: False  # type: ignore[method-assign]
    if megabytes is not None:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(megabytes * 1e6 / whole)
    try:
        outcome = tb.train(tb.initialize("resnet18", data), data, recipe, device="cuda").fingerprint
    except DeviceLost:
        outcome = "lost"
    except DeviceError:
        outcome = "too small"
    failed = torch.cuda.memory_stats_as_nested_dict(0)["num_ooms"]
    return {"outcome": outcome, "MB": torch.cuda.max_memory_reserved() / 1e6, "failed": failed}


def in_own_process(*arguments: object) -> dict[str, Any]:
    """The same, in a new process."""
    command = [sys.executable, str(Path(__file__)), *map(str, arguments), "--one"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Prints a line for each bound, and fails if any training ended with other bits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--megabytes", type=int, help="one bound only")
    parser.add_argument("--bounds", type=int, default=24)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--unwatched", action="store_true")
    parser.add_argument("--one", action="store_true", help="train once in this process, and print JSON")
    options = parser.parse_args()
    if options.one:
        found = trained(
            options.batch_size, options.precision, options.megabytes, watched=not options.unwatched
        )
        print(json.dumps(found))
        return
    common = ["--batch-size", options.batch_size, "--precision", options.precision]
    common += ["--unwatched"] * options.unwatched
    free = in_own_process(*common)
    bounds = [round(free["MB"] * (index + 1) / options.bounds) for index in range(options.bounds)]
    with ThreadPoolExecutor(options.processes) as pool:
        found = list(pool.map(lambda bound: in_own_process(*common, "--megabytes", bound), bounds))
    outcomes = Counter[str]()
    rows: list[dict[str, Any]] = []
    for bound, each in zip(bounds, found, strict=True):
        outcome = each["outcome"]
        if outcome not in ("lost", "too small"):
            outcome = "same bits" if outcome == free["outcome"] else "OTHER BITS"
        outcomes[outcome] += 1
        rows.append({"what": f"{bound} MB", "outcome": outcome, "failed allocations": each["failed"]})
    report(f"ResNet-18, batch {options.batch_size}, {options.precision}; {free['MB']:.0f} MB unbounded", rows)
    print(dict(outcomes))
    if outcomes["OTHER BITS"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
