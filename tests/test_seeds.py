import hashlib
import struct
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from racing import race

from tombola import seeds

names = st.text(max_size=8)
numbers = st.lists(st.integers(-(2**70), 2**70), max_size=4).map(tuple)
keys = st.tuples(names, numbers)


def words(stream: str, *key: int) -> list[int]:
    return seeds.generator(stream, *key).bit_generator.random_raw(4).tolist()


@given(keys, keys)
def test_streams_are_equal_exactly_when_their_keys_are(first: tuple, second: tuple) -> None:
    equal = words(first[0], *first[1]) == words(second[0], *second[1])
    assert equal == (first == second)


@given(names, st.lists(st.integers(0, 50), min_size=1, max_size=4), st.data())
def test_changing_one_number_changes_the_stream(stream: str, key: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 1))
    changed = [*key]
    changed[place] += 1
    assert words(stream, *key) != words(stream, *changed)


def test_a_zero_at_the_end_of_a_key_makes_another_stream_where_numpy_alone_pads_it_away() -> None:
    trap = [np.random.SeedSequence(entropy).generate_state(4).tolist() for entropy in ([1], [1, 0])]
    assert trap[0] == trap[1]
    assert words("order", 1) != words("order", 1, 0)
    assert words("order") != words("order", 0)


def test_digits_do_not_run_into_each_other_or_into_the_name() -> None:
    keys = [("a", 12, 3), ("a", 1, 23), ("a", 123), ("a1", 23), ("a 1", 23), ("a", 1, 2, 3)]
    assert len({tuple(words(*key)) for key in keys}) == len(keys)


def test_a_key_means_the_same_stream_in_every_version() -> None:
    # Worked by hand from the written form of the key; a change here orphans every result ever made.
    entropy = struct.unpack("<8I", hashlib.sha256(b'["order", 1, 0, 2]').digest())
    expected = np.random.PCG64(np.random.SeedSequence(list(entropy))).random_raw(4).tolist()
    assert words("order", 1, 0, 2) == expected


def test_drawing_from_one_stream_moves_no_other() -> None:
    first = seeds.generator("order", 0)
    seeds.generator("augmentation", 0).random(100)
    assert first.bit_generator.random_raw(4).tolist() == words("order", 0)


def test_numbers_of_numpy_are_numbers_and_fractions_are_refused() -> None:
    assert words("order", np.int64(3)) == words("order", 3)
    with pytest.raises(ValueError, match=r"stream 'order' are \(1\.5,\); they must be whole"):
        seeds.sequence("order", 1.5)  # type: ignore[arg-type]


def test_a_torch_stream_repeats_and_leaves_the_global_generator_where_it_was() -> None:
    before = torch.get_rng_state()
    draws = []
    for number in (1, 1, 2):
        with seeds.torch_stream("initialization", number):
            draws.append(torch.randn(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.get_rng_state())


def test_the_global_seed_does_not_reach_a_torch_stream() -> None:
    state = torch.get_rng_state()
    try:
        draws = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            with seeds.torch_stream("initialization", 7):
                draws.append(torch.randn(4))
    finally:
        torch.set_rng_state(state)
    assert torch.equal(draws[0], draws[1])


def test_a_torch_stream_gives_the_global_generator_back_after_an_error() -> None:
    before = torch.get_rng_state()

    def construct() -> None:
        with seeds.torch_stream("initialization", 1):
            torch.randn(3)
            raise RuntimeError("constructor")

    with pytest.raises(RuntimeError, match="constructor"):
        construct()
    assert torch.equal(before, torch.get_rng_state())


def test_threads_that_borrow_torchs_generator_do_not_disturb_each_other() -> None:
    seen: dict[int, set[tuple[float, ...]]] = {number: set() for number in range(4)}

    def draw(number: int) -> None:
        for _ in range(100):
            with seeds.torch_stream("thread", number):
                seen[number].add(tuple(torch.cat([torch.randn(3) for _ in range(5)]).tolist()))

    race(*(partial(draw, number) for number in seen))
    assert [len(draws) for draws in seen.values()] == [1, 1, 1, 1]
    assert len(set.union(*seen.values())) == 4
