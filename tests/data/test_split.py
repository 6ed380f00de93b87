import torch
from hypothesis import given
from hypothesis import strategies as st

from tombola.data.subsets import stratified_split


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
