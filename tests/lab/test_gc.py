"""Garbage collection, and verification, export and import of a store with thin results."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tombola as tb
from tombola import files
from tombola.errors import RecipeError, StoreError, TombolaError
from tombola.lab import lease as leases
from tombola.lab import objects
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs
from tombola.lab.export import export
from tombola.lab.gc import gc
from tombola.lab.queue import announced
from tombola.lab.store import Store
from tombola.lab.verify import verify

Same = Callable[..., bool]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, list[tb.Job]]:
    """A chain of three trainings, and the line between two of them."""
    lab = tb.Lab(tmp_path_factory.mktemp("made") / "store")
    recipe = tb.Recipe(epochs=1, batch_size=400, momentum=0.9)
    chain = imp_jobs("convnet", "digits", recipe, rounds=2, fraction=0.5)
    line = tb.job(tb.barrier, chain[0], chain[2], "digits", points=3)
    lab.run([*chain, line]).raise_failures()
    return lab, [*chain, line]


@pytest.fixture
def filled(made: tuple[tb.Lab, list[tb.Job]], tmp_path: Path) -> tuple[tb.Lab, list[tb.Job]]:
    """A copy of that store, to harm."""
    shutil.copytree(made[0].store.root, tmp_path / "copy")
    objects._object.cache_clear()
    return tb.Lab(tmp_path / "copy"), made[1]


def everything_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# Verify


def test_a_whole_store_has_no_damage(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    assert list(verify(filled[0].store)) == []


@pytest.mark.parametrize("file", ["job.json", "result.json", "provenance.json", "result.safetensors"])
@pytest.mark.parametrize("harm", ["truncated", "gone", "flipped"])
def test_every_damaged_file_of_a_run_is_found(
    filled: tuple[tb.Lab, list[tb.Job]], file: str, harm: str
) -> None:
    lab, jobs = filled
    path = lab.store.folder(jobs[1].name) / file
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif file.endswith(".json"):
        path.write_bytes(b"[" + content[1:])
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    found = list(verify(lab.store))
    assert [damage.place for damage in found] == [f"jobs/{jobs[1].name[:2]}/{jobs[1].name}"]
    assert "is damaged" in found[0].cause
    assert "\n" not in str(found[0])


def test_a_shared_start_that_is_damaged_or_gone_is_found(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, jobs = filled
    (path,) = (lab.store.root / "objects").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert f"objects/{path.name}" in {damage.place for damage in verify(lab.store)}
    path.unlink()
    told = {Path(damage.place).name for damage in verify(lab.store)}
    assert told == {job.name for job in jobs[:3]} | {job.parents[0].name for job in jobs[:3]}


def test_a_parent_that_is_gone_and_a_job_under_a_wrong_name_are_found(
    filled: tuple[tb.Lab, list[tb.Job]],
) -> None:
    lab, jobs = filled
    wrong = lab.store.folder(jobs[0].name[:2] + 62 * "0")
    lab.store.folder(jobs[0].name).rename(wrong)
    (lab.store.root / "jobs" / "notes.txt").write_text("")
    told = {damage.place: damage.cause for damage in verify(lab.store)}
    assert f"is of another job, {jobs[0].name[:12]}" in told[str(wrong.relative_to(lab.store.root))]
    assert "does not belong here" in told["jobs/notes.txt"]
    for job in (jobs[1].parents[0], jobs[3]):
        place = str(lab.store.folder(job.name).relative_to(lab.store.root))
        assert told[place].startswith(f"made from job {jobs[0].name[:12]}, which is gone")
    assert len(told) == 4


def test_a_publication_that_was_cut_off_is_found_and_removed(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    store = filled[0].store
    half = store.workplace("ab" * 32) / "publish.0a1b2c3d"
    half.mkdir(parents=True)
    (half / "job.json").write_text("{")
    assert [damage.place for damage in verify(store)] == [f"work/{'ab' * 32}/publish.0a1b2c3d"]
    gc(store, dry_run=False, grace=-60.0)
    assert list(verify(store)) == []
    assert list((store.root / "work").iterdir()) == []


# Collecting


def test_files_that_were_cut_off_are_removed_and_no_others(store: Store) -> None:
    cut = [store.root / ".index.json.0a1b2c3d", store.root / "data" / ".digits.json.0a1b2c3d"]
    whole = [store.root / ".index.json", store.root / "data" / "digits.json", store.root / ".hidden"]
    for path in cut + whole:
        path.write_text('{"fingerprint": "x"}')
    assert gc(store, dry_run=False) == []  # they are young
    found = gc(store, dry_run=False, grace=0)
    assert {removal.place for removal in found} == {".index.json.0a1b2c3d", "data/.digits.json.0a1b2c3d"}
    assert not any(path.exists() for path in cut)
    assert all(path.exists() for path in whole)


def test_a_dry_run_removes_nothing(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, _ = filled
    before = everything_in(lab.store.root)
    assert gc(lab.store, "tickets", grace=-60.0)
    assert everything_in(lab.store.root) == before


def test_everything_is_kept_unless_asked_and_what_is_young_stays(
    filled: tuple[tb.Lab, list[tb.Job]],
) -> None:
    lab, _ = filled
    assert gc(lab.store, grace=-60.0) == []
    assert gc(lab.store, "tickets") == []


def test_needed_takes_the_weights_that_others_were_made_from_and_every_result_is_still_read(
    filled: tuple[tb.Lab, list[tb.Job]], made: tuple[tb.Lab, list[tb.Job]], same_run: Same
) -> None:
    lab, jobs = filled
    removed = gc(lab.store, "needed", dry_run=False, grace=-60.0)
    taken = {Path(removal.place).parent.name for removal in removed}
    assert taken == {job.name for job in jobs[:3]}
    assert all(removal.size > 1000 for removal in removed)
    assert list(verify(lab.store)) == []
    assert lab.result(jobs[3]) == made[0].result(jobs[3])
    assert lab.result(jobs[0].parents[0]).fingerprint == made[0].result(jobs[0].parents[0]).fingerprint
    for job in jobs:
        assert lab.numbers(job) == made[0].numbers(job)
        history = lab.store.folder(job.name) / "history.csv"
        assert history.exists() == (job is not jobs[3])
    assert lab.run(jobs).computed == []
    assert gc(lab.store, "needed", grace=-60.0) == []
    # Whoever needs the weights again gets the same; only what is needed for them is computed: a ticket does.
    assert same_run(lab.result(jobs[1]), made[0].result(jobs[1]))
    assert [lab.store.is_thin(job.name) for job in jobs] == [True, False, True, False]
    assert list((lab.store.root / "work").iterdir()) == []


def test_nothing_that_a_driver_at_work_may_need_is_taken_between_two_of_its_jobs(
    filled: tuple[tb.Lab, list[tb.Job]],
) -> None:
    lab, jobs = filled
    needs_weights = tb.job(tb.barrier, jobs[0], jobs[1], "digits", points=5)
    whole = {job.name for job in jobs[:3]}
    for path in lab.store.root.rglob("*.safetensors"):
        os.utime(path, (1, 1))
    with announced(lab.store, [needs_weights]):  # no job has a lease
        assert gc(lab.store, "tickets", dry_run=False) == []
        assert not any(map(lab.store.is_thin, whole))
    removed = gc(lab.store, "tickets", dry_run=False)
    assert {Path(removal.place).parent.name for removal in removed} == whole


def test_tickets_leaves_the_ticket_of_every_run(
    filled: tuple[tb.Lab, list[tb.Job]], made: tuple[tb.Lab, list[tb.Job]]
) -> None:
    lab, jobs = filled
    lab.store.folder(jobs[3].name).rename(lab.store.root.parent / "aside")
    gc(lab.store, "tickets", dry_run=False, grace=-60.0)
    for job in jobs[:3]:
        ticket = made[0].result(job).ticket
        kept = tb.Ticket.unpack(
            *files.read_tensors(lab.store.folder(job.name) / "ticket.safetensors", "tombola.ticket/1"),
            start=ticket.start,
        )
        assert kept.fingerprint == ticket.fingerprint
    assert len(list((lab.store.root / "objects").iterdir())) == 1
    with pytest.raises(StoreError, match=r"only the numbers are left; run it again"):
        lab.store.packed(jobs[0].name)


def test_a_checkpoint_of_an_unfinished_job_and_a_living_owner_keep_their_place(
    filled: tuple[tb.Lab, list[tb.Job]],
) -> None:
    lab, jobs = filled
    loose = lab.store.root / "objects" / f"{'0' * 64}.safetensors"
    loose.write_bytes(b"")
    for name, file in (("a" * 64, "checkpoint"), ("b" * 64, "error.txt"), (jobs[0].name, "checkpoint")):
        lab.store.workplace(name).mkdir()
        (lab.store.workplace(name) / file).write_text("x")
    assert leases.acquire(lab.store.workplace("c" * 64)) is not None
    told = {removal.place: removal.cause for removal in gc(lab.store, "needed", grace=-60.0, dry_run=False)}
    # Somebody works here, so the loose tensors and the weights stay too.
    assert told == {
        f"work/{'b' * 64}": "its owner is gone and left no checkpoint",
        f"work/{jobs[0].name}": "its job is finished",
    }
    (lab.store.workplace("c" * 64) / "lease").unlink()
    places = {removal.place for removal in gc(lab.store, grace=-60.0, dry_run=False)}
    assert places == {f"work/{'c' * 64}", f"objects/{loose.name}"}
    assert [path.name for path in (lab.store.root / "work").iterdir()] == ["a" * 64]


def test_an_unknown_policy_is_refused(store: Store) -> None:
    with pytest.raises(RecipeError, match=r"no policy of what to keep 'neded'; did you mean 'needed'\?"):
        gc(store, "neded")


def test_nothing_is_removed_beyond_a_link(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("a" * 64, "photographs"):
        (elsewhere / name / "publish.0a1b2c3d").mkdir(parents=True)
        (elsewhere / name / "precious").write_text("x")
    before = everything_in(elsewhere)
    linked = store.workplace("b" * 64)
    linked.symlink_to(elsewhere / ("a" * 64))
    assert gc(store, dry_run=False, grace=-60.0) == []
    assert list(verify(store)) == []
    linked.unlink()
    for name in ("work", "objects", "data", "files", "jobs"):
        folder = store.root / name
        folder.rename(tmp_path / "aside")
        folder.symlink_to(elsewhere)
        with pytest.raises(StoreError, match=rf"store/{name} is a link, and nothing is removed beyond"):
            gc(store, dry_run=False, grace=-60.0)
        folder.unlink()
        (tmp_path / "aside").rename(folder)
    assert everything_in(elsewhere) == before


def test_weights_behind_a_link_stay(filled: tuple[tb.Lab, list[tb.Job]], tmp_path: Path) -> None:
    lab, jobs = filled
    for place in (lab.store.folder(jobs[0].name), lab.store.folder(jobs[1].name).parent):
        place.rename(tmp_path / place.name)
        place.symlink_to(tmp_path / place.name)
    before = everything_in(tmp_path / jobs[0].name)
    thinned = {Path(each.place).parent.name for each in gc(lab.store, "tickets", dry_run=False, grace=-60.0)}
    assert thinned == {job.name for job in jobs[2:3]}
    assert everything_in(tmp_path / jobs[0].name) == before
    assert not lab.store.is_thin(jobs[1].name)


def test_what_is_no_place_of_work_is_left_alone(store: Store) -> None:
    places = ("photographs", "c" * 64, ".import.0a1b2c3d", ".tried.0a1b2c3d")
    for name in places:
        (store.root / "work" / name).mkdir()
        (store.root / "work" / name / "file").write_text("x")
    assert {removal.place for removal in gc(store, dry_run=False, grace=-60.0)} == {
        f"work/{name}" for name in places[1:]
    }
    assert [path.name for path in (store.root / "work").iterdir()] == ["photographs"]


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b'{"lease": []}', None])
def test_whatever_lies_in_place_of_a_lease_keeps_its_place_until_it_is_stale(
    store: Store, content: bytes | None
) -> None:
    lease = store.workplace("d" * 64) / "lease"
    lease.parent.mkdir()
    lease.mkdir() if content is None else lease.write_bytes(content)
    assert gc(store, dry_run=False, grace=-60.0) == []
    os.utime(lease, (0, 0))
    assert [removal.place for removal in gc(store, dry_run=False, grace=-60.0)] == [f"work/{'d' * 64}"]
    assert list((store.root / "work").iterdir()) == []


@pytest.mark.parametrize("looks", range(6))
@pytest.mark.parametrize(
    "place",
    [
        f"work/{'a' * 64}",
        f"work/{'a' * 64}/publish.0a1b2c3d",
        f"objects/{'0' * 64}.safetensors",
        "data/.digits.json.0a1b2c3d",
    ],
)
def test_what_a_driver_removes_meanwhile_is_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: str, looks: int
) -> None:
    path = store.root / place
    if place.startswith("work"):
        path.mkdir(parents=True)
        (path / "checkpoint").write_text("x")
        (store.workplace("a" * 64) / "checkpoint").write_text("x")
    else:
        path.write_text("x")
    left, really = iter(range(looks)), Path.stat

    def stat(asked: Path, **named: bool) -> os.stat_result:
        found = really(asked, **named)
        if asked == path and next(left, None) is None:
            monkeypatch.setattr(Path, "stat", really)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", stat)
    gc(store, dry_run=False, grace=-60.0)
    list(verify(store))


def test_a_publication_that_ends_while_it_is_looked_at_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace = store.workplace("a" * 64)
    (workplace / "publish.0a1b2c3d").mkdir(parents=True)

    def free(place: Path) -> bool:
        shutil.rmtree(place)  # its owner is done
        return True

    monkeypatch.setattr("tombola.lab.verify.free", free)
    assert list(verify(store)) == []


# Exchange


def test_a_result_moves_to_another_store_with_the_numbers_and_histories_behind_it(
    made: tuple[tb.Lab, list[tb.Job]], tmp_path: Path, same_run: Same
) -> None:
    lab, jobs = made
    export(lab.store, [jobs[2].name[:10]], tmp_path / "run.zip")
    other = tb.Lab(tmp_path / "other")
    assert import_(other.store, tmp_path / "run.zip") == [jobs[2].name]
    behind = {jobs[0].name, jobs[1].name} | {job.parents[0].name for job in jobs[:3]}
    assert set(other.store.names()) == {jobs[2].name} | behind
    assert same_run(other.result(jobs[2]), lab.result(jobs[2]))
    for name in behind:
        assert other.store.is_thin(name)
        assert other.store.numbers(name) == lab.store.numbers(name)
    for job in jobs[:2]:
        history = "history.csv"
        assert (other.store.folder(job.name) / history).read_bytes() == (
            lab.store.folder(job.name) / history
        ).read_bytes()
    assert list(verify(other.store)) == []
    assert list((other.store.root / "work").iterdir()) == []
    # Once more changes nothing; and what is behind it can be computed again.
    before = everything_in(other.store.root)
    import_(other.store, tmp_path / "run.zip")
    assert everything_in(other.store.root) == before
    assert same_run(other.result(jobs[1]), lab.result(jobs[1]))


def test_what_a_store_had_whole_stays_whole_and_what_it_had_thin_is_filled(
    made: tuple[tb.Lab, list[tb.Job]], filled: tuple[tb.Lab, list[tb.Job]], tmp_path: Path, same_run: Same
) -> None:
    (lab, jobs), (copy, _) = made, filled
    export(lab.store, [jobs[2].name], tmp_path / "run.zip")
    copy.store.thin(jobs[2].name)
    import_(copy.store, tmp_path / "run.zip")
    assert not any(copy.store.is_thin(job.name) for job in jobs)
    assert same_run(copy.result(jobs[2]), lab.result(jobs[2]))


def test_a_whole_store_moves_without_its_weights(
    made: tuple[tb.Lab, list[tb.Job]], tmp_path: Path, same_run: Same
) -> None:
    lab, jobs = made
    export(lab.store, None, tmp_path / "store.zip", weights=False)
    other = tb.Lab(tmp_path / "other")
    assert sorted(import_(other.store, tmp_path / "store.zip")) == sorted(lab.store.names())
    thin = {name for name in other.store.names() if other.store.is_thin(name)}
    assert thin == {job.name for job in jobs[:3]} | {job.parents[0].name for job in jobs[:3]}
    assert not list((other.store.root / "objects").iterdir())
    assert list(verify(other.store)) == []
    assert not other.run(jobs).computed
    assert other.result(jobs[3]) == lab.result(jobs[3])
    assert same_run(other.result(jobs[1]), lab.result(jobs[1]))  # computed again


def test_what_is_thin_in_a_whole_store_stays_so_and_keeps_its_ticket(
    filled: tuple[tb.Lab, list[tb.Job]], tmp_path: Path, same_run: Same
) -> None:
    lab, jobs = filled
    lab.store.thin(jobs[1].name)
    export(lab.store, None, tmp_path / "store.zip")
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "store.zip")
    assert [name for name in other.store.names() if other.store.is_thin(name)] == [jobs[1].name]
    assert other.store.details(jobs[1].name) == lab.store.details(jobs[1].name) != {}
    assert same_run(other.result(jobs[2]), lab.result(jobs[2]))


def test_results_of_other_pixels_are_not_taken_in(made: tuple[tb.Lab, list[tb.Job]], tmp_path: Path) -> None:
    lab, jobs = made
    export(lab.store, [jobs[3].name], tmp_path / "line.zip")
    other = Store(tmp_path / "other")
    (other.root / "data" / "digits.json").write_text('{"fingerprint": "00"}')
    with pytest.raises(StoreError, match=r"results for other pixels under the data name 'digits'"):
        import_(other, tmp_path / "line.zip")
    assert list(other.names()) == []


@pytest.fixture(scope="module")
def exported(made: tuple[tb.Lab, list[tb.Job]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "run.zip"
    export(made[0].store, [made[1][1].name], file)
    return file


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_export_puts_nothing_false_into_a_store(
    exported: Path, made: tuple[tb.Lab, list[tb.Job]], damaged: Callable, data: st.DataObject, tmp_path: Path
) -> None:
    place = tmp_path / os.urandom(4).hex()
    file = place / "run.zip"
    place.mkdir()
    file.write_bytes(damaged(data, exported.read_bytes()))
    store = Store(place / "store")
    try:
        import_(store, file)
    except TombolaError:
        assert list(store.names()) == []
        assert list((store.root / "objects").iterdir()) == []
    else:  # a bit that nobody reads, such as a date in the archive
        name = made[1][1].name
        assert store.numbers(name) == made[0].store.numbers(name)
        assert list(verify(store)) == []
    assert list((store.root / "work").iterdir()) == []


@pytest.mark.parametrize(
    "member",
    ["../../escaped.json", "/tmp/escaped", "jobs/../../x/job.json", "data/../tombola.json", "work/x"],
)
def test_no_name_in_an_export_leads_out_of_the_store(
    exported: Path, tmp_path: Path, member: str, rewritten: Callable[..., Path]
) -> None:
    file = rewritten(exported, tmp_path / "evil.zip", lambda content, _: content.update({member: b"{}"}))
    store = Store(tmp_path / "deep" / "store")
    with pytest.raises(StoreError, match=r"evil\.zip is damaged or no export: .* belongs in no store"):
        import_(store, file)
    assert set(everything_in(tmp_path)) == {"evil.zip", "deep/store/tombola.json"}


def test_a_description_under_a_wrong_name_is_not_taken_in(
    exported: Path, tmp_path: Path, rewritten: Callable[..., Path]
) -> None:
    def change(content: dict[str, bytes], manifest: dict) -> None:
        member = f"jobs/{manifest['jobs'][0]}/job.json"
        content[member] = content[member].replace(b'"version": 1', b'"version": 2')

    with pytest.raises(StoreError, match=r"the description of job .* is of another job"):
        import_(Store(tmp_path / "store"), rewritten(exported, tmp_path / "evil.zip", change))


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all"])
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.zip").write_bytes(content)
    for file in (tmp_path / "some.zip", tmp_path / "none.zip", tmp_path):
        with pytest.raises(StoreError, match="is damaged or no export: "):
            import_(Store(tmp_path / "store"), file)


def test_a_thin_result_is_not_exported(filled: tuple[tb.Lab, list[tb.Job]], tmp_path: Path) -> None:
    lab, jobs = filled
    lab.store.thin(jobs[0].name)
    with pytest.raises(StoreError, match="only the numbers are left"):
        export(lab.store, [jobs[0].name], tmp_path / "run.zip")
    assert not list(tmp_path.glob("*.zip"))
