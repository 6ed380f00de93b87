import errno
import os
from pathlib import Path

import pytest

from tombola import errors


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    assert errors.unknown("network", "resnet81", ["vgg16", "resnet18"]) == (
        "no network 'resnet81'; did you mean 'resnet18'?"
    )


def test_an_unknown_name_near_to_none_is_answered_with_all_known_ones() -> None:
    assert (
        errors.unknown("network", "zzz", ["vgg16", "resnet18"]) == "no network 'zzz'; known: resnet18, vgg16"
    )


@pytest.mark.parametrize(
    "kind",
    [
        errors.DataError,
        errors.NetworkError,
        errors.TicketError,
        errors.RecipeError,
        errors.JobError,
        errors.StoreError,
        errors.ExperimentError,
    ],
)
def test_every_error_can_be_caught_as_one(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.TombolaError)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "make room "),
        (errno.EDQUOT, "make room "),
        (errno.EROFS, "make it writable or choose another place"),
        (errno.EACCES, "make it writable or choose another place"),
        (errno.ENOTDIR, "choose another place"),
        (errno.EIO, "run the same again when it can be written to"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_with_its_cause_and_the_remedy(
    code: int, words: str
) -> None:
    told = errors.unwritable(Path("/some/place"), OSError(code, os.strerror(code), "/elsewhere"))
    assert isinstance(told, errors.StoreUnwritable)
    assert str(told).startswith(f"cannot write to /some/place: {os.strerror(code)}; {words}")
