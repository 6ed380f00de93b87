import pytest

import tombola as tb
from tombola.lab.slots import available_gpus, default_slots


def training(network: str, batch_size: int) -> tb.Job:
    start = tb.job(tb.initialize, network, "cifar10", seed=0)
    return tb.job(tb.train, start, "cifar10", tb.Recipe(batch_size=batch_size))


@pytest.mark.parametrize(
    ("trainings", "slots"),
    [
        ([("resnet18", 256)], 3),
        ([("vgg16", 100)], 3),
        ([("resnet18", 8)], 6),
        ([("resnet20", 128)], 6),
        ([("convnet", 32), ("resnet20", 128)], 6),
        ([("convnet@1", 128), ("resnet20@1", 128)], 6),
        ([("resnet18@1", 256)], 3),
        ([("resnet20", 128), ("resnet18", 256)], 3),
        ([("resnet18", 8), ("resnet18", 256)], 3),
    ],
)
def test_small_steps_share_a_gpu_six_at_a_time_and_large_ones_three(
    trainings: list[tuple[str, int]], slots: int
) -> None:
    assert default_slots([training(*each) for each in trainings]) == slots


def test_the_trainings_behind_a_measure_count_too() -> None:
    runs = [training("resnet20", 128), training("resnet18", 256)]
    assert default_slots([tb.job(tb.barrier, *runs, "cifar10")]) == 3


@pytest.mark.parametrize(
    ("visible", "gpus"), [("2,3", ("2", "3")), ("GPU-5a, GPU-7f", ("GPU-5a", "GPU-7f")), ("", ())]
)
def test_workers_get_only_the_gpus_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str, gpus: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert available_gpus() == gpus
