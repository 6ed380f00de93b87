"""Measures how fast this machine trains: steps of real engines, alone and several at once.

Augmentation, mask and the tally for forgetting are part of every step that is timed. Images are random: how
long a step takes does not depend on what they show. The command ``tombola bench`` prints the figures.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from tombola.data.augmentation import draw
from tombola.data.imageset import Data, data_from_tensors
from tombola.networks.network import Network
from tombola.ticket import initialize
from tombola.training.choice import engine_for
from tombola.training.cuda.capture import forget_engines
from tombola.training.device import Mode, repeatable, resolve_precision
from tombola.training.engines import Engine
from tombola.training.epoch import EpochPlan
from tombola.training.evaluation import forget_batches
from tombola.training.preflight import check_trainable
from tombola.training.recipe import Recipe
from tombola.training.run import ForgettingRecord

# An epoch, and a chain of the paper: CIFAR's 50,000 + 10,000 images, 26 trainings of 200 epochs.
EPOCH_IMAGES, TEST_IMAGES = 50_000, 10_000
_CHAIN_EPOCHS = 26 * 200
_SECONDS_A_REPEAT = 1.0
_SPARSITY = 0.5


@dataclass(frozen=True)
class Machine:
    """Peak rates of a device.

    matrix_tflops: rate of a large matrix product, in bfloat16 on a GPU and in float32 on a CPU.
    copy_gbs: gigabytes a second that a large copy reads and writes.
    """

    matrix_tflops: float
    copy_gbs: float


@dataclass(frozen=True)
class Speed:
    """How fast trainings of one kind run, several of them at once.

    network, size, batch_size: what is trained, ``size`` being the side of the images in pixels.
    packed: number of trainings at once on the device; all figures are with that many.
    engine: what takes the steps.
    step_ms: milliseconds a step of each training, the median of ``repeats``.
    step_ms_spread: largest of the repeats minus smallest.
    images_per_second: of all trainings together, in training only.
    tflops: arithmetic of convolutions and products, all trainings together.
    share: ``tflops`` as a share of the machine's rate.
    between_ms: time from the last step of an epoch to the first of the next, evaluation apart.
    evaluation_ms: evaluating 10,000 images once.
    epoch_seconds: an epoch of 50,000 images of each training, evaluation included.
    chain_seconds: 26 trainings of 200 such epochs.
    memory_gb: largest memory of one training on a GPU, the images apart; None on a CPU.
    """

    network: str
    size: int
    batch_size: int
    packed: int
    engine: str
    step_ms: float
    step_ms_spread: float
    repeats: int
    images_per_second: float
    tflops: float
    share: float
    between_ms: float
    evaluation_ms: float
    epoch_seconds: float
    chain_seconds: float
    memory_gb: float | None


def measure_machine(device: torch.device) -> Machine:
    """Measure the rate of large matrix products and the bandwidth of large copies."""
    gpu = device.type == "cuda"
    side, dtype = (8192, torch.bfloat16) if gpu else (1024, torch.float32)
    draws = torch.Generator().manual_seed(0)
    # Of zeros a product would run faster than of data.
    first, second = (torch.randn(side, side, generator=draws).to(device, dtype) for _ in range(2))
    source = torch.ones(2**31 if gpu else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _seconds(lambda: torch.mm(first, second), device)
    copy = _seconds(lambda: target.copy_(source), device)
    return Machine(2 * side**3 / product / 1e12, 2 * len(source) / copy / 1e9)


def measure_speed(
    network: str,
    batch_size: int,
    packed: int,
    device: torch.device,
    machine: Machine,
    *,
    size: int = 32,
    channels: int = 3,
    classes: int = 10,
    mode: Mode = "default",
    repeats: int = 5,
) -> Speed:
    """Time trainings of a network, ``packed`` of them at once in threads of this process.

    Raises :class:`~tombola.errors.DeviceError` if they do not fit into memory.
    """
    gpu = device.type == "cuda"
    data = _random_data(size, channels, classes, EPOCH_IMAGES if gpu else max(4 * batch_size, classes), gpu)
    recipe = Recipe(epochs=200, batch_size=batch_size)
    if gpu:
        # What is left of trainings before would be freed in between, and counted against these.
        forget_engines()
        forget_batches()
        gc.collect()
        allocated = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    runners = [_Runner(network, data, recipe, device, mode) for _ in range(packed)]
    ready = threading.Barrier(packed + 1)
    threads = [threading.Thread(target=runner.work, args=(ready, repeats)) for runner in runners]
    for thread in threads:
        thread.start()
    _meet(ready, runners)  # all are captured, and know how fast they are alone or beside captures
    steps = min(runner.steps for runner in runners)
    for runner in runners:
        runner.steps = steps
    walls = []
    for _ in range(repeats + 1):
        _meet(ready, runners)  # all begin together
        started = time.perf_counter()
        _meet(ready, runners)  # and wait for the last
        walls.append(time.perf_counter() - started)
    for thread in threads:
        thread.join()
    _raise_first(runners)
    step_times = [1e3 * wall / steps for wall in walls[1:]]  # the first warmed up
    step_ms = statistics.median(step_times)
    images = 1e3 * packed * batch_size / step_ms
    tflops = images * _operations(network, data) / 1e12
    first = runners[0]
    memory = None
    if gpu:
        peak = torch.cuda.max_memory_allocated(device)
        memory = (peak - allocated - _bytes(data, recipe)) / packed / 1e9
    epoch = EPOCH_IMAGES / batch_size * step_ms / 1e3 + first.between + first.evaluation
    return Speed(
        network, size, batch_size, packed, first.engine, step_ms, max(step_times) - min(step_times), repeats,
        images, tflops, tflops / machine.matrix_tflops, 1e3 * first.between, 1e3 * first.evaluation, epoch,
        _CHAIN_EPOCHS * epoch, memory,
    )  # fmt: skip


class _Runner:
    """One of the trainings that are timed, in its own thread."""

    def __init__(self, network: str, data: Data, recipe: Recipe, device: torch.device, mode: Mode) -> None:
        self._network, self._data, self._recipe = network, data, recipe
        self._device, self._mode = device, mode
        self.error: BaseException | None = None
        self.steps = 0
        self.between = self.evaluation = 0.0
        self.engine = ""

    def work(self, ready: threading.Barrier, repeats: int) -> None:
        try:
            self._work(ready, repeats)
        except BaseException as error:
            self.error = error
            ready.abort()

    def _work(self, ready: threading.Barrier, repeats: int) -> None:
        data, recipe, device = self._data, self._recipe, self._device
        ticket = initialize(self._network, data)
        numbers = np.random.default_rng(0)
        mask = {
            name: torch.from_numpy(numbers.random(tuple(keep.shape)) > _SPARSITY)
            for name, keep in ticket.mask.items()
        }
        precision = resolve_precision(recipe, device)
        draws = check_trainable(ticket.network, data, recipe, ticket.epoch, ticket.step)
        with (
            repeatable(device, self._mode),
            engine_for(ticket.network, data, recipe, device, precision, self._mode, draws=draws) as engine,
        ):
            self.engine = engine.name
            engine.flat_network.load(ticket.weights(), mask)
            plan = self._plan()
            engine.begin(plan)
            self._choose_steps(engine, plan)
            ready.wait()
            for _ in range(repeats + 1):
                ready.wait()
                engine.advance(0, self.steps)
                _synchronize(device)
                ready.wait()
            self._time_epoch_end(engine, plan)

    def _plan(self) -> EpochPlan:
        count, size = len(self._data.train), self._recipe.batch_size
        order = torch.from_numpy(np.random.default_rng(0).permutation(count))
        draws = draw(self._recipe.augmentation, self._data, noise=0, round=0, epoch=0)
        steps = -(-count // size)
        # Rates are small, so that nothing diverges however long it takes.
        return EpochPlan(order, draws, [1e-4] * steps, size, range(steps)).to(self._device)

    def _choose_steps(self, engine: Engine, plan: EpochPlan) -> None:
        """Set the number of steps of a repeat, so that it takes about a second."""
        few = min(4, plan.steps)
        engine.advance(0, few)
        _synchronize(self._device)
        started = time.perf_counter()
        engine.advance(0, few)
        _synchronize(self._device)
        step_seconds = (time.perf_counter() - started) / few
        self.steps = max(
            few, min(int(_SECONDS_A_REPEAT / step_seconds), len(self._data.train) // plan.batch_size)
        )

    def _time_epoch_end(self, engine: Engine, plan: EpochPlan) -> None:
        """Time the part of an epoch that is no step, its record and the next plan, and an evaluation."""
        record = ForgettingRecord.empty(len(self._data.train), self._device)

        def end() -> None:
            tally = engine.tally()
            record.present(plan.order, tally.right)
            float(tally.losses.double().sum())
            engine.begin(plan)

        self.between = _seconds(end, self._device)
        evaluated = len(self._data.test)
        self.evaluation = _seconds(lambda: engine.evaluate(self._data.test), self._device)
        self.evaluation *= TEST_IMAGES / evaluated


def _meet(ready: threading.Barrier, runners: list[_Runner]) -> None:
    """Wait at the barrier for all threads; raises the error of a thread that failed."""
    try:
        ready.wait()
    except threading.BrokenBarrierError:
        _raise_first(runners)
        raise


def _raise_first(runners: list[_Runner]) -> None:
    """Raise the first thread's own error; in the others the barrier only broke."""
    for runner in runners:
        if runner.error is not None and not isinstance(runner.error, threading.BrokenBarrierError):
            forget_engines()
            raise runner.error


@lru_cache(maxsize=1)
def _random_data(size: int, channels: int, classes: int, count: int, gpu: bool) -> Data:
    """A data set of ``count`` train images of random pixels, kept for the next case on the like."""
    draws = torch.Generator().manual_seed(0)

    def split(images: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.randint(0, 256, (images, channels, size, size), dtype=torch.uint8, generator=draws)
        return pixels, torch.arange(images) % classes

    return data_from_tensors(split(count), split(TEST_IMAGES if gpu else 500), name=f"made-{channels}x{size}")


def _bytes(data: Data, recipe: Recipe) -> int:
    """Bytes of both splits on a device: padded train images, and test images."""
    side = data.size[0]
    padded = (side + 2 * recipe.augmentation.padding(data)) ** 2 * data.channels * len(data.train)
    return padded + data.test.images.numel()


def _operations(network: str, data: Data) -> float:
    """Multiplications and additions of convolutions and products for one image, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    module = Network.of(network, channels=data.channels, size=data.size, classes=data.classes).initialized(0)
    images = torch.zeros(2, data.channels, *data.size)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(module(images), torch.zeros(2, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 2


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """Median wall seconds of a piece of work, after two runs that are not counted."""
    times = []
    for _ in range(repeats + 2):
        _synchronize(device)
        started = time.perf_counter()
        work()
        _synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])
