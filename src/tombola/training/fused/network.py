"""A body's network as the fused passes compute it, in training and in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.training.body import Body
from tombola.training.fused.norm import FusedNorm
from tombola.training.fused.rewrite import fused


class FusedNetwork:
    """The network of a body in as few passes over memory as its parts allow, on the body's weights.

    dtype: of images and convolutions.
    leaves: what gradients are asked for, in the order of the body's ``prunable`` and ``others``.

    Raises what tracing raises for a network whose path depends on values.
    """

    def __init__(self, body: Body, precision: str) -> None:
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._network = fused(body.module)
        # Convolutions compute with the bfloat16 copies themselves: nothing is cast, forward or backward.
        if self.dtype == torch.bfloat16:
            body.keep_copy()
        names = [*body.prunable, *body.others]
        self.leaves = [body.leaf(name) for name in names]
        leaf_of = {
            id(body.module.get_parameter(name)): leaf for name, leaf in zip(names, self.leaves, strict=True)
        }
        # Each module once, under however many names it stands: exchanged twice, a weight would not come back.
        self._places = [
            (module._parameters, key, leaf_of[id(parameter)])
            for module in self._network.modules()
            for key, parameter in module._parameters.items()
            if id(parameter) in leaf_of
        ]

    def __call__(self, inputs: Tensor, *, training: bool) -> Tensor:
        """Outputs ``(B, classes)``; in training the statistics of batch norms are updated."""
        self._network.train(training)
        own = [parameters[key] for parameters, key, _ in self._places]
        try:
            for parameters, key, leaf in self._places:
                parameters[key] = leaf  # type: ignore[assignment]
            with torch.autocast("cuda", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                outputs: Tensor = self._network(inputs)
        finally:
            for (parameters, key, _), parameter in zip(self._places, own, strict=True):
                parameters[key] = parameter
        return outputs

    def norms(self) -> list[nn.BatchNorm2d]:
        """The batch norms whose batches nobody counts, once for each call."""
        return [each.norm for each in self._network.modules() if isinstance(each, FusedNorm)]
