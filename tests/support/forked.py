"""Processes that are forked from one that has imported PyTorch, Dask and tombola.

Starting Python and importing them takes two seconds of processor time, a fork a hundredth of that. Nothing of
the tests' own process is in it. How processes are really started is the subject of
``tests/lab/test_private.py``, and elsewhere than on Linux, where libraries do not survive a fork, all are.
"""

from __future__ import annotations

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, get_context
from pathlib import Path
from unittest import mock

import tombola as tb

POSSIBLE = sys.platform == "linux"
_IMPORTED = [
    "torch", "datasets", "sklearn.datasets", "distributed.cli.dask_worker", "tombola.cli",
    "tombola.lab.private", "tombola.lab.task",
]  # fmt: skip
SOURCES = str(Path(tb.__file__).parents[1])


@cache
def start_server() -> None:
    """Start the process that all are forked from; it ends with this one."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with mock.patch.dict(os.environ, {**threads, "PYTHONPATH": SOURCES}):
        forkserver.set_forkserver_preload(_IMPORTED)
        forkserver.ensure_running()


@contextmanager
def workers() -> Iterator[None]:
    """While this lasts, the workers of a cluster of this machine are forked."""
    from tombola.lab import private  # and with it Dask, which most tests do without

    if not POSSIBLE:
        yield
        return
    start_server()
    with mock.patch.dict(private._OPTIONS, {"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


class Process:
    """A forked process; what there is of :class:`subprocess.Popen`, with its output as text."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path, output: Path | None
    ) -> None:
        start_server()
        self._folder = tempfile.TemporaryDirectory()
        place = Path(self._folder.name)
        self._files = (place / "out", place / "err") if output is None else (output, output)
        self._process = get_context("forkserver").Process(
            target=_become, args=(list(command), dict(env), str(cwd), [str(file) for file in self._files])
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        atexit.register(self.kill)  # or multiprocessing would wait for it

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        if self._process.is_alive():  # its number may be another's by now
            self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (file.read_text() for file in self._files)
        return out, err


def start(
    *command: object, env: Mapping[str, str], cwd: Path = Path(), output: Path | None = None
) -> Process | subprocess.Popen[str]:
    """A process that Python runs a command in: a script, or ``-m`` or ``-c``, with its arguments.

    output: a file to which both of its outputs go.
    """
    words = [str(word) for word in command]
    if POSSIBLE:
        return Process(words, env, cwd.absolute(), output)
    words = [sys.executable, *words]
    if output is None:
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=env, cwd=cwd, stdout=pipe, stderr=pipe, text=True)
    with output.open("a") as file:
        return subprocess.Popen(words, env=env, cwd=cwd, stdout=file, stderr=file, text=True)


def run(
    *command: object, env: Mapping[str, str], cwd: Path = Path(), timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command as :func:`start` does, to its end."""
    process = start(*command, env=env, cwd=cwd)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess([str(word) for word in command], process.returncode or 0, out, err)


def _become(command: list[str], env: dict[str, str], cwd: str, outputs: list[str]) -> None:
    """Run a command in this process, as ``python`` does."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, path in enumerate(outputs, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    elif command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")
