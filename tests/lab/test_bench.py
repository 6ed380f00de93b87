from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tombola.errors import DeviceError, RecipeError, StoreError
from tombola.lab import bench as bench_module
from tombola.lab.bench import (
    Bench,
    Case,
    bench,
    known_speeds,
    read_bench,
    remember_bench,
    speed_table,
    speeds_file,
    write_bench,
)
from tombola.training.throughput import Machine, Speed

CPU = torch.device("cpu")
ONE = Speed(
    "resnet18", 32, 256, 1, "graphed, fused", 3.6, 0.01, 5, 70_000.0, 236.0, 0.3, 0.5, 33.0, 0.74, 3848.0, 0.9
)
THREE = replace(ONE, packed=3, step_ms=8.8, images_per_second=87_000.0)


@pytest.fixture
def measured() -> Bench:
    return Bench(
        "cuda", "NVIDIA H200", "default", "2.11", "13.0", 91900, "0.1.0", Machine(786.0, 4128.0), (ONE, THREE)
    )


def test_what_was_written_is_read_again(measured: Bench, tmp_path: Path) -> None:
    write_bench(measured, tmp_path / "new" / "h200.json")
    assert read_bench(tmp_path / "new" / "h200.json") == measured


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine": {"matrix_tflops": 1}}'])
def test_a_file_that_holds_no_speeds_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(StoreError, match=r"cannot read speeds from .*bad\.json"):
        read_bench(tmp_path / "bad.json")


def test_a_plan_finds_the_fastest_speed_or_that_of_a_number_of_slots(measured: Bench) -> None:
    assert measured.speed("resnet18", 256) is THREE
    assert measured.speed("resnet18@1", 256) is THREE
    assert measured.speed("resnet18", 256, packed=1) is ONE
    assert measured.speed("resnet18", 256, size=64) is None
    assert measured.speed("resnet18", 100) is None


def test_every_speed_has_a_line(measured: Bench) -> None:
    assert speed_table(measured.speeds).row_count == 2


def test_on_a_cpu_nothing_is_packed() -> None:
    with pytest.raises(RecipeError, match="on a CPU trainings are not packed"):
        bench([Case("convnet", 32, 3, 8)], CPU)


def test_speeds_are_kept_for_each_kind_of_device(
    measured: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path))
    assert known_speeds(CPU) is None
    assert speeds_file(CPU).is_relative_to(tmp_path)
    write_bench(measured, speeds_file(CPU))
    assert known_speeds(CPU) == measured


def test_new_cases_stand_beside_old_ones_and_replace_their_like(
    measured: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path))
    remember_bench(measured, CPU)
    faster = replace(ONE, step_ms=3.0)
    other = replace(ONE, network="vgg16")
    remember_bench(replace(measured, speeds=(faster, other)), CPU)
    known = known_speeds(CPU)
    assert known is not None
    assert set(known.speeds) == {faster, other, THREE}
    remember_bench(replace(measured, mode="autotuned", speeds=(replace(ONE, step_ms=1.0),)), CPU)
    assert known_speeds(CPU) == known


def test_a_case_that_does_not_fit_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(network: str, *_: object, **__: object) -> Speed:
        if network == "vgg16":
            raise DeviceError("CUDA out of memory")
        return replace(ONE, network=network)

    monkeypatch.setattr(bench_module, "measure_machine", lambda _: Machine(1.0, 1.0))
    monkeypatch.setattr(bench_module, "measure_speed", measure)
    failed: list[str] = []
    found = bench(
        [Case("resnet18", 256), Case("vgg16", 256), Case("resnet20", 256)], CPU,
        on_failure=lambda case, error: failed.append(f"{case.network}: {error}"),
    )  # fmt: skip
    assert [each.network for each in found.speeds] == ["resnet18", "resnet20"]
    assert failed == ["vgg16: CUDA out of memory"]


def test_after_each_case_everything_so_far_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "measure_machine", lambda _: Machine(1.0, 1.0))
    monkeypatch.setattr(
        bench_module, "measure_speed", lambda network, *_, **__: replace(ONE, network=network)
    )
    rows: list[list[str]] = []
    measured = bench(
        [Case("resnet18", 256), Case("vgg16", 256)], CPU,
        on_speed=lambda so_far: rows.append([speed.network for speed in so_far.speeds]),
    )  # fmt: skip
    assert rows == [["resnet18"], ["resnet18", "vgg16"]]
    assert [speed.network for speed in measured.speeds] == rows[-1]
