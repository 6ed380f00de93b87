import pytest
import torch

from tombola.errors import NetworkError
from tombola.training.throughput import Machine, measure_machine, measure_speed

CPU = torch.device("cpu")

# The convnet on 1x8x8 images, multiplications of each layer: outputs times inputs behind each.
LAYERS = [64 * 8 * 1 * 9, 16 * 16 * 8 * 9, 16 * 16 * 16 * 9, 4 * 32 * 16 * 9, 10 * 32]
# Forward, for the weights, and for the inputs of all but the first layer; each with an addition.
OPERATIONS = 2 * (3 * sum(LAYERS) - LAYERS[0])


def test_the_figures_of_a_speed_fit_each_other() -> None:
    speed = measure_speed(
        "convnet", 32, 1, CPU, Machine(matrix_tflops=0.5, copy_gbs=1.0), size=8, channels=1, repeats=1
    )
    assert (speed.network, speed.size, speed.batch_size, speed.packed, speed.repeats) == (
        "convnet",
        8,
        32,
        1,
        1,
    )
    assert speed.engine == "eager"
    assert speed.step_ms > 0
    assert speed.images_per_second == pytest.approx(32 / (speed.step_ms / 1e3))
    assert speed.tflops == pytest.approx(speed.images_per_second * OPERATIONS / 1e12)
    assert speed.share == pytest.approx(speed.tflops / 0.5)
    steps = 50_000 / 32
    assert speed.epoch_seconds == pytest.approx(
        (steps * speed.step_ms + speed.between_ms + speed.evaluation_ms) / 1e3
    )
    assert speed.chain_seconds == pytest.approx(26 * 200 * speed.epoch_seconds)


def test_what_goes_wrong_in_a_timed_training_is_told() -> None:
    with pytest.raises(NetworkError, match="no network 'convnt'; did you mean 'convnet'"):
        measure_speed("convnt", 32, 2, CPU, Machine(1.0, 1.0))


def test_a_machine_has_a_rate_and_a_bandwidth() -> None:
    machine = measure_machine(CPU)
    assert machine.matrix_tflops > 0
    assert machine.copy_gbs > 0


def test_timing_touches_no_global_generator() -> None:
    before = torch.get_rng_state()
    measure_speed("convnet", 16, 1, CPU, Machine(1.0, 1.0), size=8, channels=1, repeats=1)
    assert torch.equal(before, torch.get_rng_state())
