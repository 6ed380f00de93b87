"""Convolutions by execution plans of cuDNN that are named: an engine and its knobs, no heuristics, no timing.

PyTorch has no way to name a convolution's algorithm. This is the part of cuDNN's backend API that has, by
ctypes on the library which PyTorch computes with: NVIDIA's Python frontend would load a cuDNN of its own, and
require much that has nothing to do with convolutions. The numbers are those of ``cudnn_graph.h`` in cuDNN 9.
All tensors are bfloat16 in channels_last, sums float32. https://docs.nvidia.com/deeplearning/cudnn/backend
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Operation = Literal["forward", "input", "weight"]

ALIGNMENT = 16
"""Bytes at whose multiples the tensors of a plan begin."""

HANDLES = 1
"""Of a GPU, and so the plans that are built at once: no GPU has run more yet (benchmarks/first_step.py)."""

# Types of descriptors.
_CONVOLUTION, _ENGINE, _CONFIGURATION, _HEURISTICS, _PLAN, _KNOB_CHOICE = 1, 2, 3, 4, 5, 7
_OPERATION_GRAPH, _VARIANT_PACK, _TENSOR = 15, 16, 17

# Types of attributes.
_HANDLE, _DATA_TYPE, _INT64, _FLOAT, _POINTER, _CONVOLUTION_MODE = 0, 1, 3, 4, 6, 7
_HEURISTIC_MODE, _KNOB_TYPE, _NUMERICAL_NOTE, _DESCRIPTOR, _BEHAVIOUR_NOTE = 8, 9, 11, 15, 19

# Values.
_FLOAT32, _BFLOAT16, _CROSS_CORRELATION = 0, 9, 1
_KNOB_TYPES, _NUMERICAL_NOTES, _BEHAVIOUR_NOTES = 44, 10, 5
_MODES = {"A": 3, "B": 1, "fallback": 2}

# Numerical notes of engines that are left out: inputs rounded, sums in less than float32, and bits that may
# not repeat. Behaviour notes: compiled by NVRTC, and products of cuBLASLt, whose versions would count too.
_INEXACT, _RESTING_ON_OTHERS = {1, 2, 4}, {0, 4}

# Of each operation: its descriptor, then its attributes alpha, beta, convolution, input, weight, output.
_OPERATIONS: Mapping[Operation, tuple[int, tuple[int, ...]]] = {
    "forward": (10, (700, 701, 702, 704, 703, 705)),
    "input": (12, (706, 707, 708, 710, 709, 711)),
    "weight": (11, (712, 713, 714, 716, 715, 717)),
}

_C_TYPES: Mapping[int, Any] = {
    _HANDLE: ctypes.c_void_p,
    _INT64: ctypes.c_int64,
    _FLOAT: ctypes.c_float,
    _POINTER: ctypes.c_void_p,
    _DESCRIPTOR: ctypes.c_void_p,
}  # all others are enumerations


# Statuses from here on are of failures within cuDNN or CUDA, an allocation's, say; those below of refusals.
_FAILURES = 4000


class CudnnError(RuntimeError):
    """cuDNN refused a call, or failed.

    passing: whether another time it might not: memory was short, say.
    """

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.passing = status >= _FAILURES


@dataclass(frozen=True)
class Convolution:
    """One of the three products of a convolution without bias, groups or dilation.

    operation: ``"forward"``, or the gradient of its ``"input"`` or ``"weight"``.
    input: shape ``(N, C, H, W)``; weight: shape ``(K, C, R, S)``.
    stride, padding: down and across.
    """

    operation: Operation
    input: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def output(self) -> tuple[int, int, int, int]:
        """Shape ``(N, K, H', W')`` of what the convolution returns."""
        high, wide = (
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(
                self.input[2:], self.weight[2:], self.stride, self.padding, strict=True
            )
        )
        return self.input[0], self.weight[0], high, wide


@dataclass(frozen=True)
class Algorithm:
    """One of cuDNN's engines by its number, and the engine's knobs: for each type of knob a value."""

    engine: int
    knobs: tuple[tuple[int, int], ...]


class ConvolutionPlan:
    """A convolution by one algorithm, on the current GPU; lives as long as the process (:func:`plan`).

    handle: number of the handle of that GPU's that it is built and executed with.
    workspace: bytes.

    Raises :class:`CudnnError` for an algorithm that this GPU or this cuDNN does not have for it.
    """

    def __init__(self, convolution: Convolution, algorithm: Algorithm, handle: int = 0) -> None:
        self.convolution = convolution
        self._handle = _handle(torch.cuda.current_device(), handle)
        with self._handle.on(torch.cuda.current_stream()):
            self._plan = _finalized_plan(convolution, algorithm, self._handle)
            self.workspace: int = self._plan.get(402, _INT64, 1)[0]

    def __call__(self, input: Tensor, weight: Tensor, output: Tensor) -> None:
        """Compute on the current stream, which may be captured.

        input ``(N, C, H, W)``, weight ``(K, C, R, S)``, output ``(N, K, H', W')``: the values, or gradients,
            of each; the one that the operation is named by is written.

        Raises :class:`CudnnError` for tensors that the plan was not made for.
        """
        sizes = self.convolution.input, self.convolution.weight, self.convolution.output
        tensors = input, weight, output
        for tensor, size in zip(tensors, sizes, strict=True):
            _check(tensor, size)
        workspace = torch.empty(self.workspace, dtype=torch.uint8, device=input.device)
        pack = _Descriptor(_VARIANT_PACK)
        try:
            pack.set(1000, _INT64, [1, 2, 3])
            pack.set(1001, _POINTER, [tensor.data_ptr() for tensor in tensors])
            pack.set(1003, _POINTER, [workspace.data_ptr()])
            pack.finalize()
            with self._handle.on(torch.cuda.current_stream(input.device)):
                _call("cudnnBackendExecute", self._handle.pointer, self._plan.pointer, pack.pointer)
        finally:
            pack.destroy()


def _finalized_plan(convolution: Convolution, algorithm: Algorithm, handle: _Handle) -> _Descriptor:
    engine = _Descriptor(_ENGINE)
    engine.set(1300, _DESCRIPTOR, [_operation_graph(convolution, handle)])
    engine.set(1301, _INT64, [algorithm.engine])
    engine.finalize()
    choices = []
    for knob, value in algorithm.knobs:
        choice = _Descriptor(_KNOB_CHOICE)
        choice.set(600, _KNOB_TYPE, [knob])
        choice.set(601, _INT64, [value])
        choice.finalize()
        choices.append(choice)
    configuration = _Descriptor(_CONFIGURATION)
    configuration.set(300, _DESCRIPTOR, [engine])
    if choices:
        configuration.set(302, _DESCRIPTOR, choices)
    configuration.finalize()
    plan = _Descriptor(_PLAN)
    plan.set(400, _HANDLE, [handle.pointer])
    plan.set(401, _DESCRIPTOR, [configuration])
    plan.finalize()
    return plan


def _check(tensor: Tensor, size: tuple[int, ...]) -> None:
    """Raises CudnnError for a tensor of which cuDNN would read or write something else."""
    if (
        tuple(tensor.shape) != size
        or tensor.dtype != torch.bfloat16
        or not tensor.is_cuda
        or not tensor.is_contiguous(memory_format=torch.channels_last)
        or tensor.data_ptr() % ALIGNMENT
    ):
        raise CudnnError(
            f"a plan takes bfloat16 {size} in channels_last at a multiple of {ALIGNMENT} bytes, not "
            f"{tensor.dtype} {tuple(tensor.shape)} with strides {tensor.stride()}"
        )


_plans: dict[tuple[int, Convolution, Algorithm], ConvolutionPlan] = {}
_plans_lock = threading.Lock()


def plan(convolution: Convolution, algorithm: Algorithm) -> ConvolutionPlan:
    """The plan of a convolution on the current GPU, built once a process.

    Raises what :class:`ConvolutionPlan` does.
    """
    return built({convolution: algorithm})[convolution]


def built(algorithms: Mapping[Convolution, Algorithm]) -> dict[Convolution, ConvolutionPlan]:
    """The plans of convolutions on the current GPU, each built once a process, a few at a time.

    Raises what :class:`ConvolutionPlan` does, for the first that cannot be built in the order that they are
    handed in, whichever failed first.
    """
    device, stream = torch.cuda.current_device(), torch.cuda.current_stream()
    with _plans_lock:
        missing = [pair for pair in algorithms.items() if (device, *pair) not in _plans]
        handles = min(HANDLES, len(missing))
        for number in range(handles):
            _handle(device, number)  # by one thread, as cuDNN's documentation has it

        def build(place: int) -> None:
            pair = missing[place]
            with torch.cuda.device(device), torch.cuda.stream(stream):
                _plans[device, *pair] = ConvolutionPlan(*pair, handle=place % handles)

        if handles == 1:
            for place in range(len(missing)):
                build(place)
        elif missing:
            with ThreadPoolExecutor(handles) as pool:
                ended = [pool.submit(build, place) for place in range(len(missing))]
            for one in ended:  # the first error in this order is told, whichever came first
                one.result()
        return {pair[0]: _plans[device, *pair] for pair in algorithms.items()}


def proposals(convolution: Convolution, modes: Iterable[str] = ("A", "B", "fallback")) -> list[Algorithm]:
    """What cuDNN's heuristics propose on the current GPU, best first, each once.

    Left out is what may not repeat, is less exact, or rests on other libraries than cuDNN.

    modes: the heuristics to ask, of ``"A"``, ``"B"`` and ``"fallback"``.
    """
    handle = _handle(torch.cuda.current_device(), 0)
    with handle.on(torch.cuda.current_stream()):
        graph = _operation_graph(convolution, handle)
        return list(dict.fromkeys(one for mode in modes for one in _proposals(graph, _MODES[mode])))


def _proposals(graph: _Descriptor, mode: int) -> Iterator[Algorithm]:
    heuristics = _Descriptor(_HEURISTICS)
    heuristics.set(201, _DESCRIPTOR, [graph])
    heuristics.set(200, _HEURISTIC_MODE, [mode])
    heuristics.finalize()
    for configuration in heuristics.get_descriptors(202, _CONFIGURATION, heuristics.count(202, _DESCRIPTOR)):
        (engine,) = configuration.get_descriptors(300, _ENGINE, 1)
        notes = engine.get(1303, _NUMERICAL_NOTE, _NUMERICAL_NOTES)
        behaviour = engine.get(1305, _BEHAVIOUR_NOTE, _BEHAVIOUR_NOTES)
        if not (_INEXACT.isdisjoint(notes) and _RESTING_ON_OTHERS.isdisjoint(behaviour)):
            continue
        knobs = [
            (int(choice.get(600, _KNOB_TYPE, 1)[0]), int(choice.get(601, _INT64, 1)[0]))
            for choice in configuration.get_descriptors(302, _KNOB_CHOICE, _KNOB_TYPES)
        ]
        yield Algorithm(engine.get(1301, _INT64, 1)[0], tuple(sorted(knobs)))


def _operation_graph(convolution: Convolution, handle: _Handle) -> _Descriptor:
    """The graph of one operation, its tensors numbered 1, 2, 3: input, weight, output."""
    kind, attributes = _OPERATIONS[convolution.operation]
    described = _Descriptor(_CONVOLUTION)
    described.set(106, _INT64, [2])
    described.set(100, _DATA_TYPE, [_FLOAT32])
    described.set(101, _CONVOLUTION_MODE, [_CROSS_CORRELATION])
    described.set(102, _INT64, [1, 1])
    described.set(103, _INT64, convolution.stride)
    described.set(104, _INT64, convolution.padding)
    described.set(105, _INT64, convolution.padding)
    described.finalize()
    tensors = []
    for number, shape in enumerate((convolution.input, convolution.weight, convolution.output), start=1):
        _, channels, _, width = shape
        tensor = _Descriptor(_TENSOR)
        tensor.set(906, _INT64, [number])
        tensor.set(901, _DATA_TYPE, [_BFLOAT16])
        tensor.set(900, _INT64, [ALIGNMENT])
        tensor.set(902, _INT64, shape)
        tensor.set(903, _INT64, [math.prod(shape[1:]), 1, width * channels, channels])
        tensor.finalize()
        tensors.append(tensor)
    operation = _Descriptor(kind)
    for attribute, value in zip(attributes[:2], (1.0, 0.0), strict=True):
        operation.set(attribute, _FLOAT, [value])
    for attribute, descriptor in zip(attributes[2:], (described, *tensors), strict=True):
        operation.set(attribute, _DESCRIPTOR, [descriptor])
    operation.finalize()
    graph = _Descriptor(_OPERATION_GRAPH)
    graph.set(801, _DESCRIPTOR, [operation])
    graph.set(800, _HANDLE, [handle.pointer])
    graph.finalize()
    return graph


class _Descriptor:
    """A descriptor of cuDNN's, of a type.

    Only what :meth:`destroy` is called for is freed: a garbage collection would do it at any time, within a
    capture or after the end of CUDA, and few are ever made.
    """

    def __init__(self, kind: int) -> None:
        self.pointer = ctypes.c_void_p()
        _call("cudnnBackendCreateDescriptor", ctypes.c_int(kind), ctypes.byref(self.pointer))

    def set(self, attribute: int, kind: int, values: Sequence[Any]) -> None:
        if kind == _DESCRIPTOR:
            values = [value.pointer for value in values]
        array = (_C_TYPES.get(kind, ctypes.c_int) * len(values))(*values)
        _call(
            "cudnnBackendSetAttribute",
            self.pointer, ctypes.c_int(attribute), ctypes.c_int(kind), ctypes.c_int64(len(values)), array,
        )  # fmt: skip

    def get(self, attribute: int, kind: int, most: int) -> list[Any]:
        """The values of an attribute, at most so many."""
        array = (_C_TYPES.get(kind, ctypes.c_int) * most)()
        return list(array[: min(most, self._get(attribute, kind, most, array))])

    def get_descriptors(self, attribute: int, kind: int, most: int) -> list[_Descriptor]:
        """The descriptors of a type in an attribute, at most so many: cuDNN fills those that it is handed."""
        descriptors = [_Descriptor(kind) for _ in range(most)]
        array = (ctypes.c_void_p * most)(*[descriptor.pointer for descriptor in descriptors])
        return descriptors[: self._get(attribute, _DESCRIPTOR, most, array)]

    def count(self, attribute: int, kind: int) -> int:
        return self._get(attribute, kind, 0, None)

    def _get(self, attribute: int, kind: int, most: int, array: Any) -> int:
        count = ctypes.c_int64()
        _call(
            "cudnnBackendGetAttribute",
            self.pointer, ctypes.c_int(attribute), ctypes.c_int(kind), ctypes.c_int64(most),
            ctypes.byref(count), array,
        )  # fmt: skip
        return count.value

    def finalize(self) -> None:
        _call("cudnnBackendFinalize", self.pointer)

    def destroy(self) -> None:
        _library().cudnnBackendDestroyDescriptor(self.pointer)


class _Handle:
    """A handle of cuDNN's on the current GPU, which one thread at a time may use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pointer = ctypes.c_void_p()
        _call("cudnnCreate", ctypes.byref(self.pointer))

    @contextmanager
    def on(self, stream: torch.cuda.Stream) -> Iterator[None]:
        """Context to build or execute a plan in, not in a stream that another thread may be capturing."""
        with self._lock:
            _call("cudnnSetStream", self.pointer, ctypes.c_void_p(stream.cuda_stream))
            yield


@cache
def _handle(device: int, number: int) -> _Handle:
    """One of a GPU's handles: several threads may use several at once."""
    with torch.cuda.device(device):
        return _Handle()


def load_cudnn(device: torch.device) -> None:
    """Load what plans need before the first of them is built; raises CudnnError where that cannot be."""
    with _plans_lock, torch.cuda.device(device):
        _handle(torch.cuda.current_device(), 0)


@cache
def _library() -> ctypes.CDLL:
    """The cuDNN that PyTorch has loaded; raises CudnnError where there is none or it is another."""
    wanted = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    try:
        library = ctypes.CDLL("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")
    except OSError as error:
        raise CudnnError(f"PyTorch's cuDNN cannot be called: {error}") from None
    version = library.cudnnGetVersion()
    if version != wanted:
        raise CudnnError(f"PyTorch computes with cuDNN {wanted}, but version {version} was found")
    return library


def _call(name: str, *arguments: Any) -> None:
    library = _library()
    status = getattr(library, name)(*arguments)
    if status:
        message = ctypes.create_string_buffer(512)
        library.cudnnGetLastErrorString(message, ctypes.c_size_t(len(message)))
        words = message.value.decode(errors="replace").strip() or "no reason given"
        raise CudnnError(f"{name} failed with status {status}: {words}", status)
