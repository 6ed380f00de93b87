"""Follows units through one pass of a network, operation by operation as they are called.

So it does not matter how a network is written: tracing needs no symbols, and a path that depends on sizes is
the path that is labelled. One that depends on values is refused, because other inputs would take another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola.networks.unit_rules import RULES
from tombola.networks.units import Operation, UnitMap, UnitRecord, tensors_in


def follow_units(module: nn.Module, inputs: Tensor) -> UnitRecord:
    """Run a module once, in evaluation mode, and say which positions of its tensors are one unit.

    module: gets hooks, so a copy of the caller's. inputs: a small batch; its values do not matter.

    Raises :class:`~tombola.errors.NetworkError` for an operation whose effect on units is not known, with the
    module that called it.
    """
    unit_map = UnitMap(module)
    for path, layer in module.named_modules():
        layer.register_forward_pre_hook(_entering(unit_map, path))
        layer.register_forward_hook(lambda *_: unit_map.leave())
    operations = _Operations(unit_map)
    with torch.no_grad(), operations:
        outputs = module.eval()(inputs)
    for output in tensors_in(outputs):
        for units in unit_map.units_of(output).values():
            unit_map.fix(units)
    for name, pieces in unit_map.record.pieces.items():
        if name not in operations.used:
            for units in (units for piece in pieces for units in piece.units.values()):
                unit_map.fix(units)
    return unit_map.record


def _entering(unit_map: UnitMap, path: str) -> Callable[[nn.Module, Any], None]:
    return lambda layer, arguments: unit_map.enter(path, type(layer).__name__)


class _Operations(TorchFunctionMode):
    """Applies the rule of every operation that is called within it.

    used: names of the parameters and buffers that an operation took.
    """

    def __init__(self, unit_map: UnitMap) -> None:
        super().__init__()
        self._unit_map = unit_map
        self.used: set[str | None] = set()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        written, name = _names_of(function)
        if written in _READS_VALUES and any(True for _ in tensors_in((arguments, options))):
            self._unit_map.refuse(written, "the path of the network must not depend on values")
        labelled = [tensor for tensor in tensors_in((arguments, options)) if self._unit_map.units_of(tensor)]
        self.used.update(self._unit_map.name_of(tensor) for tensor in labelled)
        if not labelled or written in _READS_SHAPES:
            return function(*arguments, **options)
        rule = RULES.get(name)
        if rule is None or options.get("out") is not None:
            self._unit_map.refuse(written)
        result = function(*arguments, **options)
        rule(self._unit_map, Operation(name, function, arguments, options, result))
        return result


def _names_of(function: Callable[..., Any]) -> tuple[str, str]:
    """The name of an operation as it is written, and that of its rule."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":  # of a property, such as x.shape
        name = getattr(getattr(function, "__self__", None), "__name__", name)
        return name, name
    if name.startswith("__") and name.endswith("__") and name not in ("__set__", "__setitem__"):
        bare = name.strip("_")
        return name, bare[1:] if bare[:1] in "ir" and bare[1:] in _OPERATORS else bare
    # What works in place gives the tensor that it took, with the same units.
    return name, name.removeprefix("_").removesuffix("_")


_OPERATORS = ("add", "sub", "mul", "truediv", "pow", "and", "or")
_READS_VALUES = {
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "item", "tolist", "numpy", "__array__",
    "equal", "allclose", "is_nonzero", "nonzero", "unique",
}  # fmt: skip
_READS_SHAPES = {
    "shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "stride", "dtype", "device", "layout",
    "is_cuda", "is_cpu", "is_mps", "is_meta", "is_sparse", "is_quantized", "is_nested", "is_contiguous",
    "is_floating_point", "is_complex", "requires_grad", "is_leaf", "grad_fn", "grad", "type", "__len__",
    "itemsize", "element_size", "data_ptr", "is_inference", "__hash__", "__format__", "__repr__",
    "zeros", "ones", "empty", "new_zeros", "new_ones", "new_empty", "new_full", "names", "storage_offset",
}  # fmt: skip
