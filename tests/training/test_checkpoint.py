import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola import disk, files
from tombola.errors import StoreError
from tombola.networks.architectures import convnet
from tombola.networks.network import Network
from tombola.training import engines, loop
from tombola.training.checkpoint import Checkpoint, Checkpoints, Watch
from tombola.training.run import Epoch

Same = Callable[..., bool]

Interrupt = Callable[..., None]


class Counting(Watch):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.calls: list[bool] = []
        self.rows: list[tuple[int, int]] = []

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        self.calls.append(epoch_end)

    def finished_epoch(self, row: Epoch, epochs: int) -> None:
        self.rows.append((row.epoch, epochs))


@pytest.fixture
def ticket(chain: list[tb.Run]) -> tb.Ticket:
    """A quarter of the weights, rewound to epoch 1."""
    return chain[2].ticket


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watch be called after every single step."""
    monkeypatch.setattr(engines, "PREPARED_IMAGES", 1)


@pytest.fixture
def interrupt(interrupting: type[Any]) -> Interrupt:
    def interrupt(folder: Path, after: int, train: Callable[..., Any], *, kept: bool = True) -> None:
        with pytest.raises(interrupting.Interrupted):
            train(watch=interrupting(folder, after, kept=kept))

    return interrupt


def other_convnet(channels: int, classes: int) -> nn.Module:
    module = convnet(channels, classes)
    module[12] = nn.AdaptiveMaxPool2d(1)
    return module


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Two epochs of 12 steps from epoch 1, a watch after steps 5, 10 and the last: six opportunities.
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("after", [1, 2, 3, 4, 6])
def test_a_training_interrupted_anywhere_and_resumed_gives_the_bits_of_one_that_never_was(
    chain: list[tb.Run],
    digits: tb.Data,
    recipe: tb.Recipe,
    tmp_path: Path,
    same_run: Same,
    after: int,
    kept: bool,
    interrupt: Interrupt,
) -> None:
    def train(watch: Watch) -> tb.Run:
        return tb.train(chain[2].ticket, digits, recipe, noise=3, watch=watch)

    interrupt(tmp_path, after, train, kept=kept)
    rest = Counting()
    resumed = Checkpoints(tmp_path, every=0)
    rest.resume = resumed.resume  # type: ignore[method-assign]
    assert same_run(train(rest), chain[2])
    # It did continue: only what was not kept is done again.
    assert len(rest.calls) == 6 - after + (not kept)


@pytest.mark.parametrize(
    "fields",
    [{"momentum": 0.0}, {}, {"optimizer": "nesterov", "warmup": 2}, {"optimizer": "adamw", "lr": 1e-3}],
    ids=str,
)
def test_a_training_interrupted_again_and_again_at_single_steps_gives_the_same_bits(
    ticket: tb.Ticket,
    digits: tb.Data,
    tmp_path: Path,
    every_step: None,
    same_run: Same,
    fields: dict[str, Any],
    interrupt: Interrupt,
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=250, **fields)  # five steps, the last of 198 images

    def train(watch: Watch | None = None) -> tb.Run:
        return tb.train(ticket, digits, recipe, noise=7, watch=watch)

    for after in (1, 2, 1, 3, 2):
        interrupt(tmp_path, after, train)
    assert same_run(train(Checkpoints(tmp_path, every=0)), train())


@pytest.mark.parametrize("after", [1, 2, 3, 5, 7])
def test_a_training_interrupted_in_the_epoch_within_which_it_began_gives_the_same_bits(
    ticket: tb.Ticket,
    digits: tb.Data,
    tmp_path: Path,
    every_step: None,
    same_run: Same,
    after: int,
    interrupt: Interrupt,
) -> None:
    # It begins with the last three of five steps.
    within = replace(ticket, step=2, steps=5)
    recipe = tb.Recipe(epochs=3, batch_size=250)

    def train(watch: Watch | None = None) -> tb.Run:
        return tb.train(within, digits, recipe, noise=7, watch=watch)

    interrupt(tmp_path, after, train)
    rest = Counting()
    rest.resume = Checkpoints(tmp_path, every=0).resume  # type: ignore[method-assign]
    assert same_run(train(rest), train())
    assert len(rest.calls) == 8 - after


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_pretraining_interrupted_on_its_way_into_an_epoch_is_resumed(
    start: tb.Ticket, digits: tb.Data, tmp_path: Path, every_step: None, after: int, interrupt: Interrupt
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=250)

    def pretrain(watch: Watch | None = None) -> tb.Ticket:
        return tb.pretrain(start, digits, recipe, epochs="7it", noise=1, watch=watch)

    interrupt(tmp_path, after, pretrain)
    resumed = pretrain(Checkpoints(tmp_path, every=0))
    assert resumed.fingerprint == pretrain().fingerprint
    assert (resumed.epoch, resumed.step) == (1, 2)


def test_an_interrupted_pretraining_is_resumed_too(
    start: tb.Ticket,
    digits: tb.Data,
    recipe: tb.Recipe,
    late: tb.Ticket,
    tmp_path: Path,
    same_bits: Same,
    interrupt: Interrupt,
) -> None:
    def pretrain(watch: Watch) -> tb.Ticket:
        return tb.pretrain(start, digits, recipe, epochs=1, noise=1, watch=watch)

    interrupt(tmp_path, 2, pretrain)
    rest = Checkpoints(tmp_path, every=0)
    assert rest.resume() is not None
    assert same_bits(pretrain(rest).start, late.start)


def test_a_finished_training_is_not_trained_again(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, tmp_path: Path, same_run: Same
) -> None:
    tb.train(chain[2].ticket, digits, recipe, noise=3, watch=Checkpoints(tmp_path, every=0))
    counting = Counting()
    counting.resume = Checkpoints(tmp_path).resume  # type: ignore[method-assign]
    assert same_run(tb.train(chain[2].ticket, digits, recipe, noise=3, watch=counting), chain[2])
    assert counting.calls == counting.rows == []


def test_the_history_before_an_interruption_keeps_its_seconds(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, tmp_path: Path, interrupt: Interrupt
) -> None:
    interrupt(tmp_path, 4, lambda watch: tb.train(start, digits, recipe, watch=watch))
    kept = Checkpoints(tmp_path).resume()
    assert kept is not None
    seconds = kept.tensors["history.seconds"].tolist()
    run = tb.train(start, digits, recipe, watch=Checkpoints(tmp_path))
    assert run.history.column("seconds")[: len(seconds)] == seconds
    # The epoch under way began with what it had taken already.
    assert run.history[2].seconds > kept.description["seconds"] > 0


# A checkpoint that cannot be used


def damage(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole)


def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning_for_the_one_before(
    chain: list[tb.Run],
    digits: tb.Data,
    recipe: tb.Recipe,
    tmp_path: Path,
    same_run: Same,
    interrupt: Interrupt,
) -> None:
    def train(watch: Watch) -> tb.Run:
        return tb.train(chain[2].ticket, digits, recipe, noise=3, watch=watch)

    interrupt(tmp_path, 4, train)
    damage(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match="skipping a checkpoint: .*was altered"):
        found = Checkpoints(tmp_path).resume()
    assert found is not None
    assert (found.description["epoch"], found.description["step"]) == (2, 0)  # the third opportunity
    with pytest.warns(UserWarning, match="skipping a checkpoint"):
        assert same_run(train(Checkpoints(tmp_path, every=0)), chain[2])


def test_a_damaged_checkpoint_never_takes_the_place_of_the_whole_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbered(number: int) -> Checkpoint:
        return Checkpoint({"number": number}, {"t": torch.full((100,), float(number))})

    first = Checkpoints(tmp_path)
    first.keep(numbered(1))
    first.keep(numbered(2))
    damage(tmp_path / "checkpoint")
    second = Checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="skipping a checkpoint"):
        assert second.resume() is not None
    with monkeypatch.context() as patch:  # dies as it puts the next one into its place
        patch.setattr(disk, "replace", lambda path, target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            second.put(tmp_path / "checkpoint.next")
    with pytest.warns(UserWarning, match="skipping a checkpoint"):
        found = Checkpoints(tmp_path).resume()
    assert found is not None
    assert found.description["number"] == 1
    second.keep(numbered(3))
    second.keep(numbered(4))
    kept = [files.read_description(tmp_path / name) for name in ("checkpoint.previous", "checkpoint")]
    assert kept == [{"number": 3}, {"number": 4}]


def test_two_owners_that_keep_checkpoints_in_one_place_do_not_stumble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint({"number": 1}, {"t": torch.ones(1)})
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    first.keep(checkpoint)
    really = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.name == "checkpoint":  # the other one moves it aside at this very moment
            monkeypatch.setattr(Path, "replace", really)
            second.keep(checkpoint)
            path.unlink()
        return really(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    first.keep(checkpoint)
    assert names(tmp_path) == ["checkpoint", "checkpoint.previous"]


def test_a_checkpoint_that_cannot_take_its_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, checkpoint = Checkpoints(tmp_path), Checkpoint({}, {"t": torch.ones(1)})

    def put(written: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(checkpoints, "put", put)
    with pytest.raises(StoreError, match=r"^cannot write to .*: Read-only file system; make it writable"):
        checkpoints.keep(checkpoint)
    assert names(tmp_path) == []


def test_a_newest_checkpoint_cut_short_is_skipped_too(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, tmp_path: Path, interrupt: Interrupt
) -> None:
    interrupt(tmp_path, 2, lambda watch: tb.train(start, digits, recipe, watch=watch))
    newest = tmp_path / "checkpoint"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="skipping a checkpoint: .*damaged"):
        found = Checkpoints(tmp_path).resume()
    assert found is not None
    assert found.description["step"] == 5


def test_without_any_whole_checkpoint_the_training_begins_anew(
    run: tb.Run,
    start: tb.Ticket,
    digits: tb.Data,
    recipe: tb.Recipe,
    tmp_path: Path,
    same_run: Same,
    interrupt: Interrupt,
) -> None:
    interrupt(tmp_path, 3, lambda watch: tb.train(start, digits, recipe, noise=1, watch=watch))
    for path in tmp_path.iterdir():
        damage(path)
    with pytest.warns(UserWarning, match="skipping a checkpoint") as warned:
        again = tb.train(start, digits, recipe, noise=1, watch=Checkpoints(tmp_path))
    assert len(warned) == 2
    assert same_run(again, run)


def test_a_checkpoint_that_was_moved_aside_is_still_found(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, tmp_path: Path, interrupt: Interrupt
) -> None:
    interrupt(tmp_path, 1, lambda watch: tb.train(start, digits, recipe, watch=watch))
    # As a kill between the two renames leaves it.
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.previous")
    assert Checkpoints(tmp_path).resume() is not None


@pytest.mark.parametrize(
    "other",
    ["recipe", "augmentation", "noise", "noise_round", "ticket", "mask", "epoch", "network", "data",
     "environment"],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_not_used(
    start: tb.Ticket,
    digits: tb.Data,
    recipe: tb.Recipe,
    tmp_path: Path,
    same_run: Same,
    other: str,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Interrupt,
) -> None:
    interrupt(tmp_path, 3, lambda watch: tb.train(start, digits, recipe, noise=1, watch=watch))
    options: dict[str, Any] = {"noise": 1}
    ticket, data = start, digits
    if other == "recipe":
        recipe = replace(recipe, lr=0.05)
    elif other == "augmentation":
        recipe = replace(recipe, augmentation=tb.Augmentation(pad=0))
    elif other in ("noise", "noise_round"):
        options[other] = 2
    elif other == "ticket":
        ticket = tb.initialize("convnet", digits, seed=1)
    elif other == "mask":
        mask = dict(start.mask) | {"0.weight": torch.eye(8, 9, dtype=torch.bool).reshape(8, 1, 3, 3)}
        ticket = start.with_mask(mask)
    elif other == "epoch":
        ticket = replace(start, epoch=1)
    elif other == "network":  # of the same weights, but with pooling by the maximum
        ticket = replace(start, network=Network.of(other_convnet, channels=1, size=(8, 8), classes=10))
    elif other == "data":
        brighter = (255 - digits.train.images, digits.train.labels)
        data = tb.data_from_tensors(brighter, (digits.test.images, digits.test.labels), name="digits")
    elif other == "environment":
        monkeypatch.setattr(loop, "environment", lambda *_: {"torch": "another"})
    counting = Counting()
    counting.resume = Checkpoints(tmp_path).resume  # type: ignore[method-assign]
    again = tb.train(ticket, data, recipe, watch=counting, **options)
    assert counting.rows == [(epoch, 3) for epoch in range(ticket.epoch + 1, 4)]
    assert same_run(again, tb.train(ticket, data, recipe, **options))


def test_a_checkpoint_beyond_the_rewind_point_is_not_used_to_pretrain(
    start: tb.Ticket,
    digits: tb.Data,
    recipe: tb.Recipe,
    late: tb.Ticket,
    tmp_path: Path,
    interrupt: Interrupt,
) -> None:
    interrupt(tmp_path, 6, lambda watch: tb.train(start, digits, recipe, noise=1, watch=watch))
    again = tb.pretrain(start, digits, recipe, epochs=1, noise=1, watch=Checkpoints(tmp_path))
    assert again.start_fingerprint == late.start_fingerprint


# What a watch is told, and what is kept


def test_a_watch_is_told_of_stretches_and_epochs(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    counting = Counting()
    tb.train(start, digits, recipe, watch=counting)
    assert counting.calls == [False, False, True] * 3
    assert counting.rows == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        ("sgd", ("momentum",)),
        ("nesterov", ("momentum",)),
        ("adamw", ("first_moment", "second_moment")),
    ],
)
@pytest.mark.parametrize("diverge", [False, True])
def test_weight_and_momentum_are_exactly_zero_where_the_mask_is_after_every_step_and_in_every_checkpoint(
    ticket: tb.Ticket,
    digits: tb.Data,
    tmp_path: Path,
    every_step: None,
    diverge: bool,
    optimizer: str,
    kept: tuple[str, ...],
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=200, lr=1e25 if diverge else 0.1, optimizer=optimizer)
    seen = []

    class Looking(Checkpoints):
        def keep(self, checkpoint: Checkpoint) -> None:
            super().keep(checkpoint)
            _, tensors = files.read_tensors(tmp_path / "checkpoint", "tombola.checkpoint/1")
            for kind in ("weights", *kept):
                for name, keep in ticket.mask.items():
                    bits = tensors[f"{kind}.{name}"].numpy().view(np.int32)
                    assert not bits[~keep.numpy()].any()
            seen.append(all(bool(tensors[f"weights.{name}"].isfinite().all()) for name in ticket.mask))

    run = tb.train(ticket, digits, recipe, watch=Looking(tmp_path, every=0))
    assert len(seen) == 6
    assert run.diverged == diverge
    assert all(seen) != diverge


def test_the_newest_and_the_one_before_are_kept_and_nothing_else(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, tmp_path: Path
) -> None:
    tb.train(start, digits, recipe, watch=Checkpoints(tmp_path / "made", every=0))
    assert names(tmp_path / "made") == ["checkpoint", "checkpoint.previous"]


def test_within_the_interval_nothing_is_written(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, tmp_path: Path
) -> None:
    tb.train(start, digits, recipe, watch=Checkpoints(tmp_path / "made", every=1e6))
    assert not (tmp_path / "made").exists()


def test_within_an_epoch_a_checkpoint_waits_for_two_intervals_and_at_its_end_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("tombola.training.checkpoint.time.monotonic", lambda: now)
    watch = Checkpoints(tmp_path, every=10)
    taken = []

    def snapshot() -> Checkpoint:
        taken.append(now)
        return Checkpoint({}, {"a": torch.zeros(1)})

    for now, epoch_end in ((1009, True), (1019, False), (1019.5, True), (1039, False), (1040, False)):  # noqa: B007
        watch.advanced(snapshot, epoch_end=epoch_end)
    assert taken == [1019.5, 1040]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Checkpoints(tmp_path, every=0)
    watch.keep(Checkpoint({"step": 1}, {"a": torch.zeros(1)}))

    def disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", disk_full)
    with pytest.raises(StoreError, match="No space left on device"):
        watch.keep(Checkpoint({"step": 2}, {"a": torch.zeros(1)}))
    assert names(tmp_path) == ["checkpoint"]
    found = watch.resume()
    assert found is not None
    assert found.description == {"step": 1}
