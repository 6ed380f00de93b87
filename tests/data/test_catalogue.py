import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.data.catalogue import origin_of
from tombola.errors import DataError

Writer = Callable[..., Path]


def test_a_missing_folder_is_named_with_the_nearest(tmp_path: Path, simple: Writer) -> None:
    folder = simple("flowers", train=2)
    with pytest.raises(DataError, match=r"no folder '.*flower'; did you mean '.*flowers'"):
        origin_of(str(folder)[:-1])
    with pytest.raises(DataError, match="no folder 'nowhere'; give an existing folder"):
        origin_of(Path("nowhere"))
    with pytest.raises(DataError, match="is a file"):
        origin_of(next(folder.iterdir()))


def test_a_name_that_no_folder_can_have_is_refused_or_of_the_hub(tmp_path: Path) -> None:
    assert origin_of("a" * 5_000).folder is None
    for name in (tmp_path / ("a" * 5_000), "a\0b", "~a\0b"):
        with pytest.raises(DataError, match=r"^no "):
            origin_of(name)


def test_a_relative_folder_is_known_by_its_absolute_path(
    simple: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simple("flowers", train=2)
    monkeypatch.chdir(folder)
    assert (origin_of(".").name, origin_of(".").source) == ("flowers", str(folder))
    monkeypatch.chdir(tmp_path)
    assert origin_of("flowers").source == origin_of(Path("flowers")).source == str(folder)


def test_names_with_and_without_owner_are_looked_for_on_the_hub() -> None:
    assert (origin_of("cifar100").name, origin_of("cifar100").entry.label) == ("cifar100", "fine_label")
    assert (origin_of("a/b").name, origin_of("a/b").source, origin_of("a/b").folder) == ("a--b", "a/b", None)
    assert not origin_of("ylecun/mnist").entry.mirrored


def test_a_name_is_resolved_without_torch() -> None:
    code = (
        "import sys; from tombola.data.catalogue import origin_of; "
        "origin_of('mnist'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
