"""Recorders in somebody else's loop, beside trainings of tombola that see the same batches.

The loops are plain PyTorch, stand-ins that call the hooks of Lightning and of Hugging Face's Trainer in their
order, and these themselves where they are installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Sampler

import tombola as tb
from tombola import seeds
from tombola.errors import DataError, TicketError

RECIPE = tb.Recipe(
    epochs=3, batch_size=100, schedule="constant", augmentation=tb.Augmentation(pad=0, flip=False)
)
NOISE = 1


class Order(Sampler[int]):
    """The order of images in each epoch of the training by tombola."""

    def __init__(self, images: int) -> None:
        self.images, self.epoch = images, 0

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(seeds.generator("order", NOISE, 0, self.epoch - 1).permutation(self.images).tolist())


class Images(Dataset[Any]):
    """The normalised train images with their labels, as pairs or dictionaries."""

    def __init__(self, data: tb.Data, named: bool) -> None:
        self.images = torch.cat([images for images, _ in tb.batches(data, "train")])
        self.labels, self.named = data.train.labels, named

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image, label = self.images[index], self.labels[index]
        return {"images": image, "labels": label} if self.named else (image, label)


class Classifier(nn.Module):
    """A network that gives loss and logits, as those of Hugging Face do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.train()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        return {"loss": cross_entropy(logits, labels), "logits": logits}


@dataclass
class Training:
    """What every loop trains: the start of the native training, its batches in order, its optimizer."""

    start: tb.Ticket
    data: tb.Data

    def module(self) -> Classifier:
        return Classifier(self.start.module().to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def batches(self, named: bool = False) -> DataLoader[Any]:
        images = tb.Indexed(Images(self.data, named))
        return DataLoader(images, batch_size=RECIPE.batch_size, sampler=Order(len(images)))

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            module.parameters(), RECIPE.lr, RECIPE.momentum, weight_decay=RECIPE.weight_decay, fused=True
        )


def plain(training: Training, recorder: tb.ForgettingRecorder, patch: pytest.MonkeyPatch) -> None:
    module, batches = training.module(), training.batches()
    optimizer = training.optimizer(module)
    recorder.snapshot(module)
    for _ in range(RECIPE.epochs):
        for images, labels, indices in batches:
            outputs = module(images, labels)
            optimizer.zero_grad()
            outputs["loss"].backward()
            optimizer.step()
            recorder.add(indices, outputs["logits"].argmax(1) == labels)
        recorder.end_epoch(module)


def like_lightning(training: Training, recorder: tb.ForgettingRecorder, patch: pytest.MonkeyPatch) -> None:
    library = ModuleType("lightning.pytorch")
    library.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "lightning.pytorch", library)
    callback = tb.lightning_callback(recorder)
    assert isinstance(callback, library.Callback)
    module, batches = training.module(), training.batches()
    optimizer, trainer = (
        training.optimizer(module),
        SimpleNamespace(world_size=1, current_epoch=0, global_step=0),
    )
    callback.on_train_start(trainer, module)
    for _ in range(RECIPE.epochs):
        for step, batch in enumerate(batches):
            outputs = module(*batch[:2])
            optimizer.zero_grad()
            outputs["loss"].backward()
            optimizer.step()
            callback.on_train_batch_end(trainer, module, outputs, batch, step)
        callback.on_train_epoch_end(trainer, module)
    again = tb.ForgettingRecorder(len(training.data.train))
    tb.lightning_callback(again).load_state_dict(callback.state_dict())
    assert again.events == recorder.events
    assert torch.equal(again.record.events, recorder.record.events)


def lightning(training: Training, recorder: tb.ForgettingRecorder, patch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("lightning.pytorch")

    class Module(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = training.module()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            outputs: Any = self.network(*batch[:2])
            return outputs

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return training.optimizer(self)

    trainer = library.Trainer(
        max_epochs=RECIPE.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[tb.lightning_callback(recorder)],
    )  # fmt: skip
    trainer.fit(Module(), training.batches())


def like_hugging_face(training: Training, recorder: tb.ForgettingRecorder, patch: pytest.MonkeyPatch) -> None:
    library = ModuleType("transformers")
    library.TrainerCallback = type("TrainerCallback", (), {})  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "transformers", library)
    callbacks: list[Any] = []

    def compute_loss(model: nn.Module, inputs: Any, return_outputs: bool, num_items_in_batch: int) -> Any:
        labels = inputs.pop("labels")
        outputs = model(labels=labels, **inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=1, remove_unused_columns=False), compute_loss=compute_loss,
        add_callback=callbacks.append,
    )  # fmt: skip
    tb.record_trainer(trainer, recorder)
    (callback,) = callbacks
    assert isinstance(callback, library.TrainerCallback)
    module, batches = training.module(), training.batches(named=True)
    optimizer, state = training.optimizer(module), SimpleNamespace(epoch=0, global_step=0)
    callback.on_train_begin(trainer.args, state, None, model=module, optimizer=optimizer)
    for _ in range(RECIPE.epochs):
        for batch in batches:
            optimizer.zero_grad()
            trainer.compute_loss(module, batch, num_items_in_batch=100).backward()
            optimizer.step()
        callback.on_epoch_end(trainer.args, state, None, model=module, optimizer=optimizer)
        module.eval()  # an evaluation in between, by the same compute_loss, is no presentation
        evaluated = {name: value for name, value in batch.items() if name != "index"}
        loss, outputs = trainer.compute_loss(module, evaluated, return_outputs=True, num_items_in_batch=100)
        assert torch.equal(loss, outputs["loss"])
        module.train()


def hugging_face(training: Training, recorder: tb.ForgettingRecorder, patch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Trainer(library.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> DataLoader[Any]:
            return training.batches(named=True)

    module = training.module()
    optimizer = training.optimizer(module)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    arguments = library.TrainingArguments(
        num_train_epochs=RECIPE.epochs, max_grad_norm=0, use_cpu=True, report_to=[], save_strategy="no",
        eval_strategy="epoch", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    images = Images(training.data, named=True)
    trainer = Trainer(
        module, arguments, train_dataset=images, eval_dataset=images, optimizers=(optimizer, schedule)
    )
    tb.record_trainer(trainer, recorder)
    trainer.train()


@pytest.fixture(scope="module")
def native(start: tb.Ticket, digits: tb.Data) -> tb.Run:
    return tb.train(start, digits, RECIPE, noise=NOISE)


@pytest.mark.parametrize("loop", [plain, like_lightning, lightning, like_hugging_face, hugging_face])
def test_the_record_is_to_the_bit_that_of_a_training_that_sees_the_same_and_the_weights_up_to_rounding(
    loop: Callable[[Training, tb.ForgettingRecorder, pytest.MonkeyPatch], None],
    native: tb.Run,
    digits: tb.Data,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = tb.ForgettingRecorder(len(digits.train), snapshots=[0, 3])
    loop(Training(native.ticket, digits), recorder, monkeypatch)
    assert recorder.events == list(tb.forgetting_curve(native).events)
    assert sum(recorder.events) > 0
    assert recorder.weights.keys() == {0, 3}
    foreign = tb.run_from(
        recorder.weights[3], network="convnet", data=digits, start=recorder.weights[0],
        forgetting=recorder.record,
    )  # fmt: skip
    # Equal bits on some processors; on others oneDNN takes another kernel for the same convolution.
    for name, value in native.weights.items():
        torch.testing.assert_close(foreign.weights[name], value, rtol=0, atol=1e-3)
    assert all(torch.equal(foreign.ticket.start[name], value) for name, value in native.ticket.start.items())
    foreign.save(tmp_path / "foreign.safetensors")
    for run in (foreign, tb.Run.load(tmp_path / "foreign.safetensors")):
        assert tb.forgetting(run) == tb.forgetting(native)
        assert torch.equal(tb.forgetting_ranking(run), tb.forgetting_ranking(native))
        assert run.fingerprint == foreign.fingerprint
    assert tb.barrier(foreign, native, digits, points=3).height == 0


def test_presentations_are_counted_by_hand_in_epochs_that_leave_images_out_or_repeat_them() -> None:
    recorder = tb.ForgettingRecorder(4)

    def epoch(*batches: tuple[list[int], list[bool]]) -> None:
        for indices, right in batches:
            recorder.add(torch.tensor(indices), torch.tensor(right))
        recorder.end_epoch()

    epoch(([0, 1], [True, True]), ([2], [False]))
    epoch(([0], [False]), ([0], [True]), ([0], [False]))  # forgotten twice in an epoch, learned in between
    epoch(([1], [False]))  # forgotten since the first epoch
    assert recorder.events == [0, 2, 1]
    assert recorder.record.events.tolist() == [2, 1, 0, 0]
    assert recorder.record.learned.tolist() == [True, True, False, False]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_batches_and_weights_on_a_gpu_are_recorded_on_the_cpu() -> None:
    draws = torch.Generator().manual_seed(0)
    recorders = tb.ForgettingRecorder(50, snapshots=[5]), tb.ForgettingRecorder(50, snapshots=[5])
    module = nn.Linear(3, 2).cuda()
    for _ in range(5):
        for indices in torch.randperm(50, generator=draws).split(20):
            right = torch.rand(len(indices), generator=draws) < 0.5
            recorders[0].add(indices, right)
            recorders[1].add(indices, right.cuda())
        for recorder in recorders:
            recorder.end_epoch(module)
    assert recorders[0].events == recorders[1].events
    assert torch.equal(recorders[0].record.events, recorders[1].record.events)
    kept = recorders[1].weights[5]["weight"]
    assert kept.device.type == "cpu"
    assert torch.equal(kept, module.weight.cpu())


def test_a_run_with_a_record_is_another_than_without(native: tb.Run, digits: tb.Data) -> None:
    runs = [
        tb.run_from(native.weights, network="convnet", data=digits, forgetting=record)
        for record in (None, native.forgetting)
    ]
    assert runs[0].fingerprint != runs[1].fingerprint
    with pytest.raises(TicketError, match="there is no history"):
        tb.convergence(runs[1])
    with pytest.raises(
        tb.TombolaError, match="forgetting is a ForgettingRecorder; it takes a ForgettingRecord"
    ):
        tb.run_from(native.weights, network="convnet", data=digits, forgetting=tb.ForgettingRecorder(4))


def _fed(indices: list[Any], right: list[Any]) -> Callable[[tb.ForgettingRecorder], object]:
    return lambda recorder: (recorder.add(torch.tensor(indices), torch.tensor(right)), recorder.end_epoch())


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda recorder: tb.ForgettingRecorder(0), "images is 0"),
        (_fed([0.5], [True]), r"indices are float32 \(1,\); they must be whole numbers \(B,\)"),
        (_fed([0, 1], [True]), r"right is bool \(1,\); it must be bool \(2,\)"),
        (_fed([0], [1]), r"right is int64 \(1,\); it must be bool"),
        (_fed([0, 7], [True, True]), "index 7 is of none of the 4 images"),
        (_fed([-1], [True]), "index -1 is of none"),
        (_fed([3, 1, 3], [True, True, False]), "image 3 comes twice in one batch"),
        (lambda recorder: tb.ForgettingRecorder(5).load_state_dict(recorder.state_dict()), "is of 4 images"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_one_line(
    use: Callable[[tb.ForgettingRecorder], object], message: str
) -> None:
    with pytest.raises((DataError, TicketError), match=message):
        use(tb.ForgettingRecorder(4))


def test_loops_that_do_not_fit_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, base in (("lightning.pytorch", "Callback"), ("transformers", "TrainerCallback")):
        library = ModuleType(name)
        setattr(library, base, type(base, (), {}))
        monkeypatch.setitem(sys.modules, name, library)
    recorder = tb.ForgettingRecorder(4)
    callback = tb.lightning_callback(recorder)
    for trainer, message in (
        (SimpleNamespace(world_size=2, current_epoch=0), "2 processes train"),
        (SimpleNamespace(world_size=1, current_epoch=3), "begins at epoch 3, but the recorder has seen 0"),
    ):
        with pytest.raises(tb.TombolaError, match=message):
            callback.on_train_start(trainer, nn.Linear(1, 1))
    pair = (torch.zeros(2, 1), torch.tensor([0, 1]))
    outputs = {"logits": torch.eye(2)}
    for step, batch, message in (
        (outputs, pair, "no index of their examples; wrap the training data in tombola.Indexed"),
        ({"loss": 1.0}, (*pair, torch.tensor([0, 1])), "no 'logits'; return them beside the loss"),
        (outputs, {"index": torch.tensor([0, 1])}, "no 'labels'"),
    ):
        with pytest.raises(DataError, match=message):
            callback.on_train_batch_end(None, None, step, batch, 0)
    removing = SimpleNamespace(args=SimpleNamespace(world_size=1, remove_unused_columns=True))
    with pytest.raises(DataError, match="say remove_unused_columns=False"):
        tb.record_trainer(removing, recorder)


def test_a_function_may_say_which_were_right(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("lightning.pytorch")
    library.Callback = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning.pytorch", library)
    recorder = tb.ForgettingRecorder(4)
    callback = tb.lightning_callback(recorder, right=lambda outputs, batch: outputs > batch["threshold"])
    batch = {"threshold": torch.tensor([0.5, 0.5]), "index": torch.tensor([3, 1])}
    callback.on_train_batch_end(None, None, torch.tensor([1.0, 0.0]), batch, 0)
    assert recorder.record.correct.tolist() == [False, False, False, True]


def test_a_library_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tb.TombolaError, match="lightning is not installed; pip install lightning"):
        tb.lightning_callback(tb.ForgettingRecorder(4))
