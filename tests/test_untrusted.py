"""Files and JSON of anybody's: regular files of a bounded size, and one object, or an error."""

import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.disk import open_to_append
from tombola.errors import OddFile, TombolaError, reason
from tombola.untrusted import check_regular, json_object, read_regular


def test_an_object_comes_back_as_it_was_written() -> None:
    assert json_object('{"a": [1, 2.5, null, true, "é \\ud83d\\ude00"]}') == {
        "a": [1, 2.5, None, True, "é \U0001f600"]
    }
    assert json_object(b'{"a": {}}') == {"a": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[1]", "it holds no object"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ('{"a": 1e999}', "1e999 is no number that fits"),
        ('{"a": -1E+400}', r"-1E[+]400 is no number that fits"),
        ('{"a": ' + "9" * 400 + ".0}", "9{60} is no number that fits"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' stands twice in an object"),
        ('{"a": [' + "[]," * 1_000_000 + "0]}", "it has 1,000,002 lists and objects; at most 1,000,000 are"),
        ('{"a": ' + "[" * 200_000, "nested too deeply"),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nested too deeply"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": ' + "9" * 5_000 + "}", "integer string conversion"),
        (b'{"a": "\xa0"}', "invalid start byte"),
    ],
)
def test_anything_else_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        json_object(text)


def test_wide_objects_are_no_deep_ones() -> None:
    assert len(json_object("{" + ", ".join(f'"{n}": [[]]' for n in range(1000)) + "}")) == 1000


def test_numbers_that_fit_come_back_as_they_are() -> None:
    assert json_object('{"a": [1e308, 5e-324, 1e-999, -0.0, 0.1, 123456789012345678901234567890]}') == {
        "a": [1e308, 5e-324, 0.0, -0.0, 0.1, 123456789012345678901234567890]
    }


def test_an_object_of_many_keys_is_read_in_the_time_of_its_size() -> None:
    signal.alarm(60)  # comparing each with each takes an hour
    with pytest.raises(ValueError, match="'n0' stands twice"):
        json_object("{" + ", ".join(f'"n{n}": {n}' for n in [*range(300_000), 0]) + "}")
    signal.alarm(0)


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(before)


def _long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(30_000_000_000)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "a pipe, not a file"),
        (_socket, "a socket, not a file"),
        (Path.mkdir, "a folder, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a link, not a file"),
        (lambda path: path.symlink_to(path.parent / "honest"), "a link, not a file"),
        (_long, "30,000,000,000 bytes long; at most 67,108,864 are read"),
    ],
)
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    (tmp_path / "honest").write_text("{}")
    path = tmp_path / "odd"
    make(path)
    signal.alarm(20)  # ends the process, rather than let it wait for ever
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, limits[1]))
    try:
        for refuse in (read_regular, lambda path: check_regular(path, 2**26)):
            with pytest.raises(OddFile) as refused:
                refuse(path)
            assert reason(refused.value) == words
            assert str(refused.value) == f"{path} is {words}"
            assert isinstance(refused.value, TombolaError)
        if "bytes" not in words:
            with pytest.raises((OddFile, OSError)):
                open_to_append(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.alarm(0)


def test_a_file_is_read_whole_and_a_link_where_the_user_named_it(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1_000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == content
    assert read_regular(tmp_path / "file", len(content)) == content
    assert read_regular(tmp_path / "link", follow=True) == content
    assert len(read_regular("/proc/self/status")) > 100  # which says that it has no bytes
    with pytest.raises(OddFile, match="256,000 bytes long; at most 255,999 are read"):
        read_regular(tmp_path / "file", len(content) - 1)
    with pytest.raises(OddFile, match="a device, not a file"):
        read_regular("/dev/zero", follow=True)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_a_file_that_grows_while_it_is_read_is_read_to_its_bound_alone() -> None:
    with pytest.raises(OddFile, match="longer than 50 bytes; at most so many are read"):
        read_regular("/proc/self/status", 50)


def test_lines_are_added_to_a_file_that_is_there_or_not(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        with open_to_append(tmp_path / "log") as file:
            file.write(line)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
