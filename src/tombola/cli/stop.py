"""``--stop-after`` and SIGTERM on the command line: when a command ends with work left, and what it says.

No torch here: the time counts from before torch is loaded.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import tyro

from tombola.cli.console import say_error
from tombola.errors import RecipeError, Unfinished

if TYPE_CHECKING:
    from tombola.lab.deadline import Stop
    from tombola.lab.driver import Outcome
    from tombola.lab.store import Store

# As sysexits.h has it for what is worth another try: EX_TEMPFAIL.
UNFINISHED = 75

_OPTION = "--stop-after"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([hms])")

StopAfter = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="TIME",
        help="End after a time such as 9m, 90s or 1h30m, with checkpoints; the same command continues.",
        help_behavior_hint="",
    ),
]


def seconds_of(text: str) -> float:
    """The seconds of a time such as 90s, 9m, 1.5h or 1h30m.

    Raises :class:`~tombola.errors.RecipeError` for one that is not above 0, or without a unit.
    """
    parts = _PART.findall(text)
    if text and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if seconds > 0:
            return seconds
        raise RecipeError(f"{_OPTION} is {text}; it must be more than 0, such as 9m")
    if re.fullmatch(r"-.*\d.*|0+(\.0*)?|\.0+", text):
        raise RecipeError(f"{_OPTION} is {text}; it must be more than 0, such as 9m")
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        raise RecipeError(f"{_OPTION} is {text}, without a unit; give {text}s, {text}m or {text}h")
    raise RecipeError(f"{_OPTION} is {text!r}; give a time such as 90s, 9m or 1h30m")


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments in which a negative time is no option: it is refused as a time."""
    joined_arguments: list[str] = []
    for argument in arguments:
        if joined_arguments and joined_arguments[-1] == _OPTION and re.match(r"-[\d.]", argument):
            joined_arguments[-1] = f"{_OPTION}={argument}"
        else:
            joined_arguments.append(argument)
    return joined_arguments


_until_the_end = ExitStack()


@contextmanager
def stops_end_here() -> Iterator[None]:
    """What a command began with :func:`begin_stop` ends with it."""
    with _until_the_end:
        yield


def begin_stop(stop_after: str | None) -> Stop:
    """The stop of a command from here to its end: after a time as it was given, and by SIGTERM.

    Work that does not end in time is cut off, with the same exit code: it goes on from its last checkpoint.
    """
    from tombola.lab.deadline import stopping

    seconds = None if stop_after is None else seconds_of(stop_after)
    return _until_the_end.enter_context(stopping(seconds, at_last=_cut_off))


def raise_left(store: Store, stop: Stop, outcome: Outcome) -> None:
    """Raise :class:`~tombola.errors.Unfinished` if any job was left."""
    if outcome.left:
        done = len({*outcome.finished_before, *outcome.computed})
        raise unfinished(store, stop, done, outcome.left, outcome.not_begun, len(outcome.failed))


def unfinished(
    store: Store,
    stop: Stop,
    done: int,
    left: Iterable[str],
    not_begun: Mapping[str, float],
    failed: int = 0,
) -> Unfinished:
    """The error that says what is left of a command's jobs.

    done, failed: numbers of jobs. left: names of the others; not_begun: as in an
    :class:`~tombola.lab.driver.Outcome`.
    """
    from tombola.lab.deadline import in_words
    from tombola.table.number import many

    names = list(left)
    resumed = sum((store.workplace(name) / "checkpoint").exists() for name in names)
    notes = [f"{resumed} with a checkpoint"] if resumed else []
    if failed:
        notes.append(f"{failed} failed")
    how = "the same command continues"
    if not_begun:
        took = in_words(min(not_begun.values()))
        notes.append(f"{len(not_begun)} not begun, because their like took {took} or more")
        if stop.length is not None and stop.length <= min(not_begun.values()):
            how += f" if it is given more than {took}"
    why = f"stopped {stop.cause}"
    if not stop.is_due():
        why = f"nothing more fits into {stop.cause.removeprefix('after ')}"
    aside = f" ({', '.join(notes)})" if notes else ""
    return Unfinished(
        f"{why}: {done} of {many(done + failed + len(names), 'job')} done, {len(names)} left{aside}; {how}"
    )


def _cut_off(stop: Stop) -> None:
    """End this process at once: what is under way takes no notice."""
    from tombola.lab.lease import held_here
    from tombola.lab.supervision import forget_attempts, forget_log

    for lease in held_here():
        forget_attempts(lease.path.parent)
        forget_log(lease.path.parent)
        lease.release()
    say_error(
        f"stopped {stop.cause}: what was under way did not end by itself; the same command continues from "
        "the last checkpoints"
    )
    sys.stderr.flush()
    os._exit(UNFINISHED)
