"""The costs of trainings, for plans: epochs, images and disk from recipe, ticket outline and data size."""

from __future__ import annotations

import math
from dataclasses import replace

from tombola.cost import FORWARD, HEADER_BYTES, RESULT_BYTES, Cost, Outline, Size
from tombola.training.length import Length, epochs_of, steps_of_epoch
from tombola.training.recipe import Recipe


def train_cost(ticket: Outline, data: Size, recipe: Recipe) -> Cost:
    """The cost of training a ticket for what its place in the schedule leaves of the recipe."""
    return _training(ticket, data, recipe, epochs_of(recipe.epochs, _steps(data, recipe)) - ticket.epoch)


def pretrain_cost(start: Outline, data: Size, recipe: Recipe, epochs: Length) -> Cost:
    """The cost of a pretraining, whose ticket is taken at ``epochs``."""
    place = epochs_of(epochs, _steps(data, recipe))
    return replace(_training(start, data, recipe, place), result=replace(start, epoch=place))


def _steps(data: Size, recipe: Recipe) -> int:
    """Steps of an epoch, at least one: of data that are made from nothing no size is known."""
    return max(1, steps_of_epoch(math.ceil(data.train * data.share), recipe.batch_size))


def trunk_cost(start: Outline, data: Size, recipe: Recipe, epochs: int, after: Outline | None) -> Cost:
    """The cost of a trunk from the point before it, or from its start; its optimizer state takes disk too."""
    trained = _training(start, data, recipe, epochs - (after.epoch if after else 0))
    states = 1 + (len(recipe.optimizer_states) or 2) if recipe.keeps_state else 1
    return replace(trained, disk=trained.disk * states, result=replace(start, epoch=epochs))


def _training(ticket: Outline, data: Size, recipe: Recipe, epochs: float) -> Cost:
    """The cost of some epochs, each over the data's share of the train split and with a test at its end."""
    mask_and_weights = ticket.weights * (4 * ticket.density + 1 / 8)
    forgetting_record = 4 * data.train * data.share
    return Cost(
        epochs=epochs * data.share,
        images=epochs * (data.train * data.share + FORWARD * data.test),
        network=ticket.network,
        batch_size=recipe.batch_size,
        disk=RESULT_BYTES + HEADER_BYTES + mask_and_weights + forgetting_record,
    )
