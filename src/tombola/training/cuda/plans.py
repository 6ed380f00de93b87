"""The algorithms of convolutions that are named, by shape, for one kind of GPU and one version of cuDNN.

A table is made once, by timing, with ``benchmarks/convolutions.py``, and ships with the package: no training
times anything. It serves where the GPU's name and cuDNN's version are exactly its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tombola.training.cuda.cudnn import Algorithm, Convolution
from tombola.warn import warn

FOLDER = Path(__file__).with_name("plans")
"""Where tables are looked for, each a JSON file."""

_Product = TypeVar("_Product")
_Choice = TypeVar("_Choice")

_LENGTHS = {"input": 4, "weight": 4, "stride": 2, "padding": 2}
_OPERATIONS = ("forward", "input", "weight")


@dataclass(frozen=True)
class PlanTable:
    """Algorithms of convolutions in bfloat16 and channels_last.

    gpu: its name, as PyTorch gives it. cudnn: its version, such as 91900.
    """

    gpu: str
    cudnn: int
    algorithms: Mapping[Convolution, Algorithm]


def fingerprint(choices: Mapping[Any, Any]) -> str:
    """Twelve hexadecimal digits, the same in whatever order the choices stand.

    choices: algorithms of convolutions, or tiles of our own (:mod:`.tiles`).
    """
    rows = sorted([*astuple(convolution), *astuple(choice)] for convolution, choice in choices.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def read_table(path: Path) -> PlanTable:
    """The table in a file; raises ``ValueError`` for one that is malformed."""
    with malformed(path, "convolution plans"):
        content = json.loads(path.read_text())
        if not (type(content["gpu"]) is str and type(content["cudnn"]) is int):
            raise ValueError("gpu must be text and cudnn a number")
        algorithms = each_once(_entry(row) for row in content["plans"])
    return PlanTable(content["gpu"], content["cudnn"], algorithms)


@contextmanager
def malformed(path: Path, rows: str) -> Iterator[None]:
    """Raises ``ValueError``, naming the file, for what fails while a table of such rows is read."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        cause = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path.name} is no table of {rows}: {cause}") from None


def each_once(entries: Iterable[tuple[_Product, _Choice]]) -> dict[_Product, _Choice]:
    """Choices by convolution; raises ``ValueError`` if one stands twice."""
    rows = list(entries)
    choices = dict(rows)
    if len(choices) < len(rows):
        raise ValueError("it names a convolution twice")
    return choices


def _entry(row: Mapping[str, Any]) -> tuple[Convolution, Algorithm]:
    if row["operation"] not in _OPERATIONS:
        raise ValueError(f"operation {row['operation']!r} is none of {', '.join(_OPERATIONS)}")
    sizes = {}
    for name, length in _LENGTHS.items():
        sizes[name] = tuple(row[name])
        if len(sizes[name]) != length or not all(_is_count(size) for size in sizes[name]):
            raise ValueError(f"{name} must have {length} whole numbers, not {row[name]}")
    knobs = sorted((int(knob), value) for knob, value in row["knobs"].items())
    if not (_is_count(row["engine"]) and all(_is_count(value) for _, value in knobs)):
        raise ValueError("engine and knobs must be whole numbers")
    return Convolution(row["operation"], **sizes), Algorithm(row["engine"], tuple(knobs))


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


@cache
def tables() -> Mapping[tuple[str, int], PlanTable]:
    """The tables that ship, by GPU and version of cuDNN."""
    read = [read_table(path) for path in sorted(FOLDER.glob("*.json"))]
    return {(table.gpu, table.cudnn): table for table in read}


def table_for(gpu: str, cudnn: int | None) -> PlanTable | None:
    """The table for a kind of GPU and a version of cuDNN; None where there is none, as for most."""
    return None if cudnn is None else tables().get((gpu, cudnn))


@cache
def say_once(words: str) -> None:
    """Warn once in a process."""
    warn(words)
