"""Runs and tickets in the forms of other libraries, each read back and compared before it is in its place."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tombola.data.imageset import DataLike
from tombola.disk import replace as move
from tombola.errors import ExportError, reason, unknown, unwritable
from tombola.networks.module import Normalized
from tombola.pruning.subject import ticket_of
from tombola.ticket import Ticket
from tombola.training.run import Run

Form = Literal["state_dict", "prune", "torch.export", "onnx"]
Logits = Callable[[Tensor], Tensor]

_BY_SUFFIX: dict[str, Form] = {
    ".safetensors": "state_dict",
    ".pt": "prune",
    ".pth": "prune",
    ".pt2": "torch.export",
    ".onnx": "onnx",
}
# Largest difference of a logit, as a share of the largest logit: sums in another order, and no more.
_TOLERANCE = 1e-4
_IMAGES = 8


def convert(
    subject: Run | Ticket,
    path: str | os.PathLike[str],
    *,
    form: Form | None = None,
    normalize: DataLike | None = None,
) -> float:
    """Write a run, or an untrained ticket, in a form that others read; returns how far its logits differ.

    form: by default that of the file's suffix:

    - ``"state_dict"`` (``.safetensors``): the tensors alone, pruned weights as zeros;
    - ``"prune"`` (``.pt``): the ``state_dict`` of the module under ``torch.nn.utils.prune``, with
      ``weight_orig`` and ``weight_mask``; the former dense for a ticket that carries its dense start;
    - ``"torch.export"`` (``.pt2``): the program, for any number of images;
    - ``"onnx"`` (``.onnx``): likewise, for other runtimes; needs the packages onnx and onnxscript.

    normalize: as for :meth:`Run.module`: what is written takes pixel values from 0 to 255.

    The file is read back, and the largest difference of its logits to those of ``subject.module()`` on
    made-up images is returned: 0 for the first three, some 1e-6 for ONNX.

    Raises :class:`~tombola.errors.ExportError` for a suffix that tells no form, missing packages, a network
    that cannot be written so, and a file whose logits differ; then ``path`` is left as it was.
    """
    path = Path(path)
    if form is None:
        if path.suffix not in _BY_SUFFIX:
            forms = ", ".join(f"{suffix} ({name})" for suffix, name in _BY_SUFFIX.items())
            raise ExportError(f"the suffix of {path.name!r} tells no form; known: {forms}, or say form=...")
        form = _BY_SUFFIX[path.suffix]
    if form not in _WRITERS:
        raise ExportError(unknown("form", str(form), _WRITERS))
    module = subject.module(normalize=normalize)
    images = _made_up(subject, pixels=normalize is not None)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tombola-") as folder:
            written = Path(folder) / path.name
            logits = _WRITERS[form](subject, module, images, written)
            difference = _difference(module, logits, images, path)
            move(written, path)
    except OSError as error:
        raise unwritable(path, error) from error
    return difference


def _made_up(subject: Run | Ticket, *, pixels: bool) -> Tensor:
    """Inputs of the shape that the network takes, drawn from a generator of their own."""
    network = ticket_of(subject).network
    draws = torch.Generator().manual_seed(0)
    shape = (_IMAGES, *network.shape)
    if network.vocabulary is not None:
        return torch.randint(0, network.vocabulary, shape, generator=draws)
    return (
        torch.randint(0, 256, shape, generator=draws).float()
        if pixels
        else torch.randn(shape, generator=draws)
    )


@torch.no_grad()
def _difference(module: nn.Module, logits: Logits, images: Tensor, path: Path) -> float:
    """The largest difference of logits; ExportError if it is more than rounding."""
    expected, seen = module(images), logits(images)
    difference = float((seen - expected).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ExportError(
            f"what was to be {path.name} gives logits that differ by {difference:.3g} when read back; "
            "nothing was written"
        )
    return difference


def _write_state_dict(subject: Run | Ticket, module: nn.Module, images: Tensor, path: Path) -> Logits:
    state = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state))
    again = _emptied(module)
    again.load_state_dict(safetensors.torch.load_file(path))
    return again


def _write_prune(subject: Run | Ticket, module: nn.Module, images: Tensor, path: Path) -> Logits:
    pruned = _pruned(subject, copy.deepcopy(module))
    torch.save(pruned.state_dict(), path)
    again = _emptied(module)
    for layer, tensor, _ in _maskable(subject, again):
        torch_prune.identity(layer, tensor)  # type: ignore[no-untyped-call]
    again.load_state_dict(torch.load(path, weights_only=True))
    return again


def _pruned(subject: Run | Ticket, module: nn.Module) -> nn.Module:
    """The module under torch.nn.utils.prune, with the dense start of a ticket that carries one."""
    dense = None
    if isinstance(subject, Ticket) and subject.complete and subject.trained is None:
        dense = subject.start
    mask = ticket_of(subject).mask
    for layer, tensor, name in _maskable(subject, module):
        if dense is not None:
            getattr(layer, tensor).data.copy_(dense[name])
        torch_prune.custom_from_mask(layer, tensor, mask[name])  # type: ignore[no-untyped-call]
    return module


def _maskable(subject: Run | Ticket, module: nn.Module) -> list[tuple[nn.Module, str, str]]:
    """The layers with prunable weights, what they call these, and their names in the network."""
    network = module.network if isinstance(module, Normalized) else module
    mask = ticket_of(subject).mask
    parts = ((name.rpartition("."), name) for name in mask)
    return [(network.get_submodule(layer), tensor, name) for (layer, _, tensor), name in parts]


def _write_program(subject: Run | Ticket, module: nn.Module, images: Tensor, path: Path) -> Logits:
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(module, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:  # of a network that torch cannot trace, in any way
        raise ExportError(f"torch.export cannot trace this network: {reason(error):.200}") from error
    torch.export.save(program, path)
    again: Logits = torch.export.load(path).module()
    return again


def _write_onnx(subject: Run | Ticket, module: nn.Module, images: Tensor, path: Path) -> Logits:
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ExportError("ONNX needs two packages that are not there; pip install 'tombola[onnx]'")
    batch = torch.export.Dim("batch")
    try:
        with _quiet_exporter():
            torch.onnx.export(
                module, (images,), path, dynamo=True, dynamic_shapes=({0: batch},), external_data=False,
                input_names=["images"], output_names=["logits"], verbose=False,
            )  # fmt: skip
    except Exception as error:
        raise ExportError(f"torch.onnx cannot write this network: {reason(error):.200}") from error
    return _read_onnx(path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps back what torch's exporter says of its own parts: deprecations, operators of torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _read_onnx(path: Path) -> Logits:
    """The logits of an ONNX file: by ONNX Runtime if it is installed, else by the reference of onnx."""
    if importlib.util.find_spec("onnxruntime") is not None:
        session: Any = importlib.import_module("onnxruntime").InferenceSession(path.read_bytes())
    else:
        session = importlib.import_module("onnx.reference").ReferenceEvaluator(str(path))

    def logits(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return logits


def _emptied(module: nn.Module) -> nn.Module:
    """A copy of a module without its values, to be filled from a file."""
    empty = copy.deepcopy(module)
    for value in empty.state_dict().values():
        value.zero_()
    return empty


_WRITERS: dict[str, Callable[[Run | Ticket, nn.Module, Tensor, Path], Logits]] = {
    "state_dict": _write_state_dict,
    "prune": _write_prune,
    "torch.export": _write_program,
    "onnx": _write_onnx,
}
