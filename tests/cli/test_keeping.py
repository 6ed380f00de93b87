from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb

Result = tuple[int, str, str]


@pytest.fixture
def trained(tmp_path: Path, recipe: tb.Recipe) -> tuple[tb.Lab, tb.Job]:
    """A lab on the store of the command, with one training in it."""
    lab = tb.Lab(tmp_path / "store")
    job = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits", seed=0), "digits", recipe)
    lab.run(job).raise_failures()
    return lab, job


def test_a_whole_store_is_well_and_a_damaged_file_is_told(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, tb.Job]
) -> None:
    lab, job = trained
    code, out, _ = tombola("verify")
    assert (code, out.startswith("all is well in ")) == (0, True)
    file = next(lab.store.root.glob(f"jobs/*/{job.name}/*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.chmod(0o644)
    file.write_bytes(content)
    code, out, err = tombola("verify")
    assert code == 2
    assert job.name in out
    assert "damaged in" in err


def test_nothing_is_removed_unless_asked(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, tb.Job], same_run: Callable[..., bool]
) -> None:
    lab, job = trained
    before = lab.result(job)
    code, out, _ = tombola("gc", "--keep", "tickets")
    assert code == 0
    assert same_run(lab.result(job), before)
    assert "say --remove" in out or out.strip() == "nothing to remove"


def test_a_result_goes_from_store_to_store_as_one_file(
    tombola: Callable[..., Result],
    trained: tuple[tb.Lab, tb.Job],
    tmp_path: Path,
    same_run: Callable[..., bool],
) -> None:
    lab, job = trained
    code, out, _ = tombola("export", job.name[:10], tmp_path / "run.zip")
    assert code == 0
    assert out.rstrip().endswith("MB")
    code, out, _ = tombola("import", tmp_path / "run.zip", "--store", tmp_path / "other")
    assert (code, out.strip()) == (0, f"job {job.name[:12]}")
    assert same_run(tb.Lab(tmp_path / "other").result(job), lab.result(job))


def test_a_job_that_is_not_there_and_a_file_that_is_none_are_refused(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, tb.Job], tmp_path: Path
) -> None:
    code, _, err = tombola("export", "ffff", tmp_path / "run.zip")
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "no.zip").write_text("no archive")
    code, _, err = tombola("import", tmp_path / "no.zip")
    assert (code, err.count("\n")) == (2, 1)


def test_workers_and_a_scheduler_exclude_each_other(
    tombola: Callable[..., Result],
) -> None:
    code, _, err = tombola(
        "run", "table8", "--scale", "tiny", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"
    )
    assert code == 2
    assert "exclude each other" in err
