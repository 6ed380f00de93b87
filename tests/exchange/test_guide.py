"""The program of docs/exchange.md runs as it stands."""

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "exchange.md"


def test_the_program_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec(program, {"__name__": "exchange"})
    height, shape, differences = capsys.readouterr().out.splitlines()
    assert float(height) >= 0
    assert (shape, differences) == ("torch.Size([3, 10])", "0.0 0.0")
