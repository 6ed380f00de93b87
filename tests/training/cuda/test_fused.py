"""The fused passes against plain PyTorch in float64 on the CPU.

Where there is no GPU but Triton, ``TRITON_INTERPRET=1 pytest tests/training/cuda`` runs the kernels in its
interpreter.
"""

import math
from collections.abc import Callable

import pytest
import torch
from kernels import CUDA, DEVICE, INTERPRETED, needs_kernels, on_gpu_only
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb
from tombola.data.augmentation import draw
from tombola.training import evaluation
from tombola.training.device import process_settings, repeatable
from tombola.training.engines import GraphedEngine
from tombola.training.epoch import DevicePlan, EpochPlan
from tombola.training.evaluation import Evaluator, device_batches, evaluate
from tombola.training.flat_network import FlatNetwork

pytestmark = needs_kernels


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def on_gpu(values: Tensor, dtype: torch.dtype) -> Tensor:
    moved = values.to(DEVICE, dtype)
    moved = moved.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else moved
    return moved.requires_grad_()


def error(found: Tensor | None, expected: Tensor | None) -> float:
    """Norm of the difference relative to the norm of what is expected."""
    assert found is not None
    assert expected is not None
    return float((found.detach().cpu().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(64, 64, 32, 32), (8, 512, 4, 4), (5, 20, 7, 9), (3, 1030, 2, 2)])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_batch_norm_addition_and_relu_are_those_of_pytorch(
    dtype: torch.dtype, allowed: float, shape: tuple[int, ...], added: bool, relu: bool, twice: bool
) -> None:
    from tombola.training.cuda.norm import FusedNorm

    if INTERPRETED and math.prod(shape) > 100_000:
        pytest.skip("too much for an interpreter")
    norm = nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.copy_(drawn(shape[1], seed=1))
        norm.bias.copy_(drawn(shape[1], seed=2))
    plain = nn.BatchNorm2d(shape[1]).double()
    plain.load_state_dict(norm.state_dict())
    shift = 3 * drawn(shape[1], seed=3)
    # What the fused pass reads, rounded as it reads it; far from zero, where sums of squares would fail.
    x = (drawn(*shape, seed=4) + 5).to(dtype).float()
    residual = drawn(*shape, seed=5).to(dtype).float()
    theirs, theirs_residual = x.double().requires_grad_(), residual.double().requires_grad_()
    expected = plain(theirs + shift.double().view(-1, 1, 1)) + (theirs_residual if added else 0)
    # Rounding decides about ReLU next to zero, so no gradient comes from there.
    clear = expected.abs() > 100 * allowed * expected.abs().mean()
    expected = functional.relu(expected) if relu else expected
    weights = [(drawn(*shape, seed=seed) * clear).to(dtype).float() for seed in (6, 7)]

    op = FusedNorm(norm.to(DEVICE), relu=relu, conv_bias=shift.to(DEVICE), twice=twice)
    ours, ours_residual = on_gpu(x, dtype), on_gpu(residual, dtype) if added else None
    found = op(ours, ours_residual)
    outputs = found if twice else (found,)
    sum(
        (each * on_gpu(weight, dtype)).float().sum() for each, weight in zip(outputs, weights, strict=False)
    ).backward()

    sum((expected * weight).sum() for weight in weights[: len(outputs)]).backward()  # type: ignore[union-attr]

    assert error(outputs[0], expected) < allowed
    assert error(ours.grad, theirs.grad) < 3 * allowed
    assert error(norm.weight.grad, plain.weight.grad) < 3 * allowed
    assert error(norm.bias.grad, plain.bias.grad) < 3 * allowed
    assert error(norm.running_mean, plain.running_mean) < 1e-5
    assert error(norm.running_var, plain.running_var) < 1e-5
    if ours_residual is not None:
        assert error(ours_residual.grad, theirs_residual.grad) < 3 * allowed
    op.eval()
    plain.eval()
    with torch.no_grad():
        again = op(ours, ours_residual)
        wanted = plain(x.double() + shift.double().view(-1, 1, 1)) + (residual.double() if added else 0)
    assert error(again[0] if twice else again, functional.relu(wanted) if relu else wanted) < allowed


def test_an_undefined_activation_stays_undefined() -> None:
    from tombola.training.cuda.norm import FusedNorm

    x = on_gpu(drawn(4, 16, 3, 3), torch.float32)
    with torch.no_grad():
        x[0, 2, 1, 1] = float("nan")
    out = FusedNorm(nn.BatchNorm2d(16).to(DEVICE), relu=True, conv_bias=None, twice=False)(x)
    assert out[:, 2].isnan().all()
    assert not out[:, 3].isnan().any()


@pytest.mark.parametrize("shape", [(3, 64, 8, 8), (2, 20, 6, 10), (2, 5, 7, 4)])
def test_pooling_is_that_of_pytorch_ties_and_undefined_values_included(shape: tuple[int, ...]) -> None:
    from tombola.training.cuda.kernels import HalvingPool

    x = drawn(*shape).round()  # many ties
    x[0, 1, 2, 2] = float("nan")
    ours, theirs = on_gpu(x, torch.float32), x.clone().requires_grad_()
    found, expected = HalvingPool()(ours), functional.max_pool2d(theirs, 2)
    assert torch.equal(found.cpu().nan_to_num(7), expected.nan_to_num(7))
    weight = drawn(*expected.shape, seed=1)
    (found * weight.to(DEVICE)).sum().backward()
    (expected * weight).sum().backward()
    assert error(ours.grad, theirs.grad) == 0


def test_a_strided_pointwise_convolution_is_that_of_pytorch() -> None:
    from tombola.training.cuda.kernels import Pointwise

    convolution = nn.Conv2d(24, 40, 1, 2, bias=False)
    exact = nn.Conv2d(24, 40, 1, 2, bias=False).double()
    exact.load_state_dict(convolution.state_dict())
    x, weight = drawn(3, 24, 9, 8), drawn(3, 40, 5, 4, seed=1)
    ours, theirs = on_gpu(x, torch.float32), x.double().requires_grad_()
    with process_settings("default"):  # else products may be rounded to TensorFloat-32
        found = Pointwise(convolution.to(DEVICE))(ours)
        (found * weight.to(DEVICE)).sum().backward()
    (exact(theirs) * weight).sum().backward()
    assert error(found, exact(theirs)) < 1e-5
    assert error(ours.grad, theirs.grad) < 1e-5
    assert error(convolution.weight.grad, exact.weight.grad) < 1e-5


@pytest.mark.parametrize(("images", "classes"), [(5, 10), (256, 100), (300, 200), (2, 2)])
def test_cross_entropy_is_that_of_pytorch(images: int, classes: int) -> None:
    from tombola.training.cuda.kernels import cross_entropy

    outputs, targets = 4 * drawn(images, classes), torch.arange(images) % classes
    outputs[0] = 1.0  # a tie, which the first class wins
    losses, right, gradient = cross_entropy(outputs.to(DEVICE), targets.to(DEVICE))
    exact = outputs.double().requires_grad_()
    functional.cross_entropy(exact, targets).backward()
    assert error(losses, functional.cross_entropy(exact, targets, reduction="none")) < 1e-6
    assert torch.equal(right.cpu(), outputs.argmax(1) == targets)
    assert error(gradient, exact.grad) < 1e-6


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize(("images", "classes"), [(5, 10), (256, 100), (3, 2)])
def test_smoothed_cross_entropy_is_that_of_pytorch(images: int, classes: int, smoothing: float) -> None:
    from tombola.training.cuda.kernels import cross_entropy

    outputs, targets = 4 * drawn(images, classes), torch.arange(images) % classes
    losses, right, gradient = cross_entropy(outputs.to(DEVICE), targets.to(DEVICE), smoothing)
    exact = outputs.double().requires_grad_()
    wanted = functional.cross_entropy(exact, targets, reduction="none", label_smoothing=smoothing)
    wanted.mean().backward()
    assert error(losses, wanted) < 1e-6
    assert torch.equal(right.cpu(), outputs.argmax(1) == targets)
    assert error(gradient, exact.grad) < 1e-6


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_that_of_pytorch_and_pruned_weights_are_zero_whatever_they_were(
    momentum: float, nesterov: bool
) -> None:
    from tombola.training.cuda.kernels import sgd

    count = 5008
    start, kept = drawn(count), torch.where(drawn(count, seed=9) > 0, -1, 0).to(torch.int8)
    exact = start.double().requires_grad_()
    optimizer = torch.optim.SGD([exact], lr=0.3, momentum=momentum, weight_decay=0.01, nesterov=nesterov)
    weights, moved = start.to(DEVICE), torch.zeros(count, device=DEVICE)
    copy = torch.empty(count, device=DEVICE, dtype=torch.bfloat16)
    numbers = torch.tensor([momentum, 0.01], device=DEVICE)
    for step in range(3):
        gradient = drawn(count, seed=20 + step)
        exact.grad = gradient.double()
        optimizer.step()
        gradient[kept == 0] = float("inf")
        sgd(
            weights,
            gradient.to(DEVICE),
            moved,
            kept.to(DEVICE),
            copy,
            torch.tensor(0.3, device=DEVICE),
            numbers,
            nesterov=nesterov,
        )
    wanted = torch.where(kept != 0, exact.detach(), 0.0)
    assert error(weights, wanted) < 1e-6
    assert torch.allclose(copy.float(), weights, rtol=1 / 128, atol=0)
    assert not weights.cpu()[kept == 0].any()
    assert not moved.cpu()[kept == 0].any()


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95), (0.5, 0.0)])
@pytest.mark.parametrize("before", [0, 10_000])
def test_adamw_is_that_of_pytorch_and_pruned_weights_are_zero_whatever_they_were(
    betas: tuple[float, float], before: int
) -> None:
    from tombola.training.cuda.kernels import adamw, adamw_numbers

    count = 5008
    start, kept = drawn(count), torch.where(drawn(count, seed=9) > 0, -1, 0).to(torch.int8)
    exact = start.double().requires_grad_()
    optimizer = torch.optim.AdamW([exact], lr=0.03, betas=betas, eps=1e-4, weight_decay=0.1)
    exact.grad = torch.zeros(count, dtype=torch.float64)
    optimizer.step()
    with torch.no_grad():
        exact.copy_(start)
    optimizer.state[exact]["step"].fill_(before)
    weights, taken = start.clone().to(DEVICE), torch.tensor(float(before), device=DEVICE)
    moments = torch.zeros(count, device=DEVICE), torch.zeros(count, device=DEVICE)
    copy = torch.empty(count, device=DEVICE, dtype=torch.bfloat16)
    numbers = adamw_numbers(betas, 1e-4, 0.1).to(DEVICE)
    for step in range(4):
        gradient = drawn(count, seed=20 + step) * 10.0 ** -(step % 3)
        gradient[:16] = 0  # where a stretch is filled up, and of dead units
        exact.grad = gradient.double()
        optimizer.step()
        gradient[kept == 0] = float("inf")
        rate = torch.tensor(0.03, device=DEVICE)
        taken.add_(1)
        adamw(weights, gradient.to(DEVICE), moments, kept.to(DEVICE), copy, rate, taken, numbers)
    wanted = torch.where(kept != 0, exact.detach(), 0.0)
    # Of what moved, without the start that both have.
    assert error(weights.cpu() - start * (kept != 0), wanted - start * (kept != 0)) < 1e-5
    for moment, name in zip(moments, ("exp_avg", "exp_avg_sq"), strict=True):
        assert error(moment, torch.where(kept != 0, optimizer.state[exact][name], 0.0)) < 1e-6
        assert not moment.cpu()[kept == 0].any()
    assert torch.allclose(copy.float(), weights, rtol=1 / 128, atol=0)
    assert not weights.cpu()[kept == 0].any()


@pytest.mark.parametrize("fill", ["black", "mean"])
@pytest.mark.parametrize("height", [8, 33])
def test_batches_are_those_that_plain_operations_make(fill: str, height: int) -> None:
    from tombola.training.cuda.kernels import crop

    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, height, 40), dtype=torch.uint8, generator=draws)
    labels = torch.arange(50) % 7
    data = tb.data_from_tensors((images, labels), (images[:7], labels[:7]), name=f"made{height}")
    augmentation = tb.Augmentation(fill=fill, flip=True)  # type: ignore[arg-type]
    batches = device_batches(data, data.train, DEVICE, pad=augmentation.padding(data), fill=augmentation.fill)
    drawn_plan = draw(augmentation, data, noise=0, round=0, epoch=0)
    order = torch.randperm(50, generator=draws)
    plan = DevicePlan.empty(50, 20, DEVICE)
    plan.begin(EpochPlan(order, drawn_plan, [0.1] * 3, 20).to(DEVICE))
    for step, size in enumerate((20, 20, 10)):
        plan.step.fill_(step)
        found, targets = crop(batches, plan, size, torch.float32)
        stretch = slice(20 * step, 20 * step + size)
        expected = batches.images(
            plan.order[stretch],
            plan.draws.rows[stretch],
            plan.draws.columns[stretch],
            plan.draws.flips[stretch],
        )
        assert float((found - expected).abs().max()) < 1e-6
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(targets.cpu(), labels[order[stretch]])
    assert int(plan.strays) == 0


@pytest.mark.parametrize("value", [-1, 2**40])
@pytest.mark.parametrize("overwritten", ["order", "rows", "columns", "step"])
def test_an_index_out_of_range_is_counted_and_touches_no_other_image(overwritten: str, value: int) -> None:
    from tombola.training.cuda.kernels import crop

    images = torch.randint(0, 256, (50, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = tb.data_from_tensors((images, torch.arange(50) % 7), (images[:7], torch.arange(7)), name="made")
    batches = device_batches(data, data.train, DEVICE, pad=2)
    plan = DevicePlan.unaugmented(50, 20, 2, DEVICE)
    expected, labels = crop(batches, plan, 20, torch.float32)
    getattr(plan if overwritten in ("order", "step") else plan.draws, overwritten)[0] = value
    found, targets = crop(batches, plan, 20, torch.float32)
    assert int(plan.strays) > 0
    if overwritten != "step":
        assert torch.equal(found[1:], expected[1:])
        assert torch.equal(targets[1:], labels[1:])


class Own(nn.Module):
    """A user's network, with most of what can be recognised and some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24))
        self.left = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24, affine=False)
        self.shared = nn.BatchNorm2d(24)
        self.down = nn.Conv2d(24, 48, 1, 2, bias=False)
        self.last = nn.BatchNorm2d(48, eps=1e-3, momentum=0.3)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = x + self.norm(self.left(x)).relu()
        x = functional.max_pool2d(x, 2) + functional.avg_pool2d(x, 2)
        x = self.shared(self.left(x)) + x
        x = torch.relu(x + self.shared(x))
        return self.head(functional.gelu(self.last(self.down(x))).mean((2, 3)))


def gradients_of_one_step(
    ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe
) -> tuple[str, dict[str, Tensor]]:
    """What momentum holds after one step, and the weights and buffers then."""
    with repeatable(CUDA):
        engine = GraphedEngine(ticket.network, data, recipe, CUDA, recipe.precision)
        engine.set_numbers(recipe)
        engine.flat_network.load(ticket.weights(), ticket.mask)
        draws = draw(recipe.augmentation, data, noise=0, round=0, epoch=0)
        engine.begin(EpochPlan(torch.arange(len(data.train)), draws, [0.1], recipe.batch_size).to(CUDA))
        engine.advance(0, 1)
        momentum = {
            f"gradient of {name.removeprefix('momentum.')}": value
            for name, value in engine.flat_network.optimizer_state().items()
        }
        return engine.name, momentum | engine.flat_network.state()


@on_gpu_only
# Two equivalent passes of plain PyTorch over ResNet-34 as version 2 starts it differ in float32 by more than
# the bound allows (a ReLU at its edge flips); its first version is better conditioned.
@pytest.mark.parametrize("network", ["convnet", "resnet20", "resnet18", "resnet34@1", "vgg16", Own])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_step_is_as_near_to_float64_as_plain_pytorch_in_the_same_precision(
    monkeypatch: pytest.MonkeyPatch, network: str | Callable[..., nn.Module], precision: str
) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(48) % 10
    data = tb.data_from_tensors((images, labels), (images[:10], labels[:10]))
    start = tb.initialize(network, data, seed=0)
    mask = {name: torch.rand(keep.shape, generator=draws) < 0.5 for name, keep in start.mask.items()}
    ticket = start.with_mask(mask)
    recipe = tb.Recipe(
        epochs=1, batch_size=48, lr=0.1, momentum=0.9, weight_decay=0.0, precision=precision,  # type: ignore[arg-type]
        augmentation=tb.Augmentation(pad=0, flip=False),
    )  # fmt: skip
    module = ticket.network.build()
    module.load_state_dict(ticket.weights())
    module.double().train()
    inputs = (images.double() / 255 - data.mean.double().view(-1, 1, 1)) / data.std.double().view(-1, 1, 1)
    functional.cross_entropy(module(inputs), labels).backward()
    exact = {name: value.detach() for name, value in module.named_buffers() if "num" not in name}
    for name, value in module.named_parameters():
        gradient = (value.grad if value.grad is not None else torch.zeros_like(value)) * mask.get(name, 1)
        exact[f"gradient of {name}"] = gradient
        exact[name] = (value.detach() - 0.1 * gradient) * mask.get(name, 1)

    name, fused = gradients_of_one_step(ticket, data, recipe)
    assert name == "graphed, fused"
    monkeypatch.setattr(evaluation, "_fused_network", lambda *_: None)
    name, plain = gradients_of_one_step(ticket, data, recipe)
    assert name == "graphed, plain"

    def errors(found: dict[str, Tensor]) -> dict[str, float]:
        return {name: float((found[name].double() - value).norm()) for name, value in exact.items()}

    ours, theirs = errors(fused), errors(plain)
    whole = math.sqrt(sum(float(value.norm()) ** 2 for name, value in exact.items() if "gradient" in name))
    print(network, precision, *(math.hypot(*each.values()) / whole for each in (ours, theirs)))
    for name in exact:
        assert ours[name] < 2 * theirs[name] + 2e-5 * whole, name
    assert math.hypot(*ours.values()) < 1.2 * math.hypot(*theirs.values()) + 1e-6 * whole
    counted = {
        name: int(value) for name, value in module.named_buffers() if name.endswith("num_batches_tracked")
    }
    assert {name: int(fused[name]) for name in counted} == counted


@on_gpu_only
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.1), ("nesterov", 0.1), ("adamw", 0.01)])
def test_steps_of_every_optimizer_are_as_near_to_float64_as_plain_ones(
    monkeypatch: pytest.MonkeyPatch, digits: tb.Data, optimizer: str, lr: float
) -> None:
    draws = torch.Generator().manual_seed(0)
    start = tb.initialize("convnet", digits, seed=0)
    mask = {name: torch.rand(keep.shape, generator=draws) < 0.5 for name, keep in start.mask.items()}
    ticket = start.with_mask(mask)
    # A large eps: next to 0 Adam's step is the sign of the gradient, which rounding decides.
    others = {"eps": 1e-2, "betas": (0.8, 0.95)} if optimizer == "adamw" else {}
    recipe = tb.Recipe(
        epochs=1, batch_size=200, lr=lr, weight_decay=0.01, precision="float32", optimizer=optimizer,
        label_smoothing=0.1, augmentation=tb.Augmentation(pad=0, flip=False), **others,  # type: ignore[arg-type]
    )  # fmt: skip
    module = ticket.network.build()
    module.load_state_dict(ticket.weights())
    module.double().train()
    parameters = dict(module.named_parameters())
    torch_optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(module.parameters(), lr, (0.8, 0.95), 1e-2, 0.01)
        if optimizer == "adamw"
        else torch.optim.SGD(module.parameters(), lr, 0.9, 0, 0.01, optimizer == "nesterov")
    )
    images, labels = digits.train.images.double() / 255, digits.train.labels
    inputs = (images - digits.mean.double().view(-1, 1, 1)) / digits.std.double().view(-1, 1, 1)
    for first in range(0, 800, 200):
        torch_optimizer.zero_grad()
        outputs, targets = module(inputs[first : first + 200]), labels[first : first + 200]
        functional.cross_entropy(outputs, targets, label_smoothing=0.1).backward()
        torch_optimizer.step()
        with torch.no_grad():
            for name, keep in mask.items():
                parameters[name].mul_(keep)
                for value in torch_optimizer.state[parameters[name]].values():
                    if isinstance(value, Tensor) and value.shape == keep.shape:
                        value.mul_(keep)

    def distance() -> tuple[str, float]:
        with repeatable(CUDA):
            engine = GraphedEngine(ticket.network, digits, recipe, CUDA, "float32")
            engine.set_numbers(recipe)
            engine.flat_network.load(ticket.weights(), ticket.mask)
            drawn_plan = draw(recipe.augmentation, digits, noise=0, round=0, epoch=0)
            order = torch.arange(len(digits.train))
            engine.begin(EpochPlan(order, drawn_plan, [lr] * 6, 200).to(CUDA))
            engine.advance(0, 4)
            weights = engine.flat_network.state()
            exact = {name: value.detach() for name, value in parameters.items()}
            norms = [float((weights[name].double() - value).norm()) for name, value in exact.items()]
            return engine.name, math.hypot(*norms)

    name, fused = distance()
    assert name == "graphed, fused"
    monkeypatch.setattr(evaluation, "_fused_network", lambda *_: None)
    name, plain = distance()
    assert name == "graphed, plain"
    print(optimizer, fused, plain)
    assert fused < 2 * plain + 1e-5
    assert fused < 1e-3


@on_gpu_only
def test_a_network_has_its_own_weights_back_after_a_pass_whatever_was_rewritten() -> None:
    from tombola.training.cuda.fused import FusedNetwork

    network = tb.Network.of(Own, channels=3, size=(8, 8), classes=10)
    flat_network = FlatNetwork(network, DEVICE)
    before = {name: id(parameter) for name, parameter in flat_network.module.named_parameters()}
    computed = FusedNetwork(flat_network, "float32")
    computed(torch.zeros(4, 3, 8, 8, device=DEVICE), training=True)
    assert {name: id(parameter) for name, parameter in flat_network.module.named_parameters()} == before
    flat_network.load(network.initialized(1).state_dict())
    expected = network.initialized(1).eval()(torch.ones(4, 3, 8, 8))
    found = computed(torch.ones(4, 3, 8, 8, device=DEVICE), training=False)
    assert error(found, expected.double()) < 1e-4


def test_bfloat16_copies_are_exchanged_once_and_given_back() -> None:
    from tombola.training.cuda.fused import FusedNetwork

    flat_network = FlatNetwork(tb.Network.of(Own, channels=3, size=(8, 8), classes=10), DEVICE)
    computed = FusedNetwork(flat_network, "bfloat16")
    with pytest.raises(RuntimeError, match="channels"):
        computed(torch.zeros(4, 5, 8, 8, device=DEVICE), training=True)
    assert all(parameter.dtype == torch.float32 for parameter in flat_network.module.parameters())


@on_gpu_only
def test_a_frozen_parameter_and_an_unused_one_stay_as_they_are() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.unused, self.head = nn.Linear(12, 8), nn.Linear(3, 3), nn.Linear(8, 2)
            self.first.weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x.flatten(1)).relu())

    images = torch.arange(20 * 12, dtype=torch.uint8).view(20, 3, 2, 2)
    data = tb.data_from_tensors((images, torch.arange(20) % 2), (images, torch.arange(20) % 2))
    start = tb.initialize(Partly, data, seed=0)
    recipe = tb.Recipe(epochs=2, batch_size=10, weight_decay=0.0)
    run = tb.train(start, data, recipe, device="cuda")
    for name in ("first.weight", "unused.weight", "unused.bias"):
        assert torch.equal(run.weights[name], start.start[name])
    assert not torch.equal(run.weights["head.weight"], start.start["head.weight"])


@on_gpu_only
def test_evaluation_is_that_of_the_plain_network(start: tb.Ticket, digits: tb.Data) -> None:
    with repeatable(CUDA):
        flat_network = FlatNetwork(start.network, CUDA)
        evaluator = Evaluator(flat_network, "float32")
        for seed in (0, 1):
            flat_network.load(tb.initialize("convnet", digits, seed=seed).start)
            found = evaluator(digits, digits.test)
            wanted = evaluate(flat_network.module, device_batches(digits, digits.test, CUDA), "float32")
            assert found[0] == pytest.approx(wanted[0], rel=1e-5)
            assert found[1] == pytest.approx(wanted[1], abs=0.4)


@on_gpu_only
@pytest.mark.parametrize("batch_size", [60, 64, 200])
def test_batches_evaluated_at_once_have_the_bits_that_they_have_one_by_one(
    start: tb.Ticket, digits: tb.Data, batch_size: int
) -> None:
    from tombola.training.cuda.fused import FusedNetwork, GraphedEvaluation

    with repeatable(CUDA):
        flat_network = FlatNetwork(start.network, CUDA)
        flat_network.load(start.start)
        network = FusedNetwork(flat_network, "bfloat16")
        batches = device_batches(digits, digits.test, CUDA)
        alone, *together = (
            GraphedEvaluation(network, batches, batch_size, count) for count in (1, 2, 3, 4, 20)
        )
        expected = alone()
        for evaluation_ in together:
            assert evaluation_() == expected
            assert evaluation_() == expected


def test_averaged_statistics_are_those_of_batches_weighed_by_their_images() -> None:
    from tombola.training.cuda.norm import FusedNorm

    norm = nn.BatchNorm2d(20).to(DEVICE)
    op = FusedNorm(norm, relu=True, conv_bias=None, twice=False)
    op.passed = torch.zeros(20, device=DEVICE)
    batches = [drawn(size, 20, 3, 5, seed=size) + size for size in (4, 4, 7)]
    norm.running_mean.fill_(7)  # which the first batch replaces
    with torch.no_grad():
        for batch in batches:
            op(on_gpu(batch, torch.float32))
    weights = [len(batch) / 15 for batch in batches]
    means = [batch.double().mean((0, 2, 3)) for batch in batches]
    variances = [batch.double().var((0, 2, 3)) for batch in batches]
    for found, values in ((norm.running_mean, means), (norm.running_var, variances)):
        expected = sum(weight * value for weight, value in zip(weights, values, strict=True))
        assert error(found, expected) < 1e-6  # type: ignore[arg-type]
    assert torch.equal(op.passed, torch.full((20,), 15.0, device=DEVICE))
