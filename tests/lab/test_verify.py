"""What verify checks by checksums alone: results of undeclared networks and other versions of functions."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola import registry, source
from tombola.cli import store
from tombola.errors import JobError, StoreError, Undeclared
from tombola.lab import objects
from tombola.lab.finished import load_result
from tombola.lab.store import read_json, write_json
from tombola.lab.user_code import import_file
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
    objects._object.cache_clear()


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
    monkeypatch.setitem(registry._declarations, "aged", registry.Declaration("aged", 2, True, aged))
    not_rebuilt: Counter[str] = Counter()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {"function aged, version 1": 2}
    monkeypatch.delitem(registry._declarations, "aged")
    with pytest.raises(JobError, match="no declared function 'aged'"):
        registry.declaration("aged")
    not_rebuilt.clear()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {"function aged": 2}


NETWORK = """import tombola as tb
from torch import nn


@tb.declare_network("two-layers")
def two_layers(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, classes))
"""


@pytest.fixture
def write_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declares the network from a file, with something in it replaced, as a new process would."""
    monkeypatch.setattr(network._networks, "_declared", dict(network._networks._declared))
    monkeypatch.setattr(source, "_declared", {})

    def write(old: str = "", new: str = "") -> None:
        assert old in NETWORK
        (tmp_path / "mine.py").write_text(NETWORK.replace(old, new) if old else NETWORK)
        network._networks._declared.pop("two-layers", None)
        source._declared.pop(("networks", "two-layers"), None)
        for name in [name for name in sys.modules if name.startswith("tombola_own_")]:
            monkeypatch.delitem(sys.modules, name)
        objects._object.cache_clear()
        import_file(tmp_path / "mine.py")

    return write


@pytest.mark.parametrize(
    ("edit", "recorded", "label", "words"),
    [
        (("8", "9"), True, "network two-layers, edited since", "or --recompute two-layers"),
        (
            ("    return", "    raise OSError('no disk')\n    return"), True,
            "network two-layers, edited since", "raise its version, or --recompute two-layers",
        ),
        (
            ("    return", "    raise OSError('no disk')\n    return"), False,
            "network two-layers, which cannot be built", "cannot be built: OSError: no disk; mend",
        ),
        (
            ('"two-layers"', '"two-layers", version=2'), True,
            "network two-layers, version 1", "no version 1 of network 'two-layers' here; there is 2",
        ),
    ],
)  # fmt: skip
def test_sound_results_of_a_network_that_is_another_now_are_no_damage(
    tmp_path: Path,
    digits: tb.Data,
    write_network: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    edit: tuple[str, str],
    recorded: bool,
    label: str,
    words: str,
) -> None:
    write_network()
    lab = tb.Lab(tmp_path / "store")
    start = tb.job(tb.initialize, "two-layers", "digits")
    own = tb.job(tb.untrained, tb.initialize("two-layers", digits, seed=7), "digits")
    lab.run([start, own]).raise_failures()
    if not recorded:
        for job in (start, own):
            place = lab.store.folder(job.name) / "provenance.json"
            write_json(place, {key: value for key, value in read_json(place).items() if key != "source"})
    write_network(*edit)
    with pytest.raises(Undeclared, match=f"^job {start.name[:12]} .*{words}") as said:
        load_result(lab.store, start.name)
    assert "damaged" not in str(said.value)
    assert "delete" not in str(said.value)
    not_rebuilt: Counter[str] = Counter()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {label: 2}  # the start by its job, and the ticket of the caller's own
    store.verify(lab.store.root)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"not rebuilt: {label} (2 results)"
    assert printed[1].endswith("what is not rebuilt has the right checksums")
    write_network()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not_rebuilt == {label: 2}


def test_damage_is_told_beside_an_edited_network_and_what_is_not_declared_at_all_has_its_hint(
    tmp_path: Path,
    digits: tb.Data,
    write_network: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_network()
    lab = tb.Lab(tmp_path / "store")
    own = tb.job(tb.untrained, tb.initialize("two-layers", digits, seed=7), "digits")
    lab.run([own, tb.job(tb.initialize, "two-layers", "digits")]).raise_failures()
    write_network("8", "9")
    (path,) = (lab.store.root / "objects" / f"{value}.safetensors" for value in own.values)
    sound = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(sound[:-5] + bytes([sound[-5] ^ 4]) + sound[-4:])
    (damage,) = verify(lab.store)
    assert damage.place == f"objects/{path.name}"
    path.write_bytes(sound)
    monkeypatch.delitem(network._networks._declared, "two-layers")
    capsys.readouterr()
    store.verify(lab.store.root)
    assert "--import FILE.py declares what is in a file of yours" in capsys.readouterr().out
