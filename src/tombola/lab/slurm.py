"""Experiments handed to Slurm: their scripts in the store, and their jobs in Slurm's queue.

The store has a folder ``slurm`` for them, with one of its own for each submission, which only its user can
enter: the scripts as they were submitted, and the logs of their jobs. Nothing else in the store needs them.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tombola import disk
from tombola.disk import write_whole
from tombola.errors import ExperimentError, TombolaError, unwritable
from tombola.lab.slurm_scripts import CERTIFICATE, DRIVER_JOB, SlurmScript
from tombola.lab.store import SLURM, Store

_PATIENCE = 60.0


@dataclass(frozen=True)
class Submission:
    """Jobs of Slurm that run one experiment.

    jobs: their numbers, with that of the driver first. folder: of their scripts and logs.
    """

    jobs: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """What to type to see how the jobs get on, to read their logs, and to cancel them."""
        numbers = ",".join(self.jobs)
        log = shlex.quote(str(self.folder / f"{self.jobs[0]}.log"))
        lines = [
            f"job {' and '.join(self.jobs)} submitted; scripts and logs: {self.folder}",
            f"  watch:   squeue --jobs {numbers}",
            f"  log:     tail -F {log}",
            f"  cancel:  scancel {' '.join(self.jobs)}",
        ]
        if len(self.jobs) > 1:
            workers = f"{shlex.quote(str(self.folder))}/{self.jobs[1]}_*.log"
            lines.insert(3, f"  workers: tail -F {workers}")
        return lines


def folder_for(root: Path, name: str) -> Path:
    """A new folder of a store for the scripts and logs of an experiment; it is not made."""
    return root / SLURM / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def check_slurm() -> None:
    """Raises :class:`~tombola.errors.ExperimentError` where there is no ``sbatch``."""
    if shutil.which("sbatch") is None:
        raise ExperimentError(
            "no sbatch here: call it where jobs are submitted to Slurm; --dry-run prints the scripts"
        )


def submit(store: Store, folder: Path, scripts: Sequence[SlurmScript]) -> Submission:
    """Write scripts into their folder of a store, and submit them.

    Raises :class:`~tombola.errors.ExperimentError` with Slurm's own reason if it refuses one,
    and :class:`~tombola.errors.StoreUnwritable` if they cannot be written. Whatever ends it, an interrupt
    included, none of those that Slurm accepted stays in its queue.
    """
    check_slurm()
    try:
        disk.make_folder(folder.parent, exist_ok=True)
        disk.make_folder(folder, private=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    jobs: list[str] = []
    try:
        for script in scripts:
            write_whole(folder / script.name, script.text.encode())
        if len(scripts) > 1:
            write_whole(folder / CERTIFICATE, _certificate())
        for script in scripts:
            # The workers of a driver that waits in the queue would only wait for it on their machines.
            dependency = [f"--dependency=after:{jobs[0]}"] if jobs else []
            jobs.append(_sbatch([*script.options, *dependency], script.text))
            if len(jobs) < len(scripts):
                write_whole(folder / DRIVER_JOB, f"{jobs[0]}\n".encode())
    except BaseException:  # Ctrl-C, too: a driver without workers would wait for them until its time limit
        if jobs:
            with suppress(TombolaError):
                _call(["scancel", *jobs], "")
        disk.remove_tree(folder, ignore_errors=True)
        raise
    return Submission(tuple(jobs), folder)


def _certificate() -> bytes:
    """A new certificate and its key, for all ends of one cluster."""
    from tombola.lab.private import new_certificate

    options = new_certificate().get_tls_config_for_role("scheduler")  # type: ignore[no-untyped-call]
    return f"{options['cert']}{options['key']}".encode()


def _sbatch(options: Sequence[str], script: str) -> str:
    """Submit a script, and return the number of its job.

    On the command line options win over what SBATCH_ variables say, and need no quoting. The script goes
    through a pipe: what is submitted is what was made here, whatever becomes of the file.
    """
    done = _call(["sbatch", "--parsable", *options], script)
    if done.returncode:
        messages = [
            line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.splitlines()
        ]
        cause = "; ".join(line for line in messages if line and not line.startswith("Try "))
        raise ExperimentError(f"Slurm refuses the job: {cause or 'sbatch gives no reason'}")
    return done.stdout.strip().partition(";")[0]


def _call(command: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        # It may have handed the job over before it fell silent.
        raise ExperimentError(
            f"{command[0]} does not answer within {_PATIENCE:g} seconds; its job may be in the queue all the "
            "same: look with squeue --me before you try again"
        ) from error
    except OSError as error:
        raise ExperimentError(f"{command[0]} does not answer: {error}; try again later") from error
