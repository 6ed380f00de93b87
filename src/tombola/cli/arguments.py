"""Arguments that several commands share, with their help. No torch here: help must not wait for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tombola.errors import ExperimentError
from tombola.lab.tracker import tracker_names

AsJson = Annotated[bool, tyro.conf.arg(name="json", help="As JSON (docs/json.md).")]
_NO_HINT = ""  # in place of "(default: None)", where the help says what happens without the option
Store = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FOLDER",
        help="Folder of results; default: TOMBOLA_STORE, or the platform's place for user data.",
        help_behavior_hint=_NO_HINT,
    ),
]
Workers = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="N",
        help="Worker processes; 0: all in this process; default: one a core.",
        help_behavior_hint=_NO_HINT,
    ),
]
Mode = Annotated[
    Literal["default", "autotuned", "deterministic"],
    tyro.conf.arg(
        help="On a GPU: nothing by timing; convolutions by timing, bits not promised; PyTorch's own."
    ),
]
Device = Annotated[
    str, tyro.conf.arg(metavar="NAME", help="cpu, cuda, cuda:1, ... or auto: a GPU if there is one.")
]
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
Track = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        metavar="TRACKER",
        help=f"Also enter each finished run and measure into a tracker: {', '.join(tracker_names())}; may be "
        "given several times.",
        help_behavior_hint=_NO_HINT,
    ),
]
TrackDir = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FOLDER",
        help="Where trackers write; default: what their own settings say, and for TensorBoard runs.",
        help_behavior_hint=_NO_HINT,
    ),
]
CheckpointEvery = Annotated[float, tyro.conf.arg(help="Seconds between checkpoints.")]
Names = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="[STUDY|FILE ...]",
        help="Studies of the paper, such as table11 or fig3 (tombola studies lists them), or your own .py or "
        ".toml.",
        help_behavior_hint=_NO_HINT,
    ),
]
Scale = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help="Of the paper's studies only: paper (as printed), short (a tenth of the budget) or tiny "
        "(stand-ins).",
        help_behavior_hint=_NO_HINT,
    ),
]
Imports = Annotated[
    tuple[Path, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        name="import",
        metavar="FILE.py",
        help="Declares networks, measures and scores of your own; may be given several times.",
        help_behavior_hint=_NO_HINT,
    ),
]
_Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=_NO_HINT)]
_Rate = Annotated[float | None, tyro.conf.arg(metavar="RATE", help_behavior_hint=_NO_HINT)]
_List = Annotated[str | None, tyro.conf.arg(metavar="LIST", help_behavior_hint=_NO_HINT)]
_Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=_NO_HINT)]


@dataclass(frozen=True)
class Numbers:
    """Numbers of a scale, for the paper's studies only; jobs have other names under them."""

    epochs: _Count = None
    """Budget of each full training."""
    seeds: _Count = None
    """Runs, which differ in initialisation and noise."""
    configs: _List = None
    """Only these: momentum/batch size, such as 0.0/256,0.9/100."""
    pairs: _List = None
    """Only these networks with their data: R18/C10, R18/C100, VGG16/C100, R34/TIN."""
    rounds: _Count = None
    """Prunings of each chain."""
    columns: _List = None
    """Prunings of the tabulated tickets, such as 5,10."""
    rewind: _Count = None
    """Epochs of late rewinding."""
    copies: _Count = None
    """Trainings of one start under different noise, for instability."""
    stride: _Count = None
    """Rounds from point to point of the curves of probes and of little data."""
    points: _Count = None
    """Positions on a line between noise copies."""
    points_between: _Count = None
    """Positions on a line between consecutive tickets."""
    head_epochs: _Count = None
    """Epochs of probes and of transferred heads."""
    neighbours: _Count = None
    """Lengths asked about beside a first stable epoch."""
    lr: _Rate = None
    """Learning rate at the start, of every pair."""
    init: _Name = None
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
        raise ExperimentError(f"columns is {given!r}; give numbers of prunings, such as 5,10") from None
