import re
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from tombola.errors import NetworkError
from tombola.networks.architectures import Block, ResNet, convnet, resnet18, resnet34, vgg16
from tombola.networks.blocks import BlockNames, block_names, built_in_block_names
from tombola.networks.network import Network


def small() -> ResNet:
    return ResNet((1, 2), 4, 1, 10)


class Own(nn.Module):
    """A network that tombola does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.classifier = nn.Linear(4, 10)


@pytest.mark.parametrize(("factory", "count"), [(resnet18, 8), (resnet34, 16)])
def test_a_resnet_has_every_residual_block(factory: type[nn.Module], count: int) -> None:
    with torch.device("meta"):
        module = factory(3, 10)
    found = built_in_block_names(module)
    residual = [name for name, layer in module.named_modules() if isinstance(layer, Block)]
    assert found == BlockNames(tuple(residual), "linear")
    assert len(residual) == count


def test_a_vgg_has_its_five_stages() -> None:
    with torch.device("meta"):
        found = built_in_block_names(vgg16(3, 10))
    assert found == BlockNames(("groups.0", "groups.1", "groups.2", "groups.3", "groups.4"), "linear")


def test_the_small_network_has_every_activated_convolution() -> None:
    module = convnet(1, 10)
    found = built_in_block_names(module)
    assert found is not None
    assert [type(module.get_submodule(name)) for name in found.blocks] == [nn.ReLU] * 4
    assert isinstance(module.get_submodule(found.head), nn.Linear)


def test_a_plain_network_has_its_poolings_and_hidden_layers() -> None:
    module = Network.of("lenet5", channels=1, size=(28, 28), classes=10).without_values()
    found = built_in_block_names(module)
    assert found == BlockNames(("groups.0", "groups.1", "groups.2"), "linear")


def test_own_names_take_the_place_of_the_known_ones() -> None:
    assert block_names("r", small(), None, None) == BlockNames(("blocks.0", "blocks.1", "blocks.2"), "linear")
    assert block_names("r", small(), ["bn1", "linear"], None) == BlockNames(("bn1", "linear"), "linear")
    assert block_names("own", Own(), ["stem"], "classifier") == BlockNames(("stem",), "classifier")


@pytest.mark.parametrize(
    ("blocks", "head", "missing"),
    [
        (None, None, "say blocks=[...] and head='...'"),
        (["stem"], None, "say head='...'"),
        (None, "classifier", "say blocks=[...]"),
    ],
)
def test_an_unknown_network_without_names_is_told_what_to_give(
    blocks: Sequence[str] | None, head: str | None, missing: str
) -> None:
    words = f"network own is not one of tombola's own; {missing}: names of its modules (stem, classifier)"
    with pytest.raises(NetworkError, match=re.escape(words)):
        block_names("own", Own(), blocks, head)


@pytest.mark.parametrize(
    ("blocks", "head", "words"),
    [
        (["blocks.3"], None, "no block of r 'blocks.3'; did you mean 'blocks."),
        (["blocs.1"], None, "no block of r 'blocs.1'; did you mean 'blocks.1'"),
        (["layer4"], None, "no block of r 'layer4'; known: blocks, bn1, conv1, linear, pool, relu"),
        ([4, 8], None, "no block of r '4'; known: blocks, bn1, conv1, linear, pool, relu"),
        ([""], None, "no block of r ''; known: "),
        (["bn1", "bn1"], None, "blocks are ['bn1', 'bn1']; each must be named once"),
        ("blocks.1", None, "blocks is 'blocks.1'; it must be a list of names, such as ['blocks.1']"),
        (None, "lineer", "no head of r 'lineer'; did you mean 'linear'"),
        (
            None,
            "pool",
            "head 'pool' of r is a AdaptiveAvgPool2d; it must be its final linear layer, such as ",
        ),
    ],
)
def test_a_name_that_does_not_fit_is_refused_with_one_that_does(
    blocks: Sequence[str] | None, head: str | None, words: str
) -> None:
    with pytest.raises(NetworkError, match=re.escape(words)):
        block_names("r", small(), blocks, head)
