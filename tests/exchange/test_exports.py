"""Runs and tickets as modules and in the forms of other libraries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import tombola as tb
from tombola.errors import DataError, ExportError, RecipeError
from tombola.exchange import exports

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


@pytest.fixture(scope="module")
def sparse(chain: list[tb.Run]) -> tb.Run:
    """A run of half of the weights."""
    return chain[1]


@torch.no_grad()
def test_a_runs_module_has_its_accuracy_on_batches_and_on_pixels(sparse: tb.Run, digits: tb.Data) -> None:
    module = tb.module(sparse)
    assert not module.training
    right = sum(int((module(x).argmax(1) == y).sum()) for x, y in tb.batches(digits, batch_size=100))
    assert 100 * right / len(digits.test) == sparse.accuracy
    pixels = sparse.module(normalize="digits")
    logits = torch.cat([module(images) for images, _ in tb.batches(digits, "train")])
    assert torch.equal(pixels(digits.train.images[:500]), logits[:500])
    assert torch.allclose(pixels(digits.train.images.float()), logits, atol=1e-5)
    sizes = [len(labels) for _, labels in tb.batches(digits, "train", batch_size=500)]
    assert sizes == [500, 500, 198]


def test_a_tickets_module_is_where_training_starts(sparse: tb.Run, digits: tb.Data) -> None:
    ticket = sparse.ticket
    state = ticket.module().state_dict()
    assert all(torch.equal(state[name], value) for name, value in ticket.weights().items())
    module = tb.module(ticket)
    next(module.parameters()).data.fill_(7)  # the caller's own
    assert not torch.equal(module.state_dict()["0.weight"], ticket.start["0.weight"])


def test_batches_of_nothing_are_refused(digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="no split 'tests'; did you mean 'test'"):
        tb.batches(digits, "tests")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="batch_size is 0; it must be at least 1"):
        tb.batches(digits, batch_size=0)


@pytest.mark.parametrize(
    ("suffix", "normalize"),
    [
        (".safetensors", None),
        (".safetensors", "digits"),
        (".pt", None),
        (".pt", "digits"),
        (".pt2", "digits"),
    ],
)
def test_what_is_written_reads_back_to_the_bit(
    sparse: tb.Run, suffix: str, normalize: str | None, tmp_path: Path
) -> None:
    assert tb.convert(sparse, tmp_path / f"run{suffix}", normalize=normalize) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"run{suffix}"]


def test_a_state_dict_is_read_without_tombola(sparse: tb.Run, tmp_path: Path) -> None:
    tb.convert(sparse, tmp_path / "run.safetensors")
    module = sparse.ticket.network.build()
    module.load_state_dict(safetensors.torch.load_file(tmp_path / "run.safetensors"))
    again = tb.run_from(module, network=sparse.ticket.network)
    assert all(torch.equal(again.weights[name], value) for name, value in sparse.weights.items())


def test_the_pruned_form_is_torchs_own(sparse: tb.Run, tmp_path: Path) -> None:
    ticket = sparse.ticket
    tb.convert(ticket, tmp_path / "ticket.pt")
    module = ticket.network.build()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        torch_prune.identity(layer, "weight")
    module.load_state_dict(torch.load(tmp_path / "ticket.pt", weights_only=True))
    assert torch.equal(layers[0].weight_mask.bool(), ticket.mask["0.weight"])  # type: ignore[operator]
    assert torch.equal(layers[0].weight_orig, ticket.start["0.weight"])  # type: ignore[arg-type]
    again = tb.ticket_from(module, network=ticket.network, epoch=ticket.epoch)
    assert again.fingerprint == ticket.fingerprint  # dense start, mask, round and density


def test_an_exported_program_takes_any_number_of_images(sparse: tb.Run, tmp_path: Path) -> None:
    tb.convert(sparse, tmp_path / "run.pt2")
    program = torch.export.load(tmp_path / "run.pt2").module()
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(program(images), sparse.module()(images), atol=1e-6)


@pytest.mark.skipif(not ONNX, reason="needs onnx and onnxscript")
def test_onnx_gives_the_same_logits(sparse: tb.Run, tmp_path: Path) -> None:
    assert tb.convert(sparse, tmp_path / "run.onnx", normalize="digits") < 1e-4
    images = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    logits = exports._read_onnx(tmp_path / "run.onnx")
    assert torch.allclose(logits(images), sparse.module(normalize="digits")(images), atol=1e-4)


def test_what_cannot_be_written_leaves_the_file_as_it_was(
    sparse: tb.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.safetensors"
    path.write_text("before")
    monkeypatch.setattr(exports, "_emptied", lambda module: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
    with pytest.raises(ExportError, match=r"logits that differ by .* when read back"):
        tb.convert(sparse, path)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("run.h5", {}, "the suffix of 'run.h5' tells no form; known: .safetensors"),
        ("run.x", {"form": "onxx"}, "no form 'onxx'; did you mean 'onnx'"),
    ],
)
def test_an_unknown_form_is_refused(
    sparse: tb.Run, name: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        tb.convert(sparse, tmp_path / name, **options)  # type: ignore[arg-type]


def test_missing_packages_of_onnx_are_named(
    sparse: tb.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install 'tombola\[onnx\]'$"):
        tb.convert(sparse, tmp_path / "run.onnx")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pt2"])
def test_a_ticket_with_trained_weights_is_written_with_these(
    sparse: tb.Run, suffix: str, tmp_path: Path
) -> None:
    ticket = tb.prune(sparse, fraction=0.2, rewinding="learning_rate")
    assert tb.convert(ticket, tmp_path / f"ticket{suffix}") == 0


def test_a_network_of_tokens_is_written_and_not_normalised(tmp_path: Path) -> None:
    def bag(classes: int, vocabulary: int) -> nn.Module:
        return nn.Sequential(nn.EmbeddingBag(vocabulary, 4), nn.Linear(4, classes))

    split = torch.arange(20).view(10, 2), torch.arange(10) % 2
    texts = tb.data_from_tensors(split, split)
    start = tb.initialize(bag, texts)
    assert tb.convert(start, tmp_path / "texts.safetensors") == 0
    with pytest.raises(DataError, match="has tokens, which are not normalised; leave normalize out"):
        start.module(normalize=texts)


def test_features_are_normalised_on_their_own_scale() -> None:
    def one_layer(channels: int, classes: int) -> nn.Module:
        return nn.Linear(channels, classes)

    split = torch.linspace(-3, 5, 50).view(10, 5), torch.arange(10) % 2
    features = tb.data_from_tensors(split, split, normalization=([1.0] * 5, [3.0] * 5))
    start = tb.initialize(one_layer, features)
    inputs, _ = next(tb.batches(features, "test"))
    assert torch.equal(start.module(normalize=features)(split[0]), start.module()(inputs))
