"""Networks that draw in training mode: what they draw depends on noise, round, epoch and step alone."""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola as tb
from tombola import seeds
from tombola.measures.interpolation import recalibrate_batch_norm
from tombola.training import engines
from tombola.training.checkpoint import Checkpoints
from tombola.training.evaluation import device_batches

Same = Callable[..., bool]

RECIPE = tb.Recipe(
    epochs=3, batch_size=60, lr=0.05, augmentation=tb.Augmentation(pad=0, flip=False), weight_decay=5e-3
)


def dropping(share: float = 0.3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(share),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Dropout(share), nn.Linear(128, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def few(digits: tb.Data) -> tb.Data:
    """Digits of which 200 are trained on: four steps an epoch, the last of 20 images."""
    train, test = digits.train, digits.test
    return tb.data_from_tensors((train.images[:200], train.labels[:200]), (test.images, test.labels))


@pytest.fixture(scope="module")
def start(few: tb.Data) -> tb.Ticket:
    return tb.initialize(dropping, few, seed=2)


@pytest.fixture(scope="module")
def run(start: tb.Ticket, few: tb.Data) -> tb.Run:
    return tb.train(start, few, RECIPE, noise=4)


def test_training_is_that_of_a_loop_in_plain_pytorch_that_seeds_each_step_by_its_key(
    start: tb.Ticket, few: tb.Data, run: tb.Run
) -> None:
    module = dropping()
    module.load_state_dict(dict(start.start))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-3)
    inputs = (few.train.images / 255 - few.mean.view(-1, 1, 1)) / few.std.view(-1, 1, 1)
    losses = []
    for epoch in range(3):
        order = torch.from_numpy(seeds.generator("order", 4, 0, epoch).permutation(200))
        seed_of = seeds.generator("dropout", 4, 0, epoch).integers(2**63, size=4)
        for step, batch in enumerate(order.split(60)):
            optimizer.param_groups[0]["lr"] = 0.05 / 2 * (1 + math.cos(math.pi * (epoch + step / 4) / 3))
            torch.manual_seed(int(seed_of[step]))
            loss = functional.cross_entropy(module.train()(inputs[batch]), few.train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()) * len(batch))
    for name, value in module.state_dict().items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert [row.train_loss for row in run.history[1:]] == pytest.approx(
        [sum(losses[4 * epoch : 4 * epoch + 4]) / 200 for epoch in range(3)], rel=1e-4
    )


@pytest.mark.parametrize("after", range(1, 12))
def test_killed_at_any_step_and_resumed_it_gives_the_bits_of_one_that_never_was(
    start: tb.Ticket, few: tb.Data, run: tb.Run, tmp_path: Path, after: int,
    monkeypatch: pytest.MonkeyPatch, same_run: Same, interrupting: type[Any],
) -> None:  # fmt: skip
    monkeypatch.setattr(engines, "PREPARED_IMAGES", 1)
    with pytest.raises(interrupting.Interrupted):
        tb.train(start, few, RECIPE, noise=4, watch=interrupting(tmp_path, after))
    torch.rand(after)  # another process is elsewhere in torch's global stream
    assert same_run(tb.train(start, few, RECIPE, noise=4, watch=Checkpoints(tmp_path, every=0)), run)


def test_trainings_in_one_process_do_not_disturb_each_other_nor_the_global_generator(
    start: tb.Ticket, few: tb.Data, run: tb.Run, same_run: Same
) -> None:
    before = torch.get_rng_state()
    runs: dict[int, tb.Run] = {}

    def train(noise: int) -> None:
        runs[noise] = tb.train(start, few, RECIPE, noise=noise)

    threads = [threading.Thread(target=train, args=(noise,)) for noise in (3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(before, torch.get_rng_state())
    assert same_run(runs[4], run)
    assert same_run(runs[5], tb.train(start, few, RECIPE, noise=5))


def test_noise_round_epoch_and_step_each_give_other_draws(few: tb.Data) -> None:
    drawn: list[tuple[float, ...]] = []

    class Noted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and torch.is_grad_enabled():
                drawn.append(tuple(torch.rand(3).tolist()))
            elif self.training:
                torch.rand(3)  # in the trial before the training
            return x

    ticket = tb.initialize(lambda: nn.Sequential(Noted(), nn.Flatten(), nn.Linear(64, 10)), few)
    for noise, noise_round in ((0, 0), (1, 0), (0, 1), (0, 0)):
        tb.train(ticket, few, tb.Recipe(epochs=2, batch_size=60), noise=noise, noise_round=noise_round)
    assert len(drawn) == 4 * 2 * 4
    assert len(set(drawn[:24])) == 24
    assert drawn[24:] == drawn[:8]


def test_dropout_is_off_where_batch_norm_is_measured_anew(run: tb.Run, few: tb.Data) -> None:
    modules = []
    for share in (0.3, 0.0):
        module = dropping(share)
        module.load_state_dict(dict(run.weights))
        recalibrate_batch_norm(module, device_batches(few, few.train, torch.device("cpu")), "float32")
        modules.append(module.state_dict())
    assert all(torch.equal(value, modules[1][name]) for name, value in modules[0].items())


def test_chains_barriers_and_probes_take_such_networks(
    start: tb.Ticket, few: tb.Data, same_run: Same
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=60, lr=0.05)
    late = tb.pretrain(start, few, recipe, epochs=1)
    chain = list(tb.imp(late, few, recipe, rounds=1, fraction=0.5, noise=1))
    assert same_run(tb.train(chain[1].ticket, few, recipe, noise=1), chain[1])
    assert all(not chain[1].weights[name][~keep].any() for name, keep in chain[1].ticket.mask.items())
    other = tb.train(chain[1].ticket, few, recipe, noise=2)
    assert tb.barrier(chain[1], chain[1], few).height == 0
    assert tb.barrier(chain[1], other, few).errors == tb.barrier(chain[1], other, few).errors
    heads = tb.Recipe(epochs=1, batch_size=60)
    first, second = (tb.probe(chain[1], few, recipe=heads, blocks=["2", "6"], head="9") for _ in range(2))
    assert first == second
