"""Tensor files: safetensors files with a JSON description and checksums, written atomically.

Tickets, runs, checkpoints and the store's tensors have this form. Reading one executes nothing: tensors are
safetensors, everything else is JSON in its metadata. A file that was cut short or altered is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tombola.disk import write_whole
from tombola.errors import TicketError, reason, unwritable
from tombola.untrusted import LARGEST_TENSORS, OTHER_FORM, check_regular, json_object

_MOST_DIMENSIONS = 64
"""Of a tensor, in PyTorch."""


def write_tensors(
    path: str | os.PathLike[str],
    kind: str,
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    synced: bool = True,
) -> None:
    """Write a tensor file atomically.

    kind: what it holds, such as ``"tombola.ticket/1"``; readers ask for it.
    description: JSON values. synced: as for :func:`~tombola.disk.write_whole`.

    Raises :class:`~tombola.errors.StoreError` when the place cannot be written to.
    """
    path = Path(path)
    contiguous = _apart({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    metadata = {
        "kind": kind,
        "description": json.dumps(description, sort_keys=True, allow_nan=False),
        "checksums": json.dumps({name: checksum(tensor) for name, tensor in sorted(contiguous.items())}),
    }
    metadata["seal"] = _seal(metadata)
    try:
        # Not save_file, whose files only their owner may read: a store is often shared.
        content = save(contiguous, metadata)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error
    write_whole(path, content, make_folder=True, synced=synced)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each in memory of its own: safetensors writes no two that share theirs."""
    owners: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        owner = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if owner in owners else tensor
        owners.add(owner)
    return apart


def read_tensors(
    path: str | os.PathLike[str], kind: str, *, only: str = "", follow: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file that :func:`write_tensors` wrote.

    only: prefix of the names of tensors that are wanted; the others are not read, nor checked.
    follow: whether the file may be a link, as where the user named it.

    Raises :class:`~tombola.errors.TicketError` when there is no such file, or it is of another kind,
    truncated or altered.
    """
    path = Path(path)
    if not path.exists():
        raise TicketError(f"no file {str(path)!r}")
    with _opened(path, follow=follow) as file:
        metadata = dict(file.metadata() or {})
        names = list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names if name.startswith(only)}
    if metadata.get("kind") != kind:
        raise TicketError(f"{path} holds {metadata.get('kind', 'something')!r}, not {kind!r}")
    if metadata.get("seal") != _seal(metadata):
        raise TicketError(f"{path} was altered: its description does not match its seal")
    checksums = _metadata_object(path, metadata, "checksums")
    for name, tensor in tensors.items():
        if checksums.get(name) != checksum(tensor):
            raise TicketError(f"{path} was altered: tensor {name!r} does not match its checksum")
    if checksums.keys() != set(names):
        raise TicketError(f"{path} was altered: tensors are missing")
    return _metadata_object(path, metadata, "description"), tensors


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description in a tensor file, read without the tensors and checked against its seal.

    Raises :class:`~tombola.errors.TicketError` if it is damaged.
    """
    with _opened(path) as file:
        metadata = dict(file.metadata() or {})
    if metadata.get("seal") != _seal(metadata):
        raise TicketError(f"{path} was altered: its description does not match its seal")
    return _metadata_object(path, metadata, "description")


def file_kind(path: str | os.PathLike[str]) -> str:
    """The kind of a tensor file that the user named, which may be a link.

    Raises :class:`~tombola.errors.TicketError` if it is not one of tombola's.
    """
    with _opened(path, follow=True) as file:
        kind = (file.metadata() or {}).get("kind")
    if kind is None:
        raise TicketError(f"{path} is a safetensors file, but not one of tombola's")
    return str(kind)


@contextmanager
def _opened(path: str | os.PathLike[str], *, follow: bool = False) -> Iterator[Any]:
    """A tensor file, opened; TicketError if it is none, or cannot be read meanwhile."""
    try:
        check_regular(path, LARGEST_TENSORS, follow=follow)
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise TicketError(f"{path} is damaged or not a tensor file: {reason(error)}") from error


def read_torch_save(file: IO[bytes]) -> Any:
    """What ``torch.save`` wrote, on the CPU; nothing in it is executed, and it takes no more than its size.

    Raises ValueError for anything else.
    """
    try:
        _check_torch_save(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile, *OTHER_FORM) as error:
        raise ValueError(f"{type(error).__name__} {reason(error)}") from error


# How pickles hold bytes: a few of them can say that they have any number, or double those of one another.
_BYTES = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode"}
# Values in a tuple and those within it.
_LARGEST_TUPLE = 2**16
# Pickles at the beginning of a file as torch wrote them before it wrote zip files.
_PICKLES = 5


def _check_torch_save(file: IO[bytes]) -> None:
    """Raises ValueError for a file that would take more memory than its size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        file.seek(0)
        for _ in range(_PICKLES):
            _check_pickle(file)
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > size:
            raise ValueError("its members are larger than the file")
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as content:
                    _check_pickle(content)


def _check_pickle(content: IO[bytes]) -> None:
    """Raises ValueError for a pickle that grows: by bytes, or by tuples that hold one another many times."""
    stack: list[int] = []  # the sizes of tuples, 1 for all else, 0 for a mark
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL" and argument in _BYTES:
            raise ValueError("it holds bytes, which could be of any number")
        if opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
            continue
        if opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
            continue
        count = len(opcode.stack_before)
        items = 0
        if pickletools.markobject in opcode.stack_before:
            count = opcode.stack_before.index(pickletools.markobject)
            while size := stack.pop():
                items += size
        for _ in range(count):
            items += stack.pop()
        if opcode.name.startswith("TUPLE"):
            stack.append(1 + items)
            if items > _LARGEST_TUPLE:  # to hash it takes as long as if it held none twice
                raise ValueError(f"it holds a tuple of {items:,} values")
        else:
            stack += [0 if item is pickletools.markobject else 1 for item in opcode.stack_after]


def checksum(tensor: Tensor) -> str:
    """SHA-256 over type, shape and values of a tensor."""
    array = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{array.dtype} {tuple(array.shape)} ".encode())
    digest.update(array.view(-1).view(torch.uint8).numpy().data if array.numel() else b"")
    return digest.hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names and values of tensors, in any order."""
    parts = {name: checksum(tensor) for name, tensor in tensors.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def pack_bits(mask: Tensor) -> Tensor:
    """A bool tensor of any shape as uint8 with eight positions a byte, the first in the highest bit."""
    return torch.from_numpy(np.packbits(mask.cpu().contiguous().numpy().reshape(-1)))


def unpack_bits(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The bool tensor of that shape which :func:`pack_bits` packed.

    shape: may be anything that a file says; :class:`~tombola.errors.TicketError` if it is none, or another's.
    """
    # A list times a number would be as many lists, and a product of a million numbers has millions of digits.
    sizes = all(isinstance(size, int) and 0 <= size < 2**63 for size in shape)
    if not sizes or len(shape) > _MOST_DIMENSIONS:
        raise TicketError(f"a packed mask has shape {shape!s:.60}, which is none of a tensor")
    count = math.prod(shape)  # of any size, unlike numpy's, which overflows
    if packed.dtype != torch.uint8 or packed.numel() != (count + 7) // 8:
        raise TicketError(
            f"a packed mask of shape {shape} has {(count + 7) // 8} bytes; got {packed.numel()}"
        )
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool)).reshape(shape)


def _metadata_object(path: str | os.PathLike[str], metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """A JSON object in the metadata, which is untrusted: a seal does not prove who wrote it."""
    try:
        return json_object(metadata.get(key, ""))
    except ValueError as error:
        raise TicketError(f"{path} is damaged or not a tensor file: its {key}: {reason(error)}") from error


def _seal(metadata: Mapping[str, str]) -> str:
    """SHA-256 over kind, description and checksums."""
    parts = [metadata.get(key, "") for key in ("kind", "description", "checksums")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
