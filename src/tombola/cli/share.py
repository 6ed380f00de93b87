"""``tombola push``, ``pull`` and ``shelf``: runs, tickets and tables to a hub, from it, and off the shelf."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tombola.cli.arguments import AsJson, Imports, Numbers, Scale, ScaleNumbers, Store
from tombola.cli.console import InertConsole, say, write_json, write_out
from tombola.cli.imports import import_files
from tombola.cli.table import bound_study, own_experiments
from tombola.errors import ExperimentError, StoreError

if TYPE_CHECKING:
    from tombola.lab.lab import Lab
    from tombola.sharing.hub_traffic import Push

_DATASETS = "datasets/"

Repository = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME", help="The repository on the hub.")
]


def push(
    name: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="JOB|FILE|EXPERIMENT",
            help="A finished training or ticket by name or its beginning, or a file of one: as a model. A "
            "study of the paper, or your own .py or .toml: its table as a data set.",
        ),
    ],
    repository: Repository,
    private: Annotated[
        bool, tyro.conf.arg(help="Make the repository private; one that is public is refused.")
    ] = False,
    dry_run: Annotated[
        bool, tyro.conf.arg(help="Only show what would be uploaded, with sizes and the card.")
    ] = False,
    license: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="For the card, as the hub writes it, such as mit.", help_behavior_hint=""
        ),
    ] = None,
    with_start: Annotated[
        bool, tyro.conf.arg(help="Also the pruned weights of the dense start, which controls need.")
    ] = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Upload a run, a ticket or an experiment's table to the Hugging Face hub, with a card.

    The account is the one of hf auth login or HF_TOKEN, the hub that of HF_ENDPOINT.
    """
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.store import Store as StoreFolder
    from tombola.sharing.hub_traffic import check_repository

    import_files(import_)
    check_repository(repository)
    if Path(name).is_file() and not name.endswith((".py", ".toml")):
        from tombola.lab.finished import run_or_ticket
        from tombola.sharing.model_card import Background
        from tombola.sharing.models import push as push_model

        pushed = push_model(
            run_or_ticket(name), repository, Background(), private=private, license=license,
            with_start=with_start, dry_run=dry_run,
        )  # fmt: skip
        _tell(pushed)
        return
    lab = Lab(StoreFolder(store, create=False).root, settings=Settings(device="cpu"))
    if _is_experiment(name):
        pushed = _push_table(lab, name, repository, scale, numbers, private, license, dry_run)
    else:
        pushed = _push_job(lab, name, repository, private, license, with_start, dry_run)
    _tell(pushed)


def _is_experiment(name: str) -> bool:
    from tombola.experiments.paper.studies import STUDIES

    return name.endswith((".py", ".toml")) or any(name == study.name for study in STUDIES)


def _push_job(
    lab: Lab, name: str, repository: str, private: bool, license: str | None, with_start: bool, dry_run: bool
) -> Push:
    """Upload the run or ticket of a finished job with what its store knows of it."""
    from tombola.lab.finished import finished_job, subject_of
    from tombola.lab.job import Job
    from tombola.sharing.models import background_of_job
    from tombola.sharing.models import push as push_model
    from tombola.ticket import Ticket
    from tombola.training.run import Run

    subject_of(lab.store, "push", "it", name, (Run, Ticket))
    job: Job = finished_job(lab.store, name)
    return push_model(
        lab.result(job), repository, background_of_job(lab.store, job.name), private=private, license=license,
        with_start=with_start, dry_run=dry_run,
    )  # fmt: skip


def _push_table(
    lab: Lab,
    name: str,
    repository: str,
    scale: str | None,
    numbers: Numbers,
    private: bool,
    license: str | None,
    dry_run: bool,
) -> Push:
    """Upload the table of an experiment, with its tables of means in the card."""
    from tombola.sharing.table_card import Shown
    from tombola.sharing.table_sets import push_table

    own = name.endswith((".py", ".toml"))
    bound = own_experiments(lab, Path(name)) if own else [bound_study(lab, name, scale, numbers)]
    results = lab.results()
    about = [part for experiment in bound for part in (experiment.about, experiment.warning) if part]
    shown = Shown(
        "; ".join(filter(None, (experiment.title for experiment in bound))),
        " ".join(about),
        [exhibit for experiment in bound for exhibit in experiment.exhibits(results)],
    )
    return push_table(lab.table(*bound), repository, shown, private=private, license=license, dry_run=dry_run)


def _tell(pushed: Push) -> None:
    """The files with their sizes, and where they are; of a dry run the card, too."""
    console = InertConsole()
    width = max(map(len, pushed.sizes))
    for name, size in pushed.sizes.items():
        say(console, f"{name:{width}}  {size:>12,} bytes")
    if pushed.origin is not None:
        say(console, f"pushed to {pushed.address}, revision {pushed.origin.revision}")
        return
    visible = "private" if pushed.private else "public, unless it is there and private"
    say(console, f"would be pushed to {pushed.address} ({visible}); nothing was uploaded. Its card:")
    say(console, "")
    write_out(pushed.card)


def pull(
    repository: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="USER/NAME", help="A run or ticket on the hub; datasets/USER/NAME is a table."),
    ],
    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[FILE]",
            help="The file to write: .safetensors; of a table .csv or .json. Default: NAME.safetensors or "
            "NAME.csv here, unless that is there already.",
            help_behavior_hint="",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME",
            help="A branch, tag or commit; default: the newest of main.",
            help_behavior_hint="",
        ),
    ] = None,
    import_: Imports = (),
) -> None:
    """Fetch a run, ticket or table from the Hugging Face hub into a file, and tell its exact revision."""
    import_files(import_)
    is_table = repository.startswith(_DATASETS)
    name = repository.removeprefix(_DATASETS)
    from tombola.sharing.hub_traffic import check_repository

    check_repository(name)
    if is_table and file is not None and file.suffix not in (".csv", ".json"):
        raise ExperimentError(f"a table is written as .csv or .json; {file} is neither")
    target = file or _free(Path(name.rpartition("/")[2] + (".csv" if is_table else ".safetensors")))
    if is_table:
        _pull_table(name, target, revision)
    else:
        _pull_model(name, target, revision)


def _free(path: Path) -> Path:
    """A file that is not there yet."""
    if path.exists():
        raise StoreError(f"{path} is there already; say which file to write")
    return path


def _pull_model(repository: str, file: Path, revision: str | None) -> None:
    from tombola.sharing.models import pull as pull_model
    from tombola.training.run import Run

    pulled = pull_model(repository, revision)
    ticket = pulled.ticket if isinstance(pulled, Run) else pulled
    pulled.save(file, with_start=ticket.complete and ticket.has_start)
    assert ticket.hub is not None  # it was pulled
    say(InertConsole(), f"{file}: {pulled!r}")
    say(InertConsole(), f"from {ticket.hub.repository}, revision {ticket.hub.revision}")


def _pull_table(repository: str, file: Path, revision: str | None) -> None:
    from tombola.disk import write_whole
    from tombola.sharing.table_sets import pull_table

    table = pull_table(repository, revision)
    write_whole(file, (table.json() if file.suffix == ".json" else table.csv()).encode())
    assert table.hub is not None  # it was pulled
    say(InertConsole(), f"{file}: {len(table):,} numbers")
    say(InertConsole(), f"from {_DATASETS}{table.hub.repository}, revision {table.hub.revision}")


def shelf(
    name: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[NAME]", help="A ticket; default: lists what there is.", help_behavior_hint=""
        ),
    ] = None,
    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[FILE]",
            help="The .safetensors file to write; default: NAME.safetensors here, unless that is there.",
            help_behavior_hint="",
        ),
    ] = None,
    source: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="PLACE",
            help="An export of tickets, a folder with store.zip, a store, or USER/NAME on the hub; default: "
            "TOMBOLA_SHELF, or results/ of the sources that tombola runs from.",
            help_behavior_hint="",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="Of one on the hub: a branch, tag or commit.", help_behavior_hint=""
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The shelf of finished tickets: what there is, or one of them as a file with its dense start."""
    from tombola.sharing.shelf import shelf as opened

    if as_json and name is not None:
        raise ExperimentError(f"--json prints the list of tickets; leave out {name} or --json")
    tickets = opened(source=source, revision=revision)
    if as_json:
        write_json({"source": tickets.source, "tickets": [asdict(ticket) for ticket in tickets]})
        return
    if name is None:
        for line in str(tickets).splitlines():
            say(InertConsole(), line)
        return
    target = file or _free(Path(f"{name}.safetensors"))
    ticket = tickets.load(name)
    ticket.save(target, with_start=True)
    say(InertConsole(), f"{target}: {ticket!r}")
