"""Exports whose members are deflated bring the same store, and none inflates beyond what it declares.

That exports of before, whose members are stored, are still imported, is in ``tests/test_results.py``.
"""

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola import disk
from tombola.errors import StoreError, StoreUnwritable
from tombola.lab import archive as archives
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs
from tombola.lab.export import export, export_tickets
from tombola.lab.job import Job
from tombola.lab.store import RECORD, Store
from tombola.lab.verify import verify

DATA = "data/digits.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, Job]:
    """A start, a training and the ticket after it."""
    lab = tb.Lab(tmp_path_factory.mktemp("made") / "store")
    job = imp_jobs("convnet", "digits", tb.Recipe(epochs=1, batch_size=400), rounds=0)[0]
    lab.run([job, tb.job(tb.prune, job, fraction=0.5)]).raise_failures()
    return lab, job


@pytest.fixture(scope="module")
def deflated(made: tuple[tb.Lab, Job], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "run.zip"
    export(made[0].store, None, file, compress=True)
    return file


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def compression_of(file: Path) -> set[int]:
    with zipfile.ZipFile(file) as archive:
        return {info.compress_type for info in archive.infolist()}


@pytest.mark.parametrize("write", [export, export_tickets])
def test_both_forms_bring_the_same_bits(
    made: tuple[tb.Lab, Job], tmp_path: Path, write: Callable[..., Any], same_bits: Callable[..., bool]
) -> None:
    lab, job = made
    contents, records = [], []
    for compress in (False, True):
        file, taken = tmp_path / str(compress), Store(tmp_path / f"of {compress}")
        write(lab.store, None, file, compress=compress)
        assert compression_of(file) == {zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED}
        import_(taken, file)
        assert list(verify(taken)) == []
        contents.append(content_of(taken.root))
        if write is export_tickets:  # its record is written for the file, with its names in any order
            contents[-1].pop(str(taken.file(job.name, RECORD).relative_to(taken.root)))
            records.append(taken.forgetting_tensors(job.name))
    assert contents[0] == contents[1]
    assert (tmp_path / "True").stat().st_size < (tmp_path / "False").stat().st_size
    if write is export:
        here = content_of(lab.store.root)
        assert {name: here[name] for name in contents[1]} == contents[1]
    else:
        ours = lab.result(job).forgetting.tensors()
        assert same_bits(records[0], ours)
        assert same_bits(records[1], ours)


Change = Callable[[zipfile.ZipFile, dict[str, bytes]], object]


def rewritten(source: Path, file: Path, change: Change) -> Path:
    """A deflated copy of an export, of which the last step before its directory is written is given."""
    with zipfile.ZipFile(source) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
        change(archive, content)
    return file


def declared(**fields: object) -> Change:
    """The directory says something else of a member; a field may be a function of what was true."""

    def change(archive: zipfile.ZipFile, _: object) -> None:
        info = archive.getinfo(DATA)
        for name, value in fields.items():
            setattr(info, name, value(getattr(info, name)) if callable(value) else value)

    return change


def overlapping(archive: zipfile.ZipFile, _: object) -> None:
    members = sorted(archive.infolist(), key=lambda info: info.header_offset)
    members[1].header_offset = members[0].header_offset + 1


def garbled(archive: zipfile.ZipFile, content: dict[str, bytes]) -> None:
    """The whole file again, of which one stream is none: its first block is of a kind that there is not."""
    info = archive.getinfo(DATA)
    assert archive.fp is not None
    archive.fp.seek(info.header_offset + 30 + len(DATA))
    archive.fp.write(b"\x07")
    archive.fp.seek(0, 2)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (declared(file_size=lambda size: size - 1), rf"{DATA} has not the \d+ bytes that it declares"),
        (declared(file_size=lambda size: size + 1), rf"{DATA} has not the \d+ bytes that it declares"),
        (declared(file_size=2**25), rf"{DATA} cannot have the 33,554,432 bytes that it declares"),
        (declared(file_size=2**26 + 1), rf"{DATA} has 67,108,865 bytes; at most 67,108,864 are read"),
        (declared(compress_size=lambda size: size // 2), f"Bad CRC-32 for file '{DATA}'"),  # cut short
        (declared(CRC=lambda crc: crc ^ 1), f"Bad CRC-32 for file '{DATA}'"),
        (declared(compress_type=zipfile.ZIP_STORED), rf"{DATA} cannot have the \d+ bytes that it declares"),
        (declared(compress_type=zipfile.ZIP_BZIP2), f"{DATA} is neither stored nor deflated"),
        (declared(flag_bits=1), f"{DATA}.* is encrypted"),
        (declared(compress_size=2**30), "its members are larger than the file"),
        (declared(header_offset=2**20), "its members share bytes of the file"),
        (overlapping, "its members share bytes of the file"),
        (garbled, "Error -3 while decompressing data"),
        (lambda archive, content: archive.writestr(DATA, content[DATA]), "two of its members have one name"),
    ],
)  # fmt: skip
def test_a_member_that_is_not_what_it_declares_leaves_one_line_and_nothing_else(
    deflated: Path, tmp_path: Path, change: Callable[..., Any], words: str
) -> None:
    store = Store(tmp_path / "store")
    before = content_of(tmp_path)
    file = rewritten(deflated, tmp_path / "odd.zip", change)
    with pytest.raises(StoreError, match=rf"odd\.zip is damaged or no export: .*{words}") as told:
        import_(store, file)
    assert str(told.value).isprintable()
    file.unlink()
    assert content_of(tmp_path) == before
    assert list((store.root / "work").iterdir()) == []


def test_a_bomb_is_inflated_to_what_it_declares_and_a_byte(
    deflated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten million zeros, declared as a hundred, under checksums that fit as far as is read."""

    def bomb(archive: zipfile.ZipFile, content: dict[str, bytes]) -> None:
        for member in (DATA, "manifest.json"):
            archive.filelist.remove(archive.NameToInfo.pop(member))
        archive.writestr(DATA, bytes(10**7))
        archive.filelist[-1].file_size, archive.filelist[-1].CRC = 100, zlib.crc32(bytes(101))
        manifest = json.loads(content["manifest.json"])
        manifest["checksums"][DATA] = hashlib.sha256(bytes(100)).hexdigest()
        archive.writestr("manifest.json", json.dumps(manifest))

    file = rewritten(deflated, tmp_path / "bomb.zip", bomb)
    assert file.stat().st_size < 10**6
    written: dict[str, int] = {}
    remove_tree = disk.remove_tree

    def measured(folder: Path, **options: Any) -> None:
        written.update({name: len(content) for name, content in content_of(folder).items()})
        remove_tree(folder, **options)

    monkeypatch.setattr(disk, "remove_tree", measured)
    with pytest.raises(StoreError, match=rf"{DATA} has not the 100 bytes that it declares"):
        import_(Store(tmp_path / "store"), file)
    assert written[DATA] == 101


def test_an_export_that_the_disk_has_no_room_for_is_not_unpacked(
    deflated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(deflated) as archive:
        needed = sum(info.file_size for info in archive.infolist())
    free = shutil.disk_usage(tmp_path)._replace(free=needed - 1)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: free)
    store = Store(tmp_path / "store")
    words = rf"store: the export takes {needed:,} bytes, and {needed - 1:,} are free; make room"
    with pytest.raises(StoreUnwritable, match=f"^cannot write to .*{words}"):
        import_(store, deflated)
    assert list((store.root / "work").iterdir()) == []
    free = free._replace(free=needed)
    assert import_(store, deflated)
