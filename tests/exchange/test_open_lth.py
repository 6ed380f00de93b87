"""Result folders of OpenLTH, written here by networks of its layout."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb
from tombola.errors import NetworkError, TicketError


class Block(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        stride = 1 if before == width else 2
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, 2, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class CifarResNet20(nn.Module):
    """OpenLTH's ``cifar_resnet_20``: its names, and pooling by ``avg_pool2d``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        pairs = itertools.pairwise(widths)
        self.blocks = nn.Sequential(*(Block(before, width) for before, width in pairs))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.bn(self.conv(x))))
        return self.fc(functional.avg_pool2d(x, x.shape[3]).flatten(1))


Replicate = tuple[Path, CifarResNet20, CifarResNet20]


@pytest.fixture(scope="module")
def small() -> tb.Data:
    """Ten made-up images of CIFAR-10's shape."""
    images = torch.randint(
        0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return tb.data_from_tensors((images, torch.arange(10)), (images, torch.arange(10)), name="small")


@pytest.fixture(scope="module")
def replicate(tmp_path_factory: pytest.TempPathFactory) -> Replicate:
    """A replicate with levels 0 and 2, the dense start, and the last model of level 2."""
    torch.manual_seed(4)
    start, final = CifarResNet20(), CifarResNet20()
    final(torch.randn(8, 3, 32, 32))  # statistics of batch norm
    folder = tmp_path_factory.mktemp("open_lth") / "replicate_1"
    prunable = [f"{name}.weight" for name, m in start.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    mask = {name: (torch.rand_like(start.state_dict()[name]) < 0.6).int() for name in prunable}
    pruned = {name: value * mask.get(name, 1) for name, value in start.state_dict().items()}
    for name, parameter in final.named_parameters():
        if name in mask:
            parameter.data *= mask[name]
    for level, models in {
        0: {"ep0_it0": start.state_dict()},
        2: {"ep0_it0": pruned, "ep160_it0": final.state_dict()},
    }.items():
        place = folder / f"level_{level}" / "main"
        place.mkdir(parents=True)
        torch.save(
            mask if level else {name: torch.ones_like(m) for name, m in mask.items()}, place / "mask.pth"
        )
        for step, state in models.items():
            torch.save(state, place / f"model_{step}.pth")
    hparams = "Model Hyperparameters\n    * model_name => cifar_resnet_20\n    * model_init => binary\n"
    (folder / "level_0" / "main" / "hparams.log").write_text(hparams)
    return folder, start, final.eval()


def test_a_level_is_read_as_the_run_that_it_is(
    replicate: tuple[Path, CifarResNet20, CifarResNet20], small: tb.Data
) -> None:
    folder, start, final = replicate
    run = tb.open_lth(folder / "level_2", data=small)
    assert run.ticket.network.name == "resnet20"
    assert (run.ticket.round, run.ticket.epoch, run.foreign) == (2, 0, True)
    assert run.ticket.sparsity == pytest.approx(0.4, abs=0.01)
    dense = run.ticket.dense_start()
    assert torch.equal(dense["conv1.weight"], start.conv.weight)
    assert torch.equal(dense["blocks.8.conv2.weight"], start.blocks[8].conv2.weight)
    module = run.ticket.network.build().eval()
    module.load_state_dict(run.weights)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(module(images), final(images), atol=1e-5)
    assert tb.barrier(run, run, small, points=3).height == 0


# As MetricLogger.__str__ writes it: what was measured first stands first.
LOG = """test_loss,0,2.302585
test_accuracy,0,0.1
test_examples,0,10000.0
test_loss,391,nan
test_accuracy,391,0.4375
test_loss,10,1e-05"""


def test_what_was_logged_is_the_history_and_nothing_else(
    replicate: Replicate, small: tb.Data, tmp_path: Path
) -> None:
    folder, _, _ = replicate
    log = folder / "level_2" / "main" / "logger"
    plain = tb.open_lth(folder / "level_2", data=small)
    assert plain.history.logged is None
    assert plain.history.frame().empty
    log.write_text(LOG)
    run = tb.open_lth(folder / "level_2", data=small)
    run.save(tmp_path / "run")
    for each in (run, tb.Run.load(tmp_path / "run")):
        first, second, third = each.history.table()
        assert first == {
            "iteration": 0,
            "test_accuracy": 10.0,
            "test_examples": 10_000.0,
            "test_loss": 2.302585,
        }
        assert second == {"iteration": 10, "test_loss": 1e-05}  # no accuracy, and none is made up
        assert third["test_accuracy"] == 43.75
        assert math.isnan(third["test_loss"])
        frame = each.history.frame()
        assert frame["iteration"].tolist() == [0, 10, 391]
        assert frame["test_accuracy"].isna().tolist() == [False, True, False]
        assert repr(each.history) == (
            "<history logged elsewhere: test_accuracy, test_examples, test_loss at 3 iterations, 0 to 391>"
        )
        assert each.foreign
        with pytest.raises(TicketError, match=r"no history by epoch: .* its log has test_accuracy"):
            tb.convergence(each)
    # What measures read is the same, so that jobs of it keep their names.
    assert run.fingerprint == plain.fingerprint
    log.write_text("")
    assert tb.open_lth(folder / "level_2", data=small).history.logged is None
    log.unlink()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "test_loss,10ep,1.5",
            "line 2 is 'test_loss,10ep,1.5' and no name,iteration,value such as test_loss,391,1.5",
        ),
        ("test_loss,5", "line 2 is 'test_loss,5' and no name,iteration,value"),
        ("test_loss,-5,1.0", "line 2 is .* and no name,iteration,value"),
        ("test_loss,5,1.0,2.0", "line 2 is .* and no name,iteration,value"),
        ("test_loss,5,1_0", "line 2 is .* and no name,iteration,value"),
        (
            "test_accuracy,5,91.2",
            "line 2 is 'test_accuracy,5,91.2'; accuracies of OpenLTH are shares from 0 to 1",
        ),
        ("test_loss,0,1.0", "test_loss stands there twice at iteration 0"),
        ("\x1b[2Jtest_loss,5,1.0", "and no name,iteration,value"),
    ],
)
def test_a_log_of_another_form_is_refused_with_its_line(
    replicate: Replicate, small: tb.Data, line: str, words: str
) -> None:
    log = replicate[0] / "level_2" / "main" / "logger"
    log.write_text(f"test_loss,0,2.0\n{line}\n")
    with pytest.raises(TicketError, match=words) as raised:
        tb.open_lth(replicate[0] / "level_2", data=small)
    assert "move it away" in str(raised.value)
    assert "\n" not in str(raised.value)
    log.unlink()


def test_what_a_folder_does_not_tell_is_asked_for(
    replicate: tuple[Path, CifarResNet20, CifarResNet20], small: tb.Data, tmp_path: Path
) -> None:
    folder, _, _ = replicate
    with pytest.raises(TicketError, match=r"has no model_ep..._it....pth; give the folder of a level"):
        tb.open_lth(tmp_path, data=small)
    with pytest.raises(TicketError, match=r"they part at conv.weight \(16, 3, 3, 3\) and 0.weight"):
        tb.open_lth(folder / "level_2", data=small, network="convnet")
    moved = tmp_path / "main"
    (folder / "level_2" / "main").rename(moved)
    with pytest.raises(NetworkError, match="names its network; say network="):
        tb.open_lth(moved, data=small)
    (moved / "hparams.log").write_text("    * model_name => cifar_resnet_56")
    with pytest.raises(
        NetworkError, match="tombola has no network 'cifar_resnet_56' of OpenLTH; say network="
    ):
        tb.open_lth(moved, data=small)
    run = tb.open_lth(moved, data=small, network="resnet20")
    assert run.ticket.has_start
    assert not run.ticket.complete  # its dense start was in level 0


def test_data_are_normalised_as_elsewhere(small: tb.Data, tmp_path: Path) -> None:
    data = tb.normalized(small, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert data.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert data.name != small.name
    with pytest.raises(tb.TombolaError, match="it must be 3 means"):
        tb.normalized(small, mean=(0.5,), std=(0.2,))
