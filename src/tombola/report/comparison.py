"""Several trainings side by side as a table of the terminal, a picture and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tombola.disk import write_whole
from tombola.lab.comparison import ACCURACY, ComparedRun, RunComparison
from tombola.lab.details import sparkline
from tombola.report.figure import inline_svg, picture_files, save_picture
from tombola.report.template import template
from tombola.report.terminal import MISSING, empty_table
from tombola.table.key import Scalar
from tombola.table.metrics import metric_of
from tombola.table.number import many
from tombola.untrusted import printable
from tombola.version import __version__
from tombola.views.layout import NAMES, value_text
from tombola.views.picture import Line, Panel, Picture

if TYPE_CHECKING:
    from rich.table import Table

_BEST = "train.best_accuracy"
_HEADS = {ACCURACY: "test accuracy", _BEST: "best", "train.nonfinite_at_pruning": "non-finite at pruning"}
# Numbers that every run has, and that say nothing beside the others: fields and stars tell them.
_TOLD_ELSEWHERE = frozenset({"train.failed", "train.diverged", "train.round", "train.sparsity"})
_SHOWN = (ACCURACY, _BEST)
_PANELS = {"test_accuracy": "test accuracy (%)", "train_loss": "train loss (nats)"}
_FIELD_NAMES = {**NAMES, "baseline": "kind", "epochs": "epochs", "seed": "seed"}
_CURVE_WIDTH = 20


@dataclass(frozen=True)
class Column:
    """One column of the numbers side by side: its heading and the text of each run."""

    head: str
    texts: Sequence[str]
    right: bool = True


def columns_of(compared: RunComparison) -> list[Column]:
    """Job, what tells the runs apart, their numbers, and how far each is from the first one."""
    runs = compared.runs
    columns = [Column("job", [run.name[:12] for run in runs], right=False)]
    for name in compared.differing:
        texts = [_field_text(name, run.fields.get(name)) for run in runs]
        columns.append(Column(_FIELD_NAMES.get(name, name.replace("_", " ")), texts, right=False))
    for metric in _metrics(runs):
        head = _HEADS.get(metric, metric_of(metric).label.removeprefix("train.").replace("_", " "))
        columns.append(Column(head, [_number_text(run, metric) for run in runs]))
        if metric == ACCURACY:
            columns.append(Column("to the first", [_distance(run, runs[0]) for run in runs]))
    columns.append(Column("seconds", [f"{run.seconds:,.1f}" for run in runs]))
    return columns


def comparison_table(compared: RunComparison) -> Table:
    """The numbers side by side for the terminal, each run with its learning curve in a line of blocks."""
    from rich.text import Text

    table = empty_table(f"{many(len(compared.runs), 'training')} side by side", _caption(compared))
    columns = columns_of(compared)
    curves = [_curve_text(run) for run in compared.runs]
    for column in columns:
        table.add_column(
            Text(printable(column.head)), justify="right" if column.right else "left", no_wrap=True
        )
    table.add_column("test accuracy by epoch", no_wrap=True)
    for place, curve in enumerate(curves):
        table.add_row(*(Text(printable(column.texts[place])) for column in columns), Text(curve))
    return table


def comparison_picture(compared: RunComparison) -> Picture:
    """The learning curves over one another: test accuracy and train loss by epoch."""
    differing = compared.differing
    panels = [
        Panel(
            "",
            "epoch",
            y_label,
            [
                Line(
                    _label(run, differing), run.epochs, run.curves[curve],
                    run.key.momentum, run.key.batch_size, failed=[run.failed] * len(run.epochs),
                )
                for run in compared.runs
            ],
        )
        for curve, y_label in _PANELS.items()
    ]  # fmt: skip
    title = f"Learning curves of {many(len(compared.runs), 'training')}"
    return Picture("comparison", title, "Test accuracy and train loss by epoch", panels)


def write_comparison(compared: RunComparison, folder: Path) -> Path:
    """Write the page ``comparison.html`` and the picture as SVG, PNG and PDF in ``figures/``.

    Returns the path of the page. Raises :class:`~tombola.errors.StoreError` when the folder cannot be written
    to.
    """
    from markupsafe import Markup

    picture = comparison_picture(compared)
    files = picture_files(picture)
    save_picture(picture, folder / "figures", files)
    # matplotlib escapes what it is given, and the title is escaped here.
    svg = Markup(inline_svg(files["svg"].decode(), "curves", escape(picture.title)))
    columns = columns_of(compared)
    page = template("comparison").render(
        title=f"{many(len(compared.runs), 'training')} side by side",
        shared=_shared_text(compared),
        columns=columns,
        rows=list(zip(*(column.texts for column in columns), strict=True)),
        caption=_caption(compared, shared=False),
        svg=svg,
        picture_caption=picture.caption,
        store=str(compared.store.root),
        jobs=[run.name for run in compared.runs],
        version=__version__,
    )
    path = folder / "comparison.html"
    write_whole(path, page.encode(), make_folder=True)
    return path


def _metrics(runs: Sequence[ComparedRun]) -> list[str]:
    """The metrics of a column each: both accuracies, and what differs besides."""
    names = dict.fromkeys(name for run in runs for name in run.numbers)
    return [
        name
        for name in names
        if name in _SHOWN
        or (name not in _TOLD_ELSEWHERE and len({run.numbers.get(name) for run in runs}) > 1)
    ]


def _number_text(run: ComparedRun, name: str) -> str:
    """A number of a run with its unit; a star where the run failed."""
    value = run.numbers.get(name)
    if value is None:
        return MISSING
    metric = metric_of(ACCURACY if name == _BEST else name)
    return metric.text(value) + metric.suffix + "*" * (run.failed and name == ACCURACY)


def _distance(run: ComparedRun, first: ComparedRun) -> str:
    """The test accuracy minus that of the first run, in percentage points."""
    here, there = run.numbers.get(ACCURACY), first.numbers.get(ACCURACY)
    if run is first or here is None or there is None:
        return ""
    return f"{round(here - there, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def _field_text(name: str, value: Scalar) -> str:
    """The value of a field as text; an option that is switched on or off in a word."""
    if isinstance(value, bool) and name != "pretrained":
        return "yes" if value else "no"
    return value_text(name, value)


def _label(run: ComparedRun, differing: Sequence[str]) -> str:
    """What the legend says of a run: its job, and what tells it apart."""
    values = ((name, _field_text(name, run.fields.get(name))) for name in differing)
    parts = [f"{_FIELD_NAMES.get(name, name.replace('_', ' '))} {text}" for name, text in values if text]
    return ": ".join(filter(None, [run.name[:8], ", ".join(parts)]))


def _shared_text(compared: RunComparison) -> str:
    """What all runs have in common, such as "data digits, epochs 12"."""
    texts = ((name, _field_text(name, value)) for name, value in compared.shared.items())
    return ", ".join(
        f"{_FIELD_NAMES.get(name, name.replace('_', ' '))} {text}"
        for name, text in texts
        if text and name not in ("baseline", "pretrained")
    )


def _caption(compared: RunComparison, *, shared: bool = True) -> str:
    """What all have in common, and what the marks mean, as far as they occur."""
    parts = [f"All: {_shared_text(compared)}."] if shared and compared.shared else []
    parts += ["To the first: test accuracy minus that of the first run, in percentage points."]
    if any(run.failed for run in compared.runs):
        parts += ["*: the run failed to train."]
    return " ".join(parts)


def _curve_text(run: ComparedRun) -> str:
    """The test accuracy over the epochs of a run as blocks; empty where no two epochs have one."""
    values = [value for value in run.curves["test_accuracy"] if value == value]
    return sparkline(values, _CURVE_WIDTH) if len(values) > 1 else ""
