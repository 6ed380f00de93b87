"""A user's own Python files: imported once, copied under their hash, and errors told with their line."""

import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import JobError
from tombola.lab.execute import Settings
from tombola.lab.store import Store
from tombola.lab.user_code import import_file, import_stored, put_file


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_file_is_kept_under_its_hash_and_imported_from_there(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("number = 42\n")
    fingerprint = put_file(store, file)
    assert fingerprint == hashlib.sha256(b"number = 42\n").hexdigest()
    assert (store.root / "files" / f"{fingerprint}.py").read_bytes() == b"number = 42\n"
    file.unlink()
    assert import_stored(store, fingerprint).number == 42
    Store(store.root)  # still a store


def test_equal_files_are_one_module_wherever_they_lie(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "counted.py"
    file.write_text("values = []\n")
    first = import_file(file)
    first.values.append(1)
    assert import_stored(store, put_file(store, file)) is first
    file.write_text("values = [2]\n")
    assert import_file(file).values == [2]


def test_a_file_is_read_as_python_reads_it(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "plain.py"
    file.write_bytes("# coding: latin-1\ndef named(é: int) -> str: ...\n".encode("latin-1"))
    for module in (import_file(file), import_stored(store, put_file(store, file))):
        assert module.named.__annotations__ == {"é": int, "return": str}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\nb = a / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("a = (\n", "mine.py, line 1: SyntaxError: '(' was never closed"),
        ("import nowhere_at_all\n", "mine.py, line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ],
)
def test_an_error_in_a_file_is_one_line_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    for _ in range(2):  # a failed import leaves nothing behind
        with pytest.raises(JobError) as caught:
            import_file(file)
        assert str(caught.value) == words


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"cannot read .*none\.py: No such file or directory"):
        import_file(tmp_path / "none.py")


@pytest.mark.usefixtures("forked_workers")
def test_workers_import_the_file_out_of_the_store(store: Store, tmp_path: Path, start: tb.Ticket) -> None:
    file = tmp_path / "doubled.py"
    file.write_text(
        "import os\nimport tombola as tb\n\n"
        "@tb.declare('process-and-kept')\n"
        "def process_and_kept(ticket: tb.Ticket) -> list[int]:\n"
        "    return [os.getpid(), ticket.kept]\n"
    )
    measure = import_file(file).process_and_kept
    settings = Settings(device="cpu", files=(put_file(store, file),))
    file.unlink()
    lab = tb.Lab(store.root, workers=1, settings=settings)
    process, kept = lab.result(tb.job(measure, start))
    assert kept == start.kept
    assert process != os.getpid()


def test_no_thread_goes_on_while_another_still_imports_its_file(tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()
    path = tmp_path / "slow.py"
    path.write_text("import sys\nbegun, gate = sys._slow_import\nbegun.set()\ngate.wait(30)\nready = True\n")
    seen: list[bool] = []

    def imports() -> None:
        seen.append(hasattr(import_file(path), "ready"))

    sys._slow_import = begun, gate  # type: ignore[attr-defined]
    try:
        first, second = (threading.Thread(target=imports) for _ in range(2))
        first.start()
        begun.wait(30)
        second.start()
        second.join(0.3)  # it ended here when it did not wait
        gate.set()
        first.join(30)
        second.join(30)
    finally:
        del sys._slow_import  # type: ignore[attr-defined]
    assert seen == [True, True]
