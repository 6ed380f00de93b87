import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from tombola import seeds
from tombola.data.batches import Batches
from tombola.errors import DeviceError, DeviceLost
from tombola.training import definitions, evaluation
from tombola.training.checkpoint import Checkpoint, Checkpoints
from tombola.training.choice import engine_for
from tombola.training.cuda import capture as capture_module
from tombola.training.cuda import memory
from tombola.training.cuda.capture import capture, forget_engines
from tombola.training.device import repeatable
from tombola.training.engines import GraphedEngine
from tombola.training.epoch import DevicePlan, EpochPlan
from tombola.training.loop import Training
from tombola.training.run import ForgettingRecord

Same = Callable[..., bool]

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

CUDA = torch.device("cuda")


@pytest.fixture
def steps(recipe: tb.Recipe) -> tb.Recipe:
    """Three epochs of twelve steps, the last one smaller."""
    return recipe


def under_way(engine: object, ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe) -> Training:
    engine.flat_network.load(ticket.weights(), ticket.mask)  # type: ignore[attr-defined]
    record = ForgettingRecord.empty(len(data.train), CUDA)
    until = (recipe.epochs, 0)
    return Training(
        engine, data, recipe, seeds.Streams.of(0, 0), CUDA, "bfloat16", {}, [], record, (0, 0), until, 0, 0
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_engine_left() -> Iterator[None]:
    yield
    forget_engines()


@pytest.fixture
def _own_stream() -> Iterator[None]:
    """What a training has around it, for tests that make an engine themselves."""
    with repeatable(CUDA):
        yield


class Launched:
    """Work that is done anew each time, where a graph of it would be replayed."""

    def __init__(
        self,
        work: Callable[[], None],
        pool: object,
        *,
        before: object,
        generator: torch.Generator | None = None,
    ) -> None:
        self.replay = work


def uncaptured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings on the GPU take the steps that would be replayed, one by one."""
    forget_engines()
    monkeypatch.setattr(capture_module, "capture", Launched)


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings on the GPU take steps of plain PyTorch operations."""
    forget_engines()
    monkeypatch.setattr(evaluation, "_fused_network", lambda *_: None)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_replayed_steps_give_the_bits_of_the_same_steps_taken_one_by_one(
    start: tb.Ticket,
    digits: tb.Data,
    monkeypatch: pytest.MonkeyPatch,
    same_run: Same,
    momentum: float,
    precision: str,
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=100, lr=0.1, momentum=momentum, precision=precision)  # type: ignore[arg-type]
    graphed = tb.train(start, digits, recipe, device="cuda")
    uncaptured(monkeypatch)
    assert same_run(graphed, tb.train(start, digits, recipe, device="cuda"))


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 2e-5), ("bfloat16", 5e-2)])
def test_one_step_moves_the_weights_as_in_float64_on_a_cpu(
    start: tb.Ticket, digits: tb.Data, precision: str, allowed: float
) -> None:
    # All images in one batch, unaugmented: the step is the gradient of the whole split, in any order.
    recipe = tb.Recipe(
        epochs=1, batch_size=1198, lr=0.1, momentum=0.0, weight_decay=0.0, precision=precision,  # type: ignore[arg-type]
        augmentation=tb.Augmentation(pad=0, flip=False),
    )  # fmt: skip
    run = tb.train(start, digits, recipe, device="cuda")
    module = start.network.build()
    module.load_state_dict(dict(start.start))
    module.double().train()
    images = digits.train.images.double() / 255
    inputs = (images - digits.mean.double().view(-1, 1, 1)) / digits.std.double().view(-1, 1, 1)
    nn.functional.cross_entropy(module(inputs), digits.train.labels).backward()
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    largest = max(float(value.abs().max()) for value in gradients.values())
    for name, expected in gradients.items():
        found = (start.start[name].double() - run.weights[name].double()) / 0.1
        # TensorFloat-32 would be off by 6e-3 here.
        assert float((found - expected).abs().max()) < allowed * largest, name


@pytest.mark.parametrize("size", [100, 599, 1198, 5000])
def test_any_batch_size_is_captured(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same, size: int
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=size, lr=0.1)
    graphed = tb.train(start, digits, recipe, device="cuda")
    uncaptured(monkeypatch)
    assert same_run(graphed, tb.train(start, digits, recipe, device="cuda"))


def test_a_training_that_begins_within_an_epoch_is_the_uninterrupted_one(
    start: tb.Ticket, digits: tb.Data, same_bits: Callable[..., bool]
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=100, momentum=0.0)
    whole = tb.train(start, digits, recipe, noise=5, device="cuda")
    ticket = tb.pretrain(start, digits, recipe, epochs="17it", noise=5, device="cuda")
    assert (ticket.epoch, ticket.step, ticket.steps) == (1, 5, 12)
    rest = tb.train(ticket, digits, recipe, noise=5, device="cuda")
    assert same_bits(rest.weights, whole.weights)
    assert rest.history[-1].train_loss == whole.history[-1].train_loss


@pytest.mark.usefixtures("_own_stream")
def test_the_learning_rate_is_read_at_every_step(start: tb.Ticket, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=1198, lr=0.1, momentum=0.0, weight_decay=0.0)
    engine = GraphedEngine(start.network, digits, recipe, CUDA, "float32")
    training = under_way(engine, start, digits, recipe)
    plan = training.plan(0)
    moved = []
    for rate in (0.0, 0.1, 0.2):
        engine.flat_network.load(start.weights(), start.mask)
        engine.begin(type(plan)(plan.order, plan.draws, [rate], plan.batch_size))
        engine.advance(0, 1)
        weights = engine.flat_network.state()
        moved.append(sum(float((weights[name] - start.start[name]).double().norm()) for name in start.mask))
    assert moved[0] == 0
    assert moved[2] == pytest.approx(2 * moved[1], rel=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_an_index_out_of_range_raises_at_the_end_of_the_epoch_and_the_device_stays(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe, monkeypatch: pytest.MonkeyPatch, same_run: Same,
    fused: bool,
) -> None:  # fmt: skip
    if not fused:
        plainly(monkeypatch)
    expected = tb.train(start, digits, steps, device="cuda")
    begin = DevicePlan.begin

    def begin_with_an_odd_index(plan: DevicePlan, epoch: EpochPlan) -> None:
        begin(plan, epoch)
        plan.order[30] = len(digits.train)

    with monkeypatch.context() as patched:
        patched.setattr(DevicePlan, "begin", begin_with_an_odd_index)
        with pytest.raises(DeviceLost, match="indices lay outside the images"):
            tb.train(start, digits, steps, device="cuda")
    assert same_run(tb.train(start, digits, steps, device="cuda"), expected)


def test_an_engine_goes_to_the_next_thread_when_its_work_is_done(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe
) -> None:
    with repeatable(CUDA):
        stream = torch.cuda.current_stream()
        with engine_for(start.network, digits, steps, CUDA, "bfloat16", "default"):
            torch.cuda._sleep(1_000_000_000)
            assert not stream.query()
        assert stream.query()


@pytest.mark.usefixtures("_own_stream")
def test_capturing_leaves_no_trace(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe, same_bits: Same
) -> None:
    engine = GraphedEngine(start.network, digits, steps, CUDA, "bfloat16")
    engine.flat_network.load(start.weights(), start.mask)
    assert same_bits(engine.flat_network.state(), dict(start.start))
    assert all(not value.any() for value in engine.flat_network.optimizer_state().values())


def test_batch_norm_counts_each_step_once(start: tb.Ticket, digits: tb.Data, steps: tb.Recipe) -> None:
    run = tb.train(start, digits, steps, device="cuda")
    counts = [int(value) for name, value in run.weights.items() if name.endswith("num_batches_tracked")]
    assert counts == [3 * 12] * 4


@pytest.mark.usefixtures("_own_stream")
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.3), ("nesterov", 0.3), ("adamw", 0.01)])
def test_pruned_weights_and_optimizer_state_stay_exactly_zero_over_thousands_of_steps(
    chain: list[tb.Run], digits: tb.Data, optimizer: str, lr: float
) -> None:
    ticket = chain[2].ticket
    recipe = tb.Recipe(epochs=60, batch_size=32, lr=lr, optimizer=optimizer)
    engine = GraphedEngine(ticket.network, digits, recipe, CUDA, "bfloat16")
    training = under_way(engine, ticket, digits, recipe)
    for _ in range(60):  # of 38 steps
        training.train_epoch(tb.Watch())
        weights, state = engine.flat_network.state(), engine.flat_network.optimizer_state()
        for name, keep in ticket.mask.items():
            kept = [value for key, value in state.items() if key.partition(".")[2] == name]
            assert len(kept) == len(engine.flat_network.states)
            assert all(not value[~keep].any() for value in (weights[name], *kept))
    assert all(row.any() for row in engine.flat_network.states.values())


@pytest.mark.usefixtures("_own_stream")
def test_a_dense_and_then_a_sparse_ticket_can_use_one_engine(
    start: tb.Ticket, chain: list[tb.Run], digits: tb.Data, steps: tb.Recipe, same_bits: Same
) -> None:
    engine = GraphedEngine(start.network, digits, steps, CUDA, "bfloat16")
    fresh = GraphedEngine(start.network, digits, steps, CUDA, "bfloat16")
    under_way(engine, start, digits, steps).train_epoch(tb.Watch())
    states: list[dict[str, Tensor]] = []
    for each in (engine, fresh):
        under_way(each, chain[2].ticket, digits, steps).train_epoch(tb.Watch())
        states.append(each.flat_network.state())
    assert same_bits(*states)


class Cut(Exception):
    pass


class CutOff(Checkpoints):
    """Is interrupted after so many checkpoints."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder, every=0)
        self._left = after

    def keep(self, checkpoint: Checkpoint) -> None:
        super().keep(checkpoint)
        self._left -= 1
        if self._left == 0:
            raise Cut


@pytest.mark.parametrize(
    ("optimizer", "lr", "after"), [("sgd", 0.1, 1), ("sgd", 0.1, 2), ("nesterov", 0.1, 3), ("adamw", 1e-3, 2)]
)
def test_a_run_interrupted_and_resumed_has_the_same_bits(
    start: tb.Ticket,
    digits: tb.Data,
    tmp_path: Path,
    same_run: Same,
    optimizer: str,
    lr: float,
    after: int,
) -> None:
    # 150 steps an epoch, of which 64 go together.
    recipe = tb.Recipe(epochs=3, batch_size=8, lr=lr, optimizer=optimizer, label_smoothing=0.1)
    whole = tb.train(start, digits, recipe, device="cuda")
    with pytest.raises(Cut):
        tb.train(start, digits, recipe, device="cuda", watch=CutOff(tmp_path, after))
    assert same_run(tb.train(start, digits, recipe, device="cuda", watch=Checkpoints(tmp_path)), whole)


@pytest.mark.parametrize("batch_size", [8, 100, 2000])
@pytest.mark.parametrize("fused", [True, False])
def test_images_that_stay_on_the_host_give_the_same_bits(
    start: tb.Ticket,
    digits: tb.Data,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    same_run: Same,
    batch_size: int,
    fused: bool,
) -> None:
    if not fused:
        plainly(monkeypatch)
    recipe = tb.Recipe(epochs=2, batch_size=batch_size, lr=0.1)
    monkeypatch.setenv("TOMBOLA_STREAM", "0")
    resident = tb.train(start, digits, recipe, device="cuda")
    forget_engines()
    monkeypatch.setenv("TOMBOLA_STREAM", "1")
    assert same_run(tb.train(start, digits, recipe, device="cuda"), resident)
    with pytest.raises(Cut):
        tb.train(start, digits, recipe, device="cuda", watch=CutOff(tmp_path, 1))
    assert same_run(tb.train(start, digits, recipe, device="cuda", watch=Checkpoints(tmp_path)), resident)


def test_a_run_packed_with_others_has_the_bits_it_has_alone(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe, same_run: Same
) -> None:
    alone = [tb.train(start, digits, steps, noise=noise, device="cuda") for noise in range(3)]
    packed: dict[int, tb.Run] = {}

    def train(noise: int) -> None:
        packed[noise] = tb.train(start, digits, steps, noise=noise, device="cuda")

    threads = [threading.Thread(target=train, args=(noise,)) for noise in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for noise in range(3):
        assert same_run(packed[noise], alone[noise])


def test_a_declared_loss_is_captured_and_one_that_waits_for_the_gpu_is_not(
    monkeypatch: pytest.MonkeyPatch, chain: list[tb.Run], digits: tb.Data
) -> None:
    monkeypatch.setattr(definitions.LOSSES, "_declared", {})

    @tb.declare_loss("doubled")
    def doubled(logits: Tensor, labels: Tensor) -> Tensor:
        return -2 * logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)

    @tb.declare_loss("waiting")
    def waiting(logits: Tensor, labels: Tensor) -> Tensor:
        return doubled(logits, labels) * (1.0 if float(logits.sum()) > -1e9 else 0.0)

    usual = tb.Recipe(epochs=3, batch_size=150, lr=0.1, weight_decay=0.0, precision="float32")
    wanted = tb.train(chain[2].ticket, digits, usual, device="cuda")
    recipe = replace(usual, lr=0.05, loss="doubled")
    run = tb.train(chain[2].ticket, digits, recipe, device="cuda")
    assert run.engine == "graphed, fused"
    for name, value in wanted.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-2, atol=1e-3)
    with pytest.warns(UserWarning, match="cannot be captured as a CUDA graph and trains step by step"):
        eager = tb.train(chain[2].ticket, digits, replace(recipe, loss="waiting"), device="cuda")
    assert eager.engine == "eager"
    for name, value in wanted.weights.items():
        torch.testing.assert_close(eager.weights[name], value, rtol=1e-2, atol=1e-3)


def test_declared_optimizers_and_distillation_take_plain_steps_and_resume(
    monkeypatch: pytest.MonkeyPatch,
    chain: list[tb.Run],
    digits: tb.Data,
    tmp_path: Path,
    same_run: Same,
) -> None:
    monkeypatch.setattr(definitions.OPTIMIZERS, "_declared", {})
    tb.declare_optimizer("mine")(lambda parameters, recipe: torch.optim.Adam(parameters, lr=recipe.lr))
    ticket = chain[2].ticket
    recipe = tb.Recipe(epochs=3, batch_size=150, lr=0.01, optimizer="mine", loss="distillation")
    whole = tb.train(ticket, digits, recipe, teacher=chain[0], device="cuda")
    assert whole.engine == "eager, distillation, declared optimizer"
    with pytest.raises(Cut):
        tb.train(ticket, digits, recipe, teacher=chain[0], device="cuda", watch=CutOff(tmp_path, 2))
    rest = Checkpoints(tmp_path)
    assert same_run(tb.train(ticket, digits, recipe, teacher=chain[0], device="cuda", watch=rest), whole)
    assert all(not whole.weights[name][~keep].any() for name, keep in ticket.mask.items())


def test_a_network_that_waits_for_the_gpu_trains_step_by_step(digits: tb.Data) -> None:
    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1)) * (1.0 if x.sum().item() > -1e9 else 0.0)

    start = tb.initialize(Waiting, digits)
    with pytest.warns(UserWarning, match="cannot be captured as a CUDA graph and trains step by step"):
        run = tb.train(start, digits, tb.Recipe(epochs=2, batch_size=100), device="cuda")
    assert not run.failed
    # Nor does its failed capture stand in the way of others.
    after = tb.train(tb.initialize("convnet", digits), digits, tb.Recipe(epochs=1), device="cuda")
    assert after.engine == "graphed, fused"
    torch.cuda.empty_cache()


@pytest.mark.parametrize("network", ["resnet18", "vgg16", "resnet20"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_networks_of_the_paper_repeat_to_the_bit(network: str, precision: str, same_run: Same) -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (700, 3, 32, 32), dtype=torch.uint8, generator=draws)
    data = tb.data_from_tensors((images, torch.arange(700) % 10), (images[:50], torch.arange(50) % 10))
    recipe = tb.Recipe(epochs=2, batch_size=128, precision=precision)  # type: ignore[arg-type]
    start = tb.initialize(network, data)
    first, second = (tb.train(start, data, recipe, device="cuda") for _ in range(2))
    assert same_run(first, second)
    assert tb.barrier(first, second, data, device="cuda", points=3).height == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_in_another_process_has_the_same_bits(
    start: tb.Ticket, digits: tb.Data, precision: str
) -> None:
    program = (
        "import tombola as tb; data = tb.load_data('digits'); "
        "start = tb.initialize('convnet', data, seed=0); "
        f"recipe = tb.Recipe(epochs=2, batch_size=100, precision={precision!r}); "
        "print(tb.train(start, data, recipe, device='cuda').fingerprint)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    recipe = tb.Recipe(epochs=2, batch_size=100, precision=precision)  # type: ignore[arg-type]
    assert printed.strip() == tb.train(start, digits, recipe, device="cuda").fingerprint


def test_one_engine_serves_all_recipes_that_differ_in_numbers(
    start: tb.Ticket, chain: list[tb.Run], digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
    made: list[int] = []
    build = GraphedEngine.__init__

    def counted(self: GraphedEngine, *arguments: object, **options: object) -> None:
        made.append(1)
        build(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(GraphedEngine, "__init__", counted)
    forget_engines()
    first = tb.Recipe(epochs=2, batch_size=100, lr=0.1, momentum=0.9, weight_decay=5e-4)
    second = tb.Recipe(epochs=3, batch_size=100, lr=0.03, momentum=0.0, weight_decay=0.0, schedule="constant")
    tb.train(start, digits, first, device="cuda")
    after_another = tb.train(chain[2].ticket, digits, second, device="cuda")
    assert len(made) == 1
    forget_engines()
    assert same_run(after_another, tb.train(chain[2].ticket, digits, second, device="cuda"))
    tb.train(start, digits, tb.Recipe(epochs=1, batch_size=50), device="cuda")
    assert len(made) == 3


def test_plain_steps_take_new_numbers_too(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
    plainly(monkeypatch)
    first, second = (tb.Recipe(epochs=2, batch_size=100, momentum=momentum) for momentum in (0.9, 0.0))
    tb.train(start, digits, first, device="cuda")
    after_another = tb.train(start, digits, second, device="cuda")
    assert after_another.engine == "graphed, plain"
    forget_engines()
    assert same_run(after_another, tb.train(start, digits, second, device="cuda"))


def test_fused_and_plain_trainings_agree_within_rounding(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=100, lr=0.01, precision="float32")
    fused = tb.train(start, digits, recipe, device="cuda")
    plainly(monkeypatch)
    plain = tb.train(start, digits, recipe, device="cuda")
    assert (fused.engine, plain.engine) == ("graphed, fused", "graphed, plain")
    for name, value in plain.weights.items():
        assert torch.allclose(fused.weights[name].double(), value.double(), rtol=1e-3, atol=1e-4), name
    assert abs(fused.accuracy - plain.accuracy) < 1


def test_a_run_that_does_not_fit_fails_alone(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
    alone = tb.train(start, digits, steps, device="cuda")
    images = torch.zeros(4096, 3, 64, 64, dtype=torch.uint8)
    large = tb.data_from_tensors((images, torch.arange(4096) % 10), (images[:20], torch.arange(20) % 10))
    outcome: dict[str, object] = {}

    def too_large() -> None:
        try:
            tb.train(
                tb.initialize("resnet18", large), large, tb.Recipe(epochs=1, batch_size=4096), device="cuda"
            )
        except DeviceError as error:
            outcome["error"] = str(error)

    def small() -> None:
        outcome["run"] = tb.train(start, digits, steps, device="cuda")

    # The small one has an engine already: one to be captured now could lack memory itself.
    torch.cuda.empty_cache()
    monkeypatch.setattr(memory, "_lost", set())
    torch.cuda.set_per_process_memory_fraction(0.03)
    try:
        threads = [threading.Thread(target=work) for work in (too_large, small)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "resnet18 at batch size 4096 does not fit beside what else runs there" in str(outcome["error"])
    assert same_run(outcome["run"], alone)


def test_an_autotuned_training_says_so_and_does_not_resume(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe, tmp_path: Path
) -> None:
    with pytest.raises(Cut):
        tb.train(start, digits, steps, device="cuda", mode="autotuned", watch=CutOff(tmp_path, 1))
    with pytest.warns(UserWarning, match="an autotuned training does not resume"):
        run = tb.train(start, digits, steps, device="cuda", mode="autotuned", watch=Checkpoints(tmp_path))
    assert run.mode == "autotuned"
    assert len(run.history) == 1 + steps.epochs


def test_a_deterministic_training_runs_and_says_so(
    start: tb.Ticket, digits: tb.Data, steps: tb.Recipe, same_bits: Same
) -> None:
    default = tb.train(start, digits, steps, device="cuda")
    run = tb.train(start, digits, steps, device="cuda", mode="deterministic")
    assert run.mode == "deterministic"
    assert same_bits(run.weights, default.weights)


def test_images_given_up_are_not_overwritten_while_another_stream_reads_them(digits: tb.Data) -> None:
    made, reading = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(made):
        batches = Batches(digits.train, digits, device=CUDA)
    made.synchronize()
    expected = digits.train.images[:100]
    with torch.cuda.stream(reading):
        batches.record_stream(reading)
        torch.cuda._sleep(200_000_000)
        found = batches.padded[:100] + 0
    size = batches.padded.numel()
    del batches
    with torch.cuda.stream(made):
        others = [torch.full((size,), 255, dtype=torch.uint8, device=CUDA) for _ in range(4)]
    torch.cuda.synchronize()
    assert torch.equal(found.cpu(), expected)
    del others  # which had to stay until here


def test_a_forgotten_engine_is_gone_without_garbage_collection(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[weakref.ref[GraphedEngine]] = []
    build = GraphedEngine.__init__

    def noted(self: GraphedEngine, *arguments: object, **options: object) -> None:
        build(self, *arguments, **options)  # type: ignore[arg-type]
        engines.append(weakref.ref(self))

    monkeypatch.setattr(GraphedEngine, "__init__", noted)
    forget_engines()
    tb.train(start, digits, tb.Recipe(epochs=1, batch_size=100), device="cuda")
    gc.collect()
    gc.disable()
    try:
        forget_engines()
        assert [engine() for engine in engines] == [None]
    finally:
        gc.enable()


@pytest.mark.usefixtures("_own_stream")
def test_a_capture_leaves_other_threads_their_memory_and_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the whole device is waited for, or memory is given back")

    values, size = torch.zeros(512, 512, device=CUDA), torch.ones(512, 512, device=CUDA)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, forbidden)
    pool = torch.cuda.graph_pool_handle()
    graph = capture(lambda: values.copy_(size @ size), pool, before=values.zero_)  # type: ignore[arg-type,return-value]
    values.zero_()
    graph.replay()
    assert bool((values == 512).all())


def test_a_training_by_iterations_takes_the_steps_of_an_eager_one(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
    recipe = tb.Recipe(
        epochs="29it", batch_size=100, lr=0.1, warmup="5it", schedule="step", milestones=("14it", "26it")
    )
    graphed = tb.train(start, digits, recipe, device="cuda")
    assert graphed.history.column("epoch") == [0, 1, 2, 2 + 5 / 12]
    uncaptured(monkeypatch)
    assert same_run(graphed, tb.train(start, digits, recipe, device="cuda"))
