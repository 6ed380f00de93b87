"""Trainings on a GPU by tables of convolution plans, and of tiles of our own, that a test makes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pytest
import torch
from kernels import CUDA
from torch import Tensor

import tombola as tb
from tombola.data.augmentation import draw
from tombola.training.cuda import cudnn, plans, tiles
from tombola.training.cuda.cudnn import Algorithm, Convolution, CudnnError
from tombola.training.cuda.plans import PlanTable
from tombola.training.cuda.tiles import LineProduct, Tiles, TileTable
from tombola.training.device import repeatable
from tombola.training.engines import GraphedEngine
from tombola.training.epoch import EpochPlan


class Everything(dict[Convolution, Algorithm]):
    """A table that has the first of cuDNN's proposals that can be built, for any shape."""

    def __contains__(self, product: object) -> bool:
        return True

    def __missing__(self, product: Convolution) -> Algorithm:
        for algorithm in cudnn.proposals(product):
            with suppress(CudnnError):
                cudnn.plan(product, algorithm)
                self[product] = algorithm
                break
        return dict(self)[product]


def put_tables(
    monkeypatch: pytest.MonkeyPatch,
    algorithms: Mapping[Convolution, Algorithm],
    cuts: Mapping[LineProduct, Tiles] | None = None,
) -> None:
    """Put tables for this GPU in the place of those that ship; none of tiles where ``cuts`` is None."""
    gpu, version = torch.cuda.get_device_name(), torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    triton = str(tiles.triton_version())
    monkeypatch.setattr(plans, "tables", lambda: {(gpu, version): PlanTable(gpu, version, algorithms)})
    table = {} if cuts is None else {(gpu, triton): TileTable(gpu, triton, cuts)}
    monkeypatch.setattr(tiles, "tile_tables", lambda: table)


def images_of(count: int) -> tb.Data:
    """Images of noise, 32x32 and labelled in turn."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(count) % 10
    return tb.data_from_tensors((images, labels), (images[:10], labels[:10]))


def trained(network: str) -> tuple[str, dict[str, Tensor]]:
    """The engine's name, and momentum and weights after a step of 32 images and a smaller one."""
    data = images_of(40)
    recipe = tb.Recipe(epochs=1, batch_size=32, lr=0.1, momentum=0.9, precision="bfloat16")
    ticket = tb.initialize(network, data, seed=0)
    with repeatable(CUDA):
        engine = GraphedEngine(ticket.network, data, recipe, CUDA, "bfloat16")
        engine.flat_network.load(ticket.weights(), ticket.mask)
        drawn = draw(recipe.augmentation, data, noise=0, round=0, epoch=0)
        engine.begin(EpochPlan(torch.arange(40), drawn, [0.1, 0.1], 32).to(CUDA))
        engine.advance(0, 1)
        momentum = engine.flat_network.optimizer_state()
        engine.advance(1, 2)
        return engine.name, momentum | engine.flat_network.state()
