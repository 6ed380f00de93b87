"""Searches and controls beside the chains of an experiment: their jobs, keys, numbers and sentences."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.errors import ExperimentError, JobError, TombolaError
from tombola.experiments.chain_items import ChainItem
from tombola.experiments.from_file import read_experiments
from tombola.lab.item import jobs_of
from tombola.report.findings import experiment_findings

QUICK = {"epochs": 1, "batch_size": 400}
AT_START = "prune-at-initialization"


def runs_of(experiment: tb.Experiment) -> dict[tuple[Any, Any, Any], list[tb.Job]]:
    """The trainings by search, control and sparsity."""
    return {
        (item.key.get("search"), item.key.baseline, item.key.sparsity): list(item.jobs)
        for item in experiment.at().items
        if isinstance(item, ChainItem) and not item.measure
    }


def test_searches_and_controls_are_the_calls_that_one_would_write_down() -> None:
    recipe = tb.Recipe(epochs=1, batch_size=400)
    experiment = tb.Experiment(
        "mine", recipe=QUICK, rounds=2, fraction=[0.8, 0.5], seeds=[3],
        searches={AT_START: [{"score": "synflow"}, {"score": "random", "scope": "erk"}]},
        controls=["permuted", "reinitialized"],
    )  # fmt: skip
    runs = {place: job.name for place, (job,) in runs_of(experiment).items()}
    start = tb.job(tb.initialize, "convnet", "digits", seed=3)

    def trained(ticket: tb.Job) -> str:
        return tb.job(tb.train, ticket, "digits", recipe, noise=3).name

    dense = tb.job(tb.train, start, "digits", recipe, noise=3)
    once = tb.job(tb.prune, dense, fraction=0.8)
    synflow = tb.job(tb.prune_at_initialization, start, "digits", score="synflow", sparsity=0.9)
    erk = tb.job(tb.prune_at_initialization, start, "digits", score="random", scope="erk", sparsity=0.8)
    for search in ("iterative", "synflow", "random, scope erk"):
        assert runs[search, None, 0.0] == dense.name
    assert runs["iterative", None, 80.0] == trained(once)
    assert runs["iterative", "permuted", 80.0] == trained(tb.job(tb.permute, once, seed=3))
    assert runs["synflow", None, 90.0] == trained(synflow)
    assert runs["synflow", "reinitialized", 90.0] == trained(tb.job(tb.reinitialize, synflow, seed=103))
    assert runs["random, scope erk", None, 80.0] == trained(erk)
    assert len(runs) == 3 * 3 + 3 * 2 * 2


def test_a_mask_that_is_learned_is_a_search_by_a_recipe_of_its_own() -> None:
    experiment = tb.Experiment(
        "mine", recipe=QUICK, rounds=1, fraction=0.7, seeds=[3],
        searches={"edge-popup": {"recipe": {"lr": 1.0}}},
    )  # fmt: skip
    (job,) = next(jobs for place, jobs in runs_of(experiment).items() if place[0] != "iterative" and place[2])
    start = tb.job(tb.initialize, "convnet", "digits", seed=3)
    learning = tb.Recipe(epochs=1, batch_size=400, lr=1.0)
    ticket = tb.job(tb.edge_popup, start, "digits", learning, sparsity=0.7, noise=3)
    assert job.name == tb.job(tb.train, ticket, "digits", tb.Recipe(epochs=1, batch_size=400), noise=3).name
    with pytest.raises(ExperimentError, match="recipe of search 'edge-popup': no field of a recipe"):
        tb.Experiment("mine", rounds=1, searches={"edge-popup": {"recipe": {"epoch": 1}}}).at()


def test_an_experiment_without_them_has_the_keys_it_had() -> None:
    (item,) = tb.Experiment("mine", recipe=QUICK).at().items
    assert isinstance(item, ChainItem)
    assert (item.key.more, item.key.baseline) == ((), None)


def test_the_example_of_the_documents_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "own-study.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(# untrained.toml\n.*?)```", text, re.DOTALL)
    assert example
    (tmp_path / "untrained.toml").write_text(example[1])
    (experiment,) = read_experiments(tmp_path / "untrained.toml").experiments
    jobs = {job.name: job for job in jobs_of(experiment.at().items)}
    functions = Counter(job.declaration.name for job in jobs.values())
    # Dense and by magnitude, five searches, and two controls of all six; of three seeds at two sparsities.
    assert functions["train"] == 3 * (1 + 2 + 5 * 2 + 6 * 2 * 2)


def test_comparisons_can_be_left_to_some_rounds() -> None:
    experiment = tb.Experiment(
        "mine", recipe=QUICK, rounds=3, fraction=0.5, searches={AT_START: {"score": "snip"}},
        controls=["randomized"], compared_at=[3],
    )  # fmt: skip
    assert list(runs_of(experiment)) == [
        *[("iterative", None, sparsity) for sparsity in (0.0, 50.0, 75.0, 87.5)],
        ("iterative", "randomized", 87.5),
        ("snip", None, 0.0),
        ("snip", None, 87.5),
        ("snip", "randomized", 87.5),
    ]
    assert "At the sparsity of round 3 tickets are also found by prune-at-initialization (snip)" in (
        experiment.about
    )


def test_a_search_of_ones_own_takes_what_it_asks_for() -> None:
    @tb.declare("own-search")
    def own_search(
        recipe: tb.Recipe, data: tb.Data, begin: tb.Ticket, *, sparsity: float, noise: int, more: int = 0
    ) -> tb.Ticket:
        return begin

    experiment = tb.Experiment(
        "mine", recipe=QUICK, rounds=1, seeds=[4],
        searches={"own-search": {"more": 2}, AT_START: {"score": "snip"}},
    )  # fmt: skip
    runs = runs_of(experiment)
    (run,) = runs["own-search more 2", None, 20.0]
    ticket = run.arguments["ticket"]
    assert {name: ticket.arguments[name] for name in ("sparsity", "noise", "more")} == {
        "sparsity": 0.2, "noise": 4, "more": 2,
    }  # fmt: skip
    assert (f"{AT_START} snip", None, 20.0) in runs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controls": ["shuffled"]}, "no control 'shuffled'"),
        ({"controls": "permuted"}, "controls is 'permuted'; give a list"),
        ({"controls": ["permuted", "permuted"]}, "controls has 'permuted' twice"),
        ({"controls": ["permuted"], "rounds": 0}, "rounds is 0, so there is no sparsity"),
        ({"compared_at": [0]}, "compared_at has 0; its rounds are from 1 to 1"),
        ({"searches": "snip"}, r"searches is 'snip'; give a list, \['snip'\]"),
        ({"searches": {AT_START: {"score": "snip", "sparsity": 0.5}}}, "which the rounds and seeds give it"),
        ({"searches": {AT_START: [{"score": "snip"}, {"score": "snip"}]}}, "searches has .* twice"),
        ({"searches": ["untrained"]}, "search 'untrained' is no function from a ticket and a sparsity"),
        ({"searches": ["prune"]}, "search 'prune' is no function from a ticket and a sparsity"),
        ({"searches": {AT_START: {"score": "snip", "scop": "erk"}}}, "scop"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TombolaError, match=message):
        tb.Experiment("mine", **{"recipe": QUICK, "rounds": 1} | fields).at()


def test_a_search_that_is_not_declared_is_refused() -> None:
    with pytest.raises(JobError, match="prune-at-initialisation"):
        tb.Experiment("mine", recipe=QUICK, rounds=1, searches=["prune-at-initialisation"]).at()
    with pytest.raises(ExperimentError, match="searches is 3"):
        tb.Experiment("mine", recipe=QUICK, rounds=1, searches=3)  # type: ignore[arg-type]


def test_magnitudes_after_training_beat_snip_and_need_their_places_and_lost_layers_are_told(
    tmp_path: Path,
) -> None:
    """The orderings of Frankle et al. (2021), where they are plain with one seed.

    Inverted SNIP removes the whole first layer of the convnet at 90%, whose weights matter most.
    """
    (tmp_path / "mine.toml").write_text(
        """
        rounds = 1
        fraction = 0.9
        controls = ["permuted"]
        [searches]
        prune-at-initialization = [{ score = "snip" }, { score = "snip", invert = true }]
        [recipe]
        epochs = 4
        batch_size = 32
        """
    )
    (experiment,) = read_experiments(tmp_path / "mine.toml").experiments
    bound = experiment.at()
    lab = tb.Lab(tmp_path / "store")
    lab.run(jobs_of(bound.items)).raise_failures()
    numbers = bound.numbers(lab.results())
    assert not [number for number in numbers if number.state != "measured"]
    accuracies = {
        (number.key.get("search"), number.key.baseline): number.value
        for number in numbers
        if number.key.metric == "val_accuracy" and number.key.sparsity
    }
    magnitude, snip = accuracies["iterative", None], accuracies["snip", None]
    assert magnitude > snip + 5
    assert magnitude > accuracies["iterative", "permuted"] + 3
    assert snip > accuracies["snip, invert", None] + 20
    exhibits = bound.exhibits(lab.results())
    accuracy = exhibits[0].picture
    assert accuracy is not None
    assert [panel.title for panel in accuracy.panels] == ["tickets", "permuted"]
    assert [len(panel.lines) for panel in accuracy.panels] == [3, 3]
    sentences = experiment_findings(exhibits)["mine-layers"]
    assert len(sentences) == 1
    assert sentences[0].startswith("Layer collapse: no weight is left of 0.weight (")
    assert "snip,\N{NO-BREAK SPACE}invert" in sentences[0]
    assert {number.key.baseline for number in numbers} == {None, "permuted"}
