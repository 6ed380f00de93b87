"""``--import FILE.py``: the user's own networks, measures and scores, declared before a command needs them.

Only what is named so on the command line is run; never the copies of such files that a store keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tombola.errors import JobError

_OPTION = "--import"


def split_imports(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files behind every ``--import``, and the other arguments.

    Raises :class:`~tombola.errors.JobError` if one names no file.
    """
    files: list[Path] = []
    others: list[str] = []
    for argument in arguments:
        name, mark, file = argument.partition("=")
        others += [_OPTION, file] if mark and name == _OPTION else [argument]
    while _OPTION in others:
        place = others.index(_OPTION)
        if place + 1 == len(others):
            raise JobError(
                f"{_OPTION} names no file; give one that declares measures or networks, {_OPTION} mine.py"
            )
        files.append(Path(others[place + 1]))
        del others[place : place + 2]
    return files, others


def import_files(files: Iterable[Path]) -> None:
    """Run files, which declares what is in them; errors as of :func:`~tombola.lab.user_code.import_file`."""
    from tombola.lab.user_code import import_file

    for file in files:
        import_file(file)
