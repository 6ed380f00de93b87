"""Reads experiments of the user's own from a Python file or a small TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tombola.errors import ExperimentError, reason, unknown
from tombola.experiments.experiment import Experiment
from tombola.lab.user_code import import_file
from tombola.untrusted import read_regular

KINDS = (".py", ".toml")


@dataclasses.dataclass(frozen=True)
class ExperimentFile:
    """The experiments of a file, and the Python files that workers need for them."""

    experiments: tuple[Experiment, ...]
    code: tuple[Path, ...]


def read_experiments(path: Path) -> ExperimentFile:
    """What a user's file asks for.

    A Python file makes :class:`Experiment` values at its top. A TOML file has the fields of one, and may name
    Python files beside it as ``import``, which declare networks and measures; without a name the experiment
    has that of the file.

    Raises :class:`~tombola.errors.ExperimentError` or :class:`~tombola.errors.JobError` in one line for a
    file that cannot be read or has an error.
    """
    if path.suffix not in KINDS:
        raise ExperimentError(f"{path} is neither Python nor TOML; its name must end in .py or .toml")
    if not path.is_file():
        raise ExperimentError(f"no file {str(path)!r}; give an experiment of your own that exists")
    return _read_toml(path) if path.suffix == ".toml" else _read_python(path)


def read_all_experiments(paths: Iterable[Path]) -> list[ExperimentFile]:
    """What several files ask for; errors as for :func:`read_experiments`, and for a name that two have."""
    files = []
    places: dict[str, Path] = {}
    for path in paths:
        files.append(read_experiments(path))
        for experiment in files[-1].experiments:
            if experiment.name in places:
                before = (
                    "another one there"
                    if places[experiment.name] == path
                    else f"one in {places[experiment.name]}"
                )
                raise ExperimentError(
                    f"{path}: an experiment is called {experiment.name!r} as is {before}; "
                    "give each a name of its own"
                )
            places[experiment.name] = path
    return files


def _read_python(path: Path) -> ExperimentFile:
    module = import_file(path)
    # Each once, under however many names a file has it.
    experiments = {id(value): value for value in vars(module).values() if isinstance(value, Experiment)}
    if not experiments:
        raise ExperimentError(
            f"{path} makes no experiment; write experiment = tombola.Experiment(...) at its top"
        )
    return ExperimentFile(tuple(experiments.values()), (path,))


def _read_toml(path: Path) -> ExperimentFile:
    try:
        content = tomllib.loads(read_regular(path, follow=True).decode())
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{path}: {reason(error)}") from error
    except RecursionError:
        raise ExperimentError(f"{path} is nested too deeply") from None
    code = content.pop("import", [])
    if isinstance(code, str):
        code = [code]
    if not isinstance(code, list) or not all(isinstance(name, str) for name in code):
        raise ExperimentError(f"{path}: import is {code!r:.60}; give names of Python files")
    names = [field.name for field in dataclasses.fields(Experiment)]
    for key in content:
        if key not in names:
            raise ExperimentError(f"{path}: {unknown('field of an experiment', key, [*names, 'import'])}")
    files = tuple(path.parent / name for name in code)
    for file in files:
        import_file(file)
    try:
        return ExperimentFile((Experiment(**{"name": path.stem, **content}),), files)
    except TypeError as error:
        raise ExperimentError(f"{path}: {reason(error)}") from error
