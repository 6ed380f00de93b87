"""Features, tokens and attention on a GPU: captured steps that repeat their bits and keep the mask."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tombola as tb

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

RECIPE = tb.Recipe(epochs=12, batch_size=24, lr=0.1)


class Attending(nn.Module):
    """One layer of attention over tokens, or over the rows of an image."""

    def __init__(self, classes: int, vocabulary: int | None = None, size: tuple[int, ...] = (8,)) -> None:
        super().__init__()
        self.embedding = nn.Linear(size[-1], 16) if vocabulary is None else nn.Embedding(vocabulary, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.embedding(inputs.flatten(1, 2) if inputs.ndim == 4 else inputs)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(tokens.mean(1))


@pytest.fixture
def tokens() -> tb.Data:
    """The class says whether token 3 is among them."""

    def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
        texts = torch.randint(0, 12, (count, 8), generator=torch.Generator().manual_seed(seed))
        labels = torch.arange(count) % 2
        texts[texts == 3] = 4
        texts[labels == 1, 2] = 3
        return texts, labels

    return tb.data_from_tensors(split(200, 1), split(100, 2), vocabulary=12)


@pytest.fixture
def features(digits: tb.Data) -> tb.Data:
    """The digits as 64 features each."""
    train, test = ((part.images.flatten(1) / 255, part.labels) for part in (digits.train, digits.test))
    return tb.data_from_tensors(train, test)


def two_layers(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, 32), nn.ReLU(), nn.Linear(32, classes))


@pytest.mark.parametrize(
    ("data", "factory"), [("tokens", Attending), ("features", two_layers), ("digits", Attending)]
)
def test_steps_are_captured_repeat_and_keep_the_mask(
    data: str, factory: type[nn.Module], request: pytest.FixtureRequest, same_run: Callable[..., bool]
) -> None:
    chosen = request.getfixturevalue(data)
    start = tb.initialize(factory, chosen)
    with warnings.catch_warnings():
        if data != "digits":  # what is no image is not tried in fused passes, so nothing is said
            warnings.simplefilter("error")
        runs = [
            list(tb.imp(start, chosen, RECIPE, rounds=1, fraction=0.5, device="cuda"))[1] for _ in range(2)
        ]
    assert same_run(*runs)
    assert runs[0].engine.startswith("graphed")
    assert runs[0].accuracy > (95 if data == "tokens" else 30)
    for name, keep in runs[0].ticket.mask.items():
        assert not runs[0].weights[name][~keep].any()
    barrier = tb.barrier(runs[0], runs[1], chosen, points=3, device="cuda")
    assert barrier.height == 0


def test_a_resnet50_has_fused_steps(digits: tb.Data) -> None:
    small = tb.subset(digits, shots=8)
    run = tb.train(tb.initialize("resnet50", small), small, tb.Recipe(epochs=1, batch_size=40), device="cuda")
    assert run.engine == "graphed, fused"
