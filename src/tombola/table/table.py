"""The table: every number that some experiments or jobs have, in order, and its forms for other programs.

Inside, numbers and cells are dataclasses; a pandas frame is made at the door. Each row is one number, gaps
included, so that nothing is averaged before it is seen.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tombola.errors import StudyError
from tombola.table.key import KEY_FIELDS, Key, Scalar
from tombola.table.number import Cell, Number, Together, cells_of

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = (
    *KEY_FIELDS, "epochs", "seed", "pair", "value", "state", "failed", "bound", "note", "runs", "spread",
    "stand_in", "jobs",
)  # fmt: skip
"""The columns of every form: the fields of a key, then those of a number; further axes come between them.

``runs`` and ``spread`` are of numbers that several runs have together. ``jobs`` are the names of the jobs
that a number rests on, divided by spaces.
"""


class Table:
    """Numbers in order; of two that say the same of one run the first that is measured stays."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        rows: dict[tuple[Any, ...], Number] = {}
        for number in numbers:
            place = (number.key, number.epochs, number.seed, number.pair)
            before = rows.get(place)
            if before is None or (before.state == "missing" and number.state != "missing"):
                rows[place] = number
        # A gap says nothing where the pairs of its key have come by another way.
        measured = {(number.key, number.epochs) for number in rows.values() if number.pair is not None}
        self.numbers: tuple[Number, ...] = tuple(
            number
            for number in rows.values()
            if not (
                number.state == "missing"
                and number.pair is None
                and number.key.over == "pairs"
                and (number.key, number.epochs) in measured
            )
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Number]:
        return iter(self.numbers)

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
        return (*KEY_FIELDS, *self.axes, *COLUMNS[len(KEY_FIELDS) :])

    def rows(self) -> list[dict[str, Any]]:
        """Each number by column, None where a column does not apply."""
        return [_row(number, self.axes) for number in self.numbers]

    def frame(self) -> DataFrame:
        """A pandas frame of :attr:`columns`, a row a number; whole numbers stay whole where there are gaps."""
        import pandas

        kinds = dict.fromkeys(("batch_size", "sparse_batch_size", "block", "subset_percent"), "Int64")
        kinds |= dict.fromkeys(("epochs", "seed", "pair", "runs"), "Int64") | {"pretrained": "boolean"}
        kinds |= dict.fromkeys(("value", "spread", "sparsity", "momentum", "search_share"), "float64")
        frame = pandas.DataFrame(self.rows(), columns=list(self.columns))
        return frame.astype(kinds)

    def csv(self) -> str:
        """Comma-separated values with one line of headings; empty where a column does not apply."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows():
            writer.writerow({name: _written(value) for name, value in row.items()})
        return text.getvalue()

    def json(self) -> str:
        """A JSON list of numbers, with the curves that they sum up; fields that do not apply are left out."""
        rows = []
        for number, row in zip(self.numbers, self.rows(), strict=True):
            content = {name: value for name, value in row.items() if value not in (None, "")}
            if number.curve:
                content["curve"] = {"x": list(number.curve.x), "y": list(number.curve.y)}
            rows.append(content)
        return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def markdown(self) -> str:
        """A Markdown table of the columns that say something, in which all numbers differ or not."""
        rows = self.rows()
        shown = [name for name in self.columns if name != "jobs" and any(_says(row[name]) for row in rows)]
        lines = [shown, ["---:" if name == "value" else "---" for name in shown]]
        lines += [[_markdown(_written(row[name])) for name in shown] for row in rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read_csv(text: str) -> Table:
    """The table that :meth:`Table.csv` wrote, without curves.

    Raises :class:`~tombola.errors.StudyError` for a text that is no such table.
    """
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise StudyError(f"the table has no column {missing[0]!r}; it must have {', '.join(COLUMNS)}")
    axes = [name for name in rows.fieldnames or () if name not in COLUMNS]
    return Table(_number(row, axes) for row in rows)


def _row(number: Number, axes: Sequence[str]) -> dict[str, Any]:
    together = number.together
    return {
        **{name: getattr(number.key, name) for name in KEY_FIELDS},
        **{name: number.key.get(name) for name in axes},
        "epochs": number.epochs,
        "seed": number.seed,
        "pair": number.pair,
        "value": number.value,
        "state": number.state,
        "failed": number.failed,
        "bound": number.bound,
        "note": number.note,
        "runs": together.runs if together else None,
        "spread": together.spread if together else None,
        "stand_in": number.stand_in,
        "jobs": " ".join(number.jobs),
    }


def _says(value: Any) -> bool:
    """Whether a column is worth its width for this value."""
    return value not in (None, "", False, "seeds")


def _written(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


_TYPES = {
    "momentum": float, "sparse_momentum": float, "search_share": float, "sparsity": float,
    "batch_size": int, "sparse_batch_size": int, "block": int, "subset_percent": int,
}  # fmt: skip


def _number(row: dict[str, str], axes: Sequence[str]) -> Number:
    """One row of a CSV; an empty cell is a column that does not apply."""
    key: dict[str, Any] = {
        name: _TYPES.get(name, str)(row[name]) for name in KEY_FIELDS if row[name] and name != "pretrained"
    }
    if row["pretrained"]:
        key["pretrained"] = row["pretrained"] == "True"
    more = tuple((name, _scalar(row[name])) for name in axes if row[name])
    spread = float(row["spread"]) if row["spread"] else None
    return Number(
        key=Key(**key, more=more),
        value=float(row["value"]) if row["value"] else None,
        epochs=int(row["epochs"]),
        state=row["state"],  # type: ignore[arg-type]
        seed=int(row["seed"]) if row["seed"] else None,
        pair=int(row["pair"]) if row["pair"] else None,
        failed=row["failed"] == "True",
        bound=row["bound"],
        note=row["note"],
        jobs=tuple(row["jobs"].split()),
        together=Together(int(row["runs"]), spread) if row["runs"] else None,
        stand_in=row["stand_in"],
    )


def _scalar(text: str) -> Scalar:
    """An axis value as it was before it was written: a number where it reads as one."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
