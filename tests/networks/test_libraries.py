"""Networks of timm and torchvision: found by name, with the package's version, and refused in one line."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import NetworkError
from tombola.networks.network import Network
from tombola.networks.prunable import prunable_names

IMAGES: dict[str, Any] = {"channels": 3, "size": (32, 32), "classes": 10}


@pytest.fixture(scope="session")
def coloured(digits: tb.Data) -> tb.Data:
    """A few digits as colour images of 32x32."""
    return tb.subset(tb.fit_images(digits, size=(32, 32)), shots=5)


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(
        NetworkError, match=r"needs timm, which is not installed; pip install 'tombola\[timm\]'"
    ):
        Network.of("timm:resnet18", **IMAGES)


def test_a_name_with_another_version_is_refused_without_importing_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3+cpu")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert Network.of("torchvision:resnet18@1.2.3", **IMAGES).written == "torchvision:resnet18@1.2.3"
    with pytest.raises(
        NetworkError, match=r"of torchvision 1\.2\.2, and here is 1\.2\.3; install .*==1\.2\.2"
    ):
        Network.of("torchvision:resnet18@1.2.2", **IMAGES)
    with pytest.raises(NetworkError, match=r"torchvision 1\.2\.3\+cpu cannot be imported beside torch"):
        Network.of("torchvision:resnet18", **IMAGES)


def test_a_users_network_cannot_take_a_librarys_name() -> None:
    with pytest.raises(NetworkError, match="'timm:mine' is a library's; choose another"):
        tb.declare_network("timm:mine")


@pytest.mark.usefixtures("libraries")
class TestInstalled:
    def test_a_job_has_the_version_of_the_package(self) -> None:
        job = tb.job(tb.initialize, "torchvision:mobilenet_v3_small", "digits")
        version = metadata.version("torchvision").partition("+")[0]
        assert job.arguments["network"] == f"torchvision:mobilenet_v3_small@{version}"
        described = Network.of("timm:test_vit", **IMAGES)
        assert Network.described(described.description()) == described

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("timm:vit_tny_patch16_224", "no network .*; did you mean 'timm:vit_tiny_patch16_224'"),
            ("torchvision:zzz", "no network 'torchvision:zzz'; torchvision's list_models"),
            ("timm:hf-hub:someone/model", "no network"),
            ("torchvision:fcn_resnet50", "no network"),
        ],
    )
    def test_an_unknown_network_is_refused(self, name: str, words: str) -> None:
        with pytest.raises(NetworkError, match=words):
            Network.of(name, **IMAGES)

    def test_they_are_built_for_the_data(self) -> None:
        import timm
        import torchvision

        for name, expected in (
            ("timm:test_vit", timm.create_model("test_vit", num_classes=10, img_size=32)),
            ("timm:test_resnet", timm.create_model("test_resnet", num_classes=10)),
            ("torchvision:mobilenet_v3_small", torchvision.models.mobilenet_v3_small(num_classes=10)),
        ):
            module = Network.of(name, **IMAGES).build()
            shapes = {key: value.shape for key, value in module.state_dict().items()}
            assert shapes == {key: value.shape for key, value in expected.state_dict().items()}

    def test_an_attention_layer_of_torchvision_is_pruned_whole(self) -> None:
        import torchvision

        with torch.device("meta"):
            module = torchvision.models.vit_b_16(image_size=32)
        linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
        names = prunable_names(module)
        assert len(names) == len(linear) + 12 + 1  # the projection of each layer, and the patches'
        assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in names

    def test_grey_images_are_refused_by_torchvision_with_a_remedy(self, digits: tb.Data) -> None:
        with pytest.raises(NetworkError, match=r"3 channels, not 1; tb\.fit_images"):
            tb.initialize("torchvision:resnet18", digits)

    def test_a_vit_is_pruned_measured_and_read_back(self, coloured: tb.Data, tmp_path: Path) -> None:
        start = tb.initialize("timm:test_vit", coloured)
        assert "are prunable; left out: " in repr(start)
        assert {"biases", "norms", "pos_embed", "cls_token"} <= set(start.coverage.left_out)
        recipe = tb.Recipe(epochs=1, batch_size=25, lr=0.01)
        runs = list(tb.imp(start, coloured, recipe, rounds=1, fraction=0.5))
        other = tb.train(runs[1].ticket, coloured, recipe, noise=7)
        assert tb.barrier(runs[1], other, coloured, points=3).errors[0] == 100 - runs[1].accuracy
        probes = tb.probe(runs[1], coloured, blocks=["blocks.0", "blocks.1", "head"], head="head")
        assert len(probes.accuracy) == 3
        runs[1].save(tmp_path / "run")
        assert tb.Run.load(tmp_path / "run").fingerprint == runs[1].fingerprint

    @pytest.mark.long
    def test_a_mobilenet_learns_before_its_batch_norm_shows_it(self, digits: tb.Data) -> None:
        # Its running statistics move by 1% a step: in 24 steps by a fifth of the way.
        data = tb.fit_images(digits, size=(32, 32))
        start = tb.initialize("torchvision:mobilenet_v3_small", data)
        assert start.network.build().features[0][1].momentum == 0.01  # type: ignore[index, union-attr]
        run = tb.train(start, data, tb.Recipe(epochs=2, batch_size=100, augmentation=tb.Augmentation(pad=0)))
        assert run.history[-1].train_accuracy > 50
        assert run.accuracy < 20
        assert tb.barrier(run, run, data, points=3, recalibrate=True).errors[0] < 50
