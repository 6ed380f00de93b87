"""Which data set a name or a folder means, answered without torch, without reading and without the network.

The catalogue holds what a name alone does not tell: where the set lives, which of two label columns is meant,
whether its images may be mirrored, and whether its official splits are to be pooled.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import DataError, unknown


@dataclass(frozen=True)
class Known:
    """What the catalogue knows of a data set.

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
    "cifar10": Known("uoft-cs/cifar10"),
    "cifar100": Known("uoft-cs/cifar100", label="fine_label"),
    "eurosat": Known("blanchon/EuroSAT_RGB", pooled=True),
    "mnist": Known("ylecun/mnist", mirrored=False),
    "tinyimagenet": Known("zh-plus/tiny-imagenet"),
}


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from.

    name: what the data set is called in job names.
    source: what :func:`~tombola.data.load.load_data` takes to load the same: a name or an absolute path.
    folder: the local folder, or None if it lives on the hub.
    """

    name: str
    source: str
    known: Known
    folder: Path | None = None


def find(source: str | os.PathLike[str]) -> Origin:
    """Where ``source`` points to: a name of the catalogue, an existing folder, or else a name on the hub.

    A catalogue name wins over a folder of that name in the current directory (write ``./mnist`` for the
    folder). A folder whose own name is in the catalogue is taken for a copy of that set.
    Raises :class:`~tombola.errors.DataError` for a path where no folder is.
    """
    text = os.fspath(source)
    if isinstance(source, str) and text in CATALOGUE:
        return Origin(text, text, CATALOGUE[text])
    if not text:
        raise DataError(no_data_set(text))
    folder = Path(os.path.abspath(os.path.expanduser(text)))
    if folder.is_dir():
        known = CATALOGUE.get(folder.name.lower(), Known(folder.name))
        return Origin(folder.name, str(folder), known, folder)
    if not isinstance(source, str) or folder.exists() or _looks_like_path(text):
        raise DataError(_no_folder(text, folder))
    repositories = {known.repository: known for known in CATALOGUE.values()}
    return Origin(text.replace("/", "--"), text, repositories.get(text, Known(text)))


def _looks_like_path(text: str) -> bool:
    # One slash within is how the hub writes owner/name.
    return (
        text.startswith((".", "~", os.sep)) or text.endswith(os.sep) or text.count(os.sep) > 1 or "\\" in text
    )


def no_data_set(name: str) -> str:
    """One line for a name that is not in the catalogue, with the nearest that is."""
    return unknown("data set", name, ["digits", *CATALOGUE])


def _no_folder(text: str, folder: Path) -> str:
    """One line for a path where no folder is, with the nearest folder beside it."""
    if folder.exists():
        return f"{text!r} is a file; give the folder that holds the images or tables"
    try:
        siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        siblings = []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    hint = f"did you mean {str(folder.parent / near[0])!r}?" if near else "give an existing folder, or a name"
    return f"no folder {text!r}; {hint}"
