"""Runs and tickets from weights that were trained elsewhere."""

from __future__ import annotations

import io
import pickle
import zipfile
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
        (
            lambda s: s | {"0.weight": s["0.weight"] + 0j},
            {},
            TicketError,
            "have 0.weight in complex numbers",
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


class Called:
    """What a pickle writes down as a call."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, Any]:
        return self._call[0], self._call[1:]


def zipped(content: bytes, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A file as torch.save writes it, of this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, text in ({"data.pkl": content, "version": b"3", "byteorder": b"little"} | members).items():
            archive.writestr(f"archive/{name}", text)
    return file.getvalue()


# A tuple that holds the one before twice, sixty times, as the key of a dictionary.
TUPLES = b"K\x01\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
HOSTILE: dict[str, bytes] = {
    "bytes of any number": zipped(pickle.dumps(Called(bytearray, 10**15), 2)),
    "the same before zip files": b"".join(
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, Called(bytearray, 10**15))
    ),
    "a bomb": zipped(pickle.dumps({}, 2), zipfile.ZIP_DEFLATED, zeros=bytes(10**6)),
    "tuples that double": zipped(b"\x80\x02" + TUPLES + b"}h\x3cK\x01s."),
    "no stack": zipped(b"\x80\x02a."),
    "no memo": zipped(b"\x80\x02h\x09."),
    "no tensor": zipped(pickle.dumps(Called(torch._utils._rebuild_tensor_v2, 1, 2, 3, 4, 5, 6), 2)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_ends_in_an_error_that_names_it(
    tmp_path: Path, start: tb.Ticket, content: bytes
) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(TicketError, match=r"weights\.pt is no file of tensors alone"):
        tb.run_from(tmp_path / "weights.pt", network=start.network)


def test_attributes_in_a_file_are_no_methods(tmp_path: Path, start: tb.Ticket) -> None:
    attribute = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sb."
    (tmp_path / "weights.pt").write_bytes(zipped(attribute))
    with pytest.raises(TicketError, match="they lack"):
        tb.run_from(tmp_path / "weights.pt", network=start.network)


ODD: dict[str, Callable[[torch.Tensor], dict[Any, torch.Tensor]]] = {
    "a number for a name": lambda weight: {1: weight},
    "no values": lambda weight: {"0.weight": weight.to("meta")},
    "sparse": lambda weight: {"0.weight": weight.to_sparse()},
    "a sparse mask": lambda weight: {"0.weight_orig": weight, "0.weight_mask": weight.to_sparse()},
    "a name of many parts": lambda weight: {"a." * 10**6 + "w": weight},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_tensors_in_a_file_are_refused(
    tmp_path: Path, start: tb.Ticket, odd: Callable[[torch.Tensor], dict[Any, torch.Tensor]]
) -> None:
    weight = start.start["0.weight"]
    rest = {name: value for name, value in start.start.items() if name != "0.weight"}
    tensors = odd(weight)
    torch.save(tensors if len(str(next(iter(tensors)))) > 99 else rest | tensors, tmp_path / "weights.pt")
    with pytest.raises(TicketError):
        tb.run_from(tmp_path / "weights.pt", network=start.network)


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


def test_a_foreign_ticket_is_not_pruned_by_a_start_that_is_not_known(run: tb.Run, digits: tb.Data) -> None:
    foreign = tb.run_from(run.weights, network="convnet", data=digits)
    with pytest.raises(TicketError, match="it is not known what training started from"):
        tb.prune(foreign.ticket, fraction=0.2)


def test_weights_of_a_network_of_tokens_are_a_run() -> None:
    def bag(classes: int, vocabulary: int) -> nn.Module:
        return nn.Sequential(nn.EmbeddingBag(vocabulary, 4), nn.Linear(4, classes))

    split = torch.arange(20).view(10, 2), torch.arange(10) % 2
    texts = tb.data_from_tensors(split, split)
    module = bag(2, 20)
    for foreign in (
        tb.run_from(module.state_dict(), network=bag, data=texts),
        tb.run_from(module, data=texts),
    ):
        assert foreign.ticket.network.vocabulary == 20
        assert all(torch.equal(foreign.weights[name], value) for name, value in module.state_dict().items())
