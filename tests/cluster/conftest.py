"""A Slurm of two nodes on this machine: started for a test, on loopback, and ended by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import tombola as tb

_HERE = Path(__file__).parent
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
# Tells the processes of a node apart; Slurm names it itself in the environment of jobs.
_NODE = "SLURMD_NODENAME"
_PATIENCE = 180.0


def _wait_for(what: str, true: Callable[[], object], patience: float = _PATIENCE) -> None:
    """Wait until something is true; a test that waits in vain says for what."""
    give_up = time.monotonic() + patience
    while not true():
        if time.monotonic() > give_up:
            pytest.fail(f"{what}: not within {patience:.0f} s")
        time.sleep(0.05)


class Slurm:
    """munged, slurmctld and two slurmd, with all their files in one folder."""

    nodes = ("n1", "n2")

    def __init__(self, place: Path) -> None:
        self.place = place
        self.conf = place / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._configure()
        self.environment = os.environ | {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{self._programs()}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(tb.__file__).parents[1]),
        }
        try:
            self._start()
        except BaseException:
            self.end()
            raise

    def _configure(self) -> None:
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            names = dict(zip(("controller", "n1", "n2"), (one, two, three), strict=True))
            for each in names.values():
                each.bind(("127.0.0.1", 0))
            words = {name: str(each.getsockname()[1]) for name, each in names.items()}
        words |= {"host": socket.gethostname().partition(".")[0], "place": str(self.place)}
        self.conf.write_text((_HERE / "slurm.conf").read_text().format(**words))
        shutil.copy(_HERE / "gres.conf", self.place)
        (self.place / "state").mkdir()
        key = self.place / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)

    def _programs(self) -> Path:
        """A folder with the commands that the scripts call, as this environment has them."""
        folder = self.place / "bin"
        folder.mkdir()
        for name, command in (
            ("dask", f'"{sys.executable}" -m dask "$@"'),
            # Checkpoints in a training of seconds.
            ("tombola", f'"{sys.executable}" -m tombola.cli "$@" --checkpoint-every 0.5 --device cpu'),
            ("hostname", "echo 127.0.0.1"),
        ):
            (folder / name).write_text(f"#!/bin/sh\nexec {command}\n")
            (folder / name).chmod(0o755)
        return folder

    def _start(self) -> None:
        socket_, place = self.place / "munge.socket", self.place
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={socket_}", f"--key-file={place}/munge.key",
            f"--pid-file={place}/munged.pid", f"--seed-file={place}/munge.seed",
            f"--log-file={place}/munge.log",
        )  # fmt: skip
        _wait_for("munge", socket_.exists)
        self._daemon("slurmctld", "-D", "-f", str(self.conf))
        for node in self.nodes:
            self.start_node(node)
        _wait_for("two idle nodes", lambda: self.tell("sinfo", "-h", "-o", "%D %t") == "2 idle")

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-D", "-N", node, "-f", str(self.conf), name=node)

    def _daemon(self, program: str, *options: str, name: str = "") -> None:
        environment = self.environment | {_NODE: name or program}
        with (self.place / f"{name or program}.out").open("ab") as log:
            self.daemons[name or program] = subprocess.Popen(
                [program, *options], stdout=log, stderr=log, env=environment, cwd=self.place
            )

    def tell(self, *command: str, folder: Path | None = None) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=folder or self.place,
            check=False,
        )
        return done.stdout.strip()

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """The processes of this Slurm and of its jobs, on one node or all."""
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told = process.environ()
                if told.get("SLURM_CONF") == str(self.conf) and node in (None, told.get(_NODE)):
                    # What Slurm starts for itself hides its environment, but is next to what does not.
                    near = [process.parent(), *process.children()]
                    found |= {process, *(each for each in near if each and each.name().startswith("slurm"))}
        return [each for each in found if each.pid != os.getpid()]

    def kill_node(self, node: str) -> None:
        """As when the power of a machine fails: everything on it, with -9."""
        processes = self.processes(node)
        for process in processes:  # at once: nobody is left to tell Slurm of another's end
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        self._kill(processes)
        self.daemons[node].wait()

    def _kill(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def end(self) -> None:
        """End all that was started; again, for what Slurm started meanwhile."""
        while left := self.processes():
            self._kill(left)
        for daemon in self.daemons.values():
            daemon.wait()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    return _wait_for


@pytest.fixture(scope="session")
def slurm_possible() -> None:
    """Skips what wants a Slurm where there can be none."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"Slurm is not installed: no {missing[0]} (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons start jobs as their users, so the test wants to be root")
    if any(process.name() == "slurmctld" for process in psutil.process_iter()):
        pytest.skip("a Slurm controller runs on this machine already; it is left alone")


@pytest.fixture
def slurm(slurm_possible: None, tmp_path: Path) -> Iterator[Slurm]:
    """A Slurm of this test alone."""
    one = Slurm(tmp_path)
    yield one
    one.end()
