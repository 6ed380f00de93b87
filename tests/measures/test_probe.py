import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import tombola as tb
from tombola.errors import DeviceError, NetworkError, RecipeError
from tombola.lab.execute import Settings
from tombola.measures.heads import HEAD_RECIPE
from tombola.measures.probe import probe
from tombola.networks import network as networks
from tombola.networks.architectures import ResNet

QUICK = replace(HEAD_RECIPE, epochs=2, lr=0.1)


def small_resnet(channels: int, classes: int) -> ResNet:
    return ResNet((1, 2), 4, channels, classes)


class Own(nn.Module):
    """A network that tombola does not know."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(6, 12, 3, stride=2), nn.ReLU())
        self.classifier = nn.Linear(12 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.classifier(self.middle(self.stem(x)).flatten(1))
        return outputs


def hooked(run: tb.Run, names: tuple[str, ...], data: tb.Data, images: Tensor) -> list[np.ndarray]:
    """Pooled outputs of modules in evaluation mode, from the plain network and nothing of the library."""
    module = run.ticket.network.build()
    module.load_state_dict(dict(run.weights))
    found: list[np.ndarray] = []
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda _, __, output: found.append(output.mean((2, 3)).numpy())
        )
    raw = data.train.images.numpy() / 255
    mean, std = (getattr(raw, part)(axis=(0, 2, 3))[:, None, None] for part in ("mean", "std"))
    with torch.no_grad():
        module.eval()(torch.tensor((images.numpy() / 255 - mean) / std, dtype=torch.float32))
    return found


# What a probe finds


def test_probes_trained_for_long_are_scikit_learns_logistic_regression(run: tb.Run, digits: tb.Data) -> None:
    recipe = tb.Recipe(
        epochs=150,
        batch_size=599,
        lr=0.3,
        momentum=0.9,
        weight_decay=0.01,
        augmentation=tb.Augmentation(pad=0),
    )
    found = probe(run, digits, recipe=recipe, batch_norm="frozen")
    train = hooked(run, found.blocks, digits, digits.train.images)
    test = hooked(run, found.blocks, digits, digits.test.images)
    for place, (seen, unseen) in enumerate(zip(train, test, strict=True)):
        # The same convex problem: the mean loss plus half the weight decay times the squares, bias included.
        seen, unseen = (np.hstack([np.ones((len(some), 1)), some]) for some in (seen, unseen))
        model = LogisticRegression(C=1 / (0.01 * len(seen)), fit_intercept=False, tol=1e-8, max_iter=5000)
        model.fit(seen, digits.train.labels.numpy())
        shares = model.predict_proba(unseen)[np.arange(len(unseen)), digits.test.labels.numpy()]
        assert found.losses[place] == pytest.approx(-np.log(shares).mean(), rel=2e-3)
        # One image of 599 is 0.17 points; a few lie next to a border.
        accuracy = 100 * model.score(unseen, digits.test.labels.numpy())
        assert found.accuracy[place] == pytest.approx(accuracy, abs=0.7)
    assert found.accuracy[-1] > 80


class TinyTransformer(nn.Module):
    """Two blocks over tokens and a class token, which alone goes into the head."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 8)
        self.first = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.second = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        begun = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)
        outputs: Tensor = self.head(self.second(self.first(self.embedding(begun)))[:, 0])
        return outputs


def test_probes_of_a_transformers_blocks_are_logistic_regressions_on_the_mean_over_its_tokens() -> None:
    draws = torch.Generator().manual_seed(0)
    words = torch.randint(1, 9, (500, 6), generator=draws)
    labels = (words == 3).any(1).long() + (words == 5).any(1).long()
    data = tb.data_from_tensors((words[:300], labels[:300]), (words[300:], labels[300:]), name="words")
    start = tb.initialize(TinyTransformer, data)
    recipe = tb.Recipe(epochs=150, batch_size=150, lr=0.3, momentum=0.9, weight_decay=0.01)
    found = probe(start, data, recipe=recipe, blocks=["first", "second", "head"], head="head")
    module = TinyTransformer(9, 3).eval()
    module.load_state_dict(dict(start.weights()))
    with torch.no_grad():
        begun = module.embedding(torch.cat([torch.zeros(500, 1, dtype=torch.int64), words], dim=1))
        first = module.first(begun)
        second = module.second(first)
    places = (first.mean(1), second.mean(1), second[:, 0])  # the head's is its input: the class token
    for place, features in enumerate(places):
        seen = np.hstack([np.ones((500, 1)), features.numpy()])
        model = LogisticRegression(C=1 / (0.01 * 300), fit_intercept=False, tol=1e-8, max_iter=5000)
        model.fit(seen[:300], labels[:300].numpy())
        shares = model.predict_proba(seen[300:])[np.arange(200), labels[300:].numpy()]
        assert found.losses[place] == pytest.approx(-np.log(shares).mean(), rel=2e-3)
        accuracy = 100 * model.score(seen[300:], labels[300:].numpy())
        assert found.accuracy[place] == pytest.approx(accuracy, abs=1.0)
    assert found.accuracy[0] > 60


def test_there_is_one_number_a_block(colour: tb.Data) -> None:
    found = probe(tb.initialize(small_resnet, colour), colour, recipe=QUICK)
    assert found.blocks == ("blocks.0", "blocks.1", "blocks.2")
    assert len(found.accuracy) == len(found.losses) == 3
    assert all(0 <= accuracy <= 100 for accuracy in found.accuracy)


def test_a_run_is_probed_at_its_final_weights_and_a_ticket_at_its_start(
    run: tb.Run, start: tb.Ticket, digits: tb.Data
) -> None:
    trained, untrained = probe(run, digits, recipe=QUICK), probe(start, digits, recipe=QUICK)
    assert trained.accuracy[-1] > untrained.accuracy[-1] + 10
    # A ticket that starts at those weights is the same body.
    ticket = replace(start, start=dict(run.weights), start_fingerprint="")
    assert probe(ticket, digits, recipe=QUICK) == trained


def test_a_ticket_is_probed_under_its_mask(chain: list[tb.Run], digits: tb.Data, tmp_path: Path) -> None:
    ticket = chain[2].ticket
    found = probe(ticket, digits, recipe=QUICK)
    ticket.save(tmp_path / "ticket")  # without its pruned weights
    assert probe(tb.Ticket.load(tmp_path / "ticket"), digits, recipe=QUICK) == found
    dense = replace(ticket, mask={name: torch.ones_like(keep) for name, keep in ticket.mask.items()})
    assert probe(dense, digits, recipe=QUICK) != found
    assert probe(tb.permute(ticket), digits, recipe=QUICK) != found


def test_one_block_alone_is_what_it_is_among_all(run: tb.Run, digits: tb.Data) -> None:
    together = probe(run, digits, recipe=QUICK)
    for place, name in enumerate(together.blocks):
        alone = probe(run, digits, recipe=QUICK, blocks=[name])
        assert alone.blocks == (name,)
        # The widest block decides how sums are split, so the last bits may differ.
        assert alone.losses[0] == pytest.approx(together.losses[place], rel=1e-4)
        assert alone.accuracy[0] == pytest.approx(together.accuracy[place], abs=0.2)


def test_blocks_are_told_in_the_order_they_are_asked_for(run: tb.Run, digits: tb.Data) -> None:
    there = probe(run, digits, recipe=QUICK, blocks=["2", "11"])
    back = probe(run, digits, recipe=QUICK, blocks=["11", "2"])
    assert back.blocks == there.blocks[::-1]
    assert back.accuracy == there.accuracy[::-1]
    assert back.losses == pytest.approx(there.losses[::-1], rel=1e-5)


def test_a_sparse_start_shows_more_once_its_statistics_have_adapted(
    start: tb.Ticket, digits: tb.Data
) -> None:
    draws = torch.Generator().manual_seed(0)
    sparse = start.with_mask(
        {name: torch.rand(keep.shape, generator=draws) < 0.2 for name, keep in start.mask.items()}
    )
    recipe = replace(HEAD_RECIPE, epochs=5, lr=0.1)
    adapting = probe(sparse, digits, recipe=recipe)
    frozen = probe(sparse, digits, recipe=recipe, batch_norm="frozen")
    # Under the statistics of the initialisation activations vanish on the way (protocol, G2).
    assert adapting.accuracy[-1] > frozen.accuracy[-1] + 10


# Bits


def test_the_same_call_gives_the_same_bits_and_draws_from_its_seed_alone(
    run: tb.Run, digits: tb.Data
) -> None:
    before = torch.get_rng_state()
    first = probe(run, digits, recipe=QUICK, seed=1)
    torch.rand(3)
    assert probe(run, digits, recipe=QUICK, seed=1) == first
    assert probe(run, digits, recipe=QUICK, seed=2) != first
    torch.set_rng_state(before)
    probe(run, digits, recipe=QUICK)
    assert torch.equal(before, torch.get_rng_state())


def test_the_subject_is_left_as_it_was(run: tb.Run, digits: tb.Data) -> None:
    before = {name: value.clone() for name, value in run.weights.items()}
    probe(run, digits, recipe=QUICK)
    assert all(torch.equal(value, before[name]) for name, value in run.weights.items())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_a_gpu_repeats_its_bits_and_agrees_with_the_cpu(run: tb.Run, digits: tb.Data) -> None:
    here, there = (probe(run, digits, recipe=QUICK, device=device) for device in ("cpu", "cuda"))
    assert probe(run, digits, recipe=QUICK, device="cuda") == there
    assert there.losses == pytest.approx(here.losses, rel=1e-2)
    half = probe(run, digits, recipe=replace(QUICK, precision="bfloat16"), device="cuda")
    assert half.losses == pytest.approx(here.losses, rel=5e-2)
    assert half != there


# Networks of one's own


def test_a_network_of_ones_own_is_probed_where_it_is_told(digits: tb.Data) -> None:
    start = tb.initialize(Own, digits)
    found = probe(start, digits, recipe=QUICK, blocks=["stem", "middle"], head="classifier")
    assert found.blocks == ("stem", "middle")
    with pytest.raises(
        NetworkError,
        match=re.escape(
            "network <Own> is not one of tombola's own; say blocks=[...] and head='...': names of its "
            "modules (stem, middle, classifier) or of modules within them"
        ),
    ):
        probe(start, digits)


# Jobs


def test_as_a_job_it_gives_the_same_numbers(digits: tb.Data, start: tb.Ticket, tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path / "store", settings=Settings(device="cpu"))
    recipe = tb.Recipe(epochs=1, batch_size=200)
    begun = tb.job(tb.initialize, "convnet", "digits")
    trained = tb.job(tb.train, begun, "digits", recipe)
    run = tb.train(start, digits, recipe)
    expected = [probe(subject, digits, recipe=QUICK, seed=3) for subject in (start, run, start, run)]
    subjects = (begun, trained, start, run)  # of jobs, and of the caller's own
    jobs = [tb.job(probe, subject, "digits", recipe=QUICK, seed=3) for subject in subjects]
    assert [lab.result(made) for made in jobs] == expected
    chosen = tb.job(probe, begun, "digits", recipe=QUICK, blocks=["5", "8"], batch_norm="frozen")
    assert lab.result(chosen) == probe(start, digits, recipe=QUICK, blocks=["5", "8"], batch_norm="frozen")


def test_the_papers_recipe_need_not_be_written_down(start: tb.Ticket) -> None:
    spelled = tb.Recipe(
        epochs=5, batch_size=100, lr=0.005, momentum=0.9, weight_decay=1e-4, schedule="constant"
    )
    plain = tb.job(probe, start, "digits")
    assert tb.job(probe, start, "digits", recipe=spelled, batch_norm="adapting").name == plain.name
    assert tb.job(probe, start, "digits", batch_norm="frozen").name != plain.name


def test_a_declared_network_of_ones_own_is_probed_as_a_job(
    digits: tb.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks._networks, "_declared", {})
    tb.declare_network("own")(Own)
    lab = tb.Lab(tmp_path / "store", settings=Settings(device="cpu"))
    begun = tb.job(tb.initialize, "own", "digits")
    named = {"blocks": ["stem"], "head": "classifier", "recipe": QUICK}
    assert lab.result(tb.job(probe, begun, "digits", **named)) == probe(
        tb.initialize(Own, digits), digits, **named
    )


# What is refused


def test_images_of_another_network_are_refused(start: tb.Ticket, colour: tb.Data) -> None:
    words = "network convnet is for 1x8x8 images of 10 classes; colour has 3x8x10 images of 4 classes"
    with pytest.raises(NetworkError, match=words):
        probe(start, colour)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"blocks": ["22"]}, NetworkError, "no block of convnet '22'; did you mean '2'"),
        ({"blocks": []}, NetworkError, "blocks is empty; name at least one block, or leave it out for all"),
        ({"blocks": "5"}, NetworkError, "blocks is '5'; it must be a list of names, such as ['5']"),
        (
            {"head": "13"},
            NetworkError,
            "head '13' of convnet is a Flatten; it must be its final linear layer",
        ),
        ({"batch_norm": "froze"}, RecipeError, "no batch_norm 'froze'; did you mean 'frozen'"),
        ({"device": "tpu"}, DeviceError, "no device 'tpu'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    start: tb.Ticket, digits: tb.Data, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        probe(start, digits, **options)  # type: ignore[arg-type]


def test_a_run_of_a_gpu_is_not_probed_in_another_precision_unasked(run: tb.Run, digits: tb.Data) -> None:
    trained = replace(run, precision="bfloat16", device="cuda")
    with pytest.raises(RecipeError, match="the run was trained in bfloat16 on a GPU; say device='cuda'"):
        probe(trained, digits)
    asked = replace(QUICK, precision="float32")
    assert probe(trained, digits, recipe=asked) == probe(run, digits, recipe=QUICK)


def test_a_run_that_diverged_is_a_result(run: tb.Run, digits: tb.Data) -> None:
    broken = {
        name: torch.full_like(value, torch.nan) if name.endswith("weight") else value
        for name, value in run.weights.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = probe(replace(run, weights=broken), digits, recipe=QUICK)
    assert all(np.isnan(found.losses))
    assert all(accuracy < 15 for accuracy in found.accuracy)
