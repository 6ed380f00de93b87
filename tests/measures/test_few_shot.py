from collections.abc import Callable

import pytest
import torch

import tombola as tb
from tombola.data.subsets import subset
from tombola.errors import DataError
from tombola.lab.execute import Settings
from tombola.lab.job import all_needed
from tombola.measures.few_shot import few_shot, few_shot_training
from tombola.training.checkpoint import Watch
from tombola.training.run import Epoch

Same = Callable[..., bool]


class Witness(Watch):
    """Writes down the epochs that it is told of."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def finished_epoch(self, row: Epoch, epochs: int) -> None:
        self.epochs.append(row.epoch)


def test_few_shot_is_sparse_training_on_those_images_by_hand(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    ticket = chain[2].ticket
    run = few_shot(ticket, digits, recipe, shots=15, seed=4, noise=6)
    # The images are looked up by their pixels, and normalised as the whole by giving its moments.
    taken = subset(digits, shots=15, seed=4).train
    rows = [
        next(n for n, image in enumerate(digits.train.images) if torch.equal(image, chosen))
        for chosen in taken.images
    ]
    part = tb.Data(
        "by hand",
        tb.ImageSet(digits.train.images[rows], digits.train.labels[rows]),
        digits.test,
        digits.class_names,
        mirrored=False,
        normalization=(tuple(digits.mean.tolist()), tuple(digits.std.tolist())),
    )
    assert same_run(run, tb.train(ticket, part, recipe, noise=6))
    assert run.ticket is ticket
    assert len(run.forgetting.events) == 150


def test_all_images_are_the_plain_training(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    assert same_run(few_shot(chain[1].ticket, digits, recipe, share=1.0, noise=3), chain[1])


def test_a_subset_is_trained_for_as_many_epochs(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe
) -> None:
    witness = Witness()
    few_shot(chain[2].ticket, digits, recipe, shots=10, watch=witness)
    assert witness.epochs == [2, 3]  # from epoch 1, to which the ticket is rewound


def test_more_images_help(start: tb.Ticket, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=6, batch_size=20)
    few, many = (few_shot(start, digits, recipe, share=share).accuracy for share in (0.05, 0.5))
    assert many > few + 10


def test_more_shots_than_there_are_images_are_refused(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    counts = torch.bincount(digits.train.labels)
    fewest = int(counts.min())
    words = f"shots is 200, but class '{int(counts.argmin())}' of digits has {fewest} train images"
    with pytest.raises(DataError, match=words):
        few_shot(start, digits, recipe, shots=200)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_a_few_images_of_a_single_partial_batch_train_on_a_gpu(start: tb.Ticket, digits: tb.Data) -> None:
    with pytest.warns(UserWarning, match="every epoch is one partial batch"):
        run = few_shot(start, digits, tb.Recipe(epochs=60, batch_size=256), shots=5, device="cuda")
    assert run.history[-1].train_accuracy > 50


def test_few_shot_written_down_is_the_same_training(
    tmp_path, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    dense = tb.job(tb.initialize, "convnet", "digits")
    made = few_shot_training(tb.job, dense, "digits", recipe, share=0.1, seed=2, noise=1)
    part = tb.job(subset, "digits", share=0.1, seed=2)
    assert made.name == tb.job(tb.train, dense, part, recipe, noise=1).name
    assert [job.declaration.name for job in all_needed([made]).values()] == ["initialize", "train"]
    lab = tb.Lab(tmp_path / "store", settings=Settings(device="cpu"))
    assert same_run(lab.result(made), few_shot(start, digits, recipe, share=0.1, seed=2, noise=1))
