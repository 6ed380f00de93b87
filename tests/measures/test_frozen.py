import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from tombola.errors import DeviceError, NetworkError, RecipeError
from tombola.measures.frozen import FrozenBody, body_precision
from tombola.networks.architectures import ResNet
from tombola.networks.network import Factory

Same = Callable[..., bool]
CPU = torch.device("cpu")


def small_resnet(channels: int, classes: int) -> ResNet:
    return ResNet((1, 2), 4, channels, classes)


def inputs(data: tb.Data, images: Tensor) -> Tensor:
    """Normalised independently of the library."""
    raw = data.train.images.numpy() / 255
    mean, std = (getattr(raw, name)(axis=(0, 2, 3))[:, None, None] for name in ("mean", "std"))
    return torch.tensor((images.numpy() / 255 - mean) / std, dtype=torch.float32)


def plain_module(subject: tb.Ticket | tb.Run) -> nn.Module:
    """The plain network with the subject's weights."""
    ticket, weights = (
        (subject, subject.weights()) if isinstance(subject, tb.Ticket) else (subject.ticket, subject.weights)
    )
    module = ticket.network.build()
    module.load_state_dict(dict(weights))
    return module


def hooked(module: nn.Module, names: Sequence[str], images: Tensor) -> list[Tensor]:
    """The pooled outputs of modules, in one plain forward pass."""
    found: dict[str, Tensor] = {}
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.detach().clone().flatten(2).mean(2)})
        )
        for name in names
    ]
    with torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


def body_of(
    subject: tb.Ticket | tb.Run, blocks: Sequence[str] | None = None, head: str | None = None
) -> FrozenBody:
    return FrozenBody(subject, blocks, head, CPU, "float32")


@pytest.fixture(scope="module")
def ticket(colour: tb.Data) -> tb.Ticket:
    """A small residual network with a third of its weights."""
    start = tb.initialize(small_resnet, colour)
    draws = torch.Generator().manual_seed(1)
    return start.with_mask(
        {name: torch.rand(keep.shape, generator=draws) < 0.33 for name, keep in start.mask.items()}
    )


BLOCKS = ("blocks.0", "blocks.1", "blocks.2")


# What is read


def test_features_are_the_pooled_outputs_of_the_blocks_in_a_plain_forward_pass(
    ticket: tb.Ticket, colour: tb.Data
) -> None:
    body = body_of(ticket)
    assert body.places == BLOCKS
    assert body.begin(colour, 100, "frozen") == (4, 8, 8)
    images = inputs(colour, colour.test.images)
    features = body.features(images)
    assert features.shape == (3, 90, 1 + 8)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    expected = hooked(plain_module(ticket).eval(), BLOCKS, images)
    for found, wanted in zip(features, expected, strict=True):
        assert (found[:, 0] == 1).all()
        torch.testing.assert_close(found[:, 1 : 1 + wanted.shape[1]], wanted, rtol=1e-4, atol=1e-5)
        assert not found[:, 1 + wanted.shape[1] :].any()


def test_the_features_of_a_run_are_those_of_its_final_weights(run: tb.Run, digits: tb.Data) -> None:
    body = body_of(run)
    body.begin(digits, 100, "frozen")
    images = inputs(digits, digits.test.images[:50])
    (expected,) = hooked(plain_module(run).eval(), ["11"], images)
    torch.testing.assert_close(body.features(images)[3, :, 1:], expected, rtol=1e-4, atol=1e-5)


def test_what_a_later_layer_does_in_place_is_not_seen(start: tb.Ticket, digits: tb.Data) -> None:
    body = body_of(start, ["1"])  # batch norm; the ReLU after it works in place
    body.begin(digits, 100, "frozen")
    images = inputs(digits, digits.test.images[:50])
    (expected,) = hooked(plain_module(start).eval(), ["1"], images)
    assert (expected < 0).any()
    torch.testing.assert_close(body.features(images)[0, :, 1:], expected, rtol=1e-4, atol=1e-5)


def test_tokens_of_a_block_are_averaged_in_each_channel(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        # Eight tokens, the rows of the image, of as many channels; then three channels for each.
        return nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 3), nn.Flatten(), nn.Linear(24, 10))

    start = tb.initialize(factory, digits)
    body = body_of(start, ["0", "1"], "3")
    assert body.begin(digits, 100, "frozen") == (8, 3)
    images = inputs(digits, digits.test.images[:7])
    weight, bias = start.weights()["1.weight"], start.weights()["1.bias"]
    rows = torch.stack(
        [image[0].sum(0) / 8 for image in images]
    )  # by hand: a sum over the rows of each column
    features = body.features(images)
    torch.testing.assert_close(features[0, :, 1:], rows, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features[1, :, 1:4], rows @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_the_name_of_the_head_stands_for_what_goes_into_it(ticket: tb.Ticket, colour: tb.Data) -> None:
    images = inputs(colour, colour.test.images)
    found = []
    for blocks in (["linear"], (), ["blocks.2"]):
        body = body_of(ticket, blocks)
        body.begin(colour, 100, "frozen")
        found.append(body.features(images))
    torch.testing.assert_close(found[0], found[2])  # a ResNet pools its last block itself
    assert torch.equal(found[0], found[1])


def test_nothing_is_run_from_the_head_on(digits: tb.Data) -> None:
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Flatten(), nn.Linear(64, 10)
            self.finished = 0

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.head(self.body(x))
            self.finished += 1
            return outputs

    made: list[Ends] = []

    def factory() -> nn.Module:
        made.append(Ends())
        return made[-1]

    body = body_of(tb.initialize(factory, digits), ["body"], "head")
    body.begin(digits, 100, "adapting")
    assert body.features(inputs(digits, digits.test.images)).shape == (1, 599, 65)
    assert made[-1].finished == 0


# What moves


def pass_over(body: FrozenBody, data: tb.Data) -> None:
    for batch in torch.split(inputs(data, data.train.images), 70):
        body.features(batch)


def test_adapting_moves_the_running_statistics_of_batch_norm_and_no_parameter(
    ticket: tb.Ticket, colour: tb.Data
) -> None:
    body = body_of(ticket)
    body.begin(colour, 70, "adapting")
    pass_over(body, colour)
    plain = plain_module(ticket)
    before, after = ticket.weights(), body.state()
    parameters = dict(plain.named_parameters())
    for name, value in after.items():
        if name in parameters:
            assert torch.equal(value, before[name])  # pruned weights, too, are what they were: zero
        else:
            assert not torch.equal(value, before[name])
    # As a plain network in training mode has them after the same batches.
    with torch.no_grad():
        for batch in torch.split(inputs(colour, colour.train.images), 70):
            plain.train()(batch)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-6)


def test_frozen_statistics_leave_every_bit_as_it_was(run: tb.Run, digits: tb.Data, same_bits: Same) -> None:
    body = body_of(run)
    body.begin(digits, 70, "frozen")
    pass_over(body, digits)
    assert same_bits(body.state(), run.weights)


def test_once_frozen_the_statistics_stay_as_they_have_adapted(
    ticket: tb.Ticket, colour: tb.Data, same_bits: Same
) -> None:
    body = body_of(ticket)
    body.begin(colour, 70, "adapting")
    pass_over(body, colour)
    adapted = body.state()
    body.freeze()
    pass_over(body, colour)
    assert same_bits(body.state(), adapted)


@pytest.mark.parametrize("batch_norm", ["adapting", "frozen"])
def test_every_beginning_is_from_the_subjects_own_state(
    run: tb.Run, digits: tb.Data, same_bits: Same, batch_norm: str
) -> None:
    body = body_of(run)
    for _ in range(2):
        body.begin(digits, 70, batch_norm)  # type: ignore[arg-type]
        assert same_bits(body.state(), run.weights)
        pass_over(body, digits)


def test_dropout_stays_off(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10)
        )

    body = body_of(tb.initialize(factory, digits), ["2"], "4")
    before = torch.get_rng_state()
    body.begin(digits, 100, "adapting")
    images = inputs(digits, digits.test.images)
    assert torch.equal(body.features(images).clone(), body.features(images))
    assert torch.equal(before, torch.get_rng_state())


# What is refused


def of(layers: Factory, data: tb.Data) -> tb.Ticket:
    return tb.initialize(layers, data)


class Odd(nn.Module):
    """A network whose parts cannot be read in the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.pair, self.volume = nn.ReLU(), Pair(), nn.Unflatten(2, (2, 4))
        self.rows, self.unused, self.after = nn.Flatten(0, 2), nn.Linear(2, 2), nn.Identity()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x))
        self.pair(x), self.volume(x), self.rows(x)
        outputs: Tensor = self.after(self.head(x.flatten(1)))
        return outputs


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("twice", "is run 2 times before the head; it must be run once"),
        ("unused", "is run 0 times before the head; it must be run once"),
        ("after", "is run 0 times before the head; it must be run once"),
        ("pair", "gives a tuple; it must give a tensor (B, C, H, W), (B, tokens, C) or (B, C)"),
        ("volume", "gives (2, 1, 2, 4, 8) for 2 images; it must give (B, C, H, W), (B, tokens, C) or (B, C)"),
        ("rows", "gives (16, 8) for 2 images; it must give (B, C, H, W), (B, tokens, C) or (B, C)"),
    ],
)
def test_a_block_that_cannot_be_pooled_is_refused(digits: tb.Data, block: str, words: str) -> None:
    body = body_of(tb.initialize(Odd, digits), [block], "head")
    with pytest.raises(NetworkError, match=re.escape(f"block {block!r} of <Odd> {words}")):
        body.begin(digits, 100, "frozen")


def test_channels_of_lines_are_not_taken_for_tokens(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(240, 10))

    body = body_of(tb.initialize(factory, digits), ["2"], "4")
    words = "gives (2, 4, 60), which may be (B, tokens, C) or, in a network with one-dimensional convolutions"
    with pytest.raises(NetworkError, match=re.escape(words)):
        body.begin(digits, 100, "frozen")


def test_a_head_that_is_never_run_is_refused(digits: tb.Data) -> None:
    body = body_of(tb.initialize(Odd, digits), ["volume"], "unused")
    with pytest.raises(NetworkError, match="<Odd> never runs its head 'unused'; give its final linear layer"):
        body.begin(digits, 100, "frozen")


def test_a_last_batch_on_which_batch_norm_cannot_adapt_is_refused(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))

    body = body_of(tb.initialize(factory, digits), ["2"], "3")
    words = (
        r"1198 images in batches of 133 leave a last batch of 1, on which .*; choose another .* such as 132"
    )
    with pytest.raises(RecipeError, match=words):
        body.begin(digits, 133, "adapting")
    assert body.begin(digits, 133, "frozen") == (8,)


def test_an_unknown_way_with_batch_norm_is_refused(start: tb.Ticket, digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="no batch_norm 'adaptive'; did you mean 'adapting'"):
        body_of(start).begin(digits, 100, "adaptive")  # type: ignore[arg-type]


# Precision


def test_a_ticket_is_run_as_the_recipe_says_and_a_run_as_it_was_trained(
    monkeypatch: pytest.MonkeyPatch, start: tb.Ticket, run: tb.Run
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    cuda = torch.device("cuda")
    auto, plain, half = (tb.Recipe(precision=precision) for precision in ("auto", "float32", "bfloat16"))  # type: ignore[arg-type]
    trained = replace(run, precision="bfloat16", device="cuda")
    assert body_precision(start, auto, CPU) == "float32"
    assert body_precision(start, auto, cuda) == "bfloat16"
    assert body_precision(run, auto, cuda) == "float32"
    assert body_precision(run, half, cuda) == "bfloat16"
    assert body_precision(trained, auto, cuda) == "bfloat16"
    assert body_precision(trained, plain, CPU) == "float32"
    with pytest.raises(
        RecipeError, match=r"trained in bfloat16 on a GPU; say device='cuda' .*, or precision="
    ):
        body_precision(trained, auto, CPU)
    with pytest.raises(DeviceError, match="precision 'bfloat16' is for GPUs"):
        body_precision(start, half, CPU)
