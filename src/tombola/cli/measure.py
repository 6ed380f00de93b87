"""``tombola measure``: any declared function on finished jobs, its options made from its signature.

So a measure that a user adds is a command with no other edit.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import tyro

from tombola.cli.arguments import AsJson, Device, Mode, Store
from tombola.cli.console import InertConsole, say, write_json, write_out
from tombola.cli.imports import import_files, split_imports
from tombola.cli.mistyped import refused_in_one_line
from tombola.cli.optional import OPTIONAL
from tombola.errors import JobError, Undefined

if TYPE_CHECKING:
    from tombola.registry import Declaration

COMMAND = "measure"
Recompute = Annotated[
    bool, tyro.conf.arg(help="Compute it anew, in place of what is there and of all that was made from it.")
]
Csv = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FILE",
        help="Write what it gives of each image as CSV, such as scores or a selection; - is standard output.",
        help_behavior_hint="",
    ),
]
FigureFile = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FILE",
        help="Draw error and loss over a plane of weights, as .svg, .png or .pdf.",
        help_behavior_hint="",
    ),
]
_OWN = ("store", "device", "mode", "recompute", "csv", "figure", "as_json")
_STDOUT = Path("-")
# Of what is empty the help would say "(default: )".
_SAYS_NO_DEFAULT = tyro.conf.arg(help_behavior_hint="")


def measure(
    name: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help="barrier, probe, untrained, ...")
    ],
    arguments: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[JOB|FILE ...]",
            help="Finished jobs by name or its beginning, or files; then options.",
            help_behavior_hint="",
        ),
    ] = (),
) -> None:
    """A measure of finished jobs: tombola measure barrier JOB JOB --data digits.

    tombola measure NAME --help tells what it takes. With --import FILE.py measures of your own are known too.
    """
    measure_by_name([name, *arguments])


def measure_by_name(arguments: Sequence[str]) -> None:
    """Read the arguments as the measure that comes first takes them, and compute it as a job."""
    from tombola.registry import declaration

    files, others = split_imports(arguments)
    if not others or others[0].startswith("-"):
        raise JobError("no measure was named; give one, such as tombola measure barrier")
    name, *measure_arguments = others
    import_files(files)
    declared = declaration(name)
    takes: Any = _options(declared)
    with refused_in_one_line(f"{COMMAND} {name}", takes, measure_arguments, {}):
        parsed: Any = tyro.cli(
            takes,
            prog=f"tombola {COMMAND} {name}",
            description=(inspect.getdoc(declared.function) or "").partition("\n\n")[0],
            args=measure_arguments,
            registry=OPTIONAL,
        )
    _compute(declared, {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed)})


def _options(declared: Declaration) -> type:
    """What a measure takes, as a dataclass: jobs by position, all else by name."""
    from tombola.lab.arguments import job_signature

    measure_signature = job_signature(declared.function)
    jobs: list[Any] = []
    options: list[Any] = []
    for key, parameter in measure_signature.signature.parameters.items():
        hint = measure_signature.hints.get(key, str)
        written = _on_the_line(hint)
        if written is None and parameter.default is parameter.empty:
            raise JobError(f"{declared.name} takes {key}, which cannot be given on the command line")
        if written is None:
            continue
        if parameter.default is not parameter.empty:
            if parameter.default in ("", ()):
                written = Annotated[written, _SAYS_NO_DEFAULT]
            options.append((key, written, dataclasses.field(default=parameter.default)))
        elif _kinds(hint):
            shown = (
                tyro.conf.arg(metavar=key.upper(), help_behavior_hint="")
                if _is_one(hint)
                else _SAYS_NO_DEFAULT
            )
            jobs.append((key, Annotated[written, tyro.conf.Positional, shown]))
        else:
            options.append((key, written))
    shared: list[Any] = [("store", Store, None), ("device", Device, "auto"), ("mode", Mode, "default")]
    shared += [("recompute", Recompute, False), ("csv", Csv, None), ("figure", FigureFile, None)]
    shared.append(("as_json", AsJson, False))
    return dataclasses.make_dataclass(f"{declared.name}-arguments", [*jobs, *options, *shared], kw_only=True)


def _on_the_line(hint: Any) -> Any:
    """The type in which a parameter is given on the command line; None for one that cannot be."""
    from tombola.data.imageset import Data
    from tombola.lab.arguments import alternatives

    kinds = alternatives(hint)
    optional = type(None) in kinds
    if _kinds(hint):
        one: Any = str if _is_one(hint) else tuple[str, ...]
        return one | None if optional else one
    if Data in kinds or str in kinds:
        return str | None if optional else str
    pairs = [kind for kind in kinds if get_origin(kind) is collections.abc.Sequence]
    if len(kinds) > 1 and pairs:  # or a mapping, such as rates by name
        return types.GenericAlias(tuple, (*get_args(pairs[0]), ...))
    text = str(hint)
    return None if "torch." in text or "Callable" in text else hint


def _kinds(hint: Any) -> tuple[type, ...]:
    """The results of jobs that a parameter takes, one or several."""
    from tombola.lab.arguments import alternatives, item_hint
    from tombola.measures.alignment import Alignment
    from tombola.measures.curves import ConnectingCurve
    from tombola.measures.example_scores import ExampleScores
    from tombola.measures.selection import Selection
    from tombola.ticket import Ticket
    from tombola.training.run import Run
    from tombola.training.trunk import Point

    results = (Ticket, Run, ExampleScores, Selection, Alignment, ConnectingCurve)
    single = tuple(kind for kind in (*results, Point) if kind in alternatives(hint))
    return single or tuple(kind for kind in results if kind in alternatives(item_hint(hint, 0)))


def _is_one(hint: Any) -> bool:
    from tombola.lab.arguments import alternatives

    return any(kind in alternatives(hint) for kind in _kinds(hint))


def _compute(declared: Declaration, values: dict[str, Any]) -> None:
    """Compute a measure as a job and print its numbers."""
    from tombola.disk import write_whole
    from tombola.lab.arguments import job_signature
    from tombola.lab.execute import Settings
    from tombola.lab.finished import subject_of
    from tombola.lab.job import job, result_type
    from tombola.lab.lab import Lab
    from tombola.lab.recompute import remove_jobs
    from tombola.lab.results import numbers_of
    from tombola.measures.connectivity import Barrier
    from tombola.measures.example_scores import ExampleScores
    from tombola.measures.instability import Instability
    from tombola.measures.selection import Selection
    from tombola.measures.surfaces import Surface

    csv: Path | None = values["csv"]
    if csv == _STDOUT and values["as_json"]:
        raise JobError("--csv - and --json were given; both are standard output, ask for one of them")
    if csv is not None and result_type(declared) not in (ExampleScores, Selection):
        raise JobError(
            f"{declared.name} gives nothing of each image, so --csv has nothing to write; example-scores and "
            "the like do"
        )
    figure: Path | None = values["figure"]
    if figure is not None:
        check_figure(declared.name, figure, result_type(declared) is Surface)
    hints = job_signature(declared.function).hints
    settings = Settings(device=values["device"], mode=values["mode"])
    lab = Lab(values["store"], settings=settings)
    arguments = {key: value for key, value in values.items() if key not in _OWN}
    for key, value in arguments.items():
        kinds = _kinds(hints.get(key, str))
        if kinds and isinstance(value, tuple):
            arguments[key] = [subject_of(lab.store, declared.name, key, text, kinds) for text in value]
        elif kinds and value is not None:
            arguments[key] = subject_of(lab.store, declared.name, key, value, kinds)
    measure_job = job(declared.function, **arguments)
    if values["recompute"]:
        remove_jobs(lab.store, {measure_job.name})
    try:
        result = lab.result(measure_job)
    except Undefined as undefined:
        if csv is not None or figure is not None:
            raise
        result, failures = None, undefined.why
    else:
        failures = result.failures() if isinstance(result, Barrier | Instability) else ""
    written = [file for file in (csv, figure) if file is not None and file != _STDOUT]
    if figure is not None:
        write_whole(figure, _drawn(result, declared.name, figure.suffix.removeprefix(".")))
    if csv == _STDOUT:
        write_out(result.csv())
        return
    if csv is not None:
        write_whole(csv, result.csv().encode())
    if values["as_json"]:
        numbers = {key or "value": number for key, number in numbers_of(result).items()}
        write_json(
            {
                "function": declared.name,
                "job": measure_job.name,
                "kept": measure_job.stored,
                "failed": failures,
                "numbers": numbers,
            }
        )
        return
    console = InertConsole()
    say(console, f"{declared.name} {measure_job.name[:12]}" + ("" if measure_job.stored else " (not kept)"))
    if failures:
        say(console, f"{'undefined' if result is None else 'failed'}: {failures}")
    for line in number_lines(numbers_of(result)):
        say(console, line)
    for file in written:
        say(console, f"written: {file}")


def number_lines(numbers: Mapping[str, float]) -> list[str]:
    """The numbers of a result as text: one a line, a list on one line, lists of one length as columns."""
    lists: dict[str, list[str]] = {}
    for key, number in numbers.items():
        item = re.fullmatch(r"(.+)\[\d+\]", key)
        lists.setdefault(item[1] if item else key, []).append(f"{number:g}")
    lines = []
    for (length, _), group in groupby(lists.items(), lambda one: (len(one[1]), "[" in one[0])):
        columns = [[name, *texts] for name, texts in group]
        if length == 1 or len(columns) == 1 or "[" in columns[0][0]:
            lines += [f"{name or 'value'}: {', '.join(texts)}" for name, *texts in columns]
            continue
        widths = [max(map(len, column)) for column in columns]
        rows = zip(*columns, strict=True)
        lines += ["  ".join(map(str.rjust, row, widths)) for row in rows]
    return lines


def check_figure(measure: str, figure: Path, of_plane: bool) -> None:
    """Raises JobError for a measure that has no figure, or a file of another kind, before any work."""
    from tombola.report.figure import KINDS

    if not of_plane:
        raise JobError(f"{measure} is no plane of weights, which --figure draws; plane and slice are")
    if figure.suffix.removeprefix(".") not in KINDS:
        raise JobError(f"--figure is {figure}; its name must end in .{', .'.join(KINDS)}")


def _drawn(surface: Any, measure: str, kind: str) -> bytes:
    """A figure of a surface as the bytes of a file."""
    from tombola.experiments.chain_items import plane_of
    from tombola.report.figure import picture_files
    from tombola.views.chain_panels import reliefs_of
    from tombola.views.picture import Picture

    if len(surface.vertical) == 1:
        raise JobError("the slice is a line; --figure draws one of --directions 2")
    axis = "distance in weights" if measure == "plane" else "share of the random direction"
    panels = reliefs_of(plane_of(surface), f"{surface.split} images", axis)
    return picture_files(Picture(measure, "", "", panels), [kind])[kind]
