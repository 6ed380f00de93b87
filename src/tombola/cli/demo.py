"""``tombola demo``: the paper in miniature."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from tombola.cli.arguments import Store, Workers
from tombola.cli.console import check_writable, say


def demo(
    out: Annotated[Path, tyro.conf.arg(help="Folder for the report.")] = Path("tombola-demo"),
    store: Store = None,
    workers: Workers = None,
) -> None:
    """The paper in miniature, on real handwritten digits: about a minute on two cores."""
    from tombola.experiments.demo import DemoSettings, demo_cells, demo_summary
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar
    from tombola.lab.slots import available_cores
    from tombola.report.demo_write import write_report

    started = time.perf_counter()
    console = Console()
    settings = DemoSettings()
    cells = demo_cells(settings)
    if workers is None:
        workers = min(available_cores(), sum(len(cell.chains) for cell in cells))
    # The same bits and the same picture on every machine, so never on a GPU that happens to be there.
    lab = Lab(store, workers=workers, settings=Settings(device="cpu"))
    check_writable(out)
    say(console, f"tombola demo: {settings.network} on {settings.data}, store {lab.store.root}")
    with Bar(console) as bar:
        outcome = lab.run([job for cell in cells for job in cell.jobs()], progress=bar)
    outcome.raise_failures()
    outcome.raise_left()
    seconds = time.perf_counter() - started
    summary = demo_summary(lab, settings, cells, len(outcome.computed), seconds)
    _print_demo(console, summary)
    write_report(summary, out)
    took = time.perf_counter() - started
    say(console, f"report: {(out / 'report.html').absolute()} ({took:.0f} s in all)")


def _print_demo(console: Console, summary: dict[str, Any]) -> None:
    from tombola.report.table import accuracy_table, dense_table

    console.print(accuracy_table(summary, console), "", dense_table(summary), sep="\n")
