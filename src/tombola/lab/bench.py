"""Speeds of this machine as a table and as a file, which a plan can reckon with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from tombola.atomic import write_whole
from tombola.data import cache
from tombola.errors import DeviceError, RecipeError, StoreError, reason
from tombola.lab.slots import intra_op_threads
from tombola.networks.versions import bare_name
from tombola.training.device import Mode, hardware_name
from tombola.training.throughput import Machine, Speed, measure_machine, measure_speed
from tombola.version import __version__


@dataclass(frozen=True)
class Case:
    """What is timed: a network at a batch size, ``packed`` trainings at once, on images of that side."""

    network: str
    batch_size: int
    packed: int = 1
    size: int = 32


# The networks and settings of the paper, and the small one of the field.
GPU_CASES = (
    Case("resnet18", 256), Case("resnet18", 256, 3), Case("resnet18", 100), Case("resnet18", 100, 3),
    Case("resnet18", 8, 6), Case("vgg16", 256), Case("vgg16", 256, 3), Case("vgg16", 100), Case("vgg16", 100,
    3), Case("resnet20", 128), Case("resnet20", 128, 6), Case("resnet34", 256, 1, 64),
)  # fmt: skip
CPU_CASES = (Case("convnet", 32, size=8), Case("convnet", 128, size=8), Case("resnet20", 128))


@dataclass(frozen=True)
class Bench:
    """What was measured, and on what."""

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
        """The fastest measured speed of such trainings, or that at a number of them at once.

        Versions of a network count as one: they differ in their first weights, hardly in their cost.
        """
        fitting = [
            each
            for each in self.speeds
            if (bare_name(each.network), each.batch_size, each.size) == (bare_name(network), batch_size, size)
            and packed in (None, each.packed)
        ]
        return max(fitting, key=lambda each: each.images_per_second, default=None)


def bench(
    cases: Iterable[Case],
    device: torch.device,
    *,
    mode: Mode = "default",
    repeats: int = 5,
    on_speed: Callable[[Speed], None] = lambda speed: None,
    on_failure: Callable[[Case, DeviceError], None] = lambda case, error: None,
) -> Bench:
    """Measure the machine and each case on it; told of each when it is done, or does not fit into memory."""
    cases = tuple(cases)
    if device.type == "cpu" and any(case.packed > 1 for case in cases):
        raise RecipeError(
            "on a CPU trainings are not packed: each core is a worker of its own; leave out --slots"
        )
    speeds = []
    with intra_op_threads(1):  # as a worker has on a CPU
        machine = measure_machine(device)
        for case in cases:
            try:
                speed = measure_speed(
                    case.network, case.batch_size, case.packed, device, machine, size=case.size, mode=mode,
                    channels=1 if case.network == "convnet" else 3, repeats=repeats,
                )  # fmt: skip
            except DeviceError as error:  # the others are not lost
                on_failure(case, error)
            else:
                on_speed(speed)
                speeds.append(speed)
    gpu = device.type == "cuda"
    return Bench(
        device.type,
        hardware_name(device),
        mode,
        torch.__version__,
        torch.version.cuda if gpu else None,
        torch.backends.cudnn.version() if gpu else None,  # type: ignore[no-untyped-call]
        __version__,
        machine,
        tuple(speeds),
    )


def speed_table(speeds: Sequence[Speed]) -> Table:
    """The speeds as a table, one line each."""
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
    for each in speeds:
        table.add_row(
            each.network, str(each.size), str(each.batch_size), str(each.packed), f"{each.step_ms:.3g}",
            f"{each.images_per_second:,.0f}", f"{each.tflops:.3g}", f"{each.share:.0%}",
            f"{each.epoch_seconds:.3g}", f"{each.chain_seconds / 3600:.3g}",
        )  # fmt: skip
    return table


def write_bench(measured: Bench, file: str | os.PathLike[str]) -> None:
    """Write what was measured as JSON."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(file), json.dumps(asdict(measured), indent=1).encode() + b"\n")


def read_bench(file: str | os.PathLike[str]) -> Bench:
    """What :func:`write_bench` wrote; :class:`~tombola.errors.StoreError` if it cannot be read."""
    try:
        found: dict[str, Any] = json.loads(Path(file).read_text())
        machine, speeds = Machine(**found.pop("machine")), [Speed(**each) for each in found.pop("speeds")]
        return Bench(**found, machine=machine, speeds=tuple(speeds))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"cannot read speeds from {os.fspath(file)}: {reason(error)}") from error


def remember_bench(measured: Bench, device: torch.device) -> None:
    """Keep what was measured for plans on this kind of device, beside other cases measured before.

    Only the default mode: it is the one that trainings are planned in.
    """
    if measured.mode != "default":
        return
    before = known_speeds(device)
    new = {_case_of(each) for each in measured.speeds}
    kept = tuple(each for each in before.speeds if _case_of(each) not in new) if before else ()
    write_bench(replace(measured, speeds=kept + measured.speeds), speeds_file(device))


def _case_of(speed: Speed) -> Case:
    return Case(speed.network, speed.batch_size, speed.packed, speed.size)


def known_speeds(device: torch.device) -> Bench | None:
    """What was last measured with ``tombola bench`` on this kind of device; None before that."""
    file = speeds_file(device)
    return read_bench(file) if file.exists() else None


def speeds_file(device: torch.device) -> Path:
    """Where the speeds of this kind of device are kept."""
    name = "".join(letter if letter.isalnum() else "-" for letter in hardware_name(device))
    return cache.folder().parent / "speeds" / f"{name}.json"
