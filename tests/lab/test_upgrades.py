"""What the running versions mean for a store: of another torch, another version of a function or network."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola import files, registry
from tombola.declarations import BY_KIND
from tombola.lab.chains import imp_jobs
from tombola.lab.job import all_needed
from tombola.lab.job_versions import Environment
from tombola.lab.mixture import origin
from tombola.lab.store import write_json
from tombola.lab.upgrade_lines import upgrade_lines
from tombola.lab.upgrades import JobGroup, Upgrades, upgrades
from tombola.training.device import environment

HERE = origin(torch.device("cpu"))
OLD = {"torch": "2.9.0+cu126", "numpy": "2.1.3", "hardware": "NVIDIA H200", "device": "cuda"}


def chain_jobs(recipe: tb.Recipe) -> list[tb.Job]:
    return imp_jobs("convnet", "digits", recipe, rounds=2, fraction=0.5)


def barriers(first: tb.Job, *others: tb.Job) -> list[tb.Job]:
    return [tb.job(tb.barrier, first, other, "digits", points=3) for other in others]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, quick: tb.Recipe) -> Path:
    """A store with a chain of three trainings, a copy of its first, and barriers to that and the second."""
    root = tmp_path_factory.mktemp("finished") / "store"
    runs = chain_jobs(quick)
    tb.Lab(root).run([*runs, *barriers(runs[0], runs[1], copy_of(runs[0], quick))]).raise_failures()
    return root


def copy_of(run: tb.Job, recipe: tb.Recipe) -> tb.Job:
    return tb.job(tb.train, run.parents[0], "digits", recipe, noise=5)


@pytest.fixture
def chain(finished: Path, lab: tb.Lab, quick: tb.Recipe) -> list[tb.Job]:
    """The three trainings of the chain, in the lab's store."""
    shutil.copytree(finished, lab.store.root, dirs_exist_ok=True)
    return chain_jobs(quick)


def came_from_elsewhere(lab: tb.Lab, jobs: Iterable[tb.Job]) -> None:
    """Let finished jobs have been computed in an older environment."""
    for job in jobs:
        made = lab.store.provenance(job.name) | OLD
        write_json(lab.store.folder(job.name) / "provenance.json", made)


def told(found: Upgrades) -> str:
    return "\n".join(upgrade_lines(found))


def test_in_one_environment_there_is_nothing_to_do(lab: tb.Lab, chain: list[tb.Job]) -> None:
    found = upgrades(lab.store, "cpu")
    assert set(found.valid.names) == set(lab.store.names())
    ((made, group),) = found.environments.items()
    assert (made, group.trainings) == (found.here, 4)
    assert {job.name for job in chain} <= set(group.names)
    assert set(found.exact.names) == set(lab.store.names()) - set(group.names)
    assert found.others == found.renamed == {}
    assert found.mixed_cells == []
    assert told(found).endswith("nothing: all that is here has the bits and names of the running versions")


def test_an_older_torch_leaves_jobs_valid_and_tells_what_would_mix(
    lab: tb.Lab, quick: tb.Recipe, chain: list[tb.Job]
) -> None:
    came_from_elsewhere(lab, [chain[0], chain[1]])
    found = upgrades(lab.store, "cpu")
    old = Environment(tb.__version__, "2.9.0", HERE["engine_version"], "NVIDIA H200")
    assert set(found.valid.names) == set(lab.store.names())
    assert set(found.others) == {old}
    group = found.others[old]
    assert (set(group.names), group.trainings) == ({chain[0].name, chain[1].name}, 2)
    seconds = sum(float(row["seconds"]) for job in chain[:2] for row in lab.store.history(job.name))
    assert group.seconds >= seconds > 0
    assert group.bytes == sum(
        file.stat().st_size for job in chain[:2] for file in lab.store.folder(job.name).iterdir()
    )
    # The third round went on from the second; the copy of the first has nothing behind it but the start.
    assert found.to_continue == ()
    compared = {job for cell in found.mixed_cells for job in cell.jobs}
    both = barriers(chain[0], chain[1], copy_of(chain[0], quick))
    assert {barrier.name for barrier in both} <= compared
    assert chain[1].name not in compared  # alone under its key, and all of one environment
    text = told(found)
    assert "old/bin/pip install tombola==0.1.0 torch==2.9.0 numpy==2.1.3" in text
    assert "or train it anew, 2 trainings, " in text


def test_the_end_of_a_chain_of_elsewhere_goes_on_mixed(lab: tb.Lab, quick: tb.Recipe) -> None:
    runs = chain_jobs(quick)
    lab.run(runs[:2]).raise_failures()
    came_from_elsewhere(lab, runs[:2])
    assert upgrades(lab.store, "cpu").to_continue == (runs[1].name,)
    with pytest.warns(UserWarning, match="recorded as mixed"):
        lab.run(runs).raise_failures()
    found = upgrades(lab.store, "cpu")
    assert found.to_continue == ()
    assert found.mixed == (runs[2].name,)


def names(*groups: JobGroup) -> set[str]:
    return {name for group in groups for name in group.names}


def raise_function(name: str) -> None:
    registry._declarations[name] = replace(registry.declaration(name), version=9, unchanged={})


@pytest.mark.parametrize("what", ["train", "prune", "barrier"])
def test_raised_functions_rename_what_the_same_chain_would_not_find(
    lab: tb.Lab, quick: tb.Recipe, chain: list[tb.Job], what: str
) -> None:
    raise_function(what)
    runs = chain_jobs(quick)
    asked = all_needed([*runs, *barriers(runs[0], runs[1], copy_of(runs[0], quick))]).keys()
    found = upgrades(lab.store, "cpu")
    assert set(found.valid.names) == asked & set(lab.store.names())
    assert names(*found.renamed.values(), found.made_from_renamed) == set(lab.store.names()) - asked
    ((cause, group),) = found.renamed.items()
    assert cause == f"function {what} has version 9 here, and these are of version 1"
    assert {lab.store.description(name)["function"] for name in group.names} == {what}


def test_a_new_network_renames_what_names_it_without_a_version(
    lab: tb.Lab, quick: tb.Recipe, chain: list[tb.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.lab import job_versions

    networks = BY_KIND["networks"]
    job_versions._judged_part.cache_clear()
    monkeypatch.setitem(networks._built_in, "convnet", 2 * networks._built_in["convnet"])
    assert not all_needed(chain_jobs(quick)).keys() & set(lab.store.names())
    found = upgrades(lab.store, "cpu")
    job_versions._judged_part.cache_clear()
    ((cause, group),) = found.renamed.items()
    assert cause == "network convnet means convnet@2 here, and these are of convnet@1"
    assert names(group, found.made_from_renamed) == set(lab.store.names())
    assert found.networks["convnet"][0] == "convnet@2"
    assert set(found.networks["convnet"][1].names) == set(lab.store.names())
    old = imp_jobs("convnet@1", "digits", quick, rounds=2, fraction=0.5)
    assert all_needed(old).keys() <= set(lab.store.names())  # found, as the lines say, where it is named so


def test_what_is_not_declared_here_is_not_judged(lab: tb.Lab, chain: list[tb.Job]) -> None:
    @tb.declare("own-measure")
    def own_measure(run: tb.Run) -> float:
        return 1.0

    lab.run(tb.job(own_measure, chain[0])).raise_failures()
    del registry._declarations["own-measure"]
    found = upgrades(lab.store, "cpu")
    ((cause, group),) = found.not_judged.items()
    assert (cause, len(group.names)) == ("function own-measure is not declared here", 1)
    assert not set(group.names) & set(found.exact.names)


def test_checkpoints_and_lost_weights_of_elsewhere_are_told(lab: tb.Lab, chain: list[tb.Job]) -> None:
    came_from_elsewhere(lab, chain[:1])
    lab.store.thin(chain[0].name)
    here = environment(torch.device("cpu"), "float32", "eager", "default")
    others = {"a": {"torch": "2.9.0+cu126"}, "b": {}, "c": {"numpy": "1.0"}, "d": {"precision": "bfloat16"}}
    for digit, other in others.items():
        workplace = lab.store.workplace(digit * 64)
        workplace.mkdir()
        made = {"environment": here | other}
        files.write_tensors(workplace / "checkpoint", "tombola.checkpoint/1", made, {})
    found = upgrades(lab.store, "cpu")
    assert found.thin == (chain[0].name,)
    assert found.begin_anew == ("a" * 64, "c" * 64)


def test_damage_is_told_and_hides_nothing(lab: tb.Lab, chain: list[tb.Job]) -> None:
    (lab.store.folder(chain[2].name) / "provenance.json").write_text('{"seconds": "\\u001b[2Jlong"}')
    found = upgrades(lab.store, "cpu")
    assert len(found.valid.names) == len(list(lab.store.names())) - 1
    (line,) = found.damaged
    assert line.startswith(f"job {chain[2].name[:12]} is damaged: its provenance has another form")


def test_what_a_stranger_wrote_runs_nothing_where_it_is_pasted(lab: tb.Lab, chain: list[tb.Job]) -> None:
    made = lab.store.provenance(chain[0].name) | {"torch": "2.9; touch pwned", "numpy": "$(touch pwned)"}
    write_json(lab.store.folder(chain[0].name) / "provenance.json", made)
    (line,) = (line for line in upgrade_lines(upgrades(lab.store, "cpu")) if "pip install" in line)
    assert line.endswith(f"tombola=={tb.__version__} 'torch==2.9; touch pwned' 'numpy==$(touch pwned)'")


def test_the_command_changes_nothing_and_tells_all_as_json(
    lab: tb.Lab, chain: list[tb.Job], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola import cli

    def content() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in lab.store.root.rglob("*") if file.is_file()}

    def told_by(*options: str) -> str:
        monkeypatch.setattr("sys.argv", ["tombola", "upgrades", *options, "--store", str(lab.store.root)])
        cli.main()
        return capsys.readouterr().out

    came_from_elsewhere(lab, chain[:2])
    before = content()
    found = json.loads(told_by("--device", "cpu", "--json"))
    text = told_by("--device", "cpu")
    assert content() == before
    assert set(found) == {
        "store", "here", "environments", "exact", "networks", "valid", "renamed", "made_from_renamed",
        "not_judged", "to_continue", "without_weights", "begin_anew", "mixed", "mixed_comparisons", "damaged",
    }  # fmt: skip
    (old,) = (made for made in found["environments"] if not made["same_bits_as_here"])
    assert set(old) == {
        "tombola", "torch", "engine", "hardware", "numpy", "same_bits_as_here", "names", "trainings",
        "seconds", "bytes",
    }  # fmt: skip
    assert (old["torch"], old["numpy"], old["names"]) == (
        "2.9.0",
        "2.1.3",
        sorted(job.name for job in chain[:2]),
    )
    assert f"torch 2.9.0, engine {HERE['engine_version']}, NVIDIA H200: 2 jobs (2 trainings), " in text
