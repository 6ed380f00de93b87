"""``tombola predictors``: what is known of dense networks early, beside how their tickets do."""

from __future__ import annotations

from typing import Annotated

import tyro

from tombola.cli.arguments import Imports, Numbers, Scale, ScaleNumbers, Store
from tombola.cli.console import say, table_console
from tombola.cli.imports import import_files
from tombola.cli.table import (
    AsJson,
    AsMarkdown,
    Contents,
    CsvFile,
    form_of,
    looking_lab,
    named_table,
    write_form,
)
from tombola.errors import ExperimentError


def predictors(
    names: Contents = (),
    sparsity: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="PERCENT",
            help="Of the tickets whose gain is predicted; default: the highest that three quarters of the "
            "configurations have.",
            help_behavior_hint="",
        ),
    ] = None,
    csv: CsvFile = None,
    json: AsJson = False,
    markdown: AsMarkdown = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Rank correlations of early measures with how tickets do, over the configurations that there are.

    Every number of a dense network is a candidate, beside lr / (batch (1 - momentum)). Nothing is run.
    """
    form = form_of(csv, json, markdown)
    from tombola.report.terminal import grid_table
    from tombola.table.table import Table
    from tombola.views.predictors import forecasts, predictor_exhibits, predictor_numbers, sentences

    import_files(import_)
    predictions = forecasts(named_table(looking_lab(store), names, scale, numbers), sparsity=sparsity)
    if not predictions:
        wanted = "a ticket" if sparsity is None else f"a ticket of {sparsity:g}% sparsity"
        raise ExperimentError(
            f"no configuration here has the accuracy of {wanted} beside that of its dense network; "
            "tombola table shows what there is"
        )
    if write_form(Table(number for one in predictions for number in predictor_numbers(one)), csv, form):
        return
    console = table_console()
    for exhibit in predictor_exhibits("predictors", predictions):
        console.print(grid_table(exhibit, console))
    for forecast in predictions:
        for line in sentences(forecast):
            say(console, line)
