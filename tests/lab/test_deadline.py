"""Stops in this process: SIGTERM as the system sends it, a time that is over, and what is not begun."""

import asyncio
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import RecipeError, Unfinished
from tombola.lab.chains import imp_jobs
from tombola.lab.deadline import Stop, Stopped, at_work, in_words, stopping, wind_up, wind_up_all
from tombola.lab.driver import Outcome, Progress
from tombola.lab.durations import shortest
from tombola.lab.execute import Settings, execute
from tombola.lab.job import Job
from tombola.lab.stable import first_stable_epochs
from tombola.lab.supervision import LabWatch, deaths
from tombola.training.checkpoint import Checkpoint
from tombola.training.device import hardware_name, resolve_device
from tombola.training.run import Epoch

Same = Callable[..., bool]

RECIPE = tb.Recipe(epochs=3, batch_size=100, momentum=0.9)


def chain(seed: int = 0, recipe: tb.Recipe = RECIPE, network: str = "convnet", rounds: int = 0) -> list[Job]:
    return imp_jobs(network, "digits", recipe, rounds=rounds, seed=seed)


class Terminating(Progress):
    """Sends SIGTERM to this process after the first epoch of a training."""

    def __init__(self) -> None:
        self.finished: list[str] = []

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        if row.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def done(self, job: Job, failed: str | None) -> None:
        self.finished.append(job.name)


# SIGTERM


def test_sigterm_in_a_script_ends_the_call_and_has_its_old_meaning_afterwards(
    tmp_path: Path, same_run: Same
) -> None:
    lab, jobs = tb.Lab(tmp_path / "store"), chain(rounds=1)
    progress = Terminating()
    outcome = lab.run(jobs, progress=progress)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (outcome.failed, outcome.left) == ({}, [job.name for job in jobs])
    assert (outcome.stopped, outcome.not_begun) == ("by SIGTERM", {})
    assert progress.finished == outcome.computed == [jobs[0].needs[0].name]
    outcome.raise_failures()
    with pytest.raises(
        Unfinished, match=rf"^stopped by SIGTERM: job {jobs[0].name[:12]} \(and 1 more\) is left"
    ):
        outcome.raise_left()
    workplace = lab.store.workplace(jobs[0].name)
    assert deaths(workplace) == 0
    assert sorted(path.name for path in workplace.iterdir()) == ["checkpoint"]
    # This process was told to end: the same lab computes nothing more, whoever asks.
    assert (lab.run(jobs).left, lab.run(jobs).stopped) == ([job.name for job in jobs], "by SIGTERM")
    with pytest.raises(Unfinished):
        lab.result(jobs[0])
    # The next one goes on, and ends at the same bits.
    lab = tb.Lab(lab.store.root)
    assert lab.run(jobs).left == []
    plain = tb.Lab(tmp_path / "plain")
    for job in jobs:
        assert same_run(lab.result(job), plain.result(job))


def test_a_result_that_was_asked_for_and_stopped_is_no_failure(lab: tb.Lab) -> None:
    @tb.declare("stopped while asked for")
    def asked(watch: tb.Watch | None = None) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch is not None
        watch.beat()
        return 1

    with pytest.raises(Unfinished, match=r"^stopped by SIGTERM: job .* is left; the same again continues$"):
        lab.result(tb.job(asked))


def test_a_handler_of_the_callers_own_stays(lab: tb.Lab) -> None:
    heard = []

    @tb.declare("goes on")
    def goes_on(watch: tb.Watch | None = None) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch is not None
        watch.beat()
        return 1

    def own(*_: object) -> None:
        heard.append(1)

    signal.signal(signal.SIGTERM, own)
    try:
        assert lab.run(tb.job(goes_on)).left == []
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard == [1]


def test_another_thread_hears_no_signals_and_leaves_them_alone(lab: tb.Lab) -> None:
    seen = []

    @tb.declare("who handles it")
    def who() -> int:
        seen.append(signal.getsignal(signal.SIGTERM))
        return 1

    thread = threading.Thread(target=lambda: seen.append(lab.run(tb.job(who)).left))
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL, []]


def test_an_error_that_a_signal_may_have_caused_is_no_failure(lab: tb.Lab) -> None:
    @tb.declare("its helper was ended")
    def helped() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ChildProcessError("ended by signal 15")

    @tb.declare("fails by its own word")
    def fails() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RecipeError("no such thing")

    outcome = lab.run(tb.job(helped))
    assert (outcome.failed, outcome.left) == ({}, [tb.job(helped).name])
    outcome = tb.Lab(lab.store.root).run(tb.job(fails))
    assert outcome.failed == {tb.job(fails).name: "no such thing"}
    assert (outcome.left, outcome.stopped) == ([], "")


# Times


@pytest.mark.parametrize("seconds", [0, -3.0, math.nan])
def test_a_time_that_is_not_above_0_is_refused(lab: tb.Lab, seconds: float) -> None:
    with pytest.raises(RecipeError, match=rf"^stop_after is {seconds}; it must be more than 0 seconds$"):
        lab.run(chain(), stop_after=seconds)


def test_when_the_time_is_over_whoever_gives_signs_of_life_ends(lab: tb.Lab) -> None:
    @tb.declare("goes on for ever")
    def endless(watch: tb.Watch | None = None) -> int:
        assert watch is not None
        while True:
            watch.beat()

    @tb.declare("needs it")
    def needing(number: int) -> int:
        return number

    job = tb.job(needing, tb.job(endless))
    outcome = lab.run(job, stop_after=0.3)
    assert outcome.left == [tb.job(endless).name, job.name]
    assert (outcome.failed, outcome.stopped) == ({}, "after 0.3s")
    assert list((lab.store.root / "work").glob("*/*")) == []


def test_several_runs_share_a_time_and_none_begins_when_it_is_over(lab: tb.Lab) -> None:
    with stopping(1000) as stop:
        assert lab.run(chain(0), stop_after=stop).left == []
        stop.at = 0.0
        outcome = lab.run(chain(1), stop_after=stop)
    assert (outcome.computed, len(outcome.left), outcome.stopped) == ([], 2, "after 16m40s")


def test_a_training_that_is_stopped_within_an_epoch_keeps_where_it_was(
    lab: tb.Lab, tmp_path: Path, same_run: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = chain()
    stop = Stop()
    plainly, calls = LabWatch.advanced, []

    def advanced(watch: LabWatch, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        calls.append(epoch_end)
        if len(calls) == 5:
            stop.now("here")
        plainly(watch, snapshot, epoch_end=epoch_end)

    with monkeypatch.context() as patch:
        patch.setattr(LabWatch, "advanced", advanced)
        assert lab.run(job, stop_after=stop).left == [job.name]
    assert calls[-1] is False
    assert len(calls) == 5
    left = LabWatch(lab.store.workplace(job.name), None, every=60.0, hung_after=60.0).resume()  # type: ignore[arg-type]
    assert left is not None
    # Five looks, each after one stretch of 512 images in batches of 100, the third at an epoch's end.
    assert (left.description["epoch"], left.description["step"]) == divmod(sum([5, 5, 2, 5, 5]), 12)
    lab.run(job).raise_failures()
    assert same_run(lab.result(job), tb.Lab(tmp_path / "plain").result(job))


def test_a_training_whose_last_epoch_is_over_is_published_however_late(
    lab: tb.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()

    class Late(Progress):
        def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
            if row.epoch == epochs:
                stop.now("late")

    jobs = chain(rounds=1)
    outcome = lab.run(jobs, progress=Late(), stop_after=stop)
    assert outcome.computed[-1] == jobs[0].name
    assert outcome.left == [jobs[1].name]


def test_times_are_told_as_they_are_given() -> None:
    told = {0.25: "0.25s", 8: "8s", 90: "1m30s", 540: "9m", 3600: "1h", 5400: "1h30m", 3661: "1h1m1s"}
    assert {seconds: in_words(seconds) for seconds in told} == told


# What is not begun


def took(lab: tb.Lab, job: Job, **changes: object) -> None:
    """Have a finished job say of itself that it took other seconds, or ran elsewhere."""
    file = lab.store.folder(job.name) / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def trained(lab: tb.Lab) -> tb.Lab:
    """A lab with a chain of a training and a round, each of which took ten minutes."""
    jobs = chain(rounds=1)
    lab.run(jobs).raise_failures()
    for job in jobs:
        took(lab, job, seconds=600.0)
    return lab


def test_no_training_is_begun_whose_like_took_longer_than_is_left(trained: tb.Lab) -> None:
    jobs = chain(seed=5, rounds=1)
    outcome = trained.run(jobs, stop_after=300)
    assert outcome.left == [job.name for job in jobs]
    # The second was not weighed: it needs the first.
    assert (outcome.not_begun, outcome.stopped, outcome.failed) == ({jobs[0].name: 600.0}, "", {})
    assert not trained.store.workplace(jobs[0].name).exists()
    assert trained.run(jobs[0], stop_after=700).left == []


def test_the_shortest_of_its_like_decides(trained: tb.Lab) -> None:
    took(trained, chain(rounds=1)[1], seconds=100.0)
    assert trained.run(chain(seed=5), stop_after=300).left == []


def test_a_training_that_left_a_checkpoint_goes_on(trained: tb.Lab) -> None:
    (job,) = chain(seed=5)
    assert trained.run(job, progress=Terminating()).left == [job.name]
    assert (trained.store.workplace(job.name) / "checkpoint").exists()
    assert tb.Lab(trained.store.root).run(job, stop_after=300).left == []


@pytest.mark.parametrize(
    "other",
    [
        chain(seed=5, recipe=tb.Recipe(epochs=2, batch_size=100, momentum=0.9)),
        imp_jobs("convnet", "digits", RECIPE, rounds=0, rewind=1, seed=5),  # has fewer epochs left to train
        chain(seed=5, network="resnet20", recipe=tb.Recipe(epochs=1, batch_size=600)),
    ],
)
def test_a_training_of_another_kind_says_nothing(trained: tb.Lab, other: list[Job]) -> None:
    assert trained.run(other, stop_after=300).left == []


def test_the_same_training_on_other_hardware_says_nothing(trained: tb.Lab) -> None:
    for job in chain(rounds=1):
        took(trained, job, hardware="abacus")
    assert trained.run(chain(seed=5), stop_after=300).left == []


def test_a_training_that_was_interrupted_counts_with_all_its_epochs(trained: tb.Lab) -> None:
    (job,) = chain()
    took(trained, job, seconds=0.001)  # of its last part only
    rows = trained.result(job).history
    (other,) = chain(seed=5)
    assert trained.run(other.needs).left == []
    like = shortest(trained.store, other.description(), hardware_name(resolve_device("cpu")))
    assert like == pytest.approx(sum(row.seconds for row in rows))


def test_a_training_of_another_network_is_of_another_kind(lab: tb.Lab, trained: tb.Lab) -> None:
    (other,) = chain(seed=5, network="resnet20")
    assert trained.run(other.needs).left == []
    assert shortest(lab.store, other.description(), hardware_name(resolve_device("cpu"))) is None


# Several runs


def test_a_search_that_is_stopped_says_so_and_goes_on_later(lab: tb.Lab) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=400)
    start = tb.job(tb.initialize, "convnet", "digits")
    with pytest.raises(Unfinished, match=r"^stopped by SIGTERM: job .* left; the same again continues"):
        first_stable_epochs(lab, [start], "digits", recipe, points=3, progress=Terminating())
    (found,) = first_stable_epochs(tb.Lab(lab.store.root), [start], "digits", recipe, points=3)
    plain = tb.load_data("digits")
    directly = tb.first_stable_epoch(tb.initialize("convnet", plain), plain, recipe, points=3)
    assert (found.epoch, found.heights) == (directly.epoch, directly.heights)


def test_nothing_left_raises_nothing() -> None:
    Outcome().raise_left()
    Outcome(left=["a" * 64]).raise_failures()
    with pytest.raises(Unfinished, match=r"^no time was left: job aaaaaaaaaaaa is left; the same again"):
        Outcome(left=["a" * 64]).raise_left()


# In a worker


def test_a_worker_is_told_of_one_run_and_says_what_is_under_way() -> None:
    with at_work("one", None) as stop, at_work("two", None) as other:
        assert asyncio.run(wind_up("one", 0.0)) == 1
        assert (stop.is_due(), stop.closes, other.is_due()) == (True, False, False)
        assert asyncio.run(wind_up_all(0.0)) == 2
        assert (stop.closes, other.is_due(), other.closes) == (False, True, True)
    assert asyncio.run(wind_up_all(60.0)) == 0
    with at_work("one", None) as late, pytest.raises(Stopped):  # a job that comes after it was told
        late.check()


def test_a_worker_waits_until_its_jobs_have_ended() -> None:
    inside, told = threading.Event(), []

    def work() -> None:
        with at_work("three", None) as stop:
            inside.set()
            stop.wait(600.0)
            told.append(stop.is_due())

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    assert asyncio.run(wind_up("three", 600.0)) == 0
    thread.join()
    assert told == [True]


def test_a_time_travels_in_the_settings(lab: tb.Lab) -> None:
    @tb.declare("any")
    def anything() -> int:
        return 1

    description = tb.job(anything).description()
    with pytest.raises(Stopped):  # a worker that hears nothing from its driver stops all the same
        execute(lab.store, description, Settings(stop_at=time.time()))
    assert execute(lab.store, description, Settings(stop_at=time.time() + 3600))
