"""Checks before a training starts: its budget, its images, and one trial forward pass in training mode.

The training loop calls :func:`check_trainable`, so that a hopeless training costs no step.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import torch

from tombola import seeds
from tombola.data.augmentation import Augmentation
from tombola.data.imageset import Data
from tombola.errors import NetworkError, RecipeError
from tombola.networks.fit import check_outputs
from tombola.networks.network import Network
from tombola.training.flat_network import channels_last
from tombola.training.recipe import Recipe


def check_trainable(network: Network, data: Data, recipe: Recipe, start_epoch: int) -> None:
    """Check that a training can run as described, before any step of it.

    Raises :class:`~tombola.errors.RecipeError` if nothing is left of the schedule or batch norm is undefined
    on the last batch, :class:`~tombola.errors.NetworkError` if images do not fit the network or the network
    draws random numbers of its own, or gives anything but logits when it trains.
    """
    check_budget(start_epoch, recipe)
    check_images(network, data)
    check_kind(recipe.augmentation, data)
    count = len(data.train)
    if recipe.batch_size > count:
        warnings.warn(
            f"batch size {recipe.batch_size} is larger than the {count} training images: "
            "every epoch is one partial batch",
            stacklevel=3,
        )
    last = count % recipe.batch_size or min(recipe.batch_size, count)
    _check_forward(network, recipe, count, last)


def check_budget(start_epoch: int, recipe: Recipe) -> None:
    """Raises RecipeError for a recipe that ends at or before the epoch at which the start was taken."""
    if start_epoch >= recipe.epochs:
        raise RecipeError(
            f"the ticket was taken at epoch {start_epoch}, but the recipe has {recipe.epochs} epochs; "
            f"rewind to at most epoch {recipe.epochs - 1}"
        )


def check_images(network: Network, data: Data) -> None:
    """Raises NetworkError for a network that was built for images of another size or number of classes."""
    fitting = replace(
        network, channels=data.channels, size=data.size, classes=data.classes, vocabulary=data.vocabulary
    )
    if fitting != network:
        raise NetworkError(
            f"network {network.name} is for {network.inputs} of {network.classes} classes; "
            f"{data.name} has {fitting.inputs} of {data.classes} classes"
        )


def check_kind(augmentation: Augmentation, data: Data) -> None:
    """Raises RecipeError for an augmentation of data that are no images."""
    if (
        data.kind != "images"
        and replace(augmentation, pad=augmentation.pad or None, flip=augmentation.flip or None)
        != Augmentation()
    ):
        raise RecipeError(
            f"the recipe augments images, but {data.name} has {data.kind}; leave its augmentation out"
        )


def _check_forward(network: Network, recipe: Recipe, count: int, last: int) -> None:
    """Run the smallest batch in training mode, on a copy, and check that no random numbers are drawn."""
    # Laid out as in a training, where a view() that needs another layout would fail.
    module = copy.deepcopy(network.initialized(0)).train()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = channels_last(network.zeros(min(last, 2)))
    with seeds.torch_stream("check"):
        before = torch.get_rng_state()
        try:
            with torch.no_grad():
                outputs = module(images)
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            raise NetworkError(
                f"network {network.name} calls view() on activations, which lie in memory as channels_last; "
                "let it call flatten() or reshape()"
            ) from error
        except ValueError as error:
            if not is_undefined_batch_norm(error):
                raise
            raise undefined_batch_norm(network, count, recipe.batch_size) from error
        check_outputs(outputs, network, len(images))
        if not torch.equal(before, torch.get_rng_state()):
            raise NetworkError(
                f"network {network.name} draws random numbers in training (dropout?), which no stream "
                "covers; set its dropout to 0"
            )


def is_undefined_batch_norm(error: Exception) -> bool:
    """Whether an error is PyTorch's refusal of batch norm over a single value."""
    return isinstance(error, ValueError) and "more than 1 value per channel" in str(error)


def undefined_batch_norm(network: Network, count: int, batch_size: int) -> RecipeError:
    """The error for an epoch whose last batch is a single image that batch norm has no statistics of."""
    return RecipeError(
        f"{count} images in batches of {batch_size} leave a last batch of 1, on which batch norm is "
        f"undefined in {network.name}; choose another batch size, such as "
        f"{_nearest_batch_size(count, batch_size)}"
    )


def _nearest_batch_size(count: int, batch_size: int) -> int:
    """The nearest batch size whose last batch is not a single image."""
    candidates = (size for delta in range(1, count + 2) for size in (batch_size - delta, batch_size + delta))
    return next(size for size in candidates if size > 1 and count % size != 1)
