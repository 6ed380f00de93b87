"""What layers with weights say of units: which axes take what goes in, and which give what comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from tombola.networks.unit_shapes import elementwise, units_facing
from tombola.networks.units import AxisUnits, Operation, UnitMap, Units, tensors_in


def linear(unit_map: UnitMap, operation: Operation) -> None:
    """Inputs of the layer are what goes in; its outputs are units of the weight's rows."""
    tensor, weight, bias = operation.arguments[0], operation.get(1, "weight"), operation.get(2, "bias")
    unit_map.unite(unit_map.units_along(tensor, -1), unit_map.units_along(weight, 1))
    rows = unit_map.units_along(weight, 0)
    if bias is not None:
        unit_map.unite(rows, unit_map.units_along(bias, 0))
    units = {axis: value for axis, value in unit_map.units_of(tensor).items() if axis != tensor.ndim - 1}
    unit_map.set_units(operation.result, with_axis(units, operation.result.ndim - 1, rows))


def with_axis(units: AxisUnits, axis: int, value: Units | None) -> dict[int, Units]:
    return {**units} if value is None else {**units, axis: value}


def product(unit_map: UnitMap, operation: Operation) -> None:
    """The last axis of the first and the last but one of the second are summed over."""
    first, second = operation.arguments[0], operation.get(1, "other", operation.options.get("mat2"))
    result: Tensor = operation.result
    if first.ndim < 2 or second.ndim < 2:
        unit_map.refuse(operation.name, "one of its operands is a vector")
    unit_map.unite(unit_map.units_along(first, -1), unit_map.units_along(second, -2))
    units: dict[int, Units] = {}
    for axis in range(result.ndim - 2):
        facing = [units_facing(unit_map, operand, result, axis) for operand in (first, second)]
        present = [value for value in facing if value is not False]
        joined = present[0] if len(present) == 1 else unit_map.unite(*present) if present else None
        units = with_axis(units, axis, joined)
    units = with_axis(units, result.ndim - 2, unit_map.units_along(first, -2))
    unit_map.set_units(result, with_axis(units, result.ndim - 1, unit_map.units_along(second, -1)))


def convolution(unit_map: UnitMap, operation: Operation) -> None:
    """Channels in and out; within a group of a grouped convolution; depthwise outputs go with their input."""
    tensor, weight, bias = operation.arguments[0], operation.get(1, "weight"), operation.get(2, "bias")
    transposed = "transpose" in operation.name
    groups = operation.get(6, "groups", 1)
    spatial = weight.ndim - 2
    channels = tensor.ndim - spatial - 1
    inputs = unit_map.units_along(tensor, channels)
    for axis, units in unit_map.units_of(tensor).items():
        if axis > channels:
            unit_map.fix(units)
    if transposed and groups != 1:
        unit_map.refuse(operation.name, "it has groups")
    outputs = unit_map.units_along(weight, 1 if transposed else 0)
    if groups == 1:
        unit_map.unite(inputs, unit_map.units_along(weight, 0 if transposed else 1))
    else:
        _grouped(unit_map, inputs, weight, groups)
    for piece in [unit_map.units_of(weight), *_grouped_units(unit_map, weight, groups)]:
        for axis in range(2, weight.ndim):
            unit_map.fix(piece.get(axis))
    if bias is not None:
        unit_map.unite(outputs, unit_map.units_along(bias, 0))
    kept = {axis: value for axis, value in unit_map.units_of(tensor).items() if axis < channels}
    unit_map.set_units(operation.result, with_axis(kept, channels, outputs))


def _grouped_units(unit_map: UnitMap, weight: Tensor, groups: int) -> list[AxisUnits]:
    depthwise = weight.shape[1] == 1
    pieces = None if groups == 1 or depthwise else unit_map.parameter_groups(weight, groups)
    return [] if pieces is None else [piece.units for piece in pieces]


def _grouped(unit_map: UnitMap, inputs: Units | None, weight: Tensor, groups: int) -> None:
    """The units of a grouped convolution: each group has inputs and outputs of its own."""
    outputs = unit_map.units_along(weight, 0)
    if outputs is None:
        unit_map.fix(inputs)
        return
    blocks = outputs.reshape(groups, -1)
    if weight.shape[1] == 1:
        if inputs is None:
            unit_map.record.marked.extend(blocks)
        else:
            unit_map.record.unite(np.repeat(inputs, blocks.shape[1]), outputs)
        return
    unit_map.record.marked.extend(blocks)
    pieces = unit_map.parameter_groups(weight, groups)
    if pieces is not None and inputs is not None:
        unit_map.record.grouped[pieces[0].name] = inputs.reshape(groups, -1), blocks
    for index in range(groups):
        columns = unit_map.units_along(weight, 1) if pieces is None else pieces[index].units[1]
        part = None if inputs is None else inputs.reshape(groups, -1)[index]
        unit_map.unite(part, columns)


def channel_norm(unit_map: UnitMap, operation: Operation) -> None:
    """Statistics and parameters of batch and instance norm belong to the channels, along the second axis."""
    tensor = operation.arguments[0]
    own = [operation.get(place, name) for place, name in enumerate(_NORM_ARGUMENTS, start=1)]
    for value in own:
        if value is not None:
            unit_map.unite(unit_map.units_along(tensor, 1), unit_map.units_along(value, 0))
    unit_map.set_units(operation.result, unit_map.units_of(tensor))


_NORM_ARGUMENTS = ("running_mean", "running_var", "weight", "bias")


def group_norm(unit_map: UnitMap, operation: Operation) -> None:
    """Channels of one group may change places among themselves."""
    tensor, groups = operation.arguments[0], operation.get(1, "num_groups")
    channels = unit_map.units_along(tensor, 1)
    for value in (operation.get(2, "weight"), operation.get(3, "bias")):
        if value is not None:
            unit_map.unite(channels, unit_map.units_along(value, 0))
    if channels is not None and 1 < groups < len(channels):
        unit_map.record.marked.extend(channels.reshape(groups, -1))
    unit_map.set_units(operation.result, unit_map.units_of(tensor))


def layer_norm(unit_map: UnitMap, operation: Operation) -> None:
    """The last axes are normalised together, with parameters of their shape."""
    parts = (operation.arguments[0], *operation.arguments[2:4])
    elementwise(unit_map, replace(operation, arguments=parts))


def prelu(unit_map: UnitMap, operation: Operation) -> None:
    tensor, slopes = operation.arguments[0], operation.get(1, "weight")
    if slopes.numel() > 1:
        unit_map.unite(unit_map.units_along(tensor, 1), unit_map.units_along(slopes, 0))
    unit_map.set_units(operation.result, unit_map.units_of(tensor))


def embedding(unit_map: UnitMap, operation: Operation) -> None:
    """Tokens are fixed, what they stand for has units."""
    weight = operation.get(1, "weight")
    unit_map.fix(unit_map.units_along(weight, 0))
    unit_map.set_units(
        operation.result, with_axis({}, operation.result.ndim - 1, unit_map.units_along(weight, 1))
    )


def attention(unit_map: UnitMap, operation: Operation) -> None:
    """Queries meet keys, and values come out; heads are one."""
    query, key, value = (operation.get(place, name) for place, name in enumerate(("query", "key", "value")))
    unit_map.unite(unit_map.units_along(query, -1), unit_map.units_along(key, -1))
    units: dict[int, Units] = {}
    for axis in range(query.ndim - 1):
        for other in (key, value) if axis < query.ndim - 2 else ():
            unit_map.unite(unit_map.units_along(query, axis), unit_map.units_along(other, axis))
        units = with_axis(units, axis, unit_map.units_along(query, axis))
    unit_map.unite(unit_map.units_along(key, -2), unit_map.units_along(value, -2))
    unit_map.set_units(operation.result, with_axis(units, query.ndim - 1, unit_map.units_along(value, -1)))


def multi_head_attention(unit_map: UnitMap, operation: Operation) -> None:
    """What heads are made of stays where it is; the stream that goes in and comes out has units."""
    names = ("query", "key", "value", "embed_dim", "heads", "in_proj_weight", "in_proj_bias", "bias_k")
    streams = [operation.get(place, name) for place, name in enumerate(names[:3])]
    projections = [operation.get(5, "in_proj_weight")] * 3
    if operation.options.get("use_separate_proj_weight"):
        projections = [operation.options[f"{letter}_proj_weight"] for letter in "qkv"]
    for stream, projection in zip(streams, projections, strict=True):
        unit_map.unite(unit_map.units_along(stream, -1), unit_map.units_along(projection, 1))
        unit_map.fix(unit_map.units_along(projection, 0))
    for value in (operation.get(6, "in_proj_bias"), operation.get(7, "bias_k"), operation.get(8, "bias_v")):
        for units in unit_map.units_of(value).values() if value is not None else ():
            unit_map.fix(units)
    weight, bias = operation.get(11, "out_proj_weight"), operation.get(12, "out_proj_bias")
    unit_map.fix(unit_map.units_along(weight, 1))
    rows = unit_map.units_along(weight, 0)
    if bias is not None:
        unit_map.unite(rows, unit_map.units_along(bias, 0))
    for stream in streams:
        for axis, units in unit_map.units_of(stream).items():
            if axis != stream.ndim - 1:
                unit_map.fix(units)
    for index, result in enumerate(tensors_in(operation.result)):
        unit_map.set_units(result, with_axis({}, result.ndim - 1, rows) if index == 0 else {})
