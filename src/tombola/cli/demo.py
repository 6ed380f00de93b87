"""``tombola demo``: the paper in miniature."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import tyro

from tombola.cli.arguments import AsJson, Store, Workers
from tombola.cli.console import check_writable, progress_console, say, write_json
from tombola.cli.estimate import say_estimate


def demo(
    out: Annotated[Path, tyro.conf.arg(help="Folder for the report.")] = Path("tombola-demo"),
    store: Store = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """The paper in miniature, on real handwritten digits: about a minute on two cores."""
    from tombola.cli.own import print_tables, run_json, write_page
    from tombola.cores import available_cores
    from tombola.experiments.compute import run_experiments
    from tombola.experiments.demo import demo as experiment
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar
    from tombola.table.number import many

    started = time.perf_counter()
    console = progress_console(as_json)
    bound = experiment.at()
    # The same bits and the same pictures on every machine, so never on a GPU that happens to be there.
    lab = Lab(
        store, workers=available_cores() if workers is None else workers, settings=Settings(device="cpu")
    )
    check_writable(out)
    say(console, f"{bound.title}, store {lab.store.root}")
    with Bar(console, lab.store, say_estimate(console, lab, [bound])) as bar:
        outcome = run_experiments(lab, [bound], progress=bar).outcome
    outcome.raise_failures()
    outcome.raise_left()
    seconds = time.perf_counter() - started
    if as_json:
        write_json(run_json(lab, outcome, [bound]))
    else:
        print_tables(lab, [bound], "on the page of the report")
    made_now = {"computed now": f"{many(len(outcome.computed), 'job')} in {seconds:.0f} s"}
    write_page(lab, [bound], out, provenance=made_now)
    took = time.perf_counter() - started
    say(console, f"report: {(out / 'report.html').absolute()} ({took:.0f} s in all)")
