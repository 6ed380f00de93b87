import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tombola as tb
from tombola import registry as declarations
from tombola.data.augmentation import Augmentation
from tombola.errors import DataError, JobError, NetworkError
from tombola.lab.chains import imp_jobs
from tombola.lab.description import described_in_full, describes, name_of, parents
from tombola.lab.finished import load_result
from tombola.lab.job import (
    all_needed,
    call,
    data_behind,
    described_function,
    values_behind,
)
from tombola.measures.instability import instability
from tombola.networks import network as networks
from tombola.training.trunk import ticket_at, trunk

DIGITS = {"data": "digits"}
RECIPE = {"epochs": 12, "batch_size": 32, "lr": 0.3}


def sha(function: str, version_: int = 1, **arguments: Any) -> str:
    """The name of a job, from its description as written by hand here."""
    described = {"function": function, "version": version_, "arguments": arguments}
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.fixture
def dozen() -> tb.Recipe:
    return tb.Recipe(epochs=12, batch_size=32, lr=0.3)


@pytest.fixture
def dense() -> tb.Job:
    return tb.job(tb.initialize, "convnet", "digits")


# Names


def test_names_are_what_they_have_always_been(dense: tb.Job, dozen: tb.Recipe) -> None:
    late = tb.job(tb.pretrain, dense, "digits", dozen, epochs=3, noise=4)
    first = tb.job(tb.train, late, "digits", dozen)
    pruned = tb.job(tb.prune, first)
    second = tb.job(tb.train, pruned, "digits", dozen)
    third = tb.job(tb.train, tb.job(tb.prune, second), "digits", dozen)
    line = tb.job(tb.barrier, second, third, "cifar10", recalibrate=True)
    permuted = tb.job(tb.train, tb.job(tb.permute, pruned, seed=5), "digits", dozen)
    assert [made.name for made in (dense, late, first, pruned, second, third, line, permuted)] == [
        "b97502bff7de0c495e1b74e9f21d0f38c5d0ed28b5909ac3741a48dddba25763",
        "dd117ca2c5e3a349fef3ddd02d32a4cfa9fdf2a5bc6ce0361ebbdf852e6d2a94",
        "df43affb60e93f7609621340f390b2e2c1e11046cb4566bb86797adacee70879",
        "77e5f213556f9fd66899f0046014d039e2270868b04451e528cbc857434a01eb",
        "3a53e3dbad2f244841213b89fc6a03f5906f85d273840bffd7c8e5c045fa6b4f",
        "899c7d23440ab23929394ccbd2370eefe9fd6cb1b77336680c446ceb12b847af",
        "693463a6ff156e19124d9bc31785d378896e8eca5e47a5ec92a4bcc3e32ed9e0",
        "54d47c3919cd56667e28d8150b35caff247578c0091578eb7e95cf8266d5d07a",
    ]


def test_names_of_instability_and_trunk_are_what_they_have_always_been(
    dense: tb.Job, dozen: tb.Recipe
) -> None:
    point = tb.job(trunk, dense, "digits", dozen, epochs=2)
    later = tb.job(trunk, dense, "digits", dozen, epochs=3, after=point, noise=4)
    ticket = tb.job(ticket_at, dense, later)
    children = [tb.job(tb.train, ticket, "digits", dozen, noise=noise) for noise in (1, 2)]
    end = tb.job(tb.train, dense, "digits", dozen, noise=4)
    found = tb.job(instability, children, "digits")
    through = tb.job(instability, children, "digits", trunk=end, points=11, recalibrate="beside")
    assert [made.name for made in (point, later, ticket, found, through)] == [
        sha("trunk", start={"job": dense.name}, data=DIGITS, recipe=RECIPE, epochs=2),
        sha(
            "trunk",
            start={"job": dense.name}, data=DIGITS, recipe=RECIPE,
            epochs=3, after={"job": point.name}, noise=4,
        ),
        sha("ticket_at", start={"job": dense.name}, point={"job": later.name}),
        sha("instability", runs=[{"job": run.name} for run in children], data=DIGITS),
        sha(
            "instability", version_=2,  # the digits end in a short batch, which version 1 weighed as a whole
            runs=[{"job": run.name} for run in children], data=DIGITS,
            trunk={"job": end.name}, points=11, recalibrate="beside",
        ),
    ]  # fmt: skip
    assert found.name == "4b7de8a1fc33956d8e0cd664f448c85820a6d09040abf619b9e5962b83eb6582"


def test_a_barrier_said_in_full_is_the_job_it_has_always_been(dense: tb.Job, dozen: tb.Recipe) -> None:
    runs = [tb.job(tb.train, dense, "digits", dozen, noise=noise) for noise in (1, 2)]
    plain = sha("barrier", first={"job": runs[0].name}, second={"job": runs[1].name}, data=DIGITS)
    assert tb.job(tb.barrier, *runs, "digits").name == plain
    assert tb.job(tb.barrier, *runs, "digits", points=21, recalibrate=False, split="test").name == plain
    assert tb.job(tb.barrier, *runs, "digits", split="train").name != plain


def test_a_name_is_the_hash_of_the_call_as_written_by_hand(dense: tb.Job, dozen: tb.Recipe) -> None:
    start = sha("initialize", network="convnet", data=DIGITS)
    assert dense.name == start
    first = sha("train", ticket={"job": start}, data=DIGITS, recipe=RECIPE)
    pruned = sha("prune", run={"job": first})
    second = sha("train", ticket={"job": pruned}, data=DIGITS, recipe=RECIPE)
    chain = imp_jobs("convnet", "digits", dozen, rounds=1)
    assert [made.name for made in chain] == [first, second]
    assert tb.job(tb.barrier, *chain, "digits").name == sha(
        "barrier", first={"job": first}, second={"job": second}, data=DIGITS
    )


def test_a_name_holds_what_differs_from_the_defaults(dozen: tb.Recipe) -> None:
    first = sha("initialize", network="resnet18", data={"data": "cifar10"}, seed=3)
    made = tb.job(tb.initialize, "resnet18@1", data="cifar10", seed=3)
    assert made.name == first == "b72fe5f0a9955d4d4717401ad971827e1549260ead4eec6a0ea47631567a22df"
    start = sha("initialize", network="resnet18@2", data={"data": "cifar10"}, seed=3)
    made = tb.job(tb.initialize, "resnet18", data="cifar10", seed=3)
    assert made.name == start == "7ba37f8bacf0a6d15391f20aae016e312cd74fed129d93eba2bd8add3643bcbf"
    chain = imp_jobs(
        "resnet18", "cifar10", dozen,
        rounds=1, rewind=2, fraction=0.5, scope="layerwise", exclude=["linear.weight"], same_noise=True,
        seed=3,
    )  # fmt: skip
    cifar = {"data": "cifar10"}
    late = sha("pretrain", start={"job": start}, data=cifar, recipe=RECIPE, noise=3)  # two epochs by default
    said = {"data": cifar, "recipe": RECIPE, "noise": 3, "noise_round": 0}
    first = sha("train", ticket={"job": late}, **said)
    pruned = sha("prune", run={"job": first}, fraction=0.5, scope="layerwise", exclude=["linear.weight"])
    assert [run.name for run in chain] == [first, sha("train", ticket={"job": pruned}, **said)]


def test_a_default_given_in_full_changes_no_name(dense: tb.Job) -> None:
    plain = tb.job(tb.train, dense, "digits", tb.Recipe())
    spelled = tb.job(
        tb.train, ticket=dense, data="digits", noise_round=None, noise=0,
        recipe=tb.Recipe(epochs=200, momentum=0.9, milestones=(), augmentation=Augmentation(fill="black")),
    )  # fmt: skip
    assert spelled.name == plain.name
    spelled = {
        "fraction": 0.2,
        "scope": "global",
        "exclude": [],
        "same_sign": False,
        "invert": False,
        "rewinding": "weights",
    }
    for score in ("magnitude", "magnitude@1"):
        pruned = tb.job(tb.prune, plain, score=score, data=None, **spelled)
        assert pruned.name == tb.job(tb.prune, plain).name == sha("prune", run={"job": plain.name})


def test_a_cause_of_noise_under_the_number_of_the_noise_changes_no_name(dense: tb.Job) -> None:
    recipe = tb.Recipe(epochs=2)
    for function, start, options in ((tb.train, dense, {}), (tb.pretrain, dense, {"epochs": 1})):
        for noise in ({}, {"noise": 0}, {"noise": 3}):
            number = noise.get("noise", 0)
            plain = tb.job(function, start, "digits", recipe, **options, **noise)
            same = {"order_noise": number, "augmentation_noise": number}
            assert tb.job(function, start, "digits", recipe, **options, **noise, **same).name == plain.name
            other = tb.job(function, start, "digits", recipe, **options, **noise, order_noise=number + 1)
            assert other.arguments["order_noise"] == number + 1
            assert other.name != plain.name


def test_a_name_holds_the_criterion_of_pruning(dense: tb.Job, dozen: tb.Recipe) -> None:
    @tb.declare_score("named", version=2)
    def named(run: tb.Run, data: tb.Data) -> dict[str, Tensor]:
        return {name: run.weights[name] for name in run.ticket.mask}

    run = tb.job(tb.train, dense, "digits", dozen)
    for options, written in (
        ({"score": "movement"}, {"score": "movement"}),
        ({"score": "movement@1", "invert": True}, {"score": "movement", "invert": True}),
        ({"same_sign": True, "scope": "erk"}, {"same_sign": True, "scope": "erk"}),
        # Data only where the score asks for them.
        ({"score": "named"}, {"score": "named@2", "data": DIGITS}),
        ({"score": named}, {"score": "named@2", "data": DIGITS}),
        ({"fraction": [0.5]}, {"fraction": 0.5}),
    ):
        made = imp_jobs("convnet", "digits", dozen, rounds=1, **options)[1]
        assert made.arguments["ticket"].name == sha("prune", run={"job": run.name}, **written)


@pytest.mark.parametrize(
    ("whole", "real"),
    [
        ({"lr": 1, "momentum": 0, "weight_decay": 0}, {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}),
        ({"momentum": np.float64(0.5)}, {"momentum": 0.5}),
        ({"epochs": 20, "lr": np.int64(2)}, {"epochs": 20, "lr": 2.0}),
    ],
)
def test_a_whole_number_given_for_a_real_one_changes_no_name(whole: dict, real: dict, dense: tb.Job) -> None:
    first, second = (tb.job(tb.train, dense, "digits", tb.Recipe(**settings)) for settings in (whole, real))
    assert first.name == second.name


def test_a_number_of_numpy_changes_no_name(dense: tb.Job) -> None:
    made = tb.job(tb.initialize, "convnet", "digits", seed=np.arange(4)[3])
    assert made.name == tb.job(tb.initialize, "convnet", "digits", seed=3).name


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 13}, {"batch_size": 33}, {"lr": 0.31}, {"momentum": 0.0}, {"weight_decay": 0.0},
        {"schedule": "constant"}, {"schedule": "step", "milestones": (5,)}, {"precision": "float32"},
        {"augmentation": Augmentation(pad=0)}, {"augmentation": Augmentation(flip=False)},
    ],
)  # fmt: skip
def test_another_recipe_is_another_job(change: dict, dense: tb.Job) -> None:
    before, after = (
        tb.job(tb.train, dense, "digits", tb.Recipe(**{**RECIPE, **other})) for other in ({}, change)
    )
    assert before.name != after.name


def test_another_argument_parent_or_data_set_is_another_job(dense: tb.Job, dozen: tb.Recipe) -> None:
    other = tb.job(tb.initialize, "convnet", "digits", seed=1)
    made = [
        tb.job(tb.train, dense, "digits", dozen),
        tb.job(tb.train, other, "digits", dozen),
        tb.job(tb.train, dense, "mnist", dozen),
        tb.job(tb.train, dense, "digits", dozen, noise=1),
        tb.job(tb.train, dense, "digits", dozen, noise_round=0),
    ]
    assert len({entry.name for entry in made}) == 5


def test_a_parameter_added_later_changes_no_name() -> None:
    @tb.declare("margin")
    def margin(run: tb.Run, *, threshold: float = 0.5) -> float:
        return threshold

    run = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", tb.Recipe())
    before = [tb.job(margin, run).name, tb.job(margin, run, threshold=0.7).name]
    del declarations._declarations["margin"]

    @tb.declare("margin")
    def margin_of_today(run: tb.Run, *, threshold: float = 0.5, smooth: bool = False, k: int = 3) -> float:
        return threshold

    assert [tb.job(margin_of_today, run).name, tb.job(margin_of_today, run, threshold=0.7).name] == before
    assert tb.job(margin_of_today, run, smooth=True).name not in before


def test_a_field_added_to_a_dataclass_later_changes_no_name() -> None:
    @dataclass
    class Grid:
        points: int
        span: float = 1.0

    @dataclass
    class GridOfToday:
        points: int
        span: float = 1.0
        shifts: list[float] = field(default_factory=list)

    def measure(grid: object) -> float:
        return 0.0

    tb.declare("measure")(measure)
    measure.__annotations__["grid"] = Grid
    assert tb.job(measure, Grid(5)).name == tb.job(measure, GridOfToday(5)).name
    assert tb.job(measure, Grid(5)).name == sha("measure", grid={"points": 5})
    assert tb.job(measure, GridOfToday(5, shifts=[1.5])).name != tb.job(measure, Grid(5)).name


def test_another_version_is_another_job() -> None:
    def one() -> int:
        return 1

    names = set()
    for version in (1, 2):
        tb.declare("one", version=version)(one)
        names.add(tb.job(one).name)
    assert len(names) == 2


def test_device_and_watch_are_the_labs_and_never_enter_a_job(dense: tb.Job, dozen: tb.Recipe) -> None:
    assert set(tb.job(tb.train, dense, "digits", dozen).arguments) == {"ticket", "data", "recipe"}
    for key in ("device", "watch"):
        with pytest.raises(JobError, match=f"train: got an unexpected keyword argument '{key}'"):
            tb.job(tb.train, dense, "digits", dozen, **{key: "cpu"})


def test_a_parent_counts_by_its_name_alone(dense: tb.Job, dozen: tb.Recipe) -> None:
    permuted = tb.job(tb.permute, tb.job(tb.train, dense, "digits", dozen))
    described = tb.job(tb.train, permuted, "digits", dozen).description()
    before = name_of(described)
    assert described["arguments"]["ticket"].pop("call")["function"] == "permute"
    assert name_of(described) == before


def test_a_training_is_called_as_before_its_ticket_was_a_result(dense: tb.Job, dozen: tb.Recipe) -> None:
    run = tb.job(tb.train, dense, "digits", dozen)
    pruned = tb.job(tb.prune, run, fraction=0.5)
    new = tb.job(tb.train, pruned, "digits", dozen)
    assert new.description()["arguments"]["ticket"] == {"job": pruned.name}
    call = {"function": "prune", "version": 1, "arguments": {"run": {"job": run.name}, "fraction": 0.5}}
    old = {**new.description()}
    old["arguments"] = {**old["arguments"], "ticket": {"job": pruned.name, "call": call}}
    assert name_of(old) == new.name
    for description in (old, new.description()):
        assert describes(description, new.name)
    assert (parents(old), described_in_full(old)) == ({run.name}, {pruned.name})
    assert (parents(new.description()), described_in_full(new.description())) == ({pruned.name}, set())


# What a job takes


def test_an_undeclared_function_is_refused_with_the_remedy() -> None:
    for function in (lambda run: 1.0, sha):
        with pytest.raises(JobError, match=r"is not declared and cannot be a job; put @tombola\.declare\("):
            tb.job(function)


def test_an_undeclared_network_is_refused_with_the_remedy() -> None:
    def mine(classes: int) -> torch.nn.Module:
        return torch.nn.Linear(4, classes)

    for factory, label in ((mine, "mine"), (lambda: mine(10), "<lambda>")):
        with pytest.raises(JobError, match=r"cannot enter a job; put @tombola.declare_network") as refused:
            tb.job(tb.initialize, factory, "digits")
        assert label in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_declared_network_enters_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks._networks, "_declared", dict(networks._networks._declared))

    @tb.declare_network("my-net")
    def mine(classes: int) -> torch.nn.Module:
        return torch.nn.Linear(4, classes)

    made = tb.job(tb.initialize, mine, "digits")
    assert made.arguments["network"] == "my-net"
    assert made.name == tb.job(tb.initialize, "my-net", "digits").name


def test_a_built_network_is_refused() -> None:
    with pytest.raises(
        NetworkError, match=r"network is a built Linear, which no job can name .*declare_network"
    ):
        tb.job(tb.initialize, torch.nn.Linear(2, 2), "digits")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2), "a Tensor, which cannot be written down; give numbers, text, lists"),
        (np.zeros(2), "a ndarray, which cannot be written down"),
        ({1, 2}, "a set, which cannot be written down"),
        ({"a": 1}, "a dict, which cannot be written down"),
        (object(), "a object, which cannot be written down"),
        (float("nan"), "noise is nan; a job takes finite numbers only"),
        (float("-inf"), "noise is -inf; a job takes finite numbers only"),
    ],
)
def test_an_argument_that_cannot_be_written_down_is_refused(value: object, words: str, dense: tb.Job) -> None:
    with pytest.raises(JobError, match=f"^train: noise is {words}|^train: {words}"):
        tb.job(tb.train, dense, "digits", tb.Recipe(), noise=value)


def test_a_mapping_is_the_same_job_as_its_pairs_by_name(dense: tb.Job) -> None:
    def pruned(rates: object) -> tb.Job:
        return tb.job(tb.prune, dense, fraction=0.5, scope="layerwise", rates=rates)

    pairs = [("groups.0", 1.0), ("linear", 0.5)]
    assert pruned({"linear": 0.5, "groups.0": 1}).name == pruned(pairs).name
    assert pruned({}).name == pruned([]).name
    assert pruned(pairs[::-1]).name != pruned(pairs).name  # names of finished jobs never move
    with pytest.raises(JobError, match="rates is a dict, which cannot be written down"):
        pruned({1: 0.5})


def test_jobs_within_lists_are_parents_and_count_by_name(dense: tb.Job) -> None:
    @tb.declare("average")
    def average(values: list) -> float:
        return 0.0

    once, twice = tb.job(average, [dense]), tb.job(average, (1, [dense, dense]))
    assert once.parents == (dense,)
    assert twice.parents == (dense, dense)
    assert twice.needs == (dense,)
    assert twice.description()["arguments"] == {"values": [1, [{"job": dense.name}, {"job": dense.name}]]}
    text = '{"arguments":{"values":[{"job":"' + dense.name + '"}]},"function":"average","version":1}'
    assert once.name == hashlib.sha256(text.encode()).hexdigest()


def test_a_function_over_a_list_of_runs_gets_their_results(lab: tb.Lab, quick: tb.Recipe) -> None:
    @tb.declare("mean accuracy")
    def mean_accuracy(runs: list[tb.Run]) -> float:
        return sum(run.accuracy for run in runs) / len(runs)

    start = tb.job(tb.initialize, "convnet", "digits")
    runs = [tb.job(tb.train, start, "digits", quick, noise=noise) for noise in (0, 1)]
    expected = [lab.result(run).accuracy for run in runs]
    assert lab.result(tb.job(mean_accuracy, runs)) == sum(expected) / 2


def test_a_permuted_ticket_within_a_list_is_described_in_full(dense: tb.Job) -> None:
    @tb.declare("count")
    def count(tickets: list[tb.Ticket]) -> int:
        return len(tickets)

    permuted = tb.job(tb.permute, tb.job(tb.prune, tb.job(tb.train, dense, "digits", tb.Recipe())))
    made = tb.job(count, [permuted])
    assert made.description()["arguments"]["tickets"][0]["call"] == permuted.description()
    assert [needed.declaration.name for needed in made.needs] == ["prune"]


def test_jobs_and_data_within_a_dataclass_are_refused(
    dense: tb.Job, digits: tb.Data, start: tb.Ticket
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Wrapped:
        inside: object

    @tb.declare("average")
    def average(value: Wrapped) -> float:
        return 0.0

    for value, kind in ((dense, "Job"), (digits, "Data"), (start, "Ticket")):
        with pytest.raises(
            JobError, match=rf"is a {kind} within another value; give it as an argument of its own"
        ):
            tb.job(average, Wrapped(value))


def test_a_name_given_for_optional_data_is_data() -> None:
    @tb.declare("size")
    def size(data: tb.Data | None = None) -> int:
        return 0

    assert tb.job(size, "digits").arguments == {"data": {"data": "digits"}}


def test_two_data_sets_of_one_name_are_refused(dense: tb.Job) -> None:
    labels = torch.arange(10)
    sets = [
        tb.data_from_tensors((images, labels), (images, labels), name="mine")
        for images in (
            torch.zeros(10, 1, 8, 8, dtype=torch.uint8),
            torch.ones(10, 1, 8, 8, dtype=torch.uint8),
        )
    ]
    jobs = [tb.job(tb.train, dense, data, tb.Recipe()) for data in sets]
    with pytest.raises(JobError, match="two different data sets are called 'mine'; rename one of them"):
        data_behind(jobs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "initialize: missing a required argument: 'network'"),
        (("convnet", "digits", 3), "initialize: too many positional arguments"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(JobError, match=words):
        tb.job(tb.initialize, *arguments)


def test_a_function_whose_parameters_have_no_names_is_refused() -> None:
    def many(*runs: tb.Run) -> float:
        return 0.0

    def options(**settings: float) -> float:
        return 0.0

    def positional(value: float, /) -> float:
        return value

    for function, key in ((many, "runs"), (options, "settings"), (positional, "value")):
        tb.declare(function.__name__)(function)
        with pytest.raises(JobError, match=f"cannot be a job: {key} .*write each parameter out"):
            tb.job(function)


def test_type_hints_that_cannot_be_read_are_told() -> None:
    def measure(run: "Nowhere") -> float:  # noqa: F821
        return 0.0

    tb.declare("measure")(measure)
    with pytest.raises(JobError, match=r"type hints cannot be read .*'Nowhere' is not defined.*; import"):
        tb.job(measure, 1)


# Data and values


def test_data_may_be_a_name_a_folder_or_an_object(tmp_path: Path, digits: tb.Data, colour: tb.Data) -> None:
    folder = tmp_path / "flowers"
    folder.mkdir()
    for given, name, source in (
        ("digits", "digits", "digits"),
        (digits, "digits", "digits"),
        ("cifar10", "cifar10", "cifar10"),
        ("owner/birds", "owner--birds", "owner/birds"),
        (folder, "flowers", str(folder)),
        (str(folder), "flowers", str(folder)),
        (colour, "colour", colour),
    ):
        made = tb.job(tb.initialize, "convnet", given)
        assert made.arguments["data"] == {"data": name}
        assert data_behind([made]) == {name: source}
        assert made.name == sha("initialize", network="convnet", data={"data": name})


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        tb.job(tb.initialize, "convnet", tmp_path / "nowhere")


def test_tickets_and_runs_of_the_caller_enter_by_their_fingerprint(start: tb.Ticket, run: tb.Run) -> None:
    trained = tb.job(tb.train, start, "digits", tb.Recipe())
    assert trained.arguments["ticket"] == {"value": start.fingerprint, "type": "Ticket"}
    line = tb.job(tb.barrier, trained, run, "digits")
    assert values_behind([line]) == {start.fingerprint: start, run.fingerprint: run}


# Graphs


def test_a_chain_of_three_hundred_rounds_is_no_deeper_than_the_stack(dozen: tb.Recipe) -> None:
    chain = imp_jobs("convnet", "digits", dozen, rounds=300, fraction=0.01)
    ordered = list(all_needed(chain[-1:]))
    # One initialisation and 301 trainings, each after its ticket.
    assert len(ordered) == 1 + 301 + 300
    assert ordered[::2] == [tb.job(tb.initialize, "convnet", "digits").name, *(
        run.parents[0].name for run in chain[1:]
    )]  # fmt: skip
    assert ordered[1::2] == [run.name for run in chain]
    assert data_behind(chain[-1:]) == {"digits": "digits"}


def test_every_job_comes_after_those_that_it_needs_and_shared_parents_once(dozen: tb.Recipe) -> None:
    chains = [
        imp_jobs("convnet", "digits", dozen, rounds=2, scope=scope) for scope in ("global", "layerwise")
    ]
    lines = [tb.job(tb.barrier, *pair, "digits") for pair in zip(*chains, strict=True)]
    ordered = all_needed([*reversed(lines), *chains[1]])
    # Initialisation and dense training are shared: 1 + 1 + 2 * 2 trainings and tickets, and 3 barriers.
    assert len(ordered) == 13
    place = {name: index for index, name in enumerate(ordered)}
    for name, made in ordered.items():
        assert all(place[need.name] < place[name] for need in made.needs)


def test_jobs_that_are_not_stored_are_no_part_of_the_graph(dense: tb.Job, dozen: tb.Recipe) -> None:
    run = tb.job(tb.train, dense, "digits", dozen)
    pruned = tb.job(tb.prune, run)
    permuted = tb.job(tb.permute, pruned, seed=1)
    assert pruned.stored
    assert not permuted.stored
    assert [need.name for need in permuted.needs] == [pruned.name]
    assert list(all_needed([permuted])) == [dense.name, run.name, pruned.name]
    trained = tb.job(tb.train, permuted, "digits", dozen)
    assert [parent.name for parent in trained.parents] == [permuted.name]
    assert [need.name for need in trained.needs] == [pruned.name]


# Reading a description


def test_a_job_of_another_version_is_refused(dense: tb.Job) -> None:
    description = {**dense.description(), "version": 7}
    with pytest.raises(JobError, match="asks for version 7 of initialize; here is version 2"):
        described_function(description)


def test_a_description_with_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(JobError, match="initialize has no parameter 'colour'; the job is of another version"):
        call(declarations.declaration("initialize"), {"colour": 1}, {})


@dataclass(frozen=True)
class Window:
    low: float
    high: float = 1.0
    names: tuple[str, ...] = ()


def test_arguments_come_back_as_the_types_that_are_declared() -> None:
    seen: list[object] = []

    @tb.declare("look")
    def look(
        window: Window,
        pair: tuple[float, int],
        path: Path,
        layers: tuple[str, ...] = (),
        most: float | None = None,
        device: str = "cpu",
    ) -> int:
        seen.extend([window, pair, path, layers, most, device])
        return 0

    made = tb.job(look, Window(1, names=("a", "b")), (1, 2), "some/where", ["x"], 3)
    text = json.dumps(made.description())
    described = json.loads(text)
    call(described_function(described), described["arguments"], {"device": "cuda", "watch": None})
    assert seen == [Window(1.0, 1.0, ("a", "b")), (1.0, 2), Path("some/where"), ("x",), 3.0, "cuda"]
    assert '"pair": [1.0, 2]' in text
    assert '"most": 3.0' in text


def test_a_function_that_does_not_say_what_it_returns_is_refused() -> None:
    @tb.declare("silent")
    def silent(run: tb.Run):
        return 1

    with pytest.raises(JobError, match="it does not say what it returns; add a return type"):
        tb.job(silent, tb.job(tb.initialize, "convnet", "digits"))


def test_a_dataclass_that_would_read_as_data_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Odd:
        data: str = ""

    @tb.declare("odd")
    def odd(value: Odd) -> int:
        return 1

    with pytest.raises(JobError, match=r"odd: value would read as something else, .* \(data\); rename them"):
        tb.job(odd, Odd("digits"))


def test_a_dataclass_with_a_job_among_its_fields_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Shift:
        job: str = ""
        hours: int = 0

    @tb.declare("shifted")
    def shifted(shift: Shift) -> int:
        return shift.hours

    with pytest.raises(JobError, match=r"shifted: shift would read as something else, .* \(job, hours\)"):
        tb.job(shifted, Shift("nights", 8))
    assert tb.job(shifted, Shift(hours=8)).arguments == {"shift": {"hours": 8}}


def test_a_call_is_refused_when_it_would_be_too_deep_to_be_read_back(lab: tb.Lab) -> None:
    @tb.declare("one-more", stored=False)
    def one_more(number: int) -> int:
        return number + 1

    @tb.declare("kept-number")
    def kept_number(number: int) -> int:
        return number

    def kept_after(calls: int) -> tb.Job:
        made = tb.job(one_more, 0)
        for _ in range(calls):
            made = tb.job(one_more, made)
        return tb.job(kept_number, made)

    with pytest.raises(
        JobError, match=r"calls within calls, described 20\d levels deep; a store reads 200: "
    ):
        kept_after(100)
    deepest = kept_after(60)
    lab.run(deepest).raise_failures()
    assert lab.result(deepest) > 60
    assert load_result(lab.store, deepest.name) == lab.result(deepest)
