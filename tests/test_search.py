import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.pruning.controls import densify
from tombola.search import chain as chain_of
from tombola.search import mask_search, one_shot, tickets
from tombola.training.engines import EagerEngine
from tombola.training.epoch import EpochPlan

Same = Callable[..., bool]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[EpochPlan]:
    """Every epoch's plan that an engine is given, in order."""
    seen: list[EpochPlan] = []
    begin = EagerEngine.begin

    def record(self: EagerEngine, plan: EpochPlan) -> None:
        seen.append(plan)
        begin(self, plan)

    monkeypatch.setattr(EagerEngine, "begin", record)
    return seen


def drawn(plan: EpochPlan) -> tuple[bytes, bytes]:
    return plan.order.numpy().tobytes(), plan.draws.rows.numpy().tobytes()


@pytest.fixture(scope="module")
def short() -> tb.Recipe:
    return tb.Recipe(epochs=2, batch_size=400)


def test_a_chain_is_dense_first_and_then_one_run_a_round(chain: list[tb.Run], late: tb.Ticket) -> None:
    assert [run.ticket.round for run in chain] == [0, 1, 2]
    # 8456 weights, halved twice.
    assert [run.ticket.kept for run in chain] == [8456, 4228, 2114]
    assert all(run.ticket.epoch == late.epoch == 1 for run in chain)
    assert all(run.ticket.start is late.start for run in chain)


def test_masks_only_shrink_along_a_chain(chain: list[tb.Run]) -> None:
    for before, after in itertools.pairwise(chain):
        for name, keep in after.ticket.mask.items():
            assert not (keep & ~before.ticket.mask[name]).any()


def test_a_list_of_fractions_is_that_of_the_rounds(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    fractions = [0.5, 0.2, 0.75]
    tickets = list(mask_search(start, digits, short, rounds=3, fraction=fractions, score="movement"))
    # 8456 weights times 0.5, 0.4 and 0.1.
    assert [ticket.kept for ticket in tickets] == [8456, 4228, 3382, 846]
    assert tickets[3].density == pytest.approx(0.1)
    with pytest.raises(RecipeError, match="rounds is 4, but fraction has 3; give one for each round"):
        tb.imp(start, digits, short, rounds=4, fraction=fractions)
    with pytest.raises(RecipeError, match="fraction is a list; it takes a number"):
        tb.prune(start, fraction=[0.5])  # type: ignore[arg-type]


def test_one_shot_pruning_takes_a_score(start: tb.Ticket, digits: tb.Data, short: tb.Recipe) -> None:
    run = tb.train(start, digits, short, noise=2)
    options: dict[str, Any] = {"score": "large_init", "same_sign": True, "scope": "uniform"}
    ticket = one_shot(start, digits, short, sparsity=0.9, noise=2, **options)
    assert ticket.fingerprint == tb.prune(run, fraction=0.9, **options).fingerprint


def test_a_chain_is_lazy(start: tb.Ticket, digits: tb.Data, short: tb.Recipe, plans: list[EpochPlan]) -> None:
    runs = tb.imp(start, digits, short, rounds=40)
    assert plans == []
    next(runs)
    assert len(plans) == short.epochs


def test_order_and_crops_differ_between_all_rounds_and_epochs(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, plans: list[EpochPlan]
) -> None:
    list(tb.imp(start, digits, short, rounds=2))
    assert len(plans) == 6
    for part in zip(*map(drawn, plans), strict=True):
        assert len(set(part)) == 6


def test_same_noise_replays_the_first_round_in_every_round(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, plans: list[EpochPlan]
) -> None:
    list(tb.imp(start, digits, short, rounds=2, same_noise=True))
    seen = [drawn(plan) for plan in plans]
    assert seen[0:2] == seen[2:4] == seen[4:6]
    assert seen[0] != seen[1]


def test_the_first_round_is_the_same_with_and_without_same_noise(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, same_run: Same
) -> None:
    first, second = (
        next(iter(tb.imp(start, digits, short, rounds=1, noise=4, same_noise=same))) for same in (True, False)
    )
    assert same_run(first, second)


def test_training_a_chains_ticket_under_its_noise_is_the_chains_own_run(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    for run in chain:
        assert same_run(tb.train(run.ticket, digits, recipe, noise=3), run)
    assert not same_run(tb.train(chain[2].ticket, digits, recipe, noise=2), chain[2])


def test_the_dense_run_of_a_chain_is_the_plain_training(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, run: tb.Run, same_run: Same
) -> None:
    assert same_run(next(iter(tb.imp(start, digits, recipe, rounds=0, noise=1))), run)


def test_excluded_weights_are_left_alone(start: tb.Ticket, digits: tb.Data, short: tb.Recipe) -> None:
    runs = list(tb.imp(start, digits, short, rounds=2, fraction=0.5, exclude=["0.weight", "14.weight"]))
    mask = runs[2].ticket.mask
    assert mask["0.weight"].all()
    assert mask["14.weight"].all()
    # 8456 weights but for 72 of the first and 320 of the last layer, halved twice.
    assert sum(int(mask[name].sum()) for name in ("3.weight", "6.weight", "9.weight")) == 8064 / 4


def test_layerwise_pruning_takes_the_same_share_of_each_layer(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    runs = list(tb.imp(start, digits, short, rounds=2, fraction=0.5, scope="layerwise"))
    assert [int(keep.sum()) for keep in runs[2].ticket.mask.values()] == [18, 288, 576, 1152, 80]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rounds": -1}, RecipeError, "rounds is -1; it must be 0 or more"),
        ({"fraction": 0.0}, RecipeError, r"fraction is 0\.0; it must lie between 0 and 1"),
        ({"fraction": 1.0}, RecipeError, r"fraction is 1\.0"),
        ({"fraction": float("nan")}, RecipeError, "fraction is nan"),
        ({"scope": "globl"}, RecipeError, "no pruning scope 'globl'; did you mean 'global'"),
        (
            {"exclude": ["14.wieght"]},
            TicketError,
            r"no prunable weight '14\.wieght'; did you mean '14\.weight'",
        ),
        ({"exclude": "14.weight"}, RecipeError, r"must be a list of names, such as \['14\.weight'\]"),
    ],
)
def test_impossible_settings_are_refused_at_once(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, change: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tb.imp(start, digits, short, **{"rounds": 1, **change})


def test_excluding_everything_is_refused(start: tb.Ticket, digits: tb.Data, short: tb.Recipe) -> None:
    with pytest.raises(TicketError, match="nothing to prune: convnet"):
        tb.imp(start, digits, short, rounds=1, exclude=list(start.mask))


def test_a_chain_on_other_images_is_refused_before_the_first_step(
    start: tb.Ticket, colour: tb.Data, short: tb.Recipe, plans: list[EpochPlan]
) -> None:
    with pytest.raises(NetworkError, match="convnet is for 1x8x8 images of 10 classes; colour has 3x8x10"):
        next(tb.imp(start, colour, short, rounds=1))
    assert plans == []


def test_a_chain_can_be_written_down_instead_of_run() -> None:
    calls: list[str] = []

    def call(function: Callable, *arguments: object, **options: object) -> str:
        calls.append(f"{function.__name__}({arguments[0]})")
        return calls[-1]

    list(chain_of(call, "start", "data", tb.Recipe(), rounds=2))
    assert calls[-1] == "train(prune(train(prune(train(start)))))"
    assert len(calls) == 5


def test_a_chain_leaves_the_global_generator_alone(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    before = torch.get_rng_state()
    list(tb.imp(start, digits, short, rounds=1))
    assert torch.equal(before, torch.get_rng_state())


# Mask searches with a recipe of their own


def test_a_mask_search_gives_the_tickets_of_the_chain(
    chain: list[tb.Run], late: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    found = list(mask_search(late, digits, recipe, rounds=2, fraction=0.5, noise=3))
    assert found[0] is late
    assert [ticket.fingerprint for ticket in found] == [run.ticket.fingerprint for run in chain]


def test_a_mask_search_is_lazy_and_does_not_train_its_last_ticket(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, plans: list[EpochPlan]
) -> None:
    search = mask_search(start, digits, short, rounds=2)
    next(search)
    assert plans == []
    assert [ticket.round for ticket in search] == [1, 2]
    assert len(plans) == 2 * short.epochs
    assert [ticket.round for ticket in mask_search(start, digits, short, rounds=0)] == [0]
    assert len(plans) == 2 * short.epochs


def test_a_short_search_before_a_full_training_by_hand(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, same_run: Same
) -> None:
    full = tb.Recipe(epochs=4, batch_size=300, momentum=0.0)
    ticket = start
    for found in mask_search(start, digits, short, rounds=2, fraction=0.5, noise=5):
        assert found.fingerprint == ticket.fingerprint
        run = tb.train(found, digits, full, noise=5)
        assert len(run.history) == 5
        assert same_run(run, tb.train(ticket, digits, full, noise=5, noise_round=found.round))
        ticket = tb.prune(tb.train(ticket, digits, short, noise=5), fraction=0.5)


def test_sparse_training_sees_no_noise_that_is_behind_its_mask(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, plans: list[EpochPlan]
) -> None:
    *_, last = mask_search(start, digits, short, rounds=3)
    tb.train(last, digits, tb.Recipe(epochs=3, batch_size=400))
    assert len(plans) == 3 * 2 + 3
    for part in zip(*map(drawn, plans), strict=True):
        assert len(set(part)) == 9


def test_one_shot_pruning_is_one_training_and_one_pruning(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, plans: list[EpochPlan]
) -> None:
    ticket = one_shot(start, digits, short, sparsity=0.9, noise=2, exclude=["14.weight"])
    assert len(plans) == short.epochs
    # 8456 weights but for the 320 of the last layer: a tenth of 8136, and those 320.
    assert ticket.kept == 814 + 320
    assert (ticket.round, ticket.epoch) == (1, 0)
    run = tb.train(start, digits, short, noise=2)
    ranked = {name: run.weights[name].abs() for name in ticket.mask if name != "14.weight"}
    smallest = min(float(value[ticket.mask[name]].min()) for name, value in ranked.items())
    assert all((value[~ticket.mask[name]] <= smallest).all() for name, value in ranked.items())


@given(st.integers(1, 25))
def test_one_shot_pruning_keeps_as_many_as_iterative_pruning_of_that_sparsity(
    run: tb.Run, rounds: int
) -> None:
    ticket = tb.prune(run, fraction=1 - 0.8**rounds)
    # Section 4.2: sparsity after n rounds is 1 - 0.8^n, to the nearest weight.
    assert abs(ticket.kept - 8456 * 0.8**rounds) <= 0.5 + 1e-6


def test_one_shot_pruning_of_a_sparse_start_is_refused(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe
) -> None:
    ticket = chain[1].ticket
    with pytest.raises(TicketError, match=r"has sparsity 0\.5000 already; give a dense one, .* densify"):
        one_shot(ticket, digits, recipe, sparsity=0.9)
    assert one_shot(densify(ticket), digits, recipe, sparsity=0.9).kept == 846


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.5, float("nan")])
def test_an_impossible_sparsity_is_refused(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe, sparsity: float
) -> None:
    with pytest.raises(RecipeError, match=f"sparsity is {sparsity}; it must lie between 0 and 1, both excl"):
        one_shot(start, digits, short, sparsity=sparsity)


@pytest.mark.parametrize(
    "search",
    [
        lambda *of: tb.imp(*of, rounds=1),
        lambda *of: mask_search(*of, rounds=1),
        lambda *of: one_shot(*of, sparsity=0.5),
    ],
)
def test_a_budget_shorter_than_the_rewind_point_is_refused_at_once(
    search: Callable[..., object], start: tb.Ticket, digits: tb.Data, plans: list[EpochPlan]
) -> None:
    rewound = tb.pretrain(start, digits, tb.Recipe(epochs=8, batch_size=400), epochs=2)
    plans.clear()
    for epochs, budget in ((1, "1 epoch"), (2, "2 epochs")):
        words = f"the ticket was taken at epoch 2, but the recipe has {budget}; rewind to at most epoch"
        with pytest.raises(RecipeError, match=words):
            search(rewound, digits, tb.Recipe(epochs=epochs, batch_size=400))
    assert plans == []


def test_impossible_mask_searches_are_refused_at_once(
    start: tb.Ticket, digits: tb.Data, short: tb.Recipe
) -> None:
    with pytest.raises(RecipeError, match="rounds is -1; it must be 0 or more"):
        mask_search(start, digits, short, rounds=-1)
    with pytest.raises(RecipeError, match=r"fraction is 1\.0"):
        mask_search(start, digits, short, rounds=1, fraction=1.0)
    with pytest.raises(TicketError, match=r"no prunable weight '14.wieght'"):
        one_shot(start, digits, short, sparsity=0.5, exclude=["14.wieght"])


def test_a_mask_search_can_be_written_down_instead_of_run() -> None:
    def call(function: Callable, *arguments: object, **options: object) -> str:
        return f"{function.__name__}({arguments[0]})"

    found = list(tickets(call, "start", "data", tb.Recipe(), rounds=2))
    assert found == ["start", "prune(train(start))", "prune(train(prune(train(start))))"]
