"""Keeps the reading of a data set to its own folder or repository, and off the network.

The library ``datasets`` follows all that a folder names: paths and URLs in its README, in cells of its
tables, and links. Here every name is checked before it is opened. What a README says of how to read is
followed no further than image sets need.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tombola.errors import DataError
from tombola.untrusted import printable

# The files in which a folder may say what ``datasets`` should read, and the most bytes one may have.
_DESCRIPTIONS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
_LARGEST_DESCRIPTION = 2**24

# Wildcards of a pattern, and of a name within it: comparing takes the length of a path to their power.
_WILDCARDS, _MOST_WILDCARDS, _MOST_IN_A_NAME = re.compile(r"\*+"), 4, 3
_MOST_PATTERNS = 1000

# What a README may say of how data are read.
_OPTIONS = {
    "name", "version", "data_dir", "data_files", "description", "features", "drop_labels", "drop_metadata",
    "columns", "sep", "delimiter",
}  # fmt: skip


@contextmanager
def only_inside(root: str, name: str) -> Iterator[None]:
    """While this lasts, ``datasets`` looks for files of the data set ``name`` only below ``root``.

    root: a local folder, or the beginning of the hub's address of a repository.

    Raises :class:`~tombola.errors.DataError` where a README names a place outside. Changes the library for
    the whole process, so only one thread may be here at a time.
    """
    import yaml
    from datasets import data_files

    resolve = data_files.resolve_pattern
    roots = (root, os.path.realpath(root)) if os.path.isabs(root) else (root,)

    compose, reader = yaml.SafeLoader.compose_node, threading.get_ident()

    def compose_once(loader: Any, *arguments: Any) -> Any:
        if threading.get_ident() == reader and loader.check_event(yaml.AliasEvent):
            raise DataError(
                f"{name}: its README has aliases (*name), by which a few lines become gigabytes; write out "
                "what they stand for"
            )
        return compose(loader, *arguments)

    patterns = itertools.count(1)

    def resolve_inside(pattern: str, base_path: str, *arguments: Any, **options: Any) -> list[str]:
        inside = any(_is_below(base_path, start) for start in roots)
        if not inside or _leads_out(pattern):
            place = printable(pattern if inside else base_path)
            raise DataError(
                f"{name}: its README names {place!r}, which is outside of it; copy what is needed into the "
                "folder and name it relative to the README"
            )
        if _takes_for_ever(pattern) or next(patterns) > _MOST_PATTERNS:
            raise DataError(
                f"{name}: its README names its files by more than {_MOST_PATTERNS:,} patterns, or by one of "
                "too many wildcards, which may take for ever; name the files or their folder"
            )
        return list(resolve(pattern, base_path, *arguments, **options))

    data_files.resolve_pattern, yaml.SafeLoader.compose_node = resolve_inside, compose_once
    try:
        yield
    finally:
        data_files.resolve_pattern, yaml.SafeLoader.compose_node = resolve, compose


def _is_below(place: str, root: str) -> bool:
    """Whether a place is ``root`` or below it, or below a version of it, ``root@version``."""
    rest = place.removeprefix(root)
    return place.startswith(root) and (not rest or (rest[0] in "/@" and not _leads_out(rest[1:])))


def _leads_out(pattern: str) -> bool:
    """Whether a pattern of file names may match something else than files below the folder it is for."""
    return os.path.isabs(pattern) or ".." in pattern.split("/") or ":" in pattern


def _takes_for_ever(pattern: str) -> bool:
    """Whether a pattern of file names has more wildcards than those of ``datasets`` itself."""
    names = [len(_WILDCARDS.findall(name)) for name in pattern.split("/")]
    return sum(names) > _MOST_WILDCARDS or max(names) > _MOST_IN_A_NAME


def check_options(config: Any, name: str) -> None:
    """Raises DataError if a README sets an option of reading that image sets do not need.

    Some would ask for any amount of memory or time, such as the size of a chunk, or a pattern as separator.
    """
    default = type(config)()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in _OPTIONS and value != getattr(default, field.name):
            raise DataError(f"{name}: its README sets {printable(field.name)!r}, which is not followed here")
    separator = getattr(config, "sep", ",")
    if not isinstance(separator, str) or len(separator) != 1:
        raise DataError(f"{name}: its README separates cells by {separator!r:.60}; it must be one character")


def check_descriptions(folder: Path, name: str) -> None:
    """Raises DataError if a README or the like of a folder is a link out of it, no file, or very large."""
    for path in (folder / file for file in _DESCRIPTIONS):
        if os.path.lexists(path):
            check_file(str(path), folder, f"{name}: {path}")
            if path.stat().st_size > _LARGEST_DESCRIPTION:
                raise DataError(f"{name}: {path} is larger than any description of data; remove it")


def check_file(path: str, folder: Path, what: str) -> None:
    """Raises DataError, about ``what``, unless a path is that of a regular file that lies in a folder.

    Links are followed. A URL is the path of no file.
    """
    real = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
    real = os.path.realpath(real)
    if "://" in path or "\0" in path or not Path(real).is_relative_to(_real(str(folder))):
        raise DataError(f"{what} is not in {folder}; copy it and what links to it into that folder")
    try:
        regular = stat.S_ISREG(os.stat(real).st_mode)
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error.strerror}); mend or remove it") from error
    if not regular:
        raise DataError(f"{what} is no regular file; mend or remove it")


# Tens of thousands of pictures lie in few folders.
@lru_cache(maxsize=1024)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
