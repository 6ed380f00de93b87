"""Tables of convolution plans: read, matched exactly, told apart and refused; and those that ship."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tombola.training.cuda import plans
from tombola.training.cuda.cudnn import Algorithm, Convolution
from tombola.training.cuda.plans import fingerprint, read_table, table_for
from tombola.training.device import ENGINE_VERSIONS

# Other algorithms are other bits on the same libraries and hardware, so a change here raises the version.
SHIPPED: dict[int, dict[str, str]] = {2: {"nvidia-h200-cudnn-91900.json": "58b2f705b4c3"}}

ROW = {
    "operation": "weight", "input": [4, 8, 9, 7], "weight": [16, 8, 3, 3],
    "stride": [2, 1], "padding": [1, 0],
    "engine": 65, "knobs": {"13": 1, "2": 0}, "workspace": 0, "microseconds": 2.5,
}  # fmt: skip
CONVOLUTION = Convolution("weight", (4, 8, 9, 7), (16, 8, 3, 3), (2, 1), (1, 0))


def content(*rows: Any, gpu: Any = "GPU X", cudnn: Any = 91900) -> dict[str, Any]:
    return {"gpu": gpu, "cudnn": cudnn, "plans": list(rows)}


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Path]]:
    """Puts tables in the place of those that ship."""
    monkeypatch.setattr(plans, "FOLDER", tmp_path)
    plans.tables.cache_clear()

    def shipped(table: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(table if isinstance(table, str) else json.dumps(table))
        return path

    yield shipped
    plans.tables.cache_clear()


def test_a_table_names_engine_and_knobs_of_a_shape(ship: Callable[[Any], Path]) -> None:
    ship(content(ROW))
    table = table_for("GPU X", 91900)
    assert table is not None
    assert table.algorithms == {CONVOLUTION: Algorithm(65, ((2, 0), (13, 1)))}


def test_output_of_a_convolution_is_that_of_pytorch() -> None:
    output = functional.conv2d(torch.zeros(4, 8, 9, 7), torch.zeros(16, 8, 3, 3), None, (2, 1), (1, 0))
    assert CONVOLUTION.output == tuple(output.shape)


@pytest.mark.parametrize(
    ("gpu", "cudnn"), [("GPU Y", 91900), ("GPU X", 91901), ("GPU", 91900), ("GPU X", None)]
)
def test_another_gpu_or_cudnn_has_no_table_and_no_user_of_one_is_bothered(
    gpu: str, cudnn: int | None, ship: Callable[[Any], Path]
) -> None:
    ship(content(ROW))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table_for(gpu, cudnn) is None


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ("{", "is no table of convolution plans"),
        ([], "is no table"),
        ({"gpu": "GPU X", "cudnn": 91900}, "no 'plans'"),
        (content(gpu=3), "gpu must be text"),
        (content(cudnn="9.19"), "cudnn a number"),
        (content(cudnn=True), "cudnn a number"),
        (content(ROW | {"operation": "backward"}), "'backward' is none of forward, input, weight"),
        (content(ROW | {"input": [4, 8, 9]}), "input must have 4 whole numbers"),
        (content(ROW | {"stride": [1.5, 1]}), "stride must have 2 whole numbers"),
        (content(ROW | {"engine": -1}), "engine and knobs must be whole numbers"),
        (content(ROW | {"knobs": {"2": "0"}}), "engine and knobs must be whole numbers"),
        (content(ROW | {"knobs": {"tile": 0}}), "is no table"),
        (content(ROW | {"knobs": None}), "is no table"),
        (content({name: value for name, value in ROW.items() if name != "engine"}), "no 'engine'"),
        (content(ROW, ROW | {"engine": 1}), "names a convolution twice"),
    ],
)
def test_a_malformed_table_is_refused_by_name(table: Any, cause: str, ship: Callable[[Any], Path]) -> None:
    path = ship(table)
    with pytest.raises(ValueError, match=cause) as refused:
        read_table(path)
    assert path.name in str(refused.value)


def test_fingerprints_tell_algorithms_and_shapes_apart_but_not_their_order() -> None:
    forward = Convolution("forward", (4, 8, 9, 7), (16, 8, 3, 3), (2, 1), (1, 0))
    first, second = Algorithm(65, ((2, 0),)), Algorithm(65, ((2, 1),))
    both = fingerprint({CONVOLUTION: first, forward: second})
    assert both == fingerprint({forward: second, CONVOLUTION: first})
    others = [
        {CONVOLUTION: second, forward: first},
        {CONVOLUTION: first},
        {forward: first},
        {forward: second},
    ]
    assert len({both, *map(fingerprint, others)}) == 5


def test_shipped_tables_are_those_of_the_engine_version() -> None:
    shipped = {
        path.name: fingerprint(read_table(path).algorithms)
        for path in sorted(Path(plans.__file__).with_name("plans").glob("*.json"))
    }
    assert shipped == SHIPPED.get(ENGINE_VERSIONS["cuda"], {}), (
        "other tables give other bits: raise the engine's version"
    )
