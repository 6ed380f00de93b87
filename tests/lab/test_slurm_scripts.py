"""The scripts for Slurm as bash runs them, with commands in place of Slurm's that note their arguments."""

import http.client
import os
import re
import shlex
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from distributed import Client

from tombola.errors import ExperimentError
from tombola.lab.slurm_options import SlurmOptions
from tombola.lab.slurm_scripts import SlurmScript, slurm_scripts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where Slurm runs, date and find are GNU's")

# Writes its arguments, each ended by a null character, and ends with a code that the test chose.
_RECORDER = """#!/bin/bash
printf '%s\\0' "$@" > "$RECORDED/$(basename "$0")"
[ -z "$KEEPS" ] || touch "$KEEPS"
exit "${CODE:-0}"
"""
_PYTHON = sys.executable
ODD = 'it\'s "odd" $(touch pwned) `touch pwned`; touch pwned # \\ * ü'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs in place of Python and of Slurm's own, and a store in it with an odd name."""
    programs, recorded = tmp_path / "bin", tmp_path / "recorded"
    programs.mkdir()
    recorded.mkdir()
    (recorded / "end").write_text("Unknown")
    show = (
        'case "$1" in show) echo "   StartTime=x EndTime=$(cat "$RECORDED/end") Deadline=N/A"; exit;; esac\n'
    )
    for name in ("python", "scontrol", "sbatch"):
        head, rest = _RECORDER.split("\n", 1)
        (programs / name).write_text(f"{head}\n{show if name == 'scontrol' else ''}{rest}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORDED", str(recorded))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    for folder in ("jobs/ab", "work/cd", "slurm/one"):
        (tmp_path / ODD.replace("/", "") / folder).mkdir(parents=True)
    return tmp_path


def scripts(place: Path, *arguments: str, **options: object) -> list[SlurmScript]:
    store = place / ODD
    asked = SlurmOptions(**options)  # type: ignore[arg-type]
    return slurm_scripts(
        "wider", arguments, asked, store=store, folder=store / "slurm" / "one", work=place, slots=3
    )


def run(script: SlurmScript, place: Path, **environment: str) -> int:
    """Runs a script as a batch job begins: in another folder than it works in."""
    done = subprocess.run(
        ["bash"], input=script.text, text=True, cwd=place / "bin", env=os.environ | environment, check=False
    )
    return done.returncode


def called(place: Path, program: str) -> list[str] | None:
    """The arguments that a program was called with; None if it was not."""
    file = place / "recorded" / program
    return file.read_text().split("\0")[:-1] if file.exists() else None


def in_time(seconds: int) -> str:
    return (datetime.now() + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_what_was_typed_arrives_as_it_was_and_runs_nothing(place: Path) -> None:
    (script,) = scripts(place, ODD, f"--recompute={ODD}", named={"comment": ODD, "time": "10"})
    assert run(script, place) == 0
    command = called(place, "python")
    assert command == [
        "-P", "-m", "tombola.cli", "run", ODD, f"--recompute={ODD}", f"--store={place / ODD}", "--workers=3"
    ]  # fmt: skip
    assert not list(place.rglob("pwned"))


def test_the_time_is_that_of_the_job_less_a_margin(place: Path) -> None:
    (script,) = scripts(place, "wider.py")
    for limit, least, most in ((3600, 3500, 3540), (100, 30, 50)):
        (place / "recorded" / "end").write_text(in_time(limit))
        run(script, place)
        (time,) = (word for word in called(place, "python") or () if word.startswith("--stop-after="))
        assert least <= int(time.removeprefix("--stop-after=").removesuffix("s")) <= most


@pytest.mark.parametrize(
    ("code", "keeps", "requeued"),
    [
        (75, "jobs/ab/result", True),
        (75, "work/cd/checkpoint", True),
        (75, "work/cd/lease", False),
        (0, "jobs/ab/result", False),
        (2, "jobs/ab/result", False),
    ],
)
def test_a_job_goes_back_into_the_queue_while_it_gets_on(
    place: Path, code: int, keeps: str, requeued: bool
) -> None:
    (script,) = scripts(place, "wider.py")
    assert run(script, place, CODE=str(code), KEEPS=str(place / ODD / keeps)) == code
    assert called(place, "scontrol") == (["requeue", "7"] if requeued else None)


def test_several_machines_are_a_driver_and_an_array_of_workers(place: Path) -> None:
    driver, workers = scripts(place, "wider.py", nodes=2, named={"gpus": "2", "partition": "gpu"})
    assert "--gpus=2" in workers.options
    assert "--array=0-1" in workers.options
    assert not any(option.startswith(("--gpus", "--array")) for option in driver.options)
    for script in (driver, workers):
        assert "--partition=gpu" in script.options
        checked = subprocess.run(
            ["bash", "-n"], input=script.text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_beyond_loopback_nothing_of_dask_listens_but_at_the_address_of_the_machine(place: Path) -> None:
    """The commands of the scripts, without TLS; for the address of the machine stands that of loopback."""
    settings = {"DASK_TEMPORARY_DIRECTORY": str(place)}
    commands = {}
    for script in scripts(place, "wider.py", nodes=2):
        settings |= dict(re.findall(r"(DASK_DISTRIBUTED__\w+__HTTP__ROUTES)='(.*?)'", script.text))
        what, options = re.findall(r"-m dask (scheduler|worker) (.*) \\$", script.text, re.MULTILINE)[0]
        commands[what] = [what, *shlex.split(options.replace("--protocol tls", "--protocol tcp"))]
    file = place / "scheduler.json"
    processes = []
    try:
        for what in ("scheduler", "worker"):
            command = [*commands[what], "--host", "127.0.0.1", "--scheduler-file", str(file)]
            processes.append(
                psutil.Popen(
                    [_PYTHON, "-P", "-m", "dask", *command], env=os.environ | settings, cwd=place,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
            everything = [*processes, *processes[1].children(recursive=True)]
            ends = {
                (end.laddr.ip, end.laddr.port)
                for process in everything
                for end in process.net_connections(kind="inet")
                if end.status == psutil.CONN_LISTEN
            }
            assert {ip for ip, _ in ends} == {"127.0.0.1"}
            assert len(ends) == 5  # scheduler, nanny, worker, and HTTP of the first and the last
            assert sum(map(answers_http, (port for _, port in ends))) == 2
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def answers_http(port: int) -> bool:
    """Whether something at a port speaks HTTP; what Dask would tell there must not be there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        for page in ("/json/identity.json", "/info/main/workers.html", "/health"):
            connection.request("GET", page)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404
    except (http.client.HTTPException, OSError):
        return False
    finally:
        connection.close()
    return True


def test_names_with_line_breaks_are_refused(place: Path) -> None:
    with pytest.raises(ExperimentError, match="line break"):
        scripts(place, "a\nscancel --user=all")
