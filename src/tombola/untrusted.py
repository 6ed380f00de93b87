"""Untrusted files, JSON and text: these functions read what others may have written, and refuse odd values.

All that a store, an export or a workplace holds is opened here, without waiting for it: a pipe, a device or a
link may stand in place of each file, and a sparse one may say that it has any number of bytes.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import Any

from tombola.errors import OddFile
from tombola.errors import printable as printable

# Bytes of the longest text: the index of 200,000 jobs, or a history of 500,000 epochs. Parsed, a text takes
# up to some twelve times its size.
LONGEST_TEXT = 64 * 2**20
# Bytes of the largest tensor file, which is mapped and not copied; ImageNet at 64 by 64 pixels has 15 GiB.
LARGEST_TENSORS = 16 * 2**30
# Lists and objects in one text, each of which takes far more memory than its two brackets.
_MOST_NESTS = 1_000_000
# Deeper than any description is, and far from Python's recursion limit.
DEEPEST = 200
# Bytes that are read at a time.
_PART = 2**16

# Opening a pipe or device does not wait, and a link is not followed; flags that a system lacks are left out.
NO_WAIT = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}

# What Python raises where an untrusted file has another form than its reader expects.
OTHER_FORM = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


@contextmanager
def open_regular(path: str | os.PathLike[str], longest: int, *, follow: bool = False) -> Iterator[FileIO]:
    """A regular file, opened for reading without waiting.

    longest: bytes that it may have. follow: whether it may be a link, as where the user named it.

    Raises :class:`~tombola.errors.OddFile` for anything else than a file, or a longer one, and OSError if
    it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_WAIT | (0 if follow else NO_LINK))
    except OSError:
        with suppress(OSError):  # a socket or a link cannot be opened at all
            _check(path, os.stat(path, follow_symlinks=follow), longest)
        raise
    with as_regular(path, descriptor, "r", longest) as file:
        yield file


def read_regular(path: str | os.PathLike[str], longest: int = LONGEST_TEXT, *, follow: bool = False) -> bytes:
    """The content of a regular file; arguments and errors are those of :func:`open_regular`."""
    with open_regular(path, longest, follow=follow) as file:
        parts: list[bytes] = []
        left = longest + 1
        while left and (part := file.read(min(_PART, left))):
            parts.append(part)
            left -= len(part)
    if not left:  # it grew meanwhile
        raise OddFile(path, f"longer than {longest:,} bytes; at most so many are read")
    return b"".join(parts)


def check_regular(path: str | os.PathLike[str], longest: int, *, follow: bool = False) -> None:
    """Raises for what :func:`open_regular` does not open; before another library opens a file."""
    with open_regular(path, longest, follow=follow):
        pass


def as_regular(
    path: str | os.PathLike[str], descriptor: int, mode: str, longest: int = sys.maxsize
) -> FileIO:
    """What was opened without waiting, as a file of Python's; OddFile, and it is closed, if it is no file."""
    try:
        _check(path, os.fstat(descriptor), longest)
    except BaseException:
        os.close(descriptor)
        raise
    return FileIO(descriptor, mode)


def _check(path: str | os.PathLike[str], status: os.stat_result, longest: int) -> None:
    """Raises OddFile unless this is the state of a regular file that is not too long."""
    if not stat.S_ISREG(status.st_mode):
        raise OddFile(path, f"{_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file")
    if status.st_size > longest:
        raise OddFile(path, f"{status.st_size:,} bytes long; at most {longest:,} are read")


def json_object(text: str | bytes, what: str = "it") -> dict[str, Any]:
    """The object in a JSON text; ``what`` names the text in errors.

    Raises ValueError for anything else: no JSON, no object, nested too deeply, too many lists, numbers that
    JSON does not have or that do not fit, a key that stands twice in one object (of which readers would see
    one or the other), or text that cannot be encoded.
    """
    decoded = text if isinstance(text, str) else text.decode()
    nests = decoded.count("[") + decoded.count("{")
    if nests > _MOST_NESTS:
        raise ValueError(f"{what} has {nests:,} lists and objects; at most {_MOST_NESTS:,} are read")
    try:
        value = _decoder.decode(decoded)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} holds no object")
    if nests > DEEPEST and depth(value) > DEEPEST:
        raise ValueError(f"{what} is nested too deeply")
    if "\\ud" in decoded.lower():  # perhaps half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def check_readable(text: str, what: str = "it") -> None:
    """Raises ValueError for an ASCII text that :func:`json_object` would not read, or is too long a file."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{what} has {len(text):,} bytes; at most {LONGEST_TEXT:,} are read")
    json_object(text, what)


def has_control_characters(text: str) -> bool:
    """Whether a text has characters that a terminal obeys, such as escape and line feed, or halves of any."""
    return not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines, whose ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def _refuse_constant(constant: str) -> None:
    """Raises ValueError for NaN and infinities, which Python's reader takes and JSON does not have."""
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    """A number with a fraction or exponent; ValueError for one that would become infinite."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.60} is no number that fits")
    return value


def _without_repetitions(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these entries; ValueError if two have one key."""
    value = dict(entries)
    if len(value) < len(entries):
        seen: set[str] = set()
        for key, _ in entries:
            if key in seen:
                raise ValueError(f"{key!r:.60} stands twice in an object")
            seen.add(key)
    return value


_decoder = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_repetitions
)


def depth(value: object) -> int:
    """Number of levels of lists and objects within each other."""
    level, depth = [value], 0
    while nests := [item for item in level if isinstance(item, dict | list)]:
        level = [item for nest in nests for item in (nest.values() if isinstance(nest, dict) else nest)]
        depth += 1
    return depth
