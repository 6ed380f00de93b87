import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import tombola as tb
from tombola.cli import mistyped
from tombola.lab.chains import imp_jobs
from tombola.lab.store import Store

Result = tuple[int, str, str]
Refused = Callable[[Result], str]


QUICK = ("--recipe.epochs", 2, "--recipe.batch-size", 400)


# Asking


def child(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300
    )


def test_help_does_not_wait_for_torch() -> None:
    code = """
import sys
from tombola.cli import main
sys.argv = ["tombola", *sys.argv[1:]]
try:
    main()
finally:
    loaded = {"torch", "distributed", "datasets", "pandas", "sklearn", "matplotlib"} & set(sys.modules)
    print("loaded:", sorted(loaded))
"""
    for arguments, words in (
        (["--help"], ("demo", "imp", "ls", "show")),
        (["imp", "--help"], ("--recipe.lr",)),
    ):
        done = child("-c", code, *arguments)
        assert done.returncode == 0
        assert all(word in done.stdout for word in words)
        assert done.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("command", ["--help", "studies"])
def test_a_reader_that_leaves_early_ends_the_command_without_a_word(command: str, tmp_path: Path) -> None:
    code = "import sys; from tombola.cli import main; sys.argv = ['tombola', *sys.argv[1:]]; main()"
    environment = {**os.environ, "TOMBOLA_STORE": str(tmp_path / "store")}
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-c", code, command], stdout=theirs, stderr=subprocess.PIPE, text=True,
        env=environment, timeout=300,
    )  # fmt: skip
    os.close(theirs)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["demo", "imp", "ls", "show"])
def test_every_command_has_help(tombola: Callable[..., Result], command: str) -> None:
    code, out, _ = tombola(command, "--help")
    assert code == 0
    assert f"usage: tombola {command}" in out


def test_the_version_is_told(tombola: Callable[..., Result]) -> None:
    assert tombola("--version") == (0, f"{tb.__version__}\n", "")


# A chain


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if re.match(r"\d+ \d", line)]


def test_a_chain_is_printed_round_by_round_and_remembered(
    tombola: Callable[..., Result], tmp_path: Path, digits: tb.Data
) -> None:
    arguments = ("imp", "--rounds", 2, "--fraction", 0.5, "--seed", 3, *QUICK)
    code, out, err = tombola(*arguments)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"convnet on digits, 2 rounds on the CPU, threads 1; store {tmp_path / 'store'}"
    assert lines[1].startswith("estimate: 6 epochs, ")
    assert lines[2] == "round sparsity accuracy best seconds job"
    assert lines[-2:] == [
        "underlined (+): winning, at least as accurate as dense; *: failed, at chance",
        "8,456 of 8,610 parameters are prunable; left out: norms, biases",
    ]
    start = tb.initialize("convnet", digits, seed=3)
    expected = list(
        tb.imp(start, digits, tb.Recipe(epochs=2, batch_size=400), rounds=2, fraction=0.5, noise=3)
    )
    assert [row[:2] for row in rows(out)] == [["0", "0.00%"], ["1", "50.00%"], ["2", "75.00%"]]
    assert [row[2].rstrip("*+") for row in rows(out)] == [f"{run.accuracy:.2f}%" for run in expected]
    assert [row[3] for row in rows(out)] == [f"{run.best_accuracy:.2f}%" for run in expected]
    assert all(re.fullmatch(r"\d+\.\d", row[4]) for row in rows(out))
    code, again, err = tombola(*arguments)
    assert (code, err) == (0, "")
    assert [row[4] for row in rows(again)] == ["stored"] * 3
    assert [(*row[:4], row[5]) for row in rows(again)] == [(*row[:4], row[5]) for row in rows(out)]


def test_the_page_of_a_chain_says_how_it_was_made(tombola: Callable[..., Result], tmp_path: Path) -> None:
    options = ("--scope", "layerwise", "--exclude", "14.weight", "--same-noise")
    code, _, _ = tombola(
        "imp", "--rounds", 1, "--seed", 7, "--order-noise", 9, *options, "--out", tmp_path / "out", *QUICK
    )
    assert code == 0
    page = " ".join((tmp_path / "out" / "report.html").read_text(encoding="utf-8").split())
    for words in (
        "smallest of the remaining weights of each layer are removed", "Never pruned: 14.weight.",
        "Seed 7 numbers the draw of the first weights and the noise of training, the same in every round",
        "The order noise has a number of its own, seed+2.",
        "each layer is ranked by itself",
        "of convnet 8,456 of 8,610 parameters are prunable; left out: norms, biases",
    ):  # fmt: skip
        assert words in page
    assert "ranked together" not in page


def test_a_chain_is_pruned_by_the_criterion_that_was_asked_for(
    tombola: Callable[..., Result], tmp_path: Path
) -> None:
    options = ("--score", "movement", "--same-sign", "--invert", "--scope", "erk", "--fraction", 0.5, 0.2)
    options += ("--rewinding", "learning_rate")
    code, out, err = tombola("imp", "--rounds", 2, *options, "--out", tmp_path / "out", *QUICK)
    assert (code, err) == (0, "")
    assert [row[1] for row in rows(out)] == ["0.00%", "50.00%", "60.00%"]
    settings = {
        "score": "movement",
        "same_sign": True,
        "invert": True,
        "scope": "erk",
        "fraction": [0.5, 0.2],
        "rewinding": "learning_rate",
    }
    chain = imp_jobs("convnet", "digits", tb.Recipe(epochs=2, batch_size=400), rounds=2, **settings)
    assert [row[5] for row in rows(out)] == [job.name[: len(rows(out)[0][5])] for job in chain]
    page = " ".join((tmp_path / "out" / "report.html").read_text(encoding="utf-8").split())
    for words in (
        "the 50% then 20% highest of the remaining weights by the score movement are removed",
        "Weights whose sign is another than at the start go first.", "(Erdos-Renyi-Kernel)",
        "the rest stay as they are and the learning rate goes back to initialisation",
    ):  # fmt: skip
        assert words in page


def test_a_chain_is_pruned_by_a_score_of_ones_own(tombola: Callable[..., Result], tmp_path: Path) -> None:
    text = (
        "import tombola as tb\n\n"
        "@tb.declare_score('signed', version=2)\n"
        "def signed(run):\n"
        "    return {name: run.weights[name] for name in run.ticket.mask}\n"
    )
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    options = ("--score", "signed", "--import", tmp_path / "mine.py", "--rounds", 1, "--fraction", 0.5)
    code, _, err = tombola("imp", *options, *QUICK)
    assert (code, err) == (0, "")
    store = Store(tmp_path / "store")
    (name,) = (name for name in store.names() if store.description(name)["function"] == "prune")
    assert store.description(name)["arguments"]["score"] == "signed@2"
    assert list(store.provenance(name)["source"]["scores"]) == ["signed@2"]


def test_tickets_of_a_chain_are_saved_and_the_first_holds_the_start_of_all(
    tombola: Callable[..., Result], tmp_path: Path
) -> None:
    code, out, _ = tombola("imp", "--rounds", 1, "--rewind", "4it", "--out", tmp_path / "out" / "t", *QUICK)
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out" / "t").iterdir()) == [
        "report.html",
        "round-00.safetensors",
        "round-01.safetensors",
        "rounds.csv",
        "table.csv",
        "table.json",
    ]
    page = (tmp_path / "out" / "t" / "report.html").read_text(encoding="utf-8")
    assert "A pruning chain of convnet on digits" in page
    for accuracy in re.findall(r"^ *[01] .*?(\d+\.\d+)%", out, re.MULTILINE):
        assert accuracy in page
    first, second = (tb.Ticket.load(tmp_path / "out" / "t" / f"round-0{n}.safetensors") for n in (0, 1))
    assert [ticket.round for ticket in (first, second)] == [0, 1]
    assert first.epoch == second.epoch == 1
    assert first.complete
    assert not second.complete
    second = second.with_start(first.start)
    assert tb.permute(second).kept == second.kept == round(0.8 * 8456)
    _, out, _ = tombola("show", tmp_path / "out" / "t" / "round-01.safetensors")
    assert "sparsity: 20.00% (6,765 of 8,456 prunable weights)" in out


def test_other_data_and_networks_can_be_named(tombola: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    for index in range(24):
        place = folder / ("dark", "light")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (40 + 100 * (index % 2) + index, 9, 9)).save(place / f"{index}.png")
    code, out, err = tombola(
        "imp", "--data", folder, "--rounds", 0, "--store", tmp_path / "my [/store]",
        "--recipe.epochs", 1, "--recipe.batch-size", 10, "--recipe.augmentation.pad", 2,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert (
        out.splitlines()[0]
        == f"convnet on {folder}, 0 rounds on the CPU, threads 1; store {tmp_path / 'my [/store]'}"
    )
    assert len(rows(out)) == 1


# Looking


def test_the_store_can_be_listed_and_shown(tombola: Callable[..., Result], tmp_path: Path) -> None:
    _, out, _ = tombola("imp", "--rounds", 1, *QUICK)
    dense, sparse = (row[5] for row in rows(out))
    code, listed, err = tombola("ls")
    assert (code, err) == (0, "")
    assert listed.splitlines()[0].split() == ["job", "function", "arguments", "result", "started", "seconds"]
    assert [name in listed for name in (dense, sparse)] == [True, True]
    assert listed.splitlines()[-1].endswith(f"s of work, in {tmp_path / 'store'}")
    _, listed, _ = tombola("ls", "--function", "initialize", "--store", tmp_path / "store")
    assert "initialize" in listed
    assert dense not in listed
    code, shown, err = tombola("show", sparse[:6])
    assert (code, err) == (0, "")
    assert shown.startswith(f"train {sparse}")
    assert f"run: train {dense}" in shown
    assert "sparsity: 0.199976" in shown  # 1,691 of 8,456
    assert shown.splitlines()[-1].startswith(f"folder: {tmp_path / 'store'}")


# Refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--network", "convnett"), "no network 'convnett'; did you mean 'convnet'?"),
        (("--network", "convnet@3"), "no version 3 of network 'convnet' here; there is 1"),
        (("--init", "kaimin-normal"), "no initialisation 'kaimin-normal'; did you mean 'kaiming-normal'?"),
        (("--fraction", 0), "fraction is 0.0; it must lie between 0 and 1, both excluded"),
        (("--fraction", 1), "fraction is 1.0; it must lie between 0 and 1, both excluded"),
        (("--fraction", 1.5), "fraction is 1.5; it must lie between 0 and 1, both excluded"),
        (("--fraction", 0.5, 0.2), "rounds is 20, but fraction has 2; give one for each round"),
        (("--score", "movment"), "no score 'movment'; did you mean 'movement'?"),
        (("--rounds", -1), "rounds is -1; it must be 0 or more"),
        (
            ("--rewind", 200, "--recipe.epochs", 200),
            "rewind is to epoch 200, but the recipe has 200 epochs; allowed are 1 to 199",
        ),
        (("--rewind", "2 epochs"), "'2 epochs' is no length; give epochs, such as 2 or '2ep', or '500it'"),
        (("--recipe.momentum", 1.5), "momentum is 1.5; it must be from 0 to below 1"),
        (("--recipe.momentum", "nan"), "momentum is nan; it must be from 0 to below 1"),
        (("--recipe.lr", 0), "lr is 0.0; it must be above 0 and finite"),
        (
            ("--recipe.epochs", 0),
            "epochs is 0; it must be a whole number, at least 1, or iterations such as '1500it'",
        ),
        (
            ("--recipe.augmentation.pad", -1),
            "augmentation pad -1 is negative; allowed 0 (no crop) and above",
        ),
        (
            ("--recipe.schedule", "step"),
            "schedule is 'step' and milestones are (); milestones must be given for schedule 'step', "
            "and for no other",
        ),
        (("--threads", 0), "threads is 0; it must be at least 1"),
        (("--checkpoint-every", -5), "checkpoint_every is -5.0; it must be 0 seconds or more"),
        (
            ("--exclude", "14.wieght", *QUICK),
            "no prunable weight of convnet '14.wieght'; did you mean '14.weight'?",
        ),
        (
            ("--data", "./nowhere"),
            "no folder './nowhere'; give an existing folder, or a name",
        ),
    ],
)
def test_what_is_impossible_is_refused_in_one_line_before_any_training(
    tombola: Callable[..., Result], refused: Refused, arguments: tuple, words: str, tmp_path: Path
) -> None:
    assert refused(tombola("imp", *arguments)) == words
    if (tmp_path / "store").exists():
        store = Store(tmp_path / "store")
        assert {store.description(name)["function"] for name in store.names()} <= {"initialize"}


def test_a_training_that_cannot_run_is_refused_with_its_remedy(
    tombola: Callable[..., Result], refused: Refused
) -> None:
    line = refused(tombola("imp", "--network", "resnet18", "--recipe.batch-size", 63, "--rounds", 0))
    assert re.fullmatch(
        r"job \w{12} failed: 1198 images in batches of 63 leave a last batch of 1, on which batch norm is "
        r"undefined in resnet18; choose another batch size, such as 62",
        line,
    )


def test_an_unknown_device_is_refused(tombola: Callable[..., Result], refused: Refused) -> None:
    line = refused(tombola("imp", "--device", "gpu", *QUICK))
    assert line.endswith("no device 'gpu'; known: auto, cpu, cuda, cuda:0, ...")
    if not torch.cuda.is_available():
        line = refused(tombola("imp", "--device", "cuda", *QUICK))
        assert "device 'cuda' asked for, but PyTorch sees no GPU (" in line
        assert line.endswith("); use cpu or auto")


def test_an_unknown_data_set_is_refused_with_the_nearest(
    tombola: Callable[..., Result], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert refused(tombola("imp", "--data", "digitss")) == (
        "no data set 'digitss'; did you mean 'digits'? (the Hugging Face hub cannot be reached; offline, "
        "give a folder or use 'digits')"
    )


def test_a_folder_without_images_is_refused(
    tombola: Callable[..., Result], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tombola("imp", "--data", tmp_path / "empty")) == (
        f"folder '{tmp_path / 'empty'}' has no images; it may hold parquet tables, or pictures in one "
        "folder for each class"
    )


@pytest.mark.parametrize("command", ["imp", "demo"])
def test_a_store_that_cannot_be_written_to_is_refused(
    tombola: Callable[..., Result], refused: Refused, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "sub"
    assert refused(tombola(command, "--store", place)) == (
        f"cannot use a store at {place}: Not a directory; choose another place"
    )


def test_a_place_for_results_that_cannot_be_written_to_is_refused_before_any_work(
    tombola: Callable[..., Result], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "sub"
    for arguments in (("demo", "--out", place), ("imp", "--out", place)):
        assert refused(tombola(*arguments)) == f"cannot write to {place}: Not a directory"
    assert list(Store(tmp_path / "store").names()) == []


def test_fewer_than_no_workers_are_refused(tombola: Callable[..., Result], refused: Refused) -> None:
    assert refused(tombola("demo", "--workers", -2)).startswith("workers is -2; it must be 0")


def test_a_folder_of_other_things_is_no_store(
    tombola: Callable[..., Result], refused: Refused, tmp_path: Path
) -> None:
    for arguments in (("imp",), ("ls",)):
        place = tmp_path / "thesis"
        place.mkdir(exist_ok=True)
        (place / "thesis.tex").write_text("")
        line = refused(tombola(*arguments, "--store", place))
        assert line == f"{place} holds other files; a store wants a folder of its own"


def test_listing_makes_no_store(tombola: Callable[..., Result], refused: Refused, tmp_path: Path) -> None:
    for arguments in (("ls",), ("show", "abc")):
        line = refused(tombola(*arguments, "--store", tmp_path / "none"))
        assert line == f"no store at {tmp_path / 'none'}; name one with --store or TOMBOLA_STORE"
    assert not (tmp_path / "none").exists()


def test_an_unknown_job_is_refused(tombola: Callable[..., Result], refused: Refused, tmp_path: Path) -> None:
    Store(tmp_path / "store")
    assert refused(tombola("show", "abc")) == (
        f"no job in {tmp_path / 'store'} with a name that begins with 'abc'; see tombola ls"
    )


def test_a_truncated_ticket_file_is_refused(
    tombola: Callable[..., Result], refused: Refused, start: tb.Ticket, tmp_path: Path
) -> None:
    place = tmp_path / "ticket.safetensors"
    start.save(place)
    place.write_bytes(place.read_bytes()[:-100])
    assert refused(tombola("show", place)).startswith(f"{place} is damaged or not a tensor file: ")


def test_other_pixels_under_the_same_name_are_refused(
    tombola: Callable[..., Result], refused: Refused, tmp_path: Path
) -> None:
    arguments = ("--recipe.epochs", 1, "--recipe.batch-size", 10, "--rounds", 0)
    for place, shade in (("first", 0), ("second", 1)):
        folder = tmp_path / place / "shapes"
        for index in range(20):
            (folder / str(index % 2)).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 100 * (index % 2) + index + shade).save(
                folder / str(index % 2) / f"{index}.png"
            )
    assert tombola("imp", "--data", tmp_path / "first" / "shapes", *arguments)[0] == 0
    line = refused(tombola("imp", "--data", tmp_path / "second" / "shapes", *arguments, "--seed", 1))
    assert re.fullmatch(
        r"the store at .*store has results for other pixels under the data name 'shapes' "
        r"\(fingerprint \w{12}, now \w{12}\); rename the data or use another store",
        line,
    )


def test_a_full_disk_is_one_line_and_finished_jobs_stay(
    tombola: Callable[..., Result], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tombola("imp", "--rounds", 0, *QUICK)[0] == 0
    before = sorted(tmp_path.glob("store/jobs/*/*/*"))
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        )
        line = refused(tombola("imp", "--rounds", 1, *QUICK))
    assert re.fullmatch(
        r"cannot write to .*: No space left on device; make room .* and run the same again", line
    )
    assert sorted(tmp_path.glob("store/jobs/*/*/*")) == before
    code, again, _ = tombola("imp", "--rounds", 1, *QUICK)
    assert code == 0
    assert [row[4] == "stored" for row in rows(again)] == [True, False]


def test_what_cannot_be_read_as_a_value_ends_with_the_same_code(tombola: Callable[..., Result]) -> None:
    for arguments in (("imp", "--recipe.epochs", "many"), ("imp", "--stor", "x"), ("play",), ()):
        code, _, err = tombola(*arguments)
        assert code == 2
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "run my.py --out X",
            "run has no option --out; tombola demo, imp, report and compare have it (see tombola run --help)",
        ),
        (
            "run --stpo-after 3m table2",
            "run has no option --stpo-after; did you mean --stop-after? (see tombola run --help)",
        ),
        (
            "imp --recipe.augmentation.cutot=3",
            "imp has no option --recipe.augmentation.cutot; did you mean --recipe.augmentation.cutout? "
            "(see tombola imp --help)",
        ),
        ("ls --networks a", "ls has no option --networks; tombola bench has it (see tombola ls --help)"),
        ("gc -x", "gc has no option -x (see tombola gc --help)"),
        (
            "measure barrier --dta digits",
            "measure barrier has no option --dta; did you mean --data? (see tombola measure barrier --help)",
        ),
        (
            "ls --sort tme",
            "--sort is 'tme'; it must be one of 'time', 'seconds', 'function', 'name'; did you mean 'time'? "
            "(see tombola ls --help)",
        ),
        ("run --threads two table2", "--threads: 'two' is no whole number (see tombola run --help)"),
        ("imp --recipe.lr fast", "--recipe.lr: 'fast' is no number (see tombola imp --help)"),
        ("ls --last", "ls lacks a value of --last (see tombola ls --help)"),
        ("show a b", "show takes no 'b' here (see tombola show --help)"),
        ("diff a", "diff lacks JOB (see tombola diff --help)"),
        (
            "measure barrier",
            "measure barrier lacks FIRST, SECOND, --data (see tombola measure barrier --help)",
        ),
        (
            "bench --batch-sizes 8 x",
            "--batch-sizes: '8', 'x' cannot be read as [INT [INT ...]] (see tombola bench --help)",
        ),
        ("run --stop 3", "run has no option --stop; did you mean --stop-after? (see tombola run --help)"),
        ("rm --dep a", "rm has no option --dep; did you mean --dependents? (see tombola rm --help)"),
        ("imp --recipe.nesterov", "imp has no option --recipe.nesterov (see tombola imp --help)"),
        ("", "no command was named; give one, such as demo, run or ls (see tombola --help)"),
        ("--out X", "--out stands in place of a command, such as demo, run or ls (see tombola --help)"),
        (
            "--store x gc",
            "--store stands in place of a command; it comes first: tombola gc --store (see tombola --help)",
        ),
        ("--hlep", "--hlep stands in place of a command; did you mean --help? (see tombola --help)"),
        ("-V", "-V stands in place of a command; did you mean --version? (see tombola --help)"),
    ],
)
def test_what_is_mistyped_is_told_in_one_line_with_the_nearest_that_there_is(
    tombola: Callable[..., Result], refused: Refused, arguments: str, line: str
) -> None:
    assert refused(tombola(*arguments.split())) == line


def test_the_option_with_the_mistyped_name_as_its_last_part_comes_before_other_commands(
    tombola: Callable[..., Result], refused: Refused
) -> None:
    line = refused(tombola("imp", "--lr", 0.1))  # studies, plan and others have an --lr
    assert line == "imp has no option --lr; did you mean --recipe.lr? (see tombola imp --help)"


@pytest.mark.parametrize("columns", [20, 80, 300])
def test_no_option_is_denied_in_a_terminal_of_any_width(
    tombola: Callable[..., Result], refused: Refused, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    line = refused(tombola("imp", "--recipe.augmentation.cutout", 1, "--recipe.lr", "fast"))
    assert line == "--recipe.lr: 'fast' is no number (see tombola imp --help)"
    assert os.environ["COLUMNS"] == str(columns)


@pytest.mark.parametrize("odd", [None, SimpleNamespace(), SimpleNamespace(on_parse_error=lambda: None)])
def test_what_is_mistyped_is_refused_by_tyro_itself_where_that_tells_nothing(
    tombola: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, odd: object
) -> None:
    monkeypatch.setitem(sys.modules, "tyro._errors", odd)  # as in a version without it, or with another
    code, _, err = tombola("gc", "--kep", "all")
    assert code == 2
    assert "--keep" in err


def test_what_tyro_tells_otherwise_is_refused_by_tyro_itself(
    tombola: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> str:
        raise TypeError("an event of another form")

    monkeypatch.setattr(mistyped, "_refusal", changed)
    code, _, err = tombola("gc", "--kep", "all")
    assert code == 2
    assert "--keep" in err
    assert "Traceback" not in err


def test_debug_shows_where_it_happened(tombola: Callable[..., Result]) -> None:
    with pytest.raises(tb.TombolaError, match=r"fraction is 1\.5"):
        tombola("--debug", "imp", "--fraction", 1.5)
    done = child("-m", "tombola.cli", "imp", "--recipe.lr", "0", "--debug")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RecipeError: lr is 0.0; it must be above 0 and finite\n")


def test_a_warning_is_one_line(tombola: Callable[..., Result]) -> None:
    code, _, err = tombola("imp", "--rounds", 0, "--recipe.epochs", 1, "--recipe.batch-size", 5000)
    assert code == 0
    assert err == (
        "tombola: note: batch size 5000 is larger than the 1198 training images: "
        "every epoch is one partial batch\n"
    )


# Interruption


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    command = [
        sys.executable, "-m", "tombola.cli", "imp", "--rounds", "40", "--store", str(tmp_path / "store"),
        "--recipe.epochs", "3", "--recipe.batch-size", "100", "--checkpoint-every", "0",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        # A shell's background jobs ignore the signal, and their children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while not process.stdout.readline().startswith("1 20.00%"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "tombola: interrupted; the same command continues where it was\n"
    store = Store(tmp_path / "store")
    # An initialisation, the dense training and that of the first round, at least.
    assert len(list(store.names())) >= 3
    assert not list(tmp_path.glob("store/work/*/lease"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("imp", "--rounds", 1_000_000), "rounds is 1,000,000; pruning 0.2 in each leaves nothing even of "),
        (("imp", "--threads", 100_000), "threads is 100000; this machine has "),
        (("imp", "--recipe.epochs", 10**12), "epochs is 1000000000000; "),
        (("run", "table1", "--threads", 100_000), "threads is 100000; this machine has "),
        (("run", "table1", "--workers", 100_000), "workers is 100000; this machine has "),
        (("run", "table1", "--slots", 100_000), "slots is 100000; no more than 64 jobs share a GPU"),
        (("plan", "table1", "--workers", 100_000), "workers is 100000; this machine has "),
        (("plan", "table1", "--slots", 100_000), "slots is 100000; no more than 64 jobs share a GPU"),
        (("demo", "--workers", 100_000), "workers is 100000; this machine has "),
        (("bench", "--slots", 100_000), "slots is 100000; no more than 64 jobs share a GPU"),
    ],
)
def test_absurd_numbers_are_refused_with_the_reason_and_before_a_store_is_made(
    tombola: Callable[..., Result],
    refused: Callable[[Result], str],
    arguments: tuple[object, ...],
    words: str,
    tmp_path: Path,
) -> None:
    assert refused(tombola(*arguments)).startswith(words)
    assert not (tmp_path / "store").exists()
