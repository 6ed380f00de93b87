"""What ends in one line: hostile repositories, missing tokens, rights, networks and repositories."""

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save

import tombola as tb
from tombola import files
from tombola.errors import HubError
from tombola.hub_origin import HubOrigin
from tombola.sharing import hub_traffic

HOSTILE_HEADER = struct.pack("<Q", 2**62) + b"{}"


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


def altered(ticket: tb.Ticket, folder: Path, **changes: Any) -> bytes:
    """A ticket's file with changes to its description, seal and checksums right."""
    description, tensors = ticket.pack()
    files.write_tensors(folder / "altered", "tombola.ticket/1", {**description, **changes}, tensors)
    return (folder / "altered").read_bytes()


def refusal(repository: str = "me/x", revision: str | None = None) -> str:
    """The one line of a pull that is refused."""
    with pytest.raises(tb.TombolaError) as refused:
        tb.Ticket.from_hub(repository, revision=revision)
    line = str(refused.value)
    assert line.isprintable()
    return line


def test_a_hostile_repository_ends_in_one_line_and_runs_nothing(
    hub: Any, start: tb.Ticket, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    bomb = pickle.dumps(Planted(trap))
    shapes = {name: [10**9, 10**9] for name in start.mask}
    network = start.network.description() | {"channels": 10**9}
    contents: list[tuple[dict[str, bytes], str]] = [
        ({}, "it is empty"),
        ({"README.md": b"", "pytorch_model.bin": bomb}, "it holds README.md, pytorch_model.bin"),
        ({"../../ticket.safetensors": bomb, "/etc/x": b""}, "neither run.safetensors nor ticket.safetensors"),
        ({"\x1b[31m": b""}, "neither run.safetensors"),
        ({"ticket.safetensors": bomb}, "ticket.safetensors is damaged or not a tensor file"),
        ({"ticket.safetensors": HOSTILE_HEADER}, "ticket.safetensors is damaged or not a tensor file"),
        ({"ticket.safetensors": save({"a": torch.ones(2)})}, "holds 'something', not 'tombola.ticket/1'"),
        ({"run.safetensors": altered(start, tmp_path)}, "holds 'tombola.ticket/1', not 'tombola.run/1'"),
        ({"ticket.safetensors": altered(start, tmp_path, shapes=shapes)}, "a packed mask of shape"),
        ({"ticket.safetensors": altered(start, tmp_path, network=network)}, "not of network 'convnet'"),
        ({"ticket.safetensors": altered(start, tmp_path, hub={"repository": "../x"})}, "not a ticket"),
    ]
    for number, (content, message) in enumerate(contents):
        name = f"me/x{number}"
        hub.put(name, content)
        assert message in refusal(name)
    assert not trap.exists()
    # Nothing was asked for but files of known names.
    fetched = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert fetched <= {"run.safetensors", "ticket.safetensors"}
    cache = tmp_path / "hub-cache"
    assert all(cache in path.parents for path in tmp_path.rglob("*.safetensors"))


def test_a_file_that_is_too_long_is_not_fetched(hub: Any, start: tb.Ticket) -> None:
    start.push_to_hub("me/x")
    hub.sizes["ticket.safetensors"] = 2**60
    asked = len(hub.asked)
    assert "has 1,152,921,504,606,846,976 bytes; at most 17,179,869,184 are fetched" in refusal()
    assert not any("resolve" in line for line in hub.asked[asked:])


def test_a_commit_that_is_a_path_is_refused(hub: Any, start: tb.Ticket) -> None:
    push = start.push_to_hub("me/x")
    there = hub.repositories["model", "me/x"]
    there.commits = {"../../../escaped": dict(push.files)}
    assert "'../../../escaped' is no commit of me/x" in refusal()


def test_an_unknown_repository_or_revision_is_told(hub: Any, start: tb.Ticket) -> None:
    start.push_to_hub("me/x")
    assert refusal("me/y").startswith("no repository 'me/y' on http://127.0.0.1:")
    assert (
        refusal("me/x", "nothere") == "me/x has no revision 'nothere'; give a branch, a tag or a commit of it"
    )
    for name in ("x", "me/x/y", "", "../x", "me/..", "a b"):
        assert refusal(name).startswith(f"{name!r} is no name of a repository; give user/name, such as me/x")
        with pytest.raises(HubError, match="is no name of a repository"):
            start.push_to_hub(name, dry_run=True)


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        (None, "me/x", "no token for the hub, so nothing can be pushed to me/x; run hf auth login"),
        ("hf_wrong", "me/x", "the hub does not accept the token for me/x; run hf auth login"),
        ("hf_of_a_reader", "me/x", "this token has no rights to me/x, which cannot be written to"),
        ("hf_of_the_owner", "others/x", "this token has no rights to others/x, which cannot be written to"),
    ],
)
def test_a_push_without_token_or_rights_is_told(
    hub: Any,
    start: tb.Ticket,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    repository: str,
    message: str,
) -> None:
    hub.put("others/x", {})
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError) as refused:
        start.push_to_hub(repository)
    assert str(refused.value).startswith(message)
    assert ("model", "me/x") not in hub.repositories


def test_a_hub_that_is_not_there_is_told(nowhere: str, start: tb.Ticket) -> None:
    for call in (tb.Ticket.from_hub, tb.Run.from_hub, tb.Table.from_hub, start.push_to_hub):
        with pytest.raises(HubError, match=rf"cannot be .*: the hub at {nowhere} cannot be reached"):
            call("me/x")


def test_a_hub_that_falls_silent_between_two_questions_is_told(
    hub: Any, start: tb.Ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.push_to_hub("me/x")
    there = hub_traffic.snapshot("me/x", "model", None, ("ticket.safetensors",))

    def silent(*_: object, **__: object) -> str:  # as the library has it, after retries that take long
        raise LocalEntryNotFoundError("cannot find it in the local cache") from ConnectionError()

    monkeypatch.setattr("huggingface_hub.hf_hub_download", silent)
    with pytest.raises(
        HubError, match=rf"^me/x cannot be fetched: the hub at {hub.address} cannot be reached"
    ):
        there.file("ticket.safetensors", 2**20)


def test_what_is_to_be_private_never_goes_where_all_can_read(hub: Any, start: tb.Ticket) -> None:
    start.push_to_hub("me/x")
    with pytest.raises(
        HubError, match=r"^me/x is there and public, so nothing was uploaded; make it private"
    ):
        start.push_to_hub("me/x", private=True)
    assert len(hub.repositories["model", "me/x"].commits) == 1


def test_an_origin_is_a_repository_and_a_commit() -> None:
    origin = HubOrigin("me/x", "0" * 40)
    assert HubOrigin.described(json.loads(json.dumps(origin.description()))) == origin
    for repository, revision in (("me/x", "main"), ("me/x", "0" * 41), ("me//x", "0" * 40), ("/x", "0" * 40)):
        with pytest.raises(ValueError, match=r"is no (commit|repository)"):
            replace(origin, repository=repository, revision=revision)


def test_any_other_failure_of_the_library_is_one_line(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(HubError, match=r"^me/x cannot be read: odd things$"),
        hub_traffic._told("me/x", "read"),
    ):
        raise RuntimeError("odd\nthings")
