"""Small stores that say a lot: every command reads them in a time that goes with their size."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import forked
import pytest

import tombola as tb
from tombola.data.subsets import subset
from tombola.errors import JobError, StoreError
from tombola.lab.description import check_description, name_of
from tombola.lab.evaluate import evaluate
from tombola.lab.finished import finished_job
from tombola.lab.lab import Lab
from tombola.lab.starts import _not_repeatable, maker_of_start
from tombola.lab.store import Store

Within = Callable[[int], AbstractContextManager[None]]

_ENOUGH = 57_000
"""Bytes of all descriptions of a store."""


def published(store: Store, function: str, arguments: dict[str, Any]) -> str:
    """A finished job that somebody wrote by hand, with true names and checksums; its name."""
    description = {"function": function, "version": 1, "arguments": arguments}
    name = name_of(description)
    folder = store.folder(name)
    folder.mkdir(parents=True)
    numbers = b'{"value": 1.0}'
    provenance = {
        "started": "2026-01-01T00:00:00", "seconds": 1.0, "hardware": "cpu", "torch": "2.9", "data": {},
        "sums": {"result.json": hashlib.sha256(numbers).hexdigest()},
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps({"name": name, **description}))
    (folder / "result.json").write_bytes(numbers)
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return name


def doubled(store: Store) -> str:
    """Generations of two jobs, each of which names both of the one before: 2^80 paths lead to the first."""
    names, size, seed = [published(store, "initialize", {"network": "convnet"})], 0, 0
    while size < _ENOUGH:
        seed += 1
        both = [{"job": name} for name in names]
        names = [
            published(
                store, "initialize", {"first": both[0], "second": [both[-1], both[0]], "seed": sign * seed}
            )
            for sign in (1, -1)
        ]
        size += sum((store.folder(name) / "job.json").stat().st_size for name in names)
    return names[0]


def widened(store: Store) -> str:
    """Five generations that name the one before them 140 times: 140^5 paths."""
    name = published(store, "initialize", {"network": "convnet"})
    for _ in range(5):
        name = published(store, "initialize", {f"argument{n}": {"job": name} for n in range(140)})
    return name


def described(store: Store) -> str:
    """Calls within calls, all described in full: one job, whose text is as long as a store."""
    own: dict[str, Any] = {"function": "permute", "version": 1, "arguments": {"ticket": {"data": "digits"}}}
    size = 0
    while size < _ENOUGH:
        reference = {"job": name_of(own), "call": own}
        several = [reference] * (2 if size < _ENOUGH / 4 else 1)
        own = {"function": "permute", "version": 1, "arguments": {"ticket": several, "seed": 10**100}}
        size = len(json.dumps(own))
    return published(store, "train", {"ticket": {"job": name_of(own), "call": own}})


COMMANDS = """
import contextlib, faulthandler, io, json, sys
import tombola.cli

for command in json.loads(sys.argv[1]):
    sys.argv[:] = ["tombola", *command]
    faulthandler.dump_traceback_later(30, exit=True)
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text):
        try:
            tombola.cli.main()
        except SystemExit as end:
            code = end.code or 0
    faulthandler.cancel_dump_traceback_later()
    assert code in (0, 2) and len(text.getvalue()) < 1_000_000, (command, code)
    if command[0] == "show":
        print(text.getvalue())
print("done")
"""


@pytest.mark.parametrize("made", [doubled, pytest.param(widened, marks=pytest.mark.long), described])
def test_every_command_ends_soon_on_a_store_of_57_kb(
    made: Callable[[Store], str], store: Store, tmp_path: Path
) -> None:
    name = made(store)
    commands = [
        ["show", name], ["ls", "--tickets"], ["verify"], ["gc", "--keep", "tickets"],
        ["export", "all", str(tmp_path / "results")],
        ["export", "all", str(tmp_path / "tickets"), "--tickets", "all"],
        ["table"], ["measure", "untrained", name, "--data", "digits"],
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(Path(tb.__file__).parents[1]), "TOMBOLA_STORE": str(store.root), "COLUMNS": "100",
    }  # fmt: skip
    done = forked.run("-c", COMMANDS, json.dumps(commands), env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("done\n")
    if made is widened:
        assert done.stdout.count("\n") < 700
        assert "not shown" in done.stdout


def test_a_job_of_the_store_is_made_with_each_of_those_behind_it_once(store: Store, within: Within) -> None:
    name = doubled(store)
    passed = published(store, "train", {"ticket": {"job": name}})
    with within(30):
        job = maker_of_start(store, finished_job(store, passed))
        assert job is not None
        assert job.name == name


def test_whether_a_job_can_be_repeated_is_asked_of_each_behind_it_once(store: Store, within: Within) -> None:
    with within(30):
        assert _not_repeatable(store, doubled(store)) is None


def test_a_chain_of_thousands_is_no_recursion(store: Store) -> None:
    name = published(store, "initialize", {"network": "convnet"})
    for number in range(1500):
        name = published(store, "initialize", {"start": {"job": name}, "seed": number})
    job = maker_of_start(store, finished_job(store, published(store, "train", {"ticket": {"job": name}})))
    assert job is not None
    assert job.name == name


def test_a_job_with_a_call_in_full_has_the_name_that_it_has_in_the_store(lab: Lab) -> None:
    start = tb.job(tb.initialize, "convnet", tb.job(subset, "digits", share=0.5))
    lab.run(start).raise_failures()
    assert finished_job(lab.store, start.name).name == start.name
    trained = tb.job(tb.train, start, "digits", tb.Recipe(epochs=1, batch_size=600))
    name = published(lab.store, trained.declaration.name, trained.description()["arguments"])
    maker = maker_of_start(lab.store, finished_job(lab.store, name))
    assert maker is not None
    assert maker.name == start.name


def test_a_call_in_full_that_is_named_often_is_computed_once(store: Store) -> None:
    calls = []

    @tb.declare("counting", stored=False)
    def counting(number: int) -> int:
        calls.append(number)
        return number

    @tb.declare("adding")
    def adding(numbers: list[int], again: int) -> int:
        return sum(numbers) + again

    one, two = tb.job(counting, 1), tb.job(counting, 2)
    job = tb.job(adding, [one, two, one, one], one)
    assert evaluate(store, job.description(), {}) == 6
    assert sorted(calls) == [1, 2]


def test_a_description_names_no_more_than_so_many_results() -> None:
    reference = {"job": "a" * 64}
    own = {"function": "train", "version": 1, "arguments": {"of": [reference] * 10_000}}
    check_description(own)
    within = {"function": "train", "version": 1, "arguments": {"of": {"job": "b" * 64, "call": own}}}
    with pytest.raises(ValueError, match=r"it names more than 10,000 results and data sets"):
        check_description(within)


def test_a_call_that_names_too_many_is_no_job() -> None:
    @tb.declare("twice", stored=False)
    def twice(first: int, second: int) -> int:
        return first + second

    def nested() -> None:
        job = tb.job(twice, 1, 1)
        for _ in range(60):
            job = tb.job(twice, job, job)

    with pytest.raises(JobError, match=r"twice names [\d,]+ results and data sets, .* stored=True"):
        nested()


def test_names_of_data_and_of_the_callers_own_count_as_well(store: Store) -> None:
    many = [{"value": "a" * 64, "type": "Run"}, {"data": "digits"}] * 6_000
    name = published(store, "initialize", {"start": many})
    with pytest.raises(StoreError, match=r"job\.json: it names more than 10,000"):
        store.description(name)
