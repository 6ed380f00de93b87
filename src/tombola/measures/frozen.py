"""A frozen body: a network up to its head, whose parameters never move and whose features are read at places.

Probes and transfer train their heads on it (:mod:`tombola.measures.heads`). It has the untrained weights of a
ticket or the final weights of a run. Only the running statistics of batch norm may move: under those of an
initialisation the activations of a sparse network all but vanish, so by default they adapt to the images
while heads are trained on top (protocol, reading G2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tombola.data.imageset import Data
from tombola.errors import NetworkError, RecipeError, reason, unknown
from tombola.networks.blocks import block_names
from tombola.networks.network import Network
from tombola.ticket import Ticket
from tombola.training.device import resolve_precision
from tombola.training.flat_network import FlatNetwork, channels_last
from tombola.training.preflight import is_undefined_batch_norm, undefined_batch_norm
from tombola.training.recipe import Recipe
from tombola.training.run import Run

BatchNorm = Literal["adapting", "frozen"]


class _HeadReached(Exception):
    """Ends a forward pass where the head would begin."""


class _Readings:
    """The outputs that hooks take from a forward pass; hooks refer to it, and not to the body.

    features: float32 ``(places, rows, 1 + widest)``, into which outputs are written; None in a trial pass.
    tried: the outputs of a trial pass in their order, each with the index of its place.
    """

    def __init__(self) -> None:
        self.features: Tensor | None = None
        self.tried: list[tuple[int, object]] = []

    def reader(self, index: int) -> Callable[[nn.Module, object, object], None]:
        """The hook that reads the output of a place."""
        return lambda module, arguments, output: self._take(index, output)

    def end(self, index: int | None) -> Callable[[nn.Module, tuple[object, ...]], None]:
        """The hook that ends the pass before the head, which may be a place itself."""

        def stop(module: nn.Module, arguments: tuple[object, ...]) -> None:
            if index is not None:
                self._take(index, arguments[0])
            raise _HeadReached

        return stop

    def _take(self, index: int, values: object) -> None:
        """Averages the output of a place into ``features``, or keeps it in a trial pass."""
        # At once: a later layer may work on the values in place.
        if self.features is None:
            self.tried.append((index, values))
            return
        assert isinstance(values, Tensor)  # the trial pass has seen to that
        place = self.features[index, : len(values), 1 : 1 + _channels(values)]
        if values.ndim > 2:
            torch.mean(values, (2, 3) if values.ndim == 4 else 1, dtype=torch.float32, out=place)
        else:
            place.copy_(values)


class FrozenBody:
    """A network with frozen parameters that gives features at some places before its head.

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
        self._body = FlatNetwork(self.network, device)
        module = self._body.module
        chosen = block_names(self.network.name, module, blocks, head)
        self.places, self._head = chosen.blocks or (chosen.head,), chosen.head
        self._norms = [
            layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ]
        readings = self._readings = _Readings()
        for index, name in enumerate(self.places):
            if name != self._head:
                module.get_submodule(name).register_forward_hook(readings.reader(index))
        # Then (B, C, L) and (B, L, C) cannot be told apart.
        self._convolves_lines = any(isinstance(layer, nn.Conv1d) for layer in module.modules())
        place = self.places.index(self._head) if self._head in self.places else None
        module.get_submodule(self._head).register_forward_pre_hook(readings.end(place))

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
        # Tried before the weights are loaded, so that it leaves no trace.
        widths = self._tried_widths(data, batch_size)
        self.restart()
        self._readings.features = self._empty_features(0, 1 + max(widths))
        return widths

    def restart(self) -> None:
        """Load the weights and the running statistics of the subject again."""
        self._body.load(self._weights)

    def freeze(self) -> None:
        """Evaluation mode: batch norm uses its running statistics and leaves them alone."""
        self._body.module.eval()

    def features(self, images: Tensor) -> Tensor:
        """The features of each place, averaged over the pixels of each channel, or over tokens.

        images: normalised float32 ``(B, C, H, W)`` on the device, or what else the network takes.

        Returns float32 ``(places, B, 1 + widest)``, without gradients: a constant 1 for the bias, the
        features of the place, and zeros up to the widest place. The next call overwrites it.
        """
        features = self._readings.features
        assert features is not None, "begin() comes first"
        if features.shape[1] < len(images):
            features = self._readings.features = self._empty_features(len(images), features.shape[2])
        self._run(images)
        return features[:, : len(images)]

    def _empty_features(self, rows: int, columns: int) -> Tensor:
        """An empty tensor for features, with the constant 1 in its first column."""
        features = torch.zeros(len(self.places), rows, columns, device=self.device)
        features[:, :, 0] = 1
        return features

    def state(self) -> dict[str, Tensor]:
        """A copy of the network's ``state_dict`` on the CPU, with batch norm as it has adapted so far."""
        return self._body.state()

    @torch.no_grad()
    def _run(self, images: Tensor) -> None:
        """Run the body on images; hooks read the features of its places."""
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=self._precision == "bfloat16"):
                self._body.module(channels_last(images))
        except _HeadReached:
            return
        raise NetworkError(
            f"network {self.network.name} never runs its head {self._head!r}; give its final linear layer"
        )

    def _tried_widths(self, data: Data, batch_size: int) -> tuple[int, ...]:
        """Number of features of each place, from a trial pass of the smallest batch of an epoch.

        Raises :class:`~tombola.errors.NetworkError` if the network cannot take the images or a place gives
        something else than features.
        """
        self._readings.features, self._readings.tried = None, []
        count = len(data.train)
        smallest = count % batch_size or min(count, batch_size)
        images = data.zeros(min(2, smallest))
        try:
            self._run(images.to(self.device))
        except (RuntimeError, ValueError) as error:
            if is_undefined_batch_norm(error):
                raise undefined_batch_norm(self.network, count, batch_size) from error
            shape = "x".join(map(str, images.shape[1:]))
            raise NetworkError(
                f"network {self.network.name} cannot take the {shape} {data.kind} of {data.name}: "
                f"{reason(error)}"
            ) from error
        widths = []
        for index, name in enumerate(self.places):
            outputs = [values for tried, values in self._readings.tried if tried == index]
            try:
                widths.append(_width(outputs, len(images), self._convolves_lines))
            except ValueError as error:
                raise NetworkError(f"block {name!r} of {self.network.name} {error}") from None
        return tuple(widths)


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


def _width(outputs: Sequence[object], images: int, convolves_lines: bool) -> int:
    """Number of features of a place that gave these outputs for one batch; ValueError for other outputs.

    convolves_lines: whether the network has one-dimensional convolutions, whose outputs are (B, C, L).
    """
    if len(outputs) != 1:
        raise ValueError(f"is run {len(outputs)} times before the head; it must be run once")
    (values,) = outputs
    allowed = "(B, C, H, W), (B, tokens, C) or (B, C)"
    if not isinstance(values, Tensor):
        raise ValueError(f"gives a {type(values).__name__}; it must give a tensor {allowed}")
    if values.ndim not in (2, 3, 4) or len(values) != images:
        raise ValueError(f"gives {tuple(values.shape)} for {images} images; it must give {allowed}")
    if values.ndim == 3 and convolves_lines:
        raise ValueError(
            f"gives {tuple(values.shape)}, which may be (B, tokens, C) or, in a network with "
            "one-dimensional convolutions, (B, C, length); name a block that gives (B, C)"
        )
    return _channels(values)


def _channels(values: Tensor) -> int:
    """Number of channels of an output: ``(B, C, H, W)``, ``(B, tokens, C)`` or ``(B, C)``."""
    return values.shape[2 if values.ndim == 3 else 1]
