import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import (
    Instability,
    between_rounds,
    consecutive,
    copies,
    instability,
    noise_copies,
)
from tombola.training.run import Epoch, ForgettingRecord, History

Same = Callable[..., bool]


@pytest.fixture(scope="module")
def short() -> tb.Recipe:
    return tb.Recipe(epochs=3, batch_size=50, lr=0.1)


@pytest.fixture(scope="module")
def three(start: tb.Ticket, digits: tb.Data, short: tb.Recipe) -> list[tb.Run]:
    """Three noise copies of one initialisation."""
    return list(noise_copies(start, digits, short))


# Noise copies


def test_noise_copies_are_trainings_of_one_ticket_under_the_noises_that_are_named(
    three: list[tb.Run], start: tb.Ticket, digits: tb.Data, short: tb.Recipe, same_run: Same
) -> None:
    assert [run.noise for run in three] == [1, 2, 3]
    assert same_run(three[1], tb.train(start, digits, short, noise=2))
    assert [run.noise for run in noise_copies(start, digits, replace(short, epochs=1), noises=(8, 5))] == [
        8,
        5,
    ]


def test_copies_can_differ_in_data_order_or_augmentation_alone(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    recipe = replace(short, epochs=1, batch_size=200)
    plain = {noise: tb.train(start, digits, recipe, noise=noise) for noise in (1, 2)}
    for cause in ("order", "augmentation"):
        first, second = noise_copies(start, digits, recipe, noises=(1, 2), differ_in=cause)
        assert first.fingerprint == plain[1].fingerprint
        assert second.fingerprint not in (plain[1].fingerprint, plain[2].fingerprint)
        assert instability([first, second], digits, points=3).noises == (1, 2)
    with pytest.raises(RecipeError, match="no difference between copies 'orders'; did you mean 'order'"):
        noise_copies(start, digits, recipe, differ_in="orders")  # type: ignore[arg-type]


def test_noise_copies_are_the_same_jobs_as_those_written_by_hand(short: tb.Recipe) -> None:
    start = tb.job(tb.initialize, "convnet", "digits")
    made = copies(tb.job, start, "digits", short, noises=(4, 7))
    assert [run.name for run in made] == [
        tb.job(tb.train, start, "digits", short, noise=noise).name for noise in (4, 7)
    ]


@pytest.mark.parametrize("noises", [(), (1,), (1, 2, 1)])
def test_copies_that_are_none_are_refused(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, noises: tuple[int, ...]
) -> None:
    with pytest.raises(RecipeError, match=r"noises are \(.*\); give at least two, all different"):
        noise_copies(start, digits, short, noises=noises)


# Instability


def test_instability_by_hand() -> None:
    alphas = (0.0, 0.5, 1.0)
    lines = (
        Barrier(alphas, (10.0, 14.0, 12.0), (0.1, 0.5, 0.3)),  # 14 - 11 = 3, 0.5 - 0.2 = 0.3
        Barrier(alphas, (10.0, 11.0, 10.0), (0.1, 0.1, 0.2)),  # 11 - 10 = 1, 0.2 - 0.15 = 0.05
        Barrier(alphas, (12.0, 11.0, 10.0), (0.3, 0.9, 0.2)),  # 12 - 11 = 1, 0.9 - 0.25 = 0.65
    )
    found = Instability(lines, (1, 2, 3), 0)
    assert found.heights == (3.0, 1.0, 1.0)
    assert found.height == pytest.approx(5 / 3)
    assert found.loss_height == pytest.approx(1 / 3)
    assert found.alphas == alphas
    assert found.errors == pytest.approx((32 / 3, 12, 32 / 3))
    assert found.losses == pytest.approx((0.5 / 3, 0.5, 0.7 / 3))
    assert found.recalibrated is None


@pytest.mark.parametrize(("height", "threshold", "stable"), [
    (1.99, 2.0, True), (2.0, 2.0, False), (2.01, 2.0, False), (4.0, 5.0, True), (0.0, 0.0, False),
])  # fmt: skip
def test_stable_is_a_mean_barrier_below_the_threshold(height: float, threshold: float, stable: bool) -> None:
    line = Barrier((0.0, 0.5, 1.0), (0.0, height, 0.0), (0.0, 0.0, 0.0))
    assert Instability((line,), (1, 2), 0, threshold).stable is stable


def test_the_mean_decides_and_not_the_single_pair() -> None:
    """Reading D4: one pair of 5 points beside two of none is still stable."""
    lines = [Barrier((0.0, 0.5, 1.0), (0.0, height, 0.0), (0.0, 0.0, 0.0)) for height in (5.0, 0.0, 0.0)]
    assert Instability(tuple(lines), (1, 2, 3), 0).stable


def test_the_lines_are_the_barriers_of_all_pairs(three: list[tb.Run], digits: tb.Data) -> None:
    found = instability(three, digits, points=5)
    pairs = list(itertools.combinations(three, 2))
    assert found.lines == tuple(tb.barrier(*pair, digits, points=5) for pair in pairs)
    assert found.noises == (1, 2, 3)
    heights = [max(line.errors) - (line.errors[0] + line.errors[-1]) / 2 for line in found.lines]
    assert found.height == pytest.approx(sum(heights) / 3)
    assert found.height > 1  # there is something to measure
    assert not instability(three, digits, points=5, threshold=1.0).stable
    assert instability(three, digits, points=5, threshold=90.0).stable


def test_two_copies_have_one_pair_and_four_have_six(three: list[tb.Run], digits: tb.Data) -> None:
    assert len(instability(three[:2], digits, points=3).lines) == 1
    four = [*three, replace(three[0], noise=9)]
    assert len(instability(four, digits, points=3).lines) == 6


def test_both_readings_of_batch_norm_and_either_split(three: list[tb.Run], digits: tb.Data) -> None:
    found = instability(three, digits, points=3, recalibrate="beside", split="train")
    assert found.recalibrated == instability(three, digits, points=3, recalibrate=True, split="train")
    assert {line.split for line in found.lines} == {"train"}
    assert found.recalibrated.height != found.height


def test_the_instability_of_a_linear_classifier_by_hand() -> None:
    """Says the second class above a bias: the thresholds -0.5, 0 and 0.5 and all between them."""

    def bias_only() -> nn.Module:
        layer = nn.Linear(1, 2)
        layer.weight.requires_grad_(False)
        return nn.Sequential(nn.Flatten(), layer)

    def pixels(places: list[float]) -> torch.Tensor:
        return (
            torch.tensor([round(127.5 * (place + 1)) for place in places]).view(-1, 1, 1, 1).to(torch.uint8)
        )

    places, labels = [-0.75, -0.4, -0.2, 0.2, 0.4, 0.75], [0, 1, 1, 0, 0, 1]
    data = tb.data_from_tensors(
        (pixels([-1.0, 1.0]), torch.tensor([0, 1])), (pixels(places), torch.tensor(labels))
    )
    ticket = tb.initialize(bias_only, data)
    history = History([Epoch(1, 0.1, 0.0, 0.0, 0.0, 100.0, 0, 0.0)])

    def run(threshold: float, noise: int) -> tb.Run:
        state = {"1.weight": torch.tensor([[0.0], [1.0]]), "1.bias": torch.tensor([0.0, -threshold])}
        return tb.Run(ticket, state, history, ForgettingRecord.empty(2), noise, "float32", "cpu")

    runs = [run(-0.5, 1), run(0.0, 2), run(0.5, 3)]
    found = instability(runs, data, points=5)
    # Wrong of 6, by threshold: two zeros above -0.5 and above -0.25 with the one at -0.4, then 4 at 0; the
    # other half mirrors it.
    by_threshold = {-0.5: 2, -0.375: 3, -0.25: 3, -0.125: 4, 0.0: 4, 0.125: 4, 0.25: 3, 0.375: 3, 0.5: 2}
    for line, ends in zip(found.lines, ((-0.5, 0.0), (-0.5, 0.5), (0.0, 0.5)), strict=True):
        places = [ends[0] + alpha * (ends[1] - ends[0]) for alpha in line.alphas]
        assert line.errors == pytest.approx([100 * by_threshold[place] / 6 for place in places])
    # Barriers of 4 - 3, 4 - 2 and 4 - 3 wrong images of 6.
    assert found.heights == pytest.approx((100 / 6, 200 / 6, 100 / 6))
    assert found.height == pytest.approx(400 / 18)


def test_failed_copies_are_counted(three: list[tb.Run], digits: tb.Data) -> None:
    rows = [replace(row, test_accuracy=9.0) for row in three[0].history]
    stuck = replace(three[0], history=History(rows))
    assert instability([stuck, *three[1:]], digits, points=3).failed == 1
    assert instability(three, digits, points=3).failed == 0


# The trunk as a copy


def test_a_trunk_without_momentum_is_the_copy_under_its_own_noise(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    plain = replace(short, momentum=0.0)
    trunk = tb.train(start, digits, plain, noise=5)
    ticket = tb.pretrain(start, digits, plain, epochs=2, noise=5)
    five, six = noise_copies(ticket, digits, plain, noises=(5, 6))
    assert instability([six], digits, trunk=trunk, points=3) == instability([five, six], digits, points=3)


def test_a_trunk_that_did_not_pass_through_the_ticket_is_refused(
    three: list[tb.Run], start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    ticket = tb.pretrain(start, digits, short, epochs=2, noise=1)
    run = tb.train(ticket, digits, short, noise=4)
    assert instability([run], digits, trunk=three[0], points=3).noises == (1, 4)
    with pytest.raises(TicketError, match="the trunk did not pass through the ticket at epoch 2"):
        instability([run], digits, trunk=three[1], points=3)
    with pytest.raises(TicketError, match="did not pass through the ticket at epoch 0"):
        instability([three[1]], digits, trunk=run, points=3)


# What is refused


def test_runs_of_different_tickets_are_refused(
    three: list[tb.Run], chain: list[tb.Run], digits: tb.Data, short: tb.Recipe
) -> None:
    words = r"needs runs of one ticket; got .* \(epoch 0, round 0\) and .* \(epoch 1, round 1\)"
    with pytest.raises(TicketError, match=words):
        instability([three[0], chain[1]], digits)
    other = tb.train(tb.initialize("convnet", digits, seed=1), digits, replace(short, epochs=1))
    with pytest.raises(TicketError, match="needs runs of one ticket"):
        instability([three[0], other], digits)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_copies_are_refused(three: list[tb.Run], digits: tb.Data, count: int) -> None:
    with pytest.raises(RecipeError, match=rf"instability of {count} run\(s\); it needs at least 2"):
        instability(three[:count], digits)


def test_a_run_given_twice_is_refused(three: list[tb.Run], digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="the same run under noise 2 was given twice"):
        instability([three[0], three[1], three[1]], digits)


def test_runs_of_different_lengths_are_refused(
    three: list[tb.Run], start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    longer = tb.train(start, digits, replace(short, epochs=4), noise=2)
    with pytest.raises(RecipeError, match="the runs end at epochs 3 and 4; copies are trained by one recipe"):
        instability([three[0], longer], digits)


def test_settings_of_the_line_are_refused_before_anything_is_measured(
    three: list[tb.Run], digits: tb.Data
) -> None:
    with pytest.raises(RecipeError, match="points is 2"):
        instability(three, digits, points=2)


# Between rounds


def test_between_rounds_are_the_barriers_of_consecutive_runs(chain: list[tb.Run], digits: tb.Data) -> None:
    lines = list(between_rounds(chain, digits))
    assert lines == [
        tb.barrier(first, second, digits, points=11)
        for first, second in ((chain[0], chain[1]), (chain[1], chain[2]))
    ]
    assert [line.sparsities for line in lines] == [(0.0, 0.5), (0.5, 0.75)]
    assert not any(line.same_mask for line in lines)
    assert len(lines[0].alphas) == 11


def test_between_rounds_is_lazy_and_refuses_at_once(chain: list[tb.Run], digits: tb.Data) -> None:
    assert next(between_rounds(chain, digits, points=3)).errors[0] == 100 - chain[0].accuracy
    with pytest.raises(RecipeError, match=r"between the rounds of 1 run\(s\); give at least two"):
        between_rounds(chain[:1], digits)
    with pytest.raises(RecipeError, match="split is 'all'"):
        between_rounds(chain, digits, split="all")  # type: ignore[arg-type]


def test_written_down_rounds_are_single_barriers_that_a_longer_chain_shares(short: tb.Recipe) -> None:
    from tombola.lab.chains import imp_jobs

    chain = imp_jobs("convnet", "digits", short, rounds=3)
    shorter = [line.name for line in consecutive(tb.job, chain[:3], "digits")]
    assert shorter == [line.name for line in consecutive(tb.job, chain, "digits")][:2]
    assert shorter[0] == tb.job(tb.barrier, chain[0], chain[1], "digits", points=11).name


def test_an_instability_says_which_copies_failed_and_a_diverged_one_is_not_stable(
    three: list[tb.Run], digits: tb.Data
) -> None:
    row = replace(three[1].history[-1], test_loss=float("nan"))
    gone = replace(three[1], history=History([*three[1].history[:-1], row]))
    lost = {
        name: value * math.nan if value.is_floating_point() else value for name, value in gone.weights.items()
    }
    copies = instability([three[0], replace(gone, weights=lost), three[2]], digits, points=3)
    assert copies.failures() == "the copy of noise 2 diverged"
    assert copies.failures_of_pairs() == (copies.failures(), "", copies.failures())
    assert [math.isnan(height) for height in copies.heights] == [True, False, True]
    assert math.isnan(copies.height)
    # Two networks of nothing but undefined weights make the same mistakes everywhere.
    pair = instability([replace(gone, weights=lost), replace(gone, weights=lost, noise=9)], digits, points=3)
    assert not pair.stable
    assert pair.failed == 2
