import pytest
import torch
from torch.nn import functional

import tombola as tb
from tombola.errors import DeviceError, NetworkError, RecipeError, TombolaError
from tombola.measures.untrained import untrained


def test_it_is_the_first_row_of_a_training(chain: list[tb.Run], digits: tb.Data) -> None:
    for run in chain:
        found = untrained(run.ticket, digits)
        assert (found.loss, found.accuracy) == (run.history[0].test_loss, run.history[0].test_accuracy)


def test_it_is_what_the_masked_network_gives_in_evaluation_mode(chain: list[tb.Run], digits: tb.Data) -> None:
    ticket = chain[2].ticket
    module = ticket.network.build()
    module.load_state_dict({
        name: value * ticket.mask[name] if name in ticket.mask else value
        for name, value in ticket.start.items()
    })  # fmt: skip
    pixels = digits.test.images.double() / 255
    inputs = ((pixels - digits.mean.double()) / digits.std.double()).float()
    with torch.no_grad():
        outputs = module.eval()(inputs)
    found = untrained(ticket, digits)
    assert found.accuracy == pytest.approx(
        100 * float((outputs.argmax(1) == digits.test.labels).double().mean())
    )
    assert found.loss == pytest.approx(float(functional.cross_entropy(outputs, digits.test.labels)), rel=1e-4)


def test_a_network_before_any_training_is_near_chance_and_a_rewound_one_above(
    start: tb.Ticket, late: tb.Ticket, digits: tb.Data
) -> None:
    # 599 images at chance: 10% within five standard deviations of 1.2.
    assert abs(untrained(start, digits).accuracy - 10) < 6.2
    assert untrained(late, digits).accuracy > 20


def test_it_becomes_a_job_like_any_measure(tmp_path, start: tb.Ticket, digits: tb.Data) -> None:
    lab = tb.Lab(tmp_path / "store")
    made = tb.job(untrained, tb.job(tb.initialize, "convnet", "digits"), "digits")
    assert lab.result(made) == untrained(start, digits)
    assert lab.has(made)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_on_a_gpu_too_it_is_the_first_row_of_a_training(
    late: tb.Ticket, digits: tb.Data, precision: str
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=400, precision=precision)
    found = untrained(late, digits, precision=precision, device="cuda")
    first = tb.train(late, digits, recipe, device="cuda").history[0]
    assert (found.loss, found.accuracy) == (first.test_loss, first.test_accuracy)


def test_images_that_do_not_fit_are_refused(start: tb.Ticket, colour: tb.Data) -> None:
    with pytest.raises(NetworkError, match="convnet is for 1x8x8 images of 10 classes; colour has 3x8x10"):
        untrained(start, colour)


@pytest.mark.parametrize(
    ("precision", "error", "words"),
    [
        ("bfloat16", DeviceError, "precision 'bfloat16' is for GPUs"),
        ("float16", RecipeError, "precision is 'float16'; it must be auto"),
    ],
)
def test_a_precision_that_cannot_be_is_refused(
    start: tb.Ticket, digits: tb.Data, precision: str, error: type[TombolaError], words: str
) -> None:
    with pytest.raises(error, match=words):
        untrained(start, digits, precision=precision)
