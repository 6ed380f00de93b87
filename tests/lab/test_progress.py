import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import tombola as tb
from tombola.lab import progress as module
from tombola.lab import training_progress
from tombola.lab.progress import Bar
from tombola.lab.store import Store
from tombola.lab.training_progress import TrainingProgress, TrainingReport, trainings_in_progress


@pytest.fixture
def job() -> tb.Job:
    return tb.job(tb.initialize, "convnet", "digits")


def console(terminal: bool) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(force_terminal=terminal, file=text, width=100, color_system=None), text


def plain(text: StringIO) -> str:
    """What is written, without the codes that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue())


def test_a_terminal_shows_a_bar_that_grows(job: tb.Job) -> None:
    screen, text = console(terminal=True)
    with Bar(screen) as bar:
        bar.begin(3, 4)
        for _ in range(3):
            bar.done(job, None)
        bar._bar.refresh()
    assert "3 jobs were there already, 4 to compute" in plain(text)
    assert re.search(r"initialize .*3/4 +jobs, elapsed 0:00:0\d +left", plain(text))


def test_without_a_terminal_there_are_lines_and_no_bar(job: tb.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET", 0.0)
    screen, text = console(terminal=False)
    with Bar(screen) as bar:
        bar.begin(0, 2)
        bar.done(job, None)
        bar.done(job, None)
    assert text.getvalue() == "2 jobs to compute\n1 of 2 jobs done\n2 of 2 jobs done\n"


def test_lines_do_not_follow_each_other_closely(job: tb.Job) -> None:
    screen, text = console(terminal=False)
    with Bar(screen) as bar:
        bar.begin(0, 100)
        for _ in range(100):
            bar.done(job, None)
    assert text.getvalue() == "100 jobs to compute\n100 of 100 jobs done\n"


def test_nothing_to_compute_is_said() -> None:
    screen, text = console(terminal=False)
    with Bar(screen) as bar:
        bar.begin(7, 0)
    assert text.getvalue() == "all 7 jobs were there already; nothing to compute\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_is_one_line_with_its_cause_as_it_is(job: tb.Job, terminal: bool) -> None:
    screen, text = console(terminal)
    cause = "no weight ['14.wieght'] in [/bold] " + "x" * 90
    with Bar(screen) as bar:
        bar.begin(0, 1)
        bar.done(job, cause)
    assert f"job {job.name[:12]} (initialize) failed: {cause}\n" in plain(text)


def test_more_jobs_of_the_same_run_are_added_to_the_bar(job: tb.Job) -> None:
    screen, text = console(terminal=True)
    with Bar(screen) as bar:
        bar.begin(0, 2)
        bar.done(job, None)
        bar.done(job, None)
        bar.begin(2, 3)
        bar.done(job, None)
        bar._bar.refresh()
    assert "3/5 " in plain(text)
    assert plain(text).count("jobs to compute") == 1


def test_trainings_under_way_are_shown_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    screen, text = console(terminal=True)
    clock = iter([0.0, 10.0, 10.5, 13.0])
    monkeypatch.setattr(training_progress.time, "monotonic", lambda: next(clock))
    for name in ("abcdef012345678", "123456789abcdef"):
        store.workplace(name).mkdir()
    report = TrainingReport(store.workplace("abcdef012345678"), "train")
    report.reach(6, 20)  # at 10 s
    assert trainings_in_progress(store) == {"abcdef012345678": TrainingProgress("train", 6, 20)}
    report.reach(7, 20)  # half a second later: too soon to be told
    report.reach(7.5, 20, 1000)  # 2 s an epoch of 1,000 images, 12.5 to go
    progress = TrainingProgress("train", 7.5, 20, 25.0, 500.0)
    assert trainings_in_progress(store) == {"abcdef012345678": progress}
    monkeypatch.undo()
    with Bar(screen, store) as bar:
        bar._look()
        bar._bar.refresh()
    assert "train abcdef012345  epoch 7.50 of 20, left 0:00:25" in plain(text)
