"""Tables of tiles: read, matched exactly, told apart and refused; and those that ship."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tombola.training import device
from tombola.training.cuda import tiles
from tombola.training.cuda.cudnn import Convolution
from tombola.training.cuda.plans import fingerprint
from tombola.training.cuda.tiles import LineProduct, Tiles, misfit, read_tiles, tiles_for
from tombola.training.device import ENGINE_VERSIONS, convolution_plans

# Other tiles are other bits on the same libraries and hardware, so a change here raises the version.
SHIPPED: dict[int, dict[str, str]] = {}

ROW = {
    "operation": "input", "channels": 64, "side": 32, "batch": 256, "sums": True,
    "images": 1, "tall": 4, "out": 64, "pixel_stages": 4, "weight_stages": 9, "apart": True,
    "microseconds": 42.85, "replaced_microseconds": 75.96,
}  # fmt: skip
PRODUCT, TILES = LineProduct("input", 64, 32, 256, True), Tiles(1, 4, 64, 4, 9, True)


def content(*rows: Any, gpu: Any = "GPU X", triton: Any = "3.6.0") -> dict[str, Any]:
    return {"gpu": gpu, "triton": triton, "tiles": list(rows)}


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Path]]:
    """Puts tables in the place of those that ship."""
    monkeypatch.setattr(tiles, "FOLDER", tmp_path)
    tiles.tile_tables.cache_clear()

    def shipped(table: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(table if isinstance(table, str) else json.dumps(table))
        return path

    yield shipped
    tiles.tile_tables.cache_clear()


def test_a_table_names_the_tiles_of_a_shape(ship: Callable[[Any], Path]) -> None:
    ship(content(ROW))
    table = tiles_for("GPU X", "3.6.0")
    assert table is not None
    assert table.tiles == {PRODUCT: TILES}


@pytest.mark.parametrize(
    ("gpu", "triton"), [("GPU Y", "3.6.0"), ("GPU X", "3.6.1"), ("GPU", "3.6.0"), ("GPU X", None)]
)
def test_another_gpu_or_triton_has_no_table(
    gpu: str, triton: str | None, ship: Callable[[Any], Path]
) -> None:
    ship(content(ROW))
    assert tiles_for(gpu, triton) is None


@pytest.mark.parametrize(
    "other",
    [{"batch": 100}, {"side": 16}, {"channels": 128}, {"operation": "forward"}, {"sums": False}],
    ids=lambda other: next(iter(other)),
)
def test_a_shape_is_matched_exactly(other: dict[str, Any], ship: Callable[[Any], Path]) -> None:
    ship(content(ROW))
    table = tiles_for("GPU X", "3.6.0")
    assert table is not None
    names = ("operation", "channels", "side", "batch", "sums")
    assert LineProduct(**{name: (ROW | other)[name] for name in names}) not in table.tiles


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ("{", "is no table of tiles"),
        ([], "is no table"),
        ({"gpu": "GPU X", "triton": "3.6.0"}, "no 'tiles'"),
        (content(gpu=3), "gpu and triton must be text"),
        (content(triton=3), "gpu and triton must be text"),
        (content(ROW | {"operation": "weight"}), "'weight' is none of forward, input"),
        (content(ROW | {"sums": 1}), "sums must be true or false"),
        (content(ROW | {"apart": None}), "apart must be true or false"),
        (content(ROW | {"batch": 2.5}), "batch must be a whole number"),
        (content(ROW | {"tall": 0}), "tall must be a whole number from 1"),
        (content({name: value for name, value in ROW.items() if name != "out"}), "no 'out'"),
        (content(ROW, ROW | {"tall": 8}), "names a convolution twice"),
        (content(ROW | {"channels": 48}), "multiple of 64"),
        (content(ROW | {"out": 128}), "out must be 64"),
        (content(ROW | {"tall": 3}), "tall must divide the side"),
    ],
)
def test_a_malformed_table_is_refused_by_name(table: Any, cause: str, ship: Callable[[Any], Path]) -> None:
    path = ship(table)
    with pytest.raises(ValueError, match=cause) as refused:
        read_tiles(path)
    assert path.name in str(refused.value)


@pytest.mark.parametrize(
    ("channels", "side", "cut", "fits"),
    [
        (64, 32, Tiles(1, 4, 64, 4, 9, True), True),
        (128, 16, Tiles(1, 16, 128, 2, 4, False), True),
        (256, 8, Tiles(4, 8, 128, 3, 4, False), True),
        (512, 4, Tiles(8, 4, 128, 5, 5, False), True),
        (512, 2, Tiles(32, 2, 128, 5, 5, False), True),
        (512, 4, Tiles(1, 4, 128, 5, 5, False), False),  # lines of one image that are too short
        (512, 4, Tiles(2, 2, 128, 5, 5, False), False),  # halves of two images
        (256, 8, Tiles(8, 8, 128, 3, 4, False), False),  # more pixels than a product takes
        (128, 12, Tiles(1, 12, 128, 2, 4, False), False),  # no power of two
        (64, 32, Tiles(1, 4, 64, 4, 8, True), False),  # weights stay, all nine taps of them
        (128, 16, Tiles(1, 8, 64, 3, 6, False), False),  # two groups need 128 channels
    ],
)
def test_only_tiles_that_cover_the_images_fit(channels: int, side: int, cut: Tiles, fits: bool) -> None:
    assert (misfit(LineProduct("forward", channels, side, 100, True), cut) is None) == fits


@pytest.mark.parametrize(
    ("convolution", "product"),
    [
        (((9, 64, 8, 8), (64, 64, 3, 3), (1, 1), (1, 1)), LineProduct("input", 64, 8, 9, False)),
        (((9, 64, 8, 8), (64, 64, 3, 3), (2, 2), (1, 1)), None),
        (((9, 64, 8, 8), (64, 64, 3, 3), (1, 1), (0, 0)), None),
        (((9, 64, 8, 8), (128, 64, 3, 3), (1, 1), (1, 1)), None),
        (((9, 64, 8, 8), (64, 64, 1, 1), (1, 1), (1, 1)), None),
        (((9, 64, 8, 4), (64, 64, 3, 3), (1, 1), (1, 1)), None),
    ],
)
def test_convolutions_of_other_kinds_have_no_tiles(convolution: Any, product: LineProduct | None) -> None:
    assert LineProduct.of(Convolution("input", *convolution), "input", False) == product


def test_fingerprints_tell_tiles_and_shapes_apart_but_not_their_order() -> None:
    other = LineProduct("input", 64, 32, 256, False)
    second = Tiles(1, 8, 64, 2, 9, True)
    both = fingerprint({PRODUCT: TILES, other: second})
    assert both == fingerprint({other: second, PRODUCT: TILES})
    others = [{PRODUCT: second, other: TILES}, {PRODUCT: TILES}, {other: TILES}, {other: second}]
    assert len({both, *map(fingerprint, others)}) == 5


def test_measures_record_the_tables_of_their_gpu(
    ship: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU X")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(device, "triton_version", lambda: "3.6.0")
    cuda = torch.device("cuda")
    assert convolution_plans(cuda) == "none"
    tiles.tile_tables.cache_clear()
    ship(content(ROW))
    assert convolution_plans(cuda) == f"none, tiles {fingerprint({PRODUCT: TILES})}"
    monkeypatch.setattr(device, "triton_version", lambda: "3.5.0")
    assert convolution_plans(cuda) == "none"


def test_tables_are_read_without_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import tombola.training.device"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_shipped_tables_are_those_of_the_engine_version() -> None:
    folder = Path(tiles.__file__).with_name("tiles")
    shipped = {path.name: fingerprint(read_tiles(path).tiles) for path in sorted(folder.glob("*.json"))}
    assert shipped == SHIPPED.get(ENGINE_VERSIONS["cuda"], {}), (
        "other tables give other bits: raise the engine's version"
    )
