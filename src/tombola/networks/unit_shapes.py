"""What operations say of units that change the shape of tensors, or each of their elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.networks.units import Operation, UnitMap, Units, tensors_in


def elementwise(unit_map: UnitMap, operation: Operation) -> None:
    """Positions keep their units; where two tensors meet, their units are one."""
    operands = list(tensors_in((operation.arguments, operation.options)))
    for result in tensors_in(operation.result):
        units = {}
        for axis, size in enumerate(result.shape):
            met = [units_facing(unit_map, operand, result, axis) for operand in operands if size > 1]
            facing = [value for value in met if value is not False]
            if facing:
                joined = facing[0]
                for other in facing[1:]:
                    joined = unit_map.unite(joined, other)
                if joined is not None:
                    units[axis] = joined
        unit_map.set_units(result, units)


def units_facing(unit_map: UnitMap, operand: Tensor, result: Tensor, axis: int) -> Any:
    """The units of an operand along an axis of the result, None for fixed ones; False where it is spread."""
    own = axis - result.ndim + operand.ndim
    if own < 0 or operand.shape[own] != result.shape[axis]:
        return False
    return unit_map.units_of(operand).get(own)


def movement(unit_map: UnitMap, operation: Operation) -> None:
    """Elements move: each axis' units are moved in the same way, to see where they come to lie."""
    tensor = operation.arguments[0]
    if operation.name == "view" and any(isinstance(value, torch.dtype) for value in operation.arguments):
        unit_map.refuse("view", "it reads bits as another type")
    indices = tensors_in((operation.arguments[1:], operation.options))
    if operation.name in ("getitem", "index_select") and any(map(unit_map.units_of, indices)):
        unit_map.refuse(operation.name, "what is taken depends on values")
    results = list(tensors_in(operation.result))
    moved: list[dict[int, Units]] = [{} for _ in results]
    for axis, units in unit_map.units_of(tensor).items():
        shape = [1] * tensor.ndim
        shape[axis] = -1
        marks = torch.from_numpy(units).view(shape).expand(tensor.shape).contiguous()
        after = list(tensors_in(operation.function(marks, *operation.arguments[1:], **operation.options)))
        for places, mark in zip(moved, after, strict=True):
            _place(unit_map, places, mark, units)
    for result, places in zip(results, moved, strict=True):
        unit_map.set_units(result, places)


def _place(unit_map: UnitMap, places: dict[int, Units], marks: Tensor, units: Units) -> None:
    """Note along which axis of a result units lie; fix those that lie along none or several."""
    if not marks.numel():
        return
    varying = [axis for axis in range(marks.ndim) if not bool((marks == marks.narrow(axis, 0, 1)).all())]
    present = np.unique(marks.numpy())
    if len(varying) != 1 or varying[0] in places:
        unit_map.fix(present)
        for axis in varying:
            unit_map.fix(places.pop(axis, None))
        return
    if len(present) < len(np.unique(units)):
        unit_map.record.marked.append(present)
    index: list[Any] = [0] * marks.ndim
    index[varying[0]] = slice(None)
    places[varying[0]] = marks[tuple(index)].numpy().copy()


def concatenation(unit_map: UnitMap, operation: Operation) -> None:
    """Tensors one after the other along an axis; along all others their units are one."""
    tensors = list(operation.get(0, "tensors"))
    dim = operation.get(1, "dim", operation.options.get("axis", 0))
    result: Tensor = operation.result
    units: dict[int, Units] = {}
    stacked = operation.name == "stack"
    along = dim % result.ndim
    parts = [tensor for tensor in tensors if tensor.ndim == result.ndim - stacked]
    for axis in range(parts[0].ndim):
        lengths = [part.shape[axis] for part in parts]
        values = [unit_map.units_of(part).get(axis) for part in parts]
        if axis == along and not stacked:
            if any(value is not None for value in values):
                units[axis] = np.concatenate(
                    [
                        _fixed(unit_map, size) if value is None else value
                        for value, size in zip(values, lengths, strict=True)
                    ]
                )
            continue
        joined = values[0]
        for value in values[1:]:
            joined = unit_map.unite(joined, value)
        if joined is not None:
            units[axis + (stacked and axis >= along)] = joined
    unit_map.set_units(result, units)


def _fixed(unit_map: UnitMap, count: int) -> Units:
    units = unit_map.record.new_units(count)
    unit_map.fix(units)
    return units


def padding(unit_map: UnitMap, operation: Operation) -> None:
    """Equal values beside the units of an axis are units that nothing tells apart."""
    tensor, widths = operation.arguments[0], list(operation.get(1, "pad"))
    units = dict(unit_map.units_of(tensor))
    for index in range(len(widths) // 2):
        axis, (before, after) = tensor.ndim - 1 - index, widths[2 * index : 2 * index + 2]
        if axis in units and (before or after):
            if min(before, after) < 0 or operation.get(2, "mode", "constant") != "constant":
                unit_map.refuse("pad", "it pads channels with other channels, or cuts them off")
            new = unit_map.record.new_units
            units[axis] = np.concatenate([new(before), units[axis], new(after)])
    unit_map.set_units(operation.result, units)


def pooling(unit_map: UnitMap, operation: Operation) -> None:
    """Pixels are pooled, channels are kept."""
    tensor = operation.arguments[0]
    spatial = next((int(sign) for sign in operation.name if sign in "123"), tensor.ndim - 2)
    kept = {}
    for axis, units in unit_map.units_of(tensor).items():
        if axis < tensor.ndim - spatial:
            kept[axis] = units
        else:
            unit_map.fix(units)
    for result in tensors_in(operation.result):
        unit_map.set_units(result, kept)


def reduction(unit_map: UnitMap, operation: Operation) -> None:
    """Some axes are summed over, or the like: the units along them are all treated alike."""
    tensor = operation.arguments[0]
    dims = operation.get(_DIM_PLACES.get(operation.name, 1), "dim", operation.options.get("axis"))
    if dims is None or isinstance(dims, bool):
        reduced = set(range(tensor.ndim))
    else:
        reduced = {dim % tensor.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
        reduced = reduced or set(range(tensor.ndim))
    units = unit_map.units_of(tensor)
    if operation.name in _PICKING and any(axis in units for axis in reduced):
        unit_map.refuse(operation.name, "it says which unit is the largest")
    for result in tensors_in(operation.result):
        keepdim = result.ndim == tensor.ndim
        kept = {}
        for axis, value in units.items():
            if axis not in reduced:
                kept[axis if keepdim else axis - sum(dim < axis for dim in reduced)] = value
        unit_map.set_units(result, kept)


_DIM_PLACES = {"norm": 2, "linalg_vector_norm": 2, "vector_norm": 2}
_PICKING = ("max", "min", "argmax", "argmin", "median")


def gating(unit_map: UnitMap, operation: Operation) -> None:
    """One half of an axis times a function of the other half."""
    tensor = operation.arguments[0]
    axis = operation.get(1, "dim", -1) % tensor.ndim
    units = dict(unit_map.units_of(tensor))
    if axis in units:
        first, second = np.split(units[axis], 2)
        unit_map.record.unite(first, second)
        units[axis] = first
    unit_map.set_units(operation.result, units)
