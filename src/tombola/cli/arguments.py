"""Arguments that several commands share, with their help. No torch here: help must not wait for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tombola.errors import StudyError

Store = Annotated[
    Path | None,
    tyro.conf.arg(help="Folder of results; default: TOMBOLA_STORE, or the platform's place for user data."),
]
Workers = Annotated[int | None, tyro.conf.arg(help="Worker processes; default: one a core.")]
Mode = Annotated[
    Literal["default", "autotuned", "deterministic"],
    tyro.conf.arg(
        help="On a GPU: nothing by timing; convolutions by timing, bits not promised; PyTorch's own."
    ),
]
Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, cuda:1, ... or auto: a GPU if there is one.")]
Threads = Annotated[int, tyro.conf.arg(help="CPU threads; another number gives other last bits.")]
HungAfter = Annotated[
    float, tyro.conf.arg(help="Seconds without a sign of life after which a job's worker process is ended.")
]
Strict = Annotated[
    bool,
    tyro.conf.arg(
        help="Refuse trainings that go on from results of another engine version, torch or kind of device."
    ),
]
CheckpointEvery = Annotated[float, tyro.conf.arg(help="Seconds between checkpoints.")]
Names = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(help="Studies by name, such as table11 or fig3; tombola studies lists them."),
]
Scale = Annotated[
    str | None, tyro.conf.arg(help="paper (as printed), short (a tenth of the budget) or tiny (stand-ins).")
]


@dataclass(frozen=True)
class Numbers:
    """Numbers of a scale that are given on the command line; jobs have other names under them."""

    epochs: int | None = None
    """Budget of each full training."""
    seeds: int | None = None
    """Runs, which differ in initialisation and noise."""
    configs: str | None = None
    """Only these: momentum/batch size, such as 0.0/256,0.9/100."""
    pairs: str | None = None
    """Only these networks with their data: R18/C10, R18/C100, VGG16/C100, R34/TIN."""
    rounds: int | None = None
    """Prunings of each chain."""
    columns: str | None = None
    """Prunings of the tabulated tickets, such as 5,10."""
    rewind: int | None = None
    """Epochs of late rewinding."""
    copies: int | None = None
    """Trainings of one start under different noise, for instability."""
    stride: int | None = None
    """Rounds from point to point of the curves of probes and of little data."""
    points: int | None = None
    """Positions on a line between noise copies."""
    points_between: int | None = None
    """Positions on a line between consecutive tickets."""
    head_epochs: int | None = None
    """Epochs of probes and of transferred heads."""
    neighbours: int | None = None
    """Lengths asked about beside a first stable epoch."""
    lr: float | None = None
    """Learning rate at the start, of every pair."""
    init: str | None = None
    """Initialisation scheme of every pair, such as kaiming-normal; default: each network's own."""

    def given(self) -> dict[str, Any]:
        """Those that were given, as :func:`~tombola.experiments.paper.scales.overridden` takes them."""
        numbers = {key: value for key, value in asdict(self).items() if value is not None}
        for key in ("configs", "pairs"):
            if key in numbers:
                numbers[key] = numbers[key].split(",")
        if self.columns is not None:
            numbers["columns"] = tuple(_whole(text, self.columns) for text in self.columns.split(","))
        return numbers


ScaleNumbers = Annotated[Numbers, tyro.conf.arg(name="")]


def _whole(text: str, given: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise StudyError(f"columns is {given!r}; give numbers of prunings, such as 5,10") from None
