import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tombola as tb
from tombola.errors import TicketError
from tombola.training.logged_values import LoggedValues
from tombola.training.run import NOT_MEASURED, Epoch, ForgettingRecord, History

Same = Callable[..., bool]
Damaged = Callable[[st.DataObject, bytes], bytes]


def made_up(
    start: tb.Ticket, accuracies: list[float], train_loss: float = 1.0, test_loss: float = 1.0
) -> tb.Run:
    rows = [Epoch(0, math.nan, math.nan, math.nan, 2.3, accuracies[0], 0, 0.0)]
    rows += [Epoch(i, 0.1, train_loss, 50.0, test_loss, accuracy, 0, 0.0) for i, accuracy in enumerate(
        accuracies[1:], 1
    )]  # fmt: skip
    return tb.Run(start, start.start, History(rows), ForgettingRecord.empty(3), 0, "float32", "cpu")


def with_classes(start: tb.Ticket, classes: int) -> tb.Ticket:
    return replace(start, network=replace(start.network, classes=classes))


@pytest.fixture(scope="module")
def file(chain: list[tb.Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run.safetensors"
    chain[1].save(path)
    return path


def test_accuracy_is_the_last_and_best_accuracy_the_highest_after_any_epoch(start: tb.Ticket) -> None:
    run = made_up(start, [99.0, 40.0, 70.0, 60.0])
    assert (run.accuracy, run.best_accuracy) == (60.0, 70.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["train_loss", "test_loss"])
def test_a_run_with_an_infinite_or_undefined_last_loss_diverged_and_failed(
    start: tb.Ticket, loss: float, which: str
) -> None:
    run = made_up(start, [10.0, 90.0], **{which: loss})
    assert run.diverged
    assert run.failed


# Below twice chance; with few classes, below a quarter of the way from chance to perfect.
@pytest.mark.parametrize(
    ("classes", "limit"), [(200, 1.0), (100, 2.0), (10, 20.0), (5, 40.0), (4, 43.75), (3, 50.0), (2, 62.5)]
)
def test_a_run_that_stays_near_chance_failed(start: tb.Ticket, classes: int, limit: float) -> None:
    for accuracy, failed in ((limit - 0.01, True), (limit + 0.01, False), (100.0, False)):
        run = made_up(with_classes(start, classes), [10.0, accuracy])
        assert run.failed == failed
        assert not run.diverged


def test_a_summary_is_plain_values(chain: list[tb.Run]) -> None:
    summary = chain[2].summary()
    assert summary["sparsity"] == 0.75
    assert summary["round"] == 2
    assert summary["accuracy"] == chain[2].history[-1].test_accuracy
    assert summary["failed"] is summary["diverged"] is False
    assert summary["nonfinite_at_pruning"] == 0


@pytest.mark.parametrize("with_start", [False, True])
def test_a_saved_run_comes_back(
    chain: list[tb.Run], tmp_path: Path, same_run: Same, same_bits: Same, with_start: bool
) -> None:
    chain[1].save(tmp_path / "run", with_start=with_start)
    loaded = tb.Run.load(tmp_path / "run")
    assert same_run(loaded, chain[1])
    assert same_bits(loaded.ticket.weights(), chain[1].ticket.weights())
    assert loaded.ticket.complete == with_start
    assert loaded.history.column("seconds") == chain[1].history.column("seconds")
    assert (loaded.noise, loaded.precision, loaded.device) == (3, "float32", "cpu")


def test_numbers_of_the_causes_of_noise_come_back_and_are_left_out_where_they_are_the_noise(
    run: tb.Run, tmp_path: Path
) -> None:
    assert not {"order_noise", "augmentation_noise"} & run.pack()[0].keys()
    split = replace(run, order_noise=7)
    split.save(tmp_path / "run")
    loaded = tb.Run.load(tmp_path / "run")
    assert (loaded.noise, loaded.order_noise, loaded.augmentation_noise) == (run.noise, 7, None)
    assert loaded.fingerprint == split.fingerprint != run.fingerprint
    assert f"noise {run.noise}, order noise 7, trained" in repr(loaded)


def test_a_loaded_run_goes_on_in_the_chain_like_the_saved_one(
    chain: list[tb.Run], file: Path, digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    ticket = tb.prune(tb.Run.load(file), fraction=0.5)
    assert same_run(tb.train(ticket, digits, recipe, noise=3), chain[2])


def test_a_run_without_its_dense_start_cannot_be_saved_with_it(file: Path) -> None:
    with pytest.raises(TicketError, match="does not carry its dense start"):
        tb.Run.load(file).save(file.with_name("again"), with_start=True)


def test_a_diverged_run_comes_back_too(
    digits: tb.Data, start: tb.Ticket, tmp_path: Path, same_run: Same
) -> None:
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=100, lr=1e6))
    run.save(tmp_path / "run")
    assert run.failed
    assert same_run(tb.Run.load(tmp_path / "run"), run)


@given(st.data())
def test_a_run_file_cut_short_or_altered_raises_ticket_errors_only(
    file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    chain: list[tb.Run],
    same_run: Same,
    damaged: Damaged,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "altered"
    path.write_bytes(damaged(data, file.read_bytes()))
    try:
        loaded = tb.Run.load(path)
    except TicketError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert same_run(loaded, chain[1])


@pytest.mark.parametrize(
    "change",
    [
        {"final.kept.0.weight": torch.ones(1)},
        {"final.kept.0.weight": torch.ones(1000)},
        {"history.lr": torch.ones(1)},
        {"history.lr": None},
        {"forgetting.events": None},
    ],
)
def test_tensors_that_make_no_run_are_a_ticket_error(
    run: tb.Run, change: dict[str, torch.Tensor | None]
) -> None:
    description, tensors = run.pack()
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    with pytest.raises(TicketError):
        tb.Run.unpack(description, changed)


def test_a_run_of_no_prunable_weights_is_a_run(digits: tb.Data, tmp_path: Path, same_run: Same) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.table

    run = tb.train(tb.initialize(Shifted, digits), digits, tb.Recipe(epochs=1))
    assert (run.ticket.total, run.ticket.sparsity) == (0, 0.0)
    assert run.accuracy > 50
    run.save(tmp_path / "run")
    assert same_run(tb.Run.load(tmp_path / "run", network=Shifted), run)
    with pytest.raises(TicketError, match="nothing to prune"):
        tb.prune(run)


def test_weights_of_a_run_are_exactly_zero_where_the_mask_is(chain: list[tb.Run]) -> None:
    for run in chain:
        for name, keep in run.ticket.mask.items():
            assert not run.weights[name].numpy().view(np.int32)[~keep.numpy()].any()
            assert run.weights[name][keep].all()


@pytest.fixture
def history() -> History:
    return History(
        [
            Epoch(2, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, 2.3, 10.0, 0, 0.0),
            Epoch(3, 0.1, math.inf, 50.0, 1.5, 60.5, 12, 0.25),
        ]
    )


def test_a_history_is_a_sequence_of_rows_with_columns(history: History) -> None:
    assert len(history) == 2
    assert history[-1].test_accuracy == 60.5
    assert [row.epoch for row in history] == history.column("epoch") == [2, 3]
    assert history[1:] == (history[1],)
    assert history.table()[1]["forgetting_events"] == 12


def test_a_history_comes_back_from_its_tensors_undefined_values_and_all(history: History) -> None:
    again = History.from_tensors(history.tensors())
    assert repr(again.table()) == repr(history.table())
    assert isinstance(again[1].epoch, int)
    assert isinstance(again[1].forgetting_events, int)


def test_columns_of_different_lengths_are_refused(history: History) -> None:
    with pytest.raises(TicketError, match="columns of different lengths"):
        History.from_tensors(history.tensors() | {"history.lr": torch.zeros(3, dtype=torch.float64)})


@given(st.data(), st.integers(1, 8), st.integers(0, 8))
def test_forgetting_is_right_the_last_time_and_wrong_now(
    data: st.DataObject, images: int, epochs: int
) -> None:
    record = ForgettingRecord.empty(images)
    story: list[list[bool]] = [[] for _ in range(images)]
    for _ in range(epochs):
        order = data.draw(st.permutations(range(images)))
        shown = order[: data.draw(st.integers(1, images))]
        right = data.draw(st.lists(st.booleans(), min_size=len(shown), max_size=len(shown)))
        forgotten = 0
        for image, answer in zip(shown, right, strict=True):
            forgotten += bool(story[image]) and story[image][-1] and not answer
            story[image].append(answer)
        assert record.present(torch.tensor(shown), torch.tensor(right)) == forgotten
    for image, answers in enumerate(story):
        falls = sum(a and not b for a, b in itertools.pairwise(answers))
        assert int(record.events[image]) == falls
        assert bool(record.learned[image]) == any(answers)
        assert bool(record.correct[image]) == (bool(answers) and answers[-1])


def test_a_record_comes_back_from_its_tensors_as_a_copy() -> None:
    record = ForgettingRecord.empty(3)
    for right in ([True, True, False], [True, False, False]):
        record.present(torch.arange(3), torch.tensor(right))
    tensors = record.tensors()
    again = ForgettingRecord.from_tensors(tensors)
    assert (again.events.tolist(), again.learned.tolist(), again.correct.tolist()) == (
        [0, 1, 0], [True, True, False], [True, False, False],
    )  # fmt: skip
    again.present(torch.tensor([0]), torch.tensor([False]))
    assert record.events.tolist() == tensors["forgetting.events"].tolist() == [0, 1, 0]


def test_a_log_in_a_file_is_refused_where_its_names_or_lengths_are_odd() -> None:
    log = LoggedValues.of([("test_loss", 3, 1.5), ("test_loss", 0, math.nan), ("test_accuracy", 3, 50.0)])
    tensors = log.tensors()
    again = LoggedValues.from_tensors(tensors | {"final.weight": torch.zeros(2)})
    assert again is not None
    assert again.table()[1] == {"iteration": 3, "test_accuracy": 50.0, "test_loss": 1.5}
    assert LoggedValues.from_tensors({"final.weight": torch.zeros(2)}) is None
    with pytest.raises(ValueError, match="shorter"):
        LoggedValues.from_tensors(tensors | {"logged.test_loss.values": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"the name '\\x1bcls' has control characters"):
        LoggedValues.of([("\x1bcls", 0, 1.0)])
