"""``tombola report`` and ``tombola claims``: what the store has to show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from tombola.cli.arguments import Names, Numbers, Scale, ScaleNumbers, Store
from tombola.cli.console import check_writable, many_studies, say
from tombola.cli.own import own_paths, report_own
from tombola.cli.scales import shown_scale
from tombola.errors import StudyError

if TYPE_CHECKING:
    from tombola.lab.lab import Lab
    from tombola.studies.study import Study


_NOTHING = (
    "nothing of this scale is in the store; give the --scale, and the numbers, that studies were run with"
)


def report(
    names: Names = (),
    out: Annotated[Path, tyro.conf.arg(help="Folder for the report.")] = Path("tombola-report"),
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    page_only: Annotated[
        bool, tyro.conf.arg(help="Only the page, not every table and figure as files of its own too.")
    ] = False,
) -> None:
    """A page of tables, figures and claims beside the paper's, of what the store has; nothing is run.

    The scale is that of the last run in the store unless one is given. Of files of your own: their tables.
    """
    own = own_paths(names, scale=scale, numbers=numbers)
    if own:
        report_own(own, out, _looking_lab(store))
        return
    from tombola.lab.slots import available_cores
    from tombola.report.gather import gather
    from tombola.report.write_studies import write_studies
    from tombola.studies.catalogue import STUDIES, studies_named
    from tombola.studies.paper.jobs import Work
    from tombola.studies.running import fitting

    lab = _looking_lab(store)
    work = Work(shown_scale(scale, numbers, lab.store))
    asked = studies_named(names)
    fit, others = fitting(STUDIES, work)
    beside: list[Study] = []
    if asked:
        for study in asked:
            if study.name in others:
                raise StudyError(others[study.name])
        # Claims are judged on all studies, whichever are shown.
        fit, beside, others = asked, [study for study in fit if study not in asked], {}
    check_writable(out)
    console = Console()
    say(console, f"{many_studies(len(fit))}, {work.scale}, store {lab.store.root}")
    for cause in others.values():
        say(console, f"left out: {cause}")
    found = gather(lab, fit, work, others, beside=beside)
    write_studies(found, out, list(names) or None, files=not page_only, processes=available_cores())
    done = sum(place in found.cells for place in found.places)
    say(console, f"{done:,} of {len(found.places):,} numbers are computed")
    if not found.cells:
        say(console, _NOTHING)
    say(console, f"report: {(out / 'report.html').absolute()}")


def claims(
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
) -> None:
    """The paper's 61 claims, judged on its own numbers and on those in the store."""
    from tombola.report.board import board, board_table
    from tombola.studies.catalogue import STUDIES
    from tombola.studies.claims.all_claims import judge_all
    from tombola.studies.paper.jobs import Work
    from tombola.studies.paper.printed import printed_cells
    from tombola.studies.running import cells_of, collect, fitting

    lab = _looking_lab(store)
    work = Work(shown_scale(scale, numbers, lab.store))
    fit, _ = fitting(STUDIES, work)
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file has room
    cells = cells_of(collect(lab, fit, work))
    rows = board(judge_all(printed_cells()), judge_all(cells))
    say(console, f"{work.scale.budget}, store {lab.store.root}")
    if work.scale.warning:
        say(console, work.scale.warning)
    if not cells:
        say(console, _NOTHING)
    console.print(board_table(rows, console))


def _looking_lab(root: Path | None) -> Lab:
    """A lab on a store that is there already; it computes nothing."""
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.store import Store as StoreFolder

    return Lab(StoreFolder(root, create=False).root, settings=Settings(device="cpu"))
