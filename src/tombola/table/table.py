"""The table: every number of some experiments or jobs, in order, and its forms for other programs.

Inside, numbers and cells are dataclasses; a pandas frame is made at the door. Each row is one number, gaps
included, so that nothing is averaged before it is seen. docs/table.md explains the columns.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from tombola.errors import ExperimentError, reason
from tombola.table.key import KEY_FIELDS, Key, Scalar
from tombola.table.number import Cell, Curve, Number, State, Together, cells_of

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from tombola.hub_origin import HubOrigin
    from tombola.sharing.hub_traffic import Push

COLUMNS = (
    *KEY_FIELDS, "epochs", "seed", "pair", "value", "state", "failed", "bound", "note", "runs", "spread",
    "stand_in", "jobs",
)  # fmt: skip
"""The columns of every form: fields of a key, then those of a number; further axes come between them.

``runs`` and ``spread`` are of numbers that several runs have together. ``jobs`` are the names of the jobs
that a number rests on, divided by spaces.
"""

WHOLE = ("batch_size", "sparse_batch_size", "block", "subset_percent", "epochs", "seed", "pair", "runs")
REAL = ("momentum", "search_share", "sparse_momentum", "sparsity", "value", "spread")
TRUTH = ("pretrained", "failed")
"""The columns of whole numbers, of real ones and of truth values; all others are text."""

_AXIS = "axis."
"""Stands before the name of a further axis that a column has already."""

Row = dict[str, Scalar]


class Table:
    """Numbers in order, each once.

    What two experiments ask for in common stands once, even by different jobs: the first measured one stays.
    Where two values of one key, budget, seed and pair differ, as of experiments that differ in what neither
    varies, the later one gets a further axis ``job``, so that neither is lost nor taken for a repetition.

    hub: the revision of a repository that it was pulled from.
    """

    hub: HubOrigin | None = None

    def __init__(self, numbers: Iterable[Number]) -> None:
        rows: dict[object, Number] = {}
        for number in numbers:
            identity = _identity(number)
            before = rows.get(identity)
            if before is not None and _contradict(before, number):
                number = replace(number, key=_of_job(number))
                identity = _identity(number)
                before = rows.get(identity)
            if before is None or (before.state == "missing" and number.state != "missing"):
                rows[identity] = number
        # One gap for all pairs of a key says nothing where they have come by another way.
        measured = {
            (number.key, number.epochs, number.seed)
            for number in rows.values()
            if number.pair is not None and number.state != "missing"
        }
        self.numbers: tuple[Number, ...] = tuple(
            number
            for number in rows.values()
            if not (
                number.state == "missing"
                and (number.key.over, number.pair) == ("pairs", None)
                and (number.key, number.epochs, number.seed) in measured
            )
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Number]:
        return iter(self.numbers)

    def push_to_hub(
        self,
        repository: str,
        *,
        title: str = "",
        private: bool = False,
        license: str | None = None,
        dry_run: bool = False,
    ) -> Push:
        """Upload the table to a data set of the Hugging Face hub, which is made if it is not there.

        repository: such as ``"me/x"``. title: what the numbers are of, in one line for the card.
        private, license, dry_run: as for :meth:`tombola.Ticket.push_to_hub`.

        ``datasets.load_dataset`` reads it from there, :meth:`from_hub` with its curves. The card has every
        metric with its unit and every column with what it holds.

        Raises :class:`~tombola.errors.HubError` without a token, rights or network, and
        :class:`~tombola.errors.ExperimentError` for a table without numbers.
        """
        from tombola.sharing.table_card import Shown
        from tombola.sharing.table_sets import push_table

        shown = Shown(title)
        return push_table(self, repository, shown, private=private, license=license, dry_run=dry_run)

    @classmethod
    def from_hub(cls, repository: str, *, revision: str | None = None) -> Table:
        """The table of a data set of the Hugging Face hub that :meth:`push_to_hub` made.

        revision: a branch, tag or commit; by default the newest of main. The exact one is in ``table.hub``.

        Raises :class:`~tombola.errors.HubError` for a repository that cannot be reached or holds no table,
        and :class:`~tombola.errors.ExperimentError` for one that is damaged.
        """
        from tombola.sharing.table_sets import pull_table

        return pull_table(repository, revision)

    def cells(self, *, partial: bool = False) -> dict[Key, list[Cell]]:
        """The cells by key, each budget by itself; see :func:`~tombola.table.number.cells_of`."""
        return cells_of(self.numbers, partial=partial)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the further axes that some key has, in order."""
        return tuple(dict.fromkeys(name for number in self.numbers for name, _ in number.key.more))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of this table: :data:`COLUMNS` with its further axes."""
        return (*KEY_FIELDS, *map(_axis_column, self.axes), *COLUMNS[len(KEY_FIELDS) :])

    def rows(self) -> list[Row]:
        """Each number by column, None where a column does not apply."""
        columns, axes = self.columns, self.axes
        return [dict(zip(columns, _row_values(number, axes), strict=True)) for number in self.numbers]

    def frame(self) -> DataFrame:
        """A pandas frame of :attr:`columns`, a row a number; gaps are NA, and whole numbers stay whole.

        Whole numbers are of type Int64, real ones float64, truth values boolean, and all else string. A
        further axis has the type that fits all of its values, and is string where none of the others does.
        """
        import pandas

        columns, axes = self.columns, self.axes
        values = zip(*(_row_values(number, axes) for number in self.numbers), strict=True)
        by_column = dict(zip(columns, values, strict=True)) if self.numbers else dict.fromkeys(columns, ())
        series = {name: _series(name, content) for name, content in by_column.items()}
        return pandas.DataFrame(series, columns=list(columns))

    def csv(self) -> str:
        """Comma-separated values with one line of headings; empty where a column does not apply."""
        axes = self.axes
        lines = [",".join(map(_csv_field, self.columns))]
        for number in self.numbers:
            values = list(_row_values(number, axes))
            own = dict(number.key.more)
            for place, name in enumerate(axes, start=len(KEY_FIELDS)):
                values[place] = _axis_text(own[name]) if name in own else None
            lines.append(",".join(_csv_field(_text(value)) for value in values))
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """A JSON list of numbers, with the curves that they sum up; fields that do not apply are left out.

        Control characters and the like stand in it as escapes, so that it is safe to print and loses nothing.
        """
        rows = [json.dumps(record, ensure_ascii=False) for record in self.records()]
        text = "[\n " + ",\n ".join(rows) + "\n]\n" if rows else "[]\n"
        return "\n".join(line if line.isprintable() else _json_escaped(line) for line in text.split("\n"))

    def records(self) -> list[dict[str, object]]:
        """The content of :meth:`json` as objects."""
        columns, axes = self.columns, self.axes
        return [_json_content(number, columns, axes) for number in self.numbers]

    def markdown(self) -> str:
        """A Markdown table of the columns that say something; the names of jobs are left out."""
        rows = self.rows()
        shown = [name for name in self.columns if name != "jobs" and any(_says(row[name]) for row in rows)]
        lines = [shown, ["---:" if name in (*WHOLE, *REAL) else "---" for name in shown]]
        lines += [[_text(row[name]) for name in shown] for row in rows]
        return "".join(f"| {' | '.join(map(_markdown_text, line))} |\n" for line in lines)


def _identity(number: Number) -> object:
    """What two numbers that say the same have in common."""
    # Values without a seed or pair, such as those of noise copies, differ in their jobs only.
    unnumbered = number.seed is None and number.pair is None
    return number.key, number.epochs, number.seed, number.pair, number.jobs if unnumbered else ()


def _contradict(first: Number, second: Number) -> bool:
    """Whether two numbers of one identity are of different jobs and have different values."""
    measured = first.value is not None and second.value is not None
    return measured and first.jobs != second.jobs and first.value != second.value


def _of_job(number: Number) -> Key:
    """The key of a number with the beginning of its job's name as a further axis."""
    return replace(number.key, more=(*number.key.more, ("job", number.jobs[0][:12] if number.jobs else "")))


def read_csv(text: str) -> Table:
    """The table that :meth:`Table.csv` wrote, without curves.

    Raises :class:`~tombola.errors.ExperimentError` for a text that is no such table.
    """
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        columns = next(rows, [])
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise ExperimentError(
                f"the table has no column {missing[0]!r}; it must have {', '.join(COLUMNS)}"
            )
        if len(set(columns)) < len(columns):
            raise ExperimentError("the table has two columns of one name; it must have each once")
        contents = []
        for row in rows:
            if len(row) != len(columns):
                raise ExperimentError(
                    f"line {rows.line_num} has {len(row)} columns instead of {len(columns)}"
                )
            contents.append(_csv_content(dict(zip(columns, row, strict=True)), rows.line_num))
    except csv.Error as error:
        raise ExperimentError(f"the table cannot be read: line {rows.line_num}: {reason(error)}") from error
    return Table(_number(content, f"row {place}") for place, content in enumerate(contents, start=1))


def read_json(text: str) -> Table:
    """The table that :meth:`Table.json` wrote, with its curves.

    Raises :class:`~tombola.errors.ExperimentError` for a text that is no such table.
    """
    try:
        rows = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"the table cannot be read: {reason(error)}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ExperimentError("the table cannot be read: it is no JSON list of numbers")
    return Table(_number(row, f"row {place}") for place, row in enumerate(rows, start=1))


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _row_values(number: Number, axes: Sequence[str]) -> tuple[Scalar, ...]:
    """A number in the order of the columns of a table with these axes."""
    key, together = number.key, number.together
    more = dict(key.more) if axes else {}
    return (
        *(getattr(key, name) for name in KEY_FIELDS),
        *(more.get(name) for name in axes),
        number.epochs,
        number.seed,
        number.pair,
        number.value,
        number.state,
        number.failed,
        number.bound,
        number.note,
        together.runs if together else None,
        together.spread if together else None,
        number.stand_in,
        " ".join(number.jobs),
    )


def _json_content(number: Number, columns: Sequence[str], axes: Sequence[str]) -> dict[str, object]:
    """What JSON has of a number."""
    own = {_axis_column(name) for name, _ in number.key.more}
    row = zip(columns, _row_values(number, axes), strict=True)
    content: dict[str, object] = {
        name: value for name, value in row if name in own or value not in (None, "")
    }
    if number.curve:
        content["curve"] = {"x": list(number.curve.x), "y": list(number.curve.y)}
    return content


def _axis_column(name: str) -> str:
    """The heading of a further axis: its name, marked where a column of every table is called so."""
    return f"{_AXIS}{name}" if name in (*COLUMNS, "curve") or name.startswith(_AXIS) else name


def _series(name: str, values: Sequence[Scalar]) -> Series:
    """One column of a frame."""
    import pandas

    kinds = {type(value) for value in values if value is not None}
    if name in WHOLE:
        kind = "Int64"
    elif name in REAL:
        kind = "float64"
    elif name in TRUTH:
        kind = "boolean"
    elif name in COLUMNS or not kinds or str in kinds:
        kind = "string"
    elif kinds == {bool}:
        kind = "boolean"
    elif kinds == {int} and all(abs(value) < 2**63 for value in values if isinstance(value, int)):
        kind = "Int64"
    elif kinds <= {int, float}:
        kind = "float64"
    else:
        kind = "string"
    if kind == "string":
        values = [None if value is None else _text(value) for value in values]
    return pandas.Series(list(values), dtype=kind)


def _says(value: Scalar) -> bool:
    """Whether a column is worth its width for this value."""
    return value is not None and value not in ("", "seeds", "measured") and value is not False


def _text(value: Scalar) -> str:
    """A value as text; nothing for None."""
    return "" if value is None else str(value)


def _json_escaped(line: str) -> str:
    """JSON in which characters that a terminal would obey, or that have no shape, stand as escapes."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


_NO_TEXT = re.compile(r'[",\r\n]|^\s|\s$')


def _csv_field(text: str) -> str:
    """A text as one field of a CSV, in quotation marks where it would read otherwise."""
    return '"' + text.replace('"', '""') + '"' if _NO_TEXT.search(text) else text


def _axis_text(value: Scalar) -> str:
    """The value of a further axis as :func:`_axis_value` reads it; text in quotation marks where in doubt."""
    if value is None:
        return "null"
    if not isinstance(value, str):
        return str(value)
    return value if value and _axis_value(value) == value else json.dumps(value)


def _axis_value(text: str) -> Scalar:
    """The value that stands as text in the column of a further axis."""
    if text in ("True", "False"):
        return text == "True"
    if text == "null":
        return None
    if text.startswith('"'):
        quoted: str = json.loads(text)
        return quoted
    for kind in (int, float):
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        # Only what is written so: int reads "1_000" and " 1", too.
        return value if str(value) == text else text
    return text


def _csv_content(row: Mapping[str, str], line: int) -> dict[str, object]:
    """One line of a CSV by column, each value as its type; what is empty is left out."""
    content: dict[str, object] = {}
    for name, text in row.items():
        if not text:
            continue
        try:
            if name in WHOLE:
                content[name] = int(text)
            elif name in REAL:
                content[name] = float(text)
            elif name in TRUTH:
                content[name] = {"True": True, "False": False}[text]
            else:
                content[name] = text if name in COLUMNS else _axis_value(text)
        except (ValueError, KeyError):
            raise ExperimentError(f"line {line} has {name} {text!r:.60}, which cannot be read") from None
    return content


_STATES: dict[object, State] = {"measured": "measured", "undefined": "undefined", "missing": "missing"}


def _number(content: Mapping[str, object], place: str) -> Number:
    """A number by the columns that apply to it; ``place`` tells which, for errors.

    Raises :class:`~tombola.errors.ExperimentError` where a column has a value of another type.
    """
    fields: dict[str, Any] = {name: _typed(content, name, place) for name in COLUMNS if name in content}
    axes: list[tuple[str, Scalar]] = []
    for name, value in content.items():
        if name in COLUMNS or name == "curve":
            continue
        if not isinstance(value, Scalar):
            raise ExperimentError(
                f"{place} has {name} {value!r:.60}; it must be text, a number or a truth value"
            )
        axes.append((name.removeprefix(_AXIS), value))
    key = {name: fields.pop(name) for name in KEY_FIELDS if name in fields}
    missing = [name for name in ("metric", "epochs", "state") if name not in content]
    if missing:
        raise ExperimentError(f"{place} has no {missing[0]}")
    if fields["state"] not in _STATES:
        raise ExperimentError(
            f"{place} is {fields['state']!r:.60}; it must be {', '.join(map(str, _STATES))}"
        )
    runs, spread = fields.pop("runs", None), fields.pop("spread", None)
    return Number(
        **{
            "value": None,
            **fields,
            "key": Key(**key, more=tuple(axes)),
            "jobs": tuple(str(fields.get("jobs", "")).split()),
            "together": None if runs is None else Together(runs, spread),
            "curve": _curve(content["curve"], place) if "curve" in content else None,
        }
    )


def _typed(content: Mapping[str, object], name: str, place: str) -> object:
    """The value of a column, refused where it is of another type than the column."""
    value = content[name]
    if name in TRUTH:
        fits = isinstance(value, bool)
    elif name in WHOLE:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif name in REAL:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise ExperimentError(f"{place} has {name} {value!r:.60}, which is of another type than that column")
    return value


def _curve(content: object, place: str) -> Curve:
    """A curve as JSON has it."""
    if isinstance(content, dict) and content.keys() == {"x", "y"}:
        x, y = content["x"], content["y"]
        equally_many = isinstance(x, list) and isinstance(y, list) and len(x) == len(y)
        if equally_many and all(isinstance(value, int | float) for value in (*x, *y)):
            return Curve(tuple(x), tuple(y))
    raise ExperimentError(
        f"{place} has a curve that cannot be read; it must have as many x as y, all numbers"
    )


def _markdown_text(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
