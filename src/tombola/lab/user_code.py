"""The user's own Python files, whose networks and measures are declared by importing them.

A file is copied into the store under its SHA-256, and workers import it from there, so that jobs run on
machines that do not have the file itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tombola.disk import write_whole
from tombola.errors import JobError, StoreError, reason
from tombola.lab.store import Store
from tombola.source import executing
from tombola.untrusted import read_regular

# Held while a file runs; its own thread may import another one.
_importing = threading.RLock()


def import_file(path: Path) -> ModuleType:
    """The module of a Python file; the same content is executed once a process.

    Raises :class:`~tombola.errors.JobError` with file and line if it cannot be read or fails.
    """
    return _module(path, _content(path, follow=True))


def _module(path: Path, content: bytes) -> ModuleType:
    """The module that a file's content defines."""
    # Otherwise a job in another thread could begin while the file that declares what it needs is half read.
    with _importing:
        return _imported(path, content)


def _imported(path: Path, content: bytes) -> ModuleType:
    name = f"tombola_own_{_hash(content)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    path = path.absolute()  # as in a traceback
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise JobError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their own module up
    try:
        # The bytes that were hashed: the loader would read the file again, or trust a bytecode cache.
        executing(path, content)
        exec(compile(content, path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # the user's own code, which may fail in any way
        del sys.modules[name]
        raise JobError(f"{path.name}{_line(error, path)}: {type(error).__name__}: {_cause(error)}") from error
    return module


def put_file(store: Store, path: Path) -> str:
    """Copy a file into the store and return its hash, by which :func:`import_stored` finds it.

    Raises :class:`~tombola.errors.JobError` if it cannot be read, and :class:`~tombola.errors.StoreError` if
    the store cannot be written to.
    """
    content = _content(path, follow=True)
    copy = _path(store, _hash(content))
    if not _is_copy(copy):
        write_whole(copy, content, make_folder=True)
    return _hash(content)


def import_stored(store: Store, fingerprint: str) -> ModuleType:
    """The module of a file that :func:`put_file` copied.

    Raises :class:`~tombola.errors.StoreError` if the copy was altered.
    """
    path = _path(store, fingerprint)
    content = _content(path)
    if _hash(content) != fingerprint:
        raise StoreError(f"{path} was altered: it is not the file of that hash; delete it and run again")
    return _module(path, content)


def altered_files(store: Store) -> Iterator[Path]:
    """Yields the copies in a store whose content does not have the hash that names them."""
    for path in sorted((store.root / "files").glob("*.py")):
        if not _is_copy(path):
            yield path


def _path(store: Store, fingerprint: str) -> Path:
    return store.root / "files" / f"{fingerprint}.py"


def _is_copy(path: Path) -> bool:
    """Whether a file in a store has the content whose hash names it."""
    try:
        return _hash(_content(path)) == path.stem
    except JobError:
        return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(path: Path, *, follow: bool = False) -> bytes:
    """The bytes of a file; ``follow`` one that the user named, which may be a link."""
    try:
        return read_regular(path, follow=follow)
    except (OSError, ValueError) as error:  # the path may come from a file, and have any characters
        raise JobError(f"cannot read {path}: {reason(error)}") from error


def _line(error: BaseException, path: Path) -> str:
    """Words for the line of the file at which an import failed; empty if it failed elsewhere."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {own[-1].lineno}" if own else ""


def _cause(error: BaseException) -> str:
    return str(error.msg) if isinstance(error, SyntaxError) else reason(error)
