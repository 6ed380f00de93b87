import errno
import os
import socket
from pathlib import Path

import pytest

import tombola as tb
from tombola import disk
from tombola.errors import StoreError, StoreUnwritable
from tombola.lab import filesystem
from tombola.lab.filesystem import check_file_system


def test_the_file_system_of_these_tests_will_do_and_nothing_is_left_behind(tmp_path: Path) -> None:
    check_file_system(tmp_path)
    assert list(tmp_path.iterdir()) == []


def no_links(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def links_twice(source: Path, target: Path) -> None:
    Path(target).write_bytes(Path(source).read_bytes())


def no_times(path: Path, times: object = None) -> None:
    pass


def no_renames(path: Path, target: Path) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def copies(path: Path, target: Path) -> None:
    """As an object store renames a folder: file by file, whatever is there."""
    Path(target).mkdir(exist_ok=True)
    for each in path.iterdir():
        each.replace(Path(target) / each.name)


@pytest.mark.parametrize(
    ("where", "what", "instead", "words"),
    [
        (disk, "link", no_links, "give a file a second name that is free"),
        (disk, "link", links_twice, "give a file a second name that is free"),
        (disk, "set_time", no_times, "tell times that lie 5 s apart"),
        (disk, "replace", no_renames, "replace a file by renaming another"),
        (disk, "rename", no_renames, "rename a folder to a name that is free"),
        (disk, "rename", copies, "rename a folder to a name that is free"),
    ],
)
def test_a_file_system_that_lacks_something_is_refused_before_anything_is_computed(
    lab: tb.Lab, monkeypatch: pytest.MonkeyPatch, where: object, what: str, instead: object, words: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(where, what, instead)
        with pytest.raises(
            StoreError, match=rf"^the file system of .*work on {socket.gethostname()} "
        ) as told:
            check_file_system(lab.store.root / "work")
    assert f"cannot {words}; put the store on a local disk, NFS 4" in str(told.value)
    assert "\n" not in str(told.value)
    assert list((lab.store.root / "work").iterdir()) == []


def test_a_run_with_something_to_compute_tries_the_file_system_and_no_other(
    lab: tb.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tb.job(tb.initialize, "convnet", "digits")
    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "_links_once", lambda place: False)
        with pytest.raises(StoreError, match="second name"):
            lab.run(job)
        assert list(lab.store.names()) == []
    lab.run(job).raise_failures()
    monkeypatch.setattr(filesystem, "_links_once", lambda place: False)
    assert lab.run(job).finished_before == [job.name]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "make room"), (errno.EROFS, "make it writable"), (errno.EIO, "run the same again when")],
)
def test_a_place_that_cannot_be_written_to_is_no_fault_of_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    monkeypatch.setattr(
        disk, "make_folder", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code)))
    )
    with pytest.raises(StoreUnwritable, match=f"{os.strerror(code)}; {remedy}"):
        check_file_system(tmp_path)


def test_a_disk_that_is_full_in_the_middle_is_told_as_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "link", link)
    with pytest.raises(StoreUnwritable, match=rf"on {socket.gethostname()}: No space left on device; make"):
        check_file_system(tmp_path)
