import pytest

import tombola as tb
from tombola.errors import RecipeError
from tombola.training.length import (
    epochs_of,
    iterations_of,
    length_text,
    place_of,
    place_text,
    steps_of_epoch,
    whole_epochs,
    written_length,
)


@pytest.mark.parametrize(("length", "written", "words"), [
    (2, 2, "epoch 2"), ("2ep", 2, "epoch 2"), ("002ep", 2, "epoch 2"), ("500it", "500it", "iteration 500"),
    ("0500it", "500it", "iteration 500"), (0, 0, "initialisation"), ("0ep", 0, "initialisation"),
    ("0it", 0, "initialisation"),
])  # fmt: skip
def test_a_length_is_written_in_one_way(length: int | str, written: int | str, words: str) -> None:
    assert written_length(length) == written
    assert written_length(written) == written
    assert place_text(length) == words


@pytest.mark.parametrize(
    "length", ["", "2", "2 ep", "ep", "-1it", "1.5ep", "2epochs", "٢ep", "2EP", "9" * 19 + "it"]
)
def test_other_text_is_no_length(length: str) -> None:
    with pytest.raises(RecipeError, match=r"is no length; give epochs, such as 2 or '2ep', or '500it'"):
        written_length(length)


def test_iterations_become_epochs_and_steps_by_the_images_and_the_batch_size() -> None:
    assert steps_of_epoch(50_000, 128) == 391  # 390 full batches and one of 80
    assert (steps_of_epoch(1200, 100), steps_of_epoch(3, 100)) == (12, 1)
    assert place_of("500it", 391) == (1, 109)
    assert place_of("782it", 391) == place_of(2, 391) == place_of("2ep", 391) == (2, 0)
    assert [iterations_of(length) for length in (2, "2ep", "7it")] == [None, None, 7]


def test_a_recipe_takes_its_epochs_as_text() -> None:
    assert tb.Recipe(epochs="3ep") == tb.Recipe(epochs=3)
    for length in ("3 it", "three", "0it", "0ep", -3, 2.5, True):
        words = f"epochs is {length!r}; it must be a whole number, at least 1, or iterations such as '1500it'"
        with pytest.raises(RecipeError, match=words if length not in ("0it", "0ep") else "epochs is 0; it"):
            tb.Recipe(epochs=length)  # type: ignore[arg-type]


def test_lengths_in_words_and_in_epochs() -> None:
    words = [length_text(length) for length in (1, "2ep", "1it", "64000it")]
    assert words == ["1 epoch", "2 epochs", "1 iteration", "64,000 iterations"]
    assert [epochs_of(length, 12) for length in (3, "3ep", "24it", "30it")] == [3, 3, 2, 2.5]
    assert [whole_epochs(length) for length in (3, "3ep", "24it")] == [3, 3, 0]
