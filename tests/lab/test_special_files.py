"""Pipes, devices, links and huge files in place of a store's: no reader hangs, or asks for their memory."""

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import forked
import pytest

import tombola as tb
from tombola.errors import JobError, OddFile, StoreError, TicketError
from tombola.lab import lease as leases
from tombola.lab import training_progress
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs
from tombola.lab.details import show_file, show_job
from tombola.lab.execute import Settings, _record_failure
from tombola.lab.export import export
from tombola.lab.finished import load_result
from tombola.lab.gc import gc
from tombola.lab.lease import acquire, free, holder
from tombola.lab.listing import finished_names, listing
from tombola.lab.store import Store, write_json
from tombola.lab.supervision import LabWatch, append_to_log, last_lines
from tombola.lab.training_progress import TrainingReport
from tombola.lab.user_code import put_file
from tombola.lab.verify import verify
from tombola.training.checkpoint import Checkpoint, Checkpoints

Within = Callable[[int], AbstractContextManager[None]]

SCRIPT = Path(__file__).with_name("odd_files.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with a file of every kind, beside an honest export and a Python file."""
    place = tmp_path_factory.mktemp("made")
    lab = tb.Lab(place / "store")
    recipe = tb.Recipe(epochs=1, batch_size=600)
    jobs = imp_jobs("convnet", "digits", recipe, rounds=1)
    lab.run([*jobs, tb.job(tb.barrier, jobs[0], jobs[1], "digits", points=3)]).raise_failures()
    store = lab.store
    export(store, [jobs[0].name], place / "honest")
    export(store, [jobs[0].name], place / "export")
    store.thin(jobs[0].name)
    (place / "own.py").write_text("mine = 1\n")
    put_file(store, place / "own.py")
    write_json(store.root / "studies.json", {"scale": "tiny", "numbers": {}})
    listing(store)
    workplace = store.workplace("a" * 64)
    workplace.mkdir()
    for _ in range(2):
        Checkpoints(workplace, every=0.0).keep(Checkpoint({}, {}))
    lease = acquire(workplace)
    assert lease is not None
    leases._held.discard(lease)
    write_json(workplace / "attempts.json", {"begun": 1})
    append_to_log(workplace, "begun")
    (workplace / "error.txt").write_text("an error")
    under_way = '{"function": "train", "epoch": 1, "epochs": 2, "left": 1.0}'
    (workplace / "under-way.json").write_text(under_way)
    return place, [job.name for job in jobs]


@pytest.fixture
def given(made: tuple[Path, list[str]], tmp_path: Path) -> tuple[Store, list[str]]:
    """The same store, which may be altered."""
    shutil.copytree(made[0], tmp_path / "given")
    return Store(tmp_path / "given" / "store"), made[1]


@pytest.mark.parametrize(
    "kind", ["pipe", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("sparse file", "device"))]
)
def test_whatever_stands_in_place_of_a_file_is_no_file_and_read_no_further(
    given: tuple[Store, list[str]], kind: str
) -> None:
    store, _ = given
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    done = forked.run(SCRIPT, store.root, store.root.parent, kind, env=environment, timeout=400)
    assert done.stdout == "done\n", done.stdout + done.stderr[-3000:]


def odd_lease(workplace: Path, kind: str) -> Path:
    """A workplace whose lease is no file."""
    workplace.mkdir(exist_ok=True)
    path = workplace / "lease"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        (path / "more").mkdir(parents=True)
    else:
        with path.open("wb") as file:
            file.truncate(30_000_000_000)
    return path


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "sparse file"])
def test_a_lease_that_is_no_file_is_held_until_it_is_stale_and_then_cleared(
    store: Store, kind: str, within: Within
) -> None:
    path = odd_lease(store.workplace("a" * 64), kind)
    with within(10):
        assert not free(path.parent)
        assert holder(path.parent) is None
        assert acquire(path.parent) is None
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
        assert free(path.parent)
        lease = acquire(path.parent)
        assert lease is not None
        lease.check()
        assert [entry.name for entry in path.parent.iterdir()] == ["lease"]


def test_a_link_in_place_of_the_folder_of_restored_files_is_not_followed(
    given: tuple[Store, list[str]], tmp_path: Path
) -> None:
    store, jobs = given
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("job.json", "result.json", "mine"):
        (outside / name).write_text("mine")
    for job in jobs:
        (store.folder(job) / "restored").symlink_to(outside)
    assert store.is_thin(jobs[0])
    numbers = store.numbers(jobs[1])
    gc(store, "tickets", dry_run=False, grace=0)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        "job.json": "mine", "result.json": "mine", "mine": "mine"
    }  # fmt: skip
    assert store.numbers(jobs[1]) == numbers


def test_nothing_is_written_through_a_link_or_into_a_pipe(
    store: Store, tmp_path: Path, within: Within
) -> None:
    (tmp_path / "outside").write_text("mine")
    for kind in ("link", "pipe"):
        workplace = store.workplace(kind)
        workplace.mkdir()
        for file in ("log.txt", "error.txt", "under-way.json"):
            if kind == "link":
                (workplace / file).symlink_to(tmp_path / "outside")
            else:
                os.mkfifo(workplace / file)
        with within(10):
            append_to_log(workplace, "a line")
            _record_failure(workplace, StoreError("a cause"))
            report = TrainingReport(workplace, "train")
            report._written = -10.0
            report.reach(1, 2)
            assert last_lines(workplace) == ""
        assert "a cause" in (workplace / "error.txt").read_text()
    assert (tmp_path / "outside").read_text() == "mine"


def test_the_folders_of_a_store_and_what_the_user_names_may_be_links(
    given: tuple[Store, list[str]], tmp_path: Path
) -> None:
    store, names = given
    for folder in ("objects", "jobs"):
        (store.root / folder).rename(tmp_path / folder)
        (store.root / folder).symlink_to(tmp_path / folder)
    (tmp_path / "linked").symlink_to(store.root)
    ticket = load_result(Store(tmp_path / "linked"), names[-1]).ticket
    ticket.save(tmp_path / "ticket")
    for file in ("ticket", "honest", "own.py"):
        source = tmp_path / file if file == "ticket" else store.root.parent / file
        (tmp_path / f"link-{file}").symlink_to(source)
    assert tb.Ticket.load(tmp_path / "link-ticket").fingerprint == ticket.fingerprint
    show_file(tmp_path / "link-ticket")
    assert import_(Store(tmp_path / "taken"), tmp_path / "link-honest")
    (tmp_path / "own.py").write_bytes((store.root.parent / "own.py").read_bytes())
    (tmp_path / "link.py").symlink_to(tmp_path / "own.py")
    assert put_file(store, tmp_path / "link.py") == put_file(store, tmp_path / "own.py")


def test_the_error_says_which_file_it_is_and_what_to_do(
    given: tuple[Store, list[str]], within: Within
) -> None:
    store, names = given
    path = store.folder(names[1]) / "job.json"
    path.unlink()
    os.mkfifo(path)
    words = r"is damaged: job\.json: a pipe, not a file; to have it computed again, delete "
    with within(10), pytest.raises(StoreError, match=words):
        show_job(store, names[1])
    (store.folder(names[1]) / "result.json").open("wb").truncate(30_000_000_000)
    words = r"result\.json: 30,000,000,000 bytes long; at most 67,108,864 are read"
    with within(10), pytest.raises(StoreError, match=words):
        store.numbers(names[1])
    with within(10), pytest.raises(TicketError, match=r"^/dev/zero is damaged .*: a device, not a file"):
        tb.Ticket.load("/dev/zero")


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Gives this process no more than one GB above what it has."""
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_an_export_that_says_that_it_has_endless_members_asks_for_no_memory(
    given: tuple[Store, list[str]], tmp_path: Path
) -> None:
    content = bytearray((given[0].root.parent / "honest").read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = (2**31).to_bytes(4, "little")  # the size of the list of members
    directory = int.from_bytes(content[end + 16 : end + 20], "little")
    with (tmp_path / "export").open("wb") as file:
        file.write(content[:end])
        file.truncate(directory + 2**31)
        file.seek(0, os.SEEK_END)
        file.write(content[end:])
    with bounded_memory(), pytest.raises(StoreError, match=r"is damaged or no export: its list of members"):
        import_(Store(tmp_path / "taken"), tmp_path / "export")


@pytest.mark.parametrize("kept", [True, False])
def test_a_link_in_place_of_a_workplace_leads_no_file_astray(
    store: Store, tmp_path: Path, kept: bool
) -> None:
    job = tb.job(tb.initialize, "convnet", "digits")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("checkpoint", "log.txt", "error.txt", "attempts.json", "under-way.json") if kept else ():
        (outside / name).write_text("mine")
    before = {path.name: path.read_text() for path in outside.iterdir()}
    store.workplace(job.name).symlink_to(outside)
    with pytest.raises(JobError, match="is a link, and work begins in no other folder"):
        tb.Lab(store.root).run(job).raise_failures()
    append_to_log(store.workplace(job.name), "a line")
    assert {path.name: path.read_text() for path in outside.iterdir()} == before
    store.workplace(job.name).unlink()
    tb.Lab(store.root).run(job).raise_failures()


@pytest.mark.parametrize("folder", ["work", "work/JOB"])
def test_a_folder_that_is_swapped_for_a_link_while_its_job_runs_leads_no_file_astray(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    ticket = tb.initialize("convnet", tb.load_data("digits"))
    job = tb.job(tb.train, ticket, "digits", tb.Recipe(epochs=2, batch_size=600))
    outside = tmp_path / "outside"
    swapped = store.root / folder.replace("JOB", job.name)
    workplace = outside if folder.endswith("JOB") else outside / job.name
    really = LabWatch.advanced

    def advanced(watch: LabWatch, *arguments: Any, **named: Any) -> None:
        if not outside.exists():
            shutil.copytree(swapped, outside)  # the lease too: the owner takes it for its own
            for name in ("checkpoint", "log.txt", "error.txt", "attempts.json", "under-way.json"):
                (workplace / name).write_text("mine")
            before.update({path: path.read_bytes() for path in outside.rglob("*") if path.is_file()})
            swapped.rename(tmp_path / "aside")
            swapped.symlink_to(outside)
            if os.geteuid() == 0:
                os.chown(swapped, 65534, 65534, follow_symlinks=False)
            else:
                monkeypatch.setattr(os, "geteuid", lambda: -1)
        really(watch, *arguments, **named)

    before: dict[Path, bytes] = {}
    monkeypatch.setattr(LabWatch, "advanced", advanced)
    monkeypatch.setattr(training_progress, "_EVERY", 0.0)
    lab = tb.Lab(store.root, settings=Settings(device="cpu", checkpoint_every=0.0))
    with pytest.raises(StoreError, match="is a link"):
        lab.run(job).raise_failures()
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    swapped.unlink()
    (tmp_path / "aside").rename(swapped)
    lab.run(job).raise_failures()


def test_nothing_is_added_to_a_file_that_has_a_name_outside(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    workplace = store.workplace("a" * 64)
    workplace.mkdir()
    (workplace / "log.txt").hardlink_to(tmp_path / "outside")
    append_to_log(workplace, "a line")
    assert (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize("swapped", ["a job", "a shelf"])
def test_no_export_carries_what_lies_behind_a_link(
    given: tuple[Store, list[str]], tmp_path: Path, swapped: str
) -> None:
    store, jobs = given
    folder = store.folder(jobs[0]) if swapped == "a job" else store.folder(jobs[0]).parent
    folder.rename(tmp_path / "private")
    folder.symlink_to(tmp_path / "private")
    with pytest.raises((StoreError, OddFile), match="a link, or behind one, not a file of this store"):
        export(store, None, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_links_in_circles_in_place_of_jobs_end_no_listing(given: tuple[Store, list[str]]) -> None:
    store, names = given
    folder = store.folder(names[0])
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)
    (store.root / "jobs" / "zz").symlink_to("zz")
    assert names[0] not in finished_names(store)[0]
    assert names[1] in finished_names(store)[0]


@pytest.mark.parametrize("name", ["jobs", "objects", "data", "files", "work"])
def test_a_store_without_one_of_its_folders_gets_it_anew_or_is_refused(
    given: tuple[Store, list[str]], name: str
) -> None:
    store, _ = given
    folder = store.root / name
    shutil.rmtree(folder)
    assert Store(store.root, create=False).root == store.root
    list(verify(store))
    listing(store)
    folder.rmdir()
    folder.symlink_to(name)
    with pytest.raises(StoreError, match=rf"{name} is no folder"):
        Store(store.root)
    folder.unlink()
    folder.write_bytes(b"")
    (store.root / "tombola.json").unlink()
    with pytest.raises(StoreError, match=rf"{name} is no folder"):
        Store(store.root)
