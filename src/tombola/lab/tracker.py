"""What a tracker is: TensorBoard, Weights & Biases, MLflow, or another one, each a file in ``trackers/``.

A tracker takes finished jobs under their names, so that a job that it holds is never entered twice. No torch
here: the command line lists trackers in its help.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from tombola.errors import TrackerError, unknown
from tombola.lab import trackers

DEFAULT_PROJECT = "tombola"
"""Project or experiment that jobs are entered into, unless the tracker's own settings name another."""

Parameter = str | int | float | bool


@dataclass(frozen=True)
class TrackedPoint:
    """One row of a learning curve.

    step: number of the epoch. time: when it ended, in seconds since 1970.
    values: by the names of the columns of a history; what was not measured is left out.
    """

    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrackedJob:
    """What a tracker is told of a finished job; all text is printable.

    name: 64 hexadecimal digits. title: what was measured on what, in words, with the beginning of the name.
    started, ended: in seconds since 1970.
    curve: of a training. numbers: those of the table, without points of lists.
    parameters: what was measured on what, the whole recipe and the provenance, by names with points.
    parents: names of the runs and measures that it was made from, the nearest ones.
    """

    name: str
    function: str
    title: str
    started: float
    ended: float
    curve: Sequence[TrackedPoint]
    numbers: Mapping[str, float]
    parameters: Mapping[str, Parameter]
    parents: Sequence[str]


class Tracker(Protocol):
    """Holds finished jobs by name. Its methods may raise anything, and are called in one thread."""

    def absent(self, names: Sequence[str]) -> list[str]:
        """Those of some jobs that it does not hold whole."""
        ...

    def add(self, job: TrackedJob) -> None:
        """Enters a job, in place of what an interruption left of it."""
        ...

    def place(self) -> str:
        """Where the jobs are, and how to see them, in words."""
        ...


class TrackerModule(Protocol):
    """A file in ``trackers/``.

    PACKAGE: the package to import, which the extra of the same name as the file installs.
    """

    PACKAGE: str

    def open_tracker(self, folder: Path | None) -> Tracker:
        """The tracker; quick, and without asking a server.

        folder: where it writes, in place of what its own settings say.

        Raises :class:`~tombola.errors.TrackerError` where the user has to do something first.
        """
        ...


def tracker_names() -> list[str]:
    """The names of all trackers, installed or not."""
    return sorted(module.name for module in pkgutil.iter_modules(trackers.__path__))


def open_trackers(
    names: Iterable[str], folder: Path | None = None, store: Path | None = None
) -> dict[str, Tracker]:
    """Trackers by name.

    folder: where they write; by default where each one's own settings say. store: the folder of the store,
    which is refused, since all its files are its own.

    Raises :class:`~tombola.errors.TrackerError` for an unknown tracker, and one that is not installed or not
    set up.
    """
    modules = {name: _module(name) for name in names}
    place = (folder or Path()).resolve()
    if store is not None and place.is_relative_to(store.resolve()):
        where = "--track-dir" if folder else "the working folder"
        raise TrackerError(f"{where} is {place}, within the store; give --track-dir a folder outside of it")
    return {name: module.open_tracker(folder) for name, module in modules.items()}


def _module(name: str) -> TrackerModule:
    """The file of a tracker whose package is installed."""
    if name not in tracker_names():
        raise TrackerError(unknown("tracker", name, tracker_names()))
    module = cast(TrackerModule, importlib.import_module(f"{trackers.__name__}.{name}"))
    spec = importlib.util.find_spec(module.PACKAGE)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise TrackerError(
            f"tracker {name} needs {module.PACKAGE}, which is not installed; pip install 'tombola[{name}]'"
        )
    return module
