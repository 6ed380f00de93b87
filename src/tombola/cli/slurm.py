"""``tombola run ... --slurm partition=gpu,gpus=4,time=24:00:00``: the same command as a job of Slurm."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tombola.cli.console import InertConsole, say, write_out
from tombola.errors import ExperimentError

if TYPE_CHECKING:
    from tombola.experiments.bound import Bound
    from tombola.lab.slurm_options import SlurmOptions

Slurm = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME=VALUE,...",
        help="Submit it to Slurm instead, such as partition=gpu,gpus=4,time=24:00:00; also nodes, cpus, mem, "
        "account, qos, constraint and any other option of sbatch (docs/cluster.md).",
        help_behavior_hint="",
    ),
]
DryRun = Annotated[
    bool, tyro.conf.arg(help="With --slurm: print the scripts, and neither write nor submit anything.")
]


def asked_of_slurm(
    slurm: str | None, dry_run: bool, as_json: bool, set_by_scripts: Mapping[str, object]
) -> SlurmOptions | None:
    """The options of ``--slurm``; None without it.

    set_by_scripts: options that the scripts set themselves, by name; None where one was not given.

    Raises :class:`~tombola.errors.ExperimentError` for options that cannot be, or cannot stand together.
    """
    from tombola.lab.slurm_options import parse_slurm_options

    if slurm is None:
        if dry_run:
            raise ExperimentError("--dry-run goes with --slurm; tombola plan tells what a run costs")
        return None
    for option, value in set_by_scripts.items():
        if value is not None:
            raise ExperimentError(f"{option} is set by the scripts of --slurm; leave it out")
    if as_json:
        raise ExperimentError("--json prints what came of a run, which --slurm only submits; leave it out")
    return parse_slurm_options(slurm)


def submit_run(
    options: SlurmOptions,
    dry_run: bool,
    arguments: Sequence[str],
    bound: Sequence[Bound],
    *,
    store: Path | None,
    workers: int | None,
    slots: int | None,
) -> None:
    """Submit the command that has these arguments to Slurm, or print what would be submitted.

    bound: what it computes.
    """
    from tombola.experiments.bound import jobs_behind
    from tombola.lab import slurm as submission
    from tombola.lab.slots import default_slots
    from tombola.lab.slurm_scripts import slurm_scripts
    from tombola.lab.store import Store, default_place

    place = (default_place() if store is None else store).expanduser().absolute()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", bound[0].name)[:40]
    folder = submission.folder_for(place, name)
    scripts = slurm_scripts(
        name, arguments, options, store=place, folder=folder, work=Path.cwd(), workers=workers,
        slots=slots or default_slots(jobs_behind(bound)),
    )  # fmt: skip
    if dry_run:
        for script in scripts:
            write_out(f"==> {folder / script.name} <==\n{script.text}\n")
        return
    submission.check_slurm()
    console = InertConsole()
    submitted = submission.submit(Store(place), folder, scripts)
    say(console, f"{name}: {options.in_words()}, store {place}")
    for line in submitted.lines():
        say(console, line)


def arguments_again(
    function: Callable[..., object], values: Mapping[str, Any], without: Collection[str] = ()
) -> list[str]:
    """The arguments on a command line that call a command with the same values, defaults left out.

    values: by parameter. without: parameters that are left out.
    """
    positional: list[str] = []
    options: list[str] = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        value = values[name]
        if name in without or value == parameter.default:
            continue
        if tyro.conf.Positional in getattr(parameter.annotation, "__metadata__", ()):
            positional += [str(item) for item in value]
        elif dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            options += [f"{_option(key)}={item}" for key, item in fields.items() if item is not None]
        elif isinstance(value, bool):
            options.append(_option(name))
        elif isinstance(value, tuple):
            options += [f"{_option(name)}={item}" for item in value]
        else:
            options.append(f"{_option(name)}={value}")
    return [*positional, *options]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
