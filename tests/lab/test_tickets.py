"""Tickets in an export: a chain goes on in another store without any weights, to the same bits."""

import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import forked
import pytest
import torch

import tombola as tb
from tombola import disk, files
from tombola.errors import JobError, StoreError
from tombola.lab import objects
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs, ticket_jobs
from tombola.lab.description import parents
from tombola.lab.export import export, export_tickets
from tombola.lab.finished import finished_job, stored_ticket
from tombola.lab.gc import gc
from tombola.lab.job import Job, all_needed
from tombola.lab.results import Packed, pack
from tombola.lab.starts import StartMakers, maker_of_start
from tombola.lab.store import Store
from tombola.lab.tickets import Choice, chosen_tickets, is_ticket
from tombola.lab.verify import verify
from tombola.measures.untrained import untrained
from tombola.networks import initialization, network

Same = Callable[..., bool]

RECIPE = tb.Recipe(epochs=3, batch_size=200, momentum=0.9)
# A chain of three rounds, whose driver tells of every epoch of its trainings and waits to be killed in one.
DRIVER = """
import sys, time
import tombola as tb
from tombola.lab.chains import imp_jobs
from tombola.lab.driver import Progress

class Tell(Progress):
    def epoch(self, job, row, epochs):
        print(job.name, row.epoch, flush=True)
        if job.name == sys.argv[3] and row.epoch == 2:
            time.sleep(600)

recipe = tb.Recipe(epochs=3, batch_size=200, momentum=0.9)
chain = imp_jobs("convnet", "digits", recipe, rounds=3, fraction=0.5, rewind=int(sys.argv[2]))
tb.Lab(sys.argv[1]).run(chain, progress=Tell())
"""


def chain_of(rewind: int = 0, rounds: int = 3) -> list[Job]:
    return imp_jobs("convnet", "digits", RECIPE, rounds=rounds, fraction=0.5, rewind=rewind)


def functions(jobs: list[Job], names: list[str]) -> list[str]:
    behind = all_needed(jobs)
    return [behind[name].declaration.name for name in names]


@pytest.fixture(scope="module", params=[0, 1], ids=["initialised", "rewound"])
def killed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tb.Lab, list[Job], tb.Lab]:
    """A store whose driver was killed in the training of round 2, the chain, and an uninterrupted one."""
    place, chain = tmp_path_factory.mktemp("killed"), chain_of(request.param)
    (place / "driver.py").write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    command = [place / "driver.py", place / "store", request.param, chain[2].name]
    told = place / "told"
    driver = forked.start(*command, env=environment, output=told)
    while not (told.exists() and f"{chain[2].name} 2" in told.read_text().splitlines()):
        assert driver.poll() is None, told.read_text()
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    lab, undisturbed = tb.Lab(place / "store"), tb.Lab(place / "undisturbed")
    assert [lab.has(job) for job in chain] == [True, True, False, False]
    undisturbed.run(chain).raise_failures()
    return lab, chain, undisturbed


# Going on elsewhere


@pytest.mark.parametrize("which", ["all", "newest"])
def test_a_killed_chain_goes_on_in_an_empty_store_to_the_same_bits(
    killed: tuple[tb.Lab, list[Job], tb.Lab], which: str, tmp_path: Path, same_run: Same
) -> None:
    lab, chain, undisturbed = killed
    exported = export_tickets(lab.store, None, tmp_path / "tickets.zip", which)
    assert exported.tickets == {"all": 2, "newest": 1}[which]
    assert exported.carried == {}
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "tickets.zip")
    assert list(verify(other.store)) == []
    assert not list((other.store.root / "objects").iterdir())
    outcome = other.run(chain)
    outcome.raise_failures()
    # The start comes again from its seed; no training that was finished is done once more.
    beginning = ["initialize", "pretrain"] if chain[0].parents[0].declaration.name == "pretrain" else [
        "initialize"
    ]  # fmt: skip
    assert functions(chain, outcome.computed) == [*beginning, "train", "train"]
    assert [other.store.is_thin(job.name) for job in chain] == [True, True, False, False]
    for job in chain:
        assert other.numbers(job) == undisturbed.numbers(job)
        assert other.forgetting(job).events.tolist() == undisturbed.forgetting(job).events.tolist()
    for job in chain[2:]:
        assert same_run(other.result(job), undisturbed.result(job))
        assert other.result(job).ticket.fingerprint == undisturbed.result(job).ticket.fingerprint
    assert list(verify(other.store)) == []


def test_a_chain_with_learning_rate_rewinding_goes_on_elsewhere_from_its_newest_ticket(
    tmp_path: Path, same_run: Same, digits: tb.Data
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=400)
    options = {"rounds": 2, "fraction": 0.5, "rewinding": "learning_rate"}
    chain = imp_jobs("convnet", "digits", recipe, rewind=1, **options)
    lab, other = tb.Lab(tmp_path / "lab"), tb.Lab(tmp_path / "other")
    lab.run(chain[2].arguments["ticket"]).raise_failures()
    gc(lab.store, "tickets", dry_run=False, grace=0)
    exported = export_tickets(lab.store, None, tmp_path / "tickets.zip", "newest")
    assert (exported.tickets, exported.carried) == (1, {})
    import_(other.store, tmp_path / "tickets.zip")
    assert list(verify(other.store)) == []
    outcome = other.run(chain[2])
    assert functions(chain, outcome.computed) == ["initialize", "pretrain", "train"]
    start = tb.pretrain(tb.initialize("convnet", digits), digits, recipe, epochs=1)
    *_, direct = tb.imp(start, digits, recipe, **options)
    assert same_run(other.result(chain[2]), direct)


@pytest.mark.usefixtures("forked_workers")
def test_workers_wait_for_the_start_that_is_made_again(
    killed: tuple[tb.Lab, list[Job], tb.Lab], tmp_path: Path, same_run: Same
) -> None:
    lab, chain, undisturbed = killed
    export_tickets(lab.store, None, tmp_path / "tickets.zip", "newest")
    other = tb.Lab(tmp_path / "other", workers=2)
    import_(other.store, tmp_path / "tickets.zip")
    other.run(chain).raise_failures()
    assert same_run(other.result(chain[3]), undisturbed.result(chain[3]))


def test_a_ticket_by_its_name_is_measured_elsewhere(
    killed: tuple[tb.Lab, list[Job], tb.Lab], tmp_path: Path
) -> None:
    lab, chain, undisturbed = killed
    export_tickets(lab.store, None, tmp_path / "tickets.zip")
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "tickets.zip")
    ticket = finished_job(other.store, chain[2].parents[0].name[:16])
    expected = untrained(undisturbed.result(chain[2]).ticket, tb.load_data("digits"))
    assert other.result(tb.job(untrained, ticket, "digits")) == expected
    assert other.store.is_thin(chain[1].name)
    assert other.result(ticket).fingerprint == undisturbed.result(chain[2]).ticket.fingerprint


def test_an_export_of_tickets_has_no_weights_and_every_number(
    killed: tuple[tb.Lab, list[Job], tb.Lab], tmp_path: Path
) -> None:
    lab, chain, _ = killed
    export_tickets(lab.store, None, tmp_path / "tickets.zip")
    store = Store(tmp_path / "other")
    import_(store, tmp_path / "tickets.zip")
    assert set(store.names()) == set(lab.store.names())
    whole = {name for name in store.names() if not store.is_thin(name)}
    assert whole == {chain[1].parents[0].name, chain[2].parents[0].name}
    for name in store.names():
        assert store.numbers(name) == lab.store.numbers(name)
    for job in chain[:2]:
        tables = [each.folder(job.name) / "history.csv" for each in (store, lab.store)]
        assert tables[0].read_bytes() == tables[1].read_bytes()
        assert not list(store.folder(job.name).glob("*result.safetensors"))


def test_what_was_thin_travels_on(killed: tuple[tb.Lab, list[Job], tb.Lab], tmp_path: Path) -> None:
    lab, chain, _ = killed
    export_tickets(lab.store, None, tmp_path / "once.zip")
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    import_(first, tmp_path / "once.zip")
    # Nothing has made the start again there: it is left out once more.
    assert export_tickets(first, None, tmp_path / "twice.zip").tickets == 2
    import_(second, tmp_path / "twice.zip")
    assert list(verify(second)) == []
    record = tb.Lab(second.root).forgetting(chain[1])
    assert record.events.tolist() == lab.forgetting(chain[1]).events.tolist()


def test_the_next_ticket_of_a_finished_chain_is_written_down_for_the_way(
    tmp_path: Path, same_run: Same
) -> None:
    lab, chain = tb.Lab(tmp_path / "store"), chain_of(rounds=4)
    lab.run(chain[:3]).raise_failures()
    # A copy of the last training under other noise is no part of the chain, and leads to no ticket.
    copy = tb.job(tb.train, chain[2].parents[0], "digits", RECIPE, noise=7)
    lab.run(copy).raise_failures()
    before = set(lab.store.names())
    assert export_tickets(lab.store, None, tmp_path / "tickets.zip", "newest").tickets == 1
    assert set(lab.store.names()) - before == {chain[3].parents[0].name}
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "tickets.zip")
    outcome = other.run(chain)
    outcome.raise_failures()
    assert functions(chain, outcome.computed) == ["initialize", "train", "train"]
    lab.run(chain).raise_failures()
    assert same_run(other.result(chain[4]), lab.result(chain[4]))


@pytest.mark.parametrize(("code", "refused"), [(errno.ENOSPC, True), (errno.EIO, True), (errno.EROFS, False)])
def test_a_disk_that_fails_under_an_export_is_told_and_one_that_may_only_be_read_is_none_of_its_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, refused: bool
) -> None:
    lab = tb.Lab(tmp_path / "store")
    lab.run(chain_of(rounds=1)).raise_failures()

    def make_folder(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "make_folder", make_folder)
    with pytest.raises(StoreError, match=os.strerror(code)) if refused else nullcontext():
        export_tickets(lab.store, None, tmp_path / "tickets.zip")
    assert (tmp_path / "tickets.zip").exists() != refused


def test_a_single_job_travels_with_what_goes_on_from_it(tmp_path: Path) -> None:
    lab, chain = tb.Lab(tmp_path / "store"), chain_of(rounds=3)
    lab.run(chain).raise_failures()
    exported = export_tickets(lab.store, [chain[1].name], tmp_path / "tickets.zip", "newest")
    other = Store(tmp_path / "other")
    assert set(import_(other, tmp_path / "tickets.zip")) == {chain[1].name, chain[2].parents[0].name}
    assert (exported.jobs, exported.tickets) == (3, 1)
    assert [name for name in other.names() if not other.is_thin(name)] == [chain[2].parents[0].name]


# Which


def test_newest_and_the_rounds_that_are_named(tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path / "store")
    chain = chain_of(rounds=4)
    # A branch from round 2, by another recipe: both ends are newest, and what they grew from is not.
    other = tb.Recipe(epochs=2, batch_size=200)
    branch = tb.job(tb.prune, tb.job(tb.train, chain[2].parents[0], "digits", other))
    lab.run([*chain, branch]).raise_failures()
    tickets = {number: chain[number].parents[0].name for number in range(1, 5)}

    def chosen(*words: str | int) -> set[str]:
        return chosen_tickets(lab.store, set(lab.store.names()), Choice.of(words))

    assert chosen() == chosen("all") == {*tickets.values(), branch.name}
    assert chosen("newest") == {tickets[4], branch.name}
    assert chosen("newest", 1, 3) == {tickets[4], branch.name, tickets[1], tickets[3]}
    assert chosen("newest,1,2") == {tickets[4], branch.name, tickets[1], tickets[2]}
    assert chosen(2) == {tickets[2]}


@pytest.mark.parametrize("word", ["neweset", "-1", "1.5", ""])
def test_an_unknown_choice_is_refused(word: str) -> None:
    with pytest.raises(
        JobError, match=rf"^no choice of tickets '{word}'; .* \(a round goes by its number\)$"
    ):
        Choice.of(word)


def test_a_ticket_of_resnet_18_has_a_bit_for_each_weight(colour: tb.Data, tmp_path: Path) -> None:
    dense = tb.initialize("resnet18", colour)
    drawn = {name: torch.rand(keep.shape) < 0.5 for name, keep in dense.mask.items()}
    files.write_tensors(tmp_path / "ticket", "tombola.result/1", *dense.with_mask(drawn).pack(start="none"))
    # 0.5 * 11.17 million weights would be 22 MB. Each layer may round up to a whole byte.
    bits = dense.total / 8
    assert 1_350_000 < bits < (tmp_path / "ticket").stat().st_size < bits + 10_000 < 1_500_000


# Starts that no job makes again


def own_chain(data: tb.Data) -> list[Job]:
    start = tb.initialize("convnet", data, seed=3)
    drawn = torch.Generator().manual_seed(0)
    values = {
        name: value + torch.rand(value.shape, generator=drawn) if value.is_floating_point() else value
        for name, value in start.start.items()
    }
    own = tb.Ticket(start.network, values, start.mask)
    chain = [tb.job(tb.train, own, "digits", RECIPE)]
    for _ in range(2):
        chain.append(tb.job(tb.train, tb.job(tb.prune, chain[-1], fraction=0.5), "digits", RECIPE))
    return chain


def test_a_start_of_the_callers_own_goes_along_whole(digits: tb.Data, tmp_path: Path, same_run: Same) -> None:
    lab, chain = tb.Lab(tmp_path / "store"), own_chain(digits)
    lab.run(chain[:2]).raise_failures()
    file = tmp_path / "tickets.zip"
    exported = export_tickets(lab.store, None, file)
    ((start, (size, cause)),) = exported.carried.items()
    assert start == lab.result(chain[0]).ticket.start_fingerprint
    assert cause.startswith("it comes from a ticket of the caller's own")
    # 8,970 parameters of convnet, 4 bytes each, are in it, and once.
    assert size > 8456 * 4
    assert size < file.stat().st_size < 2 * size + 30_000
    other = tb.Lab(tmp_path / "other")
    import_(other.store, file)
    outcome = other.run(chain)
    outcome.raise_failures()
    assert functions(chain, outcome.computed) == ["train"]
    lab.run(chain).raise_failures()
    assert same_run(other.result(chain[2]), lab.result(chain[2]))


@pytest.mark.parametrize("change", ["version", "gone"])
def test_a_start_of_a_function_that_is_not_known_any_more_goes_along_whole(
    digits: tb.Data, tmp_path: Path, change: str
) -> None:
    from tombola import registry

    @tb.declare("mine")
    def mine(data: tb.Data, *, seed: int = 0) -> tb.Ticket:
        return tb.initialize("convnet", data, seed=seed + 100)

    lab = tb.Lab(tmp_path / "store")
    start = tb.job(mine, "digits")
    first = tb.job(tb.train, start, "digits", RECIPE)
    second = tb.job(tb.train, tb.job(tb.prune, first), "digits", RECIPE)
    lab.run([first, second.parents[0]]).raise_failures()
    assert export_tickets(lab.store, None, tmp_path / "known.zip").carried == {}
    if change == "gone":
        del registry._declarations["mine"]
    else:
        registry._declarations["mine"] = registry.Declaration("mine", 2, True, mine)
    carried = export_tickets(lab.store, None, tmp_path / "unknown.zip").carried
    ((_, cause),) = carried.values()
    told = {"gone": "no declared function 'mine'", "version": "the job asks for version 1"}
    assert cause.startswith(told[change])
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "unknown.zip")
    other.run(second).raise_failures()
    assert list(verify(other.store)) == []


@pytest.mark.parametrize("older", ["network", "init"])
def test_a_start_of_a_version_that_is_not_declared_any_more_goes_along_whole(
    older: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = {"network": network._networks, "init": initialization._schemes}[older]
    monkeypatch.setattr(definitions, "_declared", {})

    def flat(classes: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))

    def constant(module: torch.nn.Module) -> None:
        torch.nn.init.constant_(module.get_parameter("14.weight"), 0.5)

    if older == "network":
        tb.declare_network("flat")(flat)
        chain = imp_jobs("flat", "digits", RECIPE, rounds=0)
        again = tb.declare_network("flat", version=2)
    else:
        tb.declare_init("constant")(constant)
        chain = imp_jobs("convnet", "digits", RECIPE, rounds=0, init="constant")
        again = tb.declare_init("constant", version=2)
    lab = tb.Lab(tmp_path / "store")
    lab.run([tb.job(tb.prune, run) for run in chain]).raise_failures()
    assert export_tickets(lab.store, None, tmp_path / "here.zip").carried == {}
    definitions._declared.clear()
    again(flat if older == "network" else constant)
    ((_, cause),) = export_tickets(lab.store, None, tmp_path / "there.zip").carried.values()
    assert f"no version 1 of {'network' if older == 'network' else 'initialisation'}" in cause


def test_a_reinitialised_start_goes_along_whole(digits: tb.Data, tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path / "store")
    second = chain_of(rounds=1)[1]
    other = tb.job(tb.train, tb.job(tb.reinitialize, second.parents[0], seed=9), "digits", RECIPE)
    ticket = tb.job(tb.prune, other)
    lab.run(ticket).raise_failures()
    ((start, (_, cause)),) = export_tickets(lab.store, None, tmp_path / "tickets.zip").carried.items()
    assert start == lab.result(ticket).start_fingerprint
    assert cause == "reinitialize made it, whose results no store keeps"
    permuted = tb.job(tb.prune, tb.job(tb.train, tb.job(tb.permute, second.parents[0]), "digits", RECIPE))
    lab.run(permuted).raise_failures()  # of the chain's own start
    assert len(export_tickets(lab.store, None, tmp_path / "tickets.zip").carried) == 1


def test_an_export_whose_start_is_lost_is_refused_in_one_line(
    digits: tb.Data, tmp_path: Path, rewritten: Callable[..., Path]
) -> None:
    lab, chain = tb.Lab(tmp_path / "store"), own_chain(digits)
    lab.run(chain[:2]).raise_failures()
    export_tickets(lab.store, None, tmp_path / "whole.zip")

    def lose(content: dict[str, bytes], manifest: dict) -> None:
        for member in [each for each in content if each.startswith("objects/")]:
            del content[member]

    store = Store(tmp_path / "other")
    with pytest.raises(StoreError, match=r"the dense start \w{12} of job \w{12} is lost: ") as told:
        import_(store, rewritten(tmp_path / "whole.zip", tmp_path / "lost.zip", lose))
    assert "\n" not in str(told.value)
    assert list(store.names()) == []
    # Where it is, the rest of it is enough.
    shutil.copytree(lab.store.root / "objects", store.root / "objects", dirs_exist_ok=True)
    import_(store, tmp_path / "lost.zip")
    assert store.has(chain[1].name)


def test_a_start_that_is_lost_after_all_is_told_in_one_line(digits: tb.Data, tmp_path: Path) -> None:
    lab, chain = tb.Lab(tmp_path / "store"), own_chain(digits)
    lab.run(chain[:2]).raise_failures()
    export_tickets(lab.store, None, tmp_path / "tickets.zip")
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "tickets.zip")
    for path in (other.store.root / "objects").iterdir():
        path.unlink()
    objects._object.cache_clear()
    ticket = chain[1].parents[0].name
    with pytest.raises(
        StoreError, match=f"job {ticket[:12]} is of the dense start .*, which is gone"
    ) as told:
        other.result(finished_job(other.store, ticket))
    assert "\n" not in str(told.value)
    told_of = {Path(damage.place).name: damage.cause for damage in verify(other.store)}
    assert "which is gone from the store" in told_of[ticket]
    assert told_of[chain[0].name].startswith("made from a ticket or run ")


def test_a_start_that_comes_out_otherwise_is_told_in_one_line(tmp_path: Path) -> None:
    machine = [1]

    @tb.declare("of this machine")
    def mine(data: tb.Data) -> tb.Ticket:
        return tb.initialize("convnet", data, seed=machine[0])

    lab = tb.Lab(tmp_path / "store")
    first = tb.job(tb.train, tb.job(mine, "digits"), "digits", RECIPE)
    second = tb.job(tb.train, tb.job(tb.prune, first), "digits", RECIPE)
    lab.run(second).raise_failures()
    third = tb.job(tb.train, tb.job(tb.prune, second), "digits", RECIPE)
    export_tickets(lab.store, None, tmp_path / "tickets.zip")
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "tickets.zip")
    machine[0] = 2
    before = other.store.numbers(first.parents[0].name)
    outcome = other.run(third)
    assert outcome.failed.keys() == {first.parents[0].name, third.name}
    cause = outcome.failed[first.parents[0].name]
    assert "the dense start of " in cause
    assert f", not as {before['start'][:12]} like when it was made (" in cause
    assert "\n" not in cause
    assert outcome.failed[third.name] == f"needs job {first.parents[0].name[:12]}, which failed"
    assert other.store.numbers(first.parents[0].name) == before
    machine[0] = 1
    other.run(third).raise_failures()


def test_what_made_the_starts_of_a_long_chain_is_read_once_a_job(
    tmp_path: Path, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, chain = Store(tmp_path / "store"), chain_of(rounds=12)
    start = pack(tb.initialize("convnet", digits))
    jobs = all_needed(chain)  # made up: no training is behind them, and every ticket is the first
    for name, job in jobs.items():
        result = Packed({"accuracy": 50.0}, {}, {}) if job.declaration.name == "train" else start
        store.publish(name, job.description(), result, {})
    tickets = [name for name, job in jobs.items() if job.declaration.name == "prune"]
    reads: Counter[str] = Counter()
    read = Store.checked_description

    def counting(self: Store, name: str) -> dict[str, Any]:
        reads[name] += 1
        return read(self, name)

    monkeypatch.setattr(Store, "checked_description", counting)
    makers = StartMakers(store)
    assert {makers.cause_to_carry(name) for name in reversed(tickets)} == {None}
    assert len(tickets) == 12
    assert set(reads.values()) == {1}
    assert not any(map(makers.is_made_again, tickets))
    store.thin(chain[0].arguments["ticket"].name)
    assert all(map(makers.is_made_again, tickets))


# Stores of before


@pytest.fixture
def old(tmp_path: Path) -> tuple[tb.Lab, list[Job]]:
    """A store as it was before tickets were results: a dense run and two rounds, the last one whole."""
    lab = tb.Lab(tmp_path / "old")
    import_(lab.store, Path(__file__).with_name("chain-before-tickets.zip"))
    return lab, imp_jobs("convnet", "digits", tb.Recipe(epochs=1, batch_size=400), rounds=3, fraction=0.5)


def test_a_store_of_before_holds_its_results(old: tuple[tb.Lab, list[Job]]) -> None:
    lab, chain = old
    assert list(verify(lab.store)) == []
    assert not any(is_ticket(lab.store, name) for name in lab.store.names())
    assert lab.store.description(chain[2].name)["arguments"]["ticket"]["call"]["function"] == "prune"
    outcome = lab.run(chain[:3])
    assert (sorted(outcome.finished_before), outcome.computed) == (
        sorted([chain[0].parents[0].name, *(job.name for job in chain[:3])]), []
    )  # fmt: skip
    assert lab.result(chain[2]).ticket.round == 2
    # What the last run was made from is still known, by gc too.
    assert parents(lab.store.description(chain[2].name)) == {chain[1].name}
    assert gc(lab.store, "needed", grace=-60.0) == []


def test_a_chain_of_before_goes_on_from_its_last_run(old: tuple[tb.Lab, list[Job]]) -> None:
    lab, chain = old
    run = lab.result(chain[2])
    outcome = lab.run(chain)
    assert outcome.computed == [chain[3].name]
    ticket = lab.result(chain[3].parents[0])
    assert ticket.fingerprint == tb.prune(run, fraction=0.5).fingerprint
    assert lab.result(chain[3]).ticket.fingerprint == ticket.fingerprint
    assert [Path(each.place).parent.name for each in gc(lab.store, "needed", grace=-60.0)] == [chain[2].name]


@pytest.mark.parametrize("thin", [False, True])
def test_the_tickets_of_a_store_of_before_travel(
    old: tuple[tb.Lab, list[Job]], tmp_path: Path, thin: bool
) -> None:
    lab, chain = old
    run = lab.result(chain[2])
    if thin:
        lab.store.thin(chain[2].name)
    # That of round 1 is nowhere any more; that of round 2 the run has, and its weights make that of round 3.
    assert export_tickets(lab.store, None, tmp_path / "tickets.zip").tickets == (1 if thin else 2)
    other = tb.Lab(tmp_path / "other")
    import_(other.store, tmp_path / "tickets.zip")
    assert list(verify(other.store)) == []
    second = other.result(chain[2].parents[0])
    assert second.fingerprint == run.ticket.fingerprint
    assert other.forgetting(chain[2]).events.tolist() == run.forgetting.events.tolist()
    if not thin:
        third = other.result(chain[3].parents[0])
        assert third.fingerprint == tb.prune(run, fraction=0.5).fingerprint


def test_the_ticket_of_a_run_of_before_is_the_one_that_it_keeps(old: tuple[tb.Lab, list[Job]]) -> None:
    lab, chain = old
    run = lab.result(chain[2])
    tickets = [stored_ticket(lab.store, chain[2])]
    lab.store.thin(chain[2].name)
    tickets.append(stored_ticket(lab.store, chain[2]))
    assert [ticket and ticket.fingerprint for ticket in tickets] == [run.ticket.fingerprint] * 2
    assert stored_ticket(lab.store, chain[1]) is None  # of which the store has numbers only


def test_a_damaged_ticket_of_a_run_without_weights_is_told_like_any_result(
    old: tuple[tb.Lab, list[Job]],
) -> None:
    lab, chain = old
    lab.store.thin(chain[2].name)
    path = lab.store.folder(chain[2].name) / "ticket.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    with pytest.raises(StoreError, match=f"job {chain[2].name[:12]} is damaged: .* was altered"):
        stored_ticket(lab.store, chain[2])


# Keeping


def test_weights_are_not_needed_once_the_next_ticket_is_there(tmp_path: Path) -> None:
    lab, chain = tb.Lab(tmp_path / "store"), chain_of(rounds=1)
    lab.run(chain).raise_failures()
    assert [Path(each.place).parent.name for each in gc(lab.store, "needed", grace=-60.0)] == [chain[0].name]
    events = lab.result(chain[1]).forgetting.events
    lab.run(ticket_jobs("convnet", "digits", RECIPE, rounds=2, fraction=0.5)[2]).raise_failures()
    gc(lab.store, "needed", dry_run=False, grace=-60.0)
    assert [lab.store.is_thin(job.name) for job in chain] == [True, True]
    assert list(verify(lab.store)) == []
    assert lab.forgetting(chain[1]).events.tolist() == events.tolist()
    longer = chain_of(rounds=2)
    assert lab.run(longer).computed == [longer[2].name]
    assert [lab.store.is_thin(job.name) for job in chain] == [True, True]


def test_a_record_that_was_altered_is_told_and_one_that_is_not_there(tmp_path: Path) -> None:
    lab, (run,) = tb.Lab(tmp_path / "store"), chain_of(rounds=0)
    lab.run(run).raise_failures()
    export(lab.store, None, tmp_path / "numbers.zip", weights=False)
    lab.store.thin(run.name)
    path = lab.store.folder(run.name) / "forgetting.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    with pytest.raises(StoreError, match=f"job {run.name[:12]} is damaged: .* was altered"):
        lab.forgetting(run)
    assert len(list(verify(lab.store))) == 1
    numbers = tb.Lab(tmp_path / "numbers")
    import_(numbers.store, tmp_path / "numbers.zip")
    with pytest.raises(JobError, match=f"job {run.name[:12]} has no forgetting record here"):
        numbers.forgetting(run)
    # Brought in again with its weights, it has all; and nothing of the thin one is left.
    whole = tb.Lab(tmp_path / "whole")
    whole.run(run).raise_failures()
    export(whole.store, None, tmp_path / "whole.zip")
    import_(lab.store, tmp_path / "whole.zip")
    assert not path.exists()
    assert lab.forgetting(run).events.tolist() == whole.result(run).forgetting.events.tolist()


def test_progress_and_outcome_leave_tickets_out_unless_asked_for(lab: tb.Lab, recorder) -> None:
    chain = chain_of(rounds=2)
    outcome = lab.run(chain, progress=recorder)
    names = [chain[0].parents[0].name, *(job.name for job in chain)]
    assert outcome.computed == names
    assert recorder.begun == [(0, 4)]
    assert [name for name, _ in recorder.finished] == names
    assert sorted(lab.run(chain).finished_before) == sorted(names)
    ticket = tb.job(tb.prune, chain[2], fraction=0.5)
    assert lab.run(ticket).computed == [ticket.name]
    assert json.loads((lab.store.folder(ticket.name) / "result.json").read_text())["round"] == 3


def test_a_ticket_without_a_training_has_the_start_of_the_job_that_drew_it(store: Store) -> None:
    start = tb.job(tb.initialize, "convnet", "digits", seed=0)
    recipe = tb.Recipe(epochs=1)
    for ticket in (
        tb.job(tb.prune_at_initialization, start, "digits", score="snip", sparsity=0.5),
        tb.job(tb.edge_popup, start, "digits", recipe),
        tb.job(tb.supermask, start, "digits", recipe),
    ):
        maker = maker_of_start(store, tb.job(tb.permute, ticket, seed=1))
        assert maker is not None
        assert maker.name == start.name
