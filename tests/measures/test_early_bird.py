"""When masks settle, against masks taken by hand of a training's own weights after each epoch."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tombola as tb
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.training.checkpoint import Checkpoint, Checkpoints, Watch


@pytest.fixture(scope="module")
def long_recipe() -> tb.Recipe:
    return tb.Recipe(epochs=6, batch_size=100, lr=0.1)


@pytest.fixture(scope="module")
def weights_by_epoch(
    start: tb.Ticket, digits: tb.Data, long_recipe: tb.Recipe
) -> list[dict[str, torch.Tensor]]:
    """The weights after each epoch of the training under noise 2."""
    states: list[dict[str, torch.Tensor]] = []

    class Keeping(Watch):
        def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
            if epoch_end:
                states.append(dict(snapshot().tensors))

    tb.train(start, digits, long_recipe, noise=2, watch=Keeping())
    return states


def by_hand(
    states: list[dict[str, torch.Tensor]], names: list[str], keep: float, window: int
) -> tuple[list[float], float]:
    """The largest distance to the masks before in the window, and that of chance, by sorting."""
    masks = []
    for state in states:
        values = np.concatenate([state[f"weights.{name}"].abs().numpy().ravel() for name in names])
        mask = np.zeros(len(values), dtype=bool)
        mask[np.argsort(values)[::-1][: math.floor(keep * len(values) + 0.5)]] = True
        masks.append(mask)
    distances = [
        max(np.mean(masks[at] != other) for other in masks[max(0, at - window + 1) : at])
        for at in range(1, len(masks))
    ]
    share = masks[0].mean()
    return distances, 2 * share * (1 - share)


@pytest.mark.parametrize(("of", "keep"), [("channels", 0.3), ("weights", 0.2)])
def test_distances_are_those_of_masks_by_hand(
    start: tb.Ticket,
    digits: tb.Data,
    long_recipe: tb.Recipe,
    weights_by_epoch: list[dict[str, torch.Tensor]],
    of: str,
    keep: float,
) -> None:
    scales = [f"{layer}.weight" for layer in (1, 4, 7, 10)]
    names = scales if of == "channels" else list(start.mask)
    found = tb.early_bird(start, digits, long_recipe, of=of, fraction=1 - keep, noise=2, window=4)  # type: ignore[arg-type]
    distances, chance = by_hand(weights_by_epoch, names, keep, 4)
    assert found.distances == pytest.approx(distances, abs=1e-12)
    assert found.chance == pytest.approx(chance)
    assert found.corrected == pytest.approx([far / chance for far in distances])
    # From the fourth epoch on there are four masks; distances[0] is that of epoch 2.
    for epoch, limit in ((found.epoch, 0.1), (found.corrected_epoch, 0.1 * chance)):
        settled = [at for at in range(4, 7) if distances[at - 2] < limit]
        assert epoch == (settled[0] if settled else None)


def test_chance_is_the_distance_of_independent_masks() -> None:
    draws = np.random.default_rng(0)
    for keep in (0.5, 0.2, 0.05):
        masks = [draws.permutation(10_000) < keep * 10_000 for _ in range(2)]
        assert np.mean(masks[0] != masks[1]) == pytest.approx(2 * keep * (1 - keep), rel=0.1)


def test_at_a_low_share_masks_are_near_by_chance_from_the_first(start: tb.Ticket, digits: tb.Data) -> None:
    """The published rule on 5% of the weights draws its ticket as early as it can; relative to chance not."""
    recipe = tb.Recipe(epochs=6, batch_size=100, lr=0.1)
    found = tb.early_bird(start, digits, recipe, of="weights", fraction=0.95)
    assert found.chance < 0.1
    assert found.epoch == 5
    assert found.corrected_epoch is None or found.corrected_epoch > 5
    assert max(found.corrected) > 0.3


def test_a_shorter_look_sees_the_same_beginning(
    start: tb.Ticket, digits: tb.Data, long_recipe: tb.Recipe
) -> None:
    full = tb.early_bird(start, digits, long_recipe)
    short = tb.early_bird(start, digits, long_recipe, epochs=3)
    assert short.distances == full.distances[:2]
    assert short.epoch is None


def test_of_a_sparse_ticket_the_weights_that_it_keeps_are_ranked(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    ticket = tb.prune(start, fraction=0.75)
    found = tb.early_bird(ticket, digits, recipe, of="weights", epochs=2)
    masks = []
    for epochs in (1, 2):
        weights = tb.pretrain(ticket, digits, recipe, epochs=epochs).start
        left = np.concatenate([weights[name][keep].abs().numpy() for name, keep in ticket.mask.items()])
        masks.append(left >= np.sort(left)[len(left) // 2])
    assert [len(mask) for mask in masks] == [ticket.kept] * 2
    assert masks[0].mean() == 0.5
    assert found.distances == pytest.approx([np.mean(masks[0] != masks[1])])


@pytest.mark.parametrize("after", [2, 10])
def test_an_interrupted_look_goes_on_with_its_masks(
    start: tb.Ticket,
    digits: tb.Data,
    long_recipe: tb.Recipe,
    tmp_path: Path,
    after: int,
    interrupting: type[Any],
) -> None:
    recipe = replace(long_recipe, epochs=4)

    def look(watch: Watch | None, fraction: float = 0.5) -> tb.EarlyBird:
        return tb.early_bird(start, digits, recipe, fraction=fraction, window=3, watch=watch)

    with pytest.raises(interrupting.Interrupted):
        look(interrupting(tmp_path, after))
    assert look(Checkpoints(tmp_path, every=1000)) == look(None)
    if after == 10:  # another share of the same training has other masks, and begins anew
        assert look(Checkpoints(tmp_path, every=1000), fraction=0.7) == look(None, fraction=0.7)


@pytest.mark.parametrize("of", ["channels", "weights"])
def test_a_training_that_diverges_settles_on_no_mask(start: tb.Ticket, digits: tb.Data, of: str) -> None:
    """What is not finite has no largest: all masks would be equal."""
    recipe = tb.Recipe(epochs=2, batch_size=400, lr=1e30)
    with pytest.raises(TicketError, match="the training diverged in epoch 1, so there is no mask"):
        tb.early_bird(start, digits, recipe, of=of, window=2)  # type: ignore[arg-type]


def test_what_has_no_mask_is_refused(start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> None:
    with pytest.raises(NetworkError, match=r"lenet300 has no batch norm, .* say of='weights'"):
        tb.early_bird(tb.initialize("lenet300", digits), digits, recipe)
    for fraction in (0.0, 1.0):
        with pytest.raises(RecipeError, match="must lie between 0 and 1"):
            tb.early_bird(start, digits, recipe, fraction=fraction)
    with pytest.raises(RecipeError, match="keeps 0 of 72 channels; all masks would be equal"):
        tb.early_bird(start, digits, recipe, fraction=0.999)
    with pytest.raises(RecipeError, match="no mask 'layers'"):
        tb.early_bird(start, digits, recipe, of="layers")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="window is 1"):
        tb.early_bird(start, digits, recipe, window=1)
    with pytest.raises(RecipeError, match="threshold is 0"):
        tb.early_bird(start, digits, recipe, threshold=0)
    with pytest.raises(RecipeError, match="epochs is 4; the recipe has 3, so allowed are 1 to 3"):
        tb.early_bird(start, digits, recipe, epochs=4)
