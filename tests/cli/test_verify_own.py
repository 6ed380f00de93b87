"""``tombola verify`` on the store of the documents' own experiment, in processes that lack its file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import forked
import pytest

from tombola.lab.store import Store

DOCUMENT = Path(__file__).parents[2] / "docs" / "own-study.md"
# Smaller than in the document: a dense network and one ticket, of one seed.
SMALLER = {"rounds=2": "rounds=1", "seeds=2": "seeds=1"}
# Networks 1, momenta 2, rounds 2, a seed with a copy: trainings; and the start of the seed.
TWO_LAYERS = 2 * 2 * 2 + 1
# One of each chain's own runs, of both networks.
DISTANCES = 2 * 2 * 2
# Left behind by what runs the file of the experiment.
MARK = "print('the file of the experiment was run')\n"


def tombola(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a new process, on the store in a folder; that is the present folder."""
    environment = os.environ | {
        "PYTHONPATH": forked.SOURCES,
        "TOMBOLA_STORE": str(folder / "store"),
        "OMP_NUM_THREADS": "1",
    }
    return forked.run("-m", "tombola.cli", *arguments, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the document's file and the store of its experiment."""
    folder = tmp_path_factory.mktemp("own")
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = (block for block in blocks if block.startswith("# wider.py\n"))
    for before, after in SMALLER.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    (folder / "wider.py").write_text(text + MARK, encoding="utf-8")
    done = tombola(folder, "run", "wider.py", "--workers", "0")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """The same in a folder that may be altered."""
    return shutil.copytree(finished, tmp_path / "own")


def test_sound_results_of_an_own_network_and_measure_are_told_once_each_and_are_no_damage(own: Path) -> None:
    done = tombola(own, "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert lines == [
        f"not rebuilt: function distance-moved ({DISTANCES} results)",
        f"not rebuilt: network two-layers ({TWO_LAYERS} results)",
    ]
    assert last.startswith(f"nothing is damaged in {own / 'store'}; ")
    assert "delete" not in done.stdout
    # The copy that the store keeps is not run; MARK would be here.
    assert len(list((own / "store" / "files").glob("*.py"))) == 1


def test_with_the_file_they_are_read_whole(own: Path) -> None:
    done = tombola(own, "verify", "--import", "wider.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [MARK.split("'")[1], f"all is well in {own / 'store'}"]


def two_layers_run(store: Store) -> Path:
    """The tensors of one training of the own network."""
    for name in store.names():
        details = store.details(name) if store.description(name)["function"] == "train" else {}
        if details and details["ticket"]["network"]["name"] == "two-layers":
            return store.folder(name) / "result.safetensors"
    raise AssertionError("no such run")


@pytest.mark.parametrize("options", [(), ("--import=wider.py",)])
def test_a_damaged_tensor_of_such_a_result_is_found_with_and_without_the_file(
    own: Path, options: tuple[str, ...]
) -> None:
    path = two_layers_run(Store(own / "store"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)
    done = tombola(own, "verify", *options)
    assert done.returncode == 2
    assert done.stderr == f"tombola: 1 thing is damaged in {own / 'store'}\n"
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("jobs/"))
    assert line.startswith(f"jobs/{path.parent.name[:2]}/{path.parent.name}: job {path.parent.name[:12]} is ")
    assert (f"not rebuilt: network two-layers ({TWO_LAYERS - 1} results)" in done.stdout) == (options == ())


@pytest.mark.parametrize("options", [(), ("--import=wider.py",)])
def test_a_start_of_such_a_network_that_is_gone_is_found_with_and_without_the_file(
    own: Path, options: tuple[str, ...]
) -> None:
    store = Store(own / "store")
    details = store.details(two_layers_run(store).parent.name)
    (store.root / "objects" / f"{details['ticket']['start']}.safetensors").unlink()
    done = tombola(own, "verify", *options)
    assert done.returncode == 2
    assert details["ticket"]["start"][:12] in done.stdout


def test_results_of_a_network_that_is_not_declared_travel(own: Path) -> None:
    for arguments in (
        ("export", "all", "experiment.tombola"),
        ("import", "experiment.tombola", "--store", "other"),
    ):
        done = tombola(own, *arguments)
        assert done.returncode == 0, done.stderr
    done = tombola(own, "verify", "--store", "other", "--import", "wider.py")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"all is well in {own / 'other'}")


def test_a_file_that_cannot_be_imported_is_told_in_one_line(own: Path) -> None:
    for options, words in (
        (("--import",), "--import names no file; give one that declares measures or networks"),
        (("--import", "none.py"), "cannot read none.py: No such file or directory"),
    ):
        done = tombola(own, "verify", *options)
        assert done.returncode == 2
        assert done.stderr.startswith(f"tombola: {words}")
        assert done.stderr.count("\n") == 1
