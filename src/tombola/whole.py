"""Files that appear at their place whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from tombola.errors import unwritable


def write_whole(path: Path, content: bytes, *, make_folder: bool = False) -> None:
    """Write beside the place, force it to the disk, then rename: a reader never finds half a file.

    make_folder: make the folder too, if need be.

    Raises :class:`~tombola.errors.StoreUnwritable` when the place cannot be written to.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
