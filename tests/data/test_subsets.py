import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.data.splits import stratified_split
from tombola.data.subsets import subset
from tombola.errors import DataError

NESTED = (0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


def uneven(counts: list[int]) -> tb.Data:
    """A data set with that many train images of each class; the pixels of each image tell which it is."""
    labels = torch.tensor([index for index, count in enumerate(counts) for _ in range(count)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(len(labels)))]
    number = torch.arange(len(labels))
    images = torch.stack([number // 256, number % 256], 1).to(torch.uint8)[:, None, None]
    classes = torch.arange(len(counts))
    test = torch.zeros(len(counts), 1, 1, 2, dtype=torch.uint8)
    return tb.data_from_tensors((images, labels), (test, classes), name="uneven")


def numbers(data: tb.Data) -> list[int]:
    """Which images of :func:`uneven` these are, in their order."""
    pixels = data.train.images[:, 0, 0].long()
    return (256 * pixels[:, 0] + pixels[:, 1]).tolist()


def per_class(data: tb.Data) -> list[int]:
    return torch.bincount(data.train.labels, minlength=data.classes).tolist()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.floats(0.001, 1), st.integers(0, 3))
def test_every_class_gives_its_share_of_images_to_the_nearest_half_up(
    counts: list[int], share: float, seed: int
) -> None:
    data = uneven(counts)
    expected = [math.floor(share * count + 0.5) for count in counts]
    if min(expected) == 0:
        with pytest.raises(DataError, match="leaves no image of class"):
            subset(data, share=share, seed=seed)
        return
    chosen = subset(data, share=share, seed=seed)
    assert per_class(chosen) == expected
    found = numbers(chosen)
    assert found == sorted(set(found))  # no image twice, in their old order
    labels = data.train.labels.tolist()
    assert chosen.train.labels.tolist() == [labels[number] for number in found]


@given(
    st.lists(st.integers(20, 60), min_size=1, max_size=5),
    st.lists(st.floats(0.05, 1), min_size=2, max_size=4),
    st.integers(0, 3),
)
def test_smaller_subsets_lie_within_larger_ones(counts: list[int], shares: list[float], seed: int) -> None:
    data = uneven(counts)
    drawn = [set(numbers(subset(data, share=share, seed=seed))) for share in sorted(shares)]
    assert all(small <= large for small, large in itertools.pairwise(drawn))
    # Each class gives at least so many to the smallest of them.
    fewest = math.floor(min(shares) * min(counts) + 0.5)
    assert set(numbers(subset(data, shots=fewest, seed=seed))) <= drawn[0]


def test_the_nested_shares_of_the_paper_by_hand() -> None:
    data = uneven([200, 130, 77])
    drawn = [subset(data, share=share, seed=1) for share in NESTED]
    assert [per_class(part) for part in drawn] == [
        [2, 1, 1], [4, 3, 2], [10, 7, 4], [20, 13, 8], [100, 65, 39], [200, 130, 77],
    ]  # fmt: skip
    images = [set(numbers(part)) for part in drawn]
    assert all(small < large for small, large in itertools.pairwise(images))


def test_the_papers_shares_of_cifar_10_and_tinyimagenet_in_images_a_class() -> None:
    # 5,000 and 500 a class; section 5.2 and reading H8.
    for images, expected in ((5000, [50, 100, 250, 500]), (500, [5, 10, 25, 50])):
        data = uneven([images, images])
        assert [per_class(subset(data, share=share)) for share in NESTED[:4]] == [[n, n] for n in expected]


def test_shots_give_equally_many_images_of_uneven_classes() -> None:
    assert per_class(subset(uneven([40, 9, 23]), shots=9)) == [9, 9, 9]


def test_a_subset_is_drawn_from_its_seed_alone() -> None:
    data = uneven([100, 100])
    before = torch.get_rng_state()
    first, again, other = (numbers(subset(data, share=0.2, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert torch.equal(before, torch.get_rng_state())


def test_classes_are_drawn_independently_and_uniformly() -> None:
    data = uneven([30, 30])
    members = [(data.train.labels == index).nonzero().flatten().tolist() for index in range(2)]
    hits = torch.zeros(60)
    alike = 0
    for seed in range(400):
        found = set(numbers(subset(data, shots=10, seed=seed)))
        hits[sorted(found)] += 1
        alike += [n in found for n in members[0]] == [n in found for n in members[1]]
    assert alike == 0
    # A third of 400 draws, within five standard deviations.
    assert (hits - 400 / 3).abs().max() < 5 * math.sqrt(400 * 1 / 3 * 2 / 3)


def test_the_draw_never_changes() -> None:
    # Pinned: another draw would make every stored result one of other images.
    assert numbers(subset(uneven([20]), shots=5, seed=7)) == [0, 6, 12, 13, 17]


def test_the_test_split_and_the_inputs_stay_those_of_the_whole(digits: tb.Data) -> None:
    part = subset(digits, share=0.05, seed=2)
    assert part.test is digits.test
    assert torch.equal(part.mean, digits.mean)
    assert torch.equal(part.std, digits.std)
    assert (part.class_names, part.mirrored, part.source) == (digits.class_names, False, None)
    assert part.fingerprint != digits.fingerprint


def test_a_subset_of_everything_is_the_whole_under_another_name(digits: tb.Data) -> None:
    whole = subset(digits, share=1)
    assert torch.equal(whole.train.images, digits.train.images)
    assert torch.equal(whole.train.labels, digits.train.labels)
    assert whole.name == "digits-share1-seed0"


def test_a_subset_of_a_subset_is_a_subset_normalised_as_the_whole(digits: tb.Data) -> None:
    part = subset(subset(digits, share=0.5), shots=3, seed=1)
    assert per_class(part) == [3] * 10
    assert torch.equal(part.std, digits.std)
    assert part.name == "digits-share0.5-seed0-shots3-seed1"


def test_a_subset_trains_like_any_data_set(start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> None:
    run = tb.train(start, subset(digits, shots=24), recipe)
    assert len(run.forgetting.events) == 240
    assert run.history[0].test_accuracy == tb.train(start, digits, recipe).history[0].test_accuracy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 0.0}, r"share is 0\.0; it must lie above 0 and be at most 1"),
        ({"share": 1.01}, r"share is 1\.01; it must lie above 0 and be at most 1"),
        ({"share": -0.1}, r"share is -0\.1"),
        ({"share": math.nan}, "share is nan"),
        ({"shots": 0}, "shots is 0; it must be a whole number of images, at least 1"),
        ({"shots": 2.5}, r"shots is 2\.5; it must be a whole number"),
        ({"shots": 24}, "shots is 24, but class '2' of uneven has 23 train images; ask for at most 23"),
        (
            {"share": 0.02},
            r"share is 0\.02, which leaves no image of class '2' of uneven with its 23 train images; "
            r"ask for 0\.043, or give shots",
        ),
        ({}, "share is None and shots is None; give one of them"),
        ({"share": 0.5, "shots": 3}, r"share is 0\.5 and shots is 3; give one of them"),
    ],
)
def test_impossible_subsets_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(DataError, match=f"^{words}"):
        subset(uneven([40, 50, 23]), **settings)


@given(st.integers(1, 3000))
def test_the_share_that_is_asked_for_in_an_error_is_enough(count: int) -> None:
    data = uneven([count])
    with pytest.raises(DataError, match="leaves no image") as refused:
        subset(data, share=0.4 / count)
    advised = float(str(refused.value).split("ask for ")[1].split(",")[0])
    assert per_class(subset(data, share=advised)) == [1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.sampled_from([0.2, 1 / 3, 0.5]))
def test_every_image_is_in_exactly_one_split_and_indices_are_sorted(
    labels: list[int], fraction: float
) -> None:
    train, test = stratified_split(torch.tensor(labels), fraction)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    assert train.tolist() == sorted(train.tolist())
    assert test.tolist() == sorted(test.tolist())


def test_each_class_gives_its_share_rounded() -> None:
    labels = torch.tensor([0] * 10 + [1] * 13 + [2] * 100)
    _, test = stratified_split(labels, 0.2)
    assert torch.bincount(labels[test]).tolist() == [2, 3, 20]


def test_small_classes_give_at_least_one_image_and_keep_at_least_one() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert torch.bincount(labels[stratified_split(labels, 0.1)[1]], minlength=3).tolist() == [1, 1, 0]
    assert torch.bincount(labels[stratified_split(labels, 0.9)[0]], minlength=3).tolist() == [1, 1, 1]


def test_another_class_does_not_move_the_split_of_the_first() -> None:
    alone = stratified_split(torch.zeros(30, dtype=torch.int64), 0.2)[1]
    beside = stratified_split(torch.tensor([0] * 30 + [1] * 7), 0.2)[1]
    assert beside[beside < 30].tolist() == alone.tolist()


def test_another_stream_splits_otherwise() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    assert stratified_split(labels, 0.2, "a")[1].tolist() != stratified_split(labels, 0.2, "b")[1].tolist()


def test_the_split_never_changes() -> None:
    # Pinned: another split would make every stored result one of other data.
    _, test = stratified_split(torch.zeros(20, dtype=torch.int64), 0.2)
    assert test.tolist() == [6, 7, 11, 17]


def test_taken_images_are_the_full_sets_own_inputs(digits: tb.Data) -> None:
    part = tb.take(digits, [7, 3, 3, 900])
    assert torch.equal(part.train.images, torch.stack([digits.train.images[i] for i in (7, 3, 3, 900)]))
    assert part.train.labels.tolist() == [int(digits.train.labels[i]) for i in (7, 3, 3, 900)]
    assert part.test is digits.test
    assert (part.classes, part.class_names) == (10, digits.class_names)
    assert torch.equal(part.mean, digits.mean)
    assert torch.equal(part.std, digits.std)


def test_a_part_may_lack_classes_and_trains_and_is_told_by_its_pixels(digits: tb.Data) -> None:
    small = digits.train.labels < 5
    part = tb.take(digits, small)
    assert len(part.train) == int(small.sum())
    assert set(part.train.labels.tolist()) == {0, 1, 2, 3, 4}
    assert part.name == f"digits-part-{tb.take(digits, np.flatnonzero(small)).fingerprint[:12]}"
    assert part.name != tb.take(digits, ~small).name
    assert tb.subset(part, shots=2).train.labels.bincount(minlength=10).tolist() == [2] * 5 + [0] * 5
    with pytest.raises(DataError, match="ask for at most"):
        tb.subset(part, shots=1000)
    ticket = tb.initialize("convnet", part)
    assert tb.train(ticket, part, tb.Recipe(epochs=1, batch_size=100)).history[-1].epoch == 1


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 1198], "indices run from 0 to 1,198; the train images of digits are 0 to 1,197"),
        ([-1], "indices run from -1 to -1"),
        ([], "no indices"),
        ([0.5], r"indices are torch.float32 \(1,\); give a list of whole numbers, or 1,198 bools"),
        ([True, False], r"indices are torch.bool \(2,\)"),
        ("abc", "indices are no list of whole numbers"),
    ],
)
def test_indices_that_name_no_images_are_refused(digits: tb.Data, indices: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tb.take(digits, indices)


def test_taking_is_a_job_whose_data_others_take(digits: tb.Data, tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path)
    start = tb.job(tb.initialize, "convnet", "digits")
    part = tb.job(tb.take, "digits", list(range(0, 300, 3)))
    run = lab.result(tb.job(tb.train, start, part, tb.Recipe(epochs=1, batch_size=50)))
    assert len(run.forgetting.events) == 100
    threes = tb.take(digits, digits.train.labels == 3)
    run = lab.result(tb.job(tb.train, start, threes, tb.Recipe(epochs=1, batch_size=61)))
    assert len(run.forgetting.events) == 122
