"""The programs of docs/exchange.md run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "exchange.md"


def test_the_programs_of_the_document_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec("\n".join(programs), {"__name__": "exchange"})
    height, shape, differences, recorded = capsys.readouterr().out.splitlines()
    assert float(height) >= 0
    assert (shape, differences) == ("torch.Size([3, 10])", "0.0 0.0")
    assert re.fullmatch(r"\[0, \d+\] 0\.\d+ \d+\.\d+", recorded)
