"""The shelf of tickets: out of an export, a store or a hub on loopback, and that of the project's results."""

from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.errors import HubError, StoreError
from tombola.lab.chains import imp_jobs
from tombola.lab.export import export_tickets

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, list[tb.Job], list[tb.Job], Path]:
    """A lab with a chain from a seed and one from a pretraining, their runs, and the export of both."""
    lab = tb.Lab(tmp_path_factory.mktemp("shelf") / "store")
    recipe = tb.Recipe(epochs=2, batch_size=600, momentum=0.0)
    seeded, late = (
        imp_jobs("convnet", "digits", recipe, rounds=1, fraction=0.5, seed=1, rewind=rewind)
        for rewind in (0, 1)
    )
    lab.run([*seeded, *late]).raise_failures()
    file = lab.store.root.parent / "store.zip"
    export_tickets(lab.store, None, file, 1)
    return lab, seeded, late, file


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOMBOLA_SHELF", raising=False)


def test_a_shelf_lists_tickets_by_what_they_are(chains: Any, tmp_path: Path) -> None:
    lab, seeded, late, file = chains
    shelf = tb.shelf(source=file)
    names = ["convnet-digits-0.0-600-seed1-round1", "convnet-digits-0.0-600-rewind1-seed1-round1"]
    assert [entry.name for entry in shelf] == names
    first, second = shelf
    assert (first.start, second.start) == ("seed", "missing")
    assert (first.sparsity, first.round, first.momentum, first.rewind) == (0.5, 1, 0.0, 0)
    assert first.accuracy == lab.result(seeded[1]).accuracy
    assert second.accuracy == lab.result(late[1]).accuracy
    assert str(shelf).splitlines()[1].split() == [names[0], "50.00%", f"{first.accuracy:.2f}%", "seed"]
    assert list(shelf.frame().name) == names
    assert repr(shelf) == f"<shelf of 2 tickets from {file}; print(shelf) lists them>"
    # Unpacked once: the second time from the cache.
    assert len(list((tmp_path / "cache" / "shelf").iterdir())) == 1
    assert tb.shelf(source=file.parent).store.root == shelf.store.root


def test_a_ticket_off_the_shelf_is_the_one_that_was_trained(
    chains: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, seeded, late, file = chains
    monkeypatch.setenv("TOMBOLA_SHELF", str(file))
    trained = lab.result(seeded[1]).ticket
    ticket = tb.shelf("convnet-digits-0.0-600-seed1-round1")
    assert ticket.fingerprint == trained.fingerprint
    assert ticket.complete
    assert tb.permute(ticket, seed=0).fingerprint == tb.permute(trained, seed=0).fingerprint
    with pytest.raises(StoreError, match=r"this ticket was trained and is not in the export; import it into"):
        tb.shelf("convnet-digits-0.0-600-rewind1-seed1-round1")
    with pytest.raises(StoreError, match=r"no ticket on the shelf '.*-round2'; did you mean '.*-round1'\?"):
        tb.shelf("convnet-digits-0.0-600-seed1-round2")
    # In the store itself every start is there.
    whole = tb.shelf(source=lab.store.root)
    assert {entry.start for entry in whole} == {"there"}
    late_ticket = whole.load("convnet-digits-0.0-600-rewind1-seed1-round1")
    assert late_ticket.fingerprint == lab.result(late[1]).ticket.fingerprint


def test_a_shelf_comes_from_the_hub_with_its_revision(chains: Any, hub: Any) -> None:
    file = chains[3]
    commit = hub.put("me/shelf", {"store.zip": file.read_bytes()}, "dataset")
    ticket = tb.shelf("convnet-digits-0.0-600-seed1-round1", source="me/shelf")
    assert ticket.hub is not None
    assert (ticket.hub.repository, ticket.hub.revision) == ("me/shelf", commit)
    hub.put("me/empty", {"x": b""}, "dataset")
    with pytest.raises(
        StoreError, match=r"^me/empty@\w{12} holds no shelf: it has no store.zip; it holds x$"
    ):
        tb.shelf(source="me/empty")
    with pytest.raises(HubError, match="no repository 'me/none'"):
        tb.shelf(source="me/none")
    hub.put("me/damaged", {"store.zip": file.read_bytes()[:-1000]}, "dataset")
    with pytest.raises(StoreError, match="is damaged or no export"):
        tb.shelf(source="me/damaged")


def test_without_a_shelf_at_hand_it_is_said_that_none_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.sharing.shelf._RESULTS", Path("/nowhere"))
    with pytest.raises(
        StoreError, match="no shelf is at hand, and none is published on a hub yet; give source="
    ):
        tb.shelf()
    with pytest.raises(StoreError, match="nothing-here is no shelf; give an export of tickets"):
        tb.shelf(source="nothing-here")


@pytest.mark.long
def test_the_results_of_the_project_are_a_shelf() -> None:
    shelf = tb.shelf(source=RESULTS)
    loadable = [entry for entry in shelf if entry.start == "seed"]
    assert {entry.name for entry in loadable} >= {
        f"resnet18-cifar10-{momentum}-{batch}-round10" for momentum in ("0.0", "0.9") for batch in (100, 256)
    }
    ticket = shelf.load("resnet18-cifar10-0.0-256-round10")
    assert (ticket.kept, ticket.total, ticket.round) == (1_198_763, 11_164_352, 10)
    # As results/README.md prints it.
    accuracies = {entry.name: entry.accuracy for entry in loadable}
    assert accuracies["resnet18-cifar10-0.0-256-round10"] == pytest.approx(94.26, abs=0.005)
