"""A version that changed the numbers of some calls only: those have a new name, the others keep theirs."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tombola as tb
from tombola import registry as declarations
from tombola.data.subsets import subset
from tombola.errors import JobError
from tombola.lab.description import name_of
from tombola.lab.execute import Settings, execute
from tombola.lab.finished import finished_job, load_result
from tombola.lab.store import Store
from tombola.lab.verify import verify
from tombola.measures.instability import instability

RECIPE = tb.Recipe(epochs=12, batch_size=32, lr=0.3)
# Names as they were while every batch weighed the same, by the code of that time: what is measured, the
# data, and the names without recalibration, with it, and with both readings.
BEFORE = [
    (
        tb.barrier, "convnet", "digits",
        "741c9158263c5f23e23e1227affec527e5bdbbd4316d055171954eb51c65cec7",
        "0a18e80282096b11b5226fb0988f68e4436730ebdfaf9dbc212c14256cc552ea",
        "a166ecfcdf337396808f8214c73db74ad7a6d9c327a17102793106d1443273a4",
    ),
    (
        instability, "convnet", "digits",
        "9e3eb7d0724f881a62dc2c6940adacb704923d642643cb78888a43d266a9cdcb",
        "3f62f8db19250d547ca1beddf0346a209e9fe10f79b0f700de538a02465d4a10",
        "1c9f12e2ad285cf39751b185db2437095d1683a9a150eb216facde74eae3a5d1",
    ),
    (
        tb.barrier, "resnet18@1", "eurosat",
        "10b5ecd760a0c0e89de36c34d548b8f64a58226e75d5e1de830d50bbe0f083ef",
        "30e9a1cf25c4757a88fdbc658661c7ef7ba67d5fe0914983a4e854e28e81ebf5",
        "05b9cbfe19eb467b9e82208bef7fb21fe1efd13d7c4bc1528ed1b9145afdb1e0",
    ),
    (
        tb.barrier, "resnet18@1", "someone/thing",
        "2f99c8543e72a7d01cf770eb1ab006a7ad226f2b36efbf99c797067247cb1460",
        "bfa6cf0804aee0eb750883e807c729f98f83b558f30a8fda6597dc04005e0add",
        "52a8479778674c41b0c7d853ffa4fcf1e8af8ba9ae3e5d414c7e3583e2509cf2",
    ),
    (
        tb.barrier, "resnet18@1", "cifar10",
        "62621a379ad6b329a143ef64b50d060b9c2de0fc279bce6344d00b807450bee6",
        "4c010a710ecee3a12d0db38097af694255a567fbdd84fd1eba6b87f38bbe3c7f",
        "47e399e9878a8ba70a8ca1f630e85360f2e51fd8ee79e6382b268165b01ff620",
    ),
    (
        instability, "resnet18@1", "cifar10",
        "27e77783cad9491fb74618c3e7284bf7f95d45febf742771e23b12be9e8c57f2",
        "62ef81d7f0d1de6a5aa79dcc24edd91ed202e8543b38b8b3a20451e72780c500",
        "41045a083da11cd010123564d904fbcd696d88cca9052db31a53e39a6d536547",
    ),
    (
        tb.barrier, "resnet18@1", "uoft-cs/cifar10",
        "3eed7f4e6c1da556f81ac4cdc013a617cad8e348bcd0d6381ee6458451f4f6ce",
        "1e397130fdcba753cc3b103596449a9c507242d3fa946b67b894cf94365858e7",
        "dd9220a74e25c907f52298ac72f6fce8299bff17fcdeecfcb31342f217000b74",
    ),
    (
        tb.barrier, "resnet18@1", "tinyimagenet",
        "2eaf525e809b8b657753a35c6d6830a53829a429851ecf1131c188ab4fe4bd3c",
        "aef83244c16b42764d0b6d815cf2ee9e107f23cea9b99063285863473d887e17",
        "973f8ceb22a0ee746b2d5b9e6d075e1f157a7efa2afbd0f4d2c184d69158b968",
    ),
    (
        instability, "convnet", "mnist",
        "def258319170dc8d77e67da8841302d9602723f2d9f805de39b8bd52b9ebc938",
        "19b0b654a7fdabe8d723ab6ff940f7feff9b4baac9fa436054fddc1658d8d631",
        "647dcb8abdf556f21913c703d92b051a8e837e313b0bc6ddcbdbd86c6b3ee2a4",
    ),
]  # fmt: skip
IN_WHOLE_BATCHES = ("cifar10", "uoft-cs/cifar10", "tinyimagenet", "mnist")


def line(function: Any, data: Any, *, network: str = "convnet", start: Any = None, **options: Any) -> tb.Job:
    dense = tb.job(tb.initialize, network, data) if start is None else start
    runs = [tb.job(tb.train, dense, data, RECIPE, noise=noise) for noise in (1, 2)]
    return tb.job(function, *([runs] if function is instability else runs), data, **options)


@pytest.mark.parametrize(("function", "network", "data", "plain", "anew", "both"), BEFORE)
def test_only_recalibrated_calls_on_data_with_a_short_last_batch_have_a_new_name(
    function: Any, network: str, data: str, plain: str, anew: str, both: str
) -> None:
    assert line(function, data, network=network).name == plain
    for before, recalibrate in ((anew, True), (both, "beside")):
        made = line(function, data, network=network, recalibrate=recalibrate)
        if data in IN_WHOLE_BATCHES:
            assert made.name == before
        else:
            assert made.name != before
            assert (made.description()["version"], made.name) == (2, name_of(made.description()))
            assert name_of({**made.description(), "version": 1}) == before


@pytest.mark.parametrize(
    ("images", "version"),
    # Batches of 500; of 501 images all are one batch, as a single image has no statistics.
    [(300, 1), (500, 1), (501, 1), (502, 2), (1000, 1), (1001, 2), (1198, 2)],
)
def test_data_that_are_loaded_are_looked_at(digits: tb.Data, images: int, version: int) -> None:
    part = first_images(digits, images)
    start = tb.initialize("convnet", part)
    made = line(tb.barrier, part, start=start, recalibrate=True)
    assert made.description()["version"] == version
    assert line(tb.barrier, part, start=start).description()["version"] == 1


def test_data_whose_size_only_loading_would_tell_have_the_new_name(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()  # of this name, but nobody knows what is in it
    for data in (tmp_path / "cifar10", str(tmp_path / "cifar10"), tb.job(subset, "cifar10", share=0.1)):
        assert line(tb.barrier, data, recalibrate=True).description()["version"] == 2
        assert line(tb.barrier, data).description()["version"] == 1


def test_a_call_of_either_version_is_computed(
    store: Store, lab: tb.Lab, digits: tb.Data, pair: list[tb.Run]
) -> None:
    for data, version in ((digits, 2), (first_images(digits, 500), 1)):
        made = tb.job(tb.barrier, *pair, data, points=3, recalibrate=True)
        assert made.description()["version"] == version
        assert lab.result(made) == tb.barrier(*pair, data, points=3, recalibrate=True)
        assert finished_job(lab.store, made.name[:12]).name == made.name


def test_a_call_of_before_is_not_computed_by_a_version_that_changed_it(
    lab: tb.Lab, pair: list[tb.Run]
) -> None:
    made = tb.job(tb.barrier, *pair, "digits", points=3, recalibrate=True)
    lab.result(made)  # with its runs and data the store has all that the old call takes
    old = {**made.description(), "version": 1}
    with pytest.raises(JobError, match="version 1 of barrier, but version 2 gives this call other numbers"):
        execute(lab.store, old, Settings())
    assert not lab.store.has(name_of(old))


# With functions of one's own


def count(version: int, **options: Any) -> Any:
    """Declare a function as of some version, whose numbers it gives."""

    @tb.declare("count", version=version, **options)
    def count(upto: int, weighted: bool = False) -> int:
        return upto + 100 * version * weighted

    return count


def plain(call: Any) -> bool:
    return not call.get("weighted")


def test_results_of_before_are_read_in_a_store_that_gets_new_ones(store: Store) -> None:
    old = [tb.job(count(1), 3), tb.job(declarations.declaration("count").function, 3, weighted=True)]
    for made in old:
        execute(store, made.description(), Settings())
    new = [tb.job(count(2, unchanged={2: plain}), 3)]
    new.append(tb.job(declarations.declaration("count").function, 3, weighted=True))
    assert new[0].name == old[0].name
    assert new[1].name != old[1].name
    assert not execute(store, new[0].description(), Settings())  # it is there
    assert execute(store, new[1].description(), Settings())
    assert [load_result(store, made.name) for made in (*old, new[1])] == [3, 103, 203]
    assert list(verify(store)) == []
    assert finished_job(store, old[1].name).name == old[1].name


def test_a_later_version_leaves_alone_what_it_says() -> None:
    function = count(3, unchanged={2: plain, 3: lambda call: call["upto"] < 5})
    versions = [
        tb.job(function, upto, weighted=weighted).description()["version"]
        for upto, weighted in ((1, False), (1, True), (9, False))
    ]
    assert versions == [1, 2, 3]
    with pytest.raises(JobError, match="asks for version 4 of count; here is version 3, and of some calls"):
        declarations.declaration("count").at(4)
    # A version that says nothing changed them all.
    assert tb.job(count(4, unchanged={2: plain}), 1).description()["version"] == 4
    with pytest.raises(JobError, match=r"asks for version 1 of count; here is version 4$"):
        declarations.declaration("count").at(1)


def first_images(data: tb.Data, images: int) -> tb.Data:
    """The data with so many train images."""
    train = data.train
    return tb.data_from_tensors(
        (train.images[:images], train.labels[:images]), (data.test.images, data.test.labels)
    )


@pytest.fixture(scope="module")
def pair(digits: tb.Data) -> list[tb.Run]:
    """Two untrained convnets as runs of a single epoch."""
    torch.set_num_threads(1)
    start = tb.initialize("convnet", digits)
    quick = tb.Recipe(epochs=1, batch_size=200, lr=0.1)
    return [tb.train(start, digits, quick, noise=noise) for noise in (1, 2)]


@pytest.mark.parametrize("score", ["snip", "snip@1", "grasp"])
def test_only_scores_of_more_than_a_hundred_classes_are_of_another_version(score: str) -> None:
    start = tb.job(tb.initialize, "convnet", "tinyimagenet")
    for data, other, version in (
        ("tinyimagenet", score, 2),
        ("tinyimagenet", "magnitude", 1),
        ("cifar100", score, 1),
    ):
        for made in (
            tb.job(tb.prune_at_initialization, start, data, score=other, sparsity=0.5),
            tb.job(tb.prune, start, data=data, score=other, fraction=0.5),
        ):
            assert made.description()["version"] == version


def test_of_more_than_a_hundred_classes_a_job_cannot_foresee_loaded_data_are_computed(tmp_path: Path) -> None:
    images = torch.arange(240 * 64).remainder(251).to(torch.uint8).reshape(240, 1, 8, 8)
    split = (images, torch.arange(240) % 120)
    many = tb.data_from_tensors(split, split, name="many")
    lab = tb.Lab(tmp_path / "store")

    def pruned(data: tb.Data | tb.Job) -> tb.Job:
        start = tb.job(tb.initialize, "lenet300", data)
        return tb.job(tb.prune_at_initialization, start, data, score="snip", sparsity=0.5)

    outcome = lab.run(pruned(tb.job(tb.take, many, list(range(239)))))
    (cause,) = outcome.failed.values()
    assert cause == (
        "the job asks for version 1 of prune-at-initialization, but version 2 gives this call other numbers; "
        "give its data loaded, as tombola.load_data(DATA), since their size decides the version; an older "
        "job is written down anew"
    )
    lab.run(pruned(tb.take(many, range(239)))).raise_failures()
