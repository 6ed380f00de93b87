"""Which positions of a network's tensors are one and the same unit.

Every axis of every parameter begins with units of its own. The network is then run once
(:mod:`tombola.networks.unit_trace`), and each operation says which units are one, such as a layer's inputs
and what went into it, or the two sides of an addition, and which are fixed: inputs, outputs, pixels of a
kernel (:mod:`tombola.networks.unit_rules`). What is left are the units that may change places
(:mod:`tombola.networks.symmetry`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tombola.errors import NetworkError

Units = np.ndarray
"""The unit of each position of an axis, int64 ``(size,)``."""
AxisUnits = Mapping[int, Units]
"""The units of those axes of a tensor that have any; all other positions are fixed."""


@dataclass
class Piece:
    """A parameter or buffer, or of the weights of a grouped convolution one group.

    name: in the ``state_dict``. start, stop: the rows that it has of the tensor.
    units: of each axis of more than one position.
    """

    name: str
    start: int
    stop: int
    units: dict[int, Units]


@dataclass
class UnitRecord:
    """What a pass of a network said about its units.

    pieces: by name of the tensor. grouped: by name of the weight of a grouped convolution, the units that
    each group takes and gives, ``(groups, units)`` each. marked: sets of units of which no member may change
    places with a unit outside.
    """

    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    grouped: dict[str, tuple[Units, Units]] = field(default_factory=dict)
    marked: list[Units] = field(default_factory=list)
    _parents: list[int] = field(default_factory=list)
    _fixed: list[int] = field(default_factory=list)

    def new_units(self, count: int) -> Units:
        """So many units that are not known to be any other."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def unite(self, first: Units, second: Units) -> None:
        """Say that units are one, position by position."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            self._parents[self._root(one)] = self._root(other)

    def fix(self, units: Units) -> None:
        """Say that units must stay where they are."""
        self._fixed.extend(units.tolist())

    def _root(self, unit: int) -> int:
        while self._parents[unit] != unit:
            self._parents[unit] = unit = self._parents[self._parents[unit]]
        return unit

    def settled(self) -> tuple[Units, Units]:
        """Of every unit the one that stands for all that are one with it, and whether that one is fixed."""
        roots = np.array([self._root(unit) for unit in range(len(self._parents))], dtype=np.int64)
        fixed = np.zeros(len(roots), dtype=bool)
        fixed[roots[self._fixed]] = True
        return roots, fixed


class UnitMap:
    """The units of all tensors of a pass so far.

    record: what was said of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.record = UnitRecord()
        self._path: list[str] = []
        self._names: dict[int, str] = {}
        # The tensors are kept, so that no other one gets their identity.
        self._known: dict[int, tuple[Tensor, AxisUnits]] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) not in self._names:
                self._names[id(tensor)] = name
                sizes = tensor.shape if tensor.is_floating_point() else ()  # what counts or indexes is fixed
                units = {axis: self.record.new_units(size) for axis, size in enumerate(sizes) if size > 1}
                rows = tensor.shape[0] if tensor.ndim else 1
                self.record.pieces[name] = [Piece(name, 0, rows, units)]
                self._known[id(tensor)] = tensor, units

    def name_of(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer; None of any other tensor."""
        return self._names.get(id(tensor))

    def enter(self, path: str, kind: str) -> None:
        """Note that a module of that path and class begins to run."""
        self._path.append(f"{path or 'the network'} ({kind})")

    def leave(self) -> None:
        """Note that the module that began last is done."""
        self._path.pop()

    def units_of(self, tensor: Tensor) -> AxisUnits:
        """The units of a tensor's axes, as far as they have any."""
        return self._known[id(tensor)][1] if id(tensor) in self._known else {}

    def units_along(self, tensor: Tensor, axis: int) -> Units | None:
        """The units of one axis, which may be counted from the end; None where positions are fixed."""
        return self.units_of(tensor).get(axis % max(tensor.ndim, 1))

    def set_units(self, tensor: Tensor, units: AxisUnits) -> None:
        """Say which units a tensor has."""
        self._known[id(tensor)] = tensor, {axis: value for axis, value in units.items() if len(value) > 1}

    def unite(self, first: Units | None, second: Units | None) -> Units | None:
        """Say that the units of two axes are one; against an axis of fixed positions they are fixed."""
        if first is None or second is None:
            self.fix(first if second is None else second)
            return None
        self.record.unite(first, second)
        return first

    def fix(self, units: Units | None) -> None:
        """Say that units must stay where they are."""
        if units is not None:
            self.record.fix(units)

    def parameter_groups(self, weight: Tensor, groups: int) -> list[Piece] | None:
        """The groups of a grouped convolution's weights; None where these are no parameter."""
        name = self.name_of(weight)
        if name is None:
            return None
        pieces = self.record.pieces[name]
        if len(pieces) != groups and len(pieces) == 1:
            ungrouped, rows = pieces[0], weight.shape[0] // groups
            pieces = []
            for first in range(0, weight.shape[0], rows):
                units = {axis: self.record.new_units(len(value)) for axis, value in ungrouped.units.items()}
                if 0 in ungrouped.units:
                    units[0] = ungrouped.units[0][first : first + rows]
                pieces.append(Piece(name, first, first + rows, units))
            self.record.pieces[name] = pieces
        return pieces if len(pieces) == groups else None

    def refuse(
        self, operation: str, why: str = "what it does to the units of a layer is not known"
    ) -> NoReturn:
        """Raises NetworkError for an operation of the module that runs."""
        where = self._path[-1] if self._path else "the network"
        raise NetworkError(f"units cannot be followed through {operation} in {where}: {why}")


@dataclass(frozen=True)
class Operation:
    """An operation that was called, with what came of it."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    result: Any

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.arguments[place] if place < len(self.arguments) else self.options.get(name, default)


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among values, also within lists and mappings."""
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))
