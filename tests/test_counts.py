import pytest

from tombola.counts import bytes_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "9.9 kB"),  # the nearest float is below
        (9_951, "10 kB"),
        (81_000, "81 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_400_000, "1.4 MB"),
        (35_200_000_000, "35 GB"),
        (999_600_000_000, "1.0 TB"),
        (12_345_678_000_000_000, "12,346 TB"),
    ],
)
def test_sizes_are_in_decimal_units_with_two_digits_at_least(count: int, text: str) -> None:
    assert bytes_text(count) == text
