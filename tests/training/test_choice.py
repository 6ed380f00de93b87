import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tombola as tb
from tombola.errors import DeviceError
from tombola.training import choice
from tombola.training.choice import engine_for
from tombola.training.cuda import capture
from tombola.training.engines import EagerEngine

GPU = torch.device("cuda:0")


class Made(SimpleNamespace):
    """Stands for an engine on a GPU that there need not be."""

    def set_numbers(self, recipe: tb.Recipe) -> bool:
        return bool(self.takes_numbers)


class Eager:
    """Stands for an eager engine, all of which are one."""

    def __new__(cls, *_: object, **options: object) -> Any:
        return "eager"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Made]]:
    capture.knows_this_torch.cache_clear()
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    engines: list[Made] = []

    def build(*_: object) -> Made:
        engines.append(Made(takes_numbers=True))
        return engines[-1]

    monkeypatch.setattr(choice, "_captured", build)
    monkeypatch.setattr(capture, "_idle", [])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 80 * 2**30))
    yield engines
    capture.knows_this_torch.cache_clear()


def use(
    start: tb.Ticket, data: tb.Data, recipe: tb.Recipe, precision: str = "bfloat16", mode: Any = "default"
) -> Any:
    with engine_for(start.network, data, recipe, GPU, precision, mode) as engine:
        return engine


def test_on_a_cpu_every_training_has_an_eager_engine_of_its_own(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    engines = []
    for _ in range(2):
        with engine_for(start.network, digits, recipe, torch.device("cpu"), "float32", "default") as engine:
            assert isinstance(engine, EagerEngine)
            engines.append(engine)
    assert engines[0] is not engines[1]


@pytest.mark.parametrize(("version", "known"), [("2.9.1", True), ("2.13.0+cpu", True), ("2.14.0", False)])
def test_a_pytorch_that_is_not_known_takes_plain_steps_and_it_is_said_once(
    made: list[Made], start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch,
    version: str, known: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(choice, "EagerEngine", Eager)
    capture.knows_this_torch.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            used = [use(start, digits, tb.Recipe(batch_size=100)) for _ in range(2)]
    finally:
        capture.knows_this_torch.cache_clear()
    assert used == ([made[0]] * 2 if known else ["eager"] * 2)
    assert [str(warning.message).partition(":")[0] for warning in said] == (
        [] if known else ["GPUs take plain steps, which are slower"]
    )


def test_an_engine_is_kept_for_trainings_that_differ_in_numbers_only(
    made: list[Made], start: tb.Ticket, digits: tb.Data
) -> None:
    first = use(start, digits, tb.Recipe(batch_size=100, lr=0.1))
    assert use(start, digits, tb.Recipe(batch_size=100, lr=0.3, momentum=0.0, epochs=7)) is first
    assert len(made) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": tb.Recipe(batch_size=50)},
        {"recipe": tb.Recipe(batch_size=100, augmentation=tb.Augmentation(pad=2))},
        {"recipe": tb.Recipe(batch_size=100, augmentation=tb.Augmentation(fill="mean"))},
        {"precision": "float32"},
        {"mode": "autotuned"},
    ],
)
def test_another_batch_size_padding_precision_or_mode_needs_another_engine(
    made: list[Made], start: tb.Ticket, digits: tb.Data, other: dict[str, Any]
) -> None:
    recipe = tb.Recipe(batch_size=100)
    first = use(start, digits, recipe)
    assert use(**{"start": start, "data": digits, "recipe": recipe} | other) is not first
    assert use(start, digits, recipe) is first


def test_other_data_need_another_engine(made: list[Made], start: tb.Ticket, digits: tb.Data) -> None:
    again = tb.data_from_tensors(
        (digits.train.images, digits.train.labels), (digits.test.images, digits.test.labels), name="again"
    )
    recipe = tb.Recipe(batch_size=100)
    assert use(start, digits, recipe) is not use(start, again, recipe)


def test_two_trainings_at_once_never_share_an_engine(
    made: list[Made], start: tb.Ticket, digits: tb.Data
) -> None:
    recipe = tb.Recipe(batch_size=100)
    with engine_for(start.network, digits, recipe, GPU, "bfloat16", "default") as first:
        assert use(start, digits, recipe) is not first


def test_an_engine_that_cannot_take_new_numbers_is_replaced(
    made: list[Made], start: tb.Ticket, digits: tb.Data
) -> None:
    recipe = tb.Recipe(batch_size=100)
    first = use(start, digits, recipe)
    made[0].takes_numbers = False
    assert use(start, digits, recipe) is not first


def test_an_engine_is_not_used_again_after_an_error(
    made: list[Made], start: tb.Ticket, digits: tb.Data
) -> None:
    recipe = tb.Recipe(batch_size=100)
    with (
        pytest.raises(ZeroDivisionError),
        engine_for(start.network, digits, recipe, GPU, "bfloat16", "default") as broken,
    ):
        raise ZeroDivisionError
    assert use(start, digits, recipe) is not broken


def test_a_gpu_that_is_full_is_told_in_one_line_and_idle_engines_make_room(
    made: list[Made], start: tb.Ticket, digits: tb.Data
) -> None:
    use(start, digits, tb.Recipe(batch_size=50))
    with (
        pytest.raises(DeviceError) as caught,
        engine_for(start.network, digits, tb.Recipe(batch_size=100), GPU, "bfloat16", "default"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    assert str(caught.value) == (
        "CUDA out of memory on cuda:0 (80 GiB, 3.0 free now): convnet at batch size 100 does not fit beside "
        "what else runs there; use fewer slots or a smaller batch"
    )
    assert capture._idle == []
    assert len(made) == 2


def test_an_engine_is_kept_only_when_what_was_launched_is_done(
    made: list[Made], start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    stream = SimpleNamespace(synchronize=lambda: waited.append(len(capture._idle)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    use(start, digits, recipe)
    assert (waited, len(capture._idle)) == ([0], 1)


def test_only_so_many_engines_are_kept(made: list[Made], start: tb.Ticket, digits: tb.Data) -> None:
    for size in range(100, 120):
        use(start, digits, tb.Recipe(batch_size=size))
    assert len(capture._idle) == 8
    use(start, digits, tb.Recipe(batch_size=119))
    assert len(made) == 20
    use(start, digits, tb.Recipe(batch_size=100))
    assert len(made) == 21
