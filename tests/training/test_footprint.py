import pytest
import torch

import tombola as tb
from tombola.data.batches import padded_bytes
from tombola.errors import RecipeError
from tombola.networks.network import Network
from tombola.training import footprint
from tombola.training.cuda import memory
from tombola.training.footprint import data_bytes, is_streamed

CUDA = torch.device("cuda")
GB = 2**30


@pytest.fixture
def network() -> Network:
    return Network.of("convnet", channels=1, size=(8, 8), classes=10)


def streams(network: Network, data: tb.Data, device: torch.device = CUDA) -> bool:
    return is_streamed(network, data, tb.Recipe(batch_size=100), device, "bfloat16")


@pytest.mark.parametrize(
    ("images", "room", "streamed"),
    [(1, 80, False), (8, 24, False), (8, 12, True), (50, 80, False), (90, 80, True)],
)
def test_images_are_streamed_where_they_do_not_fit_beside_the_training(
    monkeypatch: pytest.MonkeyPatch,
    digits: tb.Data,
    network: Network,
    images: int,
    room: int,
    streamed: bool,
) -> None:
    monkeypatch.setattr(footprint, "capacity", lambda device: room * GB)
    monkeypatch.setattr(footprint, "data_bytes", lambda data, pad: images * GB)
    monkeypatch.setattr(footprint, "training_bytes", lambda *_: 5 * GB)
    assert streams(network, digits) == streamed


def test_the_environment_may_say_it_and_says_nothing_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, digits: tb.Data, network: Network
) -> None:
    monkeypatch.setenv("TOMBOLA_STREAM", "1")
    assert streams(network, digits)
    assert not streams(network, digits, torch.device("cpu"))
    monkeypatch.setenv("TOMBOLA_STREAM", "0")
    assert not streams(network, digits)
    monkeypatch.setenv("TOMBOLA_STREAM", "yes")
    with pytest.raises(RecipeError, match="TOMBOLA_STREAM is 'yes'; it must be 0 or 1"):
        streams(network, digits)


def test_bytes_are_those_of_padded_train_images_and_bare_test_images(digits: tb.Data) -> None:
    assert data_bytes(digits, 2) == 1198 * 12 * 12 + 599 * 8 * 8
    assert padded_bytes(digits.train, 0) == digits.train.images.numel()


def test_a_process_may_have_its_share_and_what_others_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GB, 8 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GB)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    assert memory.capacity(CUDA) == 5 * GB
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.5)
    assert memory.capacity(CUDA) == 4 * GB
