"""Which engine trains what: decided by rule, never by timing, because bits rest on it."""

from __future__ import annotations

import warnings

import torch

from tombola.data.imageset import Data
from tombola.errors import reason
from tombola.networks.network import Network
from tombola.training.eager import EagerEngine
from tombola.training.engine import Engine
from tombola.training.graphed import GraphedEngine
from tombola.training.recipe import Recipe


def engine_for(network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str) -> Engine:
    """The engine for a training: graphed on a GPU; eager on a CPU, or if the network cannot be captured."""
    if device.type == "cuda":
        try:
            return GraphedEngine(network, data, recipe, device, precision)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(
                f"network {network.name} cannot be captured as a CUDA graph and trains step by step: "
                f"{reason(error)}",
                stacklevel=4,
            )
    return EagerEngine(network, data, recipe, device, precision)
