from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import tombola as tb
from tombola import files
from tombola.errors import DataError, StoreError
from tombola.lab.objects import put_object, put_value, register_data, stored_data, stored_object
from tombola.lab.results import pack, unpack
from tombola.lab.store import Store, read_json


def altered(data: tb.Data, **changes: object) -> tb.Data:
    """The same data but for one pixel, or but for what is said."""
    images = data.train.images.clone()
    images[0, 0, 0, 0] ^= 1
    train = tb.ImageSet(images, data.train.labels)
    return replace(data, **(changes or {"train": train}))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of twenty small pictures in two classes, and a cache of its own."""
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "shapes"
    for index in range(20):
        place = folder / ("dark", "light")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 + 100 * (index % 2) + index).save(place / f"{index}.png")
    return folder


# Objects


def test_tensors_are_kept_once_under_their_fingerprint(store: Store) -> None:
    name = files.fingerprint({"a": torch.ones(2)})
    put_object(store, name, {"a": torch.ones(2)}, {"first": True})
    put_object(store, name, {"a": torch.ones(2)}, {"first": False})
    details, tensors = stored_object(store, name)
    assert details == {"first": True}
    assert torch.equal(tensors["a"], torch.ones(2))


def test_a_missing_or_damaged_object_is_told(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no file .*; delete it and the job that made it, and run again"):
        stored_object(store, "0" * 64)
    (store.root / "objects" / f"{'1' * 64}.safetensors").write_bytes(b"half")
    with pytest.raises(
        StoreError, match=r"is damaged or not a tensor file: .*; delete it and the job that made it"
    ):
        stored_object(store, "1" * 64)


def test_a_ticket_that_carries_its_dense_start_replaces_one_that_does_not(
    store: Store, chain: list[tb.Run], tmp_path: Path
) -> None:
    whole = chain[1].ticket
    whole.save(tmp_path / "ticket")
    sparse = tb.Ticket.load(tmp_path / "ticket")
    assert sparse.fingerprint == whole.fingerprint

    def kept() -> bool:
        return tb.Ticket.unpack(*stored_object(store, whole.fingerprint)).complete

    put_value(store, sparse.fingerprint, sparse)
    assert not kept()
    put_value(store, whole.fingerprint, whole)
    assert kept()
    put_value(store, sparse.fingerprint, sparse)
    assert kept()


def test_a_run_of_the_caller_is_kept(store: Store, run: tb.Run) -> None:
    put_value(store, run.fingerprint, run)
    details, tensors = stored_object(store, run.fingerprint)
    assert tb.Run.unpack(details, tensors).fingerprint == run.fingerprint


# Data


def test_data_by_name_is_loaded_by_that_name(store: Store, digits: tb.Data) -> None:
    register_data(store, "digits", "digits")
    record = read_json(store.root / "data" / "digits.json")
    assert record == {
        "name": "digits",
        "source": "digits",
        "fingerprint": digits.fingerprint,
        "class_names": list("0123456789"),
        "mirrored": False,
    }
    assert stored_data(store, "digits").fingerprint == digits.fingerprint
    assert list((store.root / "objects").iterdir()) == []


def test_a_callers_own_tensors_are_read_back_from_the_store(store: Store, colour: tb.Data) -> None:
    mine = replace(colour, class_names=("a", "b", "c", "d"), mirrored=False)
    register_data(store, "colour", mine)
    back = stored_data(store, "colour")
    assert back is not mine
    assert torch.equal(back.train.images, colour.train.images)
    assert torch.equal(back.test.labels, colour.test.labels)
    assert (back.name, back.class_names, back.mirrored) == ("colour", ("a", "b", "c", "d"), False)
    assert back.fingerprint == mine.fingerprint


def test_a_folder_is_loaded_from_where_it_lies(store: Store, pictures: Path) -> None:
    made = tb.job(tb.initialize, "convnet", pictures)
    assert made.data == {"shapes": str(pictures)}
    first = register_data(store, "shapes", str(pictures))
    assert (first.size, first.class_names) == ((8, 8), ("dark", "light"))
    assert stored_data(store, "shapes").fingerprint == first.fingerprint


def test_other_pixels_under_a_known_name_are_refused(store: Store, colour: tb.Data) -> None:
    register_data(store, "colour", colour)
    register_data(store, "colour", colour)
    known = colour.fingerprint[:12]
    with pytest.raises(
        StoreError, match=rf"other pixels under .* 'colour' \(fingerprint {known}, now .*\); rename"
    ):
        register_data(store, "colour", altered(colour))
    assert stored_data(store, "colour").fingerprint == colour.fingerprint


def test_the_same_pixels_mirrored_otherwise_are_refused(store: Store, colour: tb.Data) -> None:
    register_data(store, "colour", colour)
    with pytest.raises(
        StoreError, match="results with mirrored=True under the data name 'colour', now it is False"
    ):
        register_data(store, "colour", altered(colour, mirrored=False))


def test_a_folder_whose_pictures_changed_is_refused(
    store: Store, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_data(store, "shapes", str(pictures))
    Image.new("L", (8, 8), 7).save(pictures / "dark" / "0.png")
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "other-cache"))
    with pytest.raises(StoreError, match="other pixels under the data name 'shapes'"):
        register_data(store, "shapes", str(pictures))
    with pytest.raises(StoreError, match=r"data 'shapes' at .* has other pixels than this store's results"):
        stored_data(store, "shapes")


def test_a_folder_that_is_gone_is_told_with_the_machine(store: Store, pictures: Path, tmp_path: Path) -> None:
    register_data(store, "shapes", str(pictures))
    pictures.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"data 'shapes' is not at hand on .*: no folder"):
        stored_data(store, "shapes")


def test_a_store_that_comes_to_lie_at_the_place_of_another_is_read_anew(
    tmp_path: Path, colour: tb.Data
) -> None:
    for place, data in (("first", colour), ("second", altered(colour))):
        store = Store(tmp_path / "store")
        register_data(store, "colour", data)
        assert stored_data(store, "colour").fingerprint == data.fingerprint
        store.root.rename(tmp_path / place)


def test_unknown_data_are_told(store: Store) -> None:
    with pytest.raises(StoreError, match="knows no data 'birds'"):
        stored_data(store, "birds")


def test_a_damaged_record_is_told(store: Store, digits: tb.Data) -> None:
    (store.root / "data" / "digits.json").write_text("{")
    with pytest.raises(StoreError, match=r"digits\.json is damaged: Expecting .*; delete it"):
        register_data(store, "digits", digits)


@pytest.mark.parametrize("name", ["my/data", "../data", "x" * 300])
def test_a_data_name_that_cannot_name_a_file_is_refused(store: Store, colour: tb.Data, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a file; choose a short one without slashes"):
        register_data(store, name, altered(colour, name=name))


def test_an_object_is_a_ticket_with_its_whole_start(store: Store, chain: list[tb.Run]) -> None:
    ticket = chain[1].ticket
    put_object(store, ticket.start_fingerprint, ticket.start, {})
    back = unpack(pack(ticket), tb.Ticket, lambda name: stored_object(store, name)[1])
    assert back.complete
    assert back.fingerprint == ticket.fingerprint


def test_threads_that_ask_at_once_share_one_copy(store: Store, pictures: Path) -> None:
    register_data(store, "shapes", str(pictures))
    with ThreadPoolExecutor(4) as threads:
        copies = list(threads.map(lambda _: stored_data(store, "shapes"), range(8)))
    assert all(copy is copies[0] for copy in copies)
