"""Runs and tickets from anybody's weights, so that measures can be taken of checkpoints trained elsewhere.

Weights come as a module, a ``state_dict`` or a file of one. What such a run does not have (its history, its
forgetting record, what training started from) is absent, and what asks for it says so.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import NetworkError, OddFile, TicketError, reason, unknown
from tombola.files import read_torch_save
from tombola.networks.network import Factory, Network
from tombola.networks.prunable import layout
from tombola.ticket import UNKNOWN_START, Mask, State, Ticket, apply_mask, unknown_state
from tombola.training.run import ForgettingRecord, History, NoForgettingRecord, Run
from tombola.untrusted import LARGEST_TENSORS, check_regular, open_regular

Weights = nn.Module | Mapping[str, Any] | str | os.PathLike[str]
"""A module, a state_dict, or a file that ``torch.save`` or safetensors wrote of one."""

# Under which checkpoints keep the state_dict among other things.
_NESTED = ("state_dict", "model_state_dict", "model", "net")
# That are taken off names, as wrappers of wrappers put them on.
_MOST_PREFIXES = 16
# How torch.nn.utils.prune keeps a pruned tensor.
_ORIGINAL, _MASK = "_orig", "_mask"


def run_from(
    weights: Weights,
    *,
    network: str | Factory | Network | None = None,
    data: DataLike | None = None,
    mask: Mask | None = None,
    start: Weights | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    forgetting: ForgettingRecord | None = None,
) -> Run:
    """A run of weights that were trained elsewhere.

    weights: a module, its ``state_dict``, or a file that ``torch.save`` or safetensors wrote of it, also as
        the ``"state_dict"`` of a checkpoint. Files are loaded with ``weights_only=True``. A prefix that all
        names share, such as DDP's ``module.``, is taken off.
    network: what the weights are of: a declared name, a factory, or the ``network`` of a ticket; by default
        copies of the module, whose run cannot enter a job.
    data: says how many channels, pixels and classes the network is for; not needed for a ``Network``.
    mask: of each prunable weight what is kept, True or 1; by default that of ``torch.nn.utils.prune`` where
        the weights have one, else what is not exactly 0. Pruned weights become exactly 0.
    start: the dense weights that training started from. Without them, what needs them says so: to train the
        ticket, to prune by a score that looks at the start, and controls that draw from it.
    precision: ``"bfloat16"`` for what was trained so on a GPU, and shall be measured like such runs.
    forgetting: the record of a :class:`~tombola.ForgettingRecorder` that saw the training.

    The run has no history, and no other forgetting record. Barriers and probes of it are to the bit those of
    a native run with these weights.

    Raises :class:`~tombola.errors.NetworkError` for a network that is not named or not known, and
    :class:`~tombola.errors.TicketError` for a file that cannot be read or weights of another network.
    """
    described, state, own_mask = _read(weights, network, data)
    kept = _checked_mask(described, state, mask if mask is not None else own_mask)
    if start is not None:
        _, started, _ = _read(start, described, None)
        ticket = Ticket(described, started, _dense(kept)).with_mask(kept)
    else:
        empty = unknown_state(described)
        ticket = Ticket(described, empty, kept, start_fingerprint=UNKNOWN_START, complete=False)
        ticket = replace(ticket, round=int(ticket.kept < ticket.total), density=1.0 - ticket.sparsity)
    final = apply_mask(state, kept)
    device = "cuda" if precision == "bfloat16" else "cpu"
    record = forgetting or NoForgettingRecord()
    return Run(ticket, final, History(()), record, -1, precision, device, engine="elsewhere")


def ticket_from(
    weights: Weights,
    *,
    network: str | Factory | Network | None = None,
    data: DataLike | None = None,
    mask: Mask | None = None,
    epoch: int = 0,
) -> Ticket:
    """A ticket that starts from given weights: pretrained ones, or a pruned network to train on.

    weights, network, data, mask: as for :func:`run_from`.
    epoch: the place in the schedule at which the weights count as taken.

    A mask other than full counts as one pruning. With ``mask`` or the pairs of ``torch.nn.utils.prune`` the
    weights at pruned positions are known too; otherwise controls that need those say so.

    Raises as :func:`run_from` does.
    """
    described, state, own_mask = _read(weights, network, data)
    explicit = mask if mask is not None else own_mask
    kept = _checked_mask(described, state, explicit)
    ticket = Ticket(described, state, _dense(kept), epoch=epoch).with_mask(kept)
    return ticket if explicit is not None or ticket.kept == ticket.total else replace(ticket, complete=False)


def _read(
    weights: Weights, network: str | Factory | Network | None, data: DataLike | None
) -> tuple[Network, dict[str, Tensor], dict[str, Tensor] | None]:
    """The network, its weights (dense ones, where known) in its order, and the mask that is beside them."""
    state = state_of(weights)
    described = described_network(weights, network, data)
    expected = unknown_state(described)
    state = without_prefix(state, expected)
    state, mask = _without_pruning(state)
    return described, _checked(described, state, expected), mask


def described_network(
    weights: Weights, network: str | Factory | Network | None, data: DataLike | None
) -> Network:
    """The description of the network that weights are of."""
    if isinstance(network, Network):
        return network
    if network is None and not isinstance(weights, nn.Module):
        raise NetworkError("network is not given, and weights alone do not tell it; say network=...")
    if data is None:
        raise NetworkError(
            "data is not given: say data=..., which tells channels, pixels and classes, or give the network "
            "of a ticket, network=ticket.network"
        )
    if network is None and torch_prune.is_pruned(weights):  # type: ignore[no-untyped-call]
        raise NetworkError(
            "the module is under torch.nn.utils.prune, so no copies of it can be made; say network=..., or "
            "make the pruning permanent with torch.nn.utils.prune.remove"
        )
    factory: Any = weights if network is None else network
    data = load_data(data)
    return Network.of(
        factory, channels=data.channels, size=data.size, classes=data.classes, vocabulary=data.vocabulary
    )


def state_of(weights: Weights) -> dict[str, Tensor]:
    """The tensors of a module, a state_dict, or a file, by name."""
    if isinstance(weights, nn.Module):
        return dict(weights.state_dict())
    content = _plain(_content(Path(weights)) if isinstance(weights, str | os.PathLike) else weights)
    if not isinstance(content, Mapping):
        raise TicketError(
            f"weights are a {type(content).__name__}; give a module, a state_dict or a file of one"
        )
    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            content = _plain(content[key])
            break
    odd = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise TicketError(
            f"weights have {odd[0]!r}, a {type(content[odd[0]]).__name__} and no tensor; give a state_dict"
        )
    for name, value in content.items():
        if not isinstance(name, str):
            raise TicketError(f"weights have a {type(name).__name__} for a name; give a state_dict")
        if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_meta:
            raise TicketError(f"weights have {name!r}, which is sparse, quantized or without values")
    return dict(content)


def _plain(content: Any) -> Any:
    """A dictionary without attributes, which in a file may be called like its methods; else the same."""
    return dict(dict.items(content)) if isinstance(content, dict) else content


def _content(path: Path) -> Any:
    """What a file holds that torch.save or safetensors wrote; nothing in it is executed."""
    if not path.exists():
        raise TicketError(f"no file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            check_regular(path, LARGEST_TENSORS, follow=True)
            return load_file(path)
        with open_regular(path, LARGEST_TENSORS, follow=True) as file:
            return read_torch_save(io.BufferedReader(file))
    except (OddFile, OSError, SafetensorError) as error:
        raise TicketError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise TicketError(
            f"{path} is no file of tensors alone: {reason(error).split('. ')[0]:.150}; save "
            "module.state_dict() where it came from"
        ) from error


def without_prefix(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without a prefix that all names share and the network's do not."""
    for _ in range(_MOST_PREFIXES):
        if not state or not expected.keys().isdisjoint(state):
            break
        first = next(iter(state)).partition(".")[0] + "."
        if not all(name.startswith(first) and name != first for name in state):
            break
        if all(name.startswith(first) for name in expected):
            break
        state = {name.removeprefix(first): value for name, value in state.items()}
    return state


def _without_pruning(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The state with weights under their own names again, and the masks of torch.nn.utils.prune, if any."""
    pruned = [
        name.removesuffix(_ORIGINAL)
        for name in state
        if name.endswith(_ORIGINAL) and name.removesuffix(_ORIGINAL) + _MASK in state
    ]
    if not pruned:
        return state, None
    masks = {name: state[name + _MASK] for name in pruned}
    rest = {name: value for name, value in state.items() if not name.endswith(_MASK)}
    return {name.removesuffix(_ORIGINAL): value for name, value in rest.items()}, masks


def _checked(
    network: Network, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copies of the network's tensors, in its order and types; TicketError unless these are they."""
    problems = []
    for what, names in (("lack", expected.keys() - state), ("have odd", state.keys() - expected)):
        if names:
            some = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            problems.append(f"{what} {some}")
    problems += [
        f"have {name} in complex numbers" for name in expected if name in state and state[name].is_complex()
    ][:3]
    problems += [
        f"have {name} as {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ][:3]
    if problems:
        raise TicketError(
            f"these weights are not of network {network.written}: they {'; they '.join(problems)}"
        )
    return {
        name: state[name].detach().to("cpu", value.dtype).clone(memory_format=torch.contiguous_format)
        for name, value in expected.items()
    }


def _checked_mask(network: Network, state: State, mask: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """A mask of all prunable weights, in the network's order; those that it does not name are kept."""
    prunable = layout(network).prunable
    if mask is None:
        return {name: state[name] != 0 for name in prunable}
    for name, keep in mask.items():
        if name not in prunable:
            raise TicketError(f"mask: {unknown('prunable weight', name, prunable)}")
        if keep.shape != state[name].shape or bool(((keep != 0) & (keep != 1)).any()):
            raise TicketError(f"the mask of {name} must be {tuple(state[name].shape)} of 0 and 1, or bool")
    full = {name: torch.ones(state[name].shape, dtype=torch.bool) for name in prunable}
    return full | {name: mask[name].detach().cpu() != 0 for name in prunable if name in mask}


def _dense(mask: Mask) -> dict[str, Tensor]:
    """The mask that keeps everything of the same weights."""
    return {name: torch.ones_like(keep) for name, keep in mask.items()}
