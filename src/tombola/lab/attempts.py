"""Attempts: which jobs kill their worker, and keeping them from taking others with them.

An attempt is counted in the store when a job begins, and forgotten when it ends in any orderly way or gets
as far as a checkpoint. So only a sudden death leaves one counted. A job with a death behind it is a suspect:
a process resumes its suspects one at a time, so of those that shared a dead worker only the culprit kills
another.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

from tombola.errors import JobError
from tombola.lab.lease import free
from tombola.lab.store import read_json, write_json
from tombola.reading import OTHER_FORM

_COUNT, _LOG = "attempts.json", "log.txt"
# Lines of the log that a failure repeats.
_LAST_LINES = 4

_one_suspect = threading.Lock()


def count_attempt(workplace: Path, allowed: int, name: str) -> None:
    """Count an attempt that begins; :class:`~tombola.errors.JobError` if there were as many as allowed."""
    begun = deaths(workplace)
    if begun >= allowed:
        told = last_lines(workplace)
        raise JobError(
            f"job {name[:12]} was begun {begun} times and never finished (does it kill its worker or hang?); "
            f"{f'its last lines: {told}; ' if told else ''}to try again, delete {workplace}"
        )
    write_json(workplace / _COUNT, {"begun": begun + 1}, synced=False)  # a power cut is nobody's fault
    note(workplace, f"begun on {socket.gethostname()} in process {os.getpid()}")


def forget_attempts(workplace: Path) -> None:
    """Only a sudden death leaves its attempt counted; whoever gets here was not killed."""
    with suppress(OSError):  # a store that became read-only: what made it so is on its way to the user
        (workplace / _COUNT).unlink(missing_ok=True)


def deaths(workplace: Path) -> int:
    """Attempts that were begun and neither ended nor got anywhere; while one is under way it counts too."""
    try:
        return int(read_json(workplace / _COUNT)["begun"])
    except (OSError, *OTHER_FORM):
        return 0


def note(workplace: Path, line: str) -> None:
    """Add a line to what a job leaves behind if its process dies."""
    now = datetime.now(UTC).strftime("%m-%d %H:%M:%S")
    with suppress(OSError), (workplace / _LOG).open("a") as file:
        file.write(f"{now} {line}\n")


def forget_log(workplace: Path) -> None:
    """An orderly end has nothing to tell."""
    with suppress(OSError):
        (workplace / _LOG).unlink(missing_ok=True)


def last_lines(workplace: Path) -> str:
    """The last lines that a job left behind, as one."""
    try:
        lines = (workplace / _LOG).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    told = [" ".join(line.split()) for line in lines if line.strip()]
    fatal = [place for place, line in enumerate(told) if line.startswith("Fatal Python error")]
    # What follows is where the process was, the innermost call first.
    told = told[fatal[-1] :][:_LAST_LINES] if fatal else told[-_LAST_LINES:]
    return " | ".join(told)


@contextmanager
def apart_from_suspects(
    workplace: Path, waiting: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """Run a suspect while no other suspect runs in this process; anybody else at once.

    waiting: entered while another suspect is waited for.

    A suspect's log also gets where its process was if a signal such as a segmentation fault ends it.
    """
    if not deaths(workplace) or not free(workplace):  # counted for an attempt that is under way elsewhere
        yield
        return
    if not _one_suspect.acquire(blocking=False):
        with waiting():
            _one_suspect.acquire()
    try:
        with _last_words(workplace / _LOG):
            yield
    finally:
        _one_suspect.release()


@contextmanager
def _last_words(log: Path) -> Iterator[None]:
    if faulthandler.is_enabled():  # by somebody who wants it elsewhere
        yield
        return
    try:
        file = log.open("a")
    except OSError:  # finished by somebody else meanwhile
        yield
        return
    with file:
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            faulthandler.disable()


def device_is_lost(error: BaseException) -> bool:
    """Whether an error, or one behind it, leaves the GPU unusable for the rest of this process."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, torch.AcceleratorError):
            return True
        behind = behind.__cause__ or behind.__context__
    return False
