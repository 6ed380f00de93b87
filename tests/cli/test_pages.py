"""Every code block of the pages of docs/ and of the README runs as it stands, in the order of its page.

A line in italics above a block says what it needs or how long it takes, to the reader and to this test:
``*Needs a GPU.*`` is run where there is one, any other ``*Needs ...*`` is not run, and a page with a block
that ``*Takes ...*`` is run by ``pytest --long``. Blocks that begin with a comment with a file name are files.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

Result = tuple[int, str, str]
Tombola = Callable[..., Result]

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"\*((?:Needs|Takes) [^*]+)\*")
_SHELL = ("sh", "bash")
_FILE = re.compile(r"# (\S+\.(?:py|toml))\n")

ELSEWHERE = {
    "docs/completion.md": "tests/cli/test_completion.py",
    "docs/exchange.md": "tests/exchange/test_guide.py",
    "docs/extend.md": "tests/cli/test_extend.py",
    "docs/own-study.md": "tests/cli/test_own.py",
    "docs/share.md": "tests/sharing/test_share_guide.py",
}
"""Pages whose blocks another test runs, which says more about what comes out."""
README = "README.md"
"""Of which the Python runs; its commands name jobs and data of a reader's own."""


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    mark: what it needs or how long it takes, as the page says; empty for neither.
    """

    language: str
    text: str
    mark: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, continued lines joined and comments left out."""
        joined = self.text.replace("\\\n", " ")
        lines = [re.sub(r"(^|\s)#(?!!).*$", "", line).strip() for line in joined.splitlines()]
        return [line for line in lines if line]

    @property
    def runs_here(self) -> bool:
        return not self.mark.startswith("Needs") or (
            self.mark == "Needs a GPU." and torch.cuda.is_available()
        )


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for found in _BLOCK.finditer(text):
        above = text[: found.start()].rstrip().rpartition("\n")[2]
        mark = _MARK.fullmatch(above)
        blocks.append(Block(found["language"], found["text"], mark[1] if mark else ""))
    return blocks


def pages() -> list[str]:
    """The pages that have something to run and that no other test runs, by their places in the repository."""
    everything = [ROOT / README, *sorted((ROOT / "docs").rglob("*.md"))]
    names = {str(page.relative_to(ROOT)): page for page in everything}
    return [
        name
        for name, page in names.items()
        if name not in ELSEWHERE and any(block.language in ("python", *_SHELL) for block in blocks_of(page))
    ]


def _parameters() -> list[Any]:
    """Each page, with the marker ``long`` if a block of it says that it takes a while."""
    slow = {
        name: any(block.mark.startswith("Takes") for block in blocks_of(ROOT / name)) or name == README
        for name in pages()
    }
    return [pytest.param(name, marks=[pytest.mark.long] * slow[name]) for name in slow]


class Reader:
    """Somebody who does what a page says, from top to bottom, in one folder."""

    def __init__(self, tombola: Tombola) -> None:
        self._tombola = tombola
        self._space: dict[str, Any] = {"__name__": "page"}
        self.transcript: list[str] = []

    def follow(self, block: Block) -> None:
        if name := _FILE.match(block.text):
            Path(name[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, "page", "exec"), self._space)
        elif block.language in _SHELL:
            for line in block.commands:
                self._run(line)

    def _run(self, line: str) -> None:
        words = shlex.split(line)
        if words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
            return
        assert words[0] == "tombola", f"{line}: mark the block with what it needs"
        code, out, err = self._tombola(*words[1:])
        assert code == 0, f"{line}\n{err}"
        self.transcript.append(f"$ {line}\n{out}{err}")


@pytest.mark.parametrize("page", _parameters())
def test_the_blocks_of_a_page_run(
    page: str, tombola: Tombola, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("movement",):
        monkeypatch.delitem(sys.modules, module, raising=False)
    reader = Reader(tombola)
    for block in blocks_of(ROOT / page):
        if block.runs_here and not (page == README and block.language in _SHELL):
            reader.follow(block)
    print("\n".join(reader.transcript))  # pytest -rP shows what a reader sees


def test_pages_that_another_test_runs_are_named_there() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def test_a_mark_belongs_to_the_block_below_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        textwrap.dedent(
            """
            *Needs a cluster.*

            ```sh
            sbatch this  # not run
            ```

            ```json named
            {}
            ```

            Then, *not a mark*:

            ```python
            x = 1
            ```
            """
        )
    )
    first, named, second = blocks_of(page)
    assert (first.mark, first.commands, first.runs_here) == ("Needs a cluster.", ["sbatch this"], False)
    assert (named.language, named.text) == ("json", "{}\n")
    assert (second.mark, second.language) == ("", "python")
