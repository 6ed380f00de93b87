"""Stores, tickets, checkpoints and exports from untrusted sources; each case was a hole once.

A short form of ``python benchmarks/fuzz.py``, a few hundred inputs instead of ten thousand.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from rich.console import Console

import tombola as tb
from tombola import files
from tombola.data.fitting import fit_images
from tombola.errors import StoreError, TicketError
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs
from tombola.lab.description import check_description, name_of
from tombola.lab.details import show_job
from tombola.lab.export import export
from tombola.lab.finished import load_result
from tombola.lab.gc import gc
from tombola.lab.listing import finished_names, listing
from tombola.lab.objects import data_record, stored_object
from tombola.lab.store import Store, read_json
from tombola.lab.verify import verify
from tombola.training.checkpoint import Checkpoint, Checkpoints

_TICKET = "tombola.ticket/1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    lab = tb.Lab(tmp_path_factory.mktemp("made") / "store")
    job = imp_jobs("convnet", "digits", tb.Recipe(epochs=1, batch_size=400), rounds=0)[0]
    lab.run(job).raise_failures()
    return lab.store, job.name


@pytest.fixture
def given(made: tuple[Store, str], tmp_path: Path) -> tuple[Store, str]:
    """A store of a start and a training that may be altered, and the training's name."""
    shutil.copytree(made[0].root, tmp_path / "store")
    return Store(tmp_path / "store"), made[1]


def altered(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = read_json(path)
    change(content)
    path.write_text(json.dumps(content))


def resealed(path: Path, kind: str, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
    """Alter a tensor file and seal it as its writer would."""
    description, tensors = files.read_tensors(path, kind)
    change(description, tensors)
    files.write_tensors(path, kind, description, tensors)


def test_a_few_hundred_altered_files_give_clean_errors_only() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    done = forked.run(script, "--inputs", "100", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("only clean errors\n")


def test_a_network_of_any_size_asks_for_no_memory(start: tb.Ticket, tmp_path: Path) -> None:
    start.save(tmp_path / "file")
    resealed(tmp_path / "file", _TICKET, lambda told, _: told["network"].update(classes=2**40))
    with pytest.raises(
        TicketError, match=r"these tensors are not of network 'convnet': .* not \(1099511627776"
    ):
        tb.Ticket.load(tmp_path / "file")


@pytest.mark.parametrize(
    "shape",
    [
        [2**32, 2**32], [2**60], [-1], ["3"], [1.5], None,
        [[0], 2**40], ["", 2**62], [10**4000] * 1_000, [1] * 65,
    ],
)  # fmt: skip
def test_a_mask_of_an_impossible_shape_is_refused(start: tb.Ticket, tmp_path: Path, shape: Any) -> None:
    start.save(tmp_path / "file")
    name = next(iter(start.mask))
    resealed(tmp_path / "file", _TICKET, lambda told, _: told["shapes"].update({name: shape}))
    with pytest.raises(TicketError):
        tb.Ticket.load(tmp_path / "file")


@pytest.mark.parametrize("size", [[8, {}], [8, []], 8, None])
def test_a_network_for_inputs_of_no_size_is_refused(start: tb.Ticket, tmp_path: Path, size: Any) -> None:
    start.save(tmp_path / "file")
    resealed(tmp_path / "file", _TICKET, lambda told, _: told["network"].update(size=size))
    with pytest.raises(TicketError, match="not a ticket: TypeError"):
        tb.Ticket.load(tmp_path / "file")


@pytest.mark.parametrize("key", ["description", "checksums"])
@pytest.mark.parametrize("text", [None, "", "[]", "3", '{"a": NaN}', "[" * 100_000])
def test_a_sealed_file_whose_metadata_is_no_object_is_refused(
    tmp_path: Path, key: str, text: str | None
) -> None:
    from safetensors.torch import save

    metadata = {"kind": _TICKET, "description": "{}", "checksums": "{}", key: text}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    metadata["seal"] = files._seal(metadata)
    (tmp_path / "file").write_bytes(save({}, metadata))
    with pytest.raises(TicketError, match=rf"is damaged or not a tensor file: its {key}: "):
        files.read_tensors(tmp_path / "file", _TICKET)


def test_a_run_without_rows_is_refused(run: tb.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "file")

    def empty(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {name: value[:0] for name, value in tensors.items() if name.startswith("history.")}

    resealed(tmp_path / "file", "tombola.run/1", empty)
    with pytest.raises(TicketError, match="a history without rows"):
        tb.Run.load(tmp_path / "file")


@pytest.fixture
def interrupted(start: tb.Ticket, digits: tb.Data, tmp_path: Path) -> Checkpoints:
    """A training that was cut off after its first epoch."""

    class Cut(Checkpoints):
        def keep(self, checkpoint: Checkpoint) -> None:
            super().keep(checkpoint)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tb.train(start, digits, tb.Recipe(epochs=2, batch_size=400), watch=Cut(tmp_path, every=0.0))
    return Checkpoints(tmp_path, every=1e9)


def _without(name: str) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]:
    return lambda told, tensors: tensors.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        lambda told, tensors: told.update(epoch=7),
        lambda told, tensors: told.update(step=-1),
        lambda told, tensors: told.update(epoch=None),
        lambda told, tensors: told.update(seconds="long"),
        lambda told, tensors: tensors.update({"tally.losses": torch.zeros(999)}),
        lambda told, tensors: tensors.update({"forgetting.events": torch.zeros(3, dtype=torch.int16)}),
        lambda told, tensors: tensors.update({"history.epoch": torch.tensor(1.0)}),
        _without("tally.right"),
        _without("forgetting.learned"),
    ],
)
def test_a_checkpoint_that_fits_no_training_is_refused(
    interrupted: Checkpoints, start: tb.Ticket, digits: tb.Data, tmp_path: Path, change: Callable
) -> None:
    resealed(tmp_path / "checkpoint", "tombola.checkpoint/1", change)
    with pytest.raises(TicketError, match=r"a checkpoint does not fit its training: .*; delete it"):
        tb.train(start, digits, tb.Recipe(epochs=2, batch_size=400), watch=interrupted)


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job.update(arguments=None),
        lambda job: job.pop("function"),
        lambda job: job["arguments"].update(ticket={"job": "../../../outside"}),
        lambda job: job["arguments"].update(data={"data": "../../outside"}),
        lambda job: job["arguments"].update(data={"data": None}),
    ],
)
def test_a_job_that_refers_to_another_place_is_damaged(given: tuple[Store, str], change: Callable) -> None:
    store, name = given
    altered(store.folder(name) / "job.json", change)
    for read in (lambda: show_job(store, name), lambda: load_result(store, name), lambda: gc(store)):
        with pytest.raises(StoreError, match=rf"^job {name[:12]} is damaged: job\.json: "):
            read()
    assert any("job.json" in str(each) for each in verify(store))
    assert "is damaged" in _text(listing(store))


def _text(what: Any) -> str:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("result.json", lambda told: told.pop("failed")),
        ("result.json", lambda told: told.update(accuracy="many")),
        ("provenance.json", lambda told: told.pop("started")),
        ("provenance.json", lambda told: told.update(seconds=[])),
        ("provenance.json", lambda told: told.update(seconds=10**400)),
    ],
)
def test_numbers_of_another_form_are_told_and_the_others_listed(
    given: tuple[Store, str], file: str, change: Callable
) -> None:
    store, name = given
    altered(store.folder(name) / file, change)
    told = _text(listing(store))
    assert "initialize" in told
    assert f"job {name[:12]} is damaged: its numbers have another form" in told


@pytest.mark.parametrize("stray", ["zz/a\nb", "zz/\udcff", "zz/\x1b]2;title\x07", f"zz/{'a' * 64}", "file"])
def test_what_is_no_job_ends_no_listing_and_is_named_on_one_line(
    given: tuple[Store, str], stray: str
) -> None:
    store, name = given
    path = store.root / "jobs" / stray
    path.mkdir(parents=True) if "/" in stray else path.write_text("")
    assert name in finished_names(store)[0]
    assert "damaged" not in _text(listing(store))
    (damage,) = verify(store)
    assert str(damage).isprintable()
    assert damage.place == f"jobs/{stray}"
    with pytest.raises(StoreError, match=r"jobs/.+ is no job where it lies, .*; delete /") as told:
        gc(store, grace=0)
    assert str(told.value).isprintable()


@pytest.mark.parametrize("network", [{}, [], "resnet18", None])
def test_a_result_whose_network_is_of_another_form_is_damaged(
    given: tuple[Store, str], network: object
) -> None:
    store, name = given
    path = store.folder(name) / "result.safetensors"
    resealed(path, "tombola.result/1", lambda told, tensors: told["ticket"].update(network=network))
    with pytest.raises(StoreError, match="is damaged: "):
        load_result(store, name)


def test_an_index_of_another_form_is_made_again(given: tuple[Store, str]) -> None:
    store, _ = given
    before = _text(listing(store))
    index = store.root / ".index.json"
    altered(index, lambda told: told["rows"][0].__setitem__(-1, "long"))
    assert _text(listing(store)) == before
    index.write_text("[" * 100_000)
    assert _text(listing(store)) == before


@pytest.mark.parametrize("fingerprint", ["../../outside", "/etc/passwd", "", None, 3])
def test_a_start_at_another_place_is_never_read(given: tuple[Store, str], fingerprint: Any) -> None:
    store, name = given
    files.write_tensors(store.root.parent / "outside.safetensors", "tombola.object/1", {}, {})
    with pytest.raises(StoreError, match="is no fingerprint of tensors"):
        stored_object(store, fingerprint)
    path = store.folder(name) / "result.safetensors"
    resealed(path, "tombola.result/1", lambda told, _: told["ticket"].update(start=fingerprint))
    with pytest.raises(StoreError):
        load_result(store, name)
    with pytest.raises(StoreError, match=r"result\.safetensors names no dense start"):
        gc(store, grace=0.0)


@pytest.mark.parametrize("change", [{"fingerprint": None}, {"mirrored": "no"}, {"source": []}, {"name": 3}])
def test_a_record_of_data_of_another_form_is_damaged(
    given: tuple[Store, str], change: dict[str, Any]
) -> None:
    store, _ = given
    altered(store.root / "data" / "digits.json", lambda told: told.update(change))
    with pytest.raises(StoreError, match=r"digits\.json is damaged: its .*; delete it"):
        data_record(store, "digits")


def test_an_import_does_not_say_what_is_read_from_this_machine(
    given: tuple[Store, str], tmp_path: Path
) -> None:
    store, name = given
    altered(store.root / "data" / "digits.json", lambda told: told.update(source="/home/somebody/pictures"))
    export(store, [name], tmp_path / "file")
    taken = Store(tmp_path / "taken")
    import_(taken, tmp_path / "file")
    assert read_json(taken.root / "data" / "digits.json")["source"] is None
    assert tb.Lab(taken.root).run(tb.job(tb.initialize, "convnet", "digits")).failed == {}


def test_arguments_of_a_call_within_a_call_are_named_as_they_like() -> None:
    fitted = tb.job(fit_images, "mnist", size=(8, 8))
    description = tb.job(tb.initialize, "convnet", fitted).description()
    check_description(description)
    description["arguments"]["data"]["call"]["arguments"]["data"]["data"] = "../mnist"
    with pytest.raises(ValueError, match="is no data set"):
        check_description(description)


def test_a_call_without_a_job_has_a_name_like_any_other_value() -> None:
    told = {"function": "train", "version": 1, "arguments": {"x": {"call": 1}}}
    assert name_of(told) != name_of(told | {"arguments": {"x": {"call": 2}}})


def test_an_export_with_data_under_an_odd_name_is_refused(given: tuple[Store, str], tmp_path: Path) -> None:
    store, name = given
    shutil.copy(store.root / "data" / "digits.json", store.root / "data" / "a\nb.json")
    export(store, [name], tmp_path / "file")
    with zipfile.ZipFile(tmp_path / "file") as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    for content in (manifest["checksums"], members):
        content["data/a\nb.json"] = content.pop("data/digits.json")
    with zipfile.ZipFile(tmp_path / "odd", "w") as archive:
        for member, content in (members | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(member, content)
    with pytest.raises(StoreError, match=r"'data/a\\nb\.json' belongs in no store"):
        import_(Store(tmp_path / "taken"), tmp_path / "odd")


@pytest.mark.parametrize("start", ["a\nb", "\x1b[2J"])
def test_the_name_of_a_start_in_a_ticket_is_printed_on_one_line(tmp_path: Path, start: str) -> None:
    path = tmp_path / "ticket"
    tb.initialize("convnet", tb.load_data("digits")).save(path, with_start=True)
    details, tensors = files.read_tensors(path, _TICKET)
    files.write_tensors(path, _TICKET, details | {"start": start}, tensors)
    with pytest.raises(TicketError) as caught:
        tb.Ticket.load(path)
    assert str(caught.value).isprintable()
