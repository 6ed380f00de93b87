"""Which units may change places: by hand for small networks of every kind, and by outputs that stay."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb
from tombola.errors import NetworkError
from tombola.networks.symmetry import Symmetry, symmetry

Build = Callable[[], nn.Module]


def described(build: Build, size: tuple[int, int] = (8, 8)) -> tb.Network:
    return tb.Network.of(lambda classes: build(), channels=3, size=size, classes=5)


def sizes(found: Symmetry) -> list[int]:
    return sorted(group.size for group in found.groups)


class Chain(nn.Module):
    """Some layers, and a function of them and an input."""

    def __init__(self, forward: Callable[["Chain", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.path = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self, x)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 7), nn.ReLU(), nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)
    )


def flattened() -> nn.Module:
    """Each channel of the convolution is 36 inputs of the linear layer."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5))


def flattened_channels_last() -> nn.Module:
    layers = {"conv": nn.Conv2d(3, 4, 3), "linear": nn.Linear(144, 5)}
    return Chain(lambda net, x: net.linear(net.conv(x).permute(0, 2, 3, 1).reshape(len(x), -1)), **layers)


def residual_stream() -> nn.Module:
    """One stream, whose units a layer of its own takes and gives."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x.flatten(1))
        for _ in range(2):
            x = x + torch.relu(net.block(net.norm(x)))
        return net.last(x)

    layers = {"first": nn.Linear(192, 6), "block": nn.Linear(6, 6), "norm": nn.LayerNorm(6)}
    return Chain(path, **layers, last=nn.Linear(6, 5))


def concatenated() -> nn.Module:
    """Units of two sources in one axis stay apart, since only the first go another way, too."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        x = functional.relu(net.first(x))
        x = torch.cat([x, net.second(x)], 1)
        return net.last(net.norm(x).mean((2, 3)))

    layers = {"first": nn.Conv2d(3, 6, 3, padding=1), "second": nn.Conv2d(6, 4, 3, padding=1)}
    return Chain(path, **layers, norm=nn.BatchNorm2d(10), last=nn.Linear(10, 5))


def padded_shortcut() -> nn.Module:
    """The shortcut of ResNets for CIFAR without weights: 3 channels of zeros on either side of 4."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        x = functional.relu(net.first(x))
        x = net.second(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
        return net.last(functional.adaptive_avg_pool2d(x, 1).flatten(1))

    layers = {"first": nn.Conv2d(3, 4, 3, padding=1), "second": nn.Conv2d(4, 10, 3, 2, 1)}
    return Chain(path, **layers, last=nn.Linear(10, 5))


def grouped() -> nn.Module:
    """Two groups, which may change places, of 3 channels in and 2 out each, between which no unit may."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5))


def depthwise() -> nn.Module:
    """Two outputs of each channel go where the channel goes."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, groups=4), nn.PReLU(8), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32, 5),
    )  # fmt: skip


def group_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(216, 5))


def squeeze_and_excite() -> nn.Module:
    def path(net: nn.Module, x: Tensor) -> Tensor:
        x = net.conv(x)
        images, channels = x.shape[:2]
        scale = torch.sigmoid(net.up(functional.silu(net.down(x.mean((2, 3))))))
        return net.last((x * scale.view(images, channels, 1, 1)).amax((2, 3)))

    layers = {"conv": nn.Conv2d(3, 6, 3), "down": nn.Linear(6, 2), "up": nn.Linear(2, 6)}
    return Chain(path, **layers, last=nn.Linear(6, 5))


def gated() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GLU(), nn.Linear(4, 5))


def halves() -> nn.Module:
    """Both halves are averaged, one of them twice as much: no unit may go into the other half."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        first, second = net.wide(x.flatten(1)).chunk(2, 1)
        return net.last(torch.stack([first.sum(1), 2 * second.sum(1)], 1))

    return Chain(path, wide=nn.Linear(192, 6), last=nn.Linear(2, 5))


def transformer() -> nn.Module:
    """The stream and the hidden layer; what attention is made of stays."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        x = net.embed(x).flatten(2).transpose(1, 2) + net.places
        return net.last(net.layers(x).mean(1))

    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    chain = Chain(
        path, embed=nn.Conv2d(3, 8, 4, 4), layers=nn.TransformerEncoder(layer, 1), last=nn.Linear(8, 5)
    )
    chain.places = nn.Parameter(torch.randn(1, 4, 8))
    return chain


def indexed_bias() -> nn.Module:
    """A table with an entry for each index in a buffer, which stays, and a row of units for each entry."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        return net.last(torch.relu(net.first(x.flatten(2).transpose(1, 2)) + net.table[net.index]).mean(1))

    chain = Chain(path, first=nn.Linear(3, 6), last=nn.Linear(6, 5))
    chain.table = nn.Parameter(torch.randn(9, 6))
    chain.register_buffer("index", torch.arange(64) % 9)
    return chain


def unused_layer() -> nn.Module:
    layers = {"linear": nn.Linear(192, 4), "idle": nn.Linear(4, 4), "last": nn.Linear(4, 5)}
    return Chain(lambda net, x: net.last(net.linear(x.flatten(1))), **layers)


KINDS: list[tuple[Build, list[int]]] = [
    (mlp, [6, 7]), (flattened, [4]), (flattened_channels_last, [4]), (residual_stream, [6]),
    (concatenated, [4, 6]), (padded_shortcut, [4, 6]), (grouped, [2, 2, 2, 3, 3]), (depthwise, [4]),
    (group_norm, [3, 3]), (squeeze_and_excite, [2, 6]), (gated, [4]), (halves, [3, 3]),
    (transformer, [8, 12]), (indexed_bias, [6]), (unused_layer, [4]),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected"), KINDS, ids=[build.__name__ for build, _ in KINDS])
def test_groups_are_those_found_by_hand_and_outputs_stay(build: Build, expected: list[int]) -> None:
    network = described(build)
    found = symmetry(network)
    assert sizes(found) == expected
    module = network.initialized(0).double().eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = module(inputs)
        module.load_state_dict(found.permuted(state, found.drawn(np.random.default_rng(0))))
        torch.testing.assert_close(module(inputs), before)
    assert any(not torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_no_other_order_of_the_units_of_a_tiny_network_keeps_its_outputs() -> None:
    """Brute force over the orders of the rows of one layer and the columns of the next."""
    layers = nn.Conv2d(3, 4, 3, groups=1), nn.Conv2d(4, 4, 3, groups=2)
    network = described(lambda: nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5)))
    found = symmetry(network)
    module = network.initialized(1).double().eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = module(inputs)
    kept = 0
    for order in itertools.permutations(range(4)):
        rows = torch.tensor(order)
        grouped = state["1.weight"].clone()
        for row in range(4):  # as far as the layout of a grouped weight can follow: within a group
            first = row // 2 * 2
            grouped[row] = state["1.weight"][row][[position % 2 for position in order[first : first + 2]]]
        changed = {"0.weight": state["0.weight"][rows], "0.bias": state["0.bias"][rows], "1.weight": grouped}
        module.load_state_dict(state | changed)
        kept += torch.allclose(module(inputs), before)
    on_first = [group for group in found.groups if any(axis.name == "0.weight" for axis in group.axes)]
    assert kept == 2 * 2
    assert [group.size for group in on_first if not group.members] == [2, 2]


def grouped_with_a_way_round() -> nn.Module:
    """Half of the groups' outputs go another way, too: groups are not alike."""

    def path(net: nn.Module, x: Tensor) -> Tensor:
        x = net.grouped(torch.relu(net.first(x)))
        return net.last(x.mean((2, 3))) + net.other(x[:, :2].mean((2, 3)))

    layers = {"first": nn.Conv2d(3, 6, 3), "grouped": nn.Conv2d(6, 4, 3, groups=2)}
    return Chain(path, **layers, last=nn.Linear(4, 5), other=nn.Linear(2, 5))


def test_groups_of_a_grouped_convolution_change_places_only_where_they_are_alike() -> None:
    for build, count in ((grouped, 1), (grouped_with_a_way_round, 0)):
        found = symmetry(described(build))
        exchanges = [group for group in found.groups if group.members]
        assert len(exchanges) == count
    # By hand: the two groups of the first kind, all else as it is.
    network = described(grouped)
    state = network.initialized(0).state_dict()
    permutations = symmetry(network).identity()
    permutations[0] = np.array([1, 0])
    moved = symmetry(network).permuted(state, permutations)
    inputs, outputs = torch.tensor([3, 4, 5, 0, 1, 2]), torch.tensor([2, 3, 0, 1])
    assert torch.equal(moved["0.weight"], state["0.weight"][inputs])
    assert torch.equal(moved["1.weight"], state["1.weight"][outputs])
    assert torch.equal(moved["3.weight"], state["3.weight"].view(5, 4, 16)[:, outputs].reshape(5, 64))


@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_networks_of_tombola_have_a_group_for_every_stream_and_inner_layer(name: str) -> None:
    found = symmetry(tb.Network.of(name, channels=3, size=(32, 32), classes=10))
    by_hand = {
        "convnet": [8, 16, 16, 32],
        "resnet20": [16] * 4 + [32] * 4 + [64] * 4,
    }
    assert sizes(found) == by_hand[name]


def test_tied_weights_move_under_all_their_names() -> None:
    def build() -> nn.Module:
        layers = {"first": nn.Linear(192, 4), "inner": nn.Linear(4, 4), "again": nn.Linear(4, 4)}
        chain = Chain(lambda net, x: net.last(net.again(net.inner(net.first(x.flatten(1))))), **layers)
        chain.add_module("last", nn.Linear(4, 5))
        chain.again.weight = chain.inner.weight
        return chain

    network = described(build)
    found = symmetry(network)
    assert sizes(found) == [4]  # what goes into and comes out of the shared weight is one
    state = network.initialized(0).state_dict()
    moved = found.permuted(state, [np.array([1, 2, 3, 0])])
    assert torch.equal(moved["again.weight"], moved["inner.weight"])
    assert not torch.equal(moved["again.weight"], state["again.weight"])


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


def branching(x: Tensor) -> Tensor:
    return -x if x.sum() > 0 else x


def picked(x: Tensor) -> Tensor:
    """Only of positive sums, in both rows alike, so that shapes stay."""
    return torch.ones(2, 1) * x[x > x.amin(1, keepdim=True) - 1].view(2, -1)


class Hidden(torch.autograd.Function):
    """A function whose work PyTorch does not see as operations on the tensor that it got."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return torch.from_dlpack(x).cumsum(1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Sequential(Mixing()), nn.Linear(4, 5)),
            r"cannot be aligned: units cannot be followed through cumsum in 2\.0 \(Mixing\)",
        ),
        (
            lambda: Chain(
                lambda net, x: net.last(branching(net.first(x.flatten(1)))),
                first=nn.Linear(192, 4),
                last=nn.Linear(4, 5),
            ),
            r"through __bool__ in the network \(Chain\): the path of the network must not depend on values",
        ),
        (
            lambda: Chain(
                lambda net, x: net.last(picked(net.first(x.flatten(1)))),
                first=nn.Linear(192, 4),
                last=nn.Linear(4, 5),
            ),
            "through getitem in the network .*: what is taken depends on values",
        ),
        (
            lambda: Chain(
                lambda net, x: net.last(Hidden.apply(net.first(x.flatten(1)))),
                first=nn.Linear(192, 4),
                last=nn.Linear(4, 5),
            ),
            "cannot be aligned",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_with_module_and_operation(build: Build, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        symmetry(described(build))
