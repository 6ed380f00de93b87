"""What is declared in a notebook reaches workers by Dask, with its source, and never the store."""

import linecache
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola import source
from tombola.data import transform
from tombola.errors import JobError
from tombola.lab.execute import Settings
from tombola.lab.notebook import declare_sent, sent_definitions
from tombola.networks import network as networks
from tombola.networks.network import Network
from tombola.training.definitions import LOSSES

CELL = """
import os
import tombola as tb
from torch import nn

WIDTH = 5

class Plain(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, classes))

    def forward(self, images):
        return self.layers(images)

@tb.declare_network("notebook-net", version=3)
def notebook_net(channels: int, size: tuple, classes: int):
    return Plain(channels * size[0] * size[1], classes)

@tb.declare("notebook-process")
def notebook_process(ticket: tb.Ticket) -> list[int]:
    return [os.getpid(), ticket.total]
"""


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(networks._networks, "_declared", {})
    monkeypatch.setattr(source, "_declared", dict(source._declared))
    return


def run_cell(text: str, name: str = "<cell 1>") -> dict[str, Any]:
    """What a cell defines, run as IPython does: in ``__main__``, its text kept by linecache."""
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), cell)
    return cell


@pytest.mark.usefixtures("forked_workers")
def test_a_network_and_a_measure_of_a_notebook_run_in_workers(tmp_path: Path) -> None:
    cell = run_cell(CELL)
    lab = tb.Lab(tmp_path / "store", workers=1, settings=Settings(device="cpu"))
    start = tb.job(tb.initialize, "notebook-net", "digits")
    job = tb.job(cell["notebook_process"], start)
    process, weights = lab.result(job)
    assert process != os.getpid()
    assert weights == 64 * 5 + 5 * 10
    kept = lab.store.provenance(start.name)["source"]["networks"]["notebook-net@3"]
    assert kept == source.source_fingerprint("networks", "notebook-net@3")
    assert not (lab.store.root / "files").exists() or not any((lab.store.root / "files").iterdir())


def test_what_was_sent_is_declared_as_it_was() -> None:
    run_cell(CELL)
    sent = sent_definitions([])
    expected = source.source_fingerprint("networks", "notebook-net@3")
    networks._networks._declared.clear()
    source._declared.clear()
    declare_sent(sent)
    assert Network.of("notebook-net", channels=1, size=(8, 8), classes=10).version == 3
    assert source.source_fingerprint("networks", "notebook-net@3") == expected
    assert expected is not None


def test_what_cannot_be_sent_is_refused_where_it_is_needed_alone() -> None:
    cell = run_cell(CELL.replace("WIDTH = 5", "import threading\nWIDTH = threading.Lock()"))
    needed = tb.job(cell["notebook_process"], tb.job(tb.initialize, "notebook-net", "digits"))
    with pytest.raises(JobError, match=r"notebook-net@3 is declared in __main__ and cannot be sent .*lock"):
        sent_definitions([needed])
    sent_definitions([tb.job(tb.initialize, "convnet", "digits")])


PARTS = """
import threading
import tombola as tb
from torch.nn.functional import cross_entropy

LOCK = None

@tb.declare_loss("notebook-loss")
def notebook_loss(logits, labels):
    assert LOCK is None
    return cross_entropy(logits, labels, reduction="none")

@tb.declare_augmentation("notebook-augmentation", draw=lambda count, generator: generator.random(count))
def notebook_augmentation(images, draws):
    return (images * draws.view(-1, 1, 1, 1)).byte()
"""


@pytest.fixture
def _parts_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_declared", {})
    monkeypatch.setattr(transform._augmentations, "_declared", {})
    monkeypatch.setattr(transform, "_transforms", {})


def part_recipe() -> tb.Recipe:
    augmentation = tb.Augmentation(declared="notebook-augmentation")
    return tb.Recipe(epochs=1, batch_size=300, loss="notebook-loss", augmentation=augmentation)


def part_job() -> tb.Job:
    return tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", part_recipe())


@pytest.mark.usefixtures("_parts_forgotten")
def test_parts_of_a_recipe_are_sent_with_their_sources() -> None:
    run_cell(PARTS)
    uses: list[source.Use] = [("losses", "notebook-loss@1"), ("augmentations", "notebook-augmentation")]
    expected = [source.source_fingerprint(*use) for use in uses]
    sent = sent_definitions([part_job()])
    LOSSES._declared.clear()
    transform._augmentations._declared.clear()
    transform._transforms.clear()
    source._declared.clear()
    declare_sent(sent)
    assert None not in expected
    assert [source.source_fingerprint(*use) for use in uses] == expected
    assert tb.train(tb.initialize("convnet", "digits"), "digits", part_recipe()).history


@pytest.mark.usefixtures("_parts_forgotten")
def test_a_loss_that_cannot_be_sent_is_refused_where_it_is_needed() -> None:
    run_cell(PARTS.replace("LOCK = None", "LOCK = threading.Lock()"))
    with pytest.raises(JobError, match=r"notebook-loss@1 is declared in __main__ and cannot be sent .*lock"):
        sent_definitions([part_job()])
