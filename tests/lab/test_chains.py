import pytest

import tombola as tb
from tombola.data.subsets import subset
from tombola.errors import DataError, JobError, NetworkError, RecipeError
from tombola.lab.chains import imp_jobs, start_job, ticket_jobs
from tombola.lab.job import all_needed
from tombola.search import mask_search


@pytest.fixture(scope="module")
def dozen() -> tb.Recipe:
    return tb.Recipe(epochs=12, batch_size=100)


def test_a_chain_is_one_training_a_round_and_the_dense_one(dozen: tb.Recipe) -> None:
    jobs = imp_jobs("convnet", "digits", dozen, rounds=3, fraction=0.5, seed=4)
    assert len(jobs) == 4
    start = tb.job(tb.initialize, "convnet", "digits", seed=4)
    by_hand = [tb.job(tb.train, start, "digits", dozen, noise=4)]
    for _ in range(3):
        ticket = tb.job(tb.prune, by_hand[-1], fraction=0.5)
        by_hand.append(tb.job(tb.train, ticket, "digits", dozen, noise=4))
    assert [made.name for made in jobs] == [made.name for made in by_hand]


def test_a_longer_chain_begins_with_the_shorter_one(dozen: tb.Recipe) -> None:
    short, long = ([run.name for run in imp_jobs("convnet", "digits", dozen, rounds=r)] for r in (2, 5))
    assert long[:3] == short


def test_rewinding_goes_back_to_a_pretrained_start(dozen: tb.Recipe) -> None:
    start = start_job("convnet", "digits", dozen, rewind=3, seed=2)
    dense = tb.job(tb.initialize, "convnet", "digits", seed=2)
    assert start.name == tb.job(tb.pretrain, dense, "digits", dozen, epochs=3, noise=2).name
    assert imp_jobs("convnet", "digits", dozen, rounds=0, rewind=3, seed=2)[0].parents[0].name == start.name
    other = start_job("convnet", "digits", dozen, rewind=3, seed=2, pretraining_noise=7)
    assert other.name == tb.job(tb.pretrain, dense, "digits", dozen, epochs=3, noise=7).name


def test_a_place_in_iterations_is_that_of_the_ticket_and_stays_as_it_was_written(
    lab: tb.Lab, digits: tb.Data, same_run: object
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=400)  # three steps an epoch
    chain = imp_jobs("convnet", "digits", recipe, rounds=1, rewind="4it", seed=2)
    assert chain[0].parents[0].arguments["epochs"] == "4it"
    lab.run(chain).raise_failures()
    ticket = lab.result(chain[1]).ticket
    assert (ticket.epoch, ticket.step, ticket.steps) == (1, 1, 3)
    assert lab.numbers(chain[1].parents[0])["step"] == 1
    start = tb.pretrain(tb.initialize("convnet", digits, seed=2), digits, recipe, epochs="4it", noise=2)
    *_, last = tb.imp(start, digits, recipe, rounds=1, noise=2)
    assert same_run(lab.result(chain[1]), last)
    table = lab.table(chain)
    assert {(number.key.get("rewind"), number.key.pretrained) for number in table} == {("4it", True)}


def test_epochs_as_text_are_the_same_job(dozen: tb.Recipe) -> None:
    for text, number in (("3ep", 3), ("2ep", 2), ("0it", 0)):
        names = [start_job("convnet", "digits", dozen, rewind=rewind).name for rewind in (text, number)]
        assert names[0] == names[1]
    names = {start_job("convnet", "digits", dozen, rewind=rewind).name for rewind in (1, "12it", "13it")}
    assert len(names) == 3  # how many steps an epoch has, only the data tells


def test_a_place_past_the_budget_is_refused_as_soon_as_the_images_are_counted(
    dozen: tb.Recipe, lab: tb.Lab
) -> None:
    words = "rewind is to iteration 144, but the recipe has 144, 12 an epoch; rewind to an earlier one"
    with pytest.raises(RecipeError, match=words):
        imp_jobs("convnet", "digits", dozen, rounds=1, rewind="144it")
    part = tb.job(subset, "digits", share=0.5)
    late = start_job("convnet", part, dozen, rewind="100it")  # of 84, as only the subset tells
    with pytest.raises(JobError, match="rewind is to iteration 100, but the recipe has 84, 7 an epoch"):
        lab.run(late).raise_failures()


def test_without_momentum_a_rewound_dense_training_is_the_plain_one(
    lab: tb.Lab, same_bits: object, recorder
) -> None:
    plain = tb.Recipe(epochs=3, batch_size=200, momentum=0.0)
    (whole,), (rewound,) = (imp_jobs("convnet", "digits", plain, rounds=0, rewind=r, seed=5) for r in (0, 1))
    assert whole.name != rewound.name
    lab.run([whole, rewound]).raise_failures()
    assert same_bits(lab.result(whole).weights, lab.result(rewound).weights)


def test_excluded_layers_and_same_noise_enter_the_jobs(dozen: tb.Recipe) -> None:
    made = imp_jobs(
        "convnet", "digits", dozen, rounds=1, exclude=["0.weight"], same_noise=True, scope="layerwise"
    )  # fmt: skip
    assert made[1].arguments["noise_round"] == 0
    pruned = made[1].arguments["ticket"]
    assert {key: pruned.arguments[key] for key in ("scope", "exclude")} == {
        "scope": "layerwise",
        "exclude": ["0.weight"],
    }


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rounds": -1}, RecipeError, "rounds is -1; it must be 0 or more"),
        ({"fraction": 0.0}, RecipeError, "fraction is 0.0; it must lie between 0 and 1, both excluded"),
        ({"fraction": 1.5}, RecipeError, "fraction is 1.5"),
        (
            {"rewind": 12},
            RecipeError,
            "rewind is to epoch 12, but the recipe has 12 epochs; allowed are 1 to 11",
        ),
        ({"rewind": -1}, RecipeError, "rewind is to epoch -1"),
        ({"network": "convnett"}, NetworkError, "no network 'convnett'; did you mean 'convnet'"),
        ({"data": "./nowhere"}, DataError, "no folder './nowhere'"),
        ({"exclude": "0.weight"}, RecipeError, r"exclude is '0.weight'; it must be a list .* \['0.weight'\]"),
        ({"scope": "globl"}, RecipeError, "no pruning scope 'globl'; did you mean 'global'"),
    ],
)
def test_impossible_chains_are_refused_before_any_job(
    change: dict, error: type[Exception], words: str, dozen: tb.Recipe
) -> None:
    settings = {"network": "convnet", "data": "digits", "rounds": 1, **change}
    with pytest.raises(error, match=words):
        imp_jobs(settings.pop("network"), settings.pop("data"), dozen, **settings)


def test_the_tickets_of_a_search_are_what_its_chain_trains(dozen: tb.Recipe) -> None:
    settings = {"rounds": 3, "fraction": 0.5, "rewind": 2, "seed": 4, "exclude": ["0.weight"]}
    found = ticket_jobs("convnet", "digits", dozen, **settings)
    trained = [tb.job(tb.train, ticket, "digits", dozen, noise=4) for ticket in found]
    chain = imp_jobs("convnet", "digits", dozen, **settings)
    assert [made.name for made in trained] == [made.name for made in chain]


def test_a_short_search_before_a_full_training_shares_its_tickets(dozen: tb.Recipe) -> None:
    short = tb.Recipe(epochs=3, batch_size=100)
    found = ticket_jobs("convnet", "digits", short, rounds=2, seed=1)
    trained = [
        tb.job(tb.train, found[n], "digits", recipe, noise=1) for recipe in (dozen, short) for n in (1, 2)
    ]
    # One start, two trainings of the search and their tickets, three more: the short one of round 1 is the
    # search's own.
    assert len(all_needed(trained)) == 1 + 2 + 2 + 3


def test_a_search_by_jobs_is_the_one_of_the_library(lab: tb.Lab, start: tb.Ticket, digits: tb.Data) -> None:
    short = tb.Recipe(epochs=2, batch_size=400)
    found = [lab.result(made).fingerprint for made in ticket_jobs("convnet", "digits", short, rounds=2)]
    assert found == [ticket.fingerprint for ticket in mask_search(start, digits, short, rounds=2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rounds": -1}, "rounds is -1; it must be 0 or more"),
        ({"fraction": 1.0}, "fraction is 1.0; it must lie between 0 and 1, both excluded"),
        ({"rewind": 12}, "rewind is to epoch 12, but the recipe has 12 epochs; allowed are 1 to 11"),
    ],
)
def test_impossible_searches_are_refused_before_any_job(change: dict, words: str, dozen: tb.Recipe) -> None:
    with pytest.raises(RecipeError, match=words):
        ticket_jobs("convnet", "digits", dozen, **{"rounds": 1, **change})
