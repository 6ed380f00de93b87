"""``tombola studies`` and ``tombola plan``: what there is, what of it is done, and what the rest costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypedDict

import tyro

from tombola.cli.arguments import AsJson, Device, Names, Numbers, Scale, ScaleNumbers, Store, Workers
from tombola.cli.collector import nothing_collected
from tombola.cli.console import InertConsole, say, write_json
from tombola.cli.own import own_paths, read_files
from tombola.cli.scales import asked_scale, bound_studies, existing_store, shown_scale
from tombola.errors import ExperimentError

if TYPE_CHECKING:
    import torch

    from tombola.experiments.bound import Bound
    from tombola.experiments.plan import Plan
    from tombola.lab.store import Store as StoreFolder


def studies(
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """The tables and figures of the paper by name, and what of them is done."""
    from tombola.experiments.compute import Done, LeftOut, done
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.studies import STUDIES
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab

    existing = existing_store(store)
    work = PaperJobs(shown_scale(scale, numbers, existing))
    lab = Lab(existing.root, settings=Settings(device="cpu")) if existing else None
    entries: list[Done | LeftOut] = []
    for study in STUDIES:
        try:
            entries.append(done(study.at(work), lab))
        except ExperimentError as error:
            entries.append(LeftOut(study.name, study.title, str(error)))
    if as_json:
        place = str(existing.root) if existing else None
        studies_json = [entry.to_json() for entry in entries]
        write_json({"store": place, "scale": str(work.scale), "studies": studies_json})
        return
    console = InertConsole()
    say(console, f"{work.scale}, store {existing.root if existing else 'not made yet'}")
    for entry in entries:
        say(console, str(entry))


def plan(
    names: Names = (),
    all: Annotated[bool, tyro.conf.arg(help="All 46 of the paper.")] = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    workers: Workers = None,
    device: Device = "auto",
    slots: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Trainings at once on each GPU.", help_behavior_hint="")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What experiments would cost: jobs, epochs, hours on this device, disk. Nothing is run."""
    with nothing_collected():
        from tombola.cores import check_per_core
        from tombola.experiments.bound import jobs_behind
        from tombola.experiments.paper.jobs import PaperJobs
        from tombola.experiments.paper.studies import PAPER
        from tombola.experiments.plan import plan as make_plan
        from tombola.lab.slots import check_slots
        from tombola.lab.staleness import warn_stale
        from tombola.training.device import resolve_device

        check_per_core("workers", workers)
        check_slots(slots)
        place = resolve_device(device)
        left_out: list[str] = []
        if own := own_paths(names, all, scale, numbers):
            _, bound = read_files(own, existing_store(store))
            scale_words = ""
        else:
            work = PaperJobs(asked_scale(scale, numbers))
            bound, left_out = bound_studies(names, all, PAPER, work)
            scale_words = str(work.scale)
        costing = costing_on(place, bound, existing_store(store), workers, slots)
        if own and costing["store"] is not None:
            warn_stale(costing["store"], jobs_behind(bound), {})
        planned = make_plan(bound, scale=scale_words, **costing)
    if as_json:
        write_json({**planned.to_json(), "left_out": left_out})
        return
    console = InertConsole()
    for cause in left_out:
        say(console, f"left out: {cause}")
    lines = planned.lines()
    if planned.hours is None:
        lines.insert(-1, _how_to_measure(planned))
    for line in lines:
        say(console, line)


class Costing(TypedDict):
    """What a plan is told of this machine: what is in the store, speeds, and jobs at a time."""

    store: StoreFolder | None
    speed: Callable[[str, int], float | None] | None
    slots: int


def costing_on(
    device: torch.device,
    experiments: Sequence[Bound],
    store: StoreFolder | None,
    workers: int | None,
    slots: int | None,
) -> Costing:
    """What plans and estimates are told of a device, with its speeds if they have been measured."""
    from tombola.cores import available_cores
    from tombola.declarations import bare_name
    from tombola.experiments.bound import jobs_behind
    from tombola.lab.bench import known_speeds
    from tombola.lab.slots import available_gpus, default_slots

    measured = known_speeds(device)
    if device.type == "cpu":
        per_process, processes = 1, available_cores() if workers is None else max(workers, 1)
    else:
        per_process = slots or default_slots(jobs_behind(experiments))
        processes = len(available_gpus()) if device.index is None else 1

    def speed(network: str, batch_size: int) -> float | None:
        """Of one slot; at a batch size that was not measured, that of the next smaller one."""
        assert measured is not None
        speeds = [
            one
            for one in measured.speeds
            if bare_name(one.network) == network and one.batch_size <= batch_size
        ]
        nearest = max((one.batch_size for one in speeds), default=0)
        together = [one for one in speeds if one.batch_size == nearest]
        packed = [one for one in together if one.packed == per_process] or together
        return max((one.images_per_second / per_process for one in packed), default=None)

    return {
        "store": store,
        "speed": speed if measured else None,
        "slots": per_process * processes,
    }


def _how_to_measure(planned: Plan) -> str:
    """What to run so that a plan has hours."""
    networks = " ".join(dict.fromkeys(network for network, _ in planned.unmeasured))
    command = f"tombola bench --networks {networks}" if networks else "tombola bench"
    return f"hours: this device has not been measured on such trainings; run {command}"
