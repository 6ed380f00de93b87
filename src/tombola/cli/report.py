"""``tombola report`` and ``tombola claims``: what the store has to show."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import tyro

from tombola.cli.arguments import AsJson, Names, Numbers, Scale, ScaleNumbers, Store
from tombola.cli.collector import nothing_collected
from tombola.cli.console import (
    check_writable,
    many_studies,
    progress_console,
    say,
    table_console,
    write_json,
)
from tombola.cli.own import own_paths, report_json, report_own
from tombola.cli.scales import shown_scale
from tombola.cli.table import looking_lab
from tombola.errors import ExperimentError

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
    as_json: AsJson = False,
) -> None:
    """A page of tables, figures and claims beside the paper's, of what the store has; nothing is run.

    The scale is that of the last run in the store unless one is given. Of files of your own: a page of their
    tables and figures, and what the numbers say.
    """
    own = own_paths(names, scale=scale, numbers=numbers)
    if own:
        report_own(own, out, looking_lab(store), page_only=page_only, as_json=as_json)
        return
    with nothing_collected():
        from tombola.cores import available_cores
        from tombola.experiments.paper.jobs import PaperJobs
        from tombola.experiments.paper.studies import STUDIES, studies_named
        from tombola.experiments.study import bind
        from tombola.report.gather import gather
        from tombola.report.write import write_report

        lab = looking_lab(store)
        work = PaperJobs(shown_scale(scale, numbers, lab.store))
        fitting, others = bind(STUDIES, work)
        bound = {experiment.name: experiment for experiment in fitting}
        chosen = studies_named(names) or list(STUDIES)
        for study in chosen if names else ():
            if study.name in others:
                raise ExperimentError(others[study.name])
        shown = [bound.get(study.name) or study.left_out(others[study.name]) for study in chosen]
        check_writable(out)
        console = progress_console(as_json)
        count = sum(study.name in bound for study in chosen)
        say(console, f"{many_studies(count)}, {work.scale}, store {lab.store.root}")
        for cause in () if names else others.values():
            say(console, f"left out: {cause}")
        # Claims are judged on all studies, whichever are shown.
        not_shown = [experiment for experiment in fitting if experiment not in shown]
        report = gather(
            lab, shown, beside=not_shown, scale=str(work.scale), budget=work.scale.budget,
            note=work.scale.warning, of_paper=not work.scale.note,
        )  # fmt: skip
    if not report.of_paper:
        report = replace(report, lead="The paper's studies on stand-ins for its networks and data.")
    written = write_report(report, out, files=not page_only, processes=available_cores())
    entries = [entry for exhibit in report.exhibits for entry in exhibit.entries]
    computed = sum(entry.cell is not None for entry in entries)
    if as_json:
        write_json(report_json(lab, out, written, computed, len(entries)))
        return
    say(console, f"{computed:,} of {len(entries):,} numbers are computed")
    if not report.cells:
        say(console, _NOTHING)
    say(console, f"report: {(out / 'report.html').absolute()}")


def claims(
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """The paper's 61 claims, what it supposes and what it leaves open, judged on its numbers and on ours."""
    from tombola.experiments.claims.all_claims import judge_all, judge_questions
    from tombola.experiments.compute import collect
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.printed import printed_cells
    from tombola.experiments.paper.studies import STUDIES
    from tombola.experiments.study import bind
    from tombola.report.board import board, board_table, of_stand_ins
    from tombola.table.number import longest

    lab = looking_lab(store)
    work = PaperJobs(shown_scale(scale, numbers, lab.store))
    fitting, _ = bind(STUDIES, work)
    console = table_console(160)
    cells = longest(collect(lab, fitting).cells())
    printed = printed_cells()
    paper, ours = ([*judge_all(of), *judge_questions(of)] for of in (printed, cells))
    rows = board(paper, ours)
    if work.scale.note:
        rows = [of_stand_ins(row) for row in rows]
    if as_json:
        note = work.scale.note or work.scale.warning
        board_json = [asdict(row) for row in rows]
        write_json(
            {"store": str(lab.store.root), "budget": work.scale.budget, "note": note, "claims": board_json}
        )
        return
    say(console, f"{work.scale.budget}, store {lab.store.root}")
    if work.scale.note:
        say(console, f"{work.scale.note}; it gives no verdict on the paper's claims")
    elif work.scale.warning:
        say(console, work.scale.warning)
    if not cells:
        say(console, _NOTHING)
    console.print(board_table(rows, console))
