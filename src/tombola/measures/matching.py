"""Weight matching: which unit of one network is which of another, by their weights (Git Re-Basin).

The inner product of all weights of the first network with the permuted ones of the second is maximised, one
group of interchangeable units (:mod:`tombola.networks.symmetry`) at a time with the others held: each is a
linear assignment problem (Ainsworth et al., 2023, section 3.2). That ends in a local maximum, so it is begun
several times. The groups of a grouped convolution are assigned whole, each pair by its units in their best
order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola import seeds
from tombola.networks.symmetry import Symmetry, UnitAxis, UnitGroup, order_along

State = Mapping[str, Tensor]

MOST_PASSES = 100
"""Passes over all groups from one start; a few are enough (Ainsworth et al., 2023)."""
_GAIN = 1e-12
"""Smallest gain that counts, as a share of the product of both norms."""


@dataclass(frozen=True)
class WeightMatch:
    """The best of several starts of weight matching.

    permutations: of each group. products: the inner product that each start ended at, the first begun at the
    identity. passes: over all groups, of each start.
    """

    permutations: list[np.ndarray]
    products: tuple[float, ...]
    passes: tuple[int, ...]


def match_weights(
    symmetry: Symmetry,
    parameters: Iterable[str],
    first: State,
    second: State,
    *,
    starts: int,
    seed: int,
    beat: Callable[[], None],
) -> WeightMatch:
    """The permutations of the second network's units that bring its weights nearest to the first's.

    parameters: names of the tensors that count; the others, such as running statistics, do not.
    starts: how often to begin, first at the identity and then at random permutations.
    seed: number of the stream of these, and of the order in which groups are visited.
    beat: called after every pass.
    """
    problem = _Assignment(symmetry, parameters, first, second)
    best: list[np.ndarray] = symmetry.identity()
    products: list[float] = []
    passes: list[int] = []
    for start in range(starts):
        generator = seeds.generator("weight matching", seed, start)
        permutations = symmetry.drawn(generator) if start else symmetry.identity()
        problem.begin(permutations)
        count = 0
        stale = set(range(len(symmetry.groups)))
        while stale and count < MOST_PASSES:
            for visit in generator.permutation(len(symmetry.groups)).tolist():
                if visit in stale:
                    stale.remove(visit)
                    if problem.improve(permutations, visit):
                        stale |= problem.meeting[visit]
            count += 1
            beat()
        product = problem.product(permutations)
        if not products or product > max(products):
            best = permutations
        products.append(product)
        passes.append(count)
    return WeightMatch(best, tuple(products), tuple(passes))


class _Assignment:
    """The inner product of two networks' weights as a function of the permutations of the second one's
    units."""

    def __init__(self, symmetry: Symmetry, parameters: Iterable[str], first: State, second: State) -> None:
        self._symmetry = symmetry
        names = [name for name in parameters if first[name].is_floating_point()]
        self._first = {name: first[name].double() for name in names}
        self._second = {name: second[name].double() for name in names}
        self._size = _norm(self._first) * _norm(self._second)
        # By tensor and rows, all axes that have units, each with the number of its group.
        self._axes: dict[tuple[str, tuple[int, int]], list[tuple[int, UnitAxis]]] = {}
        for index, group in enumerate(symmetry.groups):
            for axis in () if group.members else group.axes:
                if axis.name in self._first:
                    self._axes.setdefault((axis.name, axis.rows), []).append((index, axis))
        # By group, those whose best assignment may be another once it has moved: they share a tensor.
        self.meeting: list[set[int]] = [set() for _ in symmetry.groups]
        for axes in self._axes.values():
            for index, axis in axes:
                self.meeting[index] |= {number for number, other in axes if other.dim != axis.dim}
        for index, group in enumerate(symmetry.groups):
            inner = {number for members in group.members for number in members}
            nearby = (
                {index, *inner, *(number for one in inner for number in self.meeting[one])}
                if inner
                else set()
            )
            for number in nearby:
                self.meeting[number] = self.meeting[number] | (
                    {index} if number != index else nearby - {index}
                )
        self._exchanged: dict[str, Tensor] = self._second

    def product(self, permutations: Sequence[np.ndarray], names: Iterable[str] | None = None) -> float:
        """The inner product of all weights at these permutations, or of the tensors of some names."""
        second = self._second if names is None else {name: self._second[name] for name in names}
        moved = self._symmetry.permuted(second, permutations)
        return sum(float((self._first[name] * value).sum()) for name, value in moved.items())

    def improve(self, permutations: list[np.ndarray], index: int) -> bool:
        """Assign the units of one group anew, the others held; whether the inner product grew."""
        group = self._symmetry.groups[index]
        if group.members:
            return self._exchange(permutations, index)
        products, twice = self._products(permutations, index)
        before, after = permutations[index], assigned(products)
        places = np.arange(group.size)
        gain = float(products[places, after].sum() - products[places, before].sum())
        if twice:  # then the products were those of one side with the other held
            changed = [*permutations]
            changed[index] = after
            gain = self.product(changed) - self.product(permutations)
        if gain <= _GAIN * self._size:
            return False
        permutations[index] = after
        return True

    def begin(self, permutations: Sequence[np.ndarray], names: Iterable[str] | None = None) -> None:
        """Take over the permutations of the groups of grouped convolutions, which move first.

        names: of the tensors that they may have changed; None for all.
        """
        groups = self._symmetry.groups
        outer = [
            order if group.members else np.arange(group.size)
            for group, order in zip(groups, permutations, strict=True)
        ]
        second = {name: self._second[name] for name in (self._second if names is None else names)}
        self._exchanged = {**self._exchanged, **self._symmetry.permuted(second, outer)}

    def _exchange(self, permutations: list[np.ndarray], index: int) -> bool:
        """Assign the groups of a grouped convolution anew, and the units within each; whether the product
        grew.

        Each pair of groups counts as much as its units in their best order, by all tensors but the weight
        itself.
        """
        groups = self._symmetry.groups
        exchange = groups[index]
        apart = [*permutations]
        for number in (index, *(number for members in exchange.members for number in members)):
            apart[number] = np.arange(groups[number].size)
        names = {axis.name for axis in exchange.axes if axis.name in self._first}
        second = self._symmetry.permuted({name: self._second[name] for name in names}, apart)
        own = exchange.axes[0].name
        scores = np.zeros((exchange.size, exchange.size))
        orders: list[list[list[np.ndarray]]] = []
        for slot in zip(*exchange.members, strict=True):
            products = self._between_blocks([groups[number] for number in slot], second, own)
            best = [
                [assigned(products[one, other]) for other in range(exchange.size)]
                for one in range(exchange.size)
            ]
            places = np.arange(groups[slot[0]].size)
            for one, row in enumerate(best):
                scores[one] += [products[one, other][places, order].sum() for other, order in enumerate(row)]
            orders.append(best)
        after = assigned(scores)
        changed = [*permutations]
        changed[index] = after
        for best, slot in zip(orders, zip(*exchange.members, strict=True), strict=True):
            for one, number in enumerate(slot):
                changed[number] = best[one][after[one]]
        if self.product(changed, names) - self.product(permutations, names) <= _GAIN * self._size:
            return False
        permutations[:] = changed
        self.begin(permutations, names)
        return True

    def _between_blocks(self, slot: Sequence[UnitGroup], second: State, own: str) -> np.ndarray:
        """Of each unit of each group of the first with each of the second's, ``(groups, groups, units,
        units)``."""
        entries: list[list[Tensor]] = [[], []]
        for group in slot:
            axes = [axis for axis in group.axes if axis.name != own and axis.name in self._first]
            for place, state in enumerate((self._first, second)):
                parts = [_by_unit(state[axis.name][slice(*axis.rows)], axis) for axis in axes]
                entries[place].append(torch.cat(parts, 1) if parts else torch.zeros(group.size, 1).double())
        first, other = (torch.stack(values) for values in entries)
        return torch.einsum("aue,bve->abuv", first, other).numpy()

    def _products(self, permutations: Sequence[np.ndarray], index: int) -> tuple[np.ndarray, bool]:
        """Of each unit of the first with each of the second, and whether some tensor has the group twice."""
        group = self._symmetry.groups[index]
        total = torch.zeros(group.size, group.size, dtype=torch.float64)
        twice = False
        for axis in group.axes:
            if axis.name not in self._first:
                continue
            # The group's own positions first, which may be few of many.
            places = torch.from_numpy(axis.places).reshape(-1)
            first, second = (
                state[axis.name][slice(*axis.rows)].index_select(axis.dim, places)
                for state in (self._first, self._exchanged)
            )
            moves: dict[int, list[tuple[UnitAxis, np.ndarray]]] = {}
            for number, other in self._axes[axis.name, axis.rows]:
                if other.dim != axis.dim:
                    twice = twice or number == index
                    moves.setdefault(other.dim, []).append((other, permutations[number]))
            for dim, along in moves.items():
                second = second.index_select(dim, order_along(along, second.shape[dim]))
            entries = [values.movedim(axis.dim, 0).reshape(group.size, -1) for values in (first, second)]
            total += entries[0] @ entries[1].T
        return total.numpy(), twice


def assigned(products: np.ndarray) -> np.ndarray:
    """For each row the column, each taken once, so that the sum of the entries is largest."""
    from scipy.optimize import linear_sum_assignment  # takes a moment, which only an alignment is worth

    columns: np.ndarray = linear_sum_assignment(products, maximize=True)[1]
    return columns


def _by_unit(tensor: Tensor, axis: UnitAxis) -> Tensor:
    """The entries of a tensor that belong to each unit, ``(units, entries)``."""
    places = torch.from_numpy(axis.places)
    values = tensor.movedim(axis.dim, 0)
    return values.index_select(0, places.reshape(-1)).reshape(len(places), -1)


def _norm(state: State) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in state.values()))
