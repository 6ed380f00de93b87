"""Which parameters are pruned, and what becomes of weights under two names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import tombola as tb
from tombola.networks import network as networks
from tombola.networks.network import Network
from tombola.networks.prunable import prunable_names, tied_names
from tombola.training.flat_network import FlatNetwork


@pytest.fixture(autouse=True)
def _own_factories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(networks._networks, "_declared", {})
    return


class Rows(nn.Module):
    """The rows of an image as tokens through one layer of attention."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels * size[1], 12)
        self.position = nn.Parameter(torch.zeros(size[0], 12))
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.head = nn.Linear(12, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.transpose(1, 2).flatten(2)) + self.position
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.head(tokens.mean(1))


def tied(size: tuple[int, int], classes: int) -> nn.Module:
    first, second = nn.Linear(size[0] * size[1], 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(64, classes))


def grouped_and_depthwise(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 1, groups=4), nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, groups=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


def test_prunable_are_the_weights_of_linear_convolution_and_attention_layers_in_module_order() -> None:
    module = nn.Sequential(
        nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)),
        nn.ConvTranspose2d(1, 1, 1), nn.Embedding(2, 2), nn.MultiheadAttention(4, 2),
        nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True), nn.Bilinear(2, 2, 2), nn.LSTM(2, 2),
    )  # fmt: skip
    attention = ["6.q_proj_weight", "6.k_proj_weight", "6.v_proj_weight", "6.out_proj.weight"]
    assert prunable_names(module) == [
        "0.weight", "2.0.weight", "3.weight", "5.in_proj_weight", "5.out_proj.weight", *attention,
    ]  # fmt: skip
    assert prunable_names(nn.Linear(2, 2)) == ["weight"]
    assert all(module.get_parameter(name).ndim >= 2 for name in prunable_names(module))


def test_a_weight_that_is_computed_from_others_is_left_out() -> None:
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert prunable_names(module) == ["1.weight"]


def test_tied_weights_are_prunable_once_and_an_embeddings_not_at_all() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    assert prunable_names(module) == ["0.weight"]
    assert tied_names(module) == {"1.weight": "0.weight"}
    language = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5))
    language[1].weight = language[0].weight
    assert prunable_names(language) == []


def test_the_projections_of_attention_are_pruned_and_stay_pruned(digits: tb.Data) -> None:
    start = tb.initialize(Rows, digits)
    runs = list(tb.imp(start, digits, tb.Recipe(epochs=1, batch_size=200, lr=0.1), rounds=1, fraction=0.5))
    mask = runs[1].ticket.mask["attention.in_proj_weight"]
    assert 0 < mask.sum() < mask.numel()
    assert runs[1].ticket.kept == runs[0].ticket.total // 2
    assert not runs[1].weights["attention.in_proj_weight"][~mask].any()


@pytest.mark.parametrize("factory", [tied, grouped_and_depthwise])
@pytest.mark.parametrize("scope", ["global", "erk"])
def test_tied_grouped_and_depthwise_layers_are_pruned_like_any_other(
    digits: tb.Data, factory: networks.Factory, scope: str
) -> None:
    start = tb.initialize(factory, digits)
    recipe = tb.Recipe(epochs=1, batch_size=200, lr=0.1)
    _, run = tb.imp(start, digits, recipe, rounds=1, fraction=0.5, scope=scope)
    assert run.ticket.kept == (start.total + 1) // 2
    for name, keep in run.ticket.mask.items():
        assert keep.any()
        assert not run.weights[name][~keep].any()
    module = factory(**{"size": (8, 8), "classes": 10} if factory is tied else {"channels": 1, "classes": 10})
    module.load_state_dict(dict(run.weights))
    images = torch.randn(3, 1, 8, 8)
    flat = FlatNetwork(run.ticket.network, torch.device("cpu"))
    flat.load(run.weights)
    torch.testing.assert_close(flat.module.eval()(images), module.eval()(images))  # laid out otherwise


def test_a_ticket_gives_tied_weights_pruned_under_all_their_names(digits: tb.Data, tmp_path: Path) -> None:
    start = tb.initialize(tied, digits)
    mask = {name: torch.rand(keep.shape) < 0.5 for name, keep in start.mask.items()}
    ticket = start.with_mask(mask)
    ticket.save(tmp_path / "ticket")
    for copy in (ticket, tb.Ticket.load(tmp_path / "ticket", network=tied)):
        weights = copy.weights()
        assert torch.equal(weights["3.weight"], start.start["1.weight"] * mask["1.weight"])
        flat = FlatNetwork(ticket.network, torch.device("cpu"))
        flat.load(weights)
        assert torch.equal(flat.module.get_parameter("1.weight"), weights["1.weight"])


def test_a_ticket_says_how_much_is_prunable_and_what_is_left_out(digits: tb.Data) -> None:
    start = tb.initialize(Rows, digits)
    # By hand: 8x12 + 3x12x12 + 12x12 + 12x10 of 792; biases 12 + 36 + 12 + 10, norm 24, positions 8x12.
    assert (start.coverage.prunable, start.coverage.total) == (792, 982)
    assert repr(start).endswith("; 792 of 982 parameters are prunable; left out: position, biases, norms>")
    assert len(repr(start)) < 300
    no_bias = tb.initialize(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)), digits)
    assert str(no_bias.coverage) == "all 640 parameters are prunable"


def test_what_is_left_out_is_named_by_kind() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.ParameterDict({"gamma": torch.ones(3)}) for _ in range(12))
            self.token = nn.Embedding(9, 4)
            self.linear = nn.Linear(3, 3)

    described = Network.of(Scaled, channels=1, size=(8, 8), classes=10)
    ticket = tb.Ticket(described, Scaled().state_dict(), {})
    kinds = ("blocks.*.gamma", "token.weight", "linear.weight", "biases")
    assert sorted(ticket.coverage.left_out) == sorted(kinds)
    assert ticket.coverage.left_out[0] in ("blocks.*.gamma", "token.weight")


class GreyRows(Rows):
    """Takes images of one channel only."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int) -> None:
        if channels != 1:
            raise ValueError("grey images only")
        super().__init__(channels, size, classes)


def test_only_a_network_with_attention_gives_its_start_another_name(digits: tb.Data) -> None:
    tb.declare_network("rows")(Rows)
    tb.declare_network("grey-rows")(GreyRows)
    tb.declare_network("plain")(grouped_and_depthwise)
    versions = {
        name: tb.job(tb.initialize, name, "digits").declaration.version
        for name in ("rows", "grey-rows", "plain", "convnet")
    }
    assert versions == {"rows": 2, "grey-rows": 2, "plain": 1, "convnet": 1}
    assert tb.job(tb.initialize, "grey-rows", digits).declaration.version == 2
