"""Devices, precisions and modes of a computation, and the environment on which equal bits rest.

Trainings and measures run within :func:`repeatable`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Literal, get_args

import numpy
import torch

from tombola.errors import DeviceError, RecipeError, reason, unknown
from tombola.training.cuda.memory import note_caught, out_of_memory, watched
from tombola.training.cuda.plans import fingerprint, table_for
from tombola.training.cuda.tiles import tiles_for, triton_version
from tombola.training.recipe import Recipe
from tombola.version import __version__

# By type of device. Raised when bits change on the same libraries and hardware; every result records its own.
ENGINE_VERSIONS = {"cpu": 1, "cuda": 2}

Mode = Literal["default", "autotuned", "deterministic"]


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The torch device of a name; None or ``"auto"`` is a GPU if there is one, else the CPU.

    Raises :class:`~tombola.errors.DeviceError` for a device that is not there.
    """
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"no device {device!r}; known: auto, cpu, cuda, cuda:0, ...") from None
    if resolved.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {str(device)!r} is not supported; use cpu or cuda")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device {str(device)!r} asked for, but PyTorch sees no GPU{_why_no_gpu()}; use cpu or auto"
        )
    if resolved.index is not None and resolved.type == "cuda" and resolved.index >= torch.cuda.device_count():
        gpus = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        raise DeviceError(f"no device {str(device)!r}; known: {gpus}, cpu")
    return resolved


def _why_no_gpu() -> str:
    """PyTorch's reason for not seeing a GPU, in brackets: a driver that is too old, say; "" for none."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f" ({reason(error).split('. ')[0]})"
    return ""


def resolve_precision(recipe: Recipe, device: torch.device) -> str:
    """The precision of convolutions and products on a device, ``"float32"`` or ``"bfloat16"``.

    Raises :class:`~tombola.errors.DeviceError` for bfloat16 on a device that has none.
    """
    if recipe.precision == "float32" or (recipe.precision == "auto" and device.type == "cpu"):
        return "float32"
    if device.type == "cpu":
        raise DeviceError("precision 'bfloat16' is for GPUs; on a CPU use 'float32' or 'auto'")
    # Emulated it would be slower than float32.
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise DeviceError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16; give the recipe precision='float32'"
        )
    return "bfloat16"


def hardware_name(device: torch.device) -> str:
    """The name of a GPU, or the instruction set of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def environment(device: torch.device, precision: str, engine: str, mode: Mode) -> dict[str, Any]:
    """All that must be equal for two trainings to give equal bits, as JSON values."""
    hardware = hardware_name(device)
    if device.type == "cpu":
        hardware += f", {torch.get_num_threads()} threads"
    return {
        "tombola": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,  # its generators draw every order and augmentation
        "device": device.type,
        "hardware": hardware,
        "precision": precision,
        "engine": engine,
        "engine_version": ENGINE_VERSIONS[device.type],
        "mode": mode,
    } | gpu_libraries(device)


def gpu_libraries(device: torch.device) -> dict[str, Any]:
    """Versions of the libraries behind a GPU's bits; empty for a CPU."""
    if device.type == "cpu":
        return {}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"cuda": torch.version.cuda, "cudnn": cudnn, "triton": triton_version()}


def convolution_plans(device: torch.device) -> str | None:
    """The fingerprint of the table of named convolution plans for a GPU, ``"none"`` for one without.

    With that of the table of tiles of our own convolutions, if there is one. None for a CPU.
    """
    if device.type == "cpu":
        return None
    gpu = hardware_name(device)
    table = table_for(gpu, torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    plans = "none" if table is None else fingerprint(table.algorithms)
    tiles = tiles_for(gpu, triton_version())
    return plans if tiles is None else f"{plans}, tiles {fingerprint(tiles.tiles)}"


class _Settings:
    """PyTorch's process-wide settings on which bits on a GPU rest, set while any computation needs them."""

    _PLACES: ClassVar[tuple[tuple[Any, str], ...]] = (
        (torch.backends.cudnn, "benchmark"),  # chooses by timing, another day otherwise
        (torch.backends.cudnn, "deterministic"),
        (torch.backends.cudnn, "allow_tf32"),  # a recipe that says float32 must get it
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.utils.deterministic, "fill_uninitialized_memory"),  # only costs time
    )
    _WANTED: ClassVar[dict[Mode, tuple[bool, ...]]] = {
        "default": (False, True, False, False, False),
        "deterministic": (False, True, False, False, False),
        "autotuned": (True, False, False, False, False),
    }

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._mode: Mode = "default"
        self._before: list[bool] = []
        self._refusing = False

    def enter(self, mode: Mode | None) -> None:
        with self._lock:
            mode = mode or (self._mode if self._users else "default")
            if self._users and mode != self._mode:
                raise RecipeError(
                    f"mode {mode!r} asked for while something computes in mode {self._mode!r}; the settings "
                    "belong to the whole process, so wait for it or use another process"
                )
            if self._users == 0:
                self._mode = mode
                self._before = [getattr(place, name) for place, name in self._PLACES]
                self._refusing = torch.are_deterministic_algorithms_enabled()
                self._set(self._WANTED[mode], mode == "deterministic")
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(self._before, self._refusing)

    def _set(self, values: Sequence[bool], refusing: bool) -> None:
        for (place, name), value in zip(self._PLACES, values, strict=True):
            setattr(place, name, value)
        torch.use_deterministic_algorithms(refusing)


_settings = _Settings()


@contextmanager
def process_settings(mode: Mode | None) -> Iterator[None]:
    """Set PyTorch to compute on GPUs as a mode says; afterwards its settings are what they were.

    mode: None for the mode in which another thread computes already, or else the default.

    The settings belong to the process, so computations in several threads share them: the first sets them,
    the last restores them. Measured on an H200: without cuDNN's deterministic mode float32 trainings never
    repeated; with it all did, and bfloat16 epochs took as long as without.
    """
    _settings.enter(mode)
    try:
        yield
    finally:
        _settings.leave()


class _Streams:
    """Streams of a GPU, each lent to one computation at a time.

    PyTorch hands out the same 32 in turn, in use or not; a capture on a stream that another training replays
    on would record its work too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[int, list[torch.cuda.Stream]] = {}
        self._seen: dict[int, set[int]] = {}

    def take(self, device: int) -> torch.cuda.Stream:
        with self._lock:
            idle = self._idle.setdefault(device, [])
            if idle:
                return idle.pop()
            seen = self._seen.setdefault(device, set())
            for _ in range(64):
                stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                if stream.cuda_stream not in seen:
                    seen.add(stream.cuda_stream)
                    return stream
        raise DeviceError(f"{len(seen)} computations at once on cuda:{device} are as many as there may be")

    def give_back(self, device: int, stream: torch.cuda.Stream) -> None:
        with self._lock:
            self._idle[device].append(stream)


_streams = _Streams()


@contextmanager
def lent_streams(device: torch.device, count: int) -> Iterator[list[torch.cuda.Stream]]:
    """So many streams of a GPU that no other computation uses meanwhile; they must be idle afterwards."""
    index = torch.cuda.current_device() if device.index is None else device.index
    streams: list[torch.cuda.Stream] = []
    try:
        streams.extend(_streams.take(index) for _ in range(count))
        yield streams
    finally:
        for stream in streams:
            stream.synchronize()
            _streams.give_back(index, stream)


@contextmanager
def repeatable(device: torch.device, mode: Mode | None = None, *, captured: bool = False) -> Iterator[None]:
    """Compute so that bits repeat, on a GPU in a stream that no other computation uses; on a CPU a no-op.

    mode: ``"autotuned"`` lets cuDNN choose by timing instead; ``"deterministic"`` also lets PyTorch refuse
        operations of which it knows no repeatable form; None is the mode this process computes in already.
    captured: whether the computation watches its memory itself while it chooses algorithms; afterwards what
        else lacks memory does not touch it.

    Raises :class:`~tombola.errors.DeviceError` if the memory of the GPU does not suffice, and
    :class:`~tombola.errors.DeviceLost` if it did not in silence (:mod:`tombola.training.cuda.memory`).
    """
    if mode is not None and mode not in get_args(Mode):
        raise RecipeError(unknown("mode", mode, get_args(Mode)))
    if device.type != "cuda":
        yield
        return
    with process_settings(mode), torch.cuda.device(device):
        index = torch.cuda.current_device()
        before, stream = torch.cuda.current_stream(), _streams.take(index)
        stream.wait_stream(before)
        try:
            with torch.cuda.stream(stream), nullcontext() if captured else watched(device):
                yield
        except torch.OutOfMemoryError as error:
            note_caught(error)
            raise DeviceError(f"{out_of_memory(device)}; use fewer slots or smaller batches") from error
        finally:
            # Launched work may still write; after an error too, its memory must not be reused before.
            stream.synchronize()
            _streams.give_back(index, stream)
