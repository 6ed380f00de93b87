"""TensorBoard: an event file for each job, in a folder of its own below ``runs``, where PyTorch writes too.

Written by the functions behind PyTorch's ``SummaryWriter``, and not by itself: it names its files by the
clock, while here the name of the job is in the name of the file, which appears whole or not at all.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola import disk
from tombola.lab.tracker import TrackedJob

PACKAGE = "tensorboard"

_DEFAULT = Path("runs")
_FILE = re.compile(r"events\.out\.tfevents\.\d+\.([0-9a-f]{64})")
_ODD = re.compile(r"[^A-Za-z0-9._=+-]+")
# Characters of the folder's name, which TensorBoard shows.
_LONGEST = 150


def open_tracker(folder: Path | None) -> TensorBoardTracker:
    """TensorBoard's files in a folder, by default ``runs`` in the working folder."""
    return TensorBoardTracker(folder or _DEFAULT)


class TensorBoardTracker:
    """Event files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self) -> str:
        return f"in {self._folder}; tensorboard --logdir {self._folder} shows them"

    def absent(self, names: Sequence[str]) -> list[str]:
        files = (path.name for path in self._folder.glob("*/events.out.tfevents.*"))
        held = {match[1] for match in map(_FILE.fullmatch, files) if match}
        return [name for name in names if name not in held]

    def add(self, job: TrackedJob) -> None:
        folder = self._folder / _ODD.sub("-", job.title)[-_LONGEST:].strip("-.")
        disk.make_folder(folder, parents=True, exist_ok=True)
        # TensorBoard reads every file with "tfevents" in its name.
        part = folder / f".{uuid.uuid4().hex[:8]}.part"
        disk.write_part(part, _events(job), synced=True)
        file = folder / f"events.out.tfevents.{job.started:.0f}.{job.name}"
        try:
            disk.replace(part, file)
        except FileNotFoundError:  # another driver entered the job meanwhile, and cleared the part away
            if not file.exists():
                raise
        for left in folder.glob(".*.part"):
            disk.remove(left, missing_ok=True)


def _events(job: TrackedJob) -> bytes:
    """The content of an event file: curve, numbers, hyperparameters, and a text with the provenance, too."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import hparams, scalar, text

    file = io.BytesIO()
    writer = RecordWriter(file)

    def write(time: float, step: int = 0, **content: Any) -> None:
        writer.write(Event(wall_time=time, step=step, **content).SerializeToString())

    write(job.started, file_version="brain.Event:2")
    last = job.curve[-1].step if job.curve else 0
    numbers = {f"number/{name}": value for name, value in job.numbers.items()}
    varied = {key: value for key, value in job.parameters.items() if not key.startswith("provenance.")}
    for part in hparams(varied, numbers):
        write(job.started, summary=part)
    for point in job.curve:
        for name, value in point.values.items():
            write(point.time, point.step, summary=scalar(f"curve/{name}", value))
    for name, value in numbers.items():
        write(job.ended, last, summary=scalar(name, value))
    write(job.ended, summary=text("job", _indented(job)))
    writer.flush()
    return file.getvalue()


def _indented(job: TrackedJob) -> str:
    """A job in lines that TensorBoard shows as they are: indented, they are no Markdown."""
    lines = [f"job: {job.name}", *(f"made from: {parent}" for parent in job.parents)]
    lines += [f"{key}: {value}" for key, value in job.parameters.items()]
    return "\n".join(f"    {line}" for line in lines)
