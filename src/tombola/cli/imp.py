"""``tombola imp``: one pruning chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tombola.cli.arguments import (
    AsJson,
    CheckpointEvery,
    Device,
    Imports,
    Mode,
    Store,
    Strict,
    Threads,
    Track,
    TrackDir,
)
from tombola.cli.console import check_writable, progress_console, say, write_json
from tombola.cli.estimate import say_estimate
from tombola.cli.imports import import_files
from tombola.cli.own import write_page
from tombola.cli.scales import existing_store
from tombola.cli.stop import StopAfter, begin_stop, unfinished
from tombola.cli.track import begin_tracking, trackers_named
from tombola.training.recipe import Recipe


def imp(
    network: Annotated[
        str,
        tyro.conf.arg(
            help="resnet18, resnet34, resnet50, resnet20, vgg16, convnet, lenet300, lenet5, conv2, conv4, "
            "conv6, conv8, timm:NAME, ..."
        ),
    ] = "convnet",
    data: Annotated[str, tyro.conf.arg(help="A name (digits, cifar10, mnist, ...) or a folder.")] = "digits",
    rounds: Annotated[int, tyro.conf.arg(help="Number of prunings; there is one training more.")] = 20,
    epochs: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="LENGTH",
            help="Budget of each training, such as 40 or 500it; short for --recipe.epochs.",
            help_behavior_hint="",
        ),
    ] = None,
    rewind: Annotated[
        int | str,
        tyro.conf.arg(
            metavar="PLACE", help="Epoch to rewind to, or 500it for an iteration; 0: initialisation."
        ),
    ] = 0,
    fraction: Annotated[
        tuple[float, ...],
        tyro.conf.arg(
            help="Share of the surviving weights that a round prunes; several: one for each round."
        ),
    ] = (0.2,),
    scope: Annotated[
        Literal["global", "layerwise", "uniform", "erk"],
        tyro.conf.arg(help="Rank all layers together or each; or one density for all, or by dimensions."),
    ] = "global",
    score: Annotated[
        str, tyro.conf.arg(help="What is kept if high: magnitude, movement, large_init, random, ...")
    ] = "magnitude",
    same_sign: Annotated[
        bool, tyro.conf.arg(help="Prune weights whose sign differs from the start first.")
    ] = False,
    invert: Annotated[bool, tyro.conf.arg(help="Keep low scores in place of high ones.")] = False,
    rewinding: Annotated[
        Literal["weights", "learning_rate"],
        tyro.conf.arg(help="What goes back: weights and learning rate, or the learning rate alone."),
    ] = "weights",
    exclude: Annotated[
        tuple[str, ...], tyro.conf.arg(help="Names of weights never to prune.", help_behavior_hint="")
    ] = (),
    rates: Annotated[
        dict[str, float],
        tyro.conf.arg(
            help="With --scope layerwise: how fast layers are pruned, others 1: linear 0.5 groups.0 0.75.",
            help_behavior_hint="",
        ),
    ] = {},  # noqa: B006 (read only)
    same_noise: Annotated[bool, tyro.conf.arg(help="Replay the noise of round 0 in every round.")] = False,
    seed: Annotated[int, tyro.conf.arg(help="Number of the initialisation and of the SGD noise.")] = 0,
    order_noise: Annotated[
        int | None,
        tyro.conf.arg(help="Number of the data order alone; default: the seed.", help_behavior_hint=""),
    ] = None,
    augmentation_noise: Annotated[
        int | None,
        tyro.conf.arg(help="Number of the augmentation alone; default: the seed.", help_behavior_hint=""),
    ] = None,
    init: Annotated[
        str | None,
        tyro.conf.arg(
            help="Initialisation: pytorch, kaiming-normal, ...; default: the network's own.",
            help_behavior_hint="",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="JOB|FILE",
            help="Of loss distillation: a finished run or ticket by name or its beginning, or a file.",
            help_behavior_hint="",
        ),
    ] = None,
    import_: Imports = (),
    recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
    store: Store = None,
    device: Device = "auto",
    mode: Mode = "default",
    threads: Threads = 1,
    checkpoint_every: CheckpointEvery = 60.0,
    strict: Strict = False,
    stop_after: StopAfter = None,
    track: Track = (),
    track_dir: TrackDir = None,
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FOLDER",
            help="Also write each round's ticket, rounds.csv and a page to this folder.",
            help_behavior_hint="",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Iterative pruning, by magnitude or any score: one chain, its rounds as a table while it runs."""
    stop = begin_stop(stop_after)
    trackers = trackers_named(track, track_dir, store)
    from tombola.experiments.experiment import Experiment
    from tombola.lab.chains import check_chain
    from tombola.lab.execute import Settings
    from tombola.lab.finished import stored_ticket
    from tombola.lab.job import all_needed
    from tombola.lab.lab import Lab
    from tombola.lab.progress import RoundTable
    from tombola.lab.queue import announced
    from tombola.lab.teacher import named_teacher
    from tombola.pruning.prune import Pruning
    from tombola.table.number import many

    import_files(import_)
    if epochs is not None:
        recipe = replace(recipe, epochs=int(epochs) if epochs.lstrip("-").isdecimal() else epochs)
    settings = Settings(
        device=device, mode=mode, threads=threads, checkpoint_every=checkpoint_every, strict=strict
    )
    pruning = Pruning(
        fraction[0] if len(fraction) == 1 else fraction,
        scope,
        exclude,
        score,
        same_sign,
        invert,
        rewinding,
        rates,
    )
    taught_by = None if teacher is None else named_teacher(existing_store(store), teacher)
    # Refused here, in words without the name that an experiment puts before its own.
    check_chain(recipe, rounds, rewind, pruning, taught_by, data)
    experiment = Experiment(
        "chain", [network], [data], recipe, rounds=rounds, rewind=rewind, same_noise=same_noise, seeds=[seed],
        init=init, order_noise=order_noise, augmentation_noise=augmentation_noise, teacher=taught_by,
        title=f"A pruning chain of {network} on {data}", **vars(pruning),
    )  # fmt: skip
    (chain,) = experiment.chains()
    lab = Lab(store, settings=settings)
    if out is not None:
        check_writable(out)
    console = progress_console(as_json)
    place = "a GPU" if lab.device.type == "cuda" else f"the CPU, threads {threads}"
    say(console, f"{network} on {data}, {many(rounds, 'round')} on {place}; store {lab.store.root}")
    estimate = say_estimate(console, lab, [experiment.at()])
    missing = [job for name, job in all_needed(chain).items() if not lab.store.has(name)]
    tracking = begin_tracking(lab.store, trackers, console, stop)
    with tracking, announced(lab.store, missing), RoundTable(console, rounds, lab.store, estimate) as table:
        for round_, job in enumerate(chain):
            outcome = lab.run(job, progress=tracking.progress(table), stop_after=stop)
            tracking.add(outcome.finished_before)
            outcome.raise_failures()
            if outcome.left:
                needed = [name for name, behind in all_needed(chain).items() if behind.counted]
                left = [name for name in needed if not lab.store.has(name)]
                raise unfinished(lab.store, stop, len(needed) - len(left), left, outcome.not_begun)
            table.add(
                job.name, lab.numbers(job), lab.store.provenance(job.name), computed=bool(outcome.computed)
            )
            if out is not None:
                # The first, dense one holds the whole start, which the others refer to.
                ticket = stored_ticket(lab.store, job)
                if ticket is not None:
                    ticket.save(out / f"round-{round_:02}.safetensors")
                else:
                    say(console, f"round {round_}: the store has its numbers only, so no ticket is written")
                table.write(out / "rounds.csv")
    start = stored_ticket(lab.store, chain[0])
    if start is not None:
        say(console, str(start.coverage))
    if as_json:
        rounds_json = [dict(row) for row in table.rows]
        write_json({"store": str(lab.store.root), "network": network, "data": data, "rounds": rounds_json})
    if out is not None:
        write_page(lab, [experiment.at()], out, files=False)
        say(console, f"report: {(out / 'report.html').absolute()}")
