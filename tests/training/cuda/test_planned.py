"""Convolutions by named plans: on a CPU with plans that PyTorch stands in for, on a GPU with cuDNN's.

Where there is no GPU but Triton, ``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs the first.
"""

import math
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from kernels import by_pytorch, needs_kernels, on_gpu_only, written
from tabled import Everything, put_tables, trained
from torch import Tensor, nn

import tombola as tb
from tombola.errors import DeviceLost
from tombola.training.cuda import cudnn, plans
from tombola.training.cuda.capture import capture
from tombola.training.cuda.cudnn import Algorithm, Convolution, CudnnError
from tombola.training.cuda.plans import PlanTable, fingerprint
from tombola.training.device import repeatable
from tombola.training.evaluation import Evaluator
from tombola.training.flat_network import FlatNetwork

on_cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for cuDNN on a CPU")
pytestmark = needs_kernels

SHAPES = [
    Convolution(operation, *shapes)  # type: ignore[arg-type]
    for shapes in (
        ((16, 64, 8, 8), (64, 64, 3, 3), (1, 1), (1, 1)),
        ((16, 64, 9, 9), (128, 64, 3, 3), (2, 2), (1, 1)),
        ((16, 3, 8, 8), (64, 3, 3, 3), (1, 1), (1, 1)),
        ((16, 64, 8, 8), (128, 64, 1, 1), (2, 2), (0, 0)),
    )
    for operation in ("forward", "input", "weight")
]


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return values.contiguous(memory_format=torch.channels_last)


class StandIn:
    """A plan that PyTorch computes on a CPU, counted."""

    calls = 0
    workspace = 0

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution

    def __call__(self, x: Tensor, weight: Tensor, y: Tensor) -> None:
        StandIn.calls += 1
        written(self.convolution, (x, weight, y)).copy_(by_pytorch(self.convolution, x, weight, y))


class Three(nn.Module):
    """Convolutions on images, with padding and stride, one called twice, and one by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.twice = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.biased = nn.Conv2d(16, 8, 3)
        self.down = nn.Conv2d(16, 8, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        x = self.twice(torch.relu(self.twice(x)))
        return self.biased(input=x).mean((2, 3)) + self.down(x).mean((2, 3))


NEEDED = [
    Convolution("forward", (6, 3, 8, 8), (8, 3, 3, 3), (1, 1), (1, 1)),
    Convolution("weight", (6, 3, 8, 8), (8, 3, 3, 3), (1, 1), (1, 1)),
    *(
        Convolution(operation, (6, 8, 8, 8), (16, 8, 3, 3), (2, 2), (1, 1))  # type: ignore[arg-type]
        for operation in ("forward", "input", "weight")
    ),
]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Three().bfloat16().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are PyTorch's own convolutions, counted from 0."""
    from tombola.training.cuda import planned as module

    monkeypatch.setattr(module, "built", lambda algorithms: {one: StandIn(one) for one in algorithms})
    monkeypatch.setattr(StandIn, "calls", 0)


def build_in_threads_by(build: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are built by the threads that build cuDNN's, without a GPU."""
    monkeypatch.setattr(cudnn, "ConvolutionPlan", build)
    monkeypatch.setattr(cudnn, "_handle", lambda *_: None)
    monkeypatch.setattr(cudnn, "_plans", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)


def planned(
    network: nn.Module, algorithms: dict[Convolution, Algorithm], gradient: Tensor | None = None
) -> tuple[nn.Module, dict[Convolution, Algorithm]]:
    from tombola.training.cuda.planned import plan_convolutions
    from tombola.training.cuda.rewrite import fused

    rewritten = fused(network)
    table = PlanTable("GPU", 1, algorithms)
    found = plan_convolutions(
        rewritten, drawn((6, 3, 8, 8), 0), table, lambda weight: weight, lambda _: gradient
    )
    return rewritten.train(), found


@on_cpu_only
@pytest.mark.usefixtures("stood_in")
def test_planned_convolutions_have_outputs_and_gradients_of_pytorch(network: nn.Module) -> None:
    algorithms = dict.fromkeys(NEEDED, Algorithm(1, ()))
    rewritten, found = planned(network, algorithms)
    assert found == algorithms
    images = drawn((6, 3, 8, 8), 1)
    results = []
    for form in (network, rewritten):
        network.zero_grad()
        out = form(images)
        (out.float() * torch.arange(8)).sum().backward()
        results.append([out, *(parameter.grad.clone() for parameter in network.parameters())])  # type: ignore[union-attr]
    assert StandIn.calls == len(NEEDED)
    for expected, actual in zip(*results, strict=True):
        assert (actual.double() - expected.double()).norm() <= 1e-2 * expected.double().norm()


@on_cpu_only
@pytest.mark.usefixtures("stood_in")
def test_other_batches_and_evaluation_compute_as_before(network: nn.Module) -> None:
    rewritten, _ = planned(network, dict.fromkeys(NEEDED, Algorithm(1, ())))
    smaller = drawn((5, 3, 8, 8), 1)
    assert torch.equal(rewritten(smaller), network(smaller))
    rewritten(smaller).sum().backward()
    rewritten.eval()
    images = drawn((6, 3, 8, 8), 1)
    assert torch.equal(rewritten(images), network(images))
    assert StandIn.calls == 0


@on_cpu_only
@pytest.mark.usefixtures("stood_in")
def test_planning_computes_no_convolution_that_a_plan_may_be_for(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[nn.Module] = []
    forward = nn.Conv2d._conv_forward

    def noted(layer: nn.Conv2d, *arguments: Tensor) -> Tensor:
        computed.append(layer)
        return forward(layer, *arguments)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", noted)
    _, found = planned(network, dict.fromkeys(NEEDED, Algorithm(1, ())))
    assert set(found) == set(NEEDED)
    assert computed == [network.twice, network.twice, network.biased]


@on_cpu_only
@pytest.mark.usefixtures("stood_in")
def test_a_gradient_is_written_where_it_is_wanted(network: nn.Module) -> None:
    only_second = {one: Algorithm(1, ()) for one in NEEDED[2:]}
    place = torch.zeros(16, 3, 3, 8, dtype=torch.bfloat16).permute(0, 3, 1, 2)
    rewritten, _ = planned(network, only_second, place)
    weight = network.second.weight
    (gradient,) = torch.autograd.grad(rewritten(drawn((6, 3, 8, 8), 1)).sum(), [weight])  # type: ignore[list-item]
    assert gradient.data_ptr() == place.data_ptr()
    assert place.any()


@on_cpu_only
@pytest.mark.usefixtures("stood_in")
def test_a_layer_without_all_of_its_products_in_the_table_stays(network: nn.Module) -> None:
    without = {one: Algorithm(1, ()) for one in NEEDED if one != NEEDED[3]}
    rewritten, found = planned(network, without)
    assert found == {one: Algorithm(1, ()) for one in NEEDED[:2]}
    assert type(rewritten.second) is nn.Conv2d
    assert planned(network, {})[1] == {}


@on_cpu_only
def test_one_plan_that_cannot_be_built_leaves_all_to_heuristics_and_is_told(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(convolution: Convolution, *_: object, **__: object) -> StandIn:
        if convolution == NEEDED[-1]:
            raise CudnnError("engine 1 is not there")
        return StandIn(convolution)

    plans.say_once.cache_clear()
    build_in_threads_by(build, monkeypatch)
    monkeypatch.setattr(StandIn, "calls", 0)
    with pytest.warns(UserWarning, match="plans are left out.*engine 1 is not there"):
        rewritten, found = planned(network, dict.fromkeys(NEEDED, Algorithm(1, ())))
    assert found == {}
    rewritten(drawn((6, 3, 8, 8), 1)).sum().backward()
    assert StandIn.calls == 0


@on_cpu_only
@pytest.mark.parametrize(("status", "passing"), [(3003, False), (4000, True), (4004, True), (5003, True)])
def test_a_plan_that_fails_in_passing_is_no_reason_for_other_bits(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, status: int, passing: bool
) -> None:
    def build(convolution: Convolution, *_: object, **__: object) -> StandIn:
        if convolution == NEEDED[2]:
            raise CudnnError("cudnnBackendFinalize failed", status)
        return StandIn(convolution)

    plans.say_once.cache_clear()
    build_in_threads_by(build, monkeypatch)
    expected = pytest.raises(DeviceLost, match="failed") if passing else pytest.warns(match="left out")
    with expected:
        planned(network, dict.fromkeys(NEEDED, Algorithm(1, ())))


@on_cpu_only
@pytest.mark.usefixtures("stood_in")
@pytest.mark.parametrize("trained", [False, True])
def test_evaluations_compute_by_plans_of_their_own_and_trainings_as_before(
    network: nn.Module, trained: bool
) -> None:
    from tombola.training.cuda.planned import plan_convolutions, plan_evaluation
    from tombola.training.cuda.rewrite import fused

    forward = {
        Convolution("forward", (5, *one.input[1:]), one.weight, one.stride, one.padding): Algorithm(2, ())
        for one in NEEDED
        if one.operation == "forward"
    }
    table = PlanTable("GPU", 1, dict.fromkeys(NEEDED, Algorithm(1, ())) | forward)
    rewritten = fused(network)
    images = drawn((5, 3, 8, 8), 1)
    assert plan_evaluation(rewritten, images, table, lambda weight: weight) == forward
    if trained:
        found = plan_convolutions(
            rewritten, drawn((6, 3, 8, 8), 0), table, lambda weight: weight, lambda _: None
        )
        assert found == dict.fromkeys(NEEDED, Algorithm(1, ()))
    StandIn.calls = 0
    rewritten.eval()
    with torch.no_grad():
        assert torch.equal(rewritten(images), network(images))
    assert StandIn.calls == len(forward) == 2
    # Whoever differentiates in evaluation mode, and batches of other sizes, go through PyTorch.
    rewritten(images).sum().backward()
    with torch.no_grad():
        rewritten(drawn((6, 3, 8, 8), 1))
        rewritten(drawn((4, 3, 8, 8), 1))
    rewritten.train()
    rewritten(images).sum().backward()
    assert StandIn.calls == 2
    rewritten(drawn((6, 3, 8, 8), 1)).sum().backward()
    assert StandIn.calls == 2 + trained * len(NEEDED)


@on_gpu_only
@pytest.mark.parametrize("product", SHAPES, ids=lambda one: f"{one.operation}-{one.weight}")
def test_plans_compute_the_convolution_in_a_graph_with_equal_bits_alone_and_packed(
    product: Convolution,
) -> None:
    shapes = product.input, product.weight, product.output
    tensors = [drawn(shape, seed) for seed, shape in enumerate(shapes)]
    x, weight, y = (tensor.double() for tensor in tensors)
    expected = by_pytorch(product, x, weight, y)
    cuda = torch.device("cuda")
    bits: list[Tensor] = []

    def compute(algorithm: Algorithm) -> None:
        with repeatable(cuda):
            ours = tuple(tensor.to(cuda) for tensor in tensors)
            target = written(product, ours)
            plan = cudnn.plan(product, algorithm)
            plan(*ours)
            graph = capture(lambda: plan(*ours), torch.cuda.graph_pool_handle(), before=lambda: None)
            for _ in range(20):
                target.fill_(math.nan)
                graph.replay()
                bits.append(target.cpu())

    with repeatable(cuda):
        algorithms = cudnn.proposals(product, ["A"])[:3]
    assert algorithms
    for algorithm in algorithms:
        bits.clear()
        compute(algorithm)
        threads = [threading.Thread(target=compute, args=(algorithm,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bits) == 80
        assert (bits[0].double() - expected).norm() <= 4e-3 * expected.norm()
        assert all(torch.equal(bits[0].view(torch.int16), other.view(torch.int16)) for other in bits)


def shipped() -> list[tuple[Convolution, Algorithm]]:
    if not torch.cuda.is_available():
        return []
    key = torch.cuda.get_device_name(), torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    table = plans.tables().get(key)
    return [] if table is None else list(table.algorithms.items())


@on_gpu_only
@pytest.mark.parametrize(("product", "algorithm"), shipped())
def test_shipped_plans_are_exact_and_repeat(product: Convolution, algorithm: Algorithm) -> None:
    shapes = product.input, product.weight, product.output
    with repeatable(torch.device("cuda")):
        tensors = tuple(drawn(shape, seed).cuda() for seed, shape in enumerate(shapes))
        expected = by_pytorch(product, *(tensor.double() for tensor in tensors))
        target = written(product, tensors)
        plan = cudnn.plan(product, algorithm)
        bits = []
        for _ in range(5):
            target.fill_(math.nan)
            plan(*tensors)
            bits.append(target.clone())
        assert (bits[0].double() - expected).norm() <= 4e-3 * expected.norm()
        assert all(torch.equal(bits[0].view(torch.int16), other.view(torch.int16)) for other in bits)


@on_gpu_only
@pytest.mark.parametrize("network", ["resnet18", "vgg16", "resnet20"])
def test_a_training_by_plans_says_so_repeats_and_has_the_gradients_of_one_without(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tables(monkeypatch, {})
    plain, expected = trained(network)
    table = Everything()
    put_tables(monkeypatch, table)
    name, first = trained(network)
    again, second = trained(network)
    assert plain == "graphed, fused"
    assert name == again == f"graphed, fused, convolution plans {fingerprint(table)}"
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    momentum = [key for key in expected if key.startswith("momentum.")]
    off = sum(float((first[key] - expected[key]).norm()) ** 2 for key in momentum)
    # Rounding, and the ReLU that it decides about; a gradient at another's place is off by its own size.
    assert off <= 0.15**2 * sum(float(expected[key].norm()) ** 2 for key in momentum)


@on_gpu_only
def test_packed_trainings_by_plans_have_the_bits_of_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    put_tables(monkeypatch, Everything())
    _, alone = trained("resnet20")
    packed: list[dict[str, Tensor]] = []
    threads = [threading.Thread(target=lambda: packed.append(trained("resnet20")[1])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(packed) == 3
    assert all(torch.equal(value, state[key]) for state in packed for key, value in alone.items())


@on_gpu_only
def test_an_evaluation_by_plans_repeats_and_is_that_without(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1200, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(1200) % 10
    data = tb.data_from_tensors((images[:50], labels[:50]), (images, labels))
    ticket = tb.initialize("resnet20", data, seed=0)
    cuda = torch.device("cuda")

    def evaluated(table: dict[Convolution, Algorithm]) -> list[tuple[float, float]]:
        put_tables(monkeypatch, table)
        flat_network = FlatNetwork(ticket.network, cuda)
        flat_network.load(ticket.start)
        evaluator = Evaluator(flat_network, "bfloat16")
        assert evaluator._network is not None
        used.append(dict(evaluator._network.algorithms))
        return [evaluator(data, data.test) for _ in range(2)]

    used: list[dict[Convolution, Algorithm]] = []
    with repeatable(cuda):
        table = Everything()
        _ = table[Convolution("forward", (500, 16, 32, 32), (16, 16, 3, 3), (1, 1), (1, 1))]
        (plain, _), by_plans, again = (evaluated(one) for one in ({}, table, table))
    assert used[0] == {}
    assert used[1] == used[2] == table
    assert {(one.operation, one.input[0]) for one in table} == {("forward", 500)}
    assert len({*by_plans, *again}) == 1
    for found, expected, allowed in zip(by_plans[0], plain, (1e-2, 1.0), strict=True):
        assert found == pytest.approx(expected, abs=allowed)
