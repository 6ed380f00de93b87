"""The permutations of hidden units that leave a network's outputs as they are.

A unit is what one number of a layer's outputs is called by: a channel, a neuron, a place of a residual
stream. Units form a group where any two of them may change places: they occur in the same axes of the same
tensors, equally often. The groups are derived from a pass of the network (:mod:`tombola.networks.units`), so
that no network needs a description by hand, and are tried before they are used: a permuted network must give
the outputs that it gave. The groups of a grouped convolution may change places as a whole, too, where they
are alike. Where a network has more symmetries than are found, as the exchange of attention heads, its units
stay together; what is found is never too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tombola import seeds
from tombola.errors import NetworkError, reason
from tombola.networks.network import Network
from tombola.networks.prunable import tied_names
from tombola.networks.unit_trace import follow_units
from tombola.networks.units import Piece, UnitRecord

Permutations = Sequence[np.ndarray]
"""For each group, int64 ``(size,)``: the unit that comes to stand at each place."""

_EQUAL, _EQUAL_FLOAT32 = 1e-7, 1e-3
"""Largest difference of outputs, in float64 and in float32, as a share of the largest output."""


@dataclass(frozen=True, eq=False)
class UnitAxis:
    """An axis of a tensor, or of some of its rows, along which the units of a group lie.

    name: of the tensor in the ``state_dict``. rows: first and last (exclusive), along its first axis.
    dim: the axis. places: int64 ``(units, times)``, the positions of each unit along it, within the rows.
    """

    name: str
    rows: tuple[int, int]
    dim: int
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units any two of which may change places.

    size: how many. axes: where they occur; a permutation moves them in all of these at once.
    members: where what changes places are the groups of a grouped convolution, each with all its inputs and
        outputs: the numbers of the groups of units that each of them has; empty for single units.
    """

    size: int
    axes: tuple[UnitAxis, ...]
    members: tuple[tuple[int, ...], ...] = ()

    @property
    def name(self) -> str:
        """Where the units first occur: a tensor, and axis, row and place within it."""
        first = self.axes[0]
        place = f"{first.name}:{first.dim}:{first.rows[0]}:{first.places[0, 0]}"
        return f"groups of {place}" if self.members else place


@dataclass(frozen=True, eq=False)
class Symmetry:
    """The groups of interchangeable units of a network.

    groups: those of single units, in the order of the network's tensors, after those whose "units" are the
        groups of a grouped convolution, which move first.
    tied: further names of tensors that stand in a ``state_dict`` more than once, with their first name.
    """

    groups: tuple[UnitGroup, ...]
    tied: Mapping[str, str]

    @property
    def units(self) -> int:
        """How many units may change places."""
        return sum(group.size for group in self.groups)

    def identity(self) -> list[np.ndarray]:
        """The permutations that leave all units where they are."""
        return [np.arange(group.size) for group in self.groups]

    def drawn(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Permutations drawn uniformly at random."""
        return [generator.permutation(group.size) for group in self.groups]

    def permuted(self, state: Mapping[str, Tensor], permutations: Permutations) -> dict[str, Tensor]:
        """Tensors with the shapes of the network's, such as weights or masks, with their units permuted.

        state: some of the entries of a ``state_dict``, by name; those without units are given back as they
            are.
        """
        moved = dict(state)
        for outer in (True, False):  # groups of grouped convolutions before the units within them
            orders: dict[tuple[str, tuple[int, int], int], list[tuple[UnitAxis, np.ndarray]]] = {}
            for group, permutation in zip(self.groups, permutations, strict=True):
                if bool(group.members) == outer and (permutation != np.arange(group.size)).any():
                    for axis in group.axes:
                        orders.setdefault((axis.name, axis.rows, axis.dim), []).append((axis, permutation))
            for (name, rows, dim), moves in orders.items():
                if name in moved and not moved[name].is_meta:  # of a start only the shapes may be known
                    if moved[name] is state[name]:
                        moved[name] = state[name].clone()
                    part = moved[name][slice(*rows)]
                    part.copy_(part.index_select(dim, order_along(moves, part.shape[dim])))
        return moved | {name: moved[first] for name, first in self.tied.items() if name in moved}


def order_along(moves: Iterable[tuple[UnitAxis, np.ndarray]], length: int) -> Tensor:
    """The index, int64 ``(length,)``, that permutes the units of some groups along one axis of that length.

    moves: of each group where its units lie along the axis, and its permutation.
    """
    order = np.arange(length)
    for axis, permutation in moves:
        order[axis.places] = axis.places[permutation]
    return torch.from_numpy(order)


def _groups(record: UnitRecord) -> tuple[UnitGroup, ...]:
    """The units that occur in the same axes equally often, and are not fixed, put together."""
    roots, fixed = record.settled()
    axes = [
        (piece, dim, roots[units])
        for pieces in record.pieces.values()
        for piece in pieces
        for dim, units in piece.units.items()
    ]
    occurrences: dict[int, list[tuple[int, int]]] = {}
    for index, units in enumerate(
        [units for _, _, units in axes] + [roots[units] for units in record.marked]
    ):
        present, counts = np.unique(units[~fixed[units]], return_counts=True)
        for unit, count in zip(present.tolist(), counts.tolist(), strict=True):
            occurrences.setdefault(unit, []).append((index, count))
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for unit, where in occurrences.items():
        alike.setdefault(tuple(where), []).append(unit)
    marked = [frozenset(roots[units].tolist()) for units in record.marked]
    exchanged = []
    for name, (inputs, outputs) in record.grouped.items():
        blocks = np.hstack([roots[inputs], roots[outputs]])
        if _are_exchangeable(name, blocks, axes, occurrences, marked):
            exchanged.append((name, blocks))
    # Units of groups that may be exchanged stand in the order in which they are exchanged.
    rank = {
        unit: place
        for _, blocks in exchanged
        for block in blocks.tolist()
        for place, unit in enumerate(block)
    }
    inner: list[UnitGroup] = []
    number_of: dict[int, int] = {}
    for shared, units in alike.items():
        lie = [(axes[index], times) for index, times in shared if index < len(axes)]
        if len(units) > 1 and lie:
            ordered = np.array(sorted(units, key=lambda unit: (rank.get(unit, unit), unit)))
            number_of.update(dict.fromkeys(units, len(exchanged) + len(inner)))
            inner.append(
                UnitGroup(len(units), tuple(_unit_axis(*axis, ordered, times) for axis, times in lie))
            )
    outer = []
    for name, blocks in exchanged:
        members = tuple(
            tuple(sorted({number_of[unit] for unit in block if unit in number_of}))
            for block in blocks.tolist()
        )
        outer.append(UnitGroup(len(blocks), tuple(_block_axes(name, blocks, axes, occurrences)), members))
    return (*outer, *inner)


_Axes = Sequence[tuple[Piece, int, np.ndarray]]
_Occurrences = Mapping[int, Sequence[tuple[int, int]]]


def _are_exchangeable(
    name: str,
    blocks: np.ndarray,
    axes: _Axes,
    occurrences: _Occurrences,
    marked: Sequence[frozenset[int]],
) -> bool:
    """Whether the groups of a grouped convolution may change places: but in its own weight, units occur
    alike.

    blocks: the units of each group, inputs first, ``(groups, units)``. marked: as in the record, settled.
    """
    all_units = blocks.ravel().tolist()
    if len(set(all_units)) < len(all_units) or not all(unit in occurrences for unit in all_units):
        return False
    own = {index: f"own {dim}" for index, (piece, dim, _) in enumerate(axes) if piece.name == name}
    alike = []
    for block in blocks.tolist():
        within = {len(axes) + number: "marked" for number, units in enumerate(marked) if units <= set(block)}
        places = own | within
        alike.append(
            [
                sorted((places.get(index, str(index)), times) for index, times in occurrences[unit])
                for unit in block
            ]
        )
    return all(block == alike[0] for block in alike)


def _block_axes(name: str, blocks: np.ndarray, axes: _Axes, occurrences: _Occurrences) -> Iterator[UnitAxis]:
    """Where the groups of a grouped convolution lie: its rows, and the axes of other tensors that have their
    units."""
    rows = [piece.stop for piece, _, _ in axes if piece.name == name]
    yield UnitAxis(name, (0, max(rows)), 0, np.arange(max(rows)).reshape(len(blocks), -1))
    for index in sorted({index for unit in blocks.ravel().tolist() for index, _ in occurrences[unit]}):
        if index < len(axes) and axes[index][0].name != name:
            piece, dim, units = axes[index]
            places = [
                [place for unit in block for place in np.flatnonzero(units == unit).tolist()]
                for block in blocks.tolist()
            ]
            yield UnitAxis(piece.name, (piece.start, piece.stop), dim, np.array(places))


def _unit_axis(piece: Piece, dim: int, units: np.ndarray, members: np.ndarray, times: int) -> UnitAxis:
    """Where along an axis each of some units lies."""
    order = np.argsort(units, kind="stable")
    first = np.searchsorted(units[order], members)
    places = order[first[:, None] + np.arange(times)]
    return UnitAxis(piece.name, (piece.start, piece.stop), dim, places)


def symmetry(network: Network) -> Symmetry:
    """The groups of interchangeable units of a network, tried on weights drawn at random.

    Raises :class:`~tombola.errors.NetworkError` for a network whose units cannot be followed, with the module
    and the operation, or whose outputs change where they should not.
    """
    module = network.initialized(0)
    generator = seeds.generator("symmetry")
    try:
        record = follow_units(module, example_inputs(network, generator))
    except NetworkError as error:
        raise NetworkError(f"network {network.name} cannot be aligned: {error}") from None
    except Exception as error:  # the user's own network, which may fail in any way
        raise NetworkError(
            f"network {network.name} cannot be aligned: {type(error).__name__}: {reason(error)}"
        ) from error
    symmetries = Symmetry(_groups(record), tied_names(module))
    module = network.initialized(0)
    _disturb(module, generator)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    check_same_outputs(network, state, symmetries.permuted(state, symmetries.drawn(generator)))
    return symmetries


def example_inputs(network: Network, generator: np.random.Generator) -> Tensor:
    """Two inputs of a network, drawn at random."""
    zeros = network.zeros(2)
    if network.vocabulary is not None:
        return torch.from_numpy(generator.integers(0, network.vocabulary, zeros.shape))
    return torch.from_numpy(generator.normal(size=zeros.shape)).float()


def check_same_outputs(network: Network, state: Mapping[str, Tensor], permuted: Mapping[str, Tensor]) -> None:
    """Raises NetworkError if a network gives other outputs with its units permuted."""
    inputs = example_inputs(network, seeds.generator("symmetry", 1))
    try:
        outputs = _outputs(network, (state, permuted), inputs, torch.float64)
        share = _EQUAL
    except RuntimeError:  # of a network that makes float32 tensors of its own
        outputs = _outputs(network, (state, permuted), inputs, torch.float32)
        share = _EQUAL_FLOAT32
    largest = float(outputs[0].abs().nan_to_num().max())
    if not torch.allclose(outputs[0], outputs[1], rtol=0, atol=share * max(largest, 1e-30), equal_nan=True):
        raise NetworkError(
            f"network {network.name} cannot be aligned: it gives other outputs when its units are permuted, "
            "so that it does something with them that its operations do not show"
        )


def _outputs(
    network: Network, states: Iterable[Mapping[str, Tensor]], inputs: Tensor, precision: torch.dtype
) -> list[Tensor]:
    """The outputs of a network with each of some weights, in evaluation mode."""
    module = network.initialized(0).to(precision).eval()
    outputs = []
    for state in states:
        module.load_state_dict(dict(state))
        with torch.no_grad():
            outputs.append(module(inputs.to(precision) if inputs.is_floating_point() else inputs))
    return outputs


def _disturb(module: nn.Module, generator: np.random.Generator) -> None:
    """Move all parameters and batch-norm statistics to values at which no two units are alike."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in module.state_dict().items():
            statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
            if not value.is_floating_point() or not (statistic or name in parameters):
                continue
            noise = torch.from_numpy(generator.normal(size=tuple(value.shape))).to(value.dtype)
            spread = float(value.std()) if value.ndim > 1 and value.numel() > 1 else 0.3
            value.add_(noise, alpha=spread or 0.1)
            if name.endswith("running_var"):
                value.abs_().add_(0.1)
