"""Seconds until the first training step of a new process is done. Target: 3 from the call, compiled before.

Every measurement is a process of its own, which trains ResNet-18 at batch 256 on 50,000 made-up images of
CIFAR-10's shape and ends after one step. The first has an empty ``TRITON_CACHE_DIR``, so that all kernels
are compiled; the others find them there. Seconds count from the call of ``train``, which imports Triton,
tries the fused network, captures and evaluates once, and from the start of the process, which imports
PyTorch and makes the images. Each process also tells where its time went: functions of tombola and Triton
are timed where they begin and end, each phase without the phases within it, so that all add up to the whole.

Every process's line is printed as it ends, and none begins that might not end within ``--seconds``.

Run: python benchmarks/first_step.py [--repeats 3] [--colds 1] [--profile]
"""

from __future__ import annotations

import cProfile
import functools
import importlib
import itertools
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import tyro

_LINES = 12
_PACKAGE = f"{os.sep}tombola{os.sep}"
_CALL = "all else of the call"

# Functions, by the module that calls them, and what their time is called.
_TIMED_AT_ONCE = (
    ("tombola.training.loop", "resolve_device", "CUDA found"),
    ("torch.cuda", "_lazy_init", "CUDA begun"),
    ("tombola.training.engines", "FlatNetwork", "CUDA, and a network on the GPU"),
    ("tombola.training.engines", "device_batches", "images to the GPU"),
    ("tombola.training.evaluation", "device_batches", "images to the GPU"),
    ("tombola.training.evaluation", "_fused_network", "import of Triton and of fused passes"),
    ("tombola.training.engines", "compile_ahead", "import of Triton, kernels compiled ahead"),
    ("tombola.training.loop", "environment", "names of versions"),
    ("tombola.training.loop", "Training.plan", "plan of the epoch"),
)
_TIMED_WITH_TRITON = (
    ("tombola.training.cuda.rewrite", "check_fused", "check of the fused network"),
    ("tombola.training.cuda.rewrite", "traced", "tracing"),
    ("tombola.training.cuda.planned", "_inputs", "shapes of convolutions"),
    ("tombola.training.cuda.planned", "_built", "named plans"),
    ("triton.runtime.jit", "JITFunction._do_compile", "kernels compiled or found"),
    ("triton.compiler.compiler", "CompiledKernel._init_handles", "kernels loaded, launchers built"),
)


class FirstStepDone(Exception):
    """Ends the training of a measured process."""


def _is_waited_for() -> bool:
    """Whether this is the main thread or one of PyTorch's own, which are not Python's."""
    thread = threading.current_thread()
    return thread is threading.main_thread() or isinstance(thread, threading._DummyThread)


class Clock:
    """Seconds of phases, each without those within it.

    One phase is under way at a time. PyTorch's backward pass runs in a thread of its own, but meanwhile the
    one that called it waits. What other threads do beside it is not counted.
    """

    def __init__(self, first: str, began: float) -> None:
        self.seconds: dict[str, float] = {}
        self.times: Counter[str] = Counter()
        self._under_way, self._last = [first], began

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._under_way.append(name)
        self.times[name] += 1
        try:
            yield
        finally:
            self._charge()
            self._under_way.pop()

    def _charge(self) -> None:
        name, now = self._under_way[-1], time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def time_calls(self, functions: tuple[tuple[str, str, str], ...]) -> None:
        """From now on, calls of these functions are phases; those that a version does not have are not."""
        for module, path, name in functions:
            *owners, attribute = path.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            if (function := getattr(owner, attribute, None)) is not None:
                setattr(owner, attribute, self._timed(function, name))

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.phase(name) if _is_waited_for() else nullcontext():
                return function(*arguments, **named)

        return timed

    def time_captures(self) -> None:
        """From now on, what captures do is phases: the first time, in which libraries choose, and others."""
        from tombola.training.cuda import capture as module
        from tombola.training.cuda import fused

        capture = module.capture

        def timed(work: functools.partial[None], *arguments: Any, **named: Any) -> Any:
            size = work.args[0]
            what = f"batch of {size}" if isinstance(size, int) else "evaluation"
            kinds = itertools.chain(
                ["first warm-up", "other warm-ups", "other warm-ups"], itertools.repeat("capture")
            )

            def timed_work() -> None:
                with self.phase(f"{what}: {next(kinds)}"):
                    work()

            with self.phase(f"{what}: capture"):
                return capture(timed_work, *arguments, **named)

        module.capture = fused.capture = timed


def time_phases(clock: Clock, device: str) -> None:
    """Have the clock time a training from now on, which ends after its first step."""
    import torch

    from tombola.training import evaluation
    from tombola.training.engines import EagerEngine, GraphedEngine

    def end_after_one(engine_type: type[Any]) -> None:
        begin, advance, evaluate = engine_type.begin, engine_type.advance, engine_type.evaluate

        def one_step(engine: Any, first: int, last: int) -> None:
            with clock.phase("first step"):
                advance(engine, first, first + 1)
                if device == "cuda":
                    torch.cuda.current_stream().synchronize()
            raise FirstStepDone

        engine_type.advance = one_step
        engine_type.begin = clock._timed(begin, "first step")
        engine_type.evaluate = clock._timed(evaluate, "evaluation before the first step")

    for engine_type in (EagerEngine, GraphedEngine):
        end_after_one(engine_type)
    # Imported within the time of the call, as ever; timed from then on.
    fused_network = evaluation._fused_network

    def fused_network_timed(*arguments: Any) -> Any:
        if device == "cuda":
            clock.time_captures()
            clock.time_calls(_TIMED_WITH_TRITON)
            evaluation._fused_network = timed_again
        return fused_network(*arguments)

    evaluation._fused_network = fused_network_timed
    clock.time_calls(_TIMED_AT_ONCE)
    timed_again = clock._timed(fused_network, "import of Triton and of fused passes")


def until_first_step(
    network: str, batch_size: int, images: int, device: str, began: float, profiler: cProfile.Profile | None
) -> dict[str, Any]:
    """Train one step in this process; seconds from its start, from the call of ``train``, and of phases."""
    clock = Clock("start of Python, import of tyro", began)
    with clock.phase("import of PyTorch"):
        import torch
    with clock.phase("import of tombola"):
        import tombola as tb

        _ = tb.Recipe, tb.train, tb.initialize, tb.data_from_tensors
    with clock.phase("made-up images"):
        draws = torch.Generator().manual_seed(0)
        tests = max(10, images // 5)
        pixels = torch.randint(0, 256, (images + tests, 3, 32, 32), dtype=torch.uint8, generator=draws)
        labels = torch.arange(images + tests) % 10
    with clock.phase("data and ticket"):
        data = tb.data_from_tensors((pixels[:images], labels[:images]), (pixels[images:], labels[images:]))
        ticket = tb.initialize(network, data, seed=0)
    time_phases(clock, device)
    before = dict(clock.seconds)
    if profiler is not None:
        profiler.enable()
    called = time.monotonic()
    try:
        with clock.phase(_CALL):
            tb.train(ticket, data, tb.Recipe(epochs=1, batch_size=batch_size), device=device)
    except FirstStepDone:
        done = time.monotonic()
    if profiler is not None:
        profiler.disable()
    return {
        "seconds": {"from the call": done - called, "from process start": done - began},
        "before the call": before,
        "of the call": {name: value for name, value in clock.seconds.items() if name not in before},
        "times": dict(clock.times),
    }


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


class Processes:
    """New processes that measure, one after the other, for so many seconds in all.

    arguments: of each process. cache: the folder of Triton's compiled kernels.
    """

    def __init__(self, arguments: list[str], cache: Path, seconds: float) -> None:
        self._command = [sys.executable, str(Path(__file__)), *arguments]
        self._environment = os.environ | {"TRITON_CACHE_DIR": str(cache)}
        self._end = time.monotonic() + seconds
        self._longest = 0.0

    def measure(self, *, profile: bool = False) -> dict[str, Any] | None:
        """What a new process measured; None, which is said, if it would not end in time."""
        began = time.monotonic()
        left = self._end - began
        if left < self._longest:
            print(f"{left:.0f} s are left, which is not enough for another process", flush=True)
            return None
        options = ["--profile" if profile else "--no-profile", "--began", repr(began)]
        try:
            ended = subprocess.run(
                [*self._command, *options],
                capture_output=True, text=True, check=False, timeout=left, env=self._environment,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"a process was ended after {left:.0f} s, at the end of the time for all", flush=True)
            return None
        if ended.returncode:
            raise SystemExit(ended.stderr)
        sys.stderr.write(ended.stderr)
        self._longest = time.monotonic() - began
        measured: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return measured


def phase_rows(measured: dict[str, list[dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    """Medians of the seconds of phases by kind of process, in the order in which they come."""
    names = dict.fromkeys(name for some in measured.values() for one in some for name in one[part])
    rows = []
    for name in names:
        row: dict[str, Any] = {"what": name}
        for kind, some in measured.items():
            row[kind] = statistics.median(one[part].get(name, 0.0) for one in some)
            row["times"] = statistics.median(one["times"].get(name, 1) for one in some)
        rows.append(row)
    return rows


def main(
    network: str = "resnet18",
    batch_size: int = 256,
    images: int = 50_000,
    device: str = "cuda",
    colds: int = 1,
    repeats: int = 3,
    seconds: float = 110.0,
    cache: Path | None = None,
    profile: bool = False,
    ahead: bool = False,
    handles: int = 1,
    began: float | None = None,
) -> None:
    """Measure processes with an empty and with a filled cache of compiled kernels.

    images: of the train split.
    colds: processes that find nothing compiled, each in a folder of its own; with 0 of them one fills the
        cache that is not counted.
    repeats: processes that find their kernels compiled.
    seconds: for all processes together.
    cache: folder of compiled kernels that is kept, and filled already unless it is empty; with ``--colds 0``
        the next call needs no process that compiles.
    profile: one more process of those, under Python's profiler.
    ahead: compile kernels by several threads before the first is launched.
    handles: of cuDNN, each with a thread that builds convolution plans.
    began: be a measured process, which began at that time of the machine's clock.
    """
    if began is not None:
        switch_on(ahead=ahead, handles=handles)
        profiler = cProfile.Profile() if profile else None
        measures = until_first_step(network, batch_size, images, device, began, profiler)
        print(json.dumps(measures | {"costliest": costliest(profiler) if profiler else None}))
        return
    arguments = ["--network", network, "--batch-size", str(batch_size)]
    arguments += ["--images", str(images), "--device", device]
    arguments += ["--ahead" if ahead else "--no-ahead", "--handles", str(handles)]
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder), cache, colds, repeats, seconds, profile=profile)


def switch_on(*, ahead: bool, handles: int) -> None:
    """Let this process do what trainings do not yet."""
    if ahead or handles > 1:
        from tombola.training import evaluation
        from tombola.training.cuda import cudnn

        evaluation.COMPILES_AHEAD, cudnn.HANDLES = ahead, handles


def measure(
    arguments: list[str],
    folder: Path,
    kept: Path | None,
    colds: int,
    repeats: int,
    seconds: float,
    *,
    profile: bool,
) -> None:
    """Measure processes of some arguments, and report them; the others are as for :func:`main`."""
    ends = time.monotonic() + seconds
    warm = kept or folder / "0"
    measured: dict[str, list[dict[str, Any]]] = {}

    def note(kind: str, processes: Processes, *, count: bool = True) -> bool:
        found = processes.measure()
        if found is not None:
            print(kind, json.dumps(found), flush=True)  # it may be cut off before the table
            if count:
                measured.setdefault(kind, []).append(found)
        return found is not None

    for number in range(colds):
        cold = folder / str(number)
        if not note("nothing compiled", Processes(arguments, cold, ends - time.monotonic())):
            break
    processes = Processes(arguments, warm, ends - time.monotonic())
    if not (warm.is_dir() and any(warm.iterdir())):
        note("not counted, to compile", processes, count=False)
        processes = Processes(arguments, warm, ends - time.monotonic())
    for _ in range(repeats):
        if not note("compiled before", processes):
            break
    if not measured:
        raise SystemExit("no process ended in time")
    report_all(arguments, measured)
    if profile and (found := processes.measure(profile=True)) is not None:
        for kind, some in found["costliest"].items():
            print(f"seconds under the profiler, {kind}:")
            for function, taken in some.items():
                print(f"  {taken:7.3f} {function}")
        print(json.dumps({"title": "seconds of functions, under the profiler", **found["costliest"]}))


def report_all(arguments: list[str], measured: dict[str, list[dict[str, Any]]]) -> None:
    from measure import report

    rows: list[dict[str, Any]] = []
    for kind, some in measured.items():
        all_seconds = [one["seconds"] for one in some]
        medians = {key: statistics.median(one[key] for one in all_seconds) for key in all_seconds[0]}
        worst = max(one["from the call"] for one in all_seconds)
        rows.append({"what": kind, **medians, "worst call": worst, "processes": len(some)})
    report(f"first step, {' '.join(arguments)}: seconds (target: 3 from the call, compiled)", rows)
    for part in ("before the call", "of the call"):
        report(f"seconds of phases {part}, each without those within it", phase_rows(measured, part))


if __name__ == "__main__":
    tyro.cli(main)
