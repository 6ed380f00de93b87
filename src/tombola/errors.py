"""The errors of tombola, and the words for what was wrong, what was seen and what to do about it."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable


class TombolaError(Exception):
    """An error that the caller can mend; its message is one printable line with the value and the remedy."""

    def __str__(self) -> str:
        return printable(super().__str__().replace("\n", " "))


class DataError(TombolaError):
    """A data set that cannot be found, read or used."""


class NetworkError(TombolaError):
    """A network that cannot be found, built or trained as asked."""


class TicketError(TombolaError):
    """A ticket or run that does not fit: damaged file, other network, wrong mask, missing dense start."""


class Undefined(TicketError):
    """A measure that has no value, because what it is of diverged; as a job it is finished, and undefined.

    why: what the store keeps of it. what_to_do: for whoever asked for the value.
    """

    def __init__(self, why: str, what_to_do: str = "") -> None:
        super().__init__("; ".join(filter(None, (why, what_to_do))))
        self.why = why


class RecipeError(TombolaError):
    """A training recipe or search setting outside what is possible."""


class ExportError(TombolaError):
    """A run that cannot be written in the form of another library, or reads back as something else."""


class HubError(TombolaError):
    """A repository of a model hub that cannot be reached, read or written to."""


class TrackerError(TombolaError):
    """A tracker that is not there, is not set up, or did not take a job."""


class ArgumentError(TombolaError, TypeError):
    """An argument of a type that a function does not take."""


class DeviceError(TombolaError):
    """A device that is not there, cannot compute what is asked, or has too little memory."""


class DeviceLost(DeviceError):
    """A GPU whose results this process can trust no longer; a new process can."""


class MemoryShort(DeviceLost):
    """A GPU whose memory did not suffice for a convolution, so that other bits may have come of it."""


class JobError(TombolaError):
    """A job that cannot be described, or that failed."""


class StoreError(TombolaError):
    """A store that cannot be read or written, or that holds results of other pixels."""


class ExperimentError(TombolaError):
    """An experiment whose numbers do not fit together, or that is asked for something it does not have."""


class ClusterError(TombolaError):
    """A scheduler that does not answer, or a worker that does not fit."""


class Undeclared(StoreError):
    """An intact result of a network that is not declared in this process."""


class OddFile(TombolaError, ValueError):
    """A file that is not read: a pipe, device, link or folder in its place, or too many bytes.

    what: what is there, as "a pipe, not a file".
    """

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        super().__init__(f"{os.fspath(path)} is {what}")
        self.what = what


class Unfinished(TombolaError):
    """Work that was stopped on time, without a failure; the same call or command continues it."""


class StoreUnwritable(StoreError):
    """A store at a place that cannot be written to, where every job would fail."""


def printable(text: str) -> str:
    """An untrusted text that is safe to print on one line.

    Replaced is what :meth:`str.isprintable` excludes: control characters, which a terminal obeys; all that
    orders text from right to left; separators of lines and spaces other than the common one; and characters
    without a shape, zero-width joiners among them. So a joined emoji falls into its parts, and no name looks
    like another that differs in what cannot be seen.
    """
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def unknown(kind: str, value: str, known: Iterable[str]) -> str:
    """One line that says that a name does not exist, with the nearest name that does, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"known: {', '.join(names)}" if names else "none is declared here"
    if near:
        hint = f"did you mean {near[0]!r}?"
    return f"no {kind} {value!r}; {hint}"


def unwritable(place: str | os.PathLike[str], error: BaseException) -> StoreUnwritable:
    """The error for a place that could not be written to, with what to do about its cause."""
    return StoreUnwritable(f"cannot write to {os.fspath(place)}: {reason(error)}; {remedy(error)}")


def remedy(error: BaseException) -> str:
    """What to do about a place that cannot be written to; running the same again keeps what is finished."""
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room (tombola gc shows what a store can spare) and run the same again"
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make it writable or choose another place, and run the same again"
    if code == errno.ELOOP:
        return "put a folder there, or a link of your own if it is one of the store's first folders"
    if code in (errno.ENOTDIR, errno.EEXIST):
        return "choose another place"
    return "run the same again when it can be written to"


def reason(error: BaseException) -> str:
    """The cause of an error as one line without its path."""
    if isinstance(error, OddFile):
        return error.what
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())
