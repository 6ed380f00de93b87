"""Undoes repairs of a GPU fault one at a time, and counts what goes wrong when freed memory is overwritten.

    python benchmarks/undone.py
    python benchmarks/undone.py --undo images --seconds 60
    python benchmarks/undone.py --apart images heads --seconds 150

Once, one job in about 160 met an index out of bounds in a gather of images, and four things were mended at
once without knowing which it was: images were given up while another stream read them (``images``); heads on
frozen bodies left their steps pending (``heads``); captures gave free memory back to the driver
(``capture``); bodies were built on another stream than that which reads them (``body``). Undone together, the
first two brought the fault back; ``--apart`` asks which of them suffices. Here probes and trainings of small
networks run in several threads, on more data sets than stay cached, and their results are compared with those
they have alone. What hides such a fault is that freed memory mostly lies untouched for a while. So whatever
images leave behind is filled with 0x7f at once, and a thread watches fresh memory for writes not its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from measure import report

import tombola as tb
from tombola.data.batches import Batches
from tombola.errors import DeviceLost
from tombola.measures import heads, probe
from tombola.training import evaluation
from tombola.training.cuda import capture as capture_module
from tombola.training.epoch import check_strays

REPAIRS = ("images", "heads", "capture", "body")
CUDA = torch.device("cuda")

_SETS, _IMAGES = 9, 4000
_CANARY = 32 * 2**20  # bytes, as much as a workspace of cuBLAS on this GPU


class Pending(threading.local):
    """Counts of out-of-range indices that this thread's present job has not waited for."""

    def __init__(self) -> None:
        self.strays: list[torch.Tensor] = []


pending = Pending()


# What is undone


def undo_images() -> None:
    """Nobody keeps images for the stream that reads them."""
    Batches.record_stream = lambda self, stream: None  # type: ignore[method-assign]


def undo_heads() -> None:
    """Heads do not wait at the end of an epoch."""
    heads.check_strays = lambda strays: pending.strays.append(strays)


def undo_capture() -> None:
    """Captures begin by ``torch.cuda.graph``, which gives the free memory of all streams to the driver."""
    from tombola.training.cuda import fused  # needs Triton

    def capture(work: Callable[[], None], pool: Any, *, before: Callable[[], object]) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.current_stream()
        with capture_module._capturing:
            for _ in range(3):
                before()
                work()
            before()
            stream.synchronize()
            torch._C._cuda_clearCublasWorkspaces()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                    work()
            finally:
                torch._C._cuda_clearCublasWorkspaces()
        return graph

    capture_module.capture = capture
    fused.capture = capture
    capture_module.give_memory_back = torch.cuda.empty_cache


def undo_body() -> None:
    """Bodies are built on the default stream, and read on another."""
    made = probe.FrozenBody

    def elsewhere(*arguments: Any) -> Any:
        with torch.cuda.stream(torch.cuda.default_stream()):
            return made(*arguments)

    probe.FrozenBody = elsewhere  # type: ignore[assignment, misc]


# What makes a fault show


class Poison:
    """Overwrites the memory that images leave behind, as the next tensor on their stream might."""

    def __init__(self) -> None:
        self.given_up = 0
        self._left: queue.SimpleQueue[tuple[list[int], torch.cuda.Stream]] = queue.SimpleQueue()
        uploaded = evaluation._uploaded.__wrapped__

        def upload(*arguments: Any) -> Batches:
            batches: Batches = uploaded(*arguments)
            sizes = [value.nbytes for value in vars(batches).values() if isinstance(value, torch.Tensor)]
            weakref.finalize(batches, self._left.put, (sizes, torch.cuda.current_stream()))
            return batches

        size = evaluation._uploaded.cache_parameters()["maxsize"]
        evaluation._uploaded = evaluation.lru_cache(maxsize=size)(upload)

    def __call__(self, until: float) -> None:
        while time.monotonic() < until:
            with suppress(queue.Empty):
                sizes, stream = self._left.get(timeout=0.1)
                self.given_up += 1
                with torch.cuda.stream(stream):
                    for size in sizes:
                        torch.full((size,), 0x7F, dtype=torch.uint8, device=CUDA)


class Canary:
    """Fills fresh memory, and counts how often something else wrote there."""

    def __init__(self) -> None:
        self.looks = self.overwritten = 0

    def __call__(self, until: float) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            while time.monotonic() < until:
                blocks = [torch.full((_CANARY,), 0x5A, dtype=torch.uint8, device=CUDA) for _ in range(4)]
                torch.cuda.current_stream().synchronize()
                time.sleep(0.003)
                self.looks += 1
                self.overwritten += sum(bool((block != 0x5A).any()) for block in blocks)


# The work


def jobs() -> list[Callable[[], Any]]:
    """Probes and trainings on as many data sets, each of which returns what can be compared."""
    draws = torch.Generator().manual_seed(0)
    found: list[Callable[[], Any]] = []
    for number in range(_SETS):
        images = torch.randint(0, 256, (_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=draws)
        labels = torch.randint(0, 10, (_IMAGES,), generator=draws)
        data = tb.data_from_tensors((images, labels), (images[:500], labels[:500]), name=f"set {number}")
        start = tb.initialize("resnet20", data)
        recipe = tb.Recipe(epochs=1, batch_size=100)
        body = tb.Recipe(epochs=3, batch_size=100, lr=0.005, schedule="constant")

        def probed(start: tb.Ticket = start, data: tb.Data = data, body: tb.Recipe = body) -> Any:
            return tb.probe(start, data, recipe=body, device="cuda").losses

        def trained(start: tb.Ticket = start, data: tb.Data = data, recipe: tb.Recipe = recipe) -> str:
            return tb.train(start, data, recipe, device="cuda").fingerprint

        found += [probed, trained]
    return found


def count(undone: tuple[str, ...], seconds: float, threads: int) -> dict[str, Any]:
    """Run the work for so long with these repairs undone; how much was done, and what went wrong."""
    work = jobs()
    expected = [job() for job in work]
    poison, canary = Poison(), Canary()
    evaluation.forget_batches()
    for name in undone:
        globals()[f"undo_{name}"]()
    until = time.monotonic() + seconds
    outcomes = Counter[str]()
    lock = threading.Lock()

    def run(first: int) -> None:
        for number in itertools.count(first * 5, 7 if first % 2 else 5):  # each its own way round
            if time.monotonic() > until or outcomes["device lost"]:
                return
            place = number % len(work)
            try:
                outcome = "right" if work[place]() == expected[place] else "other result"
                for strays in pending.strays:
                    check_strays(strays)
            except DeviceLost as error:
                outcome = "index out of range" if "lay outside" in str(error) else "memory short"
            except torch.AcceleratorError:
                outcome = "device lost"
            pending.strays.clear()
            with lock:
                outcomes[outcome] += 1

    others = [threading.Thread(target=watcher, args=(until,), daemon=True) for watcher in (poison, canary)]
    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in (*others, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    return {
        "what": "undone: " + (", ".join(undone) or "nothing"),
        "jobs": outcomes.total(),
        "other result": outcomes["other result"],
        "index out of range": outcomes["index out of range"],
        "device lost": outcomes["device lost"],
        "images given up": poison.given_up,
        "fresh memory overwritten": f"{canary.overwritten} of {4 * canary.looks}",
    }


def main() -> None:
    """Prints a line for each repair undone, or each choice of some, for all, and for none.

    Each runs in a process of its own, all at the same time.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--undo", choices=[*REPAIRS, "nothing"], action="append")
    parser.add_argument(
        "--apart", choices=REPAIRS, nargs="+", help="undo every choice of these, and say more"
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count())
    parser.add_argument("--one", action="store_true", help="run in this process, and print JSON")
    options = parser.parse_args()
    undone = tuple(name for name in options.undo or () if name != "nothing")
    if options.one:
        print(json.dumps(count(undone, options.seconds, options.threads)))
        sys.stdout.flush()
        os._exit(0)  # a lost device may hang whoever tidies up
    cases = [undone] if options.undo else [(), *((name,) for name in REPAIRS), REPAIRS]
    if options.apart:
        sizes = range(len(options.apart) + 1)
        cases = [case for size in sizes for case in itertools.combinations(options.apart, size)]
    command = [sys.executable, str(Path(__file__)), "--one", "--seconds", str(options.seconds)]
    command += ["--threads", str(options.threads)]

    def run(number: int) -> dict[str, Any]:
        chosen = [text for name in cases[number] or ("nothing",) for text in ("--undo", name)]
        visible = {"CUDA_VISIBLE_DEVICES": str(number % options.gpus)}
        ended = subprocess.run(
            [*command, *chosen], capture_output=True, text=True, check=False, env=os.environ | visible
        )
        if not ended.stdout:
            return {"what": f"undone: {cases[number]}", "ended": ended.stderr[-300:]}
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return found

    with ThreadPoolExecutor(len(cases)) as pool:
        rows = list(pool.map(run, range(len(cases))))
    report(f"{options.seconds:.0f} s each", rows)
    for case, row in zip(cases, rows, strict=True) if options.apart else ():
        kept = [name for name in options.apart if name not in case]
        print(f"with {' and '.join(kept) or 'none'} in place: {_verdict(row)}")


def _verdict(row: dict[str, Any]) -> str:
    """What a line says of the repairs that were in place."""
    if "jobs" not in row:
        return f"it did not run: {row['ended']}"
    wrong = sum(row[outcome] for outcome in ("other result", "index out of range", "device lost"))
    if wrong:
        return f"they do not suffice, {wrong} of {row['jobs']} jobs went wrong"
    # Of a fault that comes once in n jobs, 3 n without it leave one chance in twenty that it was there.
    rare = f"a fault rarer than one in {row['jobs'] / 3:.0f} jobs may not show"
    return f"nothing went wrong in {row['jobs']} jobs; {rare}"


if __name__ == "__main__":
    main()
