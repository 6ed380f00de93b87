"""Runs and tickets pushed to a hub on loopback and pulled from it; what a card says and its program does."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import tombola as tb
from tombola.errors import HubError, TicketError
from tombola.lab.execute import Settings
from tombola.lab.finished import load_result
from tombola.sharing.hub_traffic import Push
from tombola.sharing.model_card import Background, model_card
from tombola.sharing.plain_pytorch import definition, program

Same = Callable[..., bool]


@pytest.fixture(scope="module")
def sparse(chain: list[tb.Run]) -> tb.Run:
    """A run of a ticket that keeps a quarter of the weights."""
    return chain[2]


@pytest.fixture(scope="module")
def pushed(sparse: tb.Run, recipe: tb.Recipe) -> Push:
    """What would be pushed of it, with all that can be told."""
    return sparse.push_to_hub("me/x", data="digits", recipe=recipe, license="mit", dry_run=True)


def program_of(card: str) -> str:
    """The first code block of a card."""
    [text, *_] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(text)


def metadata_of(card: str) -> dict[str, Any]:
    """What stands between the first two lines of dashes."""
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_a_run_comes_back_to_the_bit(
    hub: Any, pushed: Push, sparse: tb.Run, recipe: tb.Recipe, same_run: Same
) -> None:
    push = sparse.push_to_hub("me/x", data="digits", recipe=recipe, license="mit")
    assert push.origin is not None
    assert hub.files("me/x") == dict(push.files)
    # safetensors writes the entries of its metadata in any order.
    same = push.files.keys() - {"run.safetensors"}
    assert {name: push.files[name] for name in same} == {name: pushed.files[name] for name in same}
    pulled = tb.Run.from_hub("me/x")
    assert pulled.fingerprint == sparse.fingerprint
    assert same_run(pulled, sparse)
    assert pulled.ticket.hub == push.origin
    assert tb.Ticket.from_hub("me/x").fingerprint == sparse.ticket.fingerprint
    older = push.origin.revision
    # Another revision, whose ticket is another; the first is still to be had by its commit.
    newer = sparse.ticket.push_to_hub("me/y", with_start=True)
    hub.put("me/x", {"run.safetensors": b"", "ticket.safetensors": newer.files["ticket.safetensors"]})
    with pytest.raises(TicketError, match="is damaged"):
        tb.Run.from_hub("me/x")
    assert tb.Run.from_hub("me/x", revision=older).fingerprint == sparse.fingerprint
    ticket = tb.Ticket.from_hub("me/y")
    assert (ticket.fingerprint, ticket.complete) == (sparse.ticket.fingerprint, True)
    with pytest.raises(
        HubError, match=r"^me/y@\w{12} holds a ticket and no run; read it with Ticket.from_hub"
    ):
        tb.Run.from_hub("me/y")


def test_the_program_of_the_card_loads_the_weights_and_masks_in_pytorch_alone(
    hub: Any, sparse: tb.Run, pushed: Push, digits: tb.Data, tmp_path: Path
) -> None:
    hub.put("me/x", dict(pushed.files))
    card = pushed.card
    text = program_of(card)
    assert "tombola" not in text
    assert "pip install torch safetensors huggingface_hub`" in card
    (tmp_path / "program.py").write_text(text)
    space = runpy.run_path(str(tmp_path / "program.py"))
    assert not space["network"].training
    for name, weight in space["network"].state_dict().items():
        assert torch.equal(weight, sparse.weights[name])
    assert space["masks"].keys() == sparse.ticket.mask.keys()
    assert all(torch.equal(mask, sparse.ticket.mask[name]) for name, mask in space["masks"].items())
    right = space["predict"](digits.test.images) == digits.test.labels
    assert 100 * float(right.double().mean()) == pytest.approx(sparse.accuracy)


def test_a_card_says_what_was_pushed(pushed: Push, sparse: tb.Run, start: tb.Ticket) -> None:
    card = pushed.card
    metadata = metadata_of(card)
    assert (metadata["library_name"], metadata["license"]) == ("tombola", "mit")
    [result] = metadata["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(sparse.accuracy / 100, abs=1e-6)
    assert "| sparsity | 75.0000% (2,114 of 8,456 weights kept) |" in card
    assert "| batch\\_size | 100 |" in card
    assert "![Accuracy and loss by epoch](curve.png)" in card
    assert pushed.files["curve.png"].startswith(b"\x89PNG")
    of_ticket = start.push_to_hub("me/x", dry_run=True)
    assert of_ticket.files.keys() == {"README.md", "ticket.safetensors", "model.safetensors"}
    assert "license" not in metadata_of(of_ticket.card)
    assert "The recipe was not told when this was pushed" in model_card(
        sparse, Background(), "me/x", "", None
    )


def two_layers(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))


@pytest.mark.parametrize("name", ["convnet", "lenet300", "conv2", "two_layers"])
def test_a_network_is_defined_by_its_own_text(name: str, digits: tb.Data) -> None:
    ticket = tb.initialize({"two_layers": two_layers}.get(name, name), digits)
    text = definition(ticket.network, dict(ticket.start))
    assert text is not None
    assert "tombola" not in text
    assert f"network = {name}(" in text


def test_a_network_without_a_text_of_its_own_is_left_to_the_reader(digits: tb.Data) -> None:
    for network in (lambda channels, classes: two_layers(channels, classes), two_layers(1, 10)):
        ticket = tb.initialize(network, digits)
        assert definition(ticket.network, dict(ticket.start)) is None
    text = program(ticket.network, None, "me/x", ("model.safetensors", "ticket.safetensors"), None)
    assert "network = ...  # <Sequential>: an nn.Module" in text
    compile(text, "<program>", "exec")


def test_a_diverged_run_is_pushed_like_any_other(hub: Any, digits: tb.Data, start: tb.Ticket) -> None:
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=600, lr=1e30, momentum=0.0))
    assert run.diverged
    card = run.push_to_hub("me/x", data=digits).card
    assert "**The training diverged.**" in card
    assert "def convnet(" in card
    assert tb.Run.from_hub("me/x").fingerprint == run.fingerprint


def test_what_a_stranger_called_things_is_inert_in_a_card(sparse: tb.Run) -> None:
    name = "<script>|\x1b[31m[a](b)\n# b"
    background = Background(data_name=name, job="`c`", provenance={"hardware": "|d"})
    card = model_card(sparse, background, "me/x", "", None)
    assert metadata_of(card)["model-index"][0]["results"][0]["dataset"]["name"] == name
    _, _, shown = card.partition("\n---\n")
    assert "\x1b" not in shown
    assert "\n# b" not in shown
    assert "| data | \\<script\\>\\|\N{REPLACEMENT CHARACTER}\\[31m\\[a\\](b) # b |" in shown
    assert "| job | \\`c\\` |" in shown
    assert "| hardware | \\|d |" in shown


def test_the_revision_is_in_the_provenance_of_jobs(
    hub: Any, sparse: tb.Run, digits: tb.Data, tmp_path: Path
) -> None:
    push = sparse.ticket.push_to_hub("me/x")
    assert push.origin is not None
    ticket = tb.Ticket.from_hub("me/x")
    lab = tb.Lab(tmp_path / "store", settings=Settings(device="cpu"))
    job = tb.job(tb.train, ticket, "digits", tb.Recipe(epochs=2, batch_size=600))
    # The name is that of the same ticket from anywhere.
    assert job.name == tb.job(tb.train, sparse.ticket, "digits", tb.Recipe(epochs=2, batch_size=600)).name
    lab.run(job).raise_failures()
    assert lab.store.provenance(job.name)["pulled"] == [push.origin.description()]
    assert load_result(lab.store, job.name).ticket.hub == push.origin
    saved = tmp_path / "ticket.safetensors"
    ticket.save(saved)
    assert tb.Ticket.load(saved).hub == push.origin
    assert "pulled from" in ticket._repr_html_()


def test_a_private_repository_is_made_so_and_read_with_its_token(
    hub: Any, start: tb.Ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.push_to_hub("me/x", private=True)
    assert hub.repositories["model", "me/x"].private
    assert tb.Ticket.from_hub("me/x").fingerprint == start.fingerprint
    # A second push leaves it private.
    start.push_to_hub("me/x")
    assert hub.repositories["model", "me/x"].private
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_reader")
    with pytest.raises(HubError, match=r"no repository 'me/x' on http.*, or it is private"):
        tb.Ticket.from_hub("me/x")


def test_a_dry_run_asks_the_hub_for_nothing(
    hub: Any, start: tb.Ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    push = start.push_to_hub("me/x", dry_run=True)
    assert (hub.asked, push.origin) == ([], None)
    assert push.sizes["README.md"] == len(push.card.encode())
    assert repr(push).startswith("<3 files, ")


def test_a_pulled_ticket_is_there_again_when_the_hub_is_not(hub: Any, start: tb.Ticket) -> None:
    push = start.push_to_hub("me/x")
    tb.Ticket.from_hub("me/x")
    hub.status = 503
    again = tb.Ticket.from_hub("me/x")
    assert (again.fingerprint, again.hub) == (start.fingerprint, push.origin)
    with pytest.raises(HubError, match=r"^me/y cannot be read: the hub at .* cannot be reached"):
        tb.Ticket.from_hub("me/y")
