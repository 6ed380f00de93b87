"""An edited function or network of the user's own: a warning for older results, and their recomputation."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tombola as tb
from tombola import disk, registry, source
from tombola.data import transform
from tombola.errors import ClusterError, JobError, RecipeError, StoreError
from tombola.lab import lease as leases
from tombola.lab import recompute, staleness
from tombola.lab.chains import as_job, imp_jobs
from tombola.lab.deadline import Stop
from tombola.lab.execute import Settings
from tombola.lab.finished import finished_job
from tombola.lab.gc import gc
from tombola.lab.job import Job
from tombola.lab.progress import Bar
from tombola.lab.recompute import remove_results
from tombola.lab.store import Store, read_json, write_json
from tombola.lab.user_code import import_file
from tombola.lab.verify import verify
from tombola.networks import initialization, network
from tombola.pruning import scores
from tombola.training import definitions

TEXT = '''import tombola as tb
from torch import nn


@tb.declare_network("own-net")
def own_net(classes: int) -> nn.Module:
    """Of one layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


@tb.declare_init("halves")
def halves(module: nn.Module) -> None:
    nn.init.constant_(module[1].weight, 0.5)


@tb.declare_score("own-score")
def own_score(run: tb.Run):
    return {name: run.weights[name] for name in run.ticket.mask}


@tb.declare_loss("own-loss")
def own_loss(logits, labels):
    return -logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
@tb.declare_augmentation("darker", draw=lambda count, generator: generator.random(count))
def darker(images, draws):
    return images // 2


@tb.declare("count")
def count(run: tb.Run, times: int = 1) -> float:
    return times * float(run.ticket.kept)


@tb.declare("twice")
def twice(number: float) -> float:
    return 2 * number
'''


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declares everything in the text anew, as a new process would; nothing is told yet."""
    registry._import_built_in()
    monkeypatch.setattr(registry, "_declarations", dict(registry._declarations))
    monkeypatch.setattr(network._networks, "_declared", dict(network._networks._declared))
    monkeypatch.setattr(initialization._schemes, "_declared", dict(initialization._schemes._declared))
    monkeypatch.setattr(scores._scores, "_declared", dict(scores._scores._declared))
    monkeypatch.setattr(definitions.LOSSES, "_declared", {})
    monkeypatch.setattr(transform._augmentations, "_declared", dict(transform._augmentations._declared))
    monkeypatch.setattr(source, "_declared", {})

    def edit(*pairs: str) -> None:
        monkeypatch.setattr(staleness, "_warned", set())
        text = TEXT
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (tmp_path / "mine.py").write_text(text)
        for name in ("own-net", "halves", "own-score", "count", "twice"):
            registry._declarations.pop(name, None)
            network._networks._declared.pop(name, None)
            initialization._schemes._declared.pop(name, None)
            scores._scores._declared.pop(name, None)
        definitions.LOSSES._declared.clear()
        # A text that comes back is declared again.
        for name in [name for name in sys.modules if name.startswith("tombola_own_")]:
            monkeypatch.delitem(sys.modules, name)
        import_file(tmp_path / "mine.py")

    return edit


def call(name: str, *arguments: Any, **options: Any) -> Job:
    return tb.job(registry.declaration(name).function, *arguments, **options)


def jobs(quick: tb.Recipe, name: str = "own-net") -> tuple[list[Job], Job, Job]:
    """A chain of two rounds, a measure of its last run, and one of that measure."""
    chain = imp_jobs(name, "digits", quick, rounds=1, fraction=0.5)
    measure = call("count", chain[-1])
    return chain, measure, call("twice", measure)


def said(act: Callable[[], object]) -> list[str]:
    """What is warned of meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(each.message) for each in caught if "was edited" in str(each.message)]


OTHER = ("return times * float", "return 1 + times * float")
SAME_WEIGHTS = ("nn.Flatten()", "nn.Sequential(nn.Flatten(), nn.Hardtanh(-0.5, 0.5))")
OTHER_NET = ("nn.Linear(64, classes)", "nn.Linear(64, classes, bias=False)")


def test_an_edited_measure_is_told_once_and_its_old_number_stays(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    _, _, last = jobs(quick)
    assert not said(lambda: lab.run(last))
    assert lab.result(last) == 640  # twice half of 64 times 10
    assert not said(lambda: tb.Lab(lab.store.root).run(last))
    declare(*OTHER)
    _, measure, last = jobs(quick)
    again = tb.Lab(lab.store.root)
    (words,) = said(lambda: again.run(last))
    assert words == (
        "count was edited since 2 results used here were made with it under its name and version: if its "
        'numbers changed, raise the version, @declare("count", version=2), or have all that rests on it '
        'computed anew, by --recompute count or Lab.run(recompute=["count"])'
    )
    assert not said(lambda: again.result(measure))
    assert again.result(last) == 640


def test_a_raised_version_is_another_job_and_nothing_is_told(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    lab.run(jobs(quick)[2])
    declare(*OTHER, '@tb.declare("count")', '@tb.declare("count", version=2)')
    numbers: list[float] = []
    assert not said(lambda: numbers.append(tb.Lab(lab.store.root).result(jobs(quick)[2])))
    assert numbers == [642]


@pytest.mark.parametrize(
    "edit",
    [
        ("    return 2 * number", "    # doubled\n    return 2 * number"),
        ('"""Of one layer."""', '"""Of a single layer."""'),
        ("def twice(number: float) -> float:", "def twice(\n    number: float,\n) -> float:"),
        ("from torch import nn", "import os\nfrom torch import nn\n\nDRIVER = 3"),
    ],
)
def test_comments_docstrings_and_what_is_not_used_tell_nothing(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, edit: tuple[str, str]
) -> None:
    declare()
    lab.run(jobs(quick)[2])
    declare(*edit)
    assert not said(lambda: tb.Lab(lab.store.root).run(jobs(quick)[2]))


def test_an_edited_network_is_told_of_whatever_was_made_with_it(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    lab.run(jobs(quick)[2])
    lab.run(jobs(quick, "convnet")[2])
    declare(*OTHER_NET)
    (words,) = said(lambda: tb.Lab(lab.store.root).run([jobs(quick)[2], jobs(quick, "convnet")[2]]))
    # The start, two trainings and two measures; not those of the other network.
    assert words.startswith("network own-net was edited since 5 results used here were made with it")
    assert '@declare_network("own-net", version=2)' in words
    declare(*OTHER_NET)
    (words,) = said(lambda: tb.Lab(lab.store.root).run(jobs(quick)[0][0]))
    assert "since 2 results" in words
    assert not said(lambda: tb.Lab(lab.store.root).run(jobs(quick, "convnet")[2]))


def test_a_new_measure_of_older_runs_tells_of_these(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    chain, _, _ = jobs(quick)
    lab.run(chain)
    declare(*SAME_WEIGHTS)
    chain, measure, _ = jobs(quick)
    (words,) = said(lambda: tb.Lab(lab.store.root).run(measure))
    assert "network own-net was edited since 3 results" in words
    declare(*SAME_WEIGHTS)
    # A finished job that was found by its name, with nothing behind it.
    (words,) = said(
        lambda: tb.Lab(lab.store.root).result(call("count", finished_job(lab.store, chain[-1].name), times=3))
    )
    assert "network own-net was edited since 1 result used here was" in words


def test_fingerprints_of_another_form_or_of_none_are_not_compared(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    lab.run(jobs(quick)[2])
    for name in lab.store.names():
        place = lab.store.folder(name) / "provenance.json"
        made = read_json(place)
        made["source"]["form"] = 0
        write_json(place, made)
    declare(*OTHER, *OTHER_NET)
    assert not said(lambda: tb.Lab(lab.store.root).run(jobs(quick)[2]))
    for name in lab.store.names():
        place = lab.store.folder(name) / "provenance.json"
        made = read_json(place)
        made["source"] = ["anything"]
        write_json(place, made)
    declare(*OTHER, *OTHER_NET)
    assert not said(lambda: tb.Lab(lab.store.root).run(jobs(quick)[2]))


def test_what_is_unknown_now_is_not_compared(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    lab.run(jobs(quick)[2])
    declare(*OTHER)
    source._declared["functions", "count"] = None
    assert not said(lambda: tb.Lab(lab.store.root).run(jobs(quick)[2]))


def test_recomputing_a_measure_replaces_it_and_what_was_made_from_it_alone(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    last = jobs(quick)[2]
    unrelated = call("twice", 3.0)
    lab.run([last, unrelated])
    before = {name: lab.store.folder(name).stat().st_mtime_ns for name in lab.store.names()}
    declare(*OTHER)
    _, measure, last = jobs(quick)
    again = tb.Lab(lab.store.root)
    outcomes: list[Any] = []
    assert not said(lambda: outcomes.append(again.run(measure, recompute=["count"])))
    assert outcomes[0].computed == [measure.name]
    assert again.store.numbers(measure.name) == {"value": 321.0}
    assert not again.has(last)  # not asked for, and its number was made from the old one
    assert again.result(last) == 642
    after = {name: lab.store.folder(name).stat().st_mtime_ns for name in lab.store.names()}
    assert {name for name, time in after.items() if before[name] != time} == {measure.name, last.name}
    assert after.keys() == before.keys()
    declare(*OTHER)
    assert not said(lambda: tb.Lab(lab.store.root).run(last))
    assert not list((lab.store.root / "work").iterdir())


def test_recomputing_a_network_replaces_all_that_was_made_with_it(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    chain, _, last = jobs(quick)
    other = jobs(quick, "convnet")[2]
    lab.run([last, other])
    kept = {name: lab.store.folder(name).stat().st_mtime_ns for name in lab.store.names()}
    assert "1.bias" in lab.result(chain[-1]).weights
    declare(*OTHER_NET)
    chain, _, last = jobs(quick)
    other = jobs(quick, "convnet")[2]
    outcome = tb.Lab(lab.store.root).run([last, other], recompute=["own-net"])
    concerned = {job.name for job in (*chain, *chain[0].needs, last, *last.needs)}
    assert set(outcome.computed) == concerned
    assert len(concerned) == 5
    concerned.add(chain[1].arguments["ticket"].name)  # computed too, and not counted
    assert "1.bias" not in tb.Lab(lab.store.root).result(chain[-1]).weights
    for name in kept.keys() - concerned:
        assert lab.store.folder(name).stat().st_mtime_ns == kept[name]
    declare(*OTHER_NET)
    assert not said(lambda: tb.Lab(lab.store.root).run([last, other]))


@pytest.mark.parametrize("recorded", [True, False])
def test_an_edited_initialisation_is_told_and_replaced_like_a_network(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, digits: tb.Data, recorded: bool
) -> None:
    declare()

    def started() -> list[Job]:
        return [tb.job(tb.initialize, "own-net", "digits", init=init) for init in ("halves", "pytorch")]

    start, other = started()
    given = tb.job(tb.untrained, tb.initialize("own-net", digits, init="halves"), "digits")
    lab.run([start, other, given])
    assert float(lab.result(start).start["1.weight"][0, 0]) == 0.5
    declare("_(module[1].weight, 0.5)", "_(module[1].weight, 0.25)")
    (words,) = said(lambda: tb.Lab(lab.store.root).run(started()))
    assert words.startswith("initialisation halves was edited since 1 result used here was made with it")
    assert '@declare_init("halves", version=2)' in words
    declare("_(module[1].weight, 0.5)", "_(module[1].weight, 0.25)")
    assert len(said(lambda: tb.Lab(lab.store.root).run(given))) == 1
    if not recorded:
        for name in lab.store.names():
            place = lab.store.folder(name) / "provenance.json"
            write_json(place, {key: value for key, value in read_json(place).items() if key != "source"})
    assert remove_results(lab.store, ["halves"]) == sorted([start.name, given.name])
    assert float(tb.Lab(lab.store.root).result(started()[0]).start["1.weight"][0, 0]) == 0.25


@pytest.mark.parametrize("recorded", [True, False])
def test_an_edited_score_is_told_and_recomputed(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, recorded: bool
) -> None:
    def chain() -> list[Job]:
        return imp_jobs("convnet", "digits", quick, rounds=1, fraction=0.5, score="own-score")

    declare()
    plain = imp_jobs("convnet", "digits", quick, rounds=1, fraction=0.5)
    lab.run([*chain(), *plain])
    before = lab.result(as_job(chain()[1].arguments["ticket"])).mask
    declare("run.weights[name] for", "-run.weights[name] for")
    (words,) = said(lambda: tb.Lab(lab.store.root).run([*chain(), *plain]))
    assert words.startswith("score own-score was edited since 1 result used here was made with it")
    assert '@declare_score("own-score", version=2)' in words
    again = tb.Lab(lab.store.root)
    if not recorded:
        for name in list(lab.store.names()):
            place = lab.store.folder(name) / "provenance.json"
            write_json(place, {key: value for key, value in read_json(place).items() if key != "source"})
    outcome = again.run(chain(), recompute=["own-score"])
    assert outcome.removed == sorted([chain()[1].arguments["ticket"].name, chain()[1].name])
    after = again.result(as_job(chain()[1].arguments["ticket"])).mask
    # The other half of the weights, which have all kinds of signs.
    assert not any((after[name] & before[name]).any() for name in after)
    declare('@tb.declare_score("own-score")', '@tb.declare_score("own-score", version=2)')
    assert not said(lambda: tb.Lab(lab.store.root).run(plain))
    assert chain()[1].arguments["ticket"].arguments["score"] == "own-score@2"


def test_an_edited_augmentation_is_told_and_recomputed(lab: tb.Lab, declare: Callable[..., None]) -> None:
    declare()
    edited = tb.Recipe(epochs=1, batch_size=400, augmentation=tb.Augmentation(declared="darker"))

    def trained() -> list[Job]:
        return [
            tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", edited, noise=noise)
            for noise in range(2)
        ]

    lab.run(trained())
    assert not said(lambda: tb.Lab(lab.store.root).run(trained()))
    before = lab.result(trained()[0]).history[-1].train_loss
    declare("images // 2", "images // 3")
    (words,) = said(lambda: tb.Lab(lab.store.root).run(trained()))
    assert words.startswith("augmentation darker was edited since 2 results used here were made with it")
    assert '@declare_augmentation("darker", version=2)' in words
    again = tb.Lab(lab.store.root)
    assert len(again.run(trained(), recompute=["darker"]).removed) == 2
    assert again.result(trained()[0]).history[-1].train_loss != before


def test_results_of_a_score_that_is_not_declared_here_are_read_all_the_same(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    run = imp_jobs("convnet", "digits", quick, rounds=1, fraction=0.5, score="own-score")[1]
    lab.run(run)
    kept = lab.result(run).ticket.kept
    scores._scores._declared.pop("own-score")
    again = tb.Lab(lab.store.root)
    assert again.result(finished_job(lab.store, run.name)).ticket.kept == kept
    not_rebuilt: Counter[str] = Counter()
    assert list(verify(lab.store, not_rebuilt)) == []
    assert not not_rebuilt


@pytest.mark.parametrize("recorded", [True, False])
def test_what_was_made_of_a_ticket_of_the_callers_own_goes_with_its_network(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, digits: tb.Data, recorded: bool
) -> None:
    declare()
    job = tb.job(tb.train, tb.initialize("own-net", digits), "digits", quick)
    foreign = tb.job(tb.train, tb.initialize("convnet", digits), "digits", quick)
    lab.run([job, foreign])
    declare(*OTHER_NET)
    assert len(said(lambda: tb.Lab(lab.store.root).run(job))) == 1
    if not recorded:  # as results of before there were records
        place = lab.store.folder(job.name) / "provenance.json"
        write_json(place, {key: value for key, value in read_json(place).items() if key != "source"})
    assert remove_results(lab.store, ["own-net"]) == [job.name]
    assert list(lab.store.names()) == [foreign.name]


def test_an_edited_loss_is_told_and_recomputed(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    edit = ("return -logits.log_softmax(1)", "return -2 * logits.log_softmax(1)")

    def runs() -> list[Job]:
        own = replace(quick, loss="own-loss")
        return [
            *imp_jobs("convnet", "digits", own, rounds=1),
            imp_jobs("convnet", "digits", quick, rounds=0)[0],
        ]

    declare()
    lab.run(runs())
    before = [lab.result(job).history[-1].train_loss for job in runs()]
    declare(*edit)
    again = tb.Lab(lab.store.root)
    (words,) = said(lambda: again.run(runs()))
    assert words.startswith("loss own-loss@1 was edited since 2 results used here were made with it")
    assert '@declare_loss("own-loss", version=2)' in words
    outcome = again.run(runs(), recompute=["own-loss"])
    assert len(outcome.computed) == 2
    after = [again.result(job).history[-1].train_loss for job in runs()]
    assert after[2] == before[2]
    assert all(new > old for new, old in zip(after[:2], before[:2], strict=True))


def test_only_names_of_ones_own_are_recomputed(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    measure = jobs(quick)[1]
    lab.run(measure)
    before = sorted(lab.store.names())
    for names, words in (
        (
            ["cont"],
            r"no definition of your own 'cont'; did you mean 'count'\?",
        ),
        (
            ["own-ned"],
            r"no definition of your own 'own-ned'; did you mean 'own-net'\?",
        ),
        (["count", "train"], "train is tombola's own and gives other numbers in another version only"),
        (["convnet"], "convnet is tombola's own"),
        (["orthogonal"], "orthogonal is tombola's own"),
        (["movement"], "movement is tombola's own"),
        ("count", r"names is 'count', one text; give a list of names, \['count'\]"),
    ):
        with pytest.raises(JobError, match=words):
            lab.run(measure, recompute=names)
    assert sorted(lab.store.names()) == before


def test_nothing_is_removed_while_a_job_is_under_way(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    measure = jobs(quick)[1]
    lab.run(measure)
    before = sorted(lab.store.names())
    busy = lab.store.workplace("ab" * 32)
    lease = leases.acquire(busy)
    assert lease is not None
    with pytest.raises(StoreError, match=r"job abababababab is under way in .*; wait for it or stop it"):
        lab.run(measure, recompute=["count"])
    assert sorted(lab.store.names()) == before
    assert (busy / "lease").exists()
    lease.clear()
    assert lab.run(measure, recompute=["count"]).computed == [measure.name]


def test_nothing_is_removed_that_another_driver_has_in_its_queue(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    chain, measure = jobs(quick)[:2]
    lab.run(measure)
    before = sorted(lab.store.names())
    code = (
        "import json; from tombola.lab import process; "
        "print(json.dumps(process.identity()), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        identity = json.loads(other.stdout.readline())
        queue = lab.store.root / "work" / ".queue.0123abcd"
        for lists in (
            {"jobs": {measure.name: "count"}, "made_from": {}},
            {"jobs": {}, "made_from": {measure.name: ["ab" * 32]}},
        ):
            queue.write_text(json.dumps({**identity, "begun": 5, **lists}))
            words = rf"process {other.pid} on .* with job {measure.name[:12]}, which is to be computed anew"
            with pytest.raises(StoreError, match=words):
                lab.run(measure, recompute=["count"])
            assert sorted(lab.store.names()) == before
        # What it has of others, and from before, does not matter.
        queue.write_text(
            json.dumps({**identity, "begun": 5, "jobs": {chain[0].name: "train"}, "made_from": {}})
        )
        assert lab.run(measure, recompute=["count"]).computed == [measure.name]
        queue.write_text(
            json.dumps({**identity, "begun": 5, "jobs": {measure.name: "count"}, "made_from": {}})
        )
        other.communicate("\n")
    assert lab.run(measure, recompute=["count"]).computed == [measure.name]


def test_a_refused_call_removes_nothing(lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe) -> None:
    declare()
    chain, _, last = jobs(quick)
    lab.run(last)
    before = list(lab.store.names())

    with pytest.raises(RecipeError, match="stop_after is -1"):
        lab.run(last, recompute=["own-net"], stop_after=-1)
    stop = Stop()
    stop.now("by hand")
    outcome = lab.run(last, recompute=["own-net"], stop_after=stop)
    assert (outcome.removed, outcome.stopped) == ([], "by hand")
    assert set(outcome.left) == {job.name for job in (*chain, *chain[0].needs, last, *last.needs)}
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        tb.Lab(lab.store.root, scheduler="tcp://127.0.0.1:9").run(last, recompute=["own-net"])
    assert list(lab.store.names()) == before

    # The second training would go on from the first one's result, which another engine made.
    place = lab.store.folder(chain[0].name) / "provenance.json"
    write_json(place, {**read_json(place), "engine_version": 0})
    lab.store.folder(chain[1].name).rename(lab.store.root / "aside")
    before = list(lab.store.names())
    strict = tb.Lab(lab.store.root, settings=Settings(strict=True))
    with pytest.raises(JobError, match="came from engine"):
        strict.run(last, recompute=["count"])
    assert list(lab.store.names()) == before
    # What is removed itself is nothing to go on from.
    assert strict.run(last, recompute=["own-net"]).removed == before

    record = lab.store.root / "data" / "digits.json"
    before = list(lab.store.names())
    write_json(record, {**read_json(record), "fingerprint": "0" * 64})
    with pytest.raises(StoreError, match="digits"):
        tb.Lab(lab.store.root).run(last, recompute=["own-net"])
    assert list(lab.store.names()) == before


def test_what_was_removed_is_told(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    declare()
    _, measure, last = jobs(quick)
    lab.run(last)
    for asked, name, count, words in (
        (measure, "count", 2, "removed 2 results, made with count or from such; if this run is interrupted"),
        (measure, "twice", 0, "nothing to remove: no results were made with twice"),
        (last, "count", 1, "removed 1 result, made with count"),
    ):
        with Bar(Console(), lab.store) as bar:
            outcome = lab.run(asked, progress=bar, recompute=[name])
        assert len(outcome.removed) == count
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("moves", range(6))
def test_an_interrupted_removal_leaves_no_result_without_those_it_was_made_from(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    declare()
    _, _, last = jobs(quick)
    lab.run(last)
    left = iter(range(moves))
    rename = disk.rename

    def interrupted(path: Path, target: Path) -> None:
        if path.parent.parent.name == "jobs" and next(left, None) is None:
            raise KeyboardInterrupt
        rename(path, target)

    monkeypatch.setattr(disk, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.run(last, recompute=["own-net"])
    monkeypatch.undo()
    declare()
    names = set(lab.store.names())
    assert len(names) == 6 - moves
    for name in names:
        assert recompute.parents(lab.store.description(name)) <= names
    # What was moved aside is nobody's any more.
    aside = list((lab.store.root / "work").iterdir())
    gc(lab.store, dry_run=False, grace=0)
    assert aside
    assert not any(path.exists() for path in aside)
    counted = {name for name in names if lab.store.description(name)["function"] != "prune"}
    assert set(lab.run(jobs(quick)[2], recompute=["own-net"]).computed) >= counted
    assert lab.result(jobs(quick)[2]) == 640


def test_unfinished_work_of_what_is_recomputed_begins_anew(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    chain, measure, _ = jobs(quick)
    other = jobs(quick, "convnet")[0][0]
    lab.run(chain[0])
    for job in (chain[1], other):
        lab.store.workplace(job.name).mkdir()
        (lab.store.workplace(job.name) / "checkpoint").write_text("half")
    remove_results(lab.store, ["own-net"], [measure, other])
    assert not lab.store.workplace(chain[1].name).exists()
    assert (lab.store.workplace(other.name) / "checkpoint").read_text() == "half"


@pytest.mark.parametrize("version", [1, 2])
def test_a_training_of_an_edited_network_is_not_continued(
    tmp_path: Path,
    version: int,
    declare: Callable[..., None],
    digits: tb.Data,
    recipe: tb.Recipe,
    same_run: Callable[..., bool],
) -> None:
    class Interrupted(tb.Checkpoints):
        def finished_epoch(self, row: Any, epochs: int) -> None:
            if row.epoch == 2:
                raise KeyboardInterrupt

    raised = ('@tb.declare_network("own-net")', f'@tb.declare_network("own-net", version={version})')
    declare(*raised)
    with pytest.raises(KeyboardInterrupt):
        tb.train(
            tb.initialize("own-net", digits), digits, recipe, watch=Interrupted(tmp_path / "kept", every=0)
        )
    assert (tmp_path / "kept" / "checkpoint").exists()
    declare(*raised, *SAME_WEIGHTS)
    ticket = tb.initialize("own-net", digits)
    expected = tb.train(ticket, digits, recipe)
    continued = tb.train(ticket, digits, recipe, watch=tb.Checkpoints(tmp_path / "kept", every=0))
    assert same_run(continued, expected)


def test_data_that_were_derived_from_a_replaced_result_are_derived_anew(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe, digits: tb.Data
) -> None:
    add = (
        "    return 2 * number\n",
        "    return 2 * number\n\n\n@tb.declare('some', stored=False)\n"
        "def some(data: tb.Data, number: float) -> tb.Data:\n"
        "    return tb.subset(data, share=number / 640)\n",
    )

    def trained() -> Job:
        start = tb.job(tb.initialize, "convnet", "digits")
        return tb.job(tb.train, start, call("some", "digits", jobs(quick)[1]), quick)

    declare(*add)
    lab.run(trained())
    assert lab.store.provenance(trained().name)["data"] == {"data": tb.subset(digits, share=0.5).fingerprint}
    declare(*add, "return times * float", "return 64 + times * float")
    lab.run(trained(), recompute=["count"])
    assert lab.store.provenance(trained().name)["data"] == {"data": tb.subset(digits, share=0.6).fingerprint}


def test_every_training_on_derived_data_records_what_derived_them(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    add = (
        "    return 2 * number\n",
        "    return 2 * number\n\n\n@tb.declare('some', stored=False)\n"
        "def some(data: tb.Data) -> tb.Data:\n"
        "    return tb.subset(data, share=0.5)\n",
    )
    declare(*add)
    start = tb.job(tb.initialize, "convnet", "digits")
    trainings = [tb.job(tb.train, start, call("some", "digits"), quick, noise=noise) for noise in range(2)]
    lab.run(trainings).raise_failures()
    for training in trainings:  # the second finds the data in memory
        assert lab.store.provenance(training.name)["source"]["functions"].keys() == {"some"}


def test_a_store_without_records_opens_as_before(
    lab: tb.Lab, declare: Callable[..., None], quick: tb.Recipe
) -> None:
    declare()
    last = jobs(quick)[2]
    lab.run(last)
    for name in lab.store.names():
        place = lab.store.folder(name) / "provenance.json"
        write_json(place, {key: value for key, value in read_json(place).items() if key != "source"})
    declare(*OTHER, *OTHER_NET)
    assert not said(lambda: tb.Lab(lab.store.root).run(jobs(quick)[2]))
    assert len(remove_results(Store(lab.store.root), ["own-net"])) == 6  # of them one ticket
