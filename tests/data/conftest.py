"""Tiny data sets in the layouts met on the Hugging Face hub, and a wall between the tests and the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

Picture = Callable[..., Image.Image]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TOMBOLA_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the hub, or the user's copies of what is there."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def picture() -> Picture:
    """Makes an image of noise, different for each number."""

    def make(number: int, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        return Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8))

    return make


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., Path]:
    """Writes splits as parquet files into a folder, the way the hub stores them."""

    def write(splits: dict[str, dict[str, list[Any]]], features: dict[str, Any], name: str = "tiny") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for split, columns in splits.items():
            table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
            table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
        return folder

    return write


@pytest.fixture
def simple(tables: Callable[..., Path], picture: Picture) -> Callable[..., Path]:
    """A folder with an image and a label column, two classes, as many images as asked for in each split."""

    def write(name: str = "tiny", *, column: str = "image", **counts: int) -> Path:
        splits = {
            split: {
                column: [picture(1000 * index + row) for row in range(count)],
                "label": [row % 2 for row in range(count)],
            }
            for index, (split, count) in enumerate(counts.items())
        }
        # Official class orders are seldom alphabetical.
        features = {column: datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])}
        return tables(splits, features, name)

    return write
