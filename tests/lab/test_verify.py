"""What verify checks by checksums alone: results of undeclared networks and other versions of functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola import declared
from tombola.errors import JobError, StoreError, Undeclared
from tombola.lab import shared
from tombola.lab.execute import load_result
from tombola.lab.verify import verify
from tombola.networks import network


def linear(channels: int, size: tuple[int, int], classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size[0] * size[1], classes))


@pytest.fixture
def own_network(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(network._networks._declared, "forgotten-linear", {1: linear})
    return "forgotten-linear"


def forget(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As in a process that never imported what declares a network."""
    monkeypatch.delitem(network._networks._declared, name)
    shared._object.cache_clear()


def test_a_result_and_an_own_ticket_of_an_undeclared_network_are_counted(
    tmp_path: Path, own_network: str, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tb.Lab(tmp_path / "store")
    start = tb.job(tb.initialize, own_network, "digits")
    given = tb.initialize(own_network, digits, seed=7)
    lab.run([start, tb.job(tb.untrained, given, "digits")]).raise_failures()
    not_rebuilt: Counter[str] = Counter()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {}
    forget(monkeypatch, own_network)
    assert list(verify(lab.store, not_rebuilt)) == []
    # The start by its job, and the ticket of the caller's own by its tensors.
    assert not_rebuilt == {"network forgotten-linear": 2}
    with pytest.raises(
        Undeclared, match=r"^job \w{12} cannot be read here: no network 'forgotten-linear'; "
    ) as said:
        load_result(lab.store, start.name)
    assert isinstance(said.value, StoreError)
    assert "damaged" not in str(said.value)
    assert "delete" not in str(said.value)


def test_a_result_of_another_version_of_a_function_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tb.Lab(tmp_path / "store")

    @tb.declare("aged")
    def aged(number: int) -> int:
        return number

    lab.run([tb.job(aged, 1), tb.job(aged, 2)]).raise_failures()
    monkeypatch.setitem(declared._declarations, "aged", declared.Declaration("aged", 2, True, aged))
    not_rebuilt: Counter[str] = Counter()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {"function aged, version 1": 2}
    monkeypatch.delitem(declared._declarations, "aged")
    with pytest.raises(JobError, match="no declared function 'aged'"):
        declared.declaration("aged")
    not_rebuilt.clear()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {"function aged": 2}
