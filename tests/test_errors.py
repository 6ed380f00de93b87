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
        errors.StudyError,
    ],
)
def test_every_error_can_be_caught_as_one(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.TombolaError)
