"""Checks before a training starts: its budget, its images, and one trial forward pass in training mode.

The training loop calls these, so that a hopeless training costs no step.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from tombola import seeds
from tombola.data.augmentation import Augmentation, draw
from tombola.data.imageset import Data
from tombola.errors import NetworkError, RecipeError, TombolaError, reason
from tombola.networks.fit import check_outputs
from tombola.networks.network import Network
from tombola.ticket import Ticket
from tombola.training.definitions import OPTIMIZERS, SCHEDULES, is_own
from tombola.training.flat_network import channels_last
from tombola.training.length import (
    Length,
    is_length,
    iterations_of,
    length_text,
    place_of,
    steps_of_epoch,
    written_length,
)
from tombola.training.losses import check_loss, weights_of
from tombola.training.optimizers import DeclaredOptimizer
from tombola.training.recipe import MOST_EPOCHS, Recipe
from tombola.training.run import Run
from tombola.warn import warn


def check_trainable(
    network: Network, data: Data, recipe: Recipe, start_epoch: int, start_step: int = 0
) -> bool:
    """Check that a training can run as described, before any step of it.

    start_epoch, start_step: place in the schedule at which it begins.

    Returns whether the network draws random numbers in training mode, as dropout does.

    Raises :class:`~tombola.errors.RecipeError` if nothing is left of the schedule, batch norm is undefined on
    the last batch, or the augmentation or a declared schedule, loss or optimizer cannot be used, and
    :class:`~tombola.errors.NetworkError` if images do not fit the network, or it gives anything but logits
    when it trains, or draws random numbers that no stream covers.
    """
    steps = steps_of_epoch(len(data.train), recipe.batch_size)
    check_budget((start_epoch, start_step), recipe, steps)
    check_images(network, data)
    check_kind(recipe.augmentation, data)
    check_augmentation(recipe.augmentation, data)
    count = len(data.train)
    if recipe.batch_size > count:
        warn(
            f"batch size {recipe.batch_size} is larger than the {count} training images: "
            "every epoch is one partial batch"
        )
    check_schedule(recipe, start_epoch, steps)
    check_loss(recipe, data.classes)
    last = count % recipe.batch_size or min(recipe.batch_size, count)
    return _draws_in_training(network, recipe, count, last)


def check_budget(start: tuple[int, int], recipe: Recipe, steps: int) -> None:
    """Raises RecipeError for a recipe that ends at or before the place at which the start was taken.

    So it does for lengths that can only be compared where it is known how many steps an epoch has.

    start: epoch and step within it.
    """
    end = place_of(recipe.epochs, steps)
    if not isinstance(recipe.epochs, str):
        if start >= end:
            raise RecipeError(
                f"the ticket was taken at epoch {start[0]}, but the recipe has "
                f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}; "
                f"rewind to at most epoch {recipe.epochs - 1}"
            )
    elif start >= end:
        raise RecipeError(
            f"the ticket was taken at iteration {start[0] * steps + start[1]:,}, but the recipe has "
            f"{length_text(recipe.epochs)}, {steps:,} an epoch; rewind to an earlier one"
        )
    if end > (MOST_EPOCHS, 0):
        raise RecipeError(
            f"epochs is {recipe.epochs!r}, {end[0]:,} epochs of {steps:,} steps; it must be at most "
            f"{MOST_EPOCHS:,} epochs: forgetting events of an image are counted to 32,767"
        )
    if place_of(recipe.warmup, steps) > end:
        raise RecipeError(
            f"warmup is {recipe.warmup!r}, but the recipe has {length_text(recipe.epochs)}, {steps:,} steps "
            "an epoch; warm up for no more than the recipe"
        )


def check_schedule(recipe: Recipe, start_epoch: int, steps: int) -> None:
    """Raises RecipeError for a declared schedule that gives no rate at the beginning of some epoch.

    steps: of an epoch.
    """
    if is_own(SCHEDULES, recipe.schedule):
        last, rest = place_of(recipe.epochs, steps)
        for epoch in range(start_epoch, last + (rest > 0)):
            recipe.rate(epoch, 0, steps)


def check_whole_epochs(recipe: Recipe, what: str) -> int:
    """The epochs of a recipe; RecipeError for one in iterations.

    what: cannot have such a recipe, in the plural, for the error.
    """
    if isinstance(recipe.epochs, str):
        raise RecipeError(f"epochs is {recipe.epochs!r}, but {what} are counted in whole epochs; give these")
    return recipe.epochs


def check_rewind(epochs: Length, recipe: Recipe, steps: int | None = None) -> None:
    """Raises RecipeError for a rewind point outside the budget.

    steps: of an epoch; None where the data is not at hand, and a place in iterations cannot be checked yet.
    """
    rewind, last = written_length(epochs), recipe.epochs
    if isinstance(rewind, str) or isinstance(last, str):
        if not is_length(rewind) or rewind == 0:
            raise RecipeError(
                f"rewind is to epoch {rewind}; allowed are 1 or later, or iterations as '500it'"
            )
        iterations, budget = _iterations(rewind, steps), _iterations(last, steps)
        if iterations is not None and budget is not None and iterations >= budget:
            raise RecipeError(
                f"rewind is to iteration {iterations:,}, but the recipe has {budget:,}"
                + ("" if steps is None else f", {steps:,} an epoch")
                + "; rewind to an earlier one than the last"
            )
        return
    if last == 1:
        raise RecipeError(f"rewind is to epoch {rewind}, but the recipe has 1 epoch; none lies within")
    if rewind not in range(1, last):
        raise RecipeError(
            f"rewind is to epoch {rewind}, but the recipe has {last} epochs; "
            + ("allowed is 1" if last == 2 else f"allowed are 1 to {last - 1}")
        )


def _iterations(length: Length, steps: int | None) -> int | None:
    """A length in iterations; None for one in epochs of which it is not known how many steps they have."""
    iterations = iterations_of(length)
    if iterations is not None or steps is None:
        return iterations
    return int(written_length(length)) * steps


def check_place(ticket: Ticket, data: Data, recipe: Recipe) -> None:
    """Raises RecipeError for a ticket that was taken within an epoch of another number of steps."""
    steps = steps_of_epoch(len(data.train), recipe.batch_size)
    if ticket.step and ticket.steps != steps:
        raise RecipeError(
            f"the ticket was taken at {ticket.place} steps, but here an epoch has {steps}; take as many "
            "images and the same batch size, or rewind to a whole epoch"
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


def check_augmentation(augmentation: Augmentation, data: Data) -> None:
    """Try an augmentation on a few images, before any step.

    Raises :class:`~tombola.errors.RecipeError` for a cutout larger than the images, and a declared
    augmentation that fails, changes the shape or type of images, or draws from a global generator.
    """
    if data.kind != "images":
        return
    smallest = min(data.size)
    if augmentation.cutout > smallest:
        raise RecipeError(
            f"augmentation cutout {augmentation.cutout} is larger than images of "
            f"{data.size[0]}x{data.size[1]}; give at most {smallest}"
        )
    transform = augmentation.transform()
    if transform is None:
        return
    images = data.train.images[:4]

    def apply() -> None:
        draws = draw(augmentation, data, noise=0, round=0, epoch=0, count=len(images))
        draws.apply(images.clone())

    try:
        with seeds.torch_stream("check"):
            drawn = seeds.drawn_from(apply)
    except TombolaError:
        raise
    except Exception as error:  # a user's function
        raise RecipeError(
            f"augmentation {transform.name} failed: {type(error).__name__}: {reason(error)}"
        ) from error
    if drawn:
        raise RecipeError(
            f"augmentation {transform.name} draws from the global generator of "
            f"{' and '.join(sorted(drawn))}, which no stream covers; let draw(count, generator) draw"
        )


def check_teacher(recipe: Recipe, teacher: object, network: Network) -> None:
    """Raises RecipeError for a teacher that is missing, of no use, or for other images or classes."""
    if recipe.loss == "distillation" and teacher is None:
        raise RecipeError("loss 'distillation' needs a teacher; give train() or imp() one, teacher=run")
    if teacher is None:
        return
    if recipe.loss != "distillation":
        raise RecipeError(f"a teacher is given, but loss is {recipe.loss!r}; use loss='distillation'")
    if not isinstance(teacher, Run | Ticket):
        raise RecipeError(f"teacher is {teacher!r:.60}; it must be a run or a ticket")
    other = weights_of(teacher)[0].network
    theirs, ours = (f"{of.inputs} of {of.classes} classes" for of in (other, network))
    if theirs != ours:
        raise RecipeError(f"the teacher {other.name} is for {theirs}, the ticket for {ours}; they must agree")


def _draws_in_training(network: Network, recipe: Recipe, count: int, last: int) -> bool:
    """Run the smallest batch in training mode, on a copy; returns whether random numbers are drawn."""
    # Laid out as in a training, where a view() that needs another layout would fail.
    module = copy.deepcopy(network.initialized(0)).train()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = channels_last(network.zeros(min(last, 2)))
    outputs: list[Any] = []
    with seeds.torch_stream("check"), torch.no_grad():
        try:
            drawn = seeds.drawn_from(lambda: outputs.append(module(images)))
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
        check_outputs(outputs[-1], network, len(images))
        if others := drawn - {"torch"}:
            raise NetworkError(
                f"network {network.name} draws from the global generator of {' and '.join(sorted(others))}, "
                "which no stream covers; let it draw from torch's"
            )
        if drawn and seeds.drawn_from(lambda: module.eval()(images)):
            raise NetworkError(
                f"network {network.name} draws random numbers in evaluation mode too; give its dropout "
                "training=self.training"
            )
    if is_own(OPTIMIZERS, recipe.optimizer):
        parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        with seeds.torch_stream("check"):
            DeclaredOptimizer(parameters, recipe).try_step()
    return bool(drawn)


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
