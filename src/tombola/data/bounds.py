"""How much memory a data set may take, and the errors for what would take more.

A small file can ask for a great deal: a picture of one colour, a table that stores a cell once and repeats it
a million times. So pictures are measured by the size in their header, and tables in small pieces before they
are read as a whole (:mod:`tombola.data.tables`).
"""

from __future__ import annotations

import math
import os
from typing import Any

from tombola.counts import bytes_text
from tombola.errors import DataError

# In GiB. The largest sets of the field fit: TinyImageNet takes 1.3 GB, and ImageNet at 32x32 pixels 4.1 GB.
_LARGEST_DATA = 4.0

# Pixels of one picture, 8192x8192.
LARGEST_PICTURE = 2**26

# Columns of a table, those within others counted each. Features and attributes of pictures are far fewer.
MOST_COLUMNS = 1000


def largest_data() -> int:
    """The bytes that a data set may take, decoded or as tables; ``TOMBOLA_LARGEST_DATA`` gives them in GiB.

    Raises :class:`~tombola.errors.DataError` if that is no number above 0.
    """
    text = os.environ.get("TOMBOLA_LARGEST_DATA", str(_LARGEST_DATA))
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise DataError(f"TOMBOLA_LARGEST_DATA is {text!r}; it must be a size in GiB above 0, such as 16")
    return int(size * 2**30)


def check_size(size: int, what: str) -> None:
    """Raises DataError, about ``what``, if so many bytes are more than a data set may take."""
    largest = largest_data()
    if size > largest:
        raise DataError(
            f"{what} would take {bytes_text(size)} or more, and a data set may take {bytes_text(largest)}; "
            "if it is meant to be that large, set TOMBOLA_LARGEST_DATA to more (in GiB, now "
            f"{largest / 2**30:.3g})"
        )


def check_pixels(picture: Any, what: str) -> None:
    """Raises DataError, about ``what``, for a PIL image, not yet decoded, that has too many pixels."""
    if picture.width * picture.height > LARGEST_PICTURE:
        raise too_many_pixels(what)


def too_many_pixels(what: str) -> DataError:
    """The error for a picture that is too large to be decoded."""
    return DataError(
        f"{what} has more than {LARGEST_PICTURE:,} pixels, the most a picture may have; scale or remove it"
    )


def check_columns(columns: int, what: str) -> None:
    """Raises DataError, about ``what``, for a table of more columns than any of pictures has."""
    if columns > MOST_COLUMNS:
        raise DataError(f"{what} has {columns:,} columns or more; at most {MOST_COLUMNS:,} are read")
