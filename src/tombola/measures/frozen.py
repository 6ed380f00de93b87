"""A frozen body: a network up to its head, its parameters left alone, read at places on the way.

The untrained weights of a ticket and the final weights of a run are bodies alike. Only the running statistics
of batch norm may move: under those of an initialisation the activations of a sparse network all but vanish,
so by default they adapt to the images while heads are trained on top (protocol, reading G2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tombola.data.imageset import Data
from tombola.errors import NetworkError, RecipeError, reason, unknown
from tombola.networks.layout import Layout, layout
from tombola.networks.network import Network
from tombola.ticket import Ticket
from tombola.training.body import Body
from tombola.training.checks import is_undefined_batch_norm, last_batch, undefined_batch_norm
from tombola.training.device import resolve_precision
from tombola.training.evaluation import channels_last
from tombola.training.recipe import Recipe
from tombola.training.run import Run

BatchNorm = Literal["adapting", "frozen"]


class _HeadReached(Exception):
    """The body is through; whatever the network does after it is of no interest."""


class FrozenBody:
    """A network with frozen parameters whose features are read at places.

    subject: a ticket, for its masked start, or a run, for its final weights.
    blocks: names of modules whose outputs are read; the name of the head stands for what goes into it. None
        for the blocks of a network that comes with tombola, empty for the head alone.
    head: name of the final linear layer, before which the body ends; None as for ``blocks``.
    precision: of the body's convolutions and products; features are float32 all the same.

    Raises :class:`~tombola.errors.NetworkError` for names that the network does not have.
    """

    def __init__(
        self,
        subject: Ticket | Run,
        blocks: Sequence[str] | None,
        head: str | None,
        device: torch.device,
        precision: str,
    ) -> None:
        self.network = network_of(subject)
        self.device = device
        self._precision = precision
        self._weights = subject.weights() if isinstance(subject, Ticket) else subject.weights
        self._body = Body(self.network, device)
        module = self._body.module
        chosen = _chosen_layout(self.network.name, module, blocks, head)
        self.places, self._head = chosen.blocks or (chosen.head,), chosen.head
        self._norms = [
            layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ]
        self._seen: dict[str, list[Any]] = {name: [] for name in self.places}
        for name in self.places:
            if name != self._head:
                module.get_submodule(name).register_forward_hook(self._reader(name))
        module.get_submodule(self._head).register_forward_pre_hook(self._end)
        self._widths: tuple[int, ...] = ()

    def begin(self, data: Data, batch_size: int, batch_norm: BatchNorm) -> tuple[int, ...]:
        """Load the weights and make ready for the images of a data set; returns the width of each place.

        batch_size: of the batches that come while batch norm adapts.
        batch_norm: whether its running statistics adapt until :meth:`freeze`.

        Raises :class:`~tombola.errors.NetworkError` if the network cannot take the images or a place cannot
        be read, and :class:`~tombola.errors.RecipeError` if batch norm is undefined on the last batch.
        """
        if batch_norm not in get_args(BatchNorm):
            raise RecipeError(unknown("batch_norm", batch_norm, get_args(BatchNorm)))
        self.freeze()
        if batch_norm == "adapting":
            for layer in self._norms:
                layer.train()
        # The smallest batch is tried before the weights are loaded, so that it leaves no trace.
        count = len(data.train)
        images = torch.zeros(min(2, last_batch(count, batch_size)), data.channels, *data.size)
        try:
            self._run(images.to(self.device))
        except (RuntimeError, ValueError) as error:
            if is_undefined_batch_norm(error):
                raise undefined_batch_norm(self.network, count, batch_size) from error
            shape = "x".join(map(str, images.shape[1:]))
            raise NetworkError(
                f"network {self.network.name} cannot take the {shape} images of {data.name}: {reason(error)}"
            ) from error
        self._widths = tuple(self._width(name, len(images)) for name in self.places)
        self._body.load(self._weights)
        return self._widths

    def freeze(self) -> None:
        """Evaluation mode: batch norm uses its running statistics and leaves them alone."""
        self._body.module.eval()

    def features(self, images: Tensor) -> Tensor:
        """What each place gives, averaged over the pixels of a channel: float32 ``(places, B, widest)``.

        images: normalised float32 ``(B, C, H, W)`` on the device.

        A place of fewer channels than the widest is filled up with zeros. No gradient flows back.
        """
        self._run(images)
        features = torch.zeros(len(self.places), len(images), max(self._widths), device=self.device)
        for pooled, width, (values,) in zip(features, self._widths, self._seen.values(), strict=True):
            pooled[:, :width] = values
        return features

    def state(self) -> dict[str, Tensor]:
        """A copy of the network's ``state_dict`` on the CPU, with batch norm as it has adapted so far."""
        return self._body.state()

    @torch.no_grad()
    def _run(self, images: Tensor) -> None:
        """Run the body, so that what the places give is seen."""
        for values in self._seen.values():
            values.clear()
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=self._precision == "bfloat16"):
                self._body.module(channels_last(images))
        except _HeadReached:
            return
        raise NetworkError(
            f"network {self.network.name} never runs its head {self._head!r}; give its final linear layer"
        )

    def _reader(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        # Pooled at once: a later layer may work in place. Forgetting the pixels also saves memory.
        return lambda module, arguments, output: self._seen[name].append(_pooled(output))

    def _end(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if self._head in self._seen:
            self._seen[self._head].append(_pooled(arguments[0]))
        raise _HeadReached

    def _width(self, name: str, images: int) -> int:
        """The number of features that a place gives for each image; refused if it is no such place."""
        values = self._seen[name]
        wrong = None
        if len(values) != 1:
            wrong = f"is run {len(values)} times before the head {self._head!r}; it must be run once"
        elif values[0] is None:
            wrong = "does not give features of the form (B, C, H, W) or (B, C)"
        elif len(values[0]) != images:
            wrong = f"gives {len(values[0])} rows of features for {images} images"
        if wrong:
            raise NetworkError(f"block {name!r} of {self.network.name} {wrong}")
        return int(values[0].shape[1])


def network_of(subject: Ticket | Run) -> Network:
    """The network that a ticket or a run is of."""
    return subject.network if isinstance(subject, Ticket) else subject.ticket.network


def body_precision(subject: Ticket | Run, recipe: Recipe, device: torch.device) -> str:
    """The precision that a body is run in: what the recipe says, or by default what a run was trained in.

    Raises :class:`~tombola.errors.RecipeError` if the device does not have it.
    """
    if isinstance(subject, Ticket) or recipe.precision != "auto":
        return resolve_precision(recipe, device)
    if subject.precision == "bfloat16" and device.type == "cpu":
        raise RecipeError(
            "the run was trained in bfloat16 on a GPU; say device='cuda' to measure it there, or "
            "precision='float32' in the recipe"
        )
    return subject.precision


def _pooled(values: Any) -> Tensor | None:
    """Features as float32 ``(B, C)``, averaged over pixels; None for what has no such form."""
    if not isinstance(values, Tensor) or values.ndim not in (2, 4):
        return None
    return values.mean((2, 3), dtype=torch.float32) if values.ndim == 4 else values.float()


def _chosen_layout(network: str, module: nn.Module, blocks: Sequence[str] | None, head: str | None) -> Layout:
    """The caller's own names, and the network's for what is not given; refused if they do not exist."""
    if isinstance(blocks, str):
        raise NetworkError(f"blocks is {blocks!r}; it must be a list of names, such as [{blocks!r}]")
    known = layout(module)
    if known is not None:
        blocks, head = known.blocks if blocks is None else blocks, known.head if head is None else head
    if blocks is None or head is None:
        missing = ["blocks=[...]"] * (blocks is None) + ["head='...'"] * (head is None)
        children = ", ".join(name for name, _ in module.named_children())
        raise NetworkError(
            f"network {network} is not one of tombola's own; say {' and '.join(missing)}: names of its "
            f"modules ({children}) or of modules within them"
        )
    for name in blocks:
        _check_name(f"block of {network}", name, module)
    _check_name(f"head of {network}", head, module)
    if len(set(blocks)) < len(blocks):
        raise NetworkError(f"blocks are {list(blocks)}; each must be named once")
    layer = module.get_submodule(head)
    if not isinstance(layer, nn.Linear):
        linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
        hint = f", such as {linear[-1]!r}" if linear else ""
        raise NetworkError(
            f"head {head!r} of {network} is a {type(layer).__name__}; it must be its final linear layer{hint}"
        )
    return Layout(tuple(blocks), head)


def _check_name(kind: str, name: str, module: nn.Module) -> None:
    """Refuse a name that no module has, with the nearest that one has."""
    names = [known for known, _ in module.named_modules() if known]
    if name not in names:
        # Of hundreds of modules, those down to the depth that was meant.
        raise NetworkError(unknown(kind, name, [n for n in names if n.count(".") <= name.count(".")]))
