"""Convolutions that add up the sums of norms beside them, with kernels that PyTorch stands in for.

Where there is no GPU but Triton, ``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs this file.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from kernels import DEVICE, INTERPRETED, by_pytorch, needs_kernels, written
from torch import Tensor, fx, nn
from torch.nn import functional, grad

import tombola as tb
from tombola.training.cuda.cudnn import Convolution
from tombola.training.cuda.tiles import LineProduct, Tiles

pytestmark = needs_kernels

TILES = Tiles(1, 1, 1, 1, 1, False)
CALLS: Counter[tuple[str, bool]] = Counter()
"""How often each operation was computed by a stand-in, with sums and without."""


class EveryTile(dict[LineProduct, Tiles]):
    """Tiles for any convolution, except for some kinds."""

    def __init__(self, without: tuple[tuple[str, bool], ...] = ()) -> None:
        super().__init__()
        self.without = without

    def __contains__(self, product: object) -> bool:
        assert isinstance(product, LineProduct)
        return (product.operation, product.sums) not in self.without

    def __missing__(self, product: LineProduct) -> Tiles:
        return TILES


class StandInPlan:
    """A plan that PyTorch computes, in any precision."""

    workspace = 0

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution

    def __call__(self, x: Tensor, weight: Tensor, y: Tensor) -> None:
        written(self.convolution, (x, weight, y)).copy_(by_pytorch(self.convolution, x, weight, y))


class StandInLine:
    """A convolution with sums of parts, of which the last is smaller, that PyTorch computes."""

    def __init__(self, product: LineProduct, tiles: Tiles) -> None:
        assert tiles == TILES
        self.product = product

    def __call__(
        self, x: Tensor, weight: Tensor, y: Tensor, normed: tuple[Tensor, ...] | None = None
    ) -> object:
        from tombola.training.cuda.norm import Parts

        product = self.product
        assert x.shape == y.shape == (product.batch, product.channels, product.side, product.side)
        with_sums = product.sums and (product.operation == "forward" or normed is not None)
        CALLS[product.operation, with_sums] += 1
        if product.operation == "forward":
            y.copy_(functional.conv2d(x, weight, padding=1))
        else:
            y.copy_(grad.conv2d_input(x.shape, weight, x, padding=1))
        if not with_sums:
            return None
        rows_each = 7

        def parts(values: Tensor) -> list[Tensor]:
            return list(values.permute(0, 2, 3, 1).reshape(-1, y.shape[1]).split(rows_each))

        if normed is None:
            values = [part.double() for part in parts(y)]
            sums = (
                [part.mean(0) for part in values],
                [part.var(0, correction=0) * len(part) for part in values],
            )
        else:
            seen, mean, rstd, scale, shift = normed
            centred = seen.float() - mean[:, None, None]
            y[centred * (rstd * scale)[:, None, None] + shift[:, None, None] <= 0] = 0
            sums = [part.sum(0) for part in parts(y)], [part.sum(0) for part in parts(y * centred)]
        return Parts(torch.stack([torch.stack(each) for each in sums]).float(), rows_each)


@pytest.fixture(autouse=True)
def _stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.training.cuda import pairing

    def lines_of(tiles: dict[LineProduct, Tiles], _: torch.device) -> dict[LineProduct, StandInLine]:
        return {product: StandInLine(product, cut) for product, cut in tiles.items()}

    monkeypatch.setattr(pairing, "lines_of", lines_of)
    CALLS.clear()


def planned(module: nn.Module, images: Tensor) -> fx.GraphModule:
    """The fused form of a network whose convolutions compute by stood-in plans, in float32."""
    from tombola.training.cuda.convolution import FewChannels
    from tombola.training.cuda.planned import _convolution, _planned
    from tombola.training.cuda.rewrite import Biasless, fused

    network = fused(module)
    called = Counter(str(node.target) for node in network.graph.nodes if node.op == "call_module")
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = []
    for name, times in called.items():
        layer = network.get_submodule(name)
        biased = type(layer) is nn.Conv2d and layer.bias is not None
        if type(layer) in (nn.Conv2d, Biasless, FewChannels) and times == 1 and not biased:

            def note(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                shapes[name] = tuple(inputs[0].shape)

            hooks.append(layer.register_forward_pre_hook(note))
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    for name, shape in shapes.items():
        layer = _planned(network, name)
        convolution = _convolution(layer.layer)
        rest = tuple(convolution.weight.shape), convolution.stride, convolution.padding
        layer.plans = {
            operation: StandInPlan(Convolution(operation, shape, *rest))  # type: ignore[arg-type,misc]
            for operation in ("forward", "input", "weight")
        }
    return network.train()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def network_of(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    module = tb.Network.of(name, channels=3, size=(size, size), classes=10).initialized(0)
    with torch.no_grad():
        for parameter in module.parameters():  # scales of 1 and shifts of 0 hide mistakes
            parameter.add_(0.3 * parameter.abs().mean() * torch.rand_like(parameter))
    return module.to(DEVICE)


def pairs(network: fx.GraphModule) -> tuple[int, int]:
    """How many convolutions leave sums to the norm after them, and how many to the norm before them."""
    from tombola.training.cuda.norm import FusedNorm
    from tombola.training.cuda.planned import Planned

    layers = list(network.modules())
    convolutions = [layer for layer in layers if isinstance(layer, Planned)]
    norms = [layer for layer in layers if isinstance(layer, FusedNorm)]
    forward = {id(layer.statistics) for layer in convolutions if layer.statistics is not None}
    backward = {
        (id(layer.normed), id(layer.gradient_sums)) for layer in convolutions if layer.normed is not None
    }
    assert forward == {id(norm.statistics) for norm in norms if norm.statistics is not None}
    assert backward == {
        (id(norm.normed), id(norm.gradient_sums)) for norm in norms if norm.normed is not None
    }
    return len(forward), len(backward)


class Shared(nn.Module):
    """Two convolutions read one activation; of a third the norm adds something before ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.left, self.left_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.right, self.right_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.added, self.added_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.last, self.last_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.bare = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first_norm(self.first(x)))
        left = functional.relu(self.left_norm(self.left(x)))
        right = self.right_norm(self.right(x))  # no ReLU behind it
        x = functional.relu(self.added_norm(self.added(right)) + left)
        x = functional.relu(self.last_norm(self.last(x)))
        x = self.bare(x)
        x = self.twice(self.twice(x))
        return self.head(x.mean((2, 3)))


class Thrice(nn.Module):
    """Three convolutions read one activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.readers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(x)))
        first, second, third = (reader(x) for reader in self.readers)
        return self.head((first + second * third).mean((2, 3)))


# Of 3x3 convolutions with stride 1, as many channels out as in: behind each is a norm. Before the second of a
# residual block is a norm with ReLU alone, before the first a sum; in VGG16 some come after pooling.
PAIRS = [
    pytest.param(lambda: network_of("resnet18", 8), 8, (13, 8), (13, 5), id="resnet18"),
    pytest.param(lambda: network_of("resnet20", 8), 8, (16, 9), (16, 7), id="resnet20"),
    pytest.param(lambda: network_of("vgg16", 32), 32, (9, 8), (9, 1), id="vgg16"),
    pytest.param(lambda: Shared().to(DEVICE), 8, (4, 1), (5, 4), id="shared"),
    pytest.param(lambda: Thrice().to(DEVICE), 8, (0, 0), (3, 3), id="thrice"),
]


@pytest.mark.parametrize(("made", "size", "paired", "_"), PAIRS)
def test_convolutions_pair_with_the_norms_that_alone_use_them_and_that_they_alone_use(
    made: Callable[[], nn.Module], size: int, paired: tuple[int, int], _: object
) -> None:
    from tombola.training.cuda.pairing import use_lines

    network = planned(made(), drawn(2, 3, size, size))
    assert pairs(network) == (0, 0)
    use_lines(network, EveryTile(), DEVICE)
    assert pairs(network) == paired
    # Anew and without tiles: nothing stays of what was.
    use_lines(network, {}, DEVICE)
    assert all(not getattr(layer, "lines", None) for layer in network.modules())


def results(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients by parameters and images, and buffers after a step in training mode."""
    images = images.clone(memory_format=torch.channels_last).requires_grad_()
    outputs = network(images)
    outputs.backward(drawn(*outputs.shape, seed=9))
    named = {name: value.grad for name, value in network.named_parameters()}
    named |= dict(network.named_buffers()) | {"outputs": outputs, "images": images.grad}
    return {name: value.detach().clone() for name, value in named.items() if value is not None}


@pytest.mark.parametrize(("made", "size", "paired", "plain"), PAIRS)
def test_a_paired_network_computes_what_it_computes_unpaired(
    monkeypatch: pytest.MonkeyPatch, made: Callable[[], nn.Module], size: int, paired: tuple[int, int],
    plain: tuple[int, int],
) -> None:  # fmt: skip
    from tombola.training.cuda.norm import Note
    from tombola.training.cuda.pairing import use_lines

    taken: list[object] = []
    take = Note.take

    def counted(note: Note[object], tensor: Tensor | None) -> object:
        taken.append(take(note, tensor))
        return taken[-1]

    monkeypatch.setattr(Note, "take", counted)
    module, images = made(), drawn(2, 3, size, size)
    other = copy.deepcopy(module)
    expected = results(planned(module, images), images)
    network = planned(other, images)
    used = use_lines(network, EveryTile(), DEVICE)
    found = results(network, images)
    calls = {
        ("forward", True): paired[0], ("forward", False): plain[0] - paired[0],
        ("input", True): paired[1], ("input", False): plain[1],
    }  # fmt: skip
    assert Counter(calls) == CALLS
    # Sums forward, and backward what the norm has left as well as sums: all of it was taken.
    assert len(taken) == paired[0] + 2 * paired[1]
    assert None not in taken
    assert {product.operation for product in used} == {"forward", "input"}
    assert found.keys() == expected.keys()
    size_of_all = sum(float(value.double().norm()) ** 2 for value in expected.values()) ** 0.5
    for name, value in expected.items():
        off = float((found[name].double() - value.double()).norm())
        assert off <= 1e-4 * float(value.double().norm()) + 1e-7 * size_of_all, name


@pytest.mark.parametrize(
    ("without", "calls"),
    [
        ((("input", True),), {("forward", True): 13, ("input", False): 13}),
        ((("input", True), ("input", False)), {("forward", True): 13}),
        ((("forward", True), ("forward", False)), {("input", True): 8, ("input", False): 5}),
        ((("forward", True), ("input", False)), {("forward", False): 13, ("input", True): 8}),
    ],
)
def test_what_has_no_tiles_is_computed_as_before(
    without: tuple[tuple[str, bool], ...], calls: dict[tuple[str, bool], int]
) -> None:
    from tombola.training.cuda.pairing import use_lines

    images = drawn(2, 3, 8, 8)
    network = planned(network_of("resnet18", 8), images)
    use_lines(network, EveryTile(without), DEVICE)
    network(images).sum().backward()
    assert calls == CALLS


def test_other_batches_evaluations_and_measured_statistics_do_without() -> None:
    from tombola.training.cuda.norm import FusedNorm
    from tombola.training.cuda.pairing import use_lines

    module, images, smaller = network_of("resnet20", 8), drawn(3, 3, 8, 8), drawn(2, 3, 8, 8)
    other = copy.deepcopy(module)
    plain, network = planned(module, images), planned(other, images)
    use_lines(network, EveryTile(), DEVICE)
    for batch in (smaller, images):
        expected, found = results(plain, batch), results(network, batch)
        if batch is smaller:
            assert not CALLS
            assert all(torch.equal(found[name], value) for name, value in expected.items())
            plain.zero_grad()
            network.zero_grad()
            plain.load_state_dict(network.state_dict())
    assert CALLS["forward", True] == 16
    CALLS.clear()
    network.load_state_dict(plain.state_dict())
    for form in (plain, network):
        form.eval()
        for layer in form.modules():
            if isinstance(layer, FusedNorm):  # as when running statistics are measured anew
                layer.train()
    with torch.no_grad():
        assert torch.equal(network(images), plain(images))
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), plain.buffers(), strict=True))
    assert not CALLS


def test_a_note_is_of_one_tensor_and_taken_once() -> None:
    from tombola.training.cuda.norm import Note

    note: Note[str] = Note()
    first, second = torch.zeros(2), torch.zeros(2)
    assert note.take(first) is None
    note.leave(first, "sums")
    assert note.take(second) is None
    assert note.take(first) is None
    note.leave(first, "sums")
    assert note.take(first) == "sums"
    assert note.take(first) is None
    assert note.take(None) is None


@pytest.mark.skipif(not INTERPRETED, reason="compares numbers of the interpreter")
@pytest.mark.parametrize("measured", [False, True])
def test_merged_parts_are_the_statistics_of_all_rows(measured: bool) -> None:
    from tombola.training.cuda.norm import FusedNorm, Note, Parts

    norm, plain = nn.BatchNorm2d(20), nn.BatchNorm2d(20).double()
    x = drawn(5, 20, 3, 7, seed=1) + 3
    op = FusedNorm(norm, relu=False, conv_bias=None, twice=False)
    op.statistics = Note()
    if measured:
        op.passed, plain.momentum = torch.full((20,), 10.0), 1 / 3  # five images more
    rows = list(x.permute(0, 2, 3, 1).reshape(-1, 20).double().split(8))
    means, spreads = [part.mean(0) for part in rows], [part.var(0, correction=0) * len(part) for part in rows]
    op.statistics.leave(x, Parts(torch.stack([torch.stack(means), torch.stack(spreads)]).float(), 8))
    out, expected = op(x), plain(x.double())
    assert float((out.double() - expected).detach().norm()) <= 1e-5 * float(expected.detach().norm())
    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(norm, name).double(), getattr(plain, name), rtol=1e-5)
