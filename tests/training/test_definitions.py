"""Declared schedules, losses and optimizers against torch.optim and torch.nn, and what is refused."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

import tombola as tb
from tombola import source
from tombola.errors import RecipeError
from tombola.lab.arguments import from_json
from tombola.lab.user_code import import_file
from tombola.measures.first_stable import shares_trunk
from tombola.source import recorded_uses
from tombola.training import definitions, engines
from tombola.training.checkpoint import Checkpoint, Checkpoints
from tombola.training.preflight import check_trainable

Same = Callable[..., bool]


@pytest.fixture(autouse=True)
def _forgotten_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (definitions.SCHEDULES, definitions.LOSSES, definitions.OPTIMIZERS):
        monkeypatch.setattr(kind, "_declared", {})
    monkeypatch.setattr(source, "_declared", dict(source._declared))
    return


@pytest.fixture
def ticket(chain: list[tb.Run]) -> tb.Ticket:
    """A quarter of the weights, rewound to epoch 1."""
    return chain[2].ticket


# Schedules


def test_a_declared_schedule_is_a_factor_as_in_lambda_lr_and_a_warm_up_goes_before_it() -> None:
    @tb.declare_schedule("root")
    def root(recipe: tb.Recipe, epoch: float) -> float:
        return (1 + epoch) ** -0.5

    recipe = tb.Recipe(epochs=4, lr=0.3, schedule="root", milestones=(2,))  # its own to read
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + step / 5) ** -0.5)
    expected = []
    for _ in range(20):
        expected += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    places = [(epoch, step) for epoch in range(4) for step in range(5)]
    assert [recipe.rate(*place, 5) for place in places] == pytest.approx(expected)
    warm = replace(recipe, warmup=1)
    ramp = [0.06, 0.12, 0.18, 0.24, 0.3]
    assert [warm.rate(*place, 5) for place in places] == pytest.approx([*ramp, *expected[5:]])


# Losses


def test_a_declared_loss_is_minimised_in_the_mean(ticket: tb.Ticket, digits: tb.Data) -> None:
    @tb.declare_loss("doubled")
    def doubled(logits: Tensor, labels: Tensor) -> Tensor:
        assert logits.dtype == torch.float32
        return -2 * logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)

    usual = tb.Recipe(epochs=3, batch_size=150, lr=0.1, weight_decay=0.0)
    wanted = tb.train(ticket, digits, usual)
    # Twice the loss at half the rate.
    run = tb.train(ticket, digits, replace(usual, lr=0.05, loss="doubled"))
    for name, value in wanted.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-3, atol=1e-4)
    assert run.history[-1].train_loss == pytest.approx(2 * wanted.history[-1].train_loss, rel=1e-3)
    # What is tested is cross-entropy under every loss.
    assert run.history[-1].test_loss == pytest.approx(wanted.history[-1].test_loss, rel=1e-3)


# Optimizers


def adam_in_two_groups(parameters: list[nn.Parameter], recipe: tb.Recipe) -> torch.optim.Optimizer:
    """AdamW whose biases have twice the rate."""
    groups = [
        {"params": [each for each in parameters if each.dim() > 1]},
        {"params": [each for each in parameters if each.dim() == 1], "lr": 2 * recipe.lr},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, eps=1e-4, amsgrad=True)


def test_a_declared_optimizer_follows_the_schedule_and_keeps_nothing_of_pruned_weights(
    ticket: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.Optimizer] = []
    begun: list[list[Tensor]] = []

    @tb.declare_optimizer("two-groups")
    def two_groups(parameters: list[nn.Parameter], recipe: tb.Recipe) -> torch.optim.Optimizer:
        begun.append([each.detach().clone() for each in parameters])
        made.append(adam_in_two_groups(parameters, recipe))
        return made[-1]

    recipe = tb.Recipe(
        epochs=3, batch_size=200, lr=0.01, schedule="step", milestones=(2,), optimizer="two-groups"
    )
    rates: list[float] = []
    take_step = engines.EagerEngine._train_step

    def looking(self: engines.EagerEngine, *batch: Any) -> None:
        take_step(self, *batch)
        rates.extend(group["lr"] for group in made[-1].param_groups)
        parameters = dict(self.flat_network.module.named_parameters())
        for name, keep in ticket.mask.items():
            kept = made[-1].state[parameters[name]]
            for value in (parameters[name], kept["exp_avg"], kept["exp_avg_sq"], kept["max_exp_avg_sq"]):
                assert not value[~keep].any()
                assert value[keep].any()

    monkeypatch.setattr(engines.EagerEngine, "_train_step", looking)
    run = tb.train(ticket, digits, recipe)
    assert rates == pytest.approx([0.01, 0.02] * 6 + [0.001, 0.002] * 6)
    assert run.engine == "eager, declared optimizer"
    # It begins at the weights of the ticket, not at those of a new network.
    weights = ticket.weights()
    names = [name for name, _ in ticket.network.build().named_parameters()]
    assert all(torch.equal(weights[name], value) for name, value in zip(names, begun[-1], strict=True))


def test_a_declared_adamw_is_the_one_of_tombola(ticket: tb.Ticket, digits: tb.Data) -> None:
    @tb.declare_optimizer("mine")
    def mine(parameters: list[nn.Parameter], recipe: tb.Recipe) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, recipe.lr, recipe.betas, recipe.eps, recipe.weight_decay)

    own = tb.Recipe(epochs=3, batch_size=150, lr=0.01, eps=1e-3, betas=(0.8, 0.99), optimizer="mine")
    runs = [tb.train(ticket, digits, recipe) for recipe in (own, replace(own, optimizer="adamw"))]
    for name, value in runs[0].weights.items():
        torch.testing.assert_close(value, runs[1].weights[name], rtol=1e-3, atol=1e-4)


def test_a_declared_optimizer_goes_on_to_the_same_bits_after_an_interruption_and_along_a_trunk(
    ticket: tb.Ticket, digits: tb.Data, tmp_path: Path, same_run: Same, same_bits: Same
) -> None:
    tb.declare_optimizer("two-groups")(adam_in_two_groups)
    recipe = tb.Recipe(epochs=4, batch_size=250, lr=0.01, optimizer="two-groups")

    class Cut(Exception):
        pass

    class CutOff(Checkpoints):
        left = 4  # within the second epoch

        def keep(self, checkpoint: Checkpoint) -> None:
            super().keep(checkpoint)
            self.left -= 1
            if self.left == 0:
                raise Cut

    whole = tb.train(ticket, digits, recipe)
    with pytest.raises(Cut):
        tb.train(ticket, digits, recipe, watch=CutOff(tmp_path, every=0))
    rest = Checkpoints(tmp_path, every=0)
    assert rest.resume().description["step"] > 0  # type: ignore[union-attr]
    assert same_run(tb.train(ticket, digits, recipe, watch=rest), whole)

    point = tb.trunk(ticket, digits, recipe, epochs=2)
    point = tb.trunk(ticket, digits, recipe, epochs=3, after=point)
    assert same_bits(point.weights, tb.pretrain(ticket, digits, recipe, epochs=3).start)


def test_a_checkpoint_of_a_loss_that_was_edited_meanwhile_is_not_used(
    ticket: tb.Ticket, digits: tb.Data, tmp_path: Path, same_run: Same
) -> None:
    text = """
import tombola as tb

@tb.declare_loss("edited")
def edited(logits, labels):
    return -1 * logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
"""

    class Cut(Exception):
        pass

    class CutOff(Checkpoints):
        def keep(self, checkpoint: Checkpoint) -> None:
            super().keep(checkpoint)
            raise Cut

    def declare(text: str) -> tb.Recipe:
        definitions.LOSSES._declared.clear()
        (tmp_path / "mine.py").write_text(text)
        import_file(tmp_path / "mine.py")
        return tb.Recipe(epochs=2, batch_size=400, loss="edited")

    with pytest.raises(Cut):
        tb.train(ticket, digits, declare(text), watch=CutOff(tmp_path / "kept", every=0))
    recipe = declare(text.replace("-1 *", "-3 *"))
    whole = tb.train(ticket, digits, recipe)
    assert same_run(tb.train(ticket, digits, recipe, watch=Checkpoints(tmp_path / "kept", every=0)), whole)


def test_adamw_goes_on_along_a_trunk(ticket: tb.Ticket, digits: tb.Data, same_bits: Same) -> None:
    recipe = tb.Recipe(epochs=4, batch_size=250, lr=0.01, optimizer="adamw")
    point = tb.trunk(ticket, digits, recipe, epochs=2)
    assert point.momentum["steps_taken"] == 5
    point = tb.trunk(ticket, digits, recipe, epochs=3, after=point)
    assert same_bits(point.weights, tb.pretrain(ticket, digits, recipe, epochs=3).start)


# Names


def test_a_name_in_a_job_means_one_version_for_ever() -> None:
    def flat(recipe: tb.Recipe, epoch: float) -> float:
        return 1.0

    tb.declare_schedule("flat")(flat)
    first = tb.Recipe(schedule="flat")
    described = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", first).description()
    assert described["arguments"]["recipe"] == {"schedule": "flat@1"}
    tb.declare_schedule("flat", version=2)(lambda recipe, epoch: 0.5)
    assert tb.Recipe(schedule="flat").rate(0, 0, 1) == 0.05
    assert from_json({"schedule": "flat@1"}, tb.Recipe) == first
    assert replace(first, lr=1.0).rate(0, 0, 1) == 1.0
    assert tb.Recipe(schedule=flat) == first  # type: ignore[arg-type]


def test_what_a_training_used_of_the_users_own_is_recorded(ticket: tb.Ticket, digits: tb.Data) -> None:
    tb.declare_optimizer("two-groups")(adam_in_two_groups)
    tb.declare_schedule("flat")(lambda recipe, epoch: 1.0)

    @tb.declare_loss("own-loss", version=2)
    def own_loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, reduction="none")

    recipe = tb.Recipe(epochs=2, batch_size=600, optimizer="two-groups", schedule="flat", loss="own-loss")
    with recorded_uses() as uses:
        tb.train(ticket, digits, recipe)
    assert uses == {("optimizers", "two-groups@1"), ("schedules", "flat@1"), ("losses", "own-loss@2")}


# Refusals


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda logits, labels: logits.mean(),
            "loss odd@1 gave () for 11 examples; it must give (11,), one of",
        ),
        (lambda logits, labels: logits.log_softmax(1), "loss odd@1 gave (11, 10) for 11 examples; it must"),
        (lambda logits, labels: 3.0, "loss odd@1 gave a float for 11 examples"),
        (lambda logits, labels: labels.float(), "loss odd@1 gave numbers that do not depend on the logits"),
        (lambda logits, labels: logits.sum(1) * torch.rand(()), "loss odd@1 draws random numbers"),
        (lambda logits, labels: logits.sum(1) * np.random.rand(), "loss odd@1 draws random numbers"),  # noqa: NPY002
        (lambda logits, labels: logits.sum(1) * random.random(), "loss odd@1 draws random numbers"),
        (lambda logits, labels: logits @ logits, "loss odd@1 failed: RuntimeError: mat1 and mat2"),
    ],
)
def test_a_loss_that_no_training_can_use_is_refused_before_the_first_epoch(
    ticket: tb.Ticket, digits: tb.Data, loss: Any, message: str
) -> None:
    tb.declare_loss("odd")(loss)
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        check_trainable(ticket.network, digits, tb.Recipe(loss="odd"), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            lambda recipe, epoch: 1 - epoch / 5,
            "schedule odd@1 gave -0.2 at epoch 6; it must give 0",
        ),
        (lambda recipe, epoch: float("nan"), "schedule odd@1 gave nan at epoch 0"),
        (lambda recipe, epoch: 1 / epoch, "schedule odd@1 failed at epoch 0: ZeroDivisionError: "),
        (lambda recipe, epoch: None, "schedule odd@1 failed at epoch 0: TypeError: "),
    ],
)
def test_a_schedule_that_gives_no_rate_is_refused_before_the_first_epoch(
    ticket: tb.Ticket, digits: tb.Data, schedule: Any, message: str
) -> None:
    tb.declare_schedule("odd")(schedule)
    with pytest.raises(RecipeError, match=re.escape(message)):
        check_trainable(ticket.network, digits, tb.Recipe(schedule="odd"), 0)


class Drawing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        super().step()
        torch.rand(())


class Replacing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - group["lr"] * parameter.grad


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda parameters, recipe: parameters,
            "optimizer odd@1 is a list; it must be a torch.optim.Optimizer",
        ),
        (
            lambda parameters, recipe: torch.optim.SGD([]),
            "optimizer odd@1 failed: ValueError: optimizer got an",
        ),
        (lambda parameters, recipe: torch.optim.LBFGS(parameters), "optimizer odd@1 failed: TypeError: "),
        (lambda parameters, recipe: Drawing(parameters), "optimizer odd@1 draws random numbers"),
        (lambda parameters, recipe: Replacing(parameters), "optimizer odd@1 puts other tensors in place"),
    ],
)
def test_an_optimizer_that_no_training_can_use_is_refused_before_the_first_epoch(
    ticket: tb.Ticket, digits: tb.Data, factory: Any, message: str
) -> None:
    tb.declare_optimizer("odd")(factory)
    with pytest.raises(RecipeError, match=re.escape(message)):
        check_trainable(ticket.network, digits, tb.Recipe(optimizer="odd"), 0)


def test_a_copy_is_its_trunk_only_if_nothing_restarts() -> None:
    tb.declare_optimizer("mine")(lambda parameters, recipe: torch.optim.Adam(parameters))
    assert shares_trunk(tb.Recipe(momentum=0.0), 3, [3, 4])
    assert not shares_trunk(tb.Recipe(momentum=0.0, optimizer="mine"), 3, [3, 4])
    assert not shares_trunk(tb.Recipe(optimizer="adamw"), 3, [3, 4])


def test_heads_are_trained_by_sgd_on_cross_entropy_only(run: tb.Run, digits: tb.Data) -> None:
    for fields, message in (
        (
            {"optimizer": "adamw"},
            "optimizer is 'adamw', but heads are trained by SGD on cross-entropy; leave it",
        ),
        ({"label_smoothing": 0.1}, "label_smoothing is 0.1, but heads are trained by SGD"),
        ({"loss": "distillation"}, "loss is 'distillation', but heads are trained by SGD"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            tb.probe(run, digits, recipe=tb.Recipe(epochs=1, **fields))  # type: ignore[arg-type]


def test_names_are_refused_in_one_line() -> None:
    for declare, taken in ((tb.declare_schedule, "cosine"), (tb.declare_loss, "cross-entropy")):
        with pytest.raises(RecipeError, match=f"name '{taken}' is taken; choose another"):
            declare(taken)(lambda first, second: first)
    with pytest.raises(
        RecipeError, match=r"optimizer 'mine' takes \(parameters\); it must take \(parameters, r"
    ):
        tb.declare_optimizer("mine")(lambda parameters: parameters)  # type: ignore[arg-type,misc]
    with pytest.raises(RecipeError, match="no loss 'crossentropy'; did you mean 'cross-entropy'"):
        tb.Recipe(loss="crossentropy")
    with pytest.raises(
        RecipeError, match=r"lambda.* is not declared; put @tombola\.declare_schedule\('a-name'\)"
    ):
        tb.Recipe(schedule=lambda recipe, epoch: 1.0)  # type: ignore[arg-type]
    tb.declare_loss("mine")(lambda logits, labels: logits[:, 0])
    with pytest.raises(RecipeError, match=r"label_smoothing is 0\.1, which loss 'mine@1' does not have"):
        tb.Recipe(loss="mine", label_smoothing=0.1)
    with pytest.raises(RecipeError, match="no version 3 of loss 'mine' here; there is 1"):
        tb.Recipe(loss="mine@3")


def test_an_optimizer_may_ask_for_the_names_of_what_it_optimizes(digits: tb.Data) -> None:
    @tb.declare_optimizer("by-name")
    def by_name(parameters: list[nn.Parameter], recipe: tb.Recipe, names: list[str]) -> optim.Optimizer:
        scales = [p for name, p in zip(names, parameters, strict=True) if name == "1.weight"]
        assert [tuple(p.shape) for p in scales] == [(3,)]
        return optim.SGD(scales, lr=recipe.lr)

    def normed(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, classes))

    start = tb.initialize(normed, digits)
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=400, optimizer="by-name"))
    moved = [name for name in start.start if not torch.equal(run.weights[name], start.start[name])]
    assert [name for name in moved if name.endswith(("weight", "bias"))] == ["1.weight"]
