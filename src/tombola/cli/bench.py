"""``tombola bench``: how fast this machine trains."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from tombola.cli.arguments import Device, Mode
from tombola.cli.console import progress_console, say, write_json

_STDOUT = Path("-")


def bench(
    networks: Annotated[
        tuple[str, ...], tyro.conf.arg(help="Default: those of the paper.", help_behavior_hint="")
    ] = (),
    batch_sizes: Annotated[
        tuple[int, ...], tyro.conf.arg(help="Default: 100 and 256.", help_behavior_hint="")
    ] = (),
    slots: Annotated[
        tuple[int, ...], tyro.conf.arg(help="Trainings at once; default: 1 and 3.", help_behavior_hint="")
    ] = (),
    size: Annotated[int, tyro.conf.arg(help="Side of the images in pixels.")] = 32,
    repeats: Annotated[int, tyro.conf.arg(help="Each figure is the median of so many.")] = 5,
    mode: Mode = "default",
    device: Device = "auto",
    json: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE",
            help="Also write everything as JSON to this file; - is standard output, in place of the table.",
            help_behavior_hint="",
        ),
    ] = None,
) -> None:
    """How fast this machine trains: networks, batch sizes and numbers of trainings at once."""
    from tombola.lab import bench
    from tombola.lab.slots import check_slots
    from tombola.table.number import many
    from tombola.training.device import hardware_name, resolve_device

    for together in slots:
        check_slots(together)
    where = resolve_device(device)
    gpu = where.type == "cuda"
    cases: tuple[bench.Case, ...] = bench.GPU_CASES if gpu else bench.CPU_CASES
    if networks or batch_sizes or slots:
        packed = slots or ((1, 3) if gpu else (1,))
        kinds = [
            (network, batch) for network in networks or ("resnet18",) for batch in batch_sizes or (100, 256)
        ]
        cases = tuple(
            bench.Case(network, batch, trainings, size) for network, batch in kinds for trainings in packed
        )
    bench.check_cases(cases, where, repeats)
    printed = json == _STDOUT
    console = progress_console(printed)
    say(console, f"{hardware_name(where)}: {many(len(cases), 'case')}, each the median of {repeats}")

    done = 0

    def keep(measured: bench.Bench) -> None:
        """Tell the last speed, and keep all so far: what is interrupted later has them."""
        nonlocal done
        done = len(measured.speeds)
        speed = measured.speeds[-1]
        say(
            console,
            f"{speed.network} batch {speed.batch_size} x{speed.packed}: "
            f"{speed.images_per_second:,.0f} images/s",
        )
        bench.remember_bench(measured, where)
        if json is not None and not printed:
            bench.write_bench(measured, json)

    try:
        measured = bench.bench(
            cases, where, mode=mode, repeats=repeats, on_speed=keep,
            on_failure=lambda case, error: say(
                console, f"{case.network} batch {case.batch_size} x{case.packed}: not measured: {error}"
            ),
        )  # fmt: skip
    except KeyboardInterrupt:
        if json is not None and not printed:
            place = f"are in {json}"
        else:
            place = "are kept for plans" if mode == "default" else "were measured, and are not kept"
        counted = f"{done} of {many(len(cases), 'case')} {place}"
        raise KeyboardInterrupt(f"interrupted; {counted}; the same command measures all again") from None
    if not printed:
        console.print(bench.speed_table(measured.speeds))
    kind = "bfloat16" if gpu else "float32"
    say(
        console,
        f"{kind} matrix product {measured.machine.matrix_tflops:,.3g} TFLOP/s, "
        f"copy {measured.machine.copy_gbs:,.0f} GB/s, mode {mode}",
    )
    if printed:
        write_json(asdict(measured))
    elif json is not None:
        bench.write_bench(measured, json)  # with no speed at all, too
