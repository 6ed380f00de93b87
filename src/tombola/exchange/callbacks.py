"""Recorders for training loops that are not tombola's: forgetting events, and the weights of chosen epochs.

A :class:`ForgettingRecorder` is told which examples each batch holds and which of them were right;
:func:`lightning_callback` and :func:`record_trainer` have Lightning and Hugging Face's Trainer tell it, which
are imported only there. ``tombola.run_from`` makes a run of what it recorded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tombola.errors import DataError, TicketError, TombolaError
from tombola.training.run import ForgettingRecord

Right = Callable[[Any, Any], Tensor]
"""From the outputs of a step and its batch to which examples were right, bool ``(B,)``."""


class Indexed(Dataset[Any]):
    """A data set whose items carry their index: ``(image, label, index)``, or ``"index"`` in a dictionary."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        return {**item, "index": index} if isinstance(item, Mapping) else (*item, index)


class ForgettingRecorder:
    """Records forgetting as :func:`~tombola.train` does, and keeps weights, in any training loop.

    images: number of training images; each has an index below it.
    snapshots: epochs after which weights are kept; 0 is before the first step.

    weights: the ``state_dict`` after each of these epochs, on the CPU.
    events: forgetting events in each epoch so far, over all images.

    A prediction counts from one presentation to the next: an image that an epoch leaves out is as it was.
    """

    def __init__(self, images: int, *, snapshots: Iterable[int] = ()) -> None:
        if images < 1:
            raise DataError(f"images is {images}; it is the number of training images, at least 1")
        self.snapshots = frozenset(snapshots)
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.events: list[int] = []
        self._record = ForgettingRecord.empty(images)
        # On the device they came from: entered once an epoch, so that no step waits for a GPU.
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._forgotten = 0  # in the current epoch

    def add(self, indices: Tensor, right: Tensor) -> None:
        """Enter one presentation of each example of a batch, with the prediction made in its training step.

        indices: whole numbers ``(B,)``, which examples; right: bool ``(B,)``, whether each was right.

        Raises :class:`~tombola.errors.DataError` for other shapes or types. Indices that lie outside the
        images or come twice in a batch are refused when the epoch ends or the record is read.
        """
        indices, right = torch.as_tensor(indices), torch.as_tensor(right)
        if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise DataError(f"indices are {_form(indices)}; they must be whole numbers (B,)")
        if right.shape != indices.shape or right.dtype != torch.bool:
            raise DataError(f"right is {_form(right)}; it must be bool {tuple(indices.shape)}, as indices")
        self._pending.append((indices.detach().to(torch.int64, copy=True), right.detach().clone()))

    def end_epoch(self, module: nn.Module | None = None) -> None:
        """End an epoch; the weights of the module are kept if snapshots name it. Raises as :meth:`add`."""
        self._enter()
        self.events.append(self._forgotten)
        self._forgotten = 0
        if module is not None:
            self.snapshot(module)

    def snapshot(self, module: nn.Module) -> None:
        """Keep the weights of a module if snapshots name the number of epochs so far."""
        if len(self.events) in self.snapshots:
            tensors = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
            copies = {key: value.detach().to("cpu", copy=True) for key, value in tensors.items()}
            self.weights[len(self.events)] = copies

    @property
    def record(self) -> ForgettingRecord:
        """The record so far, for ``tombola.run_from(..., forgetting=recorder.record)``."""
        self._enter()
        return ForgettingRecord.from_tensors(self._record.tensors())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for a training to go on: the record by epochs, not the snapshots."""
        self._enter()
        return {**self._record.tensors(), "epochs": list(self.events), "forgotten": self._forgotten}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises :class:`~tombola.errors.TicketError` for the state of a recorder of other images.
        """
        count, images = len(state["forgetting.events"]), len(self._record.events)
        if count != images:
            raise TicketError(f"the state is of {count} images, the recorder of {images}; say images={count}")
        self._record = ForgettingRecord.from_tensors(state)
        self.events, self._forgotten, self._pending = list(state["epochs"]), int(state["forgotten"]), []

    def _enter(self) -> None:
        """Enter what was added since, batch by batch."""
        pending, self._pending = self._pending, []
        images = len(self._record.events)
        for indices, right in ((indices.cpu(), right.cpu()) for indices, right in pending):
            outside = indices[(indices < 0) | (indices >= images)]
            if len(outside):
                raise DataError(f"index {int(outside[0])} is of none of the {images} images; say images=...")
            ordered = indices.sort().values
            again = ordered[1:][ordered[1:] == ordered[:-1]]
            if len(again):
                raise DataError(f"image {int(again[0])} comes twice in one batch; sample without replacement")
            self._forgotten += self._record.present(indices, right)


def lightning_callback(recorder: ForgettingRecorder, *, right: Right | None = None) -> Any:
    """A callback for the Trainer of Lightning, which tells the recorder of each batch and epoch.

    right: from what ``training_step`` returned and the batch to bool ``(B,)``; by default ``training_step``
        returns ``{"loss": loss, "logits": logits}``, and logits are compared with the labels.

    Batches are ``(images, labels, indices)`` or dictionaries with ``"labels"`` and ``"index"``, as from a
    data set in :class:`Indexed`. Checkpoints of the Trainer hold the recorder's state.

    Raises :class:`~tombola.errors.TombolaError` where Lightning is not installed; in ``fit``, for several
    processes, and for a recorder that has seen another number of epochs than the Trainer.
    """
    library = _imported("lightning.pytorch", "pytorch_lightning", install="lightning")

    class Recording(library.Callback):  # type: ignore[misc, name-defined]
        state_key = "tombola.ForgettingRecorder"

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            _check_begin(recorder, trainer.world_size, trainer.current_epoch)
            if trainer.global_step == 0:
                recorder.snapshot(pl_module)

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            recorder.add(_indices(batch), (right or _right)(outputs, batch))

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            recorder.end_epoch(pl_module)

        def state_dict(self) -> dict[str, Any]:
            return recorder.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            recorder.load_state_dict(state_dict)

    return Recording()


def record_trainer(trainer: Any, recorder: ForgettingRecorder, *, right: Right | None = None) -> None:
    """Have the Trainer of Hugging Face, or one of its subclasses, tell the recorder of each batch and epoch.

    right: from the outputs of the model and the inputs to bool ``(B,)``; by default ``outputs["logits"]`` are
        compared with ``inputs["labels"]``.

    Callbacks of that library see no outputs, so the trainer's ``compute_loss`` is wrapped, and a callback is
    added that ends the epochs. Training inputs carry ``"index"``, which the model does not get: a column of
    the data set (or :class:`Indexed`), and ``remove_unused_columns=False`` in the ``TrainingArguments``.
    Its checkpoints do not hold the recorder's state: to resume, ``recorder.load_state_dict`` first.

    Raises :class:`~tombola.errors.TombolaError` for other arguments; in ``train`` as in Lightning's ``fit``.
    """
    library = _imported("transformers", install="transformers")
    if trainer.args.remove_unused_columns:
        raise DataError(
            "the trainer removes the column 'index'; say remove_unused_columns=False in its TrainingArguments"
        )
    compute_loss = trainer.compute_loss

    def recorded(model: nn.Module, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
        batch = dict(inputs)  # as it was: a loss function takes the labels out
        inputs = {name: value for name, value in batch.items() if name != "index"}
        loss, outputs = compute_loss(model, inputs, return_outputs=True, **options)
        if model.training:
            recorder.add(_indices(batch), (right or _right)(outputs, batch))
        return (loss, outputs) if return_outputs else loss

    class Recording(library.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            _check_begin(recorder, args.world_size, int(state.epoch or 0))
            if state.global_step == 0:
                recorder.snapshot(others["model"])

        def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            recorder.end_epoch(others["model"])

    trainer.compute_loss = recorded
    trainer.add_callback(Recording())


def _imported(*names: str, install: str) -> Any:
    """The first of some modules that is imported already, or else is installed."""
    for name in sorted(names, key=lambda name: name not in sys.modules):
        if name in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name)
    raise TombolaError(f"{install} is not installed; pip install {install}, or use the recorder by itself")


def _indices(batch: Any) -> Tensor:
    if isinstance(batch, Mapping) and "index" in batch:
        return torch.as_tensor(batch["index"])
    if isinstance(batch, list | tuple) and len(batch) == 3:
        return torch.as_tensor(batch[2])
    raise DataError("batches carry no index of their examples; wrap the training data in tombola.Indexed")


def _right(outputs: Any, batch: Any) -> Tensor:
    if not isinstance(outputs, Mapping) or "logits" not in outputs:
        raise DataError("outputs have no 'logits'; return them beside the loss, or say right=...")
    if isinstance(batch, Mapping) and "labels" not in batch:
        raise DataError("batches have no 'labels'; name them so, or say right=...")
    labels = batch["labels"] if isinstance(batch, Mapping) else batch[1]
    return torch.as_tensor(outputs["logits"].argmax(-1) == labels)


def _check_begin(recorder: ForgettingRecorder, processes: int, epoch: int) -> None:
    if processes > 1:
        raise TombolaError(f"{processes} processes train, each on a part of the images; record in one")
    if len(recorder.events) != epoch:
        raise TombolaError(
            f"the training begins at epoch {epoch}, but the recorder has seen {len(recorder.events)}; "
            "give a new one, or load_state_dict of the checkpoint's time"
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
