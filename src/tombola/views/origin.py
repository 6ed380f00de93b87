"""What the cells of a table were made with, and whether they may be compared to the last digit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields

from tombola.table.key import Key


@dataclass(frozen=True)
class Origin:
    """What one run behind a cell was made with.

    device: kind of device, such as ``"cpu"`` or ``"NVIDIA H200"``.
    precision: of its convolutions, ``"float32"`` or ``"bfloat16"``.
    versions: of the libraries, such as ``"tombola 0.1.0, torch 2.9.0"``.
    """

    device: str
    precision: str
    versions: str


_NAMES = {"device": "kinds of device", "precision": "precisions", "versions": "library versions"}


def mixtures(keys: Iterable[Key], origins: Mapping[Key, Collection[Origin]]) -> list[str]:
    """A sentence for each thing in which the runs behind some cells differ; none where all agree.

    origins: of all runs behind each cell; a cell that is not there says nothing.
    """
    by_key = [origins[key] for key in keys if origins.get(key)]
    sentences = []
    for field in fields(Origin):
        by_cell = [sorted({str(getattr(origin, field.name)) for origin in runs}) for runs in by_key]
        counts = Counter(value for values in by_cell for value in values)
        if len(counts) < 2:
            continue
        listed = ", ".join(f"{value} ({_cells(count)})" for value, count in sorted(counts.items()))
        mixed = sum(len(values) > 1 for values in by_cell)
        within = f" {_cells(mixed)} rest{'s' * (mixed == 1)} on several of them." if mixed else ""
        sentences.append(f"Mixed {_NAMES[field.name]}: {listed}.{within}")
    return sentences


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"
