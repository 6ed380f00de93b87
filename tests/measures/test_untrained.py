from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import tombola as tb
from tombola.errors import DeviceError, NetworkError, RecipeError, TombolaError
from tombola.lab.execute import Settings
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
    lab = tb.Lab(tmp_path / "store", settings=Settings(device="cpu"))
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


# With batch-norm statistics measured on the train images


def with_measured_statistics(ticket: tb.Ticket, data: tb.Data) -> tuple[float, float]:
    """Loss and accuracy of a ticket, its batch-norm statistics averaged over the train images by hand."""
    module = ticket.network.build()
    module.load_state_dict({
        name: value * ticket.mask[name] if name in ticket.mask else value
        for name, value in ticket.start.items()
    })  # fmt: skip
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    seen: dict[torch.nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}

    def read(layer: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        values = arguments[0].double().transpose(0, 1).flatten(1)
        seen[layer].append(len(arguments[0]) * torch.stack([values.mean(1), values.var(1)]))

    hooks = [layer.register_forward_pre_hook(read) for layer in layers]
    train, test = (
        ((part.images.double() / 255 - data.mean.double()) / data.std.double()).float()
        for part in (data.train, data.test)
    )
    with torch.no_grad():
        for batch in train.split(500):
            module.train()(batch)
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            mean, variance = sum(seen[layer]) / len(train)
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)
        outputs = module.eval()(test)
    right = (outputs.argmax(1) == data.test.labels).double().mean()
    return float(functional.cross_entropy(outputs, data.test.labels)), 100 * float(right)


def test_statistics_measured_on_the_train_images_are_those_of_a_slow_independent_implementation(
    chain: list[tb.Run], start: tb.Ticket, digits: tb.Data
) -> None:
    for ticket in (start, chain[2].ticket):
        loss, accuracy = with_measured_statistics(ticket, digits)
        found = untrained(ticket, digits, recalibrate=True)
        assert found.accuracy == pytest.approx(accuracy, abs=0.2)  # one image of 599 may lie on the edge
        assert found.loss == pytest.approx(loss, rel=1e-3)
        assert found.recalibrated is None


def test_both_readings_can_be_had_at_once(chain: list[tb.Run], digits: tb.Data) -> None:
    ticket = chain[1].ticket
    both = untrained(ticket, digits, recalibrate="beside")
    assert both.recalibrated == untrained(ticket, digits, recalibrate=True)
    assert replace(both, recalibrated=None) == untrained(ticket, digits)
    assert both.recalibrated.loss != both.loss


def test_pruning_alone_predicts_digits_where_the_statistics_of_an_initialisation_hide_it(
    start: tb.Ticket, digits: tb.Data
) -> None:
    recipe = tb.Recipe(epochs=6, batch_size=64, lr=0.1, momentum=0.9)
    ticket = list(tb.imp(start, digits, recipe, rounds=3))[3].ticket
    assert ticket.sparsity == pytest.approx(1 - 0.8**3, abs=1e-3)
    # 599 images at chance: 10% within five standard deviations of 1.2. Permuted masks scatter by themselves.
    assert abs(untrained(ticket, digits).accuracy - 10) < 6.2
    assert untrained(ticket, digits, recalibrate=True).accuracy > 20
    permuted = [
        untrained(tb.permute(ticket, seed=seed), digits, recalibrate=True).accuracy for seed in range(5)
    ]
    assert sum(permuted) / 5 == pytest.approx(10, abs=5)


def test_a_network_without_batch_norm_has_one_reading(digits: tb.Data) -> None:
    def factory() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    both = untrained(tb.initialize(factory, digits), digits, recalibrate="beside")
    assert both.recalibrated == replace(both, recalibrated=None)


def test_the_ticket_stays_as_it_was(
    chain: list[tb.Run], digits: tb.Data, same_bits: Callable[..., bool]
) -> None:
    ticket = chain[1].ticket
    before = {name: value.clone() for name, value in ticket.start.items()}
    untrained(ticket, digits, recalibrate="beside")
    assert same_bits(ticket.start, before)


def test_both_readings_are_kept_in_a_store_and_the_first_has_the_name_it_has_always_had(
    tmp_path, start: tb.Ticket, digits: tb.Data
) -> None:
    lab, dense = (
        tb.Lab(tmp_path / "store", settings=Settings(device="cpu")),
        tb.job(tb.initialize, "convnet", "digits"),
    )
    both = tb.job(untrained, dense, "digits", recalibrate="beside")
    assert lab.result(both) == untrained(start, digits, recalibrate="beside")
    plain = tb.job(untrained, dense, "digits", recalibrate=False)
    assert plain.name == "d4c534deb51b18b17d5b45718f061cff78cbdaa3539153ebc8a8260eba55b5e3"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_both_readings_on_a_gpu_are_those_of_a_cpu(chain: list[tb.Run], digits: tb.Data) -> None:
    ticket = chain[1].ticket
    here, there = (
        untrained(ticket, digits, precision="float32", recalibrate="beside", device=device)
        for device in ("cpu", "cuda")
    )
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
    assert there.recalibrated.loss == pytest.approx(here.recalibrated.loss, rel=1e-3)


@pytest.mark.parametrize("recalibrate", ["both", None, 2, 1])
def test_an_unknown_reading_is_refused(start: tb.Ticket, digits: tb.Data, recalibrate: object) -> None:
    with pytest.raises(RecipeError, match=r"recalibrate is .*; it must be False, True or 'beside'"):
        untrained(start, digits, recalibrate=recalibrate)  # type: ignore[arg-type]
