"""Files altered in an untrusted store or export so that names and checksums fit: still refused."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tombola as tb
from tombola import files
from tombola.errors import JobError, StoreError, TicketError
from tombola.lab import objects
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs
from tombola.lab.evaluate import evaluate
from tombola.lab.export import export
from tombola.lab.finished import finished_job, load_result
from tombola.lab.objects import OBJECT, put_value, register_data, stored_data, stored_object
from tombola.lab.store import Store, read_json
from tombola.lab.user_code import import_stored, put_file
from tombola.lab.verify import verify

Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[tb.Job]]:
    """A start, and two trainings of a pruning chain."""
    lab = tb.Lab(tmp_path_factory.mktemp("made") / "store")
    jobs = imp_jobs("convnet", "digits", tb.Recipe(epochs=1, batch_size=400), rounds=1)
    lab.run(jobs).raise_failures()
    return lab.store, jobs


@pytest.fixture
def given(made: tuple[Store, list[tb.Job]], tmp_path: Path) -> tuple[Store, list[tb.Job]]:
    """The same in a store that may be altered."""
    shutil.copytree(made[0].root, tmp_path / "given")
    return Store(tmp_path / "given"), made[1]


def plant(path: Path, change: Change) -> None:
    """Alter the tensors of an object and seal it again under its old name."""
    details, tensors = files.read_tensors(path, OBJECT)
    change(tensors)
    files.write_tensors(path, OBJECT, details, tensors)
    objects._object.cache_clear()  # as in a new process


def zeroed(tensors: dict[str, Tensor]) -> None:
    tensors |= {name: torch.zeros_like(value) for name, value in tensors.items()}


def causes(store: Store) -> str:
    return "\n".join(map(str, verify(store)))


# Shared tensors


def test_a_false_start_under_an_honest_fingerprint_is_never_used(
    given: tuple[Store, list[tb.Job]], tmp_path: Path, rewritten: Callable[..., Path]
) -> None:
    store, jobs = given
    (path,) = (store.root / "objects").iterdir()
    plant(path, zeroed)
    words = r"holds something else than its name says"
    with pytest.raises(StoreError, match=words):
        load_result(store, jobs[0].name)
    assert f"objects/{path.name}: " in causes(store)
    assert "holds something else" in causes(store)
    # Whoever seals an export of it by hand gets no further.
    honest, file = tmp_path / "honest", tmp_path / "file"
    shutil.copytree(store.root, honest)
    plant(honest / "objects" / path.name, lambda tensors: None)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"kind": "tombola.export/1", "jobs": []}))

    def members(content: dict[str, bytes], manifest: dict) -> None:
        for name in store.names():
            for each in store.folder(name).iterdir():
                content[f"jobs/{name}/{each.name}"] = each.read_bytes()
        content[f"objects/{path.name}"] = path.read_bytes()
        content["data/digits.json"] = (store.root / "data" / "digits.json").read_bytes()

    rewritten(file, file, members)
    taken = Store(tmp_path / "taken")
    with pytest.raises(StoreError, match=words):
        import_(taken, file)
    assert list((taken.root / "objects").iterdir()) == []


def test_an_export_brings_no_tensors_that_nothing_in_it_needs(
    given: tuple[Store, list[tb.Job]], tmp_path: Path, rewritten: Callable[..., Path]
) -> None:
    store, jobs = given
    export(store, [jobs[0].name], tmp_path / "file")
    more = {"a": torch.ones(3)}
    name = files.fingerprint(more)
    files.write_tensors(tmp_path / "more", OBJECT, {}, more)
    content = (tmp_path / "more").read_bytes()
    exported = tmp_path / "file"
    rewritten(exported, exported, lambda members, _: members.update({f"objects/{name}.safetensors": content}))
    with pytest.raises(StoreError, match=rf"no result in it needs {name}\.safetensors"):
        import_(Store(tmp_path / "taken"), tmp_path / "file")


def test_false_data_of_the_callers_own_are_never_used(store: Store, colour: tb.Data) -> None:
    register_data(store, "colour", colour)
    (path,) = (store.root / "objects").iterdir()
    plant(path, lambda tensors: tensors.update({"train.images": tensors["train.images"] ^ 1}))
    with pytest.raises(StoreError, match=r"data 'colour' are altered: .*; delete .* and give the data again"):
        stored_data(store, "colour")
    assert causes(store).startswith("data/colour.json: data 'colour' are altered")


@pytest.mark.parametrize("change", [{"class_names": None}, {"class_names": [1, 2]}, {"normalization": [1]}])
def test_a_record_of_data_without_what_they_need_is_damaged(
    store: Store, colour: tb.Data, change: dict[str, Any]
) -> None:
    register_data(store, "colour", colour)
    record = store.root / "data" / "colour.json"
    record.write_text(json.dumps(read_json(record) | change))
    with pytest.raises(StoreError, match=r"(damaged|cannot be used): .*; delete "):
        stored_data(store, "colour")
    assert "data/colour.json: " in causes(store)


def test_a_false_ticket_or_run_of_the_callers_own_is_never_used(store: Store, run: tb.Run) -> None:
    for value, name in ((run, "final.kept.0.weight"), (run.ticket, "kept.0.weight")):
        put_value(store, value.fingerprint, value)
        path = store.root / "objects" / f"{value.fingerprint}.safetensors"
        plant(path, lambda tensors, name=name: tensors.update({name: tensors[name] + 1}))
        with pytest.raises(StoreError, match=r"holds something else than its name says|that is start "):
            stored_object(store, value.fingerprint)
        assert f"objects/{path.name}: " in causes(store)
        description = {
            "function": "train",
            "version": 1,
            "arguments": {"ticket": {"value": value.fingerprint, "type": type(value).__name__}},
        }
        with pytest.raises(StoreError, match="delete it"):
            evaluate(store, description, {})


def test_what_the_caller_gives_takes_the_place_of_what_was_planted(
    store: Store, run: tb.Run, chain: list[tb.Run], tmp_path: Path
) -> None:
    # Neither forgetting nor the surviving weights of a ticket without its start enter a fingerprint.
    chain[1].ticket.save(tmp_path / "ticket")
    sparse = tb.Ticket.load(tmp_path / "ticket")
    for value, name in ((run, "forgetting.events"), (sparse, "kept.0.weight")):
        put_value(store, value.fingerprint, value)
        _, honest = stored_object(store, value.fingerprint)
        path = store.root / "objects" / f"{value.fingerprint}.safetensors"
        plant(path, lambda tensors, name=name: tensors.update({name: tensors[name] + 1}))
        put_value(store, value.fingerprint, value)
        assert torch.equal(stored_object(store, value.fingerprint)[1][name], honest[name])


def test_a_ticket_file_with_another_dense_start_than_it_names_is_refused(
    start: tb.Ticket, tmp_path: Path
) -> None:
    false = replace(start, start={name: value + 1 for name, value in start.start.items()})
    assert false.fingerprint == start.fingerprint
    false.save(tmp_path / "ticket", with_start=True)
    with pytest.raises(TicketError, match=r"that is start .*; this ticket needs "):
        tb.Ticket.load(tmp_path / "ticket")


# The user's own files


def test_a_file_that_is_not_of_its_hash_is_not_executed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("number = 1\n")
    fingerprint = put_file(store, tmp_path / "mine.py")
    place = store.root / "files" / f"{fingerprint}.py"
    place.write_text("raise SystemExit('executed')\n")
    with pytest.raises(StoreError, match=r"was altered: it is not the file of that hash; delete it"):
        import_stored(store, fingerprint)
    assert causes(store).startswith(f"files/{place.name}: altered")
    assert put_file(store, tmp_path / "mine.py") == fingerprint
    assert import_stored(store, fingerprint).number == 1
    assert causes(store) == ""


def test_compiled_code_beside_a_file_is_not_executed(store: Store, tmp_path: Path) -> None:
    import importlib.util
    import py_compile

    (tmp_path / "mine.py").write_text("number = 2\n")
    (tmp_path / "evil.py").write_text("number = 3\n")
    fingerprint = put_file(store, tmp_path / "mine.py")
    place = store.root / "files" / f"{fingerprint}.py"
    cached = Path(importlib.util.cache_from_source(str(place)))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(tmp_path / "evil.py"), str(cached), invalidation_mode=unchecked)
    assert import_stored(store, fingerprint).number == 2


# Calls within calls


@pytest.fixture
def nested(lab: tb.Lab, quick: tb.Recipe) -> tuple[Store, str]:
    """A training of a ticket that a call which is not stored made."""
    start = tb.job(tb.initialize, "convnet", "digits")
    pruned = tb.job(tb.permute, start, seed=5)
    assert not pruned.stored
    job = tb.job(tb.train, pruned, "digits", quick)
    lab.run(job).raise_failures()
    return lab.store, job.name


def test_an_altered_call_within_a_description_is_found(
    nested: tuple[Store, str], tmp_path: Path, rewritten: Callable[..., Path]
) -> None:
    store, name = nested
    path = store.folder(name) / "job.json"
    described = read_json(path)
    assert causes(store) == ""
    described["arguments"]["ticket"]["call"]["arguments"]["seed"] = 6
    export(store, [name], tmp_path / "file")
    false = json.dumps(described)
    exported = tmp_path / "file"
    rewritten(
        exported, exported, lambda content, _: content.update({f"jobs/{name}/job.json": false.encode()})
    )
    with pytest.raises(StoreError, match="is of another job"):
        import_(Store(tmp_path / "taken"), tmp_path / "file")
    path.write_text(false)
    assert "its description is of another job" in causes(store)
    for read in (load_result, finished_job):
        with pytest.raises(StoreError, match=r"job\.json was altered: it describes another job"):
            read(store, name)
    with pytest.raises(StoreError, match=r"job\.json was altered: it describes another job"):
        export(store, [name], tmp_path / "again")


# Exports


@pytest.mark.parametrize("file", ["result.json", "history.csv"])
@pytest.mark.parametrize("behind", [False, True])
def test_an_export_checks_every_file_of_every_job(
    given: tuple[Store, list[tb.Job]], tmp_path: Path, file: str, behind: bool, rewritten: Callable[..., Path]
) -> None:
    store, jobs = given
    path = store.folder(jobs[0 if behind else 1].name) / file
    honest = path.read_text()
    export(store, [jobs[1].name], tmp_path / "honest", weights=False)
    path.write_text(honest.replace("0", "1"))
    with pytest.raises(StoreError, match=rf"{file} was altered: it does not match its checksum"):
        export(store, [jobs[1].name], tmp_path / "file", weights=False)
    assert [each.name for each in tmp_path.iterdir() if "file" in each.name] == []
    member = str(path.relative_to(store.root)).replace(f"/{path.parent.name[:2]}/", "/")
    exported = tmp_path / "honest"
    rewritten(exported, exported, lambda content, _: content.update({member: path.read_bytes()}))
    with pytest.raises(StoreError, match=rf"{file} was altered: it does not match its checksum"):
        import_(Store(tmp_path / "taken"), tmp_path / "honest")


def test_one_text_is_no_list_of_names_to_export(given: tuple[Store, list[tb.Job]], tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"names is '3f2a', one text; give a list of names, \['3f2a'\]"):
        export(given[0], "3f2a", tmp_path / "file")


def test_results_of_data_that_were_mirrored_otherwise_are_not_taken_in(
    lab: tb.Lab, colour: tb.Data, tmp_path: Path
) -> None:
    job = tb.job(tb.initialize, "convnet", colour)
    lab.run(job).raise_failures()
    export(lab.store, [job.name], tmp_path / "file")
    other = Store(tmp_path / "other")
    register_data(other, "colour", replace(colour, mirrored=False))
    with pytest.raises(StoreError, match=r"results with mirrored=True under .* 'colour', the store .*=False"):
        import_(other, tmp_path / "file")
    assert list(other.names()) == []


def test_data_with_a_backslash_in_their_name_can_be_moved(
    lab: tb.Lab, colour: tb.Data, tmp_path: Path
) -> None:
    job = tb.job(tb.initialize, "convnet", replace(colour, name="mine\\colour"))
    lab.run(job).raise_failures()
    export(lab.store, [job.name], tmp_path / "file")
    other = Store(tmp_path / "other")
    assert import_(other, tmp_path / "file") == [job.name]
    assert causes(other) == ""


def test_an_export_whose_members_share_their_bytes_is_refused(
    given: tuple[Store, list[tb.Job]], tmp_path: Path
) -> None:
    store, jobs = given
    export(store, [jobs[0].name], tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    with zipfile.ZipFile(tmp_path / "file") as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    # The same member ten times in the directory: ten times its bytes, were they read.
    with zipfile.ZipFile(tmp_path / "file", "a") as archive:
        archive.filelist += [largest] * 10
        archive._didModify = True
    assert (tmp_path / "file").stat().st_size < len(content) + 5_000
    with pytest.raises(StoreError, match="its members are larger than the file"):
        import_(Store(tmp_path / "taken"), tmp_path / "file")


def test_an_export_and_its_import_hold_no_file_whole(store: Store, tmp_path: Path) -> None:
    import tracemalloc

    @tb.declare("wide")
    def wide() -> Tensor:
        return torch.arange(2**22, dtype=torch.float32)

    lab = tb.Lab(store.root)
    job = tb.job(wide)
    lab.run(job).raise_failures()
    tensors = store.folder(job.name) / "result.safetensors"
    tracemalloc.start()
    export(store, [job.name], tmp_path / "file", weights=False)
    import_(Store(tmp_path / "other"), tmp_path / "file")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < tensors.stat().st_size / 2  # of what Python holds; tensors are mapped
