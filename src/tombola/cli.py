"""The command line: reads arguments, calls the floors below and prints. No torch before work is asked for."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from tombola.errors import TombolaError
from tombola.training.recipe import Recipe

Store = Annotated[
    Path | None,
    tyro.conf.arg(help="Folder of results; default: TOMBOLA_STORE, or the platform's place for user data."),
]
Mode = Annotated[
    Literal["default", "autotuned", "deterministic"],
    tyro.conf.arg(
        help="On a GPU: nothing by timing; convolutions by timing, bits not promised; PyTorch's own."
    ),
]
Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, cuda:1, ... or auto: a GPU if there is one.")]


def demo(
    out: Annotated[Path, tyro.conf.arg(help="Folder for the report.")] = Path("tombola-demo"),
    store: Store = None,
    workers: Annotated[int | None, tyro.conf.arg(help="Worker processes; default: one a core.")] = None,
) -> None:
    """The paper in miniature, on real handwritten digits: about a minute on two cores."""
    from tombola.lab.engine import available_cores
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar
    from tombola.report.write import write_report
    from tombola.studies.demo import DemoSettings, demo_cells, demo_summary

    started = time.perf_counter()
    console = Console()
    settings = DemoSettings()
    cells = demo_cells(settings)
    if workers is None:
        workers = min(available_cores(), sum(len(cell.chains) for cell in cells))
    # The same bits and the same picture on every machine, so never on a GPU that happens to be there.
    lab = Lab(store, workers=workers, settings=Settings(device="cpu"))
    _check_writable(out)
    _say(console, f"tombola demo: {settings.network} on {settings.data}, store {lab.store.root}")
    with Bar(console) as bar:
        outcome = lab.run([job for cell in cells for job in cell.jobs()], progress=bar)
    outcome.raise_failures()
    seconds = time.perf_counter() - started
    summary = demo_summary(lab, settings, cells, len(outcome.computed), seconds)
    _print_demo(console, summary)
    write_report(summary, out)
    took = time.perf_counter() - started
    _say(console, f"report: {(out / 'report.html').absolute()} ({took:.0f} s in all)")


def imp(
    network: Annotated[
        str, tyro.conf.arg(help="resnet18, resnet34, resnet20, vgg16, convnet, ...")
    ] = "convnet",
    data: Annotated[str, tyro.conf.arg(help="A name (digits, cifar10, mnist, ...) or a folder.")] = "digits",
    rounds: Annotated[int, tyro.conf.arg(help="Number of prunings; there is one training more.")] = 20,
    rewind: Annotated[int, tyro.conf.arg(help="Epoch to rewind to; 0 is the initialisation.")] = 0,
    fraction: Annotated[
        float, tyro.conf.arg(help="Share of the surviving weights that a round prunes.")
    ] = 0.2,
    scope: Annotated[
        Literal["global", "layerwise"], tyro.conf.arg(help="Rank all layers together or each.")
    ] = "global",
    exclude: Annotated[tuple[str, ...], tyro.conf.arg(help="Names of weights never to prune.")] = (),
    same_noise: Annotated[bool, tyro.conf.arg(help="Replay the noise of round 0 in every round.")] = False,
    seed: Annotated[int, tyro.conf.arg(help="Number of the initialisation and of the SGD noise.")] = 0,
    recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
    store: Store = None,
    device: Device = "auto",
    mode: Mode = "default",
    threads: Annotated[int, tyro.conf.arg(help="CPU threads; another number gives other last bits.")] = 1,
    checkpoint_every: Annotated[float, tyro.conf.arg(help="Seconds between checkpoints.")] = 60.0,
    out: Annotated[
        Path | None, tyro.conf.arg(help="Also write each round's ticket, and rounds.csv, to this folder.")
    ] = None,
) -> None:
    """Iterative magnitude pruning: one chain, its rounds as a table while it runs."""
    from tombola.lab.chains import imp_jobs
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.rounds import RoundTable

    settings = Settings(device=device, mode=mode, threads=threads, checkpoint_every=checkpoint_every)
    lab = Lab(store, settings=settings)
    chain = imp_jobs(
        network, data, recipe, rounds=rounds, rewind=rewind, fraction=fraction,
        scope=scope, exclude=exclude, same_noise=same_noise, seed=seed,
    )  # fmt: skip
    if out is not None:
        _check_writable(out)
    console = Console()
    place = "a GPU" if lab.device.type == "cuda" else f"the CPU, threads {threads}"
    _say(console, f"{network} on {data}, {rounds} rounds on {place}; store {lab.store.root}")
    with RoundTable(console, rounds) as table:
        for round_, job in enumerate(chain):
            outcome = lab.run(job, progress=table)
            outcome.raise_failures()
            table.add(
                job.name, lab.numbers(job), lab.store.provenance(job.name), computed=bool(outcome.computed)
            )
            if out is not None:
                # The first, dense one holds the whole start, which the others refer to.
                lab.result(job).ticket.save(out / f"round-{round_:02}.safetensors")
                table.write(out / "rounds.csv")


def bench(
    networks: Annotated[tuple[str, ...], tyro.conf.arg(help="Default: those of the paper.")] = (),
    batch_sizes: Annotated[tuple[int, ...], tyro.conf.arg(help="Default: 100 and 256.")] = (),
    slots: Annotated[tuple[int, ...], tyro.conf.arg(help="Trainings at once; default: 1 and 3.")] = (),
    size: Annotated[int, tyro.conf.arg(help="Side of the images in pixels.")] = 32,
    repeats: Annotated[int, tyro.conf.arg(help="Each figure is the median of so many.")] = 5,
    mode: Mode = "default",
    device: Device = "auto",
    json: Annotated[Path | None, tyro.conf.arg(help="Also write everything to this file.")] = None,
) -> None:
    """How fast this machine trains: networks, batch sizes and numbers of trainings at once."""
    from tombola.lab import speeds
    from tombola.training.device import hardware_name, resolve_device

    where = resolve_device(device)
    gpu = where.type == "cuda"
    cases: tuple[speeds.Case, ...] = speeds.GPU_CASES if gpu else speeds.CPU_CASES
    if networks or batch_sizes or slots:
        packed = slots or ((1, 3) if gpu else (1,))
        kinds = [
            (network, batch) for network in networks or ("resnet18",) for batch in batch_sizes or (100, 256)
        ]
        cases = tuple(speeds.Case(network, batch, each, size) for network, batch in kinds for each in packed)
    console = Console()
    _say(console, f"{hardware_name(where)}: {len(cases)} cases, each the median of {repeats}")
    measured = speeds.bench(
        cases, where, mode=mode, repeats=repeats,
        on_speed=lambda each: _say(
            console,
            f"{each.network} batch {each.batch_size} x{each.packed}: {each.images_per_second:,.0f} images/s",
        ),
    )  # fmt: skip
    console.print(speeds.speed_table(measured.speeds))
    kind = "bfloat16" if gpu else "float32"
    _say(
        console,
        f"{kind} matrix product {measured.machine.matrix_tflops:,.3g} TFLOP/s, "
        f"copy {measured.machine.copy_gbs:,.0f} GB/s, mode {mode}",
    )
    for file in (json, speeds.speeds_file(where)):
        if file is not None:
            speeds.write_bench(measured, file)


def ls(
    store: Store = None,
    function: Annotated[
        str | None, tyro.conf.arg(help="Only jobs of this function: train, barrier, ...")
    ] = None,
) -> None:
    """What the store holds: one line a job."""
    from tombola.lab.listing import listing
    from tombola.lab.store import Store as StoreFolder

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has room
    console.print(listing(StoreFolder(store, create=False), function), crop=False)


def show(
    name: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(help="A job's name or its beginning, or a ticket or run file."),
    ],
    store: Store = None,
) -> None:
    """A job's description, result and parents; or what a ticket or run file holds."""
    from tombola.lab.listing import show_file, show_job
    from tombola.lab.store import Store as StoreFolder

    if Path(name).is_file():
        Console().print(show_file(Path(name)), crop=False)
    else:
        Console().print(show_job(StoreFolder(store, create=False), name), crop=False)


def main() -> None:
    """Entry point of the ``tombola`` command."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if arguments == ["--version"]:
        from tombola import __version__

        print(__version__)
        return
    warnings.showwarning = _show_warning
    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "imp": imp,
        "bench": bench,
        "ls": ls,
        "show": show,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="tombola",
            description="The laboratory for lottery tickets and SGD noise. --debug shows tracebacks.",
            args=arguments,
        )
    except KeyboardInterrupt:
        _leave("interrupted; the same command continues where it was", 130, debug)
    except (TombolaError, OSError) as error:
        _leave(" ".join(str(error).split()), 2, debug)


def _say(console: Console, line: str) -> None:
    """Print a line as it is: a path in it is not broken, and its brackets are no markup."""
    console.print(line, markup=False, soft_wrap=True)


def _leave(message: str, code: int, debug: bool) -> None:
    """End with one line on standard error; inside an exception, with its traceback if asked for."""
    if debug:
        raise
    print(f"tombola: {message}", file=sys.stderr)
    sys.stdout.flush()
    # Not sys.exit: worker threads must not hold up a command that was interrupted.
    os._exit(code) if code == 130 else sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as one line, without the source line that Python adds."""
    print(f"tombola: note: {message}", file=sys.stderr)


def _check_writable(folder: Path) -> None:
    """Make a folder for results, before any work that would be lost without it."""
    from tombola.errors import StoreError, reason

    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tombola-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {reason(error)}") from error


def _print_demo(console: Console, summary: dict[str, Any]) -> None:
    from tombola.report.table import accuracy_table, dense_table

    console.print(accuracy_table(summary, console), "", dense_table(summary), sep="\n")


if __name__ == "__main__":
    main()
