import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.lab.lease import acquire
from tombola.lab.queue import announced

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


def test_gc_names_who_is_at_work(tombola: Callable[..., Result], trained: tuple[tb.Lab, tb.Job]) -> None:
    lab, job = trained
    here = f"process {os.getpid()} on {socket.gethostname()}"
    rest = ": only what dead processes left is looked at; ask again when it has ended"
    assert json.loads(tombola("gc", "--json")[1])["busy"] == ""
    with announced(lab.store, [job]):
        _, out, _ = tombola("gc", "--keep", "tickets")
        assert json.loads(tombola("gc", "--json")[1])["busy"] == f"{here} is at work"
    assert out.splitlines() == [f"{here} is at work{rest}", "nothing to remove"]
    lease = acquire(lab.store.workplace("ab" * 32))  # and where no queue tells, the lease of a job does
    assert lease is not None
    _, out, _ = tombola("gc", "--keep", "tickets")
    lease.clear()
    assert out.splitlines()[0] == f"{here} holds work/abababababab{rest}"


@pytest.mark.parametrize(("command", "lacking"), [("export", "JOB|all, FILE"), ("import", "FILE")])
def test_what_a_command_lacks_is_named_by_what_it_is(
    tombola: Callable[..., Result], refused: Callable[[Result], str], command: str, lacking: str
) -> None:
    assert refused(tombola(command)) == f"{command} lacks {lacking} (see tombola {command} --help)"


def kilobytes(file: Path) -> int:
    return round(file.stat().st_size / 1000)


def test_a_result_goes_from_store_to_store_as_one_file(
    tombola: Callable[..., Result],
    trained: tuple[tb.Lab, tb.Job],
    tmp_path: Path,
    same_run: Callable[..., bool],
) -> None:
    lab, job = trained
    code, out, _ = tombola("export", job.name[:10], tmp_path / "run.zip")
    assert code == 0
    assert out.rstrip().endswith("kB")
    code, out, _ = tombola("import", tmp_path / "run.zip", "--store", tmp_path / "other")
    assert (code, out.strip()) == (0, f"job {job.name[:12]}")
    assert same_run(tb.Lab(tmp_path / "other").result(job), lab.result(job))
    assert tombola("export", job.name, tmp_path / "small.zip", "--compress")[0] == 0
    assert (tmp_path / "small.zip").stat().st_size < (tmp_path / "run.zip").stat().st_size
    code, out, _ = tombola("import", tmp_path / "small.zip", "--store", tmp_path / "third")
    assert (code, out.strip()) == (0, f"job {job.name[:12]}")
    assert same_run(tb.Lab(tmp_path / "third").result(job), lab.result(job))


def test_a_chain_goes_on_elsewhere_from_its_tickets(tombola: Callable[..., Result], tmp_path: Path) -> None:
    chain = (
        "imp",
        "--fraction",
        "0.5",
        "--recipe.epochs",
        "2",
        "--recipe.batch-size",
        "400",
        "--device",
        "cpu",
    )
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "tickets.zip"
    code, expected, _ = tombola(*chain, "--rounds", "3", "--store", here)
    assert code == 0
    # Said alone it means all of them; the ticket after the last run is written down for the way.
    code, out, _ = tombola("export", "all", file, "--store", here, "--tickets")
    assert (code, out.strip()) == (0, f"{file}: {kilobytes(file)} kB, 5 jobs without weights, 4 tickets")
    code, out, _ = tombola("export", "all", file, "--store", here, "--tickets", "newest", "1")
    assert (code, out.strip()) == (0, f"{file}: {kilobytes(file)} kB, 5 jobs without weights, 2 tickets")
    code, out, _ = tombola("import", file, "--store", there)
    assert (code, out.strip()) == (0, "5 jobs and 2 tickets")
    code, out, _ = tombola("verify", "--store", there)
    assert (code, out.strip()) == (0, f"all is well in {there}")
    code, out, _ = tombola(*chain, "--rounds", "4", "--store", there)
    assert code == 0
    rows = [line.split() for line in out.splitlines()[3:8]]  # below the estimate
    assert [row[4] == "stored" for row in rows] == [True, True, True, True, False]
    assert [row[2:4] for row in rows[:4]] == [line.split()[2:4] for line in expected.splitlines()[3:7]]
    code, out, _ = tombola("ls", "--store", there)
    assert out.splitlines()[-1].startswith("6 jobs, 4 tickets not listed (--tickets), ")


def test_tickets_and_a_start_of_ones_own_say_how_large_they_are(
    tombola: Callable[..., Result], digits: tb.Data, tmp_path: Path
) -> None:
    lab = tb.Lab(tmp_path / "store")
    start = tb.initialize("convnet", digits, seed=3)
    own = tb.Ticket(start.network, {k: v + 1 for k, v in start.start.items()}, start.mask)
    run = tb.job(tb.train, own, "digits", tb.Recipe(epochs=1, batch_size=400))
    lab.run(tb.job(tb.prune, run)).raise_failures()
    code, out, _ = tombola("export", "all", tmp_path / "x.zip", "--store", lab.store.root, "--tickets")
    assert code == 0
    fingerprint = lab.result(run).ticket.start_fingerprint
    size = kilobytes(lab.store.root / "objects" / f"{fingerprint}.safetensors")
    assert out.splitlines()[1] == (
        f"the dense start {fingerprint[:12]} goes along whole, {size} kB of it: it comes from a ticket of "
        "the caller's own, or from a job that is gone"
    )


def test_tickets_that_there_are_not_are_refused(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, tb.Job], tmp_path: Path
) -> None:
    for words, told in (
        (("--tickets", "newst"), "no choice of tickets 'newst'; did you mean 'newest'? (a round goes by its"),
        (("--tickets", "--no-weights"), "--tickets leaves weights out by itself"),
    ):
        code, _, err = tombola("export", "all", tmp_path / "x.zip", *words)
        assert (code, err.count("\n")) == (2, 1)
        assert told in err
    assert not (tmp_path / "x.zip").exists()


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


def test_a_training_is_converted_for_others(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, tb.Job], tmp_path: Path
) -> None:
    lab, job = trained
    file = tmp_path / "run.safetensors"
    code, out, _ = tombola("convert", job.name[:10], file)
    assert (code, out.strip()) == (0, f"{file}: read back, its logits differ by at most 0")
    again, native = (
        tb.run_from(weights, network="convnet", data="digits") for weights in (file, lab.result(job).weights)
    )
    assert again.fingerprint == native.fingerprint
    code, _, err = tombola("convert", job.name[:10], tmp_path / "run.h5")
    assert (code, "tells no form" in err, err.count("\n")) == (2, True, 1)
