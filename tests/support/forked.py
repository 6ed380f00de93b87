"""Processes that are forked from one that has imported PyTorch, Dask and tombola.

Starting Python and importing them takes two seconds of processor time, and a fork a hundredth of that. Nothing
of the tests' own process is in it. How processes are really started is the subject of
``tests/lab/test_private.py``, and elsewhere than on Linux, where libraries do not survive a fork, all are.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import tombola as tb

POSSIBLE = sys.platform == "linux"
_IMPORTED = [
    "torch", "sklearn.datasets", "distributed.cli.dask_worker", "tombola.lab.private", "tombola.lab.task",
    "tombola.cli",
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


@dataclass(frozen=True)
class Running:
    """A process; what there is of :class:`subprocess.Popen`."""

    pid: int
    kill: Callable[[], None]
    wait: Callable[[], object]


def start_module(
    name: str, *arguments: object, cwd: Path, environment: Mapping[str, str], output: Path
) -> Running:
    """A process that runs ``python -m name`` till it is killed or the tests end; its output goes to a file."""
    if not POSSIBLE:
        with output.open("ab") as file:
            started = subprocess.Popen(
                _command(name, arguments), cwd=cwd, env=environment, stdout=file, stderr=file
            )
        return Running(started.pid, started.kill, started.wait)
    process = _start(name, arguments, cwd, environment, output, output, daemon=True)
    assert process.pid is not None
    return Running(process.pid, process.kill, process.join)


def run_module(
    name: str, *arguments: object, cwd: Path, environment: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m name`` to its end, as :func:`subprocess.run` would."""
    command = _command(name, arguments)
    if not POSSIBLE:
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
        )
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _start(name, arguments, cwd, environment, out, err, daemon=False)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, process.exitcode, out.read_text(), err.read_text())


def _command(name: str, arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def _start(
    name: str, arguments: Sequence[object], cwd: Path, environment: Mapping[str, str], out: Path, err: Path,
    *, daemon: bool,
) -> BaseProcess:  # fmt: skip
    start_server()
    words = [name, *map(str, arguments)]
    process = get_context("forkserver").Process(
        target=_run_module, args=(words, str(cwd), dict(environment), str(out), str(err)), daemon=daemon
    )
    process.start()
    return process


def _run_module(words: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
