"""Jobs that were begun and are not finished: those that run, failed, or were interrupted.

Read off their workplaces: the lease tells whether a process holds one, ``error.txt`` why its last attempt
failed, ``under-way.json`` how far a training is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tombola.errors import OddFile
from tombola.lab.description import is_fingerprint
from tombola.lab.lease import free, holder_text
from tombola.lab.store import Store
from tombola.lab.training_progress import TrainingProgress, reported_job, trainings_in_progress
from tombola.untrusted import printable, read_regular

UnfinishedState = Literal["running", "failed", "interrupted"]

# Characters of an error that are told.
_LONGEST_ERROR = 300


@dataclass(frozen=True)
class UnfinishedJob:
    """A job with a workplace and no result, or with one whose tensors are gone and are computed again.

    function: its name, "" where nothing says it; arguments: in one line. detail: how far it is and who holds
    it, why it failed, or where it goes on.
    """

    name: str
    state: UnfinishedState
    function: str
    detail: str
    arguments: str = ""


def unfinished_jobs(
    store: Store, trainings: Mapping[str, TrainingProgress] | None = None
) -> Iterator[UnfinishedJob]:
    """The jobs that were begun in a store and are not finished, sorted by name.

    trainings: those in progress, if they were read already.
    """
    trainings = trainings_in_progress(store) if trainings is None else trainings
    for workplace in sorted((store.root / "work").iterdir()):
        name = workplace.name
        if not is_fingerprint(name) or workplace.is_symlink() or not workplace.is_dir():
            continue
        if store.has(name) and not store.is_thin(name):
            continue
        training = trainings.get(name)
        function, arguments = (training.function, training.arguments) if training else reported_job(workplace)
        if not free(workplace):
            yield UnfinishedJob(name, "running", function, _running(workplace, training), arguments)
        elif error := _last_error(workplace):
            yield UnfinishedJob(name, "failed", function, error, arguments)
        else:
            yield UnfinishedJob(name, "interrupted", function, _rest(workplace), arguments)


def _running(workplace: Path, training: TrainingProgress | None) -> str:
    """How far a job is, and which process holds it."""
    held = holder_text(workplace)
    if training is None:
        return printable(held)
    return printable(f"{training}, {held}")


def _last_error(workplace: Path) -> str:
    """The last line of a failure, of a traceback the first one of the error itself; "" without a failure."""
    try:
        text = read_regular(workplace / "error.txt").decode(errors="replace").rstrip()
    except (OSError, OddFile):
        return ""
    _, _, calls = text.rpartition("\nTraceback") if "\nTraceback" in text else text.rpartition("Traceback")
    lines = calls.splitlines()[1:] if len(calls) < len(text) else []
    # Errors of a GPU go on for lines of advice.
    error = next((line for line in lines if not line.startswith(" ")), text.rpartition("\n")[2])
    return printable(error)[:_LONGEST_ERROR]


def _rest(workplace: Path) -> str:
    """What a job that was interrupted has left."""
    left = any(workplace.glob("checkpoint*"))  # none of a job that was finished just now
    return "goes on from its checkpoint" if left else "begins anew"
