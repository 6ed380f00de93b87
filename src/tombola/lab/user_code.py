"""The user's own Python files: their networks and measures are declared by importing them.

A file is known by its hash. It is copied into the store under it, and workers import it from there, so that a
study may be run where the file itself is not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tombola.atomic import write_whole
from tombola.errors import JobError, StoreError, reason
from tombola.lab.store import Store
from tombola.source import executing


def import_file(path: Path) -> ModuleType:
    """Import a Python file, once a process however often and from wherever it comes.

    Raises :class:`~tombola.errors.JobError` with file and line if it cannot be read or fails.
    """
    return _imported(path, _content(path))


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
        # What was read and hashed, and not the loader's own reading: it would trust a cache beside the file.
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
    content = _content(path)
    place = _place(store, _hash(content))
    if not (place.exists() and _content(place) == content):
        write_whole(place, content, make_folder=True)
    return _hash(content)


def import_stored(store: Store, fingerprint: str) -> ModuleType:
    """Import a file that :func:`put_file` copied.

    Raises :class:`~tombola.errors.StoreError` if it is not that file any more.
    """
    place = _place(store, fingerprint)
    content = _content(place)
    if _hash(content) != fingerprint:
        raise StoreError(f"{place} was altered: it is not the file of that hash; delete it and run again")
    return _imported(place, content)


def altered_files(store: Store) -> Iterator[Path]:
    """The files in a store that are not what their names say."""
    for place in sorted((store.root / "files").glob("*.py")):
        if not place.is_file() or _hash(_content(place)) != place.stem:
            yield place


def _place(store: Store, fingerprint: str) -> Path:
    return store.root / "files" / f"{fingerprint}.py"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"cannot read {path}: {reason(error)}") from error


def _line(error: BaseException, path: Path) -> str:
    """The line of the file at which it failed, in words."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {own[-1].lineno}" if own else ""


def _cause(error: BaseException) -> str:
    return str(error.msg) if isinstance(error, SyntaxError) else reason(error)
