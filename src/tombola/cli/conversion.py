"""``tombola convert``: a finished training or ticket in a form that other libraries read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from tombola.cli.arguments import Imports, Store
from tombola.cli.console import InertConsole, say
from tombola.cli.imports import import_files


def convert(
    name: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="JOB|FILE", help="A finished job by name or its beginning, or a file of one."),
    ],
    file: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(help="What to write: .safetensors (state_dict), .pt (torch's pruning), .pt2, .onnx."),
    ],
    normalize: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="DATA",
            help="Put this data's normalisation in front: pixel values from 0 to 255 go in.",
            help_behavior_hint="",
        ),
    ] = None,
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Write a finished run or ticket as a file that PyTorch, safetensors or ONNX read."""
    from tombola.exchange import exports
    from tombola.lab.finished import subject_of
    from tombola.lab.job import Job
    from tombola.lab.lab import Lab
    from tombola.ticket import Ticket
    from tombola.training.run import Run

    import_files(import_)
    lab = Lab(store)
    subject = subject_of(lab.store, "convert", "it", name, (Run, Ticket))
    if isinstance(subject, Job):
        subject = lab.result(subject)
    difference = exports.convert(subject, file, normalize=normalize)
    say(InertConsole(), f"{file}: read back, its logits differ by at most {difference:.2g}")
