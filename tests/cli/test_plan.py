"""Studies, plans, runs, reports and claims on the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.errors import DataError
from tombola.experiments import compute
from tombola.experiments.claims.all_claims import judge_all
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.studies import STUDIES, study_named
from tombola.lab import bench
from tombola.lab.bench import Bench, known_speeds, read_bench, speeds_file, write_bench
from tombola.lab.costs import Costs
from tombola.lab.item import jobs_of
from tombola.lab.job import all_needed
from tombola.lab.store import Store
from tombola.report.board import board, board_csv
from tombola.table.number import longest
from tombola.table.table import read_csv
from tombola.training.device import resolve_device
from tombola.training.throughput import Machine, Speed

Result = tuple[int, str, str]
Tombola = Callable[..., Result]
Refused = Callable[[Result], str]
QUICK = (
    "--scale", "tiny", "--epochs", 2, "--seeds", 1, "--configs", "0.0/256", "--rounds", 5, "--columns", "5",
)  # fmt: skip


def quick_work() -> PaperJobs:
    scale = scale_named("tiny")
    return PaperJobs(overridden(scale, epochs=2, seeds=1, configs=["0.0/256"], rounds=5, columns=(5,)))


def claims_of(table: str) -> str:
    """The board of the numbers of a table in CSV, as if no stand-in had given them."""
    cells = longest(read_csv(table).cells())
    verdicts = judge_all({key: replace(cell, stand_in="") for key, cell in cells.items()})
    return board_csv(board(verdicts, verdicts))


# Before anything is run


def test_all_studies_are_listed_and_no_store_is_made(tombola: Tombola, tmp_path: Path) -> None:
    code, out, err = tombola("studies")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "scale paper, store not made yet"
    assert [line.split()[0] for line in lines[1:]] == [study.name for study in STUDIES]
    assert all(
        re.search(r": 0 of \d+ (jobs|searches)(, 0 of \d+ searches)? done$", line) for line in lines[1:]
    )
    assert {line.index(study.title) for line, study in zip(lines[1:], STUDIES, strict=True)} == {23}
    assert not (tmp_path / "store").exists()


def test_studies_of_stand_ins_are_listed_under_the_names_of_what_is_trained(tombola: Tombola) -> None:
    _, out, _ = tombola("studies", "--scale", "tiny")
    lines = out.splitlines()
    assert lines[0] == "scale tiny, store not made yet"
    assert [line.split()[0] for line in lines[1:]] == [study.name for study in STUDIES]
    assert all(line[22] == " " != line[23] for line in lines[1:])
    assert all(
        re.search(r": 0 of \d+ (jobs|searches)(, 0 of \d+ searches)? done$", line) for line in lines[1:]
    )
    assert not re.search("ResNet|VGG|CIFAR|TinyImageNet", out)
    assert re.search("^table2 .* convnet on ", out, re.MULTILINE)


def test_a_plan_ends_with_its_totals_and_says_how_to_learn_the_hours(tombola: Tombola) -> None:
    code, out, err = tombola("plan", "table1", "fig1", *QUICK)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "2 studies, scale tiny, epochs 2, seeds 1, rounds 5, columns 5, configs 0.0/256"
    assert lines[-2] == "hours: this device has not been measured on such trainings; run tombola bench"
    # By hand: one dense run, three noise copies of two epochs (one of them that run) without late rewinding,
    # and a pretraining of one epoch with three copies of the other with it.
    assert lines[-1] == "total: 10 epochs shared, 12 epochs alone"


def test_a_bench_that_ends_early_leaves_what_was_measured(
    tombola: Tombola, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_speed = bench.measure_speed

    def measure(network: str, batch_size: int, *others: Any, **options: Any) -> Speed:
        if batch_size == 16:
            raise RuntimeError("the device is gone")
        return measure_speed(network, batch_size, *others, **options)

    monkeypatch.setattr(bench, "measure_speed", measure)
    cases = ("--networks", "convnet", "--size", 8, "--batch-sizes", 8, 16, 32, "--repeats", 1)
    with pytest.raises(RuntimeError, match="the device is gone"):
        tombola("bench", *cases, "--device", "cpu", "--json", tmp_path / "speeds.json")
    for kept in (read_bench(tmp_path / "speeds.json"), known_speeds(resolve_device("cpu"))):
        assert kept is not None
        assert [speed.batch_size for speed in kept.speeds] == [8]


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (("--json", "speeds.json"), "are in speeds.json"),
        ((), "are kept for plans"),
        (("--mode", "autotuned", "--json", "-"), "were measured, and are not kept"),
    ],
)
def test_an_interrupted_bench_says_what_was_measured(
    tombola: Tombola, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], place: str
) -> None:
    def measure(network: str, batch_size: int, *_: Any, **__: Any) -> Speed:
        if batch_size == 32:
            raise KeyboardInterrupt
        return speed_of(network, 8, batch_size, 1.0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "measure_machine", lambda _: Machine(matrix_tflops=1.0, copy_gbs=1.0))
    monkeypatch.setattr(bench, "measure_speed", measure)
    monkeypatch.setattr(os, "_exit", sys.exit)
    cases = ("--networks", "convnet", "--size", 8, "--batch-sizes", 8, 16, 32)
    code, _, err = tombola("bench", *cases, "--device", "cpu", *options)
    last = f"tombola: interrupted; 2 of 3 cases {place}; the same command measures all again"
    assert (code, err.splitlines()[-1]) == (130, last)


def speed_of(network: str, size: int, batch_size: int, rate: float) -> Speed:
    return Speed(
        network=network, size=size, batch_size=batch_size, packed=1, engine="eager", step_ms=1.0,
        step_ms_spread=0.0, repeats=1, images_per_second=rate, tflops=0.0, share=0.0, between_ms=0.0,
        evaluation_ms=0.0, epoch_seconds=0.0, chain_seconds=0.0, memory_gb=None,
    )  # fmt: skip


def test_hours_come_from_the_measured_speed_and_the_slots(tombola: Tombola) -> None:
    device = resolve_device("cpu")
    speeds = tuple(
        speed_of("convnet", 8, size, rate) for size, rate in ((32, 0.5), (128, 0.02), (1024, 100.0))
    )
    machine = Machine(matrix_tflops=1.0, copy_gbs=1.0)
    measured = Bench("cpu", "x", "default", "2", None, None, "0", machine, speeds)
    write_bench(measured, speeds_file(device))
    work = quick_work()
    jobs = jobs_of(study_named("table1").at(work).items)
    images = sum(Costs().of(job).images for job in all_needed(jobs).values())
    for workers in (1, 2):
        _, out, _ = tombola("plan", "table1", *QUICK, "--device", "cpu", "--workers", workers)
        (line,) = [line for line in out.splitlines() if line.startswith("left to do")]
        # Batches of 256 are reckoned as the next smaller ones measured; a single run has no second slot.
        assert line == f"left to do: 2 epochs, about {images / 0.02 / 3600:,.1f} hours"


def test_all_of_the_paper_at_its_own_scale_cost_what_the_documents_say(tombola: Tombola) -> None:
    code, out, _ = tombola("plan", "--all")
    assert code == 0
    assert out.splitlines()[0] == "46 studies, scale paper"
    assert out.splitlines()[-1] == "total: 932251 epochs shared, 2738938 epochs alone"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table111",), "no study 'table111'; did you mean 'table11'?"),
        ((), "no study was named; name some, such as table11, or give --all"),
        (("table1", "--all"), "--all and 'table1' were given; name studies, or ask for all of them"),
        (("table1", "--scale", "tinny"), "no scale 'tinny'; did you mean 'tiny'?"),
        (("table1", "--epochs", 0), "epochs is 0; it must be a whole number, at least 2 and at most 65534"),
        (
            ("table1", "--configs", "0.9-100"),
            "no configuration '0.9-100'; write momentum/batch size, such as 0.9/100",
        ),
        (
            ("table1", "--configs", "0.5/7"),
            "table1 has none of the configurations 0.5/7; add one of its 0.0/100, 0.0/256, 0.9/100, 0.9/256, "
            "or leave it out",
        ),
        (("table2", "--columns", "5,x"), "columns is '5,x'; give numbers of prunings, such as 5,10"),
        (
            ("table1", "table2", "--scale", "tiny", "--rounds", 10),
            "table2 has a column of 98.85% sparsity, which takes 20 prunings; here R34/TIN has 10 rounds: "
            "give rounds of at least 20, or columns up to 10",
        ),
        (
            ("table1", "table3", "--scale", "tiny", "--epochs", 3),
            "table3 has searches of the paper's 20 and 50 epochs, which come to the same length at 3 epochs: "
            "give epochs of at least 6",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_run(
    tombola: Tombola, refused: Refused, tmp_path: Path, arguments: tuple, words: str
) -> None:
    for command in ("plan", "run"):
        assert refused(tombola(command, *arguments)) == words
    assert not (tmp_path / "store").exists()


# Run, report, claims


def test_what_is_run_is_shown_without_being_told_the_scale_again(tombola: Tombola, tmp_path: Path) -> None:
    arguments = ("run", "table2", "fig1", *QUICK, "--workers", 0)
    code, out, _ = tombola(*arguments)
    assert code == 0
    heading = "2 studies, scale tiny, epochs 2, seeds 1, rounds 5, columns 5, configs 0.0/256"
    assert out.splitlines()[0] == f"{heading}, store {tmp_path / 'store'}"
    assert re.search(r"^table2 +Accuracy of tickets .*: 4 of 4 jobs done$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "tombola report makes a page of what the store has"
    _, again, _ = tombola(*arguments)
    assert re.search(r"^all \d+ jobs were there already; nothing to compute$", again, re.MULTILINE)

    _, listed, _ = tombola("studies")
    assert listed.splitlines()[0].startswith(heading.removeprefix("2 studies, "))
    assert re.search(r"^table2 .*: 4 of 4 jobs done$", listed, re.MULTILINE)
    assert re.search(r"^table6 .*: not at this scale \(table6 has a column of 89\.26%", listed, re.MULTILINE)

    code, out, err = tombola("report", "table2", "fig1", "--out", tmp_path / "page", "--page-only")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"report: {tmp_path / 'page' / 'report.html'}"
    page = (tmp_path / "page" / "report.html").read_text()
    run = next(
        numbers
        for numbers in map(Store(tmp_path / "store").numbers, Store(tmp_path / "store").names())
        if numbers.get("round") == 5 and "accuracy" in numbers
    )
    assert f"{run['accuracy']:.2f}" in page
    assert "proves the machinery, not the science" in page
    assert "studies on stand-ins for its networks and data" in page
    assert "numbers that the paper prints" not in page
    files = ["report.html", "table.csv", "table.json"]
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == files

    # The claims rest on all that the store has, whichever studies are shown; stand-ins decide none of them.
    tables = []
    for arguments in (("--page-only",), ("fig2",)):
        tombola("report", *arguments, "--out", tmp_path / "all")
        tables.append((tmp_path / "all" / "table.csv").read_text())
        assert not (tmp_path / "all" / "claims.csv").exists()
        assert 'id="claims"' not in (tmp_path / "all" / "report.html").read_text()
    assert sorted(tables[0].splitlines()) == sorted(tables[1].splitlines())
    verdicts = [claims_of(table) for table in tables]
    assert verdicts[0] == verdicts[1]
    assert "yes" in verdicts[0]  # some comparison could be made
    listed = (tmp_path / "all" / "report.html").read_text()
    assert 'id="s0_fig2"' in listed
    assert "table2" not in listed[listed.index('id="missing"') :]

    _, out, _ = tombola("studies", "--seeds", 2)  # on top of the scale of the last run
    assert out.startswith("scale tiny, epochs 2, seeds 2, rounds 5, columns 5, configs 0.0/256, store ")

    code, out, err = tombola("claims")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("scale tiny, epochs 2")
    assert out.splitlines()[1].endswith("; it gives no verdict on the paper's claims")
    assert "The paper's own numbers: 36 hold, 12 partly, 15 not computable yet." in " ".join(out.split())
    assert "Ours" not in out
    assert len(re.findall(r"^ +C\d+ .* stand-in", out, re.MULTILINE)) == 63
    assert "missing" not in out
    assert re.search(r"^ +C61 ", out, re.MULTILINE)


def test_all_studies_that_a_scale_fits_are_planned_and_the_others_named(
    tombola: Tombola, refused: Refused
) -> None:
    code, out, _ = tombola("plan", "--all", *QUICK)
    assert code == 0
    words = (
        "left out: table14 has none of the configurations 0.0/256; add one of its 0.3/256, 0.6/256, 0.95/256"
    )
    assert words in out
    kept = next(line for line in out.splitlines() if " studies, scale tiny, " in line)
    assert int(kept.split()[0]) == 46 - out.count("left out: ")
    line = refused(tombola("plan", "--all", "--scale", "tiny", "--configs", "0.5/7"))
    assert line.startswith("table1 has none of the configurations 0.5/7")


def test_a_file_by_the_name_of_a_study_does_not_hide_it(
    tombola: Tombola, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table1").touch()
    code, out, _ = tombola("plan", "table1", *QUICK)
    assert (code, out.splitlines()[0].split(",")[0]) == (0, "1 study")


def test_a_report_of_another_scale_shows_gaps(tombola: Tombola, tmp_path: Path) -> None:
    Store(tmp_path / "store")
    code, out, _ = tombola("report", "table1", "--out", tmp_path / "page", "--page-only")
    assert code == 0
    assert out.splitlines()[0] == f"1 study, scale paper, store {tmp_path / 'store'}"
    assert "0 of 20 numbers are computed\nnothing of this scale is in the store; give the --scale" in out
    page = (tmp_path / "page" / "report.html").read_text()
    assert "not computed yet" in page


def test_looking_makes_no_store(tombola: Tombola, refused: Refused, tmp_path: Path) -> None:
    for command in ("report", "claims"):
        line = refused(tombola(command))
        assert line == f"no store at {tmp_path / 'store'}; name one with --store or TOMBOLA_STORE"
    assert not (tmp_path / "store").exists()


def test_studies_without_their_data_are_skipped_when_asked(
    tombola: Tombola, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = compute.load_data

    def offline(source: object) -> tb.Data:
        if source == "digits":
            raise DataError("the hub cannot be reached")
        return load(source)  # type: ignore[arg-type]

    monkeypatch.setattr(compute, "load_data", offline)
    remembered = tmp_path / "store" / "studies.json"
    arguments = ("run", "table1", "table8", "fig3", *QUICK, "--workers", 0)
    cause = "table8, fig3 cannot be run: the hub cannot be reached"
    assert refused(tombola(*arguments)) == f"{cause} (with --keep-going the others are)"
    without_any = ("run", "table8", "fig3", *QUICK, "--workers", 0)
    for keeping in ((), ("--keep-going",)):
        assert refused(tombola(*without_any, *keeping)) == cause
    assert not remembered.exists()  # a refused run leaves the scale of the last one
    code, out, _ = tombola(*arguments, "--keep-going")
    assert json.loads(remembered.read_text())["scale"] == "tiny"
    assert code == 0
    title = "Forgetting and convergence, convnet on stand-in-tinyimagenet"
    assert f"{'table1':<21}  {title}: 1 of 1 job done" in out
    assert "table8: skipped, the hub cannot be reached" in out


def test_ctrl_c_ends_a_run_with_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    command = [
        sys.executable, "-m", "tombola.cli", "run", "table2", "--scale", "tiny", "--workers", "1",
        "--store", str(tmp_path / "store"),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        # A shell's background jobs ignore the signal, and their children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        while not list(tmp_path.glob("store/jobs/*/*/history.csv")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "tombola: interrupted; the same command continues where it was"
    assert json.loads((tmp_path / "store" / "studies.json").read_text())["scale"] == "tiny"
    leases = [json.loads(path.read_text()) for path in tmp_path.glob("store/work/*/lease*.json")]
    assert all(not Path(f"/proc/{lease['pid']}").exists() for lease in leases if "pid" in lease)
