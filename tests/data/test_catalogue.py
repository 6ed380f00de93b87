import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.data.catalogue import find
from tombola.errors import DataError

Writer = Callable[..., Path]


def test_a_missing_folder_is_named_with_the_nearest(tmp_path: Path, simple: Writer) -> None:
    folder = simple("flowers", train=2)
    with pytest.raises(DataError, match=r"no folder '.*flower'; did you mean '.*flowers'"):
        find(str(folder)[:-1])
    with pytest.raises(DataError, match="no folder 'nowhere'; give an existing folder"):
        find(Path("nowhere"))
    with pytest.raises(DataError, match="is a file"):
        find(next(folder.iterdir()))


def test_a_relative_folder_is_known_by_its_absolute_path(
    simple: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simple("flowers", train=2)
    monkeypatch.chdir(folder)
    assert (find(".").name, find(".").source) == ("flowers", str(folder))
    monkeypatch.chdir(tmp_path)
    assert find("flowers").source == find(Path("flowers")).source == str(folder)


def test_names_with_and_without_owner_are_looked_for_on_the_hub() -> None:
    assert (find("cifar100").name, find("cifar100").known.label) == ("cifar100", "fine_label")
    assert (find("a/b").name, find("a/b").source, find("a/b").folder) == ("a--b", "a/b", None)
    assert not find("ylecun/mnist").known.mirrored


def test_a_name_is_resolved_without_torch() -> None:
    code = (
        "import sys; from tombola.data.catalogue import find; find('mnist'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
