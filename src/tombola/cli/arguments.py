"""Arguments that several commands share, with their help. No torch here: help must not wait for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

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
CheckpointEvery = Annotated[float, tyro.conf.arg(help="Seconds between checkpoints.")]
