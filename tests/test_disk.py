"""Changes below a guarded folder, while somebody else puts links in place of its folders."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tombola import disk, guarded
from tombola.errors import StoreUnwritable

pytestmark = pytest.mark.skipif(
    not hasattr(os, "O_PATH"), reason="changes go by path, or links are read late"
)

CHANGES: dict[str, Callable[[Path], object]] = {
    "write_whole": lambda folder: disk.write_whole(folder / "file", b"new"),
    "write_part": lambda folder: disk.write_part(folder / "more", b"new"),
    "append": lambda folder: disk.append(folder / "file", b"new"),
    "new_file": lambda folder: disk.new_file(folder / "more").close(),
    "make_folder": lambda folder: disk.make_folder(folder / "more" / "inner", parents=True),
    "rename": lambda folder: disk.rename(folder / "file", folder / "more"),
    "rename from elsewhere": lambda folder: disk.rename(folder.parent / "other", folder / "more"),
    "rename to elsewhere": lambda folder: disk.rename(folder / "file", folder.parent / "more"),
    "replace": lambda folder: disk.replace(folder.parent / "other", folder / "file"),
    "link": lambda folder: disk.link(folder / "file", folder / "more"),
    "remove": lambda folder: disk.remove(folder / "file"),
    "remove_folder": lambda folder: disk.remove_folder(folder / "empty"),
    "remove_tree": lambda folder: disk.remove_tree(folder / "full"),
    "touch": lambda folder: disk.touch(folder / "file"),
    "set_time": lambda folder: disk.set_time(folder / "file", 5.0),
}
# The calls by which folders are opened and files are changed.
_CALLS = ("open", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "utime")


def filled(folder: Path) -> Path:
    for name in ("empty", "full"):
        (folder / name).mkdir(parents=True)
    for name in ("file", "full/file"):
        (folder / name).write_text("mine")
        os.utime(folder / name, (1e9, 1e9))
    return folder


def everything(place: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(place)): path.is_dir() or (path.read_bytes(), path.stat().st_mtime)
        for path in place.rglob("*")
    }


def made(place: Path) -> Path:
    """A guarded folder, of whose folders ``top`` may be a link, beside a folder outside."""
    filled(place / "outside")
    filled(place / "store" / "top" / "folder")
    (place / "store" / "top" / "other").write_text("other")
    guarded.guard(place / "store", own_links=["top"])
    return place / "store"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return made(tmp_path)


def swap(store: Path) -> None:
    """Put a link of another user in place of a folder."""
    folder = store / "top" / "folder"
    folder.rename(folder.with_name("aside"))
    folder.symlink_to(store.with_name("outside"))
    give_away(folder)


def give_away(link: Path) -> None:
    if os.geteuid() == 0:
        os.chown(link, 65534, 65534, follow_symlinks=False)


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_changed_through_a_link_in_place_of_a_folder(store: Path, change: str) -> None:
    swap(store)
    before = everything(store.with_name("outside"))
    with pytest.raises((OSError, StoreUnwritable), match="folder is a link, and nothing is written through"):
        CHANGES[change](store / "top" / "folder")
    assert everything(store.with_name("outside")) == before


class SwappingOs:
    """``os`` for a folder that is swapped for a link before a call that opens or changes something."""

    def __init__(self, store: Path, number: int) -> None:
        self.store, self.number, self.calls = store, number, 0

    def __getattr__(self, name: str) -> Any:
        really = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.calls == self.number:
                swap(self.store)
            self.calls += 1
            return really(*arguments, **named)

        return call if name in _CALLS else really


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_is_swapped_before_any_call_of_the_system_leads_no_change_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    for number in range(100):
        store = made(tmp_path / str(number))
        before = everything(store.with_name("outside"))
        swapping = SwappingOs(store, number)
        for module in (disk, guarded, shutil):
            monkeypatch.setattr(module, "os", swapping)
        with suppress(OSError, StoreUnwritable):
            CHANGES[change](store / "top" / "folder")
        assert everything(store.with_name("outside")) == before, f"swapped before call {number}"
        if swapping.calls <= number:
            break
    assert number >= 3  # two folders on the way, and the change


def test_a_link_of_this_user_may_stand_in_place_of_a_first_folder_and_of_no_other(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "top").rename(tmp_path / "larger disk")
    (store / "top").symlink_to("../larger disk")
    (store / "odd").symlink_to("../larger disk")
    disk.write_whole(store / "top" / "folder" / "file", b"new")
    disk.sync_folder(store / "top")
    assert (tmp_path / "larger disk" / "folder" / "file").read_bytes() == b"new"
    with pytest.raises(
        StoreUnwritable, match=r"odd is a link, and nothing is written .*; put a folder there"
    ):
        disk.write_whole(store / "odd" / "file", b"new")
    if os.geteuid() != 0:  # who cannot give a link away becomes another user
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    give_away(store / "top")
    with pytest.raises(StoreUnwritable, match="top is a link that another user made"):
        disk.write_whole(store / "top" / "folder" / "file", b"newer")


def test_the_guarded_folder_and_the_way_to_it_may_be_links_of_anybody(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    give_away(tmp_path / "link")
    guarded.guard(tmp_path / "link", own_links=["top"])
    disk.write_whole(tmp_path / "link" / "top" / "file", b"new")
    assert (store / "top" / "file").read_bytes() == b"new"


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting_for_the_disk(store: Path) -> None:
    os.mkfifo(store / "top" / "pipe")
    with pytest.raises(OSError, match="Invalid argument"):
        disk.sync_folder(store / "top", files=True)
    with pytest.raises(OSError, match="No such device") as told:
        disk.touch(store / "top" / "pipe")
    assert told.value.errno == errno.ENXIO


def test_a_folder_removed_on_the_file_server_after_it_was_opened_counts_as_gone(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "unlink", unlink)
    disk.remove(store / "top" / "other", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        disk.remove(store / "top" / "other")


def test_a_file_in_the_current_folder_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk.write_whole(Path("file"), b"new")
    disk.rename(Path("file"), Path("other"))
    assert (tmp_path / "other").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forked processes")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_waits_for_no_thread_of_its_parent(store: Path) -> None:
    disk.sync_folder(store / "top", files=True)
    child = os.fork()
    if not child:
        signal.alarm(20)
        disk.sync_folder(store / "top", files=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_folders_a_thousand_deep_are_left_with_an_error_of_the_system(store: Path) -> None:
    folder = os.open(store / "top" / "folder" / "full", os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    try:
        with suppress(OSError):
            disk.remove_tree(store / "top" / "folder" / "full")
        disk.remove_tree(store / "top" / "folder" / "full", ignore_errors=True)
    finally:
        subprocess.run(["rm", "-rf", store / "top" / "folder" / "full"], check=True)  # pytest could not
