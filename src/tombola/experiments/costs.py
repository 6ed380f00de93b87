"""What a job costs, told from its description alone: nothing is loaded, drawn or trained.

An epoch is a pass of training over the full train split of the job's data, so 200 epochs on 1% of it are 2
(as in the paper's own count). Work is counted in images as a training takes them; an image that only passes
forward counts a third.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tombola.data.imageset import Data
from tombola.data.load import load_data
from tombola.data.sizes import SIZES, Size
from tombola.errors import NetworkError
from tombola.lab.arguments import from_json, written_defaults
from tombola.lab.job import Job
from tombola.networks.network import Network
from tombola.networks.versions import as_written, bare_name
from tombola.training.recipe import Recipe

_FORWARD = 1 / 3
_FORWARD_BATCH = 256
_SMALL, _HEADERS = 4_096, 10_240
"""Bytes of a finished job without tensors, and what a file of tensors says of itself."""


@dataclass(frozen=True)
class Cost:
    """What one job costs, those that it needs not counted.

    kind: the function's declared name. epochs: of training. heads: whether a linear head is trained.
    images: as trainings take them. speed: network and batch size at which they pass. disk: bytes.
    """

    kind: str
    epochs: float = 0.0
    heads: bool = False
    images: float = 0.0
    speed: tuple[str, int] = ("", _FORWARD_BATCH)
    disk: float = _SMALL


@dataclass(frozen=True)
class _Lineage:
    """What is known of the ticket that a job gives or is about: its network, epoch and share of weights.

    network: as it stands in the job that initialised it.
    """

    network: str = ""
    epoch: int = 0
    density: float = 1.0

    @property
    def speed_name(self) -> str:
        """What its speed is known by: versions of a network train alike."""
        return bare_name(self.network)


class Costs:
    """The costs of jobs, each worked out once."""

    def __init__(self) -> None:
        self._lineages: dict[str, _Lineage] = {}
        self._costs: dict[str, Cost] = {}
        self._recipes: dict[str, Recipe] = {}  # of many jobs a few
        self._sizes = dict(SIZES)
        self.unsized: set[str] = set()
        """Networks that cannot be built for images as CIFAR-10's, whose weights are counted as nothing."""

    def of(self, job: Job) -> Cost:
        """What a job costs; any function that is not known to train or to pass images counts as free."""
        if job.name not in self._costs:
            count = _COUNTED.get(job.declaration.name)
            cost = count(self, job) if count else Cost(job.declaration.name)
            self._costs[job.name] = cost
        return self._costs[job.name]

    def lineage(self, job: Job) -> _Lineage:
        """Of the ticket, run or point that a job gives."""
        if job.name not in self._lineages:
            self._lineages[job.name] = self._lineage(job)
        return self._lineages[job.name]

    def _lineage(self, job: Job) -> _Lineage:
        kind, arguments = job.declaration.name, job.arguments
        if kind == "initialize":
            return _Lineage(arguments["network"])
        if kind == "ticket_at":
            return self.lineage(arguments["point"])
        source = next(
            (arguments[key] for key in ("ticket", "run", "start", "subject") if key in arguments), None
        )
        behind = self.lineage(source) if isinstance(source, Job) else _Lineage()
        if kind in ("pretrain", "trunk"):
            return replace(behind, epoch=_argument(job, "epochs"))
        if kind == "prune":
            return replace(behind, density=behind.density * (1 - _argument(job, "fraction")))
        if kind == "densify":
            return replace(behind, density=1.0)
        return replace(behind, epoch=0) if kind == "reinitialize" else behind

    def _recipe(self, job: Job) -> Recipe:
        written = _argument(job, "recipe")
        key = repr(written)
        if key not in self._recipes:
            self._recipes[key] = from_json(written, Recipe)
        return self._recipes[key]

    def size(self, job: Job, data: Any) -> Size:
        """The size of the data set among a job's arguments, loaded only if it is none that comes by name.

        Raises :class:`~tombola.errors.DataError` for a data set of the caller's own that cannot be loaded.
        """
        if isinstance(data, Job):
            whole = self.size(data, data.arguments["data"])
            return replace(whole, share=whole.share * _share(data, whole))
        name = data["data"]
        if name not in self._sizes:
            self._sizes[name] = _size_of(load_data(job.data[name]))
        return self._sizes[name]

    def _training(self, job: Job) -> Cost:
        behind = self.lineage(job.arguments["ticket"])
        return self._trained(job, behind, self._recipe(job).epochs - behind.epoch)

    def _pretraining(self, job: Job) -> Cost:
        return self._trained(job, self.lineage(job), _argument(job, "epochs"))

    def _trunk(self, job: Job) -> Cost:
        after = job.arguments.get("after")
        done = self.lineage(after).epoch if after else 0
        cost = self._trained(job, self.lineage(job), _argument(job, "epochs") - done)
        return replace(cost, disk=cost.disk * (2 if self._recipe(job).momentum else 1))

    def _trained(self, job: Job, lineage: _Lineage, passes: int) -> Cost:
        size = self.size(job, job.arguments["data"])
        images = passes * (size.train * size.share + _FORWARD * size.test)
        weights = self._weights(lineage.network)
        return Cost(
            job.declaration.name, passes * size.share, images=images,
            speed=(lineage.speed_name, self._recipe(job).batch_size),
            # Surviving weights, the mask as bits, the forgetting record.
            disk=_SMALL + _HEADERS + weights * (4 * lineage.density + 1 / 8) + 4 * size.train * size.share,
        )  # fmt: skip

    def _start(self, job: Job) -> Cost:
        return Cost(job.declaration.name, disk=4 * self._weights(job.arguments["network"]))

    def _ticket(self, job: Job) -> Cost:
        weights = self._weights(self.lineage(job).network)
        return Cost(job.declaration.name, disk=_SMALL + _HEADERS + weights / 8)

    def _weights(self, network: str) -> int:
        try:
            return weights_of(network)
        except NetworkError:
            self.unsized.add(bare_name(network))
            return 0

    def _heads(self, job: Job) -> Cost:
        size = self.size(job, job.arguments["data"])
        recipe: Recipe = from_json(_argument(job, "recipe"), Recipe)
        times = 2 if job.declaration.name == "transfer" else 1  # with frozen batch norm, too
        images = times * _FORWARD * (recipe.epochs * size.train * size.share + size.test)
        network = self.lineage(job).speed_name
        return Cost(job.declaration.name, heads=True, images=images, speed=(network, _FORWARD_BATCH))

    def _lines(self, job: Job) -> Cost:
        size = self.size(job, job.arguments["data"])
        runs = job.arguments.get("runs", [job.arguments.get("first")])
        copies = len(runs) + ("trunk" in job.arguments) if "runs" in job.arguments else 2
        seen = _passed(job, size)
        images = _FORWARD * _argument(job, "points") * seen * copies * (copies - 1) / 2
        network = self.lineage(runs[0]).speed_name if isinstance(runs[0], Job) else ""
        return Cost(job.declaration.name, images=images, speed=(network, _FORWARD_BATCH))

    def _forward(self, job: Job) -> Cost:
        size = self.size(job, job.arguments["data"])
        images = _FORWARD * _passed(job, size)
        return Cost(job.declaration.name, images=images, speed=(self.lineage(job).speed_name, _FORWARD_BATCH))


_COUNTED: dict[str, Callable[[Costs, Job], Cost]] = {
    "initialize": Costs._start,
    "prune": Costs._ticket,
    "train": Costs._training,
    "pretrain": Costs._pretraining,
    "trunk": Costs._trunk,
    "probe": Costs._heads,
    "transfer": Costs._heads,
    "instability": Costs._lines,
    "barrier": Costs._lines,
    "untrained": Costs._forward,
}


def _size_of(data: Data) -> Size:
    return Size(len(data.train), len(data.test), data.classes)


def _passed(job: Job, size: Size) -> float:
    """Images that an evaluation passes: the test split and, to measure batch norm anew, the train split."""
    return size.test + (size.train * size.share if _argument(job, "recalibrate") else 0)


def _share(job: Job, whole: Size) -> float:
    """How much of its data the subset that a job makes is."""
    if job.declaration.name == "drop-by-difficulty":
        return 1.0 - float(job.arguments["share"])
    if "shots" in job.arguments:
        return float(job.arguments["shots"] * whole.classes / whole.train)
    return float(job.arguments.get("share", 1.0))


@cache
def weights_of(network: str) -> int:
    """Number of weights of a declared network, for images and classes as CIFAR-10's.

    network: as it stands in a job.

    It is built without memory for its weights and without drawing them.
    """
    if not network:
        return 0
    with torch.device("meta"), _Undrawn():
        module = Network.of(as_written(network), channels=3, size=(32, 32), classes=10).build()
    return sum(parameter.numel() for parameter in module.parameters())


class _Undrawn(TorchFunctionMode):
    """Within it, nothing is drawn: even without memory, drawing makes torch import its compiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", None) in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def _argument(job: Job, key: str) -> Any:
    """An argument of a job, or its default."""
    return job.arguments[key] if key in job.arguments else written_defaults(job.declaration.function)[key]
