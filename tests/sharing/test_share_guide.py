"""The programs of docs/share.md, against a hub on loopback."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "share.md"


def test_the_programs_of_the_document_run(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "cache"))
    programs = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec("\n".join(programs), {"__name__": "share"})
    sizes, origin, keys, heading, ticket = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\{.*'run.safetensors': \d+.*\} [0-9a-f]{40}", sizes)
    assert re.fullmatch(r"True me/y@[0-9a-f]{12}", origin)
    assert int(keys) > 0
    assert heading.split() == ["name", "sparsity", "accuracy", "start"]
    assert ticket.split()[0] == "convnet-digits-0.9-100-round1"
    assert hub.repositories.keys() == {("model", "me/x"), ("model", "me/y"), ("dataset", "me/numbers")}
