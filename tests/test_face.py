"""The public face: names for data, wrong types in one line, numpy's integers, threads."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import tombola as tb
from tombola.errors import ArgumentError, RecipeError
from tombola.face import _check_of, public, set_num_threads
from tombola.lab.job import job
from tombola.measures.connectivity import barrier

# Hints whose arguments the functions read themselves, in their own words.
READ_BY_FUNCTIONS = {
    *("Any", "Callable[..., object]", "Callable[..., Cost] | None", "Draw | None", "Indices"),
    *(
        "Mapping[int, Unchanged] | None",
        "Mapping[str, str] | None",
        "Mask | None",
        "Pair | MapDataset | None",
    ),
    *(
        "Rates",
        "Right | None",
        "Unpack[PruningOptions]",
        "Unpack[RankingOptions]",
        "Watch | None",
    ),
    *("Weights", "Weights | None", "str | Factory", "str | Factory | Network | None", "str | Scheme | None"),
    *("str | Score", "str | os.PathLike[str] | Data | Pair | MapDataset | Mapping[str, Any]"),
    *("tuple[Array, Array]", "tuple[Sequence[float], Sequence[float]] | None"),
}
ONE_EPOCH = tb.Recipe(epochs=1, batch_size=300)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    set_num_threads(1)


def test_a_name_stands_for_its_data_in_every_public_function(
    start: tb.Ticket, digits: tb.Data, run: tb.Run
) -> None:
    assert tb.initialize("convnet", "digits").fingerprint == start.fingerprint
    trained = tb.train(start, "digits", ONE_EPOCH)
    assert trained.fingerprint == tb.train(start, digits, ONE_EPOCH).fingerprint
    assert next(tb.imp(start, "digits", ONE_EPOCH, rounds=1)).fingerprint == trained.fingerprint
    assert tb.barrier(run, trained, "digits", points=3) == tb.barrier(run, trained, digits, points=3)
    assert tb.subset("digits", shots=2).fingerprint == tb.subset(digits, shots=2).fingerprint
    takes_data = {
        name
        for name in tb.__all__
        if inspect.isfunction(value := getattr(tb, name)) and "data" in inspect.signature(value).parameters
    }
    bare = {name for name in takes_data if not hasattr(getattr(tb, name), "__wrapped__")}
    assert {"train", "imp", "barrier", "probe", "prune"} <= takes_data
    assert not bare
    hints = {inspect.signature(getattr(tb, name)).parameters["data"].annotation for name in takes_data}
    assert hints == {"DataLike", "DataLike | None"}


def test_a_folder_stands_for_its_data(tmp_path: Path) -> None:
    with pytest.raises(tb.TombolaError, match="empty"):
        tb.initialize("convnet", tmp_path / "empty")


def test_a_named_set_is_the_same_job_loaded_or_not(digits: tb.Data, start: tb.Ticket) -> None:
    named, loaded = (tb.job(tb.train, start, data, ONE_EPOCH) for data in ("digits", digits))
    assert named.name == loaded.name
    assert named.declaration.function is inspect.unwrap(tb.train)
    assert tb.job(barrier, named, loaded, "digits").name == tb.job(tb.barrier, named, loaded, digits).name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t, r: tb.train(t, 3, ONE_EPOCH),
            "train: data is 3; it takes a Data, a name such",
        ),
        (lambda t, r: tb.train(r, "digits", ONE_EPOCH), "train: ticket is a Run; it takes a Ticket, such as"),
        (lambda t, r: tb.train(t, "digits", {"epochs": 1}), "train: recipe is a dict; it takes a Recipe"),
        (
            lambda t, r: tb.instability([r, t], "digits"),
            r": runs\[1\] is a Ticket; it takes a Run",
        ),
        (lambda t, r: tb.instability(r, "digits"), "instability: runs is a Run; it takes a list"),
        (lambda t, r: tb.prune(np.ones(3)), "prune: run is a ndarray; it takes a Run or a Ticket"),
        (
            lambda t, r: tb.train(tb.job(tb.initialize, "convnet", "digits"), "digits", ONE_EPOCH),
            "train: ticket is a Job; it takes a Ticket. A job is not computed yet",
        ),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(
    call: Callable[[tb.Ticket, tb.Run], object], message: str, start: tb.Ticket, run: tb.Run
) -> None:
    with pytest.raises(ArgumentError, match=message) as raised:
        call(start, run)
    assert isinstance(raised.value, TypeError)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: tb.imp(t, "digits", ONE_EPOCH, rounds=2.5), "imp: rounds is 2.5; it takes a whole number"),
        (lambda t: tb.pretrain(t, "digits", ONE_EPOCH, epochs=1.5), "pretrain: epochs is 1.5; it takes"),
        (lambda t: tb.initialize("convnet", "digits", seed="1"), "seed is '1'; it takes a whole number"),
        (lambda t: tb.noise_copies(t, "digits", ONE_EPOCH, noises=[1, None]), r"noises\[1\] is None"),
        (lambda t: tb.prune(t, fraction="0.5"), "prune: fraction is '0.5'; it takes a number"),
        (
            lambda t: tb.one_shot(t, "digits", ONE_EPOCH, sparsity=None),
            "one_shot: sparsity is None; it takes a number",
        ),
        (
            lambda t: tb.prune(t, fraction=np.str_("half")),
            r"fraction is np.str_\('half'\); it takes a number",
        ),
        (lambda t: tb.prune(t, fraction=np.array("half")), "prune: fraction is a ndarray; it takes a number"),
        (lambda t: tb.prune(t, fraction=torch.tensor(1j)), "prune: fraction is a Tensor; it takes a number"),
        (lambda t: tb.prune(t, fraction=torch.tensor(True)), "fraction is a Tensor; it takes a number"),
        (lambda t: tb.prune(t, invert=1), "prune: invert is 1; it takes True or False"),
        (lambda t: tb.prune(t, scope=3), "prune: scope is 3; it takes a text"),
        (
            lambda t: tb.prune(t, exclude="linear"),
            r"exclude is 'linear'; it takes a list, such as \['linear'\]",
        ),
        (
            lambda t: tb.train(t, "digits", ONE_EPOCH, device=0.5),
            "device is 0.5; it takes a text, a torch.device or None",
        ),
        (
            lambda t: tb.untrained(t, "digits", recalibrate=np.array([True, False])),
            "untrained: recalibrate is a ndarray; it must be False, True or 'beside'$",
        ),
        (lambda t: tb.untrained(t, "digits", recalibrate=1), "recalibrate is 1; it must be False, True or"),
        (lambda t: tb.untrained(t, "digits", recalibrate="near"), "recalibrate is 'near'; it must be False"),
        (lambda t: tb.fit_images("digits", size=8, channels=1), "fit_images: size is 8; it takes a list"),
    ],
)
def test_a_setting_of_another_kind_is_refused(
    call: Callable[[tb.Ticket], object], message: str, start: tb.Ticket
) -> None:
    with pytest.raises(RecipeError, match=message):
        call(start)


@pytest.mark.parametrize(
    ("describe", "message"),
    [
        (lambda t: tb.job(tb.train, t, "digits", ONE_EPOCH, noise="1"), "train: noise is '1'; it takes"),
        (
            lambda t: tb.job(tb.train, t, "digits", "lenet300"),
            "train: recipe is 'lenet300'; it takes a Recipe",
        ),
        (lambda t: tb.job(tb.prune, tb.job(tb.initialize, "convnet", "digits"), invert=1), "invert is 1"),
        (lambda t: tb.job(tb.initialize, "convnet", 3), "initialize: data is 3; it takes a Data, a name"),
        (
            lambda t: tb.job(tb.untrained, t, "digits", recalibrate=1),
            "untrained: recalibrate is 1; it must be False, True or 'beside'",
        ),
    ],
)
def test_a_job_is_refused_where_its_call_would_be(
    describe: Callable[[tb.Ticket], object], message: str, start: tb.Ticket
) -> None:
    with pytest.raises(tb.TombolaError, match=message):
        describe(start)


def test_a_job_of_the_face_is_that_of_the_function_and_loads_nothing(start: tb.Ticket) -> None:
    given: list[tuple[Callable[..., object], tuple[object, ...], dict[str, object]]] = [
        (tb.initialize, ("convnet", "no-such/set"), {"seed": np.int64(3)}),
        (tb.prune, (start,), {"fraction": np.float32(0.25), "scope": "erk", "exclude": ("linear",)}),
        (tb.prune, (start,), {"fraction": 1, "invert": np.True_}),
        (tb.untrained, (job(tb.initialize, "convnet", "digits"), "digits"), {"recalibrate": "beside"}),
        (tb.instability, ([job(tb.train, start, "digits", ONE_EPOCH)] * 2, "digits"), {"points": 5}),
    ]
    for function, arguments, options in given:
        bare = job(inspect.unwrap(function), *arguments, **options)
        assert tb.job(function, *arguments, **options).name == bare.name


def test_every_argument_is_checked_but_what_a_function_reads_itself() -> None:
    functions = {name: value for name in tb.__all__ if inspect.isfunction(value := getattr(tb, name))}
    unchecked = set()
    for function in map(inspect.unwrap, functions.values()):
        for parameter in inspect.signature(function).parameters.values():
            check = _check_of(parameter, function.__globals__)
            if check is None:
                unchecked.add(str(parameter.annotation))
                continue
            with pytest.raises(tb.TombolaError, match=r"place is an object; it (takes|must be)"):
                check("place", object())
    assert unchecked == READ_BY_FUNCTIONS


def test_a_call_that_does_not_fit_fails_as_in_python(start: tb.Ticket) -> None:
    with pytest.raises(TypeError, match=r"train\(\) missing 2 required positional arguments"):
        tb.train(start)  # type: ignore[call-arg]


def test_integers_of_numpy_and_torch_are_integers(start: tb.Ticket, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=np.int64(1), batch_size=np.int32(300), lr=np.float32(0.5), milestones=())
    run = tb.train(start, digits, recipe, noise=np.uint8(4))
    assert type(run.noise) is type(recipe.epochs) is type(recipe.batch_size) is int
    assert (
        run.fingerprint
        == tb.train(start, digits, tb.Recipe(epochs=1, batch_size=300, lr=0.5), noise=4).fingerprint
    )
    copies = tb.noise_copies(start, digits, ONE_EPOCH, noises=np.array([4, 7]))
    assert [copy.noise for copy in copies] == [4, 7]
    seeds = (tb.initialize("convnet", digits, seed=seed) for seed in (torch.tensor(2), 2))
    assert len({ticket.fingerprint for ticket in seeds}) == 1


def test_truth_values_of_numpy_and_torch_are_pythons(start: tb.Ticket, digits: tb.Data) -> None:
    readings = (True, np.True_, np.array(True), torch.tensor(True))
    assert len({tb.untrained(start, digits, recalibrate=reading).accuracy for reading in readings}) == 1


@pytest.mark.usefixtures("_threads")
def test_a_call_computes_with_one_thread_and_leaves_pytorchs_setting() -> None:
    torch.set_num_threads(2)
    seen = public("seen", _threads_now)
    assert (seen(), torch.get_num_threads()) == (1, 2)
    assert seen(device="cuda") == 2
    set_num_threads(3)
    assert (seen(), torch.get_num_threads()) == (3, 2)
    counted = public("counted", _threads_now_and_then)
    assert [(count, torch.get_num_threads()) for count in counted()] == [(3, 2), (3, 2)]
    with pytest.raises(tb.TombolaError, match="threads is 0; it must be at least 1"):
        set_num_threads(0)


def _threads_now(*, device: str = "cpu") -> int:
    return torch.get_num_threads()


def _threads_now_and_then(*, device: str = "cpu") -> Iterator[int]:
    return (torch.get_num_threads() for _ in range(2))


def test_public_functions_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(tb.train)) is tb.train
    assert pickle.loads(pickle.dumps(tb.job)) is tb.job
