"""Runs and tickets from weights that were trained elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import tombola as tb
from tombola.errors import NetworkError, TicketError


def module_of(run: tb.Run) -> nn.Module:
    module = run.ticket.network.build()
    module.load_state_dict(run.weights)
    return module


@pytest.fixture(scope="module")
def foreign(chain: list[tb.Run], tmp_path_factory: pytest.TempPathFactory) -> list[tb.Run]:
    """The runs of the chain as they come back from a file, a module and a nested, prefixed checkpoint."""
    folder = tmp_path_factory.mktemp("foreign")
    safetensors.torch.save_file(dict(chain[0].weights), folder / "dense.safetensors")
    nested = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in chain[2].weights.items()}}
    torch.save(nested, folder / "nested.pt")
    return [
        tb.run_from(folder / "dense.safetensors", network="convnet", data="digits"),
        tb.run_from(module_of(chain[1]), network=chain[1].ticket.network),
        tb.run_from(str(folder / "nested.pt"), network="convnet", data="digits"),
    ]


def test_a_barrier_is_to_the_bit_that_of_native_runs(
    foreign: list[tb.Run], chain: list[tb.Run], digits: tb.Data
) -> None:
    for pair in ((0, 1), (1, 2)):
        native, measured = (
            tb.barrier(*(runs[index] for index in pair), digits, points=5, recalibrate="beside")
            for runs in (chain, foreign)
        )
        assert measured == native
    mixed = tb.barrier(chain[0], foreign[1], digits, points=5)
    assert mixed == tb.barrier(chain[0], chain[1], digits, points=5)


def test_the_mask_is_what_is_not_zero_and_pruning_goes_on_from_it(
    foreign: list[tb.Run], chain: list[tb.Run]
) -> None:
    for run, native in zip(foreign, chain, strict=True):
        assert all(torch.equal(run.ticket.mask[name], keep) for name, keep in native.ticket.mask.items())
    pruned, native_ticket = (tb.prune(runs[0], fraction=0.5) for runs in (foreign, chain))
    assert all(torch.equal(pruned.mask[name], keep) for name, keep in native_ticket.mask.items())
    given = pruned.with_start(chain[0].ticket.start)
    assert given.start_fingerprint == native_ticket.start_fingerprint
    assert torch.equal(given.weights()["0.weight"], native_ticket.weights()["0.weight"])


def test_probes_of_a_foreign_run_are_those_of_the_native_one(
    foreign: list[tb.Run], chain: list[tb.Run], digits: tb.Data
) -> None:
    few = tb.subset(digits, shots=5)
    recipe = tb.Recipe(epochs=1, batch_size=25)
    measured, native = (tb.probe(runs[1], few, recipe=recipe) for runs in (foreign, chain))
    assert measured == native


@pytest.mark.parametrize(
    "ask",
    [
        lambda run, data: run.accuracy,
        lambda run, data: run.best_accuracy,
        lambda run, data: run.summary(),
        lambda run, data: tb.convergence(run),
        lambda run, data: tb.forgetting(run),
        lambda run, data: tb.forgetting_curve(run),
        lambda run, data: tb.forgotten_subset(data, run, which="least", shots=1),
        lambda run, data: tb.train(run.ticket, data, tb.Recipe(epochs=1)),
        lambda run, data: tb.untrained(run.ticket, data),
        lambda run, data: tb.prune(run, score="movement"),
        lambda run, data: tb.prune(run, score=_of_start),
        lambda run, data: tb.reinitialize(run.ticket, seed=1) and tb.permute(run.ticket, seed=1),
    ],
)
def test_what_a_foreign_run_does_not_have_is_said(
    ask: Callable[[tb.Run, tb.Data], object], foreign: list[tb.Run], digits: tb.Data
) -> None:
    tb.declare_score("of-start")(_of_start)
    with pytest.raises(TicketError, match=r"trained elsewhere|not known") as raised:
        ask(foreign[1], digits)
    assert "\n" not in str(raised.value)


def _of_start(run: tb.Run) -> dict[str, torch.Tensor]:
    return {name: run.ticket.start[name] for name in run.ticket.mask}


def test_a_foreign_run_is_shown_saved_stored_and_measured_by_jobs(
    foreign: list[tb.Run], chain: list[tb.Run], digits: tb.Data, tmp_path: Path
) -> None:
    assert repr(foreign[1]) == "<run of convnet: 50.00% sparse, trained elsewhere>"
    assert (foreign[1].failed, foreign[1].end) == (False, "trained")
    foreign[1].save(tmp_path / "run.safetensors")
    for again in (tb.Run.load(tmp_path / "run.safetensors"), pickle.loads(pickle.dumps(foreign[1]))):
        assert again.fingerprint == foreign[1].fingerprint
        assert again.foreign
        assert not again.ticket.has_start
    description, tensors = foreign[1].pack()
    altered = description | {"ticket": description["ticket"] | {"start": chain[0].ticket.start_fingerprint}}
    with pytest.raises(TicketError, match="names a start that it says is not known"):
        tb.Run.unpack(altered, tensors)
    lab = tb.Lab(tmp_path / "store")
    measured = lab.result(tb.job(tb.barrier, foreign[0], foreign[1], "digits", points=3))
    assert measured == tb.barrier(chain[0], chain[1], digits, points=3)


def test_copies_trained_elsewhere_have_an_instability(run: tb.Run, digits: tb.Data) -> None:
    start, other = run.ticket, tb.train(run.ticket, digits, tb.Recipe(epochs=1, batch_size=300), noise=5)
    copies = [
        tb.run_from(native.weights, network=start.network, start=start.start) for native in (run, other)
    ]
    native = tb.barrier(run, other, digits, points=3)
    (line,) = tb.instability(copies, digits, points=3).lines
    assert (line.errors, line.losses) == (native.errors, native.losses)
    assert copies[0].ticket.fingerprint == start.fingerprint


def test_pairs_of_torchs_pruning_give_mask_and_dense_start(start: tb.Ticket, digits: tb.Data) -> None:
    module = start.network.build()
    module.load_state_dict(start.start)
    layers = [(layer, "weight") for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    torch_prune.global_unstructured(layers, pruning_method=torch_prune.L1Unstructured, amount=0.5)
    with pytest.raises(NetworkError, match=r"say network=..., or make the pruning permanent"):
        tb.ticket_from(module, data=digits)
    ticket = tb.ticket_from(module, network="convnet", data=digits)
    assert ticket.round == 1
    assert ticket.complete
    assert ticket.start_fingerprint == start.start_fingerprint
    assert torch.equal(ticket.weights()["0.weight"], module[0].weight)
    for layer, _ in layers:
        torch_prune.remove(layer, "weight")
    baked = tb.ticket_from(module, data=digits)  # copies of the module itself
    assert all(torch.equal(baked.mask[name], keep) for name, keep in ticket.mask.items())
    assert not baked.complete
    recipe = tb.Recipe(epochs=1, batch_size=300)
    trained = tb.train(baked, digits, recipe)
    native = tb.train(ticket, digits, recipe)
    assert all(torch.equal(trained.weights[name], value) for name, value in native.weights.items())


def test_a_pretrained_ticket_is_a_dense_start(run: tb.Run, digits: tb.Data) -> None:
    ticket = tb.ticket_from(run.weights, network="convnet", data=digits, epoch=1)
    assert (ticket.round, ticket.epoch, ticket.sparsity) == (0, 1, 0)
    assert tb.untrained(ticket, digits).accuracy == run.accuracy


@pytest.mark.parametrize(
    ("weights", "options", "error", "message"),
    [
        (lambda s: dict(list(s.items())[1:]), {}, TicketError, "not of network convnet: they lack 0.weight"),
        (lambda s: s | {"x": s["0.weight"]}, {}, TicketError, "they have odd x"),
        (
            lambda s: s | {"0.weight": s["0.weight"][:3]},
            {},
            TicketError,
            r"have 0.weight as \(3, 1, 3, 3\), not \(8, 1, 3, 3\)",
        ),
        (lambda s: s | {"epoch": 3}, {}, TicketError, "weights have 'epoch', a int and no tensor"),
        (lambda s: 3, {}, TicketError, "weights are a int; give a module, a state_dict or a file"),
        (lambda s: "nowhere.pt", {}, TicketError, "no file 'nowhere.pt'"),
        (lambda s: s, {"network": None}, NetworkError, "say network="),
        (lambda s: s, {"data": None}, NetworkError, "data is not given: say data="),
        (lambda s: s, {"network": "convnot"}, NetworkError, "no network 'convnot'; did you mean 'convnet'"),
        (lambda s: s, {"mask": {"1.weight": torch.ones(8)}}, TicketError, "no prunable weight '1.weight'"),
        (lambda s: s, {"mask": {"0.weight": torch.ones(8)}}, TicketError, r"mask of 0.weight must be \(8, 1"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    start: tb.Ticket, weights: Any, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        tb.run_from(weights(dict(start.start)), **{"network": "convnet", "data": "digits", **options})
    assert "\n" not in str(raised.value)


def test_nothing_in_a_file_is_executed(tmp_path: Path, start: tb.Ticket) -> None:
    torch.save(start.network.build(), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    for name in ("module.pt", "text.pt"):
        with pytest.raises(TicketError, match="is no file of tensors alone"):
            tb.run_from(tmp_path / name, network=replace(start.network))


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs a GPU with bfloat16",
)
def test_on_a_gpu_a_barrier_is_to_the_bit_that_of_native_runs(start: tb.Ticket, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=50, precision="bfloat16")
    runs = [tb.train(start, digits, recipe, noise=noise, device="cuda") for noise in (1, 2)]
    foreign = [
        tb.run_from(run.weights, network=start.network, start=start.start, precision="bfloat16")
        for run in runs
    ]
    measured, native = (tb.barrier(*pair, digits, points=3, device="cuda") for pair in (foreign, runs))
    assert (measured.errors, measured.losses) == (native.errors, native.losses)
    module = tb.module(runs[0], "cuda")
    right = sum(int((module(x).argmax(1) == y).sum()) for x, y in tb.batches(digits, device="cuda"))
    assert abs(100 * right / len(digits.test) - runs[0].accuracy) < 2  # plain float32, not fused bfloat16
