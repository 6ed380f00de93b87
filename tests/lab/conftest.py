"""What the tests of the lab share: a store of their own, and short recipes."""

import hashlib
import json
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import tombola as tb
from tombola.lab import lease as leases
from tombola.lab.driver import Progress
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.training.run import Epoch


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def lab(tmp_path) -> tb.Lab:
    """A lab in this process, with a store of its own."""
    return tb.Lab(tmp_path / "store")


@pytest.fixture(scope="session")
def quick() -> tb.Recipe:
    """One epoch of three steps on the digits."""
    return tb.Recipe(epochs=1, batch_size=400)


@pytest.fixture(autouse=True)
def _leases_end_with_their_test() -> Iterator[None]:
    yield
    leases._held._leases.clear()


@pytest.fixture
def within() -> Callable[[int], AbstractContextManager[None]]:
    """Fails a body that takes more than so many seconds, whatever it waits for in Python."""

    def late(*_: object) -> None:
        raise TimeoutError("it took too long")

    @contextmanager
    def limit(seconds: int) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limit


class Recorder(Progress):
    """Writes down everything that it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.epochs: list[tuple[str, int]] = []
        self.finished: list[tuple[str, str | None]] = []

    def begin(self, found: int, missing: int) -> None:
        self.begun.append((found, missing))

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        self.epochs.append((job.name, row.epoch))

    def done(self, job: Job, failed: str | None) -> None:
        self.finished.append((job.name, failed))


@pytest.fixture
def rewritten() -> Callable[..., Path]:
    """Alters the members and the manifest of an export, like somebody who makes the checksums fit."""

    def rewrite(export: Path, file: Path, change: Callable[[dict[str, bytes], dict], object]) -> Path:
        with zipfile.ZipFile(export) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(content.pop("manifest.json"))
        change(content, manifest)
        manifest["checksums"] = {name: hashlib.sha256(value).hexdigest() for name, value in content.items()}
        with zipfile.ZipFile(file, "w") as archive:
            for name, value in content.items():
                archive.writestr(name, value)
            archive.writestr("manifest.json", json.dumps(manifest))
        return file

    return rewrite


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
