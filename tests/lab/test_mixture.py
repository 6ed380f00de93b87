"""Trainings that go on from results of another origin say so; strict refuses them."""

import re
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tombola as tb
from tombola.errors import JobError
from tombola.lab import mixture
from tombola.lab.chains import imp_jobs
from tombola.lab.execute import Settings
from tombola.lab.mixture import distinct_origins, origin
from tombola.lab.store import write_json
from tombola.training import device

CPU = torch.device("cpu")


@pytest.fixture
def chain(quick: tb.Recipe) -> list[tb.Job]:
    return imp_jobs("convnet", "digits", quick, rounds=2)


def came_from(lab: tb.Lab, job: tb.Job, **origin: Any) -> None:
    """Let a finished job have been computed elsewhere."""
    made = lab.store.provenance(job.name) | origin
    write_json(
        lab.store.folder(job.name) / "provenance.json",
        {key: value for key, value in made.items() if value is not None},
    )


def said_in(lab: tb.Lab, jobs: list[tb.Job]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lab.run(jobs).raise_failures()
    return [str(each.message) for each in caught]


def test_a_chain_of_one_origin_says_and_records_nothing(lab: tb.Lab, chain: list[tb.Job]) -> None:
    lab.run(chain[0]).raise_failures()
    assert lab.store.provenance(chain[0].name)["engine_version"] == mixture.ENGINE_VERSIONS["cpu"]
    assert said_in(tb.Lab(lab.store.root, settings=Settings(strict=True)), chain) == []
    assert all("mixed" not in lab.store.provenance(name) for name in lab.store.names())


@pytest.mark.parametrize(
    ("key", "there", "what"),
    [
        ("torch", "2.1.0+cu118", "torch 2.1.0 "),
        ("hardware", "NVIDIA A100", "hardware NVIDIA A100 "),
        ("engine_version", 7, "engine version 7 "),
    ],
)
def test_a_training_that_goes_on_from_elsewhere_is_told_once_and_recorded(
    lab: tb.Lab, chain: list[tb.Job], key: str, there: Any, what: str
) -> None:
    lab.run(chain[0]).raise_failures()
    came_from(lab, chain[0], **{key: there})
    (line,) = said_in(lab, chain)
    assert line.startswith(f"1 result that trainings go on from came from {what}(here ")
    assert line.endswith("): such trainings are recorded as mixed, and refused with --strict")
    (difference,) = lab.store.provenance(chain[1].name)["mixed"]
    assert difference["job"] == chain[0].name
    assert difference["there"] in str(there)
    assert difference["here"] == origin(CPU)[key]
    assert "mixed" not in lab.store.provenance(chain[2].name)  # its own parent is of here


def test_what_every_round_is_rewound_to_counts_at_every_round(lab: tb.Lab, quick: tb.Recipe) -> None:
    """From round 2 on only the rewound start is of elsewhere, by way of no run."""
    two = replace(quick, epochs=2)
    chain = imp_jobs("convnet", "digits", two, rounds=2, rewind=1)
    lab.run(chain[0]).raise_failures()
    start = chain[0].parents[0]
    came_from(lab, start, torch="2.1.0")
    assert len(said_in(lab, chain[:2])) == 1
    assert len(said_in(lab, chain)) == 1
    (difference,) = lab.store.provenance(chain[2].name)["mixed"]
    assert difference["job"] == start.name


def test_strict_goes_on_from_nothing_that_is_mixed_itself(lab: tb.Lab, chain: list[tb.Job]) -> None:
    lab.run(chain[0]).raise_failures()
    came_from(lab, chain[0], torch="2.1.0")
    said_in(lab, chain[:2])
    strict = tb.Lab(lab.store.root, settings=Settings(strict=True))
    failed = strict.run(chain[2]).failed
    assert re.match(r"strict: job \w{12} is mixed itself; leave out --strict", failed[chain[2].name])


def test_strict_refuses_before_anything_is_computed(lab: tb.Lab, chain: list[tb.Job]) -> None:
    lab.run(chain[0]).raise_failures()
    came_from(lab, chain[0], torch="2.1.0")
    before = set(lab.store.names())
    strict = tb.Lab(lab.store.root, settings=Settings(strict=True))
    with pytest.raises(JobError, match=r"came from torch 2\.1\.0 \(here .*refused with --strict"):
        strict.run(chain)
    assert set(lab.store.names()) == before


def test_a_worker_refuses_what_its_driver_could_not_know(
    lab: tb.Lab, chain: list[tb.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(chain[0]).raise_failures()
    came_from(lab, chain[0], torch="2.1.0")
    strict = tb.Lab(lab.store.root, settings=Settings(strict=True))
    monkeypatch.setattr(strict, "_check_mixtures", lambda *_: None)
    failed = strict.run(chain[1]).failed
    assert re.match(r"strict: torch 2\.1\.0 computed job \w{12}, here is", failed[chain[1].name])


def test_results_of_before_engines_had_versions_are_of_the_first(
    lab: tb.Lab, chain: list[tb.Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(chain[0]).raise_failures()
    came_from(lab, chain[0], engine_version=None)
    monkeypatch.setitem(mixture.ENGINE_VERSIONS, "cpu", 1)
    assert said_in(lab, [chain[1]]) == []
    monkeypatch.setitem(mixture.ENGINE_VERSIONS, "cpu", 2)
    (line,) = said_in(lab, [chain[2]])
    assert "engine version 1 (here 2)" in line


@pytest.mark.parametrize(
    ("there", "here", "what"),
    [
        ("none", "58b2f705b4c3", "convolution plans none (here 58b2f705b4c3)"),
        ("58b2f705b4c3", "1f0000000000", "convolution plans 58b2f705b4c3 (here 1f0000000000)"),
        ("58b2f705b4c3", "58b2f705b4c3", None),
        (None, "58b2f705b4c3", None),  # of before they were recorded
    ],
)
def test_other_convolution_plans_are_another_origin(
    lab: tb.Lab,
    chain: list[tb.Job],
    monkeypatch: pytest.MonkeyPatch,
    there: str | None,
    here: str,
    what: str | None,
) -> None:
    lab.run(chain[0]).raise_failures()
    came_from(lab, chain[0], convolution_plans=there)
    monkeypatch.setattr(mixture, "convolution_plans", lambda _: here)
    lines = said_in(lab, [chain[1]])
    assert len(lines) == (what is not None)
    assert what is None or what in lines[0]


@pytest.mark.parametrize(
    ("gpu", "cudnn", "plans"),
    [("NVIDIA H200", 91900, "58b2f705b4c3"), ("NVIDIA H200", 91000, "none"), ("NVIDIA L4", 91900, "none")],
)
def test_a_gpu_has_the_plans_of_its_table(
    monkeypatch: pytest.MonkeyPatch, gpu: str, cudnn: int, plans: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: gpu)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    monkeypatch.setattr(device, "triton_version", lambda: None)  # whose tables are tested beside them
    assert origin(torch.device("cuda"))["convolution_plans"] == plans
    assert origin(CPU)["convolution_plans"] == ""


def test_exact_results_and_measures_mix_nothing(lab: tb.Lab, chain: list[tb.Job]) -> None:
    start = chain[0].parents[0]
    lab.run(start).raise_failures()
    came_from(lab, start, hardware="NVIDIA A100", torch="2.1.0")
    assert said_in(lab, chain[:2]) == []
    came_from(lab, chain[0], torch="2.1.0")
    assert said_in(lab, [tb.job(tb.barrier, chain[0], chain[1], "digits", points=3)]) == []


def test_workers_of_one_kind_are_one_origin_and_those_without_the_device_none() -> None:
    answers = {"a": origin(CPU), "b": origin(CPU), "c": origin(CPU) | {"hardware": "other"}, "d": {}}
    client = SimpleNamespace(run=lambda function, device: answers)
    assert sorted(each["hardware"] for each in distinct_origins(client, "cpu")) == sorted(
        [origin(CPU)["hardware"], "other"]
    )
