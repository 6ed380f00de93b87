"""Folders that others may write to, opened for changes through no link of theirs.

Below a guarded folder a change is made relative to a descriptor of the folder that is changed (``openat``),
and that is opened step by step from the guarded one. So a folder that is swapped for a link, at any
moment, leads no change elsewhere. Where the system has no such calls, as Windows, changes go by path.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tombola.untrusted import NO_LINK

_HAS_FOLDERS = {os.open, os.mkdir, os.rename, os.link, os.unlink} <= os.supports_dir_fd and bool(
    NO_LINK and shutil.rmtree.avoids_symlink_attacks
)
# On Linux a folder, or a link itself, can be held without being read or asked for on a file server.
_HELD = getattr(os, "O_PATH", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _HELD
# A link in place of a file: its own time is set, and it is the link that gets a second name.
NOT_FOLLOWED: dict[str, Any] = {"follow_symlinks": False} if _HAS_FOLDERS else {}


_guarded: dict[str, frozenset[str]] = {}


def guard(root: Path, own_links: Collection[str] = ()) -> None:
    """From now on this process changes nothing below a folder through a link: others may write there.

    own_links: names of folders directly in it that may be links all the same, if this user or root made them.

    A change through any other link raises OSError with ELOOP.
    """
    if _route(str(root), len(_guarded)) is None:
        _guarded[str(root)] = frozenset(own_links)


# Keyed by how many folders are guarded, too: another one may be above a path that was asked for before.
@lru_cache(maxsize=1024)
def _route(path: str, guarded: int) -> tuple[str, tuple[str, ...]] | None:
    """The outermost guarded folder that holds a folder, or is it, and the names on the way; None if none."""
    folder = Path(path)
    roots = (root for root in reversed((folder, *folder.parents)) if str(root) in _guarded)
    root = next(roots, None)
    return None if root is None else (str(root), folder.relative_to(root).parts)


class Folder(NamedTuple):
    """A folder as calls of the system name it: by an open descriptor, or by its path if that is None."""

    path: str
    descriptor: int | None

    def name(self, path: Path) -> str | Path:
        """What a file of this folder is called in it."""
        return path if self.descriptor is None else path.name


@contextmanager
def opened(path: Path | str) -> Iterator[Folder]:
    """A folder for the time of a few calls; the descriptor is None if it is not guarded."""
    path = str(path)
    route = _route(path, len(_guarded)) if _HAS_FOLDERS else None
    if route is None:
        yield Folder(path, None)
        return
    root, names = route
    descriptor = _enter(None, f"{root}/{names[0]}", names[0] in _guarded[root]) if names else _hold(root)
    try:
        for name in names[1:]:
            above, descriptor = descriptor, _enter(descriptor, name)
            os.close(above)
        yield Folder(path, descriptor)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        # Another client of the file server removed the folder after it was opened here.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    finally:
        os.close(descriptor)


def holding(path: Path) -> AbstractContextManager[Folder]:
    """The folder that a file is in, "." for a name alone; as :func:`opened`."""
    return opened(path.parent)


def _hold(path: str, above: int | None = None, flags: int = 0) -> int:
    return os.open(path, _FOLDER | flags, dir_fd=above)


def _enter(above: int | None, path: str, may_be_link: bool = False) -> int:
    """A descriptor of a folder; the last name on the way to it is no link, or at most one of this user."""
    try:
        return _hold(path, above, NO_LINK)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not _is_link(path, above):
            raise
    target = _own_target(path, above) if may_be_link else None
    if target is None:
        whose = "a link that another user made" if may_be_link else "a link"
        raise OSError(errno.ELOOP, f"{os.path.basename(path)} is {whose}, and nothing is written through it")
    return _hold(os.path.join(os.path.dirname(path), target), above)


def _is_link(path: str, folder: int | None) -> bool:
    return stat.S_ISLNK(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)


def _own_target(path: str, folder: int | None) -> str | None:
    """Where a link leads that this user or root made; None for that of another."""
    own = (0, os.geteuid())
    if not _HELD:  # elsewhere than on Linux another may be put there between the look and the reading
        owner = os.stat(path, dir_fd=folder, follow_symlinks=False).st_uid
        return os.readlink(path, dir_fd=folder) if owner in own else None
    link = os.open(path, _HELD | NO_LINK, dir_fd=folder)
    try:
        return os.readlink("", dir_fd=link) if os.fstat(link).st_uid in own else None
    finally:
        os.close(link)


def check_folder(path: Path) -> None:
    """Raises OSError if a change in a folder would pass through a link; one that is not there is none."""
    with suppress(FileNotFoundError), opened(path):
        pass
