"""A disk that fails at one chosen operation, and what a power cut could leave of what was written until then.

``FaultyOs`` stands in for ``os`` in :mod:`tombola.disk`, through which every change to a store passes. It
counts the changes, calls ``before`` at each of them, and keeps a journal, of which ``after_power_cut`` makes
a folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

Cut = Literal["nothing unsynced", "a part in order", "any part"]
"""What a power cut leaves of changes that were not forced to the disk."""

# What needs room on the disk; a write that waits in memory may find at its fsync that there is none.
NEEDS_ROOM = frozenset({"create", "write", "fsync", "mkdir", "rename", "link"})


@dataclass(frozen=True)
class Operation:
    """A change to files below one folder; paths are relative to it.

    content: what is written at ``offset``. target: the other path of a rename or link.
    """

    kind: str
    path: str
    target: str = ""
    offset: int = 0
    content: bytes = b""


class FaultyOs:
    """``os`` for :mod:`tombola.disk`, below one folder.

    before: called with each operation and its number before it is made; it may raise OSError in its place.
    after: called with the number when it was made or failed.
    """

    def __init__(
        self,
        root: Path,
        before: Callable[[int, Operation], None],
        after: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.root, self.before, self.after = root, before, after
        self.count = 0
        self.journal: list[Operation] = []
        self._open: dict[int, str] = {}  # paths of the open files that are written to

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _made(self, make: Callable[[], Any], kind: str, path: Any, **more: Any) -> Any:
        path = os.path.abspath(path)
        if path != str(self.root) and not path.startswith(f"{self.root}/"):
            return make()
        if "target" in more:
            more["target"] = os.path.relpath(more["target"], self.root)
        operation = Operation(kind, os.path.relpath(path, self.root), **more)
        number, self.count = self.count, self.count + 1
        self.before(number, operation)
        try:
            result = make()
        finally:
            self.after(number)
        self.journal.append(operation)
        return result

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = _absolute(path, dir_fd)
        kind = ""
        if flags & (os.O_WRONLY | os.O_RDWR):
            kind = "truncate" if flags & os.O_TRUNC else ""
            kind = kind if os.path.lexists(where) else "create"

        def opened() -> int:
            return os.open(path, flags, mode, dir_fd=dir_fd)

        descriptor = self._made(opened, kind, where) if kind else opened()
        self._open[descriptor] = os.path.abspath(where)
        return descriptor

    def write(self, descriptor: int, content: Any) -> int:
        path, content = self._open[descriptor], bytes(content)
        appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
        offset = os.path.getsize(path) if appends else os.lseek(descriptor, 0, os.SEEK_CUR)
        return self._made(
            lambda: os.write(descriptor, content), "write", path, offset=offset, content=content
        )

    def fsync(self, descriptor: int) -> None:
        self._made(lambda: os.fsync(descriptor), "fsync", self._open[descriptor])

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = _absolute(path, dir_fd)
        if os.path.lexists(where):
            os.mkdir(path, mode, dir_fd=dir_fd)  # raises
        self._made(lambda: os.mkdir(path, mode, dir_fd=dir_fd), "mkdir", where)

    def rename(self, path: Any, target: Any, **folders: int | None) -> None:
        self._moved(os.rename, "rename", path, target, folders)

    def replace(self, path: Any, target: Any, **folders: int | None) -> None:
        self._moved(os.replace, "rename", path, target, folders)

    def link(self, path: Any, target: Any, *, follow_symlinks: bool = True, **folders: int | None) -> None:
        self._moved(partial(os.link, follow_symlinks=follow_symlinks), "link", path, target, folders)

    def _moved(
        self, call: Callable[..., None], kind: str, path: Any, target: Any, folders: dict[str, int | None]
    ) -> None:
        where = _absolute(path, folders.get("src_dir_fd"))
        to = _absolute(target, folders.get("dst_dir_fd"))
        self._made(lambda: call(path, target, **folders), kind, where, target=to)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        where = _absolute(path, dir_fd)
        if not os.path.lexists(where):
            os.unlink(path, dir_fd=dir_fd)  # raises
        self._made(lambda: os.unlink(path, dir_fd=dir_fd), "unlink", where)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._made(lambda: os.rmdir(path, dir_fd=dir_fd), "rmdir", _absolute(path, dir_fd))


def _absolute(path: Any, folder: int | None) -> Any:
    """A path that is relative to an open folder, from the root."""
    return path if folder is None else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)


def error(code: int) -> OSError:
    """The error of a system call."""
    return OSError(code, os.strerror(code))


FULL, BROKEN = errno.ENOSPC, errno.EIO


# What a power cut leaves

# Seconds until the machine is up again.
_REBOOT = 300.0


@dataclass
class _File:
    """content: as programs see it; kept: as it was when it was last forced to the disk."""

    content: bytearray = field(default_factory=bytearray)
    kept: bytes = b""


@dataclass
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)


@dataclass
class _Change:
    """Names that one operation gave and took, together; kept: whether they were forced to the disk."""

    names: list[tuple[_Folder, str, _File | _Folder | None]]
    kept: bool = False


def after_power_cut(journal: list[Operation], cut: Cut, seed: int, place: Path) -> None:
    """Make a new folder with what is left of a journal's changes if the power goes after the last of them.

    What an fsync of a file forced to the disk is its content, and of a folder the names in it; a rename is
    made whole or not at all. Of all else ``cut`` says what is left: nothing, the changes of names until some
    moment, or any of them; and of a file's content what was there before, zeros, a beginning, or all.
    """
    root, changes = _Folder(), []

    def folder_of(path: str) -> tuple[_Folder, str]:
        *above, name = path.split("/")
        folder = root
        for part in above:
            inner = folder.entries[part]
            assert isinstance(inner, _Folder), path
            folder = inner
        return folder, name

    def change(*names: tuple[_Folder, str, _File | _Folder | None]) -> None:
        for folder, name, entry in names:
            if entry is None:
                folder.entries.pop(name, None)
            else:
                folder.entries[name] = entry
        changes.append(_Change(list(names)))

    for operation in journal:
        folder, name = folder_of(operation.path)
        entry = root if operation.path == "." else folder.entries.get(name)
        match operation.kind:
            case "create":
                change((folder, name, _File()))
            case "mkdir":
                change((folder, name, _Folder()))
            case "truncate":
                entry.content.clear()
            case "write":
                start, end = operation.offset, operation.offset + len(operation.content)
                entry.content.extend(b"\0" * (start - len(entry.content)))
                entry.content[start:end] = operation.content
            case "fsync" if isinstance(entry, _File):
                entry.kept = bytes(entry.content)
            case "fsync":
                for made in changes:
                    made.kept |= any(changed is entry for changed, _, _ in made.names)
            case "rename":
                change((folder, name, None), (*folder_of(operation.target), entry))
            case "link":
                change((*folder_of(operation.target), entry))
            case "unlink" | "rmdir":
                change((folder, name, None))
    _make(_left(root, changes, cut, draws := random.Random(seed)), place, cut, draws)


def _left(root: _Folder, changes: list[_Change], cut: Cut, draws: random.Random) -> dict[int, dict[str, Any]]:
    """The entries of each folder, by its id, that a power cut leaves; those of the root under 0."""
    moment = draws.randrange(len(changes) + 1)
    left: dict[int, dict[str, Any]] = {}
    for number, made in enumerate(changes):
        by_chance = {"nothing unsynced": False, "a part in order": number < moment}.get(
            cut, draws.random() < 0.5
        )
        if not (made.kept or by_chance):
            continue
        for folder, name, entry in made.names:
            entries = left.setdefault(0 if folder is root else id(folder), {})
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
    return left


def _make(left: dict[int, dict[str, Any]], place: Path, cut: Cut, draws: random.Random) -> None:
    made: dict[int, Path] = {}

    def make(entries: dict[str, Any], at: Path) -> None:
        at.mkdir()
        for name, entry in entries.items():
            if isinstance(entry, _Folder):
                make(left.get(id(entry), {}), at / name)
            elif id(entry) in made:
                os.link(made[id(entry)], at / name)
            else:
                (at / name).write_bytes(_content_left(entry, cut, draws))
                os.utime(at / name, (time.time() - _REBOOT,) * 2)
                made[id(entry)] = at / name

    make(left.get(0, {}), place)


def _content_left(file: _File, cut: Cut, draws: random.Random) -> bytes:
    now = bytes(file.content)
    if cut == "nothing unsynced" or now == file.kept:
        return file.kept
    return draws.choice((file.kept, b"\0" * len(now), now[: draws.randrange(len(now) + 1)], now))
