"""Reading studies of one's own from a Python file or a small TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tombola.errors import StudyError, reason, unknown
from tombola.lab.user_code import import_file
from tombola.studies.own import OwnStudy

KINDS = (".py", ".toml")


@dataclasses.dataclass(frozen=True)
class OwnFile:
    """The studies of a file, and the Python files that workers need for them."""

    studies: tuple[OwnStudy, ...]
    code: tuple[Path, ...]


def read_own(path: Path) -> OwnFile:
    """What a user's file asks for.

    A Python file makes :class:`OwnStudy` values at its top. A TOML file has the entries of one, and may name
    Python files beside it as ``import``, which declare networks and measures; without a name the study has
    that of the file.

    Raises :class:`~tombola.errors.StudyError` or :class:`~tombola.errors.JobError` in one line for a file
    that cannot be read or has an error.
    """
    if path.suffix not in KINDS:
        raise StudyError(f"{path} is neither Python nor TOML; its name must end in .py or .toml")
    if not path.is_file():
        raise StudyError(f"no file {str(path)!r}; give a study of your own that exists")
    return _read_toml(path) if path.suffix == ".toml" else _read_python(path)


def read_all_own(paths: Iterable[Path]) -> list[OwnFile]:
    """What several files ask for; errors as for :func:`read_own`, and for two studies of one name."""
    files = []
    places: dict[str, Path] = {}
    for path in paths:
        files.append(read_own(path))
        for study in files[-1].studies:
            if study.name in places:
                before = "another one there" if places[study.name] == path else f"one in {places[study.name]}"
                raise StudyError(
                    f"{path}: a study is called {study.name!r} as is {before}; give each a name of its own"
                )
            places[study.name] = path
    return files


def _read_python(path: Path) -> OwnFile:
    module = import_file(path)
    # Each once, under however many names a file has it.
    found = {id(value): value for value in vars(module).values() if isinstance(value, OwnStudy)}
    if not found:
        raise StudyError(f"{path} makes no study; write study = tombola.OwnStudy(...) at its top")
    return OwnFile(tuple(found.values()), (path,))


def _read_toml(path: Path) -> OwnFile:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: {reason(error)}") from error
    code = entries.pop("import", [])
    if isinstance(code, str):
        code = [code]
    if not isinstance(code, list) or not all(isinstance(name, str) for name in code):
        raise StudyError(f"{path}: import is {code!r:.60}; give names of Python files")
    known = [each.name for each in dataclasses.fields(OwnStudy)]
    for key in entries:
        if key not in known:
            raise StudyError(f"{path}: {unknown('entry of a study', key, [*known, 'import'])}")
    files = tuple(path.parent / name for name in code)
    for file in files:
        import_file(file)
    try:
        return OwnFile((OwnStudy(**{"name": path.stem, **entries}),), files)
    except TypeError as error:
        raise StudyError(f"{path}: {reason(error)}") from error
