"""Networks whose fused form would compute something else are recognised, and those of the paper are not."""

from collections.abc import Callable

import pytest
import torch
from kernels import DEVICE, needs_kernels
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb

pytestmark = needs_kernels


def check(module: nn.Module, size: int = 8) -> None:
    from tombola.training.cuda.rewrite import check_fused
    from tombola.training.device import process_settings

    with process_settings("default"):
        check_fused(module.to(DEVICE), (3, size, size))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def start(self, x: Tensor) -> Tensor:
        return self.first_norm(self.first(x))

    def end(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class Residual(Parts):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.start(x))
        return self.end(functional.relu(self.second_norm(self.second(x)) + x))


class ChangedInPlaceBesideAnotherUse(Parts):
    def forward(self, x: Tensor) -> Tensor:
        y = self.start(x)
        z = functional.relu(y, inplace=True)
        return self.end(z + self.second(y))


class NamesLikeOurs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fused_0 = nn.Conv2d(3, 8, 3), nn.MaxPool2d(2)
        self.down, self.fused_1 = nn.Conv2d(8, 8, 1, 2, bias=False), nn.AvgPool2d(2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fused_1(self.down(self.fused_0(self.conv(x)))).mean((2, 3)))


class WithoutNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(192, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x.flatten(1)).relu())


@pytest.mark.parametrize("made", [Residual, ChangedInPlaceBesideAnotherUse, NamesLikeOurs, WithoutNorm])
def test_what_is_rewritten_computes_the_same(made: type[nn.Module]) -> None:
    check(made())


@pytest.mark.parametrize(
    ("network", "size"), [("convnet", 16), ("resnet20", 16), ("vgg16", 32), ("resnet18", 8)]
)
def test_the_networks_of_the_paper_pass(network: str, size: int) -> None:
    check(tb.Network.of(network, channels=3, size=(size, size), classes=10).initialized(0), size)


class WithoutGradients(Parts):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = functional.relu(self.start(x))
        return self.end(functional.relu(self.second_norm(self.second(x)) + x))


class OtherwiseInTraining(Parts):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.start(x))
        return self.end(2 * x if self.training else x)


class ResultIgnored(Parts):
    def forward(self, x: Tensor) -> Tensor:
        y = self.start(x)
        self.relu(y)
        return self.end(y)


class Broadcast(Parts):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.end(x.detach() + self.second_norm(self.second(functional.adaptive_avg_pool2d(x, 1))))


class Aliased(Parts):
    def forward(self, x: Tensor) -> Tensor:
        y = self.start(x)
        skip = y
        y += self.second(x.repeat(1, 3, 1, 1)[:, :8])
        return self.end(functional.relu(y) + skip)


class KeptFrozen(Residual):
    def train(self, mode: bool = True) -> "KeptFrozen":
        super().train(mode)
        self.first_norm.eval()
        return self


class Hooked(Residual):
    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(lambda module, inputs, output: 2 * output)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (WithoutGradients, "other gradients of first.weight"),
        (OtherwiseInTraining, "other outputs"),
        (ResultIgnored, "results nobody uses"),
        (Broadcast, r"what is added has shape \(4, 8, 8, 8\), not \(4, 8, 1, 1\)"),
        (Aliased, "other outputs"),
        (KeptFrozen, "KeptFrozen has a train"),
        (Hooked, "it has hooks"),
    ],
)
def test_a_network_that_does_more_than_its_graph_shows_is_refused(made: type[nn.Module], words: str) -> None:
    with pytest.raises((tb.TombolaError, ValueError), match=words):
        check(made())


class Unlike(nn.Module):
    """Convolutions that nearly fit a pass of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 5, padding=2, bias=False)
        self.around = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular", bias=False)
        self.biased = nn.Conv2d(16, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False)
        self.again = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.down = nn.Conv2d(16, 16, 1, 2, bias=False)
        self.last = nn.Conv2d(16, 3, 3, padding=1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.again(self.grouped(self.biased(self.around(input=self.wide(x))))))
        return self.head(self.norm(self.last(self.down(x))).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "first", "few", "sampled", "signs"),
    [
        ("resnet20", 1, 18, 2, 9),  # 18 convolutions and nine additions in blocks, two strided shortcuts
        ("resnet18", 1, 4, 3, 8),  # four convolutions of 64 channels; the others have more
        ("vgg16", 1, 1, 0, 0),
        (Unlike, 0, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("passes", [True, False])
def test_each_pass_is_taken_where_it_fits_and_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch, network: str | Callable[..., nn.Module], first: int, few: int,
    sampled: int, signs: int, passes: bool,
) -> None:  # fmt: skip
    from tombola.training.cuda import rewrite
    from tombola.training.cuda.convolution import FewChannels, FirstConvolution
    from tombola.training.cuda.norm import FusedNorm

    for name in ("first_convolution", "few_channels", "sampled_shortcuts", "relu_signs"):
        monkeypatch.setattr(rewrite.PASSES, name, passes)
    graph = rewrite.fused(tb.Network.of(network, channels=3, size=(32, 32), classes=4).initialized(0))
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    layers = [(graph.get_submodule(str(node.target)), len(node.args)) for node in calls]
    norms = [(layer, arguments) for layer, arguments in layers if isinstance(layer, FusedNorm)]
    assert sum(isinstance(layer, FirstConvolution) for layer, _ in layers) == passes * first
    assert sum(isinstance(layer, FewChannels) for layer, _ in layers) == passes * few
    assert sum(norm.stride is not None for norm, _ in norms) == passes * sampled
    assert sum(norm.signs for norm, arguments in norms if arguments == 2) == passes * signs
