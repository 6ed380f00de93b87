"""Numbers that nobody can mean are refused at once, in one line with the reason."""

import math
import time
from typing import Any

import pytest
from torch import nn

import tombola as tb
from tombola.cores import available_cores
from tombola.errors import RecipeError, TombolaError
from tombola.experiments.experiment import Experiment
from tombola.lab.chains import imp_jobs, ticket_jobs
from tombola.lab.execute import Settings
from tombola.pruning.allocation import nearest_count
from tombola.pruning.prune import Pruning
from tombola.search import check_rounds, mask_search

RECIPE = tb.Recipe(epochs=1, batch_size=100)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("weights", [1, 2, 1000, 11_164_352])
def test_as_many_rounds_are_allowed_as_leave_a_weight(weights: int, fraction: float) -> None:
    most = max(n for n in range(3000) if nearest_count(weights, (1 - fraction) ** n) >= 1)
    check_rounds(most, Pruning(fraction), weights)
    with pytest.raises(RecipeError, match=rf"rounds is {most + 1:,}; .* at most {most:,}"):
        check_rounds(most + 1, Pruning(fraction), weights)


def test_a_schedule_has_rounds_as_long_as_it_goes_and_leaves_a_weight() -> None:
    check_rounds(2, Pruning([0.5, 0.2]), 2)
    check_rounds(0, Pruning([0.5, 0.2]), 0)
    with pytest.raises(RecipeError, match="rounds is 3, but fraction has 2; give one for each round"):
        check_rounds(3, Pruning([0.5, 0.2]), 1000)
    with pytest.raises(RecipeError, match="2 rounds of these fractions leave nothing even of 9 weights"):
        check_rounds(2, Pruning([0.5, 0.9]), 9)
    check_rounds(2, Pruning([0.5, 0.9]), 11)


def test_a_search_of_more_rounds_than_its_start_has_weights_for_is_refused(
    start: tb.Ticket, digits: tb.Data
) -> None:
    # 8,456 weights: 8456 * 0.8^43 is 0.58 and counts as one, 8456 * 0.8^44 is 0.46.
    tb.imp(start, digits, RECIPE, rounds=43)
    for search in (tb.imp, mask_search):
        for rounds in (44, 10**6, 10**400):
            with pytest.raises(RecipeError) as refusal:
                search(start, digits, RECIPE, rounds=rounds)
            assert str(refusal.value) == (
                f"rounds is {rounds:,}; pruning 0.2 in each leaves nothing even of 8,456 weights, "
                "so give at most 43"
            )
    # Of what is left of a layer that alone is pruned.
    last = [name for name in start.mask if name != "0.weight"]
    kept = int(start.mask["0.weight"].sum())
    with pytest.raises(RecipeError, match=f"nothing even of {kept} weights"):
        tb.imp(start, digits, RECIPE, rounds=43, exclude=last)


@pytest.mark.parametrize("jobs", [imp_jobs, ticket_jobs])
@pytest.mark.parametrize("network", ["convnet", "resnet18", "vgg16"])
def test_a_chain_of_jobs_is_refused_before_the_first_is_written(jobs: Any, network: str) -> None:
    begun = time.monotonic()
    with pytest.raises(RecipeError, match=r"rounds is 1,000,000; pruning 0.2 in each leaves nothing even of"):
        jobs(network, "cifar10", RECIPE, rounds=10**6)
    assert time.monotonic() - begun < 30  # a million jobs would take minutes
    assert len(jobs(network, "cifar10", RECIPE, rounds=40)) == 41


def test_a_network_of_the_users_own_of_unknown_size_is_bounded_too() -> None:
    @tb.declare_network("of-one-size")
    def of_one_size(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        assert size == (5, 7)
        return nn.Sequential(nn.Flatten(), nn.Linear(35 * channels, classes))

    with pytest.raises(RecipeError, match="rounds is 1,000; "):
        imp_jobs("of-one-size", "digits", RECIPE, rounds=1000)
    assert len(imp_jobs("of-one-size", "digits", RECIPE, rounds=100)) == 101


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tb.Recipe(epochs=10**12), "epochs is 1000000000000; it must be a whole number, at most"),
        (lambda: Settings(threads=100_000), "threads is 100000; this machine has "),
        (lambda: Settings(slots=100_000), "slots is 100000; no more than 64 jobs share a GPU"),
        (lambda: tb.Lab("never", workers=100_000), "workers is 100000; this machine has "),
        (lambda: Experiment("a", seeds=10**9), "a: seeds is 1000000000; it must be a whole number,"),
        (lambda: Experiment("a", copies=10**6), "a: copies is 1000000; it must be a whole number,"),
        (lambda: Experiment("a", rounds=10**6).at(), "rounds is 1,000,000; pruning 0.2 in each leaves"),
        (
            lambda: Experiment("a", between={"copies": {"instability": {"points": 10**9}}}).at(),
            "points is 1000000000; it must be at most 10,001",
        ),
    ],
)  # fmt: skip
def test_what_no_machine_could_do_is_refused(make: Any, words: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TombolaError) as refusal:
        make()
    assert words in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_points_of_a_line_are_bounded(run: tb.Run, digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="points is 1000000000; it must be at most 10,001"):
        tb.barrier(run, run, digits, points=10**9)


def test_what_a_large_machine_can_do_is_allowed() -> None:
    assert Settings(threads=128, slots=12).threads == 128
    Settings(threads=4 * available_cores())
    assert tb.Recipe(epochs=65_534).epochs == 65_534
    assert math.isinf(Settings(hung_after=math.inf).hung_after)
