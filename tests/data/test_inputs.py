"""Data that are no images: features of any shape and tokens, taken as they are, through a whole search."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from tombola.data.inputs import InputBatches
from tombola.errors import DataError, NetworkError, RecipeError
from tombola.networks import network as networks
from tombola.training.epoch import DevicePlan, gathered_at_step

QUICK = tb.Recipe(epochs=2, batch_size=50, lr=0.1)


@pytest.fixture(autouse=True)
def _own_factories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(networks._networks, "_declared", {})
    return


def texts(count: int, seed: int, length: int = 8) -> tuple[Tensor, Tensor]:
    """Tokens out of 12; the class says whether token 3 is among them."""
    tokens = torch.randint(0, 12, (count, length), generator=torch.Generator().manual_seed(seed))
    labels = (torch.arange(count) % 2).long()
    tokens[tokens == 3] = 4
    tokens[labels == 1, 2] = 3
    return tokens, labels


@pytest.fixture(scope="module")
def tokens() -> tb.Data:
    return tb.data_from_tensors(texts(200, 1), texts(100, 2), name="made-up-texts", vocabulary=12)


class TinyTransformer(nn.Module):
    def __init__(self, vocabulary: int, length: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 16)
        self.position = nn.Parameter(torch.zeros(length, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens) + self.position).mean(1))


def mlp(channels: int, size: tuple[int, ...], classes: int) -> nn.Module:
    inputs = channels * torch.Size(size).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, classes))


def test_a_small_transformer_on_text_finds_its_tickets(tokens: tb.Data, tmp_path: Path) -> None:
    tb.declare_network("tiny-transformer")(TinyTransformer)
    start = tb.job(tb.initialize, "tiny-transformer", tokens)
    dense = tb.job(tb.train, start, tokens, QUICK)
    runs = [dense, tb.job(tb.train, tb.job(tb.prune, dense, fraction=0.5), tokens, QUICK)]
    lab = tb.Lab(tmp_path / "store")
    dense_run, sparse_run = map(lab.result, runs)
    # By hand: a layer has 3x16x16 + 16x16 + 2x16x32 of them, and the head 16x2.
    assert dense_run.ticket.total == 2 * (4 * 256 + 2 * 512) + 32
    assert sparse_run.ticket.kept == dense_run.ticket.total // 2
    assert "left out: " in repr(dense_run.ticket)
    assert {"embedding.weight", "position"} <= set(dense_run.ticket.coverage.left_out)
    # The store gives the same data to another process, and the search the same runs without a store.
    again = list(tb.imp(tb.initialize("tiny-transformer", tokens), tokens, QUICK, rounds=1, fraction=0.5))
    assert [run.fingerprint for run in again] == [dense_run.fingerprint, sparse_run.fingerprint]
    assert tb.barrier(dense_run, dense_run, tokens, points=3).height == 0
    assert tb.Lab(lab.store.root).result(tb.job(tb.barrier, *runs, tokens, points=3)).errors is not None
    probes = tb.probe(sparse_run, tokens, blocks=["head"], head="head")
    assert 0 <= probes.accuracy[0] <= 100


def test_a_transformer_learns_the_made_up_task(tokens: tb.Data) -> None:
    run = tb.train(
        tb.initialize(TinyTransformer, tokens), tokens, tb.Recipe(epochs=12, batch_size=20, lr=0.1)
    )
    assert run.accuracy > 95


def test_images_that_are_given_as_normalised_features_train_alike(digits: tb.Data) -> None:
    some = tb.subset(digits, shots=10)
    mean, std = some.mean.view(1, -1, 1, 1), some.std.view(1, -1, 1, 1)
    splits = [((part.images / 255 - mean) / std, part.labels) for part in (some.train, some.test)]
    features = tb.data_from_tensors(*splits, features=True)
    plain = tb.Recipe(epochs=3, batch_size=30, augmentation=tb.Augmentation(pad=0, flip=False))
    expected = tb.train(tb.initialize("convnet", some), some, plain)
    run = tb.train(tb.initialize("convnet", features), features, plain)
    for name, value in expected.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (2, 2, 3, 2)])
def test_features_of_any_shape_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(60, *shape, generator=draws)
    labels = torch.arange(60) % 3
    data = tb.data_from_tensors((values, labels), (values[:30], labels[:30]))
    assert (data.channels, data.size, data.shape) == (shape[0], shape[1:], shape)
    batches = InputBatches(data.train, data)
    order = torch.tensor([7, 3, 3])
    assert torch.equal(batches.images(order, order, order), values[order])
    assert torch.equal(batches.unaugmented(2, 5), values[2:5])
    runs = list(tb.imp(tb.initialize(mlp, data), data, QUICK, rounds=1))
    assert runs[1].ticket.round == 1
    assert len(tb.subset(data, shots=4).train) == 12
    assert torch.equal(InputBatches(tb.subset(data, shots=4).test, data).unaugmented(0, 30), values[:30])


def test_a_step_on_a_device_takes_the_batch_that_its_plan_points_to(tokens: tb.Data) -> None:
    batches = InputBatches(tokens.train, tokens)
    plan = DevicePlan.empty(len(batches), 50, torch.device("cpu"))
    plan.order.copy_(torch.arange(len(batches)).flip(0))
    plan.step.fill_(1)
    inputs, labels = gathered_at_step(plan, batches, 50)
    assert torch.equal(inputs, tokens.train.images[100:150].flip(0))
    assert torch.equal(labels, tokens.train.labels[100:150].flip(0))
    plan.order[60] = 10**9
    gathered_at_step(plan, batches, 50)
    assert int(plan.strays) == 1


def test_features_are_normalised_as_declared() -> None:
    values = torch.randn(6, 2, 3, dtype=torch.float32)
    labels = torch.arange(6) % 2
    data = tb.data_from_tensors(
        (values, labels), (values, labels), normalization=([1.0, -2.0], [2.0, 0.5]), name="x"
    )
    by_hand = (values - torch.tensor([1.0, -2.0])[:, None]) / torch.tensor([2.0, 0.5])[:, None]
    torch.testing.assert_close(InputBatches(data.train, data).unaugmented(0, 6), by_hand)
    assert data.fingerprint != tb.data_from_tensors((values, labels), (values, labels)).fingerprint


def test_the_vocabulary_is_part_of_the_data(tokens: tb.Data) -> None:
    other = tb.data_from_tensors(texts(200, 1), texts(100, 2), vocabulary=13)
    assert other.fingerprint != tokens.fingerprint
    assert repr(tokens) == (
        "<data made-up-texts: 200 train and 100 test texts of length 8, a vocabulary of 12, 2 classes>"
    )
    assert tb.data_from_tensors(texts(200, 1), texts(100, 2)).vocabulary == 12
    start = tb.initialize(TinyTransformer, tokens)
    words = "is for 8 tokens out of 12 of 2 classes; .* has 8 tokens out of 13 of 2 classes"
    with pytest.raises(NetworkError, match=words):
        tb.train(start, other, QUICK)


def test_a_network_for_images_is_not_for_texts(tokens: tb.Data) -> None:
    with pytest.raises(NetworkError, match=r"network convnet cannot be built: TypeError: .*'channels'"):
        tb.initialize("convnet", tokens)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.rand(4, 3, 8, 8), r"images are float32 \(4, 3, 8, 8\); give .* as uint8.*features=True"),
        (torch.zeros(4, 8, 8, 3).byte(), r"looks like \(N, H, W, C\); give .*permute\(0, 3, 1, 2\)"),
        (torch.rand(4, 5).double(), r"features float32 \(N, \.\.\.\), .*got torch.float64 \(4, 5\)"),
        (torch.rand(4), r"got torch.float32 \(4,\)"),
        (torch.zeros(4, 0, dtype=torch.int64), r"tokens are \(4, 0\), each of no values"),
        (torch.zeros(4, 2, 2, dtype=torch.int64), r"tokens int64 \(N, length\); got torch.int64 \(4, 2, 2\)"),
        (torch.full((4, 5), torch.nan), "features are infinite or NaN somewhere"),
        (torch.full((4, 5), -1), "tokens run from -1 to -1; allowed 0 to"),
    ],
)  # fmt: skip
def test_other_inputs_are_refused_with_what_to_do(inputs: Tensor, words: str) -> None:
    split = inputs, torch.tensor([0, 1, 0, 1])
    with pytest.raises(DataError, match=words):
        tb.data_from_tensors(split, split, vocabulary=9 if inputs.dtype == torch.int64 else None)


def test_what_is_for_images_alone_is_refused(tokens: tb.Data) -> None:
    start = tb.initialize(TinyTransformer, tokens)
    with pytest.raises(
        RecipeError, match="augments images, but made-up-texts has tokens; leave its augmentation"
    ):
        tb.train(start, tokens, tb.Recipe(epochs=1, augmentation=tb.Augmentation(pad=2)))
    with pytest.raises(DataError, match="made-up-texts has tokens; only images can be given another size"):
        tb.fit_images(tokens)
    split = texts(20, 0)
    with pytest.raises(DataError, match="vocabulary is 0; it must be the number of tokens"):
        tb.data_from_tensors(split, split, vocabulary=0)
    features = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(DataError, match="vocabulary is 5, but these are features; leave it out"):
        tb.data_from_tensors(features, features, vocabulary=5)
    with pytest.raises(DataError, match=r"train features are \(3,\), test tokens \(8,\); both must be alike"):
        tb.data_from_tensors(features, split)
