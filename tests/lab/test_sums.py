import json
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import StoreError
from tombola.lab.item import Results
from tombola.lab.store import Store, read_json, write_json
from tombola.lab.verify import verify


@pytest.fixture
def trained(lab: tb.Lab, quick: tb.Recipe) -> tb.Job:
    job = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", quick)
    lab.run(job).raise_failures()
    return job


def flip(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_one_altered_digit_of_a_number_is_found(lab: tb.Lab) -> None:
    @tb.declare("height")
    def height() -> float:
        return 17.25

    job = tb.job(height)
    lab.run(job).raise_failures()
    flip(lab.store.folder(job.name) / "result.json", "17.25", "16.25")
    words = rf"job {job.name[:12]} is damaged: result\.json was altered.*to have it computed again, delete"
    with pytest.raises(StoreError, match=words):
        lab.result(job)
    assert [damage.place for damage in verify(lab.store)] == [f"jobs/{job.name[:2]}/{job.name}"]


@pytest.mark.parametrize("file", ["history.csv", "result.json"])
def test_altered_text_files_of_a_run_are_found_by_verify(lab: tb.Lab, trained: tb.Job, file: str) -> None:
    path = lab.store.folder(trained.name) / file
    flip(path, "0", "1")
    (damage,) = verify(lab.store)
    assert f"{file} was altered: it does not match its checksum" in damage.cause
    path.unlink()
    (damage,) = verify(lab.store)
    assert f"{file}: No such file" in damage.cause


def test_an_altered_description_is_found(lab: tb.Lab, trained: tb.Job) -> None:
    flip(lab.store.folder(trained.name) / "job.json", '"batch_size": 400', '"batch_size": 401')
    with pytest.raises(StoreError, match=r"is damaged: job\.json was altered: it describes another job"):
        lab.result(trained)
    assert len(list(verify(lab.store))) == 1


def test_results_of_before_there_were_sums_are_read(store: Store, lab: tb.Lab, trained: tb.Job) -> None:
    made = read_json(store.folder(trained.name) / "provenance.json")
    del made["sums"]
    write_json(store.folder(trained.name) / "provenance.json", made)
    assert lab.result(trained).history
    assert json.loads((store.folder(trained.name) / "result.json").read_text())
    assert list(verify(store)) == []


@pytest.mark.parametrize("sums", [["result.json"], "result.json", 1, None])
def test_sums_of_another_form_are_damage(store: Store, lab: tb.Lab, trained: tb.Job, sums: object) -> None:
    place = store.folder(trained.name) / "provenance.json"
    write_json(place, {**read_json(place), "sums": sums})
    with pytest.raises(StoreError, match=r"is damaged: provenance\.json holds no sums of files"):
        lab.result(trained)
    assert len(list(verify(store))) == 1


def test_altered_numbers_of_a_run_enter_no_table(lab: tb.Lab, trained: tb.Job) -> None:
    accuracy = lab.numbers(trained)["accuracy"]
    assert Results(lab.store).of(trained)["accuracy"] == accuracy
    flip(lab.store.folder(trained.name) / "result.json", f'"accuracy": {accuracy}', '"accuracy": 99.5')
    for read in (lab.numbers, Results(lab.store).of):
        with pytest.raises(StoreError, match=r"is damaged: result\.json was altered"):
            read(trained)
