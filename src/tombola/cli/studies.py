"""``tombola studies`` and ``tombola plan``: what there is, what of it is done, and what the rest costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from tombola.cli.arguments import Device, Names, Numbers, Scale, ScaleNumbers, Store, Workers
from tombola.cli.saying import say
from tombola.cli.scales import asked_scale, asked_studies, existing_store, shown_scale
from tombola.errors import StudyError

if TYPE_CHECKING:
    import torch

    from tombola.studies.plan import Plan
    from tombola.studies.study import Study
    from tombola.studies.work import Work


def studies(
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
) -> None:
    """The tables and figures of the paper by name, and what of them is done."""
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.studies.catalogue import STUDIES
    from tombola.studies.running import done
    from tombola.studies.work import Work

    found = existing_store(store)
    work = Work(shown_scale(scale, numbers, found))
    lab = Lab(found.root, settings=Settings(device="cpu")) if found else None
    console = Console()
    say(console, f"{work.scale}, store {found.root if found else 'not made yet'}")
    for study in STUDIES:
        try:
            line = str(done(study, work, lab))
        except StudyError as error:
            line = f"{study.name:<18}  {study.title}: not at this scale ({error})"
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
    """What studies would cost: jobs, epochs, hours on this device, disk. Nothing is run."""
    from tombola.studies.catalogue import PAPER
    from tombola.studies.work import Work
    from tombola.training.device import resolve_device

    asked = asked_studies(names, all, PAPER)
    work = Work(asked_scale(scale, numbers))
    found = planned(asked, work, resolve_device(device), store, workers=workers, slots=slots)
    console = Console()
    lines = found.lines()
    if found.hours is None:
        lines.insert(-1, _how_to_measure(found))
    for line in lines:
        say(console, line)


def planned(
    asked: list[Study],
    work: Work,
    device: torch.device,
    store: Store = None,
    *,
    workers: int | None = None,
    slots: int | None = None,
) -> Plan:
    """The plan of studies on a device, with hours if its speed has been measured."""
    from tombola.lab.engine import available_cores, available_gpus
    from tombola.lab.slots import default_slots
    from tombola.lab.speeds import known_speeds
    from tombola.studies.plan import plan as plan_studies

    measured = known_speeds(device)
    if device.type == "cpu":
        each, processes = 1, available_cores() if workers is None else max(workers, 1)
    else:
        each = slots or default_slots(job for study in asked for job in study.jobs(work))
        processes = len(available_gpus()) if device.index is None else 1

    def speed(network: str, batch_size: int) -> float | None:
        """Of one slot; at a batch size that was not measured, that of the next smaller one."""
        assert measured is not None
        known = [one for one in measured.speeds if one.network == network and one.batch_size <= batch_size]
        nearest = max((one.batch_size for one in known), default=0)
        together = [one for one in known if one.batch_size == nearest]
        packed = [one for one in together if one.packed == each] or together
        return max((one.images_per_second / each for one in packed), default=None)

    return plan_studies(
        asked, work, store=existing_store(store), speed=speed if measured else None, slots=each * processes
    )


def _how_to_measure(found: Plan) -> str:
    """What to run so that a plan has hours."""
    networks = " ".join(dict.fromkeys(network for network, _ in found.unmeasured))
    command = f"tombola bench --networks {networks}" if networks else "tombola bench"
    return f"hours: this device has not been measured on such trainings; run {command}"
