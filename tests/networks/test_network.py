from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import NetworkError
from tombola.networks import network as networks
from tombola.networks.network import Network, network_names

IMAGES: dict[str, Any] = {"channels": 3, "size": (8, 10), "classes": 4}


@pytest.fixture(autouse=True)
def _own_factories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(networks._networks, "_declared", {})
    return


def recorder(seen: list[Any]) -> Callable[..., nn.Module]:
    def factory(**offered: Any) -> nn.Module:
        seen.append(offered)
        return nn.Flatten()

    return factory


def test_the_built_in_networks_are_known_by_name() -> None:
    assert network_names() == [
        "resnet18", "resnet34", "resnet50", "resnet20", "vgg16", "convnet",
        "lenet300", "lenet5", "conv2", "conv4", "conv6", "conv8",
    ]  # fmt: skip


@pytest.mark.parametrize("network", ["convnet", nn.Flatten])
def test_a_description_is_plain_values(network: Any) -> None:
    described = Network.of(network, **IMAGES).description()
    assert described == {"name": described["name"], "channels": 3, "size": [8, 10], "classes": 4}
    assert described["name"] in ("convnet", "<Flatten>")


def test_a_factory_is_called_with_those_of_the_three_arguments_that_it_takes() -> None:
    seen: list[Any] = []

    def none() -> nn.Module:
        seen.append("none")
        return nn.Flatten()

    def one(classes: int) -> nn.Module:
        seen.append(classes)
        return nn.Flatten()

    def two(size: tuple[int, int], channels: int, width: int = 5) -> nn.Module:
        seen.append((size, channels, width))
        return nn.Flatten()

    for factory in (none, one, two, recorder(seen)):
        Network.of(factory, **IMAGES).build()
    assert seen == ["none", 4, ((8, 10), 3, 5), IMAGES]


def test_a_declared_network_is_known_by_its_name_however_it_is_asked_for() -> None:
    @tb.declare_network("my-net")
    def factory() -> nn.Module:
        return nn.Flatten()

    assert "my-net" in network_names()
    assert Network.of("my-net", **IMAGES) == Network.of(factory, **IMAGES)
    assert isinstance(Network.of("my-net", **IMAGES).build(), nn.Flatten)


@pytest.mark.parametrize("name", ["resnet18", "my-net"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    def first() -> nn.Module:
        return nn.Flatten()

    def second() -> nn.Module:
        return nn.Flatten()

    tb.declare_network("my-net")(first)
    with pytest.raises(NetworkError, match=f"the network name '{name}' is taken"):
        tb.declare_network(name)(second)


def test_versions_of_a_network_stand_beside_each_other_and_a_name_means_the_newest() -> None:
    @tb.declare_network("my-net")
    def first() -> nn.Module:
        return nn.Flatten()

    @tb.declare_network("my-net", version=2)
    def second() -> nn.Module:
        return nn.Identity()

    assert network_names().count("my-net") == 1
    built = {name: type(Network.of(name, **IMAGES).build()) for name in ("my-net", "my-net@1", "my-net@2")}
    assert built == {"my-net": nn.Identity, "my-net@1": nn.Flatten, "my-net@2": nn.Identity}
    assert Network.of(first, **IMAGES).description()["name"] == "my-net"
    assert Network.of(second, **IMAGES).description()["name"] == "my-net@2"
    assert Network.of("my-net", **IMAGES) != Network.of("my-net@1", **IMAGES)
    for described in (Network.of(name, **IMAGES) for name in ("my-net@1", "my-net@2")):
        assert Network.described(described.description()) == described


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18@3", "no version 3 of network 'resnet18' here; there is 1, 2"),
        ("convnet@2", "no version 2 of network 'convnet' here; there is 1"),
        ("resnet18@new", "'resnet18@new' has the version 'new'; write a number from 1, such as resnet18@1"),
        ("resnet18@01", "write a number from 1"),
        ("resnet81@1", "no network 'resnet81'; did you mean 'resnet18'"),
    ],
)
def test_a_version_that_there_is_not_is_refused(name: str, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        Network.of(name, **IMAGES)


def test_a_name_with_a_version_in_it_or_a_version_of_0_is_refused_at_its_declaration() -> None:
    with pytest.raises(NetworkError, match="choose one without '@'"):
        tb.declare_network("my-net@2")(nn.Flatten)
    with pytest.raises(NetworkError, match="version of network 'my-net' is 0; it must be 1, 2"):
        tb.declare_network("my-net", version=0)(nn.Flatten)


def test_the_same_definition_run_again_replaces_the_first() -> None:
    def define() -> Callable[..., nn.Module]:
        @tb.declare_network("my-net")
        def factory() -> nn.Module:
            return nn.Flatten()

        return factory

    define()
    second = define()
    assert Network.of(second, **IMAGES).name == "my-net"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(NetworkError, match="no network 'resnet81'; did you mean 'resnet18'"):
        Network.of("resnet81", **IMAGES)


def test_a_factory_may_call_its_arguments_as_others_do() -> None:
    seen: list[Any] = []

    def like_timm(num_classes: int, in_chans: int = 3, img_size: Any = 224) -> nn.Module:
        seen.append((num_classes, in_chans, img_size))
        return nn.Flatten()

    def like_torchvision(image_size: int, in_channels: int, num_classes: int = 1000) -> nn.Module:
        seen.append((num_classes, in_channels, image_size))
        return nn.Flatten()

    def ours_first(classes: int, num_classes: int = 7) -> nn.Module:
        seen.append((classes, num_classes))
        return nn.Flatten()

    for factory in (like_timm, like_torchvision, ours_first):
        Network.of(factory, **IMAGES | {"size": (8, 8)}).build()
    Network.of(like_timm, **IMAGES).build()
    assert seen == [(4, 3, 8), (4, 3, 8), (4, 7), (4, 3, (8, 10))]


def test_a_built_module_is_a_start_of_its_own_and_stays_as_it_was(digits: tb.Data, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    start = tb.initialize(module, digits)
    assert torch.equal(start.start["1.weight"], module[1].weight)
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=200))
    assert torch.equal(start.start["1.weight"], module[1].weight)
    again = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=200))
    assert torch.equal(run.weights["1.weight"], again.weights["1.weight"])
    run.save(tmp_path / "run")
    assert tb.Run.load(tmp_path / "run", network=module).fingerprint == run.fingerprint


def test_a_built_module_draws_no_other_weights_but_by_a_scheme(digits: tb.Data) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(NetworkError, match=r"is a built module, .*: no seed draws others; give a function"):
        tb.initialize(module, digits, seed=1)
    with pytest.raises(NetworkError, match="no seed draws others"):
        tb.reinitialize(tb.initialize(module, digits), seed=1)
    first, second = (tb.initialize(module, digits, seed=seed, init="pytorch") for seed in (1, 2))
    assert not torch.equal(first.start["1.weight"], second.start["1.weight"])
    odd = nn.Linear(64, 10)
    odd.kept = odd.weight * 2  # type: ignore[assignment]  # not to be copied
    with pytest.raises(NetworkError, match=r"is a built Linear that cannot be copied .*give what builds one"):
        tb.initialize(odd, digits)


def test_what_a_factory_gives_must_be_a_module() -> None:
    with pytest.raises(NetworkError, match=r"gave a str, not an nn.Module"):
        Network.of(lambda: "module", **IMAGES).build()


def failing() -> nn.Module:
    raise ZeroDivisionError("by\nzero")


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (failing, "network <failing> cannot be built: ZeroDivisionError: by zero"),
        (nn.Linear, "network <Linear> cannot be built: TypeError: .*in_features"),
        (3, "network <int> cannot be built: TypeError: 3 is not a callable"),
    ],
)
def test_a_factory_that_fails_is_a_one_line_error(factory: Any, words: str) -> None:
    with pytest.raises(NetworkError, match=words) as caught:
        Network.of(factory, **IMAGES).build()
    assert "\n" not in str(caught.value)


def test_networks_are_equal_when_name_and_images_are() -> None:
    assert Network.of("convnet", **IMAGES) == Network.of("convnet", **IMAGES)
    assert Network.of("convnet", **IMAGES) != Network.of("resnet20", **IMAGES)
    assert Network.of("convnet", **IMAGES) != Network.of("convnet", **IMAGES | {"classes": 5})


def test_initial_weights_depend_on_the_seed_alone() -> None:
    network = Network.of("convnet", **IMAGES)
    before = torch.get_rng_state()
    first, again, other = (network.initialized(seed).state_dict()["0.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
