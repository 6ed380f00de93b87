import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.errors import DataError
from tombola.measures.difficulty import drop_by_difficulty, forgotten_subset
from tombola.training.run import ForgettingRecord

Story = list[tuple[int, int | None]]


def numbered(labels: list[int]) -> tb.Data:
    """A data set of those train labels, at least one a class; the pixel of each image is its number."""
    classes = max(labels) + 1
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    test = torch.zeros(classes, 1, 1, 1, dtype=torch.uint8)
    return tb.data_from_tensors((images, torch.tensor(labels)), (test, torch.arange(classes)), name="tiny")


def forgot(run: tb.Run, events: list[int | None]) -> tb.Run:
    """The run with another record: how often it forgot each image, None for one it never learned."""
    learned = torch.tensor([count is not None for count in events])
    counts = torch.tensor([count or 0 for count in events], dtype=torch.int16)
    return replace(run, forgetting=ForgettingRecord(counts, learned, learned.clone()))


def numbers(data: tb.Data) -> list[int]:
    return data.train.images.flatten().tolist()


def hardness(count: int | None) -> float:
    return math.inf if count is None else count


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Label and forgetting events of each image, every class among them."""
    classes = draw(st.integers(1, 3))
    labels = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), max_size=30))]
    return [(label, draw(st.none() | st.integers(0, 3))) for label in draw(st.permutations(labels))]


def test_most_and_least_forgotten_by_hand(run: tb.Run) -> None:
    data = numbered([0, 0, 0, 0, 1, 1, 1, 1])
    record = forgot(run, [3, 0, None, 1, 5, 2, 7, 4])
    assert numbers(forgotten_subset(data, record, which="least", shots=2)) == [1, 3, 5, 7]
    assert numbers(forgotten_subset(data, record, which="most", shots=2)) == [0, 2, 4, 6]
    assert numbers(forgotten_subset(data, record, which="most", share=0.25)) == [2, 6]
    assert numbers(drop_by_difficulty(data, record, which="easiest", share=0.25)) == [0, 2, 4, 5, 6, 7]
    assert numbers(drop_by_difficulty(data, record, which="hardest", share=0.5)) == [0, 1, 3, 5]


@given(
    stories(), st.sampled_from(["least", "most"]), st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.integers(0, 2)
)
def test_of_each_class_no_image_left_out_is_more_extreme_than_one_taken(
    run: tb.Run, story: Story, which: str, share: float, seed: int
) -> None:
    labels = [label for label, _ in story]
    data, record = numbered(labels), forgot(run, [count for _, count in story])
    expected = [math.floor(share * labels.count(label) + 0.5) for label in range(max(labels) + 1)]
    if min(expected) == 0:
        with pytest.raises(DataError, match="leaves no image of class"):
            forgotten_subset(data, record, which=which, share=share, seed=seed)
        return
    taken = numbers(forgotten_subset(data, record, which=which, share=share, seed=seed))
    assert taken == sorted(set(taken))
    sign = 1 if which == "least" else -1
    for label, count in enumerate(expected):
        inside = [sign * hardness(story[n][1]) for n in taken if labels[n] == label]
        outside = [
            sign * hardness(events)
            for n, (own, events) in enumerate(story)
            if own == label and n not in taken
        ]
        assert len(inside) == count
        assert not outside or max(inside) <= min(outside)


@given(
    st.lists(st.none() | st.integers(0, 3), min_size=2, max_size=30),
    st.sampled_from(["easiest", "hardest"]),
    st.sampled_from([0.1, 0.2, 0.3, 0.6]),
    st.integers(0, 2),
)
def test_dropping_leaves_the_other_end_of_the_ranking(
    run: tb.Run, events: list[int | None], which: str, share: float, seed: int
) -> None:
    data, record = numbered([0] * len(events)), forgot(run, events)
    count = math.floor(share * len(events) + 0.5)
    if count == 0:
        with pytest.raises(DataError, match="which drops 0 of"):
            drop_by_difficulty(data, record, which=which, share=share, seed=seed)
        return
    left = numbers(drop_by_difficulty(data, record, which=which, share=share, seed=seed))
    dropped = [hardness(events[n]) for n in range(len(events)) if n not in left]
    rest = [hardness(events[n]) for n in left]
    assert len(dropped) == count
    if which == "easiest":
        assert max(dropped) <= min(rest)
    else:
        assert min(dropped) >= max(rest)


def test_smaller_subsets_lie_within_larger_ones_and_both_ends_are_disjoint(run: tb.Run) -> None:
    data, record = numbered([0, 1] * 50), forgot(run, [0] * 60 + [1] * 40)
    for seed in (0, 1):
        ends = []
        for which in ("least", "most"):
            drawn = [
                set(numbers(forgotten_subset(data, record, which=which, share=share, seed=seed)))
                for share in (0.02, 0.1, 0.4)
            ]
            assert drawn[0] < drawn[1] < drawn[2]
            ends.append(drawn[2])
        assert not ends[0] & ends[1]


def test_ties_are_broken_by_the_seed_alone(run: tb.Run) -> None:
    data, record = numbered([0] * 100), forgot(run, [0] * 100)
    before = torch.get_rng_state()
    for make in (
        lambda seed: forgotten_subset(data, record, which="least", share=0.1, seed=seed),
        lambda seed: drop_by_difficulty(data, record, which="hardest", share=0.3, seed=seed),
    ):
        first, again, other = (numbers(make(seed)) for seed in (1, 1, 2))
        assert first == again
        assert first != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda *of: forgotten_subset(*of, which="most", share=0.1, seed=3), "most-forgotten-share0.1"),
        (lambda *of: forgotten_subset(*of, which="least", shots=12, seed=3), "least-forgotten-shots12"),
        (lambda *of: drop_by_difficulty(*of, which="easiest", share=0.2, seed=3), "without-easiest-share0.2"),
    ],
)
def test_a_real_run_gives_a_data_set_normalised_as_the_whole(
    make: Callable[..., tb.Data], what: str, run: tb.Run, digits: tb.Data, start: tb.Ticket, recipe: tb.Recipe
) -> None:
    part = make(digits, run)
    assert part.name == f"digits-{what}-of-{run.fingerprint[:12]}-seed3"
    assert part.test is digits.test
    assert torch.equal(part.mean, digits.mean)
    assert torch.equal(part.std, digits.std)
    assert part.source is None
    assert len(tb.train(start, part, recipe).forgetting.events) == len(part.train)


def test_images_that_are_forgotten_most_are_harder_to_learn(
    run: tb.Run, digits: tb.Data, start: tb.Ticket
) -> None:
    longer = tb.Recipe(epochs=6, batch_size=32)
    least, most = (
        tb.train(start, forgotten_subset(digits, run, which=which, share=0.4), longer, noise=7)
        for which in ("least", "most")
    )
    assert least.history[-1].train_accuracy > most.history[-1].train_accuracy + 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"which": "worst", "shots": 1}, "no choice 'worst'; did you mean 'most'"),
        ({"which": "most", "share": 0.0}, r"share is 0\.0; it must lie above 0 and be at most 1"),
        ({"which": "most", "shots": 3}, "shots is 3, but class '1' of tiny has 2 train images"),
        ({"which": "least", "share": 0.2}, r"share is 0\.2, which leaves no image of class '1' of tiny"),
        ({"which": "least"}, "share is None and shots is None; give one of them"),
    ],
)
def test_impossible_forgotten_subsets_are_refused(run: tb.Run, settings: dict, words: str) -> None:
    with pytest.raises(DataError, match=f"^{words}"):
        forgotten_subset(numbered([0, 0, 0, 1, 1]), forgot(run, [0] * 5), **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"which": "hard", "share": 0.1}, "no choice 'hard'; did you mean 'hardest'"),
        ({"which": "hardest", "share": 0.0}, r"share is 0\.0; of the images to drop it must lie between 0"),
        ({"which": "hardest", "share": 1.0}, r"share is 1\.0; of the images to drop"),
        ({"which": "hardest", "share": math.nan}, "share is nan; of the images to drop"),
        (
            {"which": "easiest", "share": 0.05},
            r"share is 0\.05, which drops 0 of 5 images; it must drop some",
        ),
        ({"which": "easiest", "share": 0.95}, r"share is 0\.95, which drops 5 of 5 images; it must"),
        ({"which": "hardest", "share": 0.4}, "tiny-without-hardest-.*: the train split has no image of"),
    ],
)
def test_impossible_droppings_are_refused(run: tb.Run, settings: dict, words: str) -> None:
    with pytest.raises(DataError, match=f"^{words}"):
        drop_by_difficulty(numbered([0, 0, 0, 1, 1]), forgot(run, [0, 0, 0, 1, 1]), **settings)


def test_a_run_on_other_images_is_refused(run: tb.Run) -> None:
    words = "trained on 1198 images, but tiny has 3 train images; give the data that it was trained on"
    for make in (
        lambda: forgotten_subset(numbered([0, 1, 1]), run, which="most", share=0.5),
        lambda: drop_by_difficulty(numbered([0, 1, 1]), run, which="hardest", share=0.5),
    ):
        with pytest.raises(DataError, match=words):
            make()
