import math
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

import tombola as tb
from tombola.data.augmentation import draw
from tombola.data.batches import Batches
from tombola.training import engines, evaluation
from tombola.training.engines import EagerEngine
from tombola.training.epoch import EpochPlan
from tombola.training.evaluation import Evaluator, channels_last, device_batches, evaluate
from tombola.training.flat_network import FlatNetwork

CPU = torch.device("cpu")
Same = Callable[..., bool]


def plan_of(data: tb.Data, size: int, epoch: int = 0) -> EpochPlan:
    count = len(data.train)
    order = torch.from_numpy(np.random.default_rng(epoch).permutation(count))
    draws = draw(tb.Augmentation(), data, noise=0, round=0, epoch=epoch)
    return EpochPlan(order, draws, [0.05] * -(-count // size), size)


@pytest.fixture
def engine(colour: tb.Data) -> EagerEngine:
    ticket = tb.initialize("convnet", colour)
    engine = EagerEngine(ticket.network, colour, tb.Recipe(), CPU, "float32")
    engine.flat_network.load(ticket.weights(), ticket.mask)
    return engine


def normalised(data: tb.Data, images: torch.Tensor) -> np.ndarray:
    raw = data.train.images.numpy() / 255
    mean, std = raw.mean(axis=(0, 2, 3)), raw.std(axis=(0, 2, 3))
    return ((images.numpy() / 255 - mean[:, None, None]) / std[:, None, None]).astype(np.float32)


def test_evaluation_is_loss_and_accuracy_over_all_images_whatever_the_batches(
    run: tb.Run, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = run.ticket.network.build()
    module.load_state_dict(dict(run.weights))
    with torch.no_grad():
        outputs = module.eval()(torch.from_numpy(normalised(digits, digits.test.images)))
    right = int((outputs.argmax(1) == digits.test.labels).sum())
    loss = float(functional.cross_entropy(outputs.double(), digits.test.labels))
    for size in (500, 599, 7):
        monkeypatch.setattr(evaluation, "EVALUATION_BATCH", size)
        found = evaluate(module.train(), device_batches(digits, digits.test, CPU), "float32")
        assert found == (pytest.approx(loss, rel=1e-5), 100 * right / 599)
    assert run.history[-1].test_accuracy == 100 * right / 599
    assert run.history[-1].test_loss == pytest.approx(loss, rel=1e-5)


def test_evaluation_changes_no_state(engine: EagerEngine, colour: tb.Data, same_bits: Same) -> None:
    before = engine.flat_network.state()
    engine.evaluate(colour.test)
    assert same_bits(engine.flat_network.state(), before)


def test_how_an_epoch_is_cut_into_stretches_changes_no_bit(colour: tb.Data, same_bits: Same) -> None:
    ticket = tb.initialize("convnet", colour)
    plan = plan_of(colour, 32)  # seven steps, the last of 18 images
    ends = []
    for stretches in ([(0, 7)], [(0, 3), (3, 4), (4, 7)], [(step, step + 1) for step in range(7)]):
        engine = EagerEngine(ticket.network, colour, tb.Recipe(), CPU, "float32")
        engine.flat_network.load(ticket.weights(), ticket.mask)
        engine.begin(plan)
        for first, last in stretches:
            engine.advance(first, last)
        tally = engine.tally()
        ends.append(
            engine.flat_network.state() | {"losses": tally.losses.clone(), "right": tally.right.clone()}
        )
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])


def test_how_many_images_are_prepared_together_changes_no_bit(
    colour: tb.Data, monkeypatch: pytest.MonkeyPatch, same_bits: Same
) -> None:
    ticket = tb.initialize("convnet", colour)
    plan = plan_of(colour, 32)
    ends = []
    for together in (512, 64, 1):
        monkeypatch.setattr(engines, "PREPARED_IMAGES", together)
        engine = EagerEngine(ticket.network, colour, tb.Recipe(), CPU, "float32")
        engine.flat_network.load(ticket.weights(), ticket.mask)
        engine.begin(plan)
        engine.advance(0, 7)
        ends.append(engine.flat_network.state())
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])


def test_a_plan_clears_the_tally_of_the_one_before(engine: EagerEngine, colour: tb.Data) -> None:
    engine.begin(plan_of(colour, 32))
    engine.advance(0, 7)
    assert engine.tally().losses.all()
    engine.begin(plan_of(colour, 100, epoch=1))
    assert engine.tally().losses.tolist() == [0, 0, 0]
    assert not engine.tally().right.any()
    assert len(engine.tally().right) == 210


def test_the_first_loss_and_predictions_are_those_before_the_step(
    engine: EagerEngine, colour: tb.Data
) -> None:
    plan = plan_of(colour, 210)
    plain = tb.initialize("convnet", colour).network.build().train()
    plain.load_state_dict(engine.flat_network.state())
    pad = 1
    padded = np.pad(colour.train.images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    pictures = []
    for place, image in enumerate(plan.order.tolist()):
        row, column = int(plan.draws.rows[place]), int(plan.draws.columns[place])
        picture = padded[image, :, row : row + 8, column : column + 10]
        pictures.append(picture[:, :, ::-1] if plan.draws.flips[place] else picture)
    inputs = torch.from_numpy(normalised(colour, torch.from_numpy(np.stack(pictures))))
    labels = colour.train.labels[plan.order]
    outputs = plain(inputs)
    engine.begin(plan)
    engine.advance(0, 1)
    assert float(engine.tally().losses[0]) == pytest.approx(
        float(functional.cross_entropy(outputs, labels).detach()), rel=1e-5
    )
    assert torch.equal(engine.tally().right, outputs.argmax(1) == labels)


def test_steps_are_those_of_sgd_by_hand(engine: EagerEngine, colour: tb.Data) -> None:
    recipe = tb.Recipe()
    engine.begin(plan_of(colour, 70))
    velocity = torch.zeros_like(engine.flat_network.weights)
    for step in range(3):
        before = engine.flat_network.weights.clone()
        engine.advance(step, step + 1)
        # The gradient of the step is still there.
        velocity = recipe.momentum * velocity + engine.flat_network.gradient + recipe.weight_decay * before
        torch.testing.assert_close(engine.flat_network.momentum, velocity)
        torch.testing.assert_close(engine.flat_network.weights, before - 0.05 * velocity)


def test_without_momentum_the_momentum_stays_zero(colour: tb.Data) -> None:
    ticket = tb.initialize("convnet", colour)
    engine = EagerEngine(ticket.network, colour, tb.Recipe(momentum=0.0), CPU, "float32")
    engine.flat_network.load(ticket.weights(), ticket.mask)
    engine.begin(plan_of(colour, 70))
    before = engine.flat_network.weights.clone()
    engine.advance(0, 1)
    torch.testing.assert_close(
        engine.flat_network.weights, before - 0.05 * (engine.flat_network.gradient + 5e-4 * before)
    )
    assert not engine.flat_network.momentum.any()


def test_images_of_a_split_are_put_on_a_device_once(digits: tb.Data) -> None:
    assert device_batches(digits, digits.test, CPU) is device_batches(digits, digits.test, CPU)
    assert device_batches(digits, digits.test, CPU) is not device_batches(digits, digits.test, CPU, pad=1)


def test_channels_last_changes_the_layout_only() -> None:
    images = torch.arange(24.0).reshape(1, 2, 3, 4)
    laid_out = channels_last(images)
    assert torch.equal(images, laid_out)
    assert laid_out.stride() == (24, 1, 8, 2)
    assert math.prod(laid_out.shape) == 24


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("batch_size", [100, 2000])
def test_fused_steps_are_made_for_the_batches_that_there_are(
    digits: tb.Data, monkeypatch: pytest.MonkeyPatch, batch_size: int, streamed: bool
) -> None:
    sizes: list[int] = []

    class Noted:
        def __init__(self, *_: object) -> None:
            pass

        def step(self, batches: object, recipe: tb.Recipe, size: int) -> None:
            sizes.append(size)

        def __call__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(engines, "Evaluator", Noted)
    monkeypatch.setattr(engines, "CapturedSteps", lambda *_: None)
    monkeypatch.setattr(engines, "is_streamed", lambda *_: streamed)
    network = tb.initialize("convnet", digits).network
    engines.GraphedEngine(network, digits, tb.Recipe(batch_size=batch_size), CPU, "float32")
    assert sizes == [min(batch_size, len(digits.train))]


def test_a_network_has_one_training_step(digits: tb.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that can be fused; here stands something in for it, and for its passes."""
    passes = SimpleNamespace(FusedStep=lambda *_: "the step")
    monkeypatch.setitem(sys.modules, "tombola.training.cuda.fused", passes)
    network = SimpleNamespace(plan_evaluation=lambda size: None)
    monkeypatch.setattr(evaluation, "_fused_network", lambda *_: network)
    start = tb.initialize("convnet", digits)
    evaluator = Evaluator(FlatNetwork(start.network, torch.device("cpu")), "float32")
    batches = Batches(digits.train, digits)
    assert evaluator.step(batches, tb.Recipe(), 100) == "the step"
    with pytest.raises(ValueError, match="has its training step; make another evaluator"):
        evaluator.step(batches, tb.Recipe(), 100)
