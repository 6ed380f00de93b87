"""docs/table.md, as far as a test can tell that it is true."""

import ast
import io
import re
from pathlib import Path

import pytest

from tombola.table.key import Key
from tombola.table.number import Number
from tombola.table.table import COLUMNS, REAL, TRUTH, WHOLE, Table

DOCUMENT = (Path(__file__).parents[2] / "docs" / "table.md").read_text(encoding="utf-8")


def test_every_column_is_documented_with_its_type() -> None:
    documented = {}
    for names, kinds in re.findall(r"^\| (`[^|]+`) \| ([a-z, ]+) \|", DOCUMENT, re.MULTILINE):
        columns, types = re.findall(r"`(\w+)`", names), kinds.split(", ")
        documented |= dict(zip(columns, types * len(columns) if len(types) == 1 else types, strict=False))
    kind = dict.fromkeys(WHOLE, "whole") | dict.fromkeys(REAL, "real") | dict.fromkeys(TRUTH, "truth")
    assert documented == {name: kind.get(name, "text") for name in COLUMNS}
    assert list(documented) == list(COLUMNS)


def test_three_lines_of_pandas_give_a_mean_with_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas

    [block] = re.findall(r"## In pandas\n\n(?:\*Needs [^\n]*\n\n)?```python\n(.*?)```", DOCUMENT, re.DOTALL)
    key = Key(metric="val_accuracy", network="convnet", sparsity=20.0)  # the dataset does not apply
    numbers = [Number(key=key, value=90.0 + seed, epochs=4, seed=seed) for seed in range(3)]
    text = Table([*numbers, Number(key=key, value=None, state="missing", epochs=4, seed=3)]).csv()
    read = pandas.read_csv
    monkeypatch.setattr(pandas, "read_csv", lambda name: read(io.StringIO(text)))
    *lines, last = [ast.unparse(statement) for statement in ast.parse(block).body]
    space: dict[str, object] = {"pandas": pandas}
    exec("\n".join([*lines, f"means = {last}"]), space)
    [row] = space["means"].to_dict("records")
    assert (row["mean"], row["std"], row["count"]) == (91.0, 1.0, 3)
