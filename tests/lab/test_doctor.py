import os
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola.errors import StoreError
from tombola.lab import doctor
from tombola.lab.doctor import examine, examine_parts
from tombola.training.cuda.tiles import TileTable


def part(text: str, heading: str) -> list[str]:
    """The lines below a heading."""
    lines = text.splitlines()
    first = lines.index(heading) + 1
    below = (index for index in range(first, len(lines)) if not lines[index].startswith("  "))
    return [line.strip() for line in lines[first : next(below, len(lines))]]


def test_the_machine_the_versions_and_the_store_are_told(lab: tb.Lab) -> None:
    lab.run(tb.job(tb.initialize, "convnet", "digits", seed=0)).raise_failures()
    workplace = lab.store.workplace("a" * 64)
    workplace.mkdir(parents=True)
    (workplace / "error.txt").write_text("Traceback\nRuntimeError: \x1b[31mno memory\n")
    text = examine(lab.store.root)
    assert f"torch as built: {torch.__version__}" in text
    assert f"tombola: {tb.__version__}" in part(text, "versions")
    assert {"holds: 1 finished job", "failed: 1 job"} <= {*part(text, "store")}
    (error,) = part(text, "last errors")
    assert error.startswith("aaaaaaaaaaaa: RuntimeError: ")
    assert error.endswith("no memory")
    assert "\x1b" not in text


def test_of_many_errors_the_last_are_told(lab: tb.Lab) -> None:
    for time, digit in enumerate("badcfe0"):
        workplace = lab.store.workplace(digit * 64)
        workplace.mkdir(parents=True)
        (workplace / "error.txt").write_text(f"error {time}\n")
        os.utime(workplace / "error.txt", (time, time))
    told = [f"{digit * 12}: error {time}" for time, digit in reversed([*enumerate("badcfe0")])]
    assert part(examine(lab.store.root), "last errors") == [*told[:5], "and before: 2 failed jobs"]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert part(examine(tmp_path / "none"), "store")[1] == "holds: nothing yet"
    assert not (tmp_path / "none").exists()


def test_what_is_broken_does_not_hide_the_rest(lab: tb.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> None:
        raise StoreError("the file system cannot rename")

    monkeypatch.setattr(doctor, "check_file_system", broken)
    text = examine(lab.store.root)
    assert part(text, "store")[-1] == "PROBLEM: the file system cannot rename"
    assert part(text, "data sets in the cache")


def test_an_error_of_any_kind_does_not_hide_the_rest(lab: tb.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> None:
        raise KeyError("convnet")

    monkeypatch.setattr(doctor, "known_speeds", broken)
    text = examine(lab.store.root)
    assert part(text, "speeds") == ["PROBLEM: KeyError 'convnet'"]
    assert part(text, "store")


@pytest.mark.parametrize(
    ("cudnn", "tiles", "convolutions"),
    [
        (91900, None, "named plans"),
        (91900, TileTable("NVIDIA H200", "3.6.0", {}), "named plans and kernels of our own"),
        (91901, TileTable("NVIDIA H200", "3.6.0", {}), "chosen by cuDNN's heuristics"),
    ],
)
def test_a_gpu_is_told_with_who_chooses_its_convolutions(
    monkeypatch: pytest.MonkeyPatch, cudnn: int, tiles: TileTable | None, convolutions: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (120_000_000_000, 150_000_000_000))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    monkeypatch.setattr(doctor, "tiles_for", lambda *_: tiles)
    facts = dict(next(examine_parts()).facts)
    assert facts["GPU 0"] == "NVIDIA H200, compute capability (9, 0), 120 GB of 150 GB free"
    assert facts["convolutions on GPU 0"] == convolutions
