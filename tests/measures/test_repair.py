"""REPAIR: against the arithmetic of one hidden layer, and against batch norm measured anew."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb
from tombola.errors import NetworkError, RecipeError
from tombola.training.run import ForgettingRecord, History


def trained(network: Callable[..., nn.Module] | str, data: tb.Data) -> list[tb.Run]:
    recipe = tb.Recipe(epochs=3, batch_size=50, lr=0.05)
    return [tb.train(tb.initialize(network, data, seed=seed), data, recipe, noise=seed) for seed in (0, 1)]


def one_hidden(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, classes))


def convolutional(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, classes)
    )


def biasless(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 30, bias=False), nn.ReLU(), nn.Linear(30, classes))


def test_the_middle_of_one_hidden_layer_is_that_worked_out_by_hand(digits: tb.Data) -> None:
    few = tb.take(digits, range(400))  # one batch, so that its statistics are those of all images
    first, second = trained(one_hidden, few)
    line = tb.barrier(first, second, few, points=3, repair=True)
    images = next(tb.batches(few, "train", batch_size=400))[0].flatten(1).double()
    shown, labels = next(tb.batches(few, "test", batch_size=len(few.test)))

    def hidden(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return inputs @ weights["1.weight"].T + weights["1.bias"]

    ends = [{name: value.double() for name, value in run.weights.items()} for run in (first, second)]
    middle = {name: (value + ends[1][name]) / 2 for name, value in ends[0].items()}
    means = sum(hidden(end, images).mean(0) for end in ends) / 2
    deviations = sum((hidden(end, images).var(0) + 1e-5).sqrt() for end in ends) / 2
    present = hidden(middle, images)
    units = (hidden(middle, shown.flatten(1).double()) - present.mean(0)) / (present.var(0) + 1e-5).sqrt()
    logits = (units * deviations + means).relu() @ middle["3.weight"].T + middle["3.bias"]
    assert line.losses[1] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-4)
    assert line.errors[1] == pytest.approx(100 * float((logits.argmax(1) != labels).double().mean()))
    plain = tb.barrier(first, second, few, points=3)
    assert (line.errors[0], line.errors[2]) == (plain.errors[0], plain.errors[2])
    assert line.losses[1] != pytest.approx(plain.losses[1], rel=1e-2)


def test_the_middle_of_several_layers_is_that_of_batch_norms_put_in(digits: tb.Data) -> None:
    """As the authors do it: a batch norm after each hidden layer, its affine part at the wanted moments."""
    few = tb.take(digits, range(400))
    runs = trained(convolutional, few)
    images = next(tb.batches(few, "train", batch_size=400))[0]
    wanted = []
    for run in runs:
        module, moments = run.module(), []
        for layer in (module[0], module[2]):
            outputs = module[: list(module).index(layer) + 1](images).detach()
            moments.append(
                (outputs.mean((0, 2, 3)), (outputs.transpose(0, 1).flatten(1).var(1) + 1e-5).sqrt())
            )
        wanted.append(moments)
    middle = runs[0].module()
    middle.load_state_dict(
        {name: (value + runs[1].weights[name]) / 2 for name, value in runs[0].weights.items()}
    )
    layers = list(middle)
    for index, place in enumerate((0, 2)):
        norm = nn.BatchNorm2d(8, momentum=None)
        norm.bias.data, norm.weight.data = (
            (one + two) / 2 for one, two in zip(*(end[index] for end in wanted), strict=True)
        )
        layers[place] = nn.Sequential(layers[place], norm)
    repaired = nn.Sequential(*layers).train()
    repaired(images)
    shown, labels = next(tb.batches(few, "test", batch_size=len(few.test)))
    loss = functional.cross_entropy(repaired.eval()(shown), labels).item()
    line = tb.barrier(*runs, few, points=3, repair=True)
    assert line.losses[1] == pytest.approx(loss, rel=1e-4)
    assert line.losses[1] != pytest.approx(tb.barrier(*runs, few, points=3).losses[1], rel=1e-3)


def test_a_repaired_line_is_mirrored_by_swapping_the_runs(digits: tb.Data) -> None:
    runs = trained(one_hidden, digits)
    line, back = (tb.barrier(*pair, digits, points=5, repair=True) for pair in (runs, runs[::-1]))
    assert line.losses == back.losses[::-1]
    # To itself, rescaling changes last bits at most.
    assert tb.barrier(runs[0], runs[0], digits, points=5, repair=True).loss_height < 1e-3


def test_with_batch_norm_its_statistics_are_measured_anew(digits: tb.Data) -> None:
    runs = trained("convnet", digits)
    assert tb.barrier(*runs, digits, points=3, repair=True) == tb.barrier(
        *runs, digits, points=3, recalibrate=True
    )


def test_what_cannot_be_repaired_is_refused(run: tb.Run, digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="repair=True measures batch norm anew already"):
        tb.barrier(run, run, digits, points=3, repair=True, recalibrate=True)
    ticket = tb.initialize(biasless, digits)
    record = ForgettingRecord.empty(len(digits.train))
    flat = replace(run, ticket=ticket, weights=ticket.start, forgetting=record, history=History([]))
    with pytest.raises(NetworkError, match=r"moves the bias of hidden layers, and '1' has none"):
        tb.barrier(flat, flat, digits, points=3, repair=True)
    ticket = tb.initialize(lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), digits)
    linear = replace(flat, ticket=ticket, weights=ticket.start)
    with pytest.raises(NetworkError, match="no hidden linear or convolution layers"):
        tb.barrier(linear, linear, digits, points=3, repair=True)


class TwoHeads(nn.Module):
    """The mean of two heads over one hidden layer as wide as there are classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, classes)
        self.first, self.second = nn.Linear(classes, classes), nn.Linear(classes, classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.hidden(images.flatten(1)).relu()
        return (self.first(hidden) + self.second(hidden)) / 2


def test_a_network_of_two_heads_is_refused_and_one_of_narrow_layers_is_not(
    run: tb.Run, digits: tb.Data
) -> None:
    record = ForgettingRecord.empty(len(digits.train))
    for factory, refused in ((TwoHeads, True), (narrow, False)):
        ticket = tb.initialize(factory, digits)
        other = replace(run, ticket=ticket, weights=ticket.start, forgetting=record, history=History([]))
        if refused:
            with pytest.raises(NetworkError, match="one layer of outputs, and 'first' and 'second' both are"):
                tb.barrier(other, other, digits, points=3, repair=True)
        else:
            assert tb.barrier(other, other, digits, points=3, repair=True).errors[1] >= 0


def narrow(classes: int) -> nn.Module:
    """Hidden layers as wide as there are classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.ReLU(), nn.Linear(classes, classes))
