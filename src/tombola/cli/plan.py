"""``tombola studies`` and ``tombola plan``: what there is, what of it is done, and what the rest costs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import tyro
from rich.console import Console

from tombola.cli.arguments import Device, Names, Numbers, Scale, ScaleNumbers, Store, Workers
from tombola.cli.console import say
from tombola.cli.own import own_paths, own_work
from tombola.cli.scales import asked_fitting, asked_scale, existing_store, shown_scale
from tombola.errors import StudyError

if TYPE_CHECKING:
    import torch

    from tombola.lab.job import Job
    from tombola.lab.store import Store as StoreFolder
    from tombola.studies.plan import Plan


def studies(
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
) -> None:
    """The tables and figures of the paper by name, and what of them is done."""
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.studies.catalogue import STUDIES
    from tombola.studies.paper.jobs import Work
    from tombola.studies.running import done

    found = existing_store(store)
    work = Work(shown_scale(scale, numbers, found))
    lab = Lab(found.root, settings=Settings(device="cpu")) if found else None
    console = Console()
    say(console, f"{work.scale}, store {found.root if found else 'not made yet'}")
    for study in STUDIES:
        try:
            line = str(done(study, work, lab))
        except StudyError as error:
            line = f"{study.name:<21}  {study.title}: not at this scale ({error})"
        say(console, line)


def plan(
    names: Names = (),
    all: Annotated[bool, tyro.conf.arg(help="All 46 of the paper.")] = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    workers: Workers = None,
    device: Device = "auto",
    slots: Annotated[int | None, tyro.conf.arg(help="Trainings at once on each GPU.")] = None,
) -> None:
    """What studies would cost: jobs, epochs, hours on this device, disk. Nothing is run.

    A name may be a file of your own, .py or .toml.
    """
    from tombola.lab.staleness import warn_stale
    from tombola.studies.catalogue import PAPER
    from tombola.studies.paper.jobs import Work
    from tombola.studies.plan import plan as plan_studies
    from tombola.studies.plan import plan_jobs
    from tombola.training.device import resolve_device

    gc.freeze()  # what imports made stays; looked through again and again, it costs more than the plan
    place = resolve_device(device)
    left_out: list[str] = []
    if own := own_paths(names, all, scale, numbers):
        _, rows = own_work(own)
        jobs = {study.name: [job for row in some for job in row.jobs] for study, some in rows}
        costing = _costing(place, jobs.values(), store, workers, slots)
        if costing["store"] is not None:
            warn_stale(costing["store"], [job for some in jobs.values() for job in some], {})
        found = plan_jobs(jobs, **costing)
    else:
        work = Work(asked_scale(scale, numbers))
        asked, left_out = asked_fitting(names, all, PAPER, work)
        asked_jobs = (study.jobs(work) for study in asked)
        found = plan_studies(asked, work, **_costing(place, asked_jobs, store, workers, slots))
    console = Console()
    for cause in left_out:
        say(console, f"left out: {cause}")
    lines = found.lines()
    if found.hours is None:
        lines.insert(-1, _how_to_measure(found))
    for line in lines:
        say(console, line)


class _Costing(TypedDict):
    """What a plan is told of this machine: what is in the store, speeds, and jobs at a time."""

    store: StoreFolder | None
    speed: Callable[[str, int], float | None] | None
    slots: int


def _costing(
    device: torch.device,
    jobs: Iterable[Sequence[Job]],
    store: Path | None,
    workers: int | None,
    slots: int | None,
) -> _Costing:
    """The same for a device, with its speeds if they have been measured."""
    from tombola.lab.bench import known_speeds
    from tombola.lab.engine import available_cores, available_gpus
    from tombola.lab.lab import default_slots
    from tombola.networks.versions import bare_name

    measured = known_speeds(device)
    if device.type == "cpu":
        each, processes = 1, available_cores() if workers is None else max(workers, 1)
    else:
        each = slots or default_slots(job for some in jobs for job in some)
        processes = len(available_gpus()) if device.index is None else 1

    def speed(network: str, batch_size: int) -> float | None:
        """Of one slot; at a batch size that was not measured, that of the next smaller one."""
        assert measured is not None
        known = [
            one
            for one in measured.speeds
            if bare_name(one.network) == network and one.batch_size <= batch_size
        ]
        nearest = max((one.batch_size for one in known), default=0)
        together = [one for one in known if one.batch_size == nearest]
        packed = [one for one in together if one.packed == each] or together
        return max((one.images_per_second / each for one in packed), default=None)

    return {
        "store": existing_store(store),
        "speed": speed if measured else None,
        "slots": each * processes,
    }


def _how_to_measure(found: Plan) -> str:
    """What to run so that a plan has hours."""
    networks = " ".join(dict.fromkeys(network for network, _ in found.unmeasured))
    command = f"tombola bench --networks {networks}" if networks else "tombola bench"
    return f"hours: this device has not been measured on such trainings; run {command}"
