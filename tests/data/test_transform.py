"""Cutout and declared augmentations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tombola as tb
from tombola import seeds, source
from tombola.data import transform
from tombola.data.augmentation import draw
from tombola.data.batches import Batches, cut_out
from tombola.errors import RecipeError
from tombola.lab.arguments import from_json
from tombola.training import engines
from tombola.training.epoch import DevicePlan, EpochPlan, gathered, gathered_at_step
from tombola.training.preflight import check_augmentation

Same = Callable[..., bool]

RECIPE = {"epochs": 2, "batch_size": 100, "lr": 0.05}


@pytest.fixture(autouse=True)
def _declared_augmentations_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform._augmentations, "_declared", {})
    monkeypatch.setattr(transform, "_transforms", {})
    monkeypatch.setattr(source, "_declared", dict(source._declared))


def recipe(**augmentation: Any) -> tb.Recipe:
    return tb.Recipe(**RECIPE, augmentation=tb.Augmentation(**augmentation))  # type: ignore[arg-type]


def factors(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"factor": generator.uniform(0.5, 1, count), "shift": generator.integers(0, 20, size=(count, 1))}


def one(count: int, generator: np.random.Generator) -> np.ndarray:
    return generator.random(count)


def lit(images: Tensor, draws: dict[str, Tensor]) -> Tensor:
    bright = images * draws["factor"].view(-1, 1, 1, 1) + draws["shift"].view(-1, 1, 1, 1)
    return bright.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_a_square_around_each_centre_is_zero_and_nothing_else(side: int) -> None:
    images = torch.rand(500, 2, 8, 9) + 1
    centres = torch.stack([torch.randint(0, 8, (500,)), torch.randint(0, 9, (500,))], 1)
    expected = images.clone()
    for image, (row, column) in zip(expected, centres.tolist(), strict=True):
        for i in range(row - side // 2, row - side // 2 + side):
            for j in range(column - side // 2, column - side // 2 + side):
                if 0 <= i < 8 and 0 <= j < 9:
                    image[:, i, j] = 0
    assert torch.equal(cut_out(images, centres, side), expected)


def test_centres_are_uniform_and_leave_crops_and_flips_alone(colour: tb.Data) -> None:
    plain = draw(tb.Augmentation(), colour, noise=0, round=1, epoch=2, count=8000)
    drawn = draw(tb.Augmentation(cutout=3), colour, noise=0, round=1, epoch=2, count=8000)
    assert all(torch.equal(*pair) for pair in zip(plain.tensors(), drawn.tensors()[:3], strict=True))
    assert drawn.centres is not None
    for side, places in zip(colour.size, drawn.centres.unbind(1), strict=True):
        counts = torch.bincount(places)
        assert len(counts) == side
        # Five standard deviations of the binomial.
        assert (counts - 8000 / side).abs().max() < 5 * (8000 / side * (1 - 1 / side)) ** 0.5


@pytest.mark.parametrize(
    ("augmentation"), [{"cutout": 4}, {"declared": "lit"}, {"declared": "lit", "cutout": 2}]
)
def test_it_changes_a_training_of_which_no_bit_depends_on_how_an_epoch_is_cut(
    colour: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same, augmentation: dict[str, Any]
) -> None:
    tb.declare_augmentation("lit", draw=factors)(lit)
    start = tb.initialize("convnet", colour)
    options = {"pad": 1, "fill": "mean", **augmentation}
    run = tb.train(start, colour, recipe(**options), noise=3)
    monkeypatch.setattr(engines, "PREPARED_IMAGES", 1)
    assert same_run(tb.train(start, colour, recipe(**options), noise=3), run)
    other = tb.train(start, colour, recipe(pad=1, fill="mean"), noise=3)
    assert not same_run(other, run)


def test_a_declared_augmentation_sees_the_raw_crops_of_a_step_with_their_own_draws(colour: tb.Data) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    @tb.declare_augmentation("noted", draw=lambda count, generator: generator.permutation(count))
    def noted(images: Tensor, draws: Tensor) -> Tensor:
        seen.append((images.clone(), draws.clone()))
        return 255 - images

    start = tb.initialize("convnet", colour)
    options = tb.Augmentation(pad=1, flip=True, declared="noted")
    run = tb.train(start, colour, tb.Recipe(epochs=1, batch_size=80, augmentation=options), noise=5)
    assert [len(images) for images, _ in seen] == [4, 80, 80, 50]  # a trial comes first
    order = seeds.generator("order", 5, 0, 0).permutation(210)
    own = seeds.generator("augmentation noted", 5, 0, 0).permutation(210)
    assert torch.cat([draws for _, draws in seen[1:]]).tolist() == own.tolist()
    crops = draw(options, colour, noise=5, round=0, epoch=0)
    for place, pixels in enumerate(torch.cat([images for images, _ in seen[1:]])):
        padded = np.pad(colour.train.images[order[place]].numpy(), ((0, 0), (1, 1), (1, 1)))
        row, column = int(crops.rows[place]), int(crops.columns[place])
        crop = padded[:, row : row + 8, column : column + 10]
        assert np.array_equal(pixels.numpy(), crop[:, :, ::-1] if crops.flips[place] else crop)
    # The negatives were what was trained on.
    assert (
        run.history[1].train_loss
        != tb.train(
            start,
            colour,
            tb.Recipe(epochs=1, batch_size=80, augmentation=tb.Augmentation(pad=1, flip=True)),
            noise=5,
        )
        .history[1]
        .train_loss
    )


def test_captured_steps_read_the_draws_of_their_epoch(colour: tb.Data) -> None:
    tb.declare_augmentation("lit", draw=factors)(lit)
    augmentation, order = tb.Augmentation(pad=1, cutout=3, declared="lit"), torch.randperm(210)
    batches = Batches(colour.train, colour, pad=1)
    plans = [
        EpochPlan(order, draw(augmentation, colour, noise=0, round=0, epoch=epoch), [0.1] * 3, 80)
        for epoch in range(2)
    ]
    device_plan = DevicePlan.empty(210, 80, torch.device("cpu"), plans[0].draws)
    for plan in plans:
        device_plan.begin(plan)
        for step, images, labels in gathered(plan, batches, 0, 3, 2):
            device_plan.step.fill_(step)
            found = gathered_at_step(device_plan, batches, len(labels))
            assert torch.equal(found[0], images)
            assert torch.equal(found[1], labels)
    tb.declare_augmentation("lit", draw=one)(lit)
    other = draw(augmentation, colour, noise=0, round=0, epoch=0)
    with pytest.raises(RecipeError, match="augmentation lit draws other shapes or types from epoch to epoch"):
        device_plan.begin(EpochPlan(order, other, [0.1] * 3, 80))


def jitter(image: Tensor) -> Tensor:
    """What a transform of torchvision does: draws from torch's global generator, image by image."""
    return (image * (0.5 + 0.5 * torch.rand(1))).to(torch.uint8) if torch.rand(()) < 0.8 else image


def test_a_function_of_one_image_draws_from_a_seed_of_each_image(colour: tb.Data, same_run: Same) -> None:
    tb.declare_augmentation("jitter")(jitter)
    draws = draw(tb.Augmentation(declared="jitter"), colour, noise=1, round=0, epoch=0)
    images = colour.train.images
    before = torch.get_rng_state()
    changed = draws.apply(images)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(draws.own, Tensor)
    for image, seed, expected in zip(images, draws.own.tolist(), changed, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(jitter(image), expected)
    assert torch.equal(draws[50:60].apply(images[50:60]), changed[50:60])
    start = tb.initialize("convnet", colour)
    run = tb.train(start, colour, recipe(declared="jitter"))
    torch.rand(3)
    assert same_run(tb.train(start, colour, recipe(declared="jitter")), run)


def test_a_transform_of_torchvision_is_an_augmentation(colour: tb.Data) -> None:
    try:
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:  # its operators do not load beside any other PyTorch
        pytest.skip(f"torchvision does not load: {error}")
    tb.declare_augmentation("trivial")(v2.TrivialAugmentWide())
    draws = draw(tb.Augmentation(declared="trivial"), colour, noise=1, round=0, epoch=0)
    changed = draws.apply(colour.train.images)
    assert torch.equal(changed, draws.apply(colour.train.images))
    assert not torch.equal(changed, colour.train.images)
    tb.train(tb.initialize("convnet", colour), colour, recipe(declared="trivial"))


@pytest.mark.parametrize(
    ("drawing", "function", "words"),
    [
        (one, lambda images, draws: images[:, :, 1:], "makes 4x3x7x10 uint8 on cpu of 4x3x8x10 uint8 on cpu"),
        (one, lambda images, draws: images / 255, "makes 4x3x8x10 float32 on cpu of 4x3x8x10 uint8 on cpu"),
        (one, lambda images, draws: None, "makes a NoneType of"),
        (
            one,
            lambda images, draws: images + torch.randint(9, (1,)).byte(),
            "global generator of torch, which",
        ),
        (one, lambda images, draws: images + np.random.randint(9), "global generator of numpy, which"),  # noqa: NPY002
        (lambda count, generator: np.random.rand(count), lambda images, draws: images, "generator of numpy"),  # noqa: NPY002
        (one, lambda images, draws: images.nothing(), "failed: AttributeError: 'Tensor' object has no"),
        (
            lambda count, generator: generator.random(3),
            lambda images, draws: images,
            r"drew \(3,\) for 4 images",
        ),
        (None, lambda image: image[:, 1:], r"makes 4x3x7x10 uint8 on cpu of 4x3x8x10"),
        (None, lambda image: image + np.random.randint(2), "global generator of numpy, which"),  # noqa: NPY002
    ],
)
def test_what_is_no_augmentation_is_refused_in_a_line_before_the_first_epoch(
    colour: tb.Data, drawing: Any, function: Any, words: str
) -> None:
    tb.declare_augmentation("odd", draw=drawing)(function)
    start = tb.initialize("convnet", colour)
    with pytest.raises(RecipeError, match=f"^augmentation odd .*{words}") as caught:
        tb.train(start, colour, recipe(declared="odd", pad=0))
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match=words):
        tb.probe(start, colour, recipe=recipe(declared="odd", pad=0))


def test_settings_that_cannot_be_are_refused(colour: tb.Data) -> None:
    for value in (-1, 1.5, True):
        with pytest.raises(RecipeError, match=r"cutout is .*; it must be a whole number of pixels"):
            tb.Augmentation(cutout=value)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="cutout 9 is larger than images of 8x10; give at most 8"):
        check_augmentation(tb.Augmentation(cutout=9), colour)
    with pytest.raises(RecipeError, match=r"declared is <function .*; give the name of a declared one"):
        tb.Augmentation(declared=lit)  # type: ignore[arg-type]
    tb.declare_augmentation("lit", draw=factors)(lit)
    with pytest.raises(RecipeError, match="no augmentation 'lid'; did you mean 'lit'"):
        check_augmentation(tb.Augmentation(declared="lid"), colour)
    with pytest.raises(RecipeError, match="the augmentation name 'lit' is taken"):
        tb.declare_augmentation("lit")(jitter)
    with pytest.raises(RecipeError, match="draw of augmentation 'a' is 3; it must be a function"):
        tb.declare_augmentation("a", draw=3)(lit)  # type: ignore[arg-type]


def test_jobs_name_an_augmentation_with_its_version_and_leave_defaults_out() -> None:
    start = tb.job(tb.initialize, "convnet", "digits")

    def written(**options: Any) -> Any:
        made = tb.job(tb.train, start, "digits", tb.Recipe(augmentation=tb.Augmentation(**options)))
        return made.arguments.get("recipe", {}).get("augmentation")

    tb.declare_augmentation("lit", draw=factors)(lit)
    assert written(cutout=0, declared=None) is None
    assert written(cutout=2) == {"cutout": 2}
    assert written(declared="lit") == written(declared="lit@1") == {"declared": "lit"}
    tb.declare_augmentation("lit", draw=factors, version=2)(lit)
    assert written(declared="lit") == {"declared": "lit@2"}
    assert from_json({"declared": "lit"}, tb.Augmentation) == tb.Augmentation(declared="lit@1")
    # Of a store whose file is not imported here.
    assert from_json({"declared": "gone@3"}, tb.Augmentation) == tb.Augmentation(declared="gone@3")


def test_a_recipe_at_hand_names_the_newest_version_of_its_augmentation_in_every_job(start: tb.Ticket) -> None:
    recipe = tb.Recipe(epochs=1, augmentation=tb.Augmentation(declared="lit"))
    for version, name in ((1, "lit"), (2, "lit@2")):
        tb.declare_augmentation("lit", draw=factors, version=version)(lit)
        job = tb.job(tb.train, start, "digits", recipe)
        assert job.arguments["recipe"]["augmentation"] == {"declared": name}
