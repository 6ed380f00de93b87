"""The scripts of an experiment under Slurm: one job on one machine, or a driver and an array of workers.

A job ends by itself ahead of its time limit, with checkpoints, and goes back into the queue while it gets
on; see "Slurm" in docs/cluster.md. What was typed stands in the scripts quoted, for Slurm and for the shell.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import ExperimentError
from tombola.lab.environment import versions
from tombola.lab.slurm_options import SlurmOptions

CERTIFICATE, DRIVER_JOB = "cluster.pem", "experiment.job"
"""In the folder of an experiment on several machines: their certificate; the number of the driver's job."""
_SCHEDULER, _FINISHED, _BEGUN = "scheduler.json", "finished", "begun"

# Where data and weights of others are looked for; a site may let jobs begin without the caller's environment.
_PASSED_ON = ("TOMBOLA_CACHE", "HF_HOME", "PYTHONPATH")

_JOB = "job=$SLURM_JOB_ID"
# Not SLURM_JOB_ID, which for one of the array stands for all of it.
_JOB_OF_ARRAY = "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"

# Not the time that was asked for: an administrator, --time-min or the partition may set another.
_TIME_LEFT = """\
# Seconds until the time limit of this job, less one minute for the last checkpoints; empty if there is none.
end=$(SLURM_TIME_FORMAT=standard scontrol show job "$job" | sed -n 's/.*EndTime=\\([0-9][0-9T:-]*\\).*/\\1/p')
left=
if [ -n "$end" ]; then
  left=$(($(date -d "$end" +%s) - $(date +%s)))
  [ "$left" -ge 120 ] && left=$((left - 60)) || left=$((left / 2))
fi"""

# Without a dashboard an HTTP server listens all the same, and on every address unless it is given one.
_DASK = ("--protocol", "tls", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
_ADDRESS = 'address=$(hostname -i | cut -d" " -f1)'


@dataclass(frozen=True)
class SlurmScript:
    """A script for ``sbatch``.

    name: of its file. options: for ``sbatch``; they stand in the script as well.
    """

    name: str
    options: tuple[str, ...]
    body: str

    @property
    def text(self) -> str:
        """The whole file."""
        lines = ["#!/bin/bash", *(f"#SBATCH {_quoted_for_slurm(option)}" for option in self.options)]
        return "\n".join(lines) + f"\n{self.body}"


def slurm_scripts(
    name: str,
    arguments: Sequence[str],
    options: SlurmOptions,
    *,
    store: Path,
    folder: Path,
    work: Path,
    workers: int | None = None,
    slots: int = 1,
) -> list[SlurmScript]:
    """The scripts that run an experiment, the one that is submitted first before the one that waits for it.

    name: of the experiment. arguments: of the command that runs it, without store, workers and time.
    folder: for scripts and logs. work: the folder in which the command was called.
    workers: processes of a machine without GPUs; None for one a CPU that Slurm gives. slots: jobs at once on
    each GPU.

    Raises :class:`~tombola.errors.ExperimentError` for a path or argument that is not printable.
    """
    for text in (name, str(store), str(work), sys.executable, *arguments):
        if not text.isprintable():
            raise ExperimentError(f"--slurm cannot run {text!r}: it has a line break or control character")
    common = _common_body(folder, work, _JOB)
    command = [*_python("tombola.cli"), "run", *arguments, f"--store={store}"]
    if options.nodes == 1:
        body = f"{common}\n\n{_single_body(command, store, workers)}"
        return [SlurmScript("experiment.sh", _options(name, options.named, folder, "%j.log"), body)]
    driver = _options(name, {"cpus-per-task": "2", **options.of_driver()}, folder, "%j.log")
    array = (
        *_options(f"{name}-workers", options.named, folder, "%A_%a.log"),
        f"--array=0-{options.nodes - 1}",
    )
    return [
        SlurmScript("experiment.sh", driver, f"{common}\n{_tls()}\n\n{_driver_body(command, store)}"),
        SlurmScript(
            "workers.sh",
            array,
            f"{_common_body(folder, work, _JOB_OF_ARRAY)}\n{_tls()}\n\n{_workers_body(workers, slots)}",
        ),
    ]


def _options(name: str, named: Mapping[str, str], folder: Path, log: str) -> tuple[str, ...]:
    """The options of one job, with where its log goes."""
    pattern = str(folder).replace("\\", "\\\\").replace("%", "%%")
    return (
        f"--job-name=tombola-{name}",
        "--nodes=1",
        "--ntasks=1",
        *(f"--{option}={value}" if value else f"--{option}" for option, value in named.items()),
        "--requeue",
        "--open-mode=append",
        f"--output={pattern}/{log}",
    )


def _python(module: str) -> list[str]:
    """A command of this very environment that imports nothing out of the current folder."""
    return [sys.executable, "-P", "-m", module]


def _common_body(folder: Path, work: Path, job: str) -> str:
    """What all scripts begin with: environment, folders, and the time that is left. job: sets its number."""
    packages = ", ".join(f"{package} {version}" for package, version in versions().items())
    exports = [f"export {key}={shlex.quote(os.environ[key])}" for key in _PASSED_ON if key in os.environ]
    return "\n".join(
        [
            f"# Submitted with {packages}.",
            *exports,
            f"folder={shlex.quote(str(folder))}",
            f"cd -- {shlex.quote(str(work))} || exit 1",
            job,
            "",
            _TIME_LEFT,
        ]
    )


def _tls() -> str:
    """Dask's settings under which only who can read the certificate of this experiment is answered."""
    ends = "".join(
        f'export DASK_DISTRIBUTED__COMM__TLS__{end}__{part}="$folder/{CERTIFICATE}"\n'
        for end in ("SCHEDULER", "WORKER", "CLIENT")
        for part in ("CERT", "KEY")
    )
    return f"""\

# Scheduler, workers and driver know each other by a certificate that only you can read.
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$folder/{CERTIFICATE}"
{ends}\
export DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES='[]' DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'
export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON='{{"OMP_NUM_THREADS": 1}}'
DASK_TEMPORARY_DIRECTORY=$(mktemp -d) && export DASK_TEMPORARY_DIRECTORY || exit 1
trap 'rm -rf "$DASK_TEMPORARY_DIRECTORY"' EXIT
{_ADDRESS}"""


def _single_body(command: Sequence[str], store: Path, workers: int | None) -> str:
    processes = '"$SLURM_CPUS_ON_NODE"' if workers is None else str(workers)
    return f"""\
touch "$folder/{_BEGUN}"
{shlex.join(command)} --workers={processes} ${{left:+--stop-after="${{left}}s"}}
code=$?

{_back_into_the_queue(store)}
exit $code
"""


def _driver_body(command: Sequence[str], store: Path) -> str:
    scheduler = shlex.join([*_python("dask"), "scheduler", *_DASK, "--port", "0"])
    return f"""\
touch "$folder/{_BEGUN}"
rm -f "$folder/{_SCHEDULER}" "$folder/{_FINISHED}"
{scheduler} \\
  --host "$address" --scheduler-file "$folder/{_SCHEDULER}" &
scheduler=$!
{shlex.join(command)} --scheduler-file="$folder/{_SCHEDULER}" ${{left:+--stop-after="${{left}}s"}}
code=$?
kill "$scheduler"

{_back_into_the_queue(store, waits_for_workers=True)}
touch "$folder/{_FINISHED}"
exit $code
"""


def _back_into_the_queue(store: Path, *, waits_for_workers: bool = False) -> str:
    """Requeues the job if something is left, unless it can be seen that it would never get on.

    waits_for_workers: whether it may have waited for all of its time until another job began.
    """
    jobs, work = (shlex.quote(str(store / place)) for place in ("jobs", "work"))
    newer = f'-newer "$folder/{_BEGUN}" -print -quit'
    waited = '[ "$SECONDS" -ge "${left:-0}" ] || ' if waits_for_workers else ""
    return f"""\
# 75: something is left. Not again if within the whole limit nothing was finished and no checkpoint kept.
if [ $code -eq 75 ]; then
  if {waited}{{
    find {jobs} -mindepth 2 -maxdepth 2 {newer}
    find {work} -mindepth 2 -maxdepth 2 -name checkpoint {newer}
  }} | grep -q .; then
    scontrol requeue "$job"
    exit $code
  fi
  echo 'tombola: nothing got on within the time limit; submit it again with a longer one' >&2
fi"""


def _workers_body(workers: int | None, slots: int) -> str:
    worker = shlex.join([*_python("dask"), "worker", *_DASK, "--memory-limit", "0"])
    processes = '"$SLURM_CPUS_ON_NODE"' if workers is None else str(workers)
    return f"""\
start_worker() {{
  ${{left:+timeout --signal=TERM --kill-after=20 "$left"}} {worker} \\
    --scheduler-file "$folder/{_SCHEDULER}" --host "$address" --death-timeout 20 "$@" &
}}

# A process for each GPU of this job, else one for each CPU; again, when the scheduler has moved elsewhere.
gone=0
until [ -e "$folder/{_FINISHED}" ] || [ "${{left:-1}}" -le 0 ] || [ $gone -eq 3 ]; do
  since=$SECONDS
  for gpu in ${{CUDA_VISIBLE_DEVICES//,/ }}; do
    CUDA_VISIBLE_DEVICES=$gpu start_worker --nthreads {slots}
  done
  [ -n "$CUDA_VISIBLE_DEVICES" ] || start_worker --nthreads 1 --nworkers {processes}
  wait
  # An experiment that was cancelled leaves nothing to wait for; but Slurm may fail to answer once.
  gone=$((gone + 1))
  squeue --noheader --job "$(cat "$folder/{DRIVER_JOB}")" 2> /dev/null | grep -q . && gone=0
  sleep $((1 + 9 * gone))
  left=${{left:+$((left - SECONDS + since))}}
done
[ -e "$folder/{_FINISHED}" ] || [ $gone -eq 3 ] || scontrol requeue "$job"
"""


def _quoted_for_slurm(option: str) -> str:
    """An option as a line of a script has it: Slurm takes quotes and backslashes like a simple shell."""
    name, mark, value = option.partition("=")
    if not mark or value.replace("-", "").replace("_", "").replace(":", "").isalnum():
        return option
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'
