"""The losses against torch.nn in float64, and distillation from a teacher."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tombola as tb
from tombola.errors import RecipeError, TombolaError
from tombola.lab.chains import imp_jobs
from tombola.training.checkpoint import Checkpoint, Checkpoints
from tombola.training.losses import Teacher, mean_loss

Same = Callable[..., bool]


@given(
    st.integers(1, 9),
    st.integers(2, 7),
    st.floats(0.5, 20),
    st.floats(0, 1),
    st.floats(0, 0.9),
    st.integers(0, 99),
)
def test_the_mean_loss_is_that_of_torch_nn(
    images: int, classes: int, temperature: float, alpha: float, smoothing: float, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    outputs, taught = (3 * torch.randn(images, classes, generator=draws) for _ in range(2))
    targets = torch.randint(classes, (images,), generator=draws)
    exact = outputs.double().requires_grad_()
    hard = nn.CrossEntropyLoss(label_smoothing=smoothing)(exact, targets)
    student, teacher = (exact / temperature).softmax(1), (taught.double() / temperature).softmax(1)
    divergence = (teacher * (teacher.log() - student.log())).sum(1).mean()
    soft = alpha * temperature**2 * divergence + (1 - alpha) * hard
    recipe = tb.Recipe(label_smoothing=smoothing)
    distilled = replace(recipe, loss="distillation", temperature=temperature, alpha=alpha)
    for found_by, wanted in (
        (lambda o: mean_loss(recipe, o, targets), hard),
        (lambda o: mean_loss(distilled, o, targets, taught), soft),
    ):
        ours = outputs.clone().requires_grad_()
        loss = found_by(ours)
        (gradient,) = torch.autograd.grad(loss, ours)
        (expected,) = torch.autograd.grad(wanted, exact, retain_graph=True)
        assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4, abs=1e-4)
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-4)


def linear(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))


DISTILLED = tb.Recipe(epochs=2, batch_size=250, lr=0.1, loss="distillation")


def test_a_student_that_is_its_teacher_has_nothing_to_learn(digits: tb.Data, same_bits: Same) -> None:
    start = tb.initialize(linear, digits)
    recipe = replace(DISTILLED, alpha=1.0, weight_decay=0.0)
    assert recipe.augmentation.padding(digits) > 0  # both must see the same crops
    run = tb.train(start, digits, recipe, teacher=start)
    assert [row.train_loss for row in run.history[1:]] == pytest.approx([0, 0], abs=1e-6)
    for name, value in start.start.items():
        torch.testing.assert_close(run.weights[name], value, atol=1e-6, rtol=0)
    assert run.engine == "eager, distillation"
    # From another it does.
    away = tb.train(start, digits, recipe, teacher=tb.initialize(linear, digits, seed=1))
    assert away.history[-1].train_loss < away.history[1].train_loss


def test_a_student_comes_nearer_to_a_trained_teacher_of_another_network(run: tb.Run, digits: tb.Data) -> None:
    start = tb.initialize(linear, digits)
    recipe = replace(DISTILLED, epochs=4, batch_size=50, alpha=1.0, temperature=2.0)
    student = tb.train(start, digits, recipe, teacher=run)
    assert student.history[-1].train_loss < 0.5 * student.history[1].train_loss
    assert student.accuracy > 50


def test_a_teacher_answers_in_evaluation_mode_and_learns_nothing(run: tb.Run, late: tb.Ticket) -> None:
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for subject, weights in ((run, run.weights), (late, late.start)):
        module = late.network.build().eval()
        module.load_state_dict(dict(weights))
        teacher = Teacher(subject, torch.device("cpu"), "float32")
        for _ in range(2):
            found = teacher(images)
            torch.testing.assert_close(found, module(images))
            assert not found.requires_grad


def test_without_its_share_the_teacher_changes_nothing(run: tb.Run, digits: tb.Data) -> None:
    start = tb.initialize(linear, digits)
    recipe = replace(DISTILLED, alpha=0.0)
    distilled = tb.train(start, digits, recipe, teacher=run)
    plain = tb.train(start, digits, tb.Recipe(epochs=2, batch_size=250, lr=0.1))
    for name, value in plain.weights.items():
        torch.testing.assert_close(distilled.weights[name], value)


def test_a_distillation_goes_on_to_the_same_bits_under_its_own_teacher_only(
    chain: list[tb.Run], digits: tb.Data, tmp_path: Path, same_run: Same
) -> None:
    class Cut(Exception):
        pass

    class CutOff(Checkpoints):
        def keep(self, checkpoint: Checkpoint) -> None:
            super().keep(checkpoint)
            raise Cut

    class Counting(Checkpoints):
        kept = 0

        def keep(self, checkpoint: Checkpoint) -> None:
            self.kept += 1

    def train(teacher: tb.Run, watch: tb.Watch | None = None) -> tb.Run:
        recipe = replace(DISTILLED, epochs=3)
        return tb.train(chain[2].ticket, digits, recipe, teacher=teacher, watch=watch)

    with pytest.raises(Cut):
        train(chain[0], CutOff(tmp_path, every=0))
    for teacher, opportunities in ((chain[0], 5), (chain[1], 6)):
        rest = Counting(tmp_path, every=0)
        assert same_run(train(teacher, rest), train(teacher))
        assert rest.kept == opportunities


def test_a_teacher_is_an_argument_of_a_job(tmp_path: Path, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=300)
    start = tb.job(tb.initialize, "convnet", "digits")
    teacher = tb.job(tb.train, start, "digits", recipe)
    student = tb.job(tb.train, start, "digits", replace(recipe, loss="distillation"), teacher=teacher)
    other = tb.job(tb.train, start, "digits", replace(recipe, loss="distillation"), teacher=start)
    assert student.description()["arguments"]["teacher"] == {"job": teacher.name}
    assert "teacher" not in teacher.description()["arguments"]
    lab = tb.Lab(tmp_path)
    lab.run([student, other])
    assert lab.result(student).engine == "eager, distillation"
    frame = lab.table().frame().set_index("jobs")
    # Two teachers, and two keys.
    for job, behind in ((student, teacher), (other, start)):
        rows = frame.loc[[job.name]]
        assert set(rows["teacher"]) == {"convnet"}
        assert set(rows["teacher_job"]) == {behind.name[:12]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 2.0}, "temperature is 2.0, which loss 'cross-entropy' does not have; leave it out"),
        ({"alpha": 0.5}, "alpha is 0.5, which loss 'cross-entropy' does not have; leave it out"),
        ({"loss": "distillation", "alpha": 1.1}, "alpha is 1.1; it must be from 0 to 1"),
        ({"loss": "distillation", "temperature": 0}, "temperature is 0; it must be above 0 and finite"),
    ],
)
def test_impossible_distillations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        tb.Recipe(**fields)


def test_a_teacher_that_does_not_fit_is_refused_before_the_first_step(
    start: tb.Ticket, run: tb.Run, digits: tb.Data, colour: tb.Data
) -> None:
    for recipe, teacher, message in (
        (DISTILLED, None, "loss 'distillation' needs a teacher; give train() or imp() one, teacher=run"),
        (
            tb.Recipe(epochs=1),
            run,
            "a teacher is given, but loss is 'cross-entropy'; use loss='distillation'",
        ),
        (
            DISTILLED,
            tb.initialize("convnet", colour),
            "the teacher convnet is for 3x8x10 images of 4 classes, the ticket for 1x8x8 images of 10",
        ),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            tb.train(start, digits, recipe, teacher=teacher)  # type: ignore[arg-type]
    with pytest.raises(TombolaError, match="teacher is 'a-run'; it takes a Run, a Ticket or None"):
        tb.train(start, digits, DISTILLED, teacher="a-run")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="needs a teacher"):
        next(tb.imp(start, digits, DISTILLED, rounds=1))


def test_a_teacher_draws_from_no_global_generator(run: tb.Run) -> None:
    before = torch.get_rng_state()
    Teacher(run, torch.device("cpu"), "float32")
    assert torch.equal(torch.get_rng_state(), before)


def test_every_round_of_a_search_has_the_teacher(
    start: tb.Ticket, digits: tb.Data, run: tb.Run, same_run: Same
) -> None:
    rounds = list(tb.imp(start, digits, DISTILLED, rounds=1, teacher=run))
    by_hand = tb.train(tb.prune(rounds[0]), digits, DISTILLED, teacher=run)
    assert same_run(rounds[0], tb.train(start, digits, DISTILLED, teacher=run))
    assert same_run(rounds[1], by_hand)
    with pytest.raises(RecipeError, match="needs a teacher; give a finished run or ticket, teacher="):
        imp_jobs("convnet", "digits", DISTILLED, rounds=1)
