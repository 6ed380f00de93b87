import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola import disk, files
from tombola.errors import JobError, StoreError
from tombola.lab import store as stores
from tombola.lab.archive import import_
from tombola.lab.export import export
from tombola.lab.results import Packed
from tombola.lab.store import Store, default_place, read_json, write_json

NAME = "ab" + 62 * "0"
DESCRIPTION = {"function": "one", "version": 1, "arguments": {}}
PROVENANCE = {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0}


def packed(value: float = 1.0) -> Packed:
    return Packed({"value": value}, {"kept": 1}, {"t": torch.tensor([value])}, [{"epoch": 1, "loss": 0.5}])


def everything_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# The place


def test_a_store_is_made_and_found_again(tmp_path: Path) -> None:
    made = Store(tmp_path / "deep" / "store")
    assert sorted(path.name for path in made.root.iterdir()) == [
        "data",
        "files",
        "jobs",
        "objects",
        "tombola.json",
        "work",
    ]
    assert Store(made.root, create=False).root == made.root
    assert list(made.names()) == []


def test_the_default_place_is_told_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOMBOLA_STORE", str(tmp_path / "elsewhere"))
    assert Store().root == tmp_path / "elsewhere"
    monkeypatch.delenv("TOMBOLA_STORE")
    assert default_place().parts[-2:] == ("tombola", "store")


def test_a_place_is_made_absolute_and_its_tilde_is_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOMBOLA_STORE", "~/mine")
    monkeypatch.chdir(tmp_path)
    assert Store().root == Store("~/mine").root == Store("mine").root == tmp_path / "mine"


def test_a_missing_store_is_not_made_where_none_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*nowhere; name one with --store or TOMBOLA_STORE"):
        Store(tmp_path / "nowhere", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_links_in_a_folder_that_was_refused_are_written_through_as_before(
    tmp_path: Path, create: bool
) -> None:
    (tmp_path / "home" / "thesis").mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    (tmp_path / "home" / "scratch").symlink_to(tmp_path / "disk")
    with pytest.raises(StoreError):
        Store(tmp_path / "home", create=create)
    Store(tmp_path / "home" / "scratch" / "store")
    disk.write_whole(tmp_path / "home" / "scratch" / "ticket", b"mine")
    assert (tmp_path / "disk" / "ticket").read_bytes() == b"mine"


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match="holds other files; a store wants a folder of its own"):
        Store(tmp_path, create=create)
    assert everything_in(tmp_path) == {"thesis.tex"}


def test_a_store_that_another_process_begins_at_this_moment_is_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / ".tombola.json.0a1b2c3d").write_text("{")  # as write_json has it for a moment
    assert Store(tmp_path).root == tmp_path


def test_two_threads_begin_one_store(tmp_path: Path) -> None:
    for place in (tmp_path / str(attempt) for attempt in range(50)):
        gate = threading.Barrier(2, timeout=60)
        begun: list[Store] = []

        def begin(place: Path = place, gate: threading.Barrier = gate, begun: list[Store] = begun) -> None:
            gate.wait()
            begun.append(Store(place))

        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(begun) == 2


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ('{"format": 2}', "has format 2; this tombola reads 1"),
        ("{}", "has format None"),
        ('{"format"', "cannot use a store at .*: Expecting"),
        ("[1]", "cannot use a store at .*: tombola.json holds no object"),
    ],
)
def test_a_store_of_another_format_is_refused(tmp_path: Path, mark: str, words: str) -> None:
    (tmp_path / "tombola.json").write_text(mark)
    with pytest.raises(StoreError, match=words):
        Store(tmp_path)


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(StoreError, match=f"cannot use a store at {place}: "):
            Store(place)


# Publication


def test_a_published_job_is_read_back(store: Store) -> None:
    assert not store.has(NAME)
    assert store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)
    assert store.has(NAME)
    assert list(store.names()) == [NAME]
    assert store.description(NAME) == {"name": NAME, **DESCRIPTION}
    assert store.numbers(NAME) == {"value": 1.0}
    made = store.provenance(NAME)
    assert set(made.pop("sums")) == {"result.json", "history.csv"}
    assert made == PROVENANCE
    read = store.packed(NAME)
    assert (read.numbers, read.details) == ({"value": 1.0}, {"kept": 1})
    assert torch.equal(read.tensors["t"], torch.tensor([1.0]))
    assert (store.folder(NAME) / "history.csv").read_text() == "epoch,loss\n1,0.5\n"


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1", "a,b\n1,2,3", "a,a\n1,2", ",".join(map(str, range(1_000))) + "\nx" * 1_000],
)
def test_a_history_of_short_long_or_no_rows_is_damaged(store: Store, text: str) -> None:
    store.publish(NAME, DESCRIPTION, Packed({"value": 2}, {}, {}, [{"epoch": 1}]), PROVENANCE)
    (store.folder(NAME) / "history.csv").write_text(text)
    with pytest.raises(StoreError, match=r"history\.csv: it is no table: "):
        store.history(NAME)


def test_a_result_without_tensors_and_history_has_no_files_of_them(store: Store) -> None:
    store.publish(NAME, DESCRIPTION, Packed({"value": 2}, {}, {}), PROVENANCE)
    assert {path.name for path in store.folder(NAME).iterdir()} == {
        "job.json",
        "result.json",
        "provenance.json",
    }
    assert store.packed(NAME) == Packed({"value": 2}, {}, {})


def test_a_second_publication_leaves_the_first(store: Store) -> None:
    store.publish(NAME, DESCRIPTION, packed(1.0), PROVENANCE)
    assert not store.publish(NAME, DESCRIPTION, packed(2.0), PROVENANCE)
    assert store.numbers(NAME) == {"value": 1.0}
    assert list(store.workplace(NAME).iterdir()) == []


@pytest.mark.parametrize("moment", range(6))
def test_a_write_that_fails_in_the_middle_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Full after each of the three JSON files, the tensors, the history and the folder."""
    calls = iter(range(100))
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device") as refused:
        store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)
    assert "\n" not in str(refused.value)
    assert next(calls) > moment
    assert not store.has(NAME)
    assert everything_in(store.root) == {"tombola.json"}
    assert store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)


def test_a_rename_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(path: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk, "rename", rename)
    with pytest.raises(StoreError, match=r"cannot write to the store at .*: Input/output error"):
        store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)
    assert everything_in(store.root) == {"tombola.json"}


def test_a_thin_job_that_gets_its_tensors_back_is_thin_or_whole_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("rename", "replace", "remove", "remove_folder", "sync_folder", "remove_tree")
    really = {name: getattr(disk, name) for name in changes}
    states: list[str] = []
    done = False
    while not done:
        left = iter(range(len(states)))

        def stopped(
            name: str, path: Path, *more: object, left: Iterator[int] = left, **options: object
        ) -> None:
            # What comes after the moment is not made any more: the process is dead.
            if next(left, None) is None:
                raise KeyboardInterrupt
            really[name](path, *more, **options)

        store = Store(tmp_path / str(len(states)))
        store.publish(NAME, DESCRIPTION, packed(1.0), PROVENANCE)
        store.thin(NAME)
        with monkeypatch.context() as patch:
            for name in changes:
                patch.setattr(disk, name, partial(stopped, name))
            try:
                # As on another machine, with other last bits.
                store.publish(NAME, DESCRIPTION, packed(2.0), PROVENANCE)
                done = True
            except KeyboardInterrupt:
                pass
        later = Store(store.root)
        later.check(NAME)
        value = later.numbers(NAME)["value"]
        if later.is_thin(NAME):
            assert value == 1.0
            states.append("thin")
        else:
            whole = later.packed(NAME)
            assert (value, whole.tensors["t"].tolist()) == (2.0, [2.0])
            states.append("whole")
        # The same again repairs what was cut off.
        assert later.publish(NAME, DESCRIPTION, packed(2.0), PROVENANCE) == (states[-1] == "thin")
        assert later.packed(NAME).tensors["t"].tolist() == [2.0]
        assert {path.name for path in later.folder(NAME).iterdir()} == {
            "job.json", "result.json", "history.csv", "provenance.json", "result.safetensors"
        }  # fmt: skip
    first = states.index("whole")
    assert 0 < first < len(states) - 5
    assert states == ["thin"] * first + ["whole"] * (len(states) - first)


def test_a_late_process_takes_nothing_from_a_job_that_another_restored_and_thinned_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(NAME, DESCRIPTION, packed(1.0), PROVENANCE)
    store.thin(NAME)
    really = disk.replace

    def replace(path: Path, target: Path) -> None:
        if path.name == "thin":
            monkeypatch.setattr(disk, "replace", really)
            store.finish_restoring(NAME)
            store.thin(NAME)
        really(path, target)

    monkeypatch.setattr(disk, "replace", replace)
    assert store.publish(NAME, DESCRIPTION, packed(2.0), PROVENANCE)
    assert store.is_thin(NAME)
    assert store.numbers(NAME)["value"] == 2.0
    assert store.publish(NAME, DESCRIPTION, packed(2.0), PROVENANCE)
    assert store.packed(NAME).tensors["t"].tolist() == [2.0]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "some.json"
    write_json(place, {"a": 1})
    with pytest.raises(StoreError, match=r"some\.json cannot be written: .*JSON compliant"):
        write_json(place, {"a": float("nan")})
    monkeypatch.setattr(stores.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(StoreError, match=r"cannot write .*some\.json: full"):
        write_json(place, {"a": 2})
    assert read_json(place) == {"a": 1}
    assert everything_in(tmp_path) == {"some.json"}


# Reading


def test_a_job_is_found_by_the_beginning_of_its_name(store: Store) -> None:
    other = "ac" + 62 * "0"
    for name in (NAME, other):
        store.publish(name, DESCRIPTION, packed(), PROVENANCE)
    assert store.find("ab") == store.find(NAME) == store.find("AB00") == NAME
    for prefix, words in (("a", "2 jobs"), ("ff", "no job"), ("", "no job")):
        with pytest.raises(
            JobError, match=f"{words} in .* with a name that begins with '{prefix}'; see tombola ls"
        ):
            store.find(prefix)


def test_files_of_others_among_the_jobs_are_passed_over(store: Store) -> None:
    store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)
    (store.root / "jobs" / ".DS_Store").write_text("")
    assert list(store.names()) == [NAME]


def test_a_job_that_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(JobError, match=r"job ab0000000000 is not in the store at "):
        store.numbers(NAME)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("result.json", lambda path: path.write_text('{"value": 1.')),
        ("result.json", lambda path: path.write_text("[1]")),
        ("result.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("result.json", lambda path: path.unlink()),
        ("result.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("result.safetensors", lambda path: path.write_bytes(b"")),
        (
            "result.safetensors",
            lambda path: files.write_tensors(path, "tombola.ticket/1", {}, {"t": torch.ones(1)}),
        ),
    ],
)
def test_a_damaged_result_is_told_with_its_job_and_the_remedy(
    store: Store, file: str, harm: Callable[[Path], object]
) -> None:
    store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)
    harm(store.folder(NAME) / file)
    with pytest.raises(
        StoreError, match=r"job ab0000000000 is damaged: .*; to have it computed again, delete "
    ) as told:
        store.packed(NAME)
    assert file in str(told.value)
    assert "\n" not in str(told.value)


def test_nothing_in_a_store_is_a_pickle(lab: tb.Lab, colour: tb.Data) -> None:
    start = tb.job(tb.initialize, "convnet", colour)
    run = tb.job(tb.train, start, colour, tb.Recipe(epochs=1, batch_size=105))
    lab.run(tb.job(tb.barrier, run, run, colour, points=3)).raise_failures()
    seen = set()
    for path in filter(Path.is_file, lab.store.root.rglob("*")):
        seen.add(path.suffix)
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            assert files.file_kind(path) in ("tombola.result/1", "tombola.object/1")
        else:
            assert path.read_text().startswith("epoch,lr,train_loss")
    assert seen == {".json", ".safetensors", ".csv"}


def test_tensors_that_come_back_bring_all_that_was_said_of_them(store: Store) -> None:
    def of(seconds: float) -> Packed:
        table = [{"epoch": 1, "seconds": seconds}]
        return Packed({"value": seconds}, {"kept": 1}, {"t": torch.tensor([seconds])}, table)

    store.publish(NAME, DESCRIPTION, of(1.0), PROVENANCE)
    store.thin(NAME)
    assert store.publish(NAME, DESCRIPTION, of(2.0), PROVENANCE | {"host": "another"})
    store.check(NAME)
    assert not store.is_thin(NAME)
    assert store.provenance(NAME)["host"] == "another"
    assert store.packed(NAME).numbers == {"value": 2.0}
    assert torch.equal(store.packed(NAME).tensors["t"], torch.tensor([2.0]))
    assert (store.folder(NAME) / "history.csv").read_text() == "epoch,seconds\n1,2.0\n"
    assert {path.name for path in store.folder(NAME).iterdir()} == {
        "job.json",
        "result.json",
        "result.safetensors",
        "history.csv",
        "provenance.json",
    }


def test_every_folder_that_gets_an_entry_is_forced_to_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch, colour: tb.Data, tmp_path: Path
) -> None:
    synced: list[str] = []
    really = os.fsync

    def sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir() and path.is_relative_to(tmp_path):
            synced.append(str(path.relative_to(tmp_path)))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    store.publish(NAME, DESCRIPTION, packed(), PROVENANCE)
    assert synced[-2:] == ["store/jobs", "store/jobs/ab"]
    tb.Lab(store.root).run(tb.job(tb.initialize, "convnet", colour)).raise_failures()
    assert {"store/objects", "store/data"} <= set(synced)
    (name,) = (name for name in store.names() if name != NAME)
    export(store, [name], tmp_path / "file")
    synced.clear()
    import_(Store(tmp_path / "other"), tmp_path / "file")
    assert {"other/objects", "other/data", "other/jobs", f"other/jobs/{name[:2]}"} <= set(synced)


def _nested(levels: int) -> list[object]:
    nest: list[object] = []
    for _ in range(levels):
        nest = [nest]
    return nest


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[] for _ in range(1_000_001)], "lists and objects; at most 1,000,000 are read; return tensors"),
        ("x" * 2**26, "bytes; at most 67,108,864 are read; return tensors"),
        (_nested(200), "the result is nested too deeply; return tensors"),
        ("half a pair: \ud800", "surrogates not allowed"),
        (10**5000, "Exceeds the limit"),
        (float("nan"), "not JSON compliant"),
    ],
    ids=["wide", "long", "deep", "surrogate", "huge", "nan"],
)
def test_a_result_that_would_not_be_read_again_is_not_published(
    store: Store, value: object, words: str
) -> None:
    with pytest.raises(StoreError, match=f"the result cannot be written: .*{words}"):
        store.publish(NAME, DESCRIPTION, Packed({"value": value}, {}, {}), PROVENANCE)
    assert not store.has(NAME)
    assert not list(store.workplace(NAME).glob("publish.*"))


@pytest.mark.parametrize("value", [[[] for _ in range(999_000)], _nested(190)], ids=["wide", "deep"])
def test_a_result_just_within_the_bounds_is_read_again(store: Store, value: object) -> None:
    store.publish(NAME, DESCRIPTION, Packed({"value": value}, {}, {}), PROVENANCE)
    assert store.numbers(NAME) == {"value": value}
