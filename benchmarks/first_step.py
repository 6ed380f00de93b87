"""Seconds until the first training step of a new process is done. Target: 3 from the call, compiled before.

Every measurement is a process of its own, which trains ResNet-18 at batch 256 on 50,000 made-up images of
CIFAR-10's shape and ends after one step. The first has an empty ``TRITON_CACHE_DIR``, so that all kernels
are compiled; the others find them there. Seconds count from the call of ``train``, which imports Triton,
tries the fused network, captures and evaluates once, and from the start of the process, which imports
PyTorch and makes the images. One more process runs under Python's profiler and shows where the time of the
call goes.

Run: python benchmarks/first_step.py [--repeats 2]
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

_PATIENCE = 300
"""Seconds that a process may take."""
_LINES = 12
_PACKAGE = f"{os.sep}tombola{os.sep}"


class FirstStepDone(Exception):
    """Ends the training of a measured process."""


def until_first_step(
    network: str, batch_size: int, images: int, device: str, profiler: cProfile.Profile | None
) -> tuple[float, float]:
    """Train one step in this process; the clock's time at the call of ``train``, and after the step."""
    import torch

    import tombola as tb
    from tombola.training.engines import EagerEngine, GraphedEngine

    draws = torch.Generator().manual_seed(0)
    tests = max(10, images // 5)
    pixels = torch.randint(0, 256, (images + tests, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(images + tests) % 10
    data = tb.data_from_tensors((pixels[:images], labels[:images]), (pixels[images:], labels[images:]))
    ticket = tb.initialize(network, data, seed=0)

    def end_after_one(engine_type: type[Any]) -> None:
        advance = engine_type.advance

        def one_step(engine: Any, first: int, last: int) -> None:
            advance(engine, first, first + 1)
            if device == "cuda":
                torch.cuda.current_stream().synchronize()
            raise FirstStepDone

        engine_type.advance = one_step

    for engine_type in (EagerEngine, GraphedEngine):
        end_after_one(engine_type)
    if profiler is not None:
        profiler.enable()
    called = time.monotonic()
    try:
        tb.train(ticket, data, tb.Recipe(epochs=1, batch_size=batch_size), device=device)
    except FirstStepDone:
        done = time.monotonic()
    if profiler is not None:
        profiler.disable()
    return called, done


def costliest(profiler: cProfile.Profile) -> dict[str, dict[str, float]]:
    """Seconds of the functions that take most: of tombola's with what they call, of all by themselves."""
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    whole: dict[str, float] = {}
    own: dict[str, float] = {}
    for (file, _, function), (_, _, alone, together, _) in stats.items():
        name = f"{file.rpartition(_PACKAGE)[2] if _PACKAGE in file else Path(file).name}:{function}"
        if _PACKAGE in file:
            whole[name] = max(whole.get(name, 0.0), together)
        own[name] = own.get(name, 0.0) + alone
    return {
        "with what they call": dict(sorted(whole.items(), key=lambda item: -item[1])[: 2 * _LINES]),
        "alone": dict(sorted(own.items(), key=lambda item: -item[1])[:_LINES]),
    }


def in_own_process(arguments: list[str], cache: Path, *, profile: bool = False) -> dict[str, Any]:
    """What a new process measured, with Triton's compiled kernels in a folder."""
    command = [sys.executable, str(Path(__file__)), *arguments, "--profile" if profile else "--no-profile"]
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache)}
    ended = subprocess.run(
        [*command, "--began", repr(time.monotonic())],
        capture_output=True, text=True, check=False, timeout=_PATIENCE, env=environment,
    )  # fmt: skip
    if ended.returncode:
        raise SystemExit(ended.stderr)
    sys.stderr.write(ended.stderr)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main(
    network: str = "resnet18",
    batch_size: int = 256,
    images: int = 50_000,
    device: str = "cuda",
    repeats: int = 2,
    profile: bool = True,
    began: float | None = None,
) -> None:
    """Measure processes with an empty and with a filled cache of compiled kernels.

    images: of the train split.
    repeats: processes that find their kernels compiled.
    profile: also show what takes the time of one more such process.
    began: be a measured process, which began at that time of the machine's clock.
    """
    if began is not None:
        profiler = cProfile.Profile() if profile else None
        called, done = until_first_step(network, batch_size, images, device, profiler)
        seconds = {"from the call": done - called, "from process start": done - began}
        print(json.dumps({"seconds": seconds, "costliest": costliest(profiler) if profiler else None}))
        return
    from measure import report

    arguments = ["--network", network, "--batch-size", str(batch_size)]
    arguments += ["--images", str(images), "--device", device]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        kinds = ["nothing compiled", *["compiled before"] * repeats]
        measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for kind in kinds:
            measured[kind].append(in_own_process(arguments, cache)["seconds"])
            print(kind, measured[kind][-1], flush=True)  # a lease may end before the table
        for kind, some in measured.items():
            medians = {key: statistics.median(one[key] for one in some) for key in some[0]}
            worst = max(one["from the call"] for one in some)
            rows.append({"what": kind, **medians, "worst call": worst, "processes": len(some)})
        report(f"first step of {network}, batch {batch_size}, {device}: seconds (target: 3, compiled)", rows)
        if profile:
            functions = in_own_process(arguments, cache, profile=True)["costliest"]
            for kind, some in functions.items():
                print(f"seconds under the profiler, {kind}:")
                for function, seconds in some.items():
                    print(f"  {seconds:7.3f} {function}")
            print(json.dumps({"title": "seconds of functions, under the profiler", **functions}))


if __name__ == "__main__":
    tyro.cli(main)
