from types import SimpleNamespace

import pytest
import torch

import tombola as tb
from tombola.lab import slots
from tombola.lab.slots import Crew, available_gpus, default_slots, fitting_slots
from tombola.networks.network import Network
from tombola.training.footprint import DataFootprint, training_bytes


def training(network: str, batch_size: int) -> tb.Job:
    start = tb.job(tb.initialize, network, "cifar10", seed=0)
    return tb.job(tb.train, start, "cifar10", tb.Recipe(batch_size=batch_size))


@pytest.mark.parametrize(
    ("trainings", "expected"),
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
    trainings: list[tuple[str, int]], expected: int
) -> None:
    assert default_slots([training(*each) for each in trainings]) == expected


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


def gb(count: float) -> int:
    return int(count * 2**30)


@pytest.fixture
def trainings(digits: tb.Data) -> list[tb.Job]:
    start = tb.job(tb.initialize, "resnet18", digits, seed=0)
    return [tb.job(tb.train, start, digits, tb.Recipe(batch_size=256), noise=noise) for noise in range(9)]


def test_slots_follow_the_free_memory_of_each_gpu_and_jobs_go_where_there_is_most(
    monkeypatch: pytest.MonkeyPatch, trainings: list[tb.Job], digits: tb.Data
) -> None:
    free = {"4": gb(2), "5": gb(0.9), "6": None, "7": gb(40)}
    monkeypatch.setattr(slots, "free_memory", lambda gpus: [free[gpu] for gpu in gpus])
    monkeypatch.setattr(slots, "training_bytes", lambda network, batch_size, precision: gb(0.6))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    data = {"digits": DataFootprint.of(digits)}

    def crew(device: str, count: int = 9, wanted: int | None = None) -> Crew:
        return slots.crew_for(trainings[:count], torch.device(device), 1, wanted, data)

    assert crew("cuda") == Crew((2, 1, 3, 3), ("4", "5", "6", "7"))
    assert crew("cuda", 7) == Crew((2, 3, 3), ("4", "6", "7"))
    assert crew("cuda", 2) == Crew((3,), ("6",))
    assert crew("cuda:1") == Crew((1,), ("5",))
    # What a user says is not corrected.
    assert crew("cuda:1", wanted=8) == Crew((8,), ("5",))
    assert crew("cuda", wanted=8) == Crew((8, 8), ("4", "5"))
    assert crew("cpu") == Crew((1,))


@pytest.mark.parametrize(("free", "fitting"), [(0, 1), (0.1, 1), (2, 2), (8, 3), (None, 3)])
def test_there_is_at_least_one_slot_and_never_more_than_usual(
    monkeypatch: pytest.MonkeyPatch,
    trainings: list[tb.Job],
    digits: tb.Data,
    free: float | None,
    fitting: int,
) -> None:
    monkeypatch.setattr(slots, "training_bytes", lambda network, batch_size, precision: gb(0.6))
    room, data = None if free is None else gb(free), {"digits": DataFootprint.of(digits)}
    assert fitting_slots(trainings, 3, [room], data) == [fitting]
    assert fitting_slots(trainings, 3, [room], {}) == [3]


def test_the_largest_training_counts_and_float32_takes_more(
    monkeypatch: pytest.MonkeyPatch, digits: tb.Data
) -> None:
    needs = []

    def need(network: object, batch_size: int, precision: str) -> int:
        needs.append((network.name, batch_size, precision))  # type: ignore[attr-defined]
        return gb(3) if precision == "float32" else gb(1)

    monkeypatch.setattr(slots, "training_bytes", need)
    start = tb.job(tb.initialize, "convnet", digits, seed=0)
    recipes = tb.Recipe(batch_size=8), tb.Recipe(batch_size=512, precision="float32")
    jobs = [tb.job(tb.train, start, digits, recipe) for recipe in recipes]
    assert fitting_slots(jobs, 6, [gb(8), gb(40)], {"digits": DataFootprint.of(digits)}) == [2, 6]
    assert set(needs) == {("convnet", 8, "bfloat16"), ("convnet", 512, "float32")}


def test_an_estimate_grows_with_batch_and_width_of_numbers_and_holds_the_weights() -> None:
    network = Network.of("resnet20", channels=3, size=(32, 32), classes=10)
    small, large = (training_bytes(network, size, "bfloat16") for size in (128, 256))
    # By hand: 19 convolutions of 16 to 64 channels and as many norms keep their inputs, in two bytes.
    kept = 2 * 2 * (7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 6 * 64 * 8 * 8)
    assert large - small > 128 * kept
    assert large - small < 4 * 128 * kept
    assert training_bytes(network, 128, "float32") > 2 * small


def test_memory_of_a_gpu_that_nobody_can_be_asked_about_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(slots.ctypes, "CDLL", missing)
    assert slots.free_memory(("0", "1")) == [None, None]


class Driver:
    """Stands for the library of NVIDIA's driver, with three GPUs."""

    free = {"GPU-5a": gb(5), "GPU-7f": gb(3), "GPU-9c": gb(7)}  # noqa: RUF012

    def nvmlInit_v2(self) -> int:
        return 0

    nvmlShutdown = nvmlInit_v2

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: object) -> int:
        self._name = name.decode()
        return 0 if self._name in self.free else 6  # not found

    def nvmlDeviceGetMemoryInfo(self, handle: object, sizes: object) -> int:
        sizes[:] = gb(8), self.free[self._name], gb(8) - self.free[self._name]  # type: ignore[index]
        return 0


@pytest.mark.parametrize(
    ("visible", "gpus", "free"),
    [
        (None, ("0",), [7]), (None, ("1", "2"), [5, 3]), (None, (), []), (None, ("3",), [None]),
        ("2,0", ("2",), [7]), ("2,0", ("2", "0"), [7, 5]),
        ("GPU-7f,MIG-1", ("GPU-7f", "MIG-1"), [3, None]),
    ],
)  # fmt: skip
def test_the_driver_is_asked_by_a_gpus_own_name_because_cuda_counts_them_in_another_order(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, gpus: tuple[str, ...], free: list[int | None]
) -> None:
    # As PyTorch counts those that it sees.
    names = ["9c", "5a", "7f"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=names[index]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(slots.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(slots.ctypes, "byref", lambda value: value)
    assert slots.free_memory(gpus) == [None if each is None else gb(each) for each in free]
