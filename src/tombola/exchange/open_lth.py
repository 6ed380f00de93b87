"""Runs from the result folders of OpenLTH (github.com/facebookresearch/open_lth).

A level of a lottery experiment, ``replicate_1/level_3/main``, holds models by step (``model_ep160_it0.pth``)
and the mask (``mask.pth``); level 0 of the same replicate holds the dense start and the hyperparameters. The
layers of its networks have other names than those of ours, in the same order. ``logger`` holds what was
measured while it trained, a line ``name,iteration,value`` for each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tombola.data.imageset import DataLike
from tombola.errors import NetworkError, OddFile, TicketError, reason
from tombola.exchange.weights import described_network, run_from, state_of, without_prefix
from tombola.networks.network import Factory, Network
from tombola.ticket import unknown_state
from tombola.training.logged_values import LoggedValues
from tombola.training.run import History, Run
from tombola.untrusted import read_regular

# OpenLTH's networks that are ours, layer for layer.
_OURS = {"cifar_resnet_20": "resnet20", "cifar_resnet_20_16": "resnet20", "cifar_vgg_16": "vgg16"}
_MODEL = re.compile(r"model_ep(\d+)_it(\d+)\.pth")
_LOGGED = re.compile(r"(\w[\w .-]{0,59}),(\d{1,15}),(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|-?inf|nan)", re.ASCII)


def open_lth(
    folder: str | os.PathLike[str], *, data: DataLike, network: str | Factory | Network | None = None
) -> Run:
    """The run of one level of an OpenLTH experiment: its last model, its mask, and the start if it is kept.

    folder: such as ``lottery_.../replicate_1/level_3/main``. The dense start is read from level 0 beside it.
    data: what the network is for. OpenLTH normalises CIFAR-10 by other statistics; for its very inputs give
        ``tombola.normalized("cifar10", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))``.
    network: for those that tombola does not have; ``cifar_resnet_20`` and ``cifar_vgg_16`` are ``resnet20``
        and ``vgg16``. Tensors of other names are taken over in their order, where kinds and shapes agree.

    The ticket's round is the level, its epoch that of the start. ``run.history.frame()`` has what OpenLTH
    logged, a row an iteration, under its names, with accuracies in percent: ``test_accuracy``, ``test_loss``
    and ``test_examples``; where it logged ``train_...`` too, these are of passes in evaluation mode. What it
    did not log is absent, as are a history by epoch and a forgetting record.

    Raises as :func:`~tombola.run_from` does, and :class:`~tombola.errors.TicketError` for a folder without
    models or mask, and a log of another form.
    """
    place = Path(folder)
    place = place / "main" if (place / "main").is_dir() else place
    models = _models(place)
    if not models or not (place / "mask.pth").exists():
        lacks = "mask.pth" if models else "model_ep..._it....pth"
        raise TicketError(f"{place} has no {lacks}; give the folder of a level, as .../level_3/main")
    described = described_network({}, network or _network(place), data)
    state, mask = (state_of(path) for path in (models[max(models)], place / "mask.pth"))
    names = _names(state, described)
    first = min(models)
    dense = _models(_level_0(place)).get(first, models[first])
    run = run_from(
        _renamed(state, names),
        network=described,
        mask=_renamed(mask, names),
        start=_renamed(state_of(dense), names) if len(models) > 1 else None,
    )
    level = re.fullmatch(r"level_(\d+)", place.absolute().parent.name)
    ticket = replace(
        run.ticket,
        epoch=first[0] if run.ticket.has_start else 0,
        round=int(level[1]) if level else run.ticket.round,
        complete=run.ticket.has_start and (dense != models[first] or run.ticket.kept == run.ticket.total),
    )
    return replace(run, ticket=ticket, history=History((), _logged(place / "logger")))


def _logged(path: Path) -> LoggedValues | None:
    """What the log of a level says; None where there is none, or an empty one.

    Raises :class:`~tombola.errors.TicketError`, with the line, for one that OpenLTH does not write.
    """
    if not path.exists():
        return None
    try:
        text = read_regular(path, follow=True).decode()
        entries = [_entry(number, line) for number, line in enumerate(text.strip().splitlines(), 1)]
        return LoggedValues.of(entries) if entries else None
    except (OddFile, OSError, ValueError) as error:
        raise TicketError(f"{path} cannot be read: {reason(error)}; mend it or move it away") from error


def _entry(number: int, line: str) -> tuple[str, int, float]:
    """Name, iteration and value of a line of a log; ValueError for another line."""
    match = _LOGGED.fullmatch(line)
    if match is None:
        raise ValueError(
            f"line {number} is {line!r:.60} and no name,iteration,value such as test_loss,391,1.5"
        )
    name, iteration, value = match[1], int(match[2]), float(match[3])
    if not name.endswith("_accuracy"):
        return name, iteration, value
    if not 0 <= value <= 1:
        raise ValueError(f"line {number} is {line!r:.60}; accuracies of OpenLTH are shares from 0 to 1")
    return name, iteration, 100 * value


def _models(folder: Path) -> dict[tuple[int, int], Path]:
    """The models in a folder by epoch and iteration within it."""
    paths = folder.iterdir() if folder.is_dir() else ()
    found_names = ((path, _MODEL.fullmatch(path.name)) for path in paths)
    return {(int(match[1]), int(match[2])): path for path, match in found_names if match}


def _level_0(place: Path) -> Path:
    return place.absolute().parent.parent / "level_0" / place.name


def _network(place: Path) -> str:
    """Our name for the network that the hyperparameters name."""
    for folder in (place, _level_0(place)):
        path = folder / "hparams.log"
        if path.exists():
            match = re.search(
                r"\* model_name => (\S+)", read_regular(path, follow=True).decode(errors="replace")
            )
            name = match[1] if match else "unknown"
            if name in _OURS:
                return _OURS[name]
            raise NetworkError(
                f"tombola has no network {name!r:.60} of OpenLTH; say network=..., a factory of its layers"
            )
    raise NetworkError(f"no hparams.log for {place} names its network; say network=..., such as 'resnet20'")


def _names(state: Mapping[str, Tensor], network: Network) -> dict[str, str]:
    """The network's name for each tensor of a state: its own, or that of the tensor at the same place."""
    expected = unknown_state(network)
    own = without_prefix(dict(state), expected)
    if own.keys() == expected.keys():
        return dict(zip(state, own, strict=True))
    pairs = list(_paired(own, expected))
    if len(own) != len(expected) or len(pairs) < len(expected):
        parting = [list(tensors.items())[len(pairs) :][:1] for tensors in (own, expected)]
        seen = " and ".join(f"{name} {tuple(value.shape)}" for ((name, value),) in filter(None, parting))
        raise TicketError(
            f"the layers are not those of {network.written}: they part at {seen}; say network=..."
        )
    return dict(zip(state, (name for _, name in pairs), strict=True))


def _paired(own: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of one and the other, in their order, until kind or shape differ."""
    for name, other in zip(own, expected, strict=False):
        kinds = name.rpartition(".")[2], other.rpartition(".")[2]
        if kinds[0] != kinds[1] or own[name].shape != expected[other].shape:
            return
        yield name, other


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {names.get(name, name): value for name, value in tensors.items()}
