"""What the tests share: small data, one short training, one short pruning chain, and exact comparison."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import forked
import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import tombola as tb
from tombola import registry
from tombola.training.checkpoint import Checkpoint, Checkpoints

# No deadline: a slow machine is no bug. The same examples every time: a failure seen once is seen again.
hypothesis.settings.register_profile("tombola", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("tombola")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that take long minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long minutes; pytest --long runs it"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _declared_functions_end_with_their_test() -> Iterator[None]:
    """What a test declares is forgotten after it, so that tests may run in any order."""
    registry._import_built_in()
    before = dict(registry._declarations)
    yield
    registry._declarations.clear()
    registry._declarations.update(before)


@pytest.fixture
def forked_workers() -> Iterator[None]:
    """Worker processes begin in a tenth of the time; for tests of what they do, not of how they start."""
    with forked.workers():
        yield


@pytest.fixture(scope="session")
def libraries() -> torch.library.Library | None:
    """timm and torchvision, also where torchvision's compiled operators are of another PyTorch than ours."""
    for package in ("timm", "torchvision"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    # Tried elsewhere: defined here too, its own operators would end this process.
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    if tried.returncode == 0:
        return None
    # No network needs them, but without their names torchvision is not imported.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators  # which end with this value


@pytest.fixture(scope="session")
def digits() -> tb.Data:
    """1,198 train and 599 test images of 1x8x8, ten classes."""
    return tb.load_data("digits")


@pytest.fixture(scope="session")
def colour() -> tb.Data:
    """Made-up colour images of 3x8x10 that may be mirrored: four class patterns under noise; 210 and 90."""
    draws = torch.Generator().manual_seed(5)
    patterns = torch.randint(0, 256, (4, 3, 8, 10), generator=draws).float()

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 4
        noise = 90 * torch.randn(count, 3, 8, 10, generator=draws)
        return (patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels

    return tb.data_from_tensors(split(210), split(90), name="colour")


@pytest.fixture(scope="session")
def recipe() -> tb.Recipe:
    """Three epochs of twelve steps on the digits, the last of 98 images."""
    return tb.Recipe(epochs=3, batch_size=100, lr=0.1, momentum=0.9)


@pytest.fixture(scope="session")
def start(digits: tb.Data) -> tb.Ticket:
    """The dense convnet at initialisation 0."""
    return tb.initialize("convnet", digits, seed=0)


@pytest.fixture(scope="session")
def run(start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> tb.Run:
    """The dense convnet trained under noise 1."""
    return tb.train(start, digits, recipe, noise=1)


@pytest.fixture(scope="session")
def late(start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> tb.Ticket:
    """The dense convnet at epoch 1 of the same training."""
    return tb.pretrain(start, digits, recipe, epochs=1, noise=1)


@pytest.fixture(scope="session")
def chain(late: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> list[tb.Run]:
    """Three runs of a pruning chain that rewinds to epoch 1: dense, half and a quarter of the weights."""
    return list(tb.imp(late, digits, recipe, rounds=2, fraction=0.5, noise=3))


@pytest.fixture(scope="session")
def same_bits() -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], bool]:
    """Whether two states have the same names and the same bits."""

    def compare(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
        def plain(state: Mapping[str, Tensor]) -> dict[str, Any]:
            return {
                name: (value.dtype, value.shape, value.numpy().tobytes()) for name, value in state.items()
            }

        return plain(first) == plain(second)

    return compare


@pytest.fixture(scope="session")
def same_run(same_bits: Callable[..., bool]) -> Callable[[tb.Run, tb.Run], bool]:
    """Whether two runs agree in everything that is reproducible: all but the seconds of their epochs."""

    def rows(run: tb.Run) -> list[str]:
        return [repr({**row, "seconds": None}) for row in run.history.table()]

    def compare(first: tb.Run, second: tb.Run) -> bool:
        return (
            same_bits(first.weights, second.weights)
            and same_bits(first.forgetting.tensors(), second.forgetting.tensors())
            and rows(first) == rows(second)
        )

    return compare


@pytest.fixture(scope="session")
def damaged() -> Callable[[st.DataObject, bytes], bytes]:
    """The content of a file cut short anywhere, or with any one bit flipped."""

    def damage(data: st.DataObject, content: bytes) -> bytes:
        whole = bytearray(content)
        place = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            return bytes(whole[:place])
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
        return bytes(whole)

    return damage


class Interrupting(Checkpoints):
    """Keeps a checkpoint at every opportunity and stops the training at one of them.

    left: opportunities until then. kept: whether the checkpoint of the last one is still written.
    """

    class Interrupted(Exception):
        """Raised at that opportunity."""

    def __init__(self, folder: Path, left: int, *, kept: bool = True) -> None:
        super().__init__(folder, every=0)
        self.left, self._kept = left, kept

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        self.left -= 1
        if self.left > 0 or self._kept:
            super().advanced(snapshot, epoch_end=epoch_end)
        if self.left == 0:
            raise self.Interrupted


@pytest.fixture(scope="session")
def interrupting() -> type[Interrupting]:
    """Checkpoints that interrupt a training; test files cannot import from here."""
    return Interrupting
