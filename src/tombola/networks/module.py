"""A network with given weights as a plain module in evaluation mode, normalisation in front on request."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import DataError
from tombola.networks.network import Network


def loaded_module(
    network: Network, state: Mapping[str, Tensor], normalize: DataLike | None = None
) -> nn.Module:
    """A fresh module of the network with these weights, in evaluation mode, on the CPU.

    normalize: data whose mean and standard deviation are put in front: the module then takes pixel values
        from 0 to 255, uint8 or float ``(N, C, H, W)``. Without it, images that are normalised already.
    """
    module = network.initialized(0)
    module.load_state_dict(dict(state))
    return (module if normalize is None else Normalized(module, load_data(normalize))).eval()


class Normalized(nn.Module):
    """A network that takes pixel values from 0 to 255, or features as they are.

    network: the one behind, which takes normalised images.
    scale, shift: buffers ``(C, 1, 1)``, by which pixels are multiplied and then moved; of features likewise,
        along their first dimension.

    Raises :class:`~tombola.errors.DataError` for tokens.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, data: Data) -> None:
        super().__init__()
        self.network = network
        if data.kind == "tokens":
            raise DataError(f"{data.name} has tokens, which are not normalised; leave normalize out")
        # As batches are normalised, so that logits are the same to the bit.
        unit, along = 255 if data.kind == "images" else 1, (-1, *(1,) * (len(data.shape) - 1))
        self.register_buffer("scale", (1 / (unit * data.std.double())).float().view(along))
        self.register_buffer("shift", (-data.mean.double() / data.std.double()).float().view(along))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels.to(torch.float32) * self.scale + self.shift)
        return logits
