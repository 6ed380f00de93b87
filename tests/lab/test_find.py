"""Finding jobs again, what is unfinished, how two differ, and taking jobs away."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tombola as tb
from tombola.errors import JobError, StoreError
from tombola.lab import lease as leases
from tombola.lab import removal
from tombola.lab.chains import imp_jobs
from tombola.lab.conditions import parse_condition
from tombola.lab.details import _unit, difference, sparkline
from tombola.lab.gc import gc
from tombola.lab.listing import listing
from tombola.lab.removal import removals, remove_job
from tombola.lab.store import Store
from tombola.lab.unfinished import unfinished_jobs
from tombola.lab.verify import verify
from tombola.measures.learning import learning
from tombola.registry import function_names


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, dict[float, list[tb.Job]]]:
    """A lab with two chains of two rounds, by momentum, and a barrier along the second."""
    lab = tb.Lab(tmp_path_factory.mktemp("find") / "store")
    chains = {
        momentum: imp_jobs(
            "convnet",
            "digits",
            tb.Recipe(epochs=2, batch_size=400, momentum=momentum),
            rounds=1,
            fraction=0.5,
        )
        for momentum in (0.0, 0.9)
    }
    line = tb.job(tb.barrier, *chains[0.9], "digits", points=3)
    lab.run([*chains[0.0], *chains[0.9], line]).raise_failures()
    return lab, {**chains, -1.0: [line]}


def names(store: Store, *where: str, **options: object) -> set[str]:
    return {row.name for row in listing(store, where=where, **options).finished}  # type: ignore[arg-type]


def test_a_job_is_found_by_what_it_and_those_behind_it_are(
    filled: tuple[tb.Lab, dict[float, list[tb.Job]]],
) -> None:
    lab, chains = filled
    fast, slow, line = chains[0.9], chains[0.0], chains[-1.0][0]
    # Momentum 0.9 is the default, which no description has.
    assert names(lab.store, "momentum=0.9", "kind=run") == {job.name for job in fast}
    assert names(lab.store, "momentum=0.9", "function=barrier") == {line.name}
    assert names(lab.store, "momentum<0.5", "sparsity>=50", "kind=run") == {slow[1].name}
    assert names(lab.store, "sparsity!=0", "kind=run") == {fast[1].name, slow[1].name}
    assert names(lab.store, "network=CONVNET", "dataset=digits", "batch-size=400", "kind=run") == {
        job.name for job in (*fast, *slow)
    }
    assert names(lab.store, "momentum=0.4") == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentum", "'momentum' is no condition; say a field, one of =, !=, <, <=, >, >=, and a value"),
        ("momentum=", "is no condition"),
        ("momentum==0.9", "is no condition"),
        ("sparsity=>80", "is no condition"),
        ("momenta=0.9", "no field 'momenta'; did you mean 'momentum'?"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(
    filled: tuple[tb.Lab, dict[float, list[tb.Job]]], text: str, message: str
) -> None:
    with pytest.raises(JobError) as refused:
        listing(filled[0].store, where=[text])
    assert message in str(refused.value)


def test_words_are_equal_or_not_and_have_no_order() -> None:
    assert parse_condition("network=Resnet18").holds("resnet18")
    assert not parse_condition("network<z").holds("resnet18")
    assert parse_condition("pretrained=true").holds(True)
    assert not parse_condition("pretrained=1").holds(True)
    assert parse_condition("target!=mnist").holds(None)
    assert not parse_condition("target=mnist").holds(None)
    assert parse_condition("sparsity=89.26").holds(89.2625)
    assert not parse_condition("seed=1001").holds(1000)
    assert parse_condition("seed!=1001").holds(1000)
    assert parse_condition("batch_size=256.0").holds(256)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a command, where nothing is declared outside tombola; here other tests may have."""
    monkeypatch.setattr("tombola.lab.job_fields.declared_here", dict)


def test_what_jobs_measured_is_read_once_and_needs_no_pytorch_then(
    filled: tuple[tb.Lab, dict[float, list[tb.Job]]], alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, chains = filled
    slow = {job.name for job in chains[0.0]}
    assert names(lab.store, "momentum=0", "kind=run") == slow
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_json_object", lambda *_: pytest.fail("a job is read again"))
        assert names(lab.store, "momentum=0", "kind=run") == slow
    listed = (
        "import sys; from tombola.lab.listing import listing; from tombola.lab.store import Store; "
        "found = listing(Store(sys.argv[1]), where=['momentum=0', 'kind=run']).finished; "
        "print(len(found), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", listed, str(lab.store.root)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 False\n"


def test_a_change_of_a_job_changes_what_those_that_rest_on_it_measured(
    lab: tb.Lab, quick: tb.Recipe, alone: None, tmp_path: Path
) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    line = tb.job(
        tb.barrier, run, tb.job(tb.train, run.parents[0], "digits", quick, noise=7), "digits", points=3
    )
    lab.run([run, line]).raise_failures()
    on_convnet = names(lab.store, "network=convnet")
    assert on_convnet == {job.name for job in (run, line, *run.parents, *line.parents)}
    # Without the first weights nothing says of what network all else is.
    start = lab.store.folder(run.parents[0].name)
    start.rename(tmp_path / "aside")
    assert names(lab.store, "network=convnet") == set()
    (tmp_path / "aside").rename(start)
    assert names(lab.store, "network=convnet") == on_convnet


def test_what_an_own_function_gives_is_kept_in_no_index(lab: tb.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    @tb.declare("own-start")
    def own_start(seed: int) -> tb.Ticket:
        return tb.initialize("convnet", "digits", seed=seed)

    job = tb.job(own_start, 1)
    lab.run(job).raise_failures()
    with monkeypatch.context() as patch:
        patch.setattr("tombola.lab.job_fields.declared_here", dict)
        names(lab.store, "kind=measure")
    assert names(lab.store, "kind=ticket") == {job.name}


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop(),
        lambda row: row.__setitem__(1, str(row[1])),
        lambda row: row.__setitem__(2, 7),
        lambda row: row[3].update(momentum=[0.9]),
        lambda row: row.__setitem__(3, [1]),
    ],
)
def test_an_index_of_fields_of_another_form_is_made_again(
    filled: tuple[tb.Lab, dict[float, list[tb.Job]]], alone: None, change: Callable[[list[Any]], object]
) -> None:
    lab, _ = filled
    index = lab.store.root / ".fields.json"
    before = names(lab.store, "momentum=0.9")
    content = json.loads(index.read_text())
    change(content["rows"][0])
    index.write_text(json.dumps(content))
    assert names(lab.store, "momentum=0.9") == before


def test_the_last_jobs_of_an_order(filled: tuple[tb.Lab, dict[float, list[tb.Job]]]) -> None:
    lab, _ = filled
    everything = listing(lab.store, sort="seconds").finished
    assert [row.seconds for row in everything] == sorted(row.seconds for row in everything)
    assert list(listing(lab.store, sort="seconds", last=2).finished) == list(everything[-2:])
    with pytest.raises(JobError, match="last is 0; ask for at least one job"):
        listing(lab.store, last=0)


def test_a_listing_is_an_object_of_plain_values(filled: tuple[tb.Lab, dict[float, list[tb.Job]]]) -> None:
    lab, chains = filled
    read = json.loads(json.dumps(listing(lab.store, "train").to_json()))
    assert read["store"] == str(lab.store.root)
    assert {job["name"] for job in read["jobs"]} == {job.name for job in (*chains[0.0], *chains[0.9])}
    assert {*read["jobs"][0]} == {"state", "name", "function", "arguments", "result", "started", "seconds"}
    assert (read["unfinished"], read["damaged"]) == ([], [])


def test_what_runs_failed_or_was_interrupted_is_listed(lab: tb.Lab) -> None:
    running, failed, stopped = (f"{digit}" * 64 for digit in "abc")
    lease = leases.acquire(lab.store.workplace(running))
    assert lease is not None
    for name, file, text in (
        (failed, "error.txt", "Traceback\n  line\nValueError: no \x1b[31mred\n"),
        (stopped, "checkpoint.0", ""),
    ):
        workplace = lab.store.workplace(name)
        workplace.mkdir(parents=True)
        (workplace / file).write_text(text)
    try:
        found = {job.name: job for job in unfinished_jobs(lab.store)}
    finally:
        lease.release()
    assert {name: job.state for name, job in found.items()} == {
        running: "running",
        failed: "failed",
        stopped: "interrupted",
    }
    assert found[running].detail.startswith("process ")
    assert found[failed].detail.startswith("ValueError: no ")
    assert "\x1b" not in found[failed].detail
    assert found[stopped].detail == "goes on from its checkpoint"


def test_a_run_whose_weights_come_back_is_listed_as_running(lab: tb.Lab, quick: tb.Recipe) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    lab.run(run).raise_failures()
    workplace = lab.store.workplace(run.name)
    lease = leases.acquire(workplace)
    assert lease is not None
    report = {"function": "train", "epoch": 3, "epochs": 6.4, "left": 90}
    (workplace / "under-way.json").write_text(json.dumps(report))
    try:
        assert list(unfinished_jobs(lab.store)) == []  # another process was faster, and this one ends
        lab.store.thin(run.name)
        (job,) = unfinished_jobs(lab.store)
    finally:
        lease.release()
    assert (job.state, job.function) == ("running", "train")
    assert job.detail.startswith("epoch 3 of 6.4, left 0:01:30, process ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("no data set 'cifar'\n", "no data set 'cifar'"),
        (
            "Traceback (most recent call last):\n  File x\nKeyError: 3\n\nDuring handling of it:\n\n"
            "Traceback (most recent call last):\n  File y\nRuntimeError: CUDA error\nCompile with X\n",
            "RuntimeError: CUDA error",
        ),
        ("Traceback", "Traceback"),
    ],
)
def test_of_a_failure_the_error_itself_is_told(lab: tb.Lab, text: str, error: str) -> None:
    workplace = lab.store.workplace("a" * 64)
    workplace.mkdir(parents=True)
    (workplace / "error.txt").write_text(text)
    assert [job.detail for job in unfinished_jobs(lab.store)] == [error]


def test_a_job_that_another_process_removes_meanwhile_is_left_out(
    lab: tb.Lab, quick: tb.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    lab.run(run).raise_failures()
    (start,) = run.parents
    read = Store.description

    def removing(store: Store, name: str) -> dict[str, object]:
        if name == run.name and store.has(name):
            remove_job(store, name)
        return read(store, name)

    monkeypatch.setattr(Store, "description", removing)
    assert names(lab.store) == {start.name}
    assert names(lab.store, "network=convnet") == {start.name}


def test_two_jobs_differ_in_what_they_measured_and_in_what_came_out(
    filled: tuple[tb.Lab, dict[float, list[tb.Job]]],
) -> None:
    lab, chains = filled
    slow, fast = chains[0.0][0], chains[0.9][0]
    parts = difference(lab.store, slow.name[:10], fast.name).parts
    assert parts["measured"] == {"momentum": (0.0, 0.9)}
    assert parts["arguments"] == {"recipe.momentum": (0.0, None)}
    numbers = lab.numbers(slow), lab.numbers(fast)
    assert parts["numbers"]["accuracy"] == tuple(each["accuracy"] for each in numbers)
    assert not {"started", "pid", "sums"} & {*parts["provenance"]}
    assert not any(difference(lab.store, slow.name, slow.name).parts.values())


def test_numbers_that_differ_have_their_units(lab: tb.Lab, quick: tb.Recipe) -> None:
    runs = imp_jobs("convnet", "digits", quick, rounds=1)
    shares = [tb.job(learning, run) for run in runs]
    tickets = [tb.job(tb.prune, runs[0], fraction=fraction) for fraction in (0.2, 0.9)]
    before = [tb.job(tb.untrained, ticket, "digits") for ticket in tickets]
    lab.run([*shares, *before]).raise_failures()

    def shown(pair: Sequence[tb.Job]) -> str:
        text = io.StringIO()
        Console(file=text, width=200).print(difference(lab.store, pair[0].name, pair[1].name))
        return text.getvalue()

    number = r"[\d.]+"
    for pair, key, unit in (
        (before, "value.loss", " nats"),
        (before, "sparsity", "%"),
        (runs, "best_accuracy", "%"),
        (shares, "value.forgetting.unforgettable", ""),  # a share from 0 to 1
    ):
        assert re.search(rf"^  {key} +{number}{unit} +{number}{unit} *$", shown(pair), re.MULTILINE), key


@pytest.mark.parametrize(
    ("function", "key", "unit"),
    [
        ("transfer-training", "accuracy", "%"),
        ("transfer", "value.frozen_loss", " nats"),
        ("curve", "value.errors", "%"),
        ("curve", "value.train_losses", " nats"),
        ("axial-projection", "value.from_first.errors", "%"),
        ("axial-projection", "value.removed", ""),
        ("probe", "value.accuracy", "%"),
        ("hessian-trace", "value.standard_error", ""),
        ("of-somebody-else", "value.loss", ""),  # it may be no cross-entropy
    ],
)
def test_the_unit_of_a_number_is_told_by_how_its_name_ends(function: str, key: str, unit: str) -> None:
    assert function == "of-somebody-else" or function in function_names()
    assert _unit({function}, key) == unit


def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0]) == "▁▂▃█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([-1.5e308, 0.0, 1.5e308])[::2] == "▁█"  # a stranger's history may say anything finite
    long = sparkline(range(1000), width=10)  # type: ignore[arg-type]
    assert (len(long), long[-1], sorted(long)) == (10, "█", list(long))


def test_what_would_be_orphaned_is_told_and_nothing_else_goes(lab: tb.Lab, quick: tb.Recipe) -> None:
    chain = imp_jobs("convnet", "digits", quick, rounds=1)
    lab.run(chain).raise_failures()
    first, ticket, second = chain[0], chain[1].parents[0], chain[1]
    chosen, orphans = removals(lab.store, [first.name[:10]])
    assert [removal.name for removal in chosen] == [first.name]
    assert orphans == [ticket.name, second.name]
    assert chosen[0].size == sum(file.stat().st_size for file in lab.store.folder(first.name).iterdir())
    assert lab.store.has(first.name)  # only told

    remove_job(lab.store, first.name)
    assert not lab.store.has(first.name)
    assert lab.numbers(second)
    assert {damage.place.rpartition("/")[2] for damage in verify(lab.store)} == {ticket.name}
    assert not list((lab.store.root / "work").iterdir())
    # What was made from it stands, so nothing is computed for it; it alone is computed again, to the bit.
    assert lab.run(second).computed == []
    again = lab.run(first)
    assert again.computed == [first.name]

    everything, orphans = removals(lab.store, [first.name], dependents=True)
    # What was made last goes first.
    assert [removal.name for removal in everything] == [second.name, ticket.name, first.name]
    assert orphans == []
    with pytest.raises(JobError, match="no job is named"):
        removals(lab.store, [])


@pytest.mark.parametrize("linked", ["jobs", "work", "jobs/{shelf}", "jobs/{shelf}/{name}"])
def test_nothing_is_removed_behind_a_link(linked: str, lab: tb.Lab, quick: tb.Recipe, tmp_path: Path) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    lab.run(run).raise_failures()
    place = lab.store.root / linked.format(shelf=run.name[:2], name=run.name)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    for remove in (lambda: removals(lab.store, [run.name]), lambda: remove_job(lab.store, run.name)):
        with pytest.raises(StoreError, match="is a link, and nothing is removed beyond the store"):
            remove()
    assert lab.numbers(run)


def test_a_job_under_way_is_not_removed(lab: tb.Lab, quick: tb.Recipe) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    lab.run(run).raise_failures()
    lease = leases.acquire(lab.store.workplace(run.name))
    assert lease is not None
    with pytest.raises(JobError, match=f"is working on job {run.name[:12]}; stop it first"):
        remove_job(lab.store, run.name)
    lease.release()
    assert lab.store.has(run.name)


def test_a_removal_that_is_cut_off_has_removed_the_job_whole(
    lab: tb.Lab, quick: tb.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    lab.run(run).raise_failures()

    class PowerLoss(BaseException):
        pass

    def lost(path: Path, **options: object) -> None:
        if path.name.startswith(".removed."):
            raise PowerLoss

    with monkeypatch.context() as patch:
        patch.setattr(removal.disk, "remove_tree", lost)
        with pytest.raises(PowerLoss):
            remove_job(lab.store, run.name)
    assert not lab.store.has(run.name)
    assert not list(verify(lab.store))
    left = [item.place for item in gc(lab.store, grace=-1.0, dry_run=False) if "removed" in item.place]
    assert len(left) == 1
    assert not (lab.store.root / left[0]).exists()
