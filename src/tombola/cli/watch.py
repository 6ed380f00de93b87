"""``tombola watch``: a page of what a store is doing, on this machine alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import tyro

from tombola.cli.arguments import Names, Numbers, Scale, ScaleNumbers, Store
from tombola.cli.console import InertConsole, say
from tombola.cli.own import own_paths, read_files
from tombola.cli.scales import shown_scale

if TYPE_CHECKING:
    from tombola.experiments.bound import Bound
    from tombola.lab.lab import Lab
    from tombola.report.gather import Report


def watch(
    names: Names = (),
    port: Annotated[int, tyro.conf.arg(metavar="N", help="Of 127.0.0.1; 0: a free one.")] = 0,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
) -> None:
    """A page that shows what the store is doing while it does it; it changes nothing.

    Jobs under way, learning curves, queue and throughput; of experiments that are named, the report so far.
    """
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.store import Store as StoreFolder
    from tombola.report.live import LivePage
    from tombola.report.live_server import LiveServer

    lab = Lab(StoreFolder(store, create=False).root, settings=Settings(device="cpu"))
    report = _report_of(lab, names, scale, numbers)
    server = LiveServer(LivePage(lab.store, report), port)
    with suppress(OSError):
        os.nice(10)  # trainings come first wherever a core is wanted by both
    console = InertConsole()
    say(console, f"watching {lab.store.root}")
    say(console, f"open {server.address}")
    say(console, "whoever knows this address can read the page, from this machine alone; Ctrl-C ends it")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


def _report_of(
    lab: Lab, names: Sequence[str], scale: str | None, numbers: Numbers
) -> Callable[[], Report] | None:
    """What gathers the report of the named experiments; None if none are named."""
    from tombola.errors import ExperimentError
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.studies import studies_named
    from tombola.experiments.study import bind
    from tombola.report.gather import gather, gather_chains

    if own := own_paths(names, scale=scale, numbers=numbers):
        _, experiments = read_files(own, lab.store)
        return partial(gather_chains, lab, experiments, {})
    if not names:
        return None
    work = PaperJobs(shown_scale(scale, numbers, lab.store))
    fitting, others = bind(studies_named(names), work)
    shown: list[Bound] = list(fitting)
    if others:
        raise ExperimentError(next(iter(others.values())))
    return partial(
        gather, lab, shown, scale=str(work.scale), budget=work.scale.budget, note=work.scale.warning,
        of_paper=False, title=", ".join(names), lead="Studies of the paper, as far as they are.",
    )  # fmt: skip
