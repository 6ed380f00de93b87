"""Fingerprints of the user's own source: what changes them, what does not, and what has none."""

from __future__ import annotations

import functools
import linecache
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tombola as tb
from tombola import registry, source
from tombola.lab.store import Store
from tombola.lab.user_code import import_file, import_stored, put_file
from tombola.networks import network
from tombola.source import Source, source_fingerprint

FILE = '''"""About it."""
import math, os
from statistics import mean, median
import tombola as tb

SCALE = 2.0  # of all
TABLE = [1, 2]
TABLE.append(3)
COLOURS = {}
UNUSED = 7


class Base:
    """A base."""
    factor = 3


class Measure(Base):
    def value(self, run):
        return self.factor * helper(run)


def deeper(run):
    return math.sqrt(len(run)) * mean([SCALE])


def helper(run):
    return deeper(run) + sum(TABLE)


def logged(function):
    return function


def unrelated(run):
    return UNUSED


@logged
def measured(run, share: float = 0.5) -> float:
    """What it is."""
    return Measure().value(run) * share  # in points


if __name__ == "__main__":
    run = "driver"
    print(unrelated(run))
'''


def text_of(content: str) -> str:
    """The fingerprint of what ``measured`` rests on in a file."""
    line = next(number for number, line in enumerate(content.splitlines(), 1) if line.startswith("@logged"))
    found = Source(content.encode(), "measured", line).fingerprint
    assert found is not None
    return found["text"]


def edited(old: str, new: str) -> str:
    assert FILE.count(old) == 1, old
    return FILE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""About it."""', ""),
        ("  # of all", ""),
        ('    """A base."""\n', ""),
        ('"""What it is."""', '"""What\n    it was."""'),
        (
            "return Measure().value(run) * share",
            "return (\n        Measure().value(run)\n        * share\n    )",
        ),
        ("UNUSED = 7", "UNUSED = 8"),
        ("    return UNUSED", "    return UNUSED + 1"),
        ('run = "driver"', 'run = "another driver"'),  # no local name of a function is one of the file
        ("import math, os", "import math"),
        ("from statistics import mean, median", "from statistics import mean"),
        ("COLOURS = {}", "COLOURS = {1: 2}"),
    ],
)
def test_what_a_measure_does_not_rest_on_does_not_count(old: str, new: str) -> None:
    assert text_of(edited(old, new)) == text_of(FILE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* share  #", "/ share  #"),
        ("share: float = 0.5", "share: float = 0.25"),
        ("return deeper(run) + sum(TABLE)", "return deeper(run) - sum(TABLE)"),
        ("return math.sqrt", "return math.log"),
        ("SCALE = 2.0", "SCALE = 2"),
        ("TABLE = [1, 2]", "TABLE = [1, 3]"),
        ("TABLE.append(3)", "TABLE.append(4)"),
        ("TABLE.append(3)", "TABLE[0] = 4"),
        ("COLOURS = {}", "SCALE += 1"),
        ("COLOURS = {}", "del TABLE[0]"),
        ("COLOURS = {}", "os.remove(TABLE)"),
        ("COLOURS = {}", "Base.factor = 4"),
        ("COLOURS = {}", "Base.factor += 1"),
        ("factor = 3", "factor = 4"),
        ("class Measure(Base):", "class Measure:"),
        ("    return function", "    return lambda run: 1"),
        ("from statistics import mean, median", "from statistics import median as mean"),
        ("    return UNUSED", "    global SCALE\n    SCALE = 3"),
        ("UNUSED = 7", "for SCALE in (1, 2): pass"),
    ],
)
def test_what_a_measure_rests_on_counts(old: str, new: str) -> None:
    assert text_of(edited(old, new)) != text_of(FILE)


@pytest.mark.parametrize(
    "line",
    ["from os import *", "globals()['SCALE'] = 1", "exec('SCALE = 1')", "setattr(Base, 'factor', 1)",
     "import sys; sys.modules[__name__].SCALE = 1"],
)  # fmt: skip
def test_a_file_that_reaches_its_names_indirectly_counts_as_a_whole(line: str) -> None:
    first, second = (
        Source(f"def measured(run):\n    return 1\n\n{line}\n{rest}".encode(), "measured", 1).fingerprint
        for rest in ("", "UNUSED = 1\n")
    )
    assert first is not None
    assert second is not None
    assert first.keys() == {"file"}
    assert not source.is_same(first, second)


def test_a_function_within_a_function_counts_with_its_whole_file() -> None:
    content = b"def make(width):\n    def net():\n        return width\n    return net\n\nnet = make(3)\n"
    found = Source(content, "make.<locals>.net", 2).fingerprint
    assert found is not None
    assert found.keys() == {"file"}


def test_fingerprints_are_compared_by_what_both_have() -> None:
    narrow, other = {"text": "1", "file": "2"}, {"text": "1", "file": "3"}
    assert source.is_same(narrow, other)
    assert not source.is_same(narrow, {"file": "3"})
    assert source.is_same(narrow, {"file": "2"})
    assert not source.is_same({"text": "4", "file": "2"}, narrow)


def test_this_form_of_fingerprints_is_the_same_for_every_python() -> None:
    # Another number here wants another FORM: results keep theirs for years.
    content = b"""import math as m
from . import other
TABLE: dict[str, float] = {"a": 1e-3, **other.more}
async def measured(run, *rest, scale=-1.5, **options):
    "text"
    if (count := len(run)) > 2 and not options:
        return f"{count!r:>{scale:.2f}} of {m.pi} \\u00e9", 1j, b"x", ..., None
    match run:
        case [first, *_] | {"key": first} if first: pass
        case str() as named: del named
    return [x ** 2 for x in run for y in x if y], lambda *, a=1: a, run[1:, ::2]
"""
    found = Source(content, "measured", 4).fingerprint
    assert found == {
        "text": "44870c624b280fd5152c9db66977a6fd1010f92313418e02a844f07a790bf3a3",
        "file": "de041a3874765b328711ad92211661c3ea3e7e2ce21cddac3020775cb95b46b6",
    }
    assert source.FORM == 1


@pytest.fixture
def _forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is forgotten after it."""
    monkeypatch.setattr(registry, "_declarations", dict(registry._declarations))
    monkeypatch.setattr(network._networks, "_declared", dict(network._networks._declared))
    monkeypatch.setattr(source, "_declared", {})


MEASURE = (
    "import tombola as tb\n\n@tb.declare('measured')\ndef measured(run: tb.Run) -> int:\n    return {}\n"
)


@pytest.mark.usefixtures("_forgetting")
def test_a_file_and_its_copy_in_a_store_have_one_fingerprint(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "store"), tmp_path / "mine.py"
    file.write_text(MEASURE.format(20))
    fingerprint = put_file(store, file)
    import_file(file)
    first = source_fingerprint("functions", "measured")
    assert first is not None
    file.write_text(MEASURE.format(21))
    import_file(file)
    second = source_fingerprint("functions", "measured")
    assert second is not None
    assert second != first
    # In a worker's process: nothing is imported yet.
    import sys

    name = next(name for name, module in sys.modules.items() if name.startswith("tombola_own_")
                and getattr(module, "measured", None) and module.measured(None) == 20)  # fmt: skip
    del sys.modules[name]
    import_stored(store, fingerprint)
    assert source_fingerprint("functions", "measured") == first


@pytest.mark.usefixtures("_forgetting")
def test_what_counts_is_the_file_as_it_was_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plain_module_of_mine.py"
    file.write_text(MEASURE.format(1))
    monkeypatch.syspath_prepend(tmp_path)
    import plain_module_of_mine  # type: ignore[import-not-found]

    file.write_text(MEASURE.format(2))  # before anybody asks
    assert (
        source_fingerprint("functions", "measured")
        == Source(MEASURE.format(1).encode(), "measured", 3).fingerprint
    )
    assert plain_module_of_mine.measured(None) == 1


def run_cell(text: str, number: int, namespace: dict[str, Any]) -> None:
    """Execute text as IPython does: under a name that is no file's, its lines left to linecache."""
    name = f"/tmp/ipykernel_1/{number}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), namespace)


@pytest.fixture
def cell() -> Iterator[Callable[[str], None]]:
    """Runs notebook cells, which are forgotten afterwards."""
    namespace: dict[str, Any] = {"__name__": "__main__", "tb": tb, "torch": torch}
    before = dict(linecache.cache)
    numbers = iter(range(100))
    yield lambda text: run_cell(text, next(numbers), namespace)
    linecache.cache.clear()
    linecache.cache.update(before)


@pytest.mark.usefixtures("_forgetting")
def test_a_notebook_cell_counts_by_its_text(cell: Callable[[str], None]) -> None:
    text = "@tb.declare('measured')\ndef measured(run: tb.Run) -> int:\n    return 1\n\nother = {}\n"
    found = []
    for content in (
        text.format(1),
        text.format(2),
        "# again\n" + text.format(2),
        text.replace("return 1", "return 2"),
    ):
        cell(content)
        found.append(source_fingerprint("functions", "measured"))
    assert all(found)
    assert found[0]["text"] == found[1]["text"] == found[2]["text"] != found[3]["text"]
    assert found[0]["file"] != found[1]["file"] == found[2]["file"]


@pytest.mark.usefixtures("_forgetting")
def test_a_class_counts_like_a_function(cell: Callable[[str], None]) -> None:
    text = (
        "@tb.declare_network('net')\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self, classes: int):\n        super().__init__({}, classes)\n"
    )
    found = []
    for width in (3, 3, 4):
        cell(text.format(width))
        found.append(source_fingerprint("networks", "net"))
    assert found[0] is not None
    assert found[0] == found[1] != found[2]


@pytest.mark.usefixtures("_forgetting")
def test_what_has_no_source_of_its_own_has_no_fingerprint(cell: Callable[[str], None]) -> None:
    def plain(classes: int) -> torch.nn.Module: ...

    partial = functools.partial(plain, 3)
    functools.update_wrapper(partial, plain)
    source.remember_source("networks", "partial", partial)
    source.remember_source("functions", "c", math.sqrt)
    namespace: dict[str, Any] = {"tb": tb}
    exec("@tb.declare('executed')\ndef executed() -> int: return 1", namespace)
    for kind, name in (("networks", "partial"), ("functions", "c"), ("functions", "executed")):
        assert (kind, name) in source._declared
        assert source_fingerprint(kind, name) is None  # type: ignore[arg-type]
    assert source.fingerprints_of(source._declared) == {}


def test_a_definition_that_is_not_where_the_text_has_it_is_of_another_text() -> None:
    assert Source(b"def other(): ...\n", "measured", 1).fingerprint is None
    assert Source(b"def measured(: ...\n", "measured", 1).fingerprint is None


def test_what_is_tombolas_own_is_left_to_its_versions(digits: tb.Data) -> None:
    with source.recorded_uses() as uses:
        tb.initialize("convnet", digits)
    assert not uses
    assert source_fingerprint("functions", "initialize") is None


@pytest.mark.usefixtures("_forgetting")
def test_what_is_used_is_recorded_where_it_is_used(cell: Callable[[str], None], digits: tb.Data) -> None:
    cell("@tb.declare_network('net')\ndef net(classes: int) -> torch.nn.Module:\n"
         "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n")  # fmt: skip
    with source.recorded_uses() as outer:
        with source.recorded_uses() as uses:
            tb.initialize("net", digits)
        assert uses == {("networks", "net")}
    assert not outer
    recorded = source.fingerprints_of(uses)
    assert recorded == {"form": 1, "networks": {"net": source_fingerprint("networks", "net")}}
