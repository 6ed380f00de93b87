"""The command run in the process of the tests, and what a refusal looks like."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola import cli
from tombola.report import write
from tombola.report.drawing_pool import drawn

Result = tuple[int, str, str]


@pytest.fixture
def tombola(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs the command in this process, on a store of its own: exit code, standard output, standard error."""
    monkeypatch.setenv("TOMBOLA_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::UserWarning")  # run sets it for workers
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces both
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    # This process draws the pictures; that several draw the same is told by tests/report/test_write.py.
    monkeypatch.setattr(write, "drawn", lambda pictures, kinds, _: drawn(pictures, kinds))

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["tombola", *map(str, arguments)])
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def refused() -> Callable[[Result], str]:
    """The one line of a refusal."""

    def line(result: Result) -> str:
        code, _, err = result
        assert code == 2, err
        assert re.fullmatch(r"tombola: [^\n]+\n", err), err
        assert "Traceback" not in err
        return err.removeprefix("tombola: ").removesuffix("\n")

    return line
