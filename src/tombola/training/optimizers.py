"""The optimizers: one pass over the flat tensors of a network each, by the kernels behind torch.optim.

What they keep between steps stands in the :class:`~tombola.training.flat_network.FlatNetwork`, so that mask,
checkpoints and rewinding need not know which optimizer it is. One that a user declared
(:class:`DeclaredOptimizer`) keeps its state itself, and the network has it follow.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola import seeds
from tombola.errors import RecipeError, TombolaError, reason
from tombola.files import read_torch_save
from tombola.training.definitions import NAMES, OPTIMIZERS, definition_of
from tombola.training.flat_network import FlatNetwork
from tombola.training.recipe import Recipe

_SAVED = "optimizer.state_dict"


def move(flat_network: FlatNetwork, recipe: Recipe, rate: float | Tensor) -> None:
    """Move the weights by their gradient, without the mask, which the caller applies.

    rate: the learning rate; a tensor if the step is captured.

    To be called without gradients being recorded.
    """
    weights, gradient = [flat_network.weights], [flat_network.gradient]
    if flat_network.declared is not None:
        flat_network.declared.move(float(rate))
    elif recipe.optimizer == "adamw":
        states = flat_network.states
        flat_network.steps_taken.add_(1)
        torch._fused_adamw_(
            weights, gradient, [states["first_moment"]], [states["second_moment"]], [],
            [flat_network.steps_taken], lr=rate, beta1=recipe.betas[0], beta2=recipe.betas[1],
            weight_decay=recipe.weight_decay, eps=recipe.eps, amsgrad=False, maximize=False,
        )  # fmt: skip
    else:
        torch._fused_sgd_(
            weights, gradient, [flat_network.momentum] if recipe.momentum else [],
            weight_decay=recipe.weight_decay, momentum=recipe.momentum, lr=rate,
            dampening=0.0, nesterov=recipe.optimizer == "nesterov", maximize=False, is_first_step=False,
        )  # fmt: skip


class DeclaredOptimizer:
    """A user's optimizer over the parameters of a network; makes itself anew where a training begins.

    parameters: by name, those that are trained.

    Raises :class:`~tombola.errors.RecipeError` for a declared function that fails or gives no optimizer.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> None:
        self._parameters, self._recipe = dict(parameters), recipe
        self.reset()

    def reset(self) -> None:
        """Begin without any state."""
        parameters, name = list(self._parameters.values()), self._recipe.optimizer
        try:
            function: Callable[..., Any] = definition_of(OPTIMIZERS, name)
            wants = NAMES in inspect.signature(function).parameters
            named = {NAMES: list(self._parameters)} if wants else {}
            optimizer = function(parameters, self._recipe, **named)
        except TombolaError:
            raise
        except Exception as error:  # a user's function
            raise self._failed(error) from error
        if not isinstance(optimizer, Optimizer):
            raise RecipeError(
                f"optimizer {name} is a {type(optimizer).__name__}; it must be a torch.optim.Optimizer"
            )
        self._optimizer = optimizer
        self._first_rates = [float(group["lr"]) for group in optimizer.param_groups]

    def move(self, rate: float) -> None:
        """Take a step at the learning rate of the schedule."""
        usual = self._recipe.lr
        for group, first in zip(self._optimizer.param_groups, self._first_rates, strict=True):
            group["lr"] = rate if first == usual else first * (rate / usual)
        with torch.enable_grad():  # as in a loop of one's own
            self._optimizer.step()

    def select_kept(self, kept: Mapping[str, Tensor]) -> None:
        """Set all that the optimizer keeps of a pruned weight to 0.

        kept: by name of the parameter an integer tensor of its shape, 0 for each pruned weight.
        """
        for name, keep in kept.items():
            for value in _tensors_in(self._optimizer.state.get(self._parameters[name])):
                if value.shape == keep.shape:
                    value.masked_fill_(keep == 0, 0)

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's ``state_dict`` as bytes, for checkpoints."""
        buffer = io.BytesIO()
        torch.save(self._optimizer.state_dict(), buffer)
        return {_SAVED: torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave; ValueError for what is none."""
        try:
            content = io.BytesIO(tensors[_SAVED].cpu().numpy().tobytes())
            # Weights only: a checkpoint may be of a stranger, and runs no code.
            self._optimizer.load_state_dict(read_torch_save(content))
        except ValueError as error:
            raise ValueError(f"the state of optimizer {self._recipe.optimizer}: {reason(error)}") from error

    def try_step(self) -> None:
        """Take a step along zero gradients and read the state back, on parameters that are thrown away.

        Raises :class:`~tombola.errors.RecipeError` for an optimizer that no training could use.
        """
        name = self._recipe.optimizer
        places = [parameter.data_ptr() for parameter in self._parameters.values()]
        for parameter in self._parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        try:
            drawn = seeds.drawn_from(lambda: self.move(self._recipe.lr))
            self.load(self.tensors())
        except Exception as error:  # of a class that may be the user's
            raise self._failed(error) from error
        if drawn:
            raise RecipeError(f"optimizer {name} draws random numbers, which no stream covers")
        if [parameter.data_ptr() for parameter in self._parameters.values()] != places:
            raise RecipeError(
                f"optimizer {name} puts other tensors in place of the weights; change them in place"
            )

    def _failed(self, error: Exception) -> RecipeError:
        return RecipeError(
            f"optimizer {self._recipe.optimizer} failed: {type(error).__name__}: {reason(error)}"
        )


def _tensors_in(state: object) -> Iterator[Tensor]:
    """Yields the tensors in what an optimizer keeps of a parameter, however deep in its lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors_in(value)
