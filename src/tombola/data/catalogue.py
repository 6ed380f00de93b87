"""Catalogue of data sets by name, and the data set that a name or a folder stands for.

It holds what a name alone does not tell: the repository on the hub, which of two label columns is meant,
whether images may be mirrored, and whether the official splits are pooled. Nothing here needs torch or the
network.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import DataError, unknown
from tombola.untrusted import has_control_characters


@dataclass(frozen=True)
class CatalogueEntry:
    """Properties of a data set that its files do not state.

    repository: where it lives on the hub.
    label: the label column, where several could be meant.
    mirrored: whether a horizontally flipped image still shows its class.
    pooled: whether to join its splits and draw the test split anew, as the literature on it does.
    """

    repository: str
    label: str | None = None
    mirrored: bool = True
    pooled: bool = False


CATALOGUE = {
    "cifar10": CatalogueEntry("uoft-cs/cifar10"),
    "cifar100": CatalogueEntry("uoft-cs/cifar100", label="fine_label"),
    "eurosat": CatalogueEntry("blanchon/EuroSAT_RGB", pooled=True),
    "mnist": CatalogueEntry("ylecun/mnist", mirrored=False),
    "tinyimagenet": CatalogueEntry("zh-plus/tiny-imagenet"),
}


@dataclass(frozen=True)
class DataOrigin:
    """Where a data set comes from.

    name: what the data set is called in job names.
    source: what :func:`~tombola.data.load.load_data` takes to load the same: a name or an absolute path.
    entry: its entry in the catalogue, or the defaults for a set that has none.
    folder: the local folder, or None if it lives on the hub.
    """

    name: str
    source: str
    entry: CatalogueEntry
    folder: Path | None = None


def origin_of(source: str | os.PathLike[str]) -> DataOrigin:
    """Where ``source`` points to: a name of the catalogue, an existing folder, or else a name on the hub.

    A catalogue name wins over a folder of that name in the current directory (write ``./mnist`` for the
    folder). A folder whose own name is in the catalogue is read as a copy of that set.

    Raises :class:`~tombola.errors.DataError` for a path where no folder is, or one with control characters.
    """
    text = os.fspath(source)
    if isinstance(source, str) and text in CATALOGUE:
        return DataOrigin(text, text, CATALOGUE[text])
    if not text or "\0" in text:
        raise DataError(no_data_set(text))
    folder = Path(os.path.abspath(os.path.expanduser(text)))
    if os.path.isdir(folder):  # unlike Path's, False for a name that is too long
        if has_control_characters(folder.name):
            raise DataError(f"the name of folder {text!r} has control characters; rename it")
        entry = CATALOGUE.get(folder.name.lower(), CatalogueEntry(folder.name))
        return DataOrigin(folder.name, str(folder), entry, folder)
    if not isinstance(source, str) or os.path.exists(folder) or _looks_like_path(text):
        raise DataError(_no_folder(text, folder))
    by_repository = {entry.repository: entry for entry in CATALOGUE.values()}
    return DataOrigin(text.replace("/", "--"), text, by_repository.get(text, CatalogueEntry(text)))


def _looks_like_path(text: str) -> bool:
    # One slash within is how the hub writes owner/name.
    return (
        text.startswith((".", "~", os.sep)) or text.endswith(os.sep) or text.count(os.sep) > 1 or "\\" in text
    )


def no_data_set(name: str) -> str:
    """The error message for an unknown name, with the nearest name in the catalogue."""
    return unknown("data set", name, ["digits", *CATALOGUE])


def _no_folder(text: str, folder: Path) -> str:
    """The error message for a path without a folder, with the most similar folder name at that place."""
    if os.path.exists(folder):
        return f"{text!r} is a file; give the folder that holds the images or tables"
    try:
        siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        siblings = []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    hint = f"did you mean {str(folder.parent / near[0])!r}?" if near else "give an existing folder, or a name"
    return f"no folder {text!r}; {hint}"
