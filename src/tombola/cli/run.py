"""``tombola run``: studies of the paper, and experiments of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tombola.cli.arguments import (
    AsJson,
    CheckpointEvery,
    Device,
    HungAfter,
    Mode,
    Names,
    Numbers,
    Scale,
    ScaleNumbers,
    Store,
    Strict,
    Threads,
    Track,
    TrackDir,
    Workers,
)
from tombola.cli.console import many_studies, progress_console, say, write_json
from tombola.cli.estimate import say_estimate
from tombola.cli.own import Runners, own_paths, read_files, run_json, run_own
from tombola.cli.scales import PAPER, asked_scale, bound_studies, existing_store
from tombola.cli.slurm import DryRun, Slurm, arguments_again, asked_of_slurm, submit_run
from tombola.cli.stop import StopAfter, begin_stop, raise_left
from tombola.cli.track import begin_tracking, trackers_named
from tombola.errors import ExperimentError

if TYPE_CHECKING:
    from tombola.lab.deadline import Stop
    from tombola.lab.execute import Settings
    from tombola.lab.tracker import Tracker


def run(
    names: Names = (),
    all: Annotated[bool, tyro.conf.arg(help="All: the 46 of the paper, and our own beside them.")] = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    workers: Workers = None,
    device: Device = "auto",
    mode: Mode = "default",
    slots: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Jobs at once on each GPU.", help_behavior_hint="")
    ] = None,
    threads: Threads = 1,
    checkpoint_every: CheckpointEvery = 60.0,
    hung_after: HungAfter = 7200.0,
    strict: Strict = False,
    stop_after: StopAfter = None,
    keep_going: Annotated[bool, tyro.conf.arg(help="Leave out studies whose data cannot be loaded.")] = False,
    recompute: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            help="A function or network of your own whose results are computed anew, and all made from "
            "them; may be given several times."
        ),
    ] = (),
    keep: Annotated[
        Literal["all", "needed"],
        tyro.conf.arg(
            help="Weights to keep: all, or those of runs that something is still made from; the others are "
            "trained again where another experiment wants them."
        ),
    ] = "all",
    track: Track = (),
    track_dir: TrackDir = None,
    scheduler: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="ADDRESS",
            help="Address of a Dask scheduler whose workers share the store.",
            help_behavior_hint="",
        ),
    ] = None,
    scheduler_file: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE", help="File in which such a scheduler wrote its address.", help_behavior_hint=""
        ),
    ] = None,
    slurm: Slurm = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compute what is missing of the paper's studies, or of experiments of your own."""
    called_with = dict(locals())
    request = asked_of_slurm(slurm, dry_run, called_with)
    stop = begin_stop(stop_after)
    # A submitted job opens its own; that one cannot be used is told before it is submitted, too.
    trackers = trackers_named(track, track_dir, store)
    from tombola.cores import available_cores
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.studies import STUDIES
    from tombola.lab.execute import Settings

    # Workers inherit it: a note on every job would bury what is said here.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning")
    settings = Settings(
        device=device, mode=mode, slots=slots, threads=threads, checkpoint_every=checkpoint_every,
        hung_after=hung_after, strict=strict,
    )  # fmt: skip
    runners: Runners = {"scheduler": scheduler, "scheduler_file": scheduler_file}
    if scheduler is None and scheduler_file is None:
        runners = {"workers": available_cores() if workers is None else workers}
    elif workers is not None:
        runners["workers"] = workers  # refused, with both names
    own = own_paths(names, all, scale, numbers)
    if own and keep_going:
        raise ExperimentError(f"--keep-going leaves out studies of the paper; {own[0]} has none to leave out")
    if recompute and not own:
        raise ExperimentError(
            f"--recompute {recompute[0]} is for what a file of your own declares; "
            "studies of the paper have no such file"
        )
    if request is not None:
        if own:
            _, bound = read_files(own, existing_store(store))
        else:
            bound, _ = bound_studies(names, all, STUDIES, PaperJobs(asked_scale(scale, numbers)))
        again = arguments_again(run, called_with, {"store", "workers", "slurm", "dry_run"})
        submit_run(request, dry_run, again, bound, store=store, workers=workers, slots=slots)
    elif own:
        run_own(own, store, runners, settings, stop, recompute, keep, trackers, as_json)
    else:
        _run_paper(
            names, all, scale, numbers, store, runners, settings, keep_going, stop, keep, trackers, as_json
        )


def _run_paper(
    names: tuple[str, ...],
    everything: bool,
    scale: str | None,
    numbers: Numbers,
    store: Path | None,
    runners: Runners,
    settings: Settings,
    keep_going: bool,
    stop: Stop,
    keep: Literal["all", "needed"],
    trackers: Mapping[str, Tracker],
    as_json: bool,
) -> None:
    from tombola.experiments.compute import done, run_experiments
    from tombola.experiments.last_scale import remember
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.studies import STUDIES
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar

    work = PaperJobs(asked_scale(scale, numbers))
    # Refuses what the scale does not fit before a store is made.
    bound, left_out = bound_studies(names, everything, STUDIES, work)
    lab = Lab(store, settings=settings, **runners)
    console = progress_console(as_json)
    say(console, f"{many_studies(len(bound))}, {work.scale}, store {lab.store.root}")
    for cause in left_out:
        say(console, f"left out: {cause}")

    def begun() -> None:  # before the first job, for a run that is interrupted
        remember(lab.store, scale or PAPER, numbers.given())

    estimate = say_estimate(console, lab, bound)
    with begin_tracking(lab.store, trackers, console, stop) as tracking:
        with Bar(console, lab.store, estimate) as bar:
            ran = run_experiments(
                lab, bound, keep_going=keep_going, progress=tracking.progress(bar), begun=begun, stop=stop,
                keep=keep,
            )  # fmt: skip
        tracking.add(ran.outcome.finished_before)
    if as_json:
        computed = [experiment for experiment in bound if experiment.name not in ran.skipped]
        left_out += [f"{name}: {cause}" for name, cause in ran.skipped.items()]
        write_json({**run_json(lab, ran.outcome, computed), "left_out": left_out})
    for experiment in () if as_json else bound:
        skipped = ran.skipped.get(experiment.name)
        say(console, f"{experiment.name}: skipped, {skipped}" if skipped else str(done(experiment, lab)))
    raise_left(lab.store, stop, ran.outcome)
    ran.outcome.raise_failures()
    judged = "" if work.scale.note else ", tombola claims judges the paper by it"
    say(console, f"tombola report makes a page of what the store has{judged}")
