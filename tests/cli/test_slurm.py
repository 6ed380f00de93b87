"""``tombola run --slurm`` as it is typed, with a program in place of ``sbatch`` that notes what it gets."""

import os
import stat
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import pytest
import tyro

from tombola.cli.optional import OPTIONAL
from tombola.cli.run import run
from tombola.cli.slurm import arguments_again
from tombola.lab import slurm, trackers
from tombola.lab.store import Store

Result = tuple[int, str, str]
Tombola = Callable[..., Result]

# The first job is number 11, the next 12; a partition of that name is refused as Slurm refuses it.
_SBATCH = """#!/bin/bash
case "$*" in *--partition=nowhere*)
  echo 'sbatch: error: invalid partition specified: nowhere' >&2
  echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2
  exit 1;;
esac
number=$((11 + $(ls "$RECORDED" | grep -c argv)))
printf '%s\\n' "$@" > "$RECORDED/$number.argv"
cat > "$RECORDED/$number.sh"
echo "$number;cluster"
"""
_SCANCEL = '#!/bin/bash\necho "$@" > "$RECORDED/cancelled"\n'


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is submitted is noted; an experiment of one's own lies in the current folder."""
    for name, content in (("sbatch", _SBATCH), ("scancel", _SCANCEL)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(content)
        program.chmod(0o755)
    (tmp_path / "recorded").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORDED", str(tmp_path / "recorded"))
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('name = "mine"\nnetworks = ["convnet"]\n[recipe]\nepochs = 1\n')
    return tmp_path / "recorded"


def test_a_run_is_submitted_and_what_to_type_next_is_told(
    tombola: Tombola, recorded: Path, tmp_path: Path
) -> None:
    code, out, err = tombola(
        "run", "mine.toml", "--slurm", "partition=gpu,gpus=4,time=24:00:00", "--keep", "needed"
    )
    assert (code, err) == (0, "")
    (folder,) = (tmp_path / "store" / "slurm").iterdir()
    assert out.splitlines() == [
        f"mine: 1 machine with partition gpu, gpus 4, time 24:00:00, store {tmp_path / 'store'}",
        f"job 11 submitted; scripts and logs: {folder}",
        "  watch:   squeue --jobs 11",
        f"  log:     tail -F {folder}/11.log",
        "  cancel:  scancel 11",
    ]
    argv = (recorded / "11.argv").read_text().splitlines()
    assert {"--partition=gpu", "--gpus=4", "--time=24:00:00", "--requeue", f"--output={folder}/%j.log"} <= {
        *argv
    }
    script = (recorded / "11.sh").read_text()
    assert script == (folder / "experiment.sh").read_text()
    assert f"tombola.cli run mine.toml --keep=needed --store={tmp_path / 'store'} " in script
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    code, out, _ = tombola("ls")  # the store's own readers see nothing of it
    assert (code, out.startswith("no jobs in the store at ")) == (0, True)
    assert tombola("verify")[0] == tombola("gc")[0] == 0


def test_a_dry_run_prints_the_scripts_and_leaves_nothing(
    tombola: Tombola, recorded: Path, tmp_path: Path
) -> None:
    code, out, _ = tombola("run", "mine.toml", "--slurm", "nodes=2,cpus=4,time=60", "--dry-run")
    assert code == 0
    assert [line.split("/")[-1] for line in out.splitlines() if line.startswith("==>")] == [
        "experiment.sh <==",
        "workers.sh <==",
    ]
    assert "#SBATCH --cpus-per-task=4" in out
    assert not (tmp_path / "store").exists()
    assert not list(recorded.iterdir())


def test_several_machines_share_a_certificate_that_only_their_user_reads(
    tombola: Tombola, recorded: Path, tmp_path: Path
) -> None:
    code, out, _ = tombola("run", "mine.toml", "--slurm", "nodes=2,cpus=4")
    assert (code, "  cancel:  scancel 11 12" in out) == (0, True)
    (folder,) = (tmp_path / "store" / "slurm").iterdir()
    assert "--dependency=after:11" in (recorded / "12.argv").read_text().splitlines()
    assert (folder / "experiment.job").read_text() == "11\n"
    assert "PRIVATE KEY" in (folder / "cluster.pem").read_text()
    assert "PRIVATE KEY" not in "".join(file.read_text() for file in recorded.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("mine.toml", "--slurm", "partition=nowhere"),
         "Slurm refuses the job: invalid partition specified: nowhere; Batch job submission failed: "
         "Invalid partition name specified"),
        (("mine.toml", "--slurm", "gpus=none"),
         "--slurm has gpus=none; give the GPUs of all machines together, such as gpus=4"),
        (("mine.toml", "--slurm", "time=9", "--stop-after", "9m"),
         "--stop-after is set by the scripts of --slurm; leave it out"),
        (("mine.toml", "--slurm", "time=9", "--scheduler", "tcp://here:1"),
         "--scheduler is set by the scripts of --slurm; leave it out"),
        (("mine.toml", "--slurm", "time=9", "--recompute", "train"),
         "--recompute would remove the new results again whenever Slurm puts the job back into its queue; "
         "remove the old ones first with tombola rm JOB --dependents --remove"),
        (("mine.toml", "--slurm", "time=9", "--json"),
         "--json cannot go with --slurm, whose jobs write to a log; tombola table and report have --json "
         "once they are done"),
        (("mine.toml", "--dry-run"), "--dry-run goes with --slurm; tombola plan tells what a run costs"),
        (("table99", "--slurm", "time=9"), "no study 'table99'; did you mean 'table9'?"),
        (("no.toml", "--slurm", "time=9"), "no file 'no.toml'; give an experiment of your own that exists"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_one_line_and_leaves_no_script(
    tombola: Tombola, refused: Callable[[Result], str], recorded: Path, tmp_path: Path,
    arguments: tuple[str, ...], line: str,
) -> None:  # fmt: skip
    assert refused(tombola("run", *arguments)) == line
    assert not list(tmp_path.glob("store/slurm/*"))
    assert not list(recorded.iterdir())


@pytest.mark.parametrize(
    ("package", "body", "line"),
    [
        ("no_such_package", "", "tracker odd needs no_such_package, which is not installed; "),
        ("json", "raise TrackerError('odd has no key; say odd login')", "odd has no key; say odd login"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused_before_submission(
    tombola: Tombola, refused: Callable[[Result], str], recorded: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, package: str, body: str, line: str,
) -> None:  # fmt: skip
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "odd.py").write_text(
        f"from tombola.errors import TrackerError\nPACKAGE = '{package}'\n"
        f"def open_tracker(folder):\n    {body or 'return None'}\n"
    )
    monkeypatch.setattr(trackers, "__path__", [*trackers.__path__, str(tmp_path / "more")])
    monkeypatch.delitem(sys.modules, "tombola.lab.trackers.odd", raising=False)
    said = refused(tombola("run", "mine.toml", "--slurm", "time=9", "--track", "odd"))
    assert said.startswith(line)
    assert not (tmp_path / "store").exists()
    assert not list(recorded.iterdir())


def test_an_interrupt_between_two_jobs_leaves_none_in_the_queue(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = slurm._sbatch

    def interrupted(options: Sequence[str], script: str) -> str:
        if any(option.startswith("--dependency") for option in options):
            raise KeyboardInterrupt
        return submitted(options, script)

    monkeypatch.setattr(slurm, "_sbatch", interrupted)
    scripts = [slurm.SlurmScript(f"{name}.sh", (), "") for name in ("experiment", "workers")]
    with pytest.raises(KeyboardInterrupt):
        slurm.submit(Store(tmp_path / "store"), tmp_path / "store" / "slurm" / "one", scripts)
    assert (recorded / "cancelled").read_text() == "11\n"
    assert not list((tmp_path / "store" / "slurm").iterdir())


def test_a_silent_slurm_may_have_taken_the_job_and_that_is_said(
    tombola: Tombola, refused: Callable[[Result], str], recorded: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\nexec sleep 20\n")
    monkeypatch.setattr(slurm, "_PATIENCE", 0.2)
    assert refused(tombola("run", "mine.toml", "--slurm", "time=9")) == (
        "sbatch does not answer within 0.2 seconds; its job may be in the queue all the same: look with "
        "squeue --me before you try again"
    )


def test_where_there_is_no_slurm_that_is_said(
    tombola: Tombola, refused: Callable[[Result], str], recorded: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(tombola("run", "mine.toml", "--slurm", "time=9")).startswith("no sbatch here: ")


@pytest.mark.parametrize(
    "typed",
    [
        ("table2", "fig1", "--scale", "tiny", "--epochs", "3", "--configs", "0.0/256,0.9/100", "--lr", "0.1"),
        ("--all", "--keep-going", "--strict", "--threads", "2", "--checkpoint-every", "5", "--device", "cpu"),
        ("it's mine.py", "--recompute", "a b", "--recompute=-c", "--keep", "needed", "--slots", "4"),
    ],
)
def test_the_job_is_given_the_same_arguments(typed: tuple[str, ...]) -> None:
    def parsed(arguments: Sequence[str]) -> dict[str, object]:
        values: dict[str, object] = {}

        @wraps(run)
        def noted(**given: object) -> None:
            values.update(given)

        tyro.cli(noted, args=arguments, registry=OPTIONAL)
        return values

    first = parsed(typed)
    assert parsed(arguments_again(run, first)) == first
