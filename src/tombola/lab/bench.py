"""Measured training speeds of this machine, as a table and as a file that plans take their times from.

``tombola bench`` measures with :mod:`tombola.training.throughput`; ``tombola plan`` reads what it left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from tombola.cores import intra_op_threads
from tombola.counts import bytes_text
from tombola.data import cache
from tombola.declarations import bare_name
from tombola.disk import write_whole
from tombola.errors import DeviceError, RecipeError, StoreError, reason
from tombola.training.device import Mode, hardware_name
from tombola.training.throughput import EPOCH_IMAGES, Machine, Speed, measure_machine, measure_speed
from tombola.untrusted import read_regular
from tombola.version import __version__


@dataclass(frozen=True)
class Case:
    """A timed training: a network at a batch size, ``packed`` of them at once, on images of side ``size``."""

    network: str
    batch_size: int
    packed: int = 1
    size: int = 32


# The networks and settings of the paper, and the small one of the field.
GPU_CASES = (
    Case("resnet18", 256), Case("resnet18", 256, 3), Case("resnet18", 100), Case("resnet18", 100, 3),
    Case("resnet18", 8, 6), Case("vgg16", 256), Case("vgg16", 256, 3), Case("vgg16", 100), Case("vgg16", 100,
    3), Case("resnet20", 128), Case("resnet20", 128, 6), Case("resnet34", 256, 1, 64),
    Case("resnet34", 256, 2, 64),
)  # fmt: skip
CPU_CASES = (Case("convnet", 32, size=8), Case("convnet", 128, size=8), Case("resnet20", 128))


@dataclass(frozen=True)
class Bench:
    """Measured speeds, with the hardware and versions that they were measured on."""

    device: str
    hardware: str
    mode: str
    torch: str
    cuda: str | None
    cudnn: int | None
    tombola: str
    machine: Machine
    speeds: tuple[Speed, ...]

    def speed(
        self, network: str, batch_size: int, *, size: int = 32, packed: int | None = None
    ) -> Speed | None:
        """The fastest measured speed of such trainings, or of ``packed`` of them at once, if measured.

        Versions of a network count as one: they differ in their first weights, hardly in their cost.
        """
        fitting = [
            speed
            for speed in self.speeds
            if (bare_name(speed.network), speed.batch_size, speed.size)
            == (bare_name(network), batch_size, size)
            and packed in (None, speed.packed)
        ]
        return max(fitting, key=lambda speed: speed.images_per_second, default=None)


def check_cases(cases: Iterable[Case], device: torch.device, repeats: int) -> None:
    """Raises :class:`~tombola.errors.RecipeError` for cases that cannot be measured."""
    if repeats < 1:
        raise RecipeError(f"repeats is {repeats}; measure each case at least once")
    for case in cases:
        for what, value in (("batch size", case.batch_size), ("slots", case.packed), ("size", case.size)):
            if value < 1:
                raise RecipeError(f"{what} is {value}; it must be at least 1")
        if device.type == "cpu" and case.packed > 1:
            raise RecipeError(
                "on a CPU trainings are not packed: each core is a worker of its own; leave out --slots"
            )
        count = EPOCH_IMAGES if device.type == "cuda" else 4 * case.batch_size
        needed, memory = count * 3 * case.size**2, _physical_memory()
        if needed > memory / 4:
            raise RecipeError(
                f"made-up images of size {case.size} for batches of {case.batch_size} take "
                f"{bytes_text(needed)}, and this machine has {bytes_text(memory)} of memory; give a "
                "smaller size or batch size"
            )


def _physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _does_not_fit(error: Exception) -> bool:
    """Whether memory did not suffice; on a CPU PyTorch says so only in words."""
    return isinstance(error, DeviceError | MemoryError) or "can't allocate memory" in str(error)


def bench(
    cases: Iterable[Case],
    device: torch.device,
    *,
    mode: Mode = "default",
    repeats: int = 5,
    on_speed: Callable[[Bench], None] = lambda measured: None,
    on_failure: Callable[[Case, DeviceError], None] = lambda case, error: None,
) -> Bench:
    """Measures a machine and the speed of each case on it.

    on_speed: called after each case that was measured, with everything so far, its speed last.
    on_failure: called after each other, with the error that it does not fit into memory.
    """
    cases = tuple(cases)
    check_cases(cases, device, repeats)
    gpu = device.type == "cuda"
    with intra_op_threads(1):  # as a worker has on a CPU
        measured = Bench(
            device.type,
            hardware_name(device),
            mode,
            torch.__version__,
            torch.version.cuda if gpu else None,
            torch.backends.cudnn.version() if gpu else None,  # type: ignore[no-untyped-call]
            __version__,
            measure_machine(device),
            (),
        )
        for case in cases:
            try:
                speed = measure_speed(
                    case.network, case.batch_size, case.packed, device, measured.machine, size=case.size,
                    mode=mode, channels=1 if case.network == "convnet" else 3, repeats=repeats,
                )  # fmt: skip
            except (DeviceError, MemoryError, RuntimeError) as error:  # the others are not lost
                if not _does_not_fit(error):
                    raise
                cause = error if isinstance(error, DeviceError) else DeviceError("memory does not suffice")
                on_failure(case, cause)
            else:
                measured = replace(measured, speeds=(*measured.speeds, speed))
                on_speed(measured)
    return measured


def speed_table(speeds: Sequence[Speed]) -> Table:
    """The speeds as a table, one line for each."""
    table = Table(
        title="Training, with augmentation, mask and forgetting. x: so many at once; share: of\n"
        "the matrix rate; epoch: 50,000 images; chain: 26 trainings of 200 epochs.",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for column in (
        "network", "side", "batch", "x", "ms/step", "images/s", "TFLOP/s", "share", "s/epoch", "h/chain",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "network" else "right", no_wrap=True)
    for speed in speeds:
        table.add_row(
            speed.network, str(speed.size), str(speed.batch_size), str(speed.packed), f"{speed.step_ms:.3g}",
            f"{speed.images_per_second:,.0f}", f"{speed.tflops:.3g}", f"{speed.share:.0%}",
            f"{speed.epoch_seconds:.3g}", f"{speed.chain_seconds / 3600:.3g}",
        )  # fmt: skip
    return table


def write_bench(measured: Bench, file: str | os.PathLike[str]) -> None:
    """Writes measured speeds as JSON."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(file), json.dumps(asdict(measured), indent=1).encode() + b"\n")


def read_bench(file: str | os.PathLike[str]) -> Bench:
    """The speeds that :func:`write_bench` wrote; raises :class:`~tombola.errors.StoreError` if unreadable."""
    try:
        fields: dict[str, Any] = json.loads(read_regular(file, follow=True))
        machine = Machine(**fields.pop("machine"))
        speeds = tuple(Speed(**speed) for speed in fields.pop("speeds"))
        return Bench(**fields, machine=machine, speeds=speeds)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"cannot read speeds from {os.fspath(file)}: {reason(error)}") from error


def remember_bench(measured: Bench, device: torch.device) -> None:
    """Saves speeds for plans on this kind of device, with those of other cases that were measured before.

    Ignores speeds of other modes than the default: trainings are planned in that.
    """
    if measured.mode != "default":
        return
    before = known_speeds(device)
    new = {_case_of(speed) for speed in measured.speeds}
    kept = tuple(speed for speed in before.speeds if _case_of(speed) not in new) if before else ()
    write_bench(replace(measured, speeds=kept + measured.speeds), speeds_file(device))


def _case_of(speed: Speed) -> Case:
    """The case that a speed was measured in."""
    return Case(speed.network, speed.batch_size, speed.packed, speed.size)


def known_speeds(device: torch.device) -> Bench | None:
    """The speeds last measured with ``tombola bench`` on this kind of device; None if there are none."""
    file = speeds_file(device)
    return read_bench(file) if file.exists() else None


def speeds_file(device: torch.device) -> Path:
    """The file with the speeds of this kind of device."""
    name = "".join(letter if letter.isalnum() else "-" for letter in hardware_name(device))
    return cache.folder().parent / "speeds" / f"{name}.json"
