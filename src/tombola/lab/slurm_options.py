"""Options of Slurm's ``sbatch`` out of one text such as ``partition=gpu,gpus=4,time=24:00:00``.

What decides how the scripts look (:mod:`tombola.lab.slurm_scripts`) is checked here; any other option is
handed on, and ``sbatch`` judges it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tombola.errors import ExperimentError

# An option begins at a name with "="; other commas belong to the value before: mail-type=END,FAIL.
_NEXT = re.compile(r",(?=[a-z][a-z0-9_-]*=)")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_EXAMPLE = "partition=gpu,gpus=4,time=24:00:00"

_COUNT = r"[1-9]\d{0,5}"
_FORMS: Mapping[str, tuple[str, str]] = {
    "nodes": (_COUNT, "give a number of machines, such as nodes=2"),
    "gpus": (rf"([A-Za-z][\w.-]*:)?{_COUNT}", "give the GPUs of all machines together, such as gpus=4"),
    "cpus-per-task": (_COUNT, "give the CPUs of each machine, such as cpus=8"),
    "mem": (r"\d+[KMGT]?", "give the memory of each machine, such as mem=64G"),
    "time": (
        r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|UNLIMITED",
        "give minutes, hours:minutes:seconds or days-hours, such as time=24:00:00",
    ),
    "partition": (".+", "name one, such as partition=gpu"),
    "account": (".+", "name one, such as account=lab"),
    "qos": (".+", "name one, such as qos=normal"),
    "constraint": (".+", "name one, such as constraint=h100"),
}
_LONG_NAMES = {"cpus": "cpus-per-task"}
# Set by the scripts themselves: why they would not work with another value.
_OURS: Mapping[str, str] = {
    "array": "the workers of several machines are one already",
    "chdir": "a job works in the folder where the command was called",
    "dependency": "the workers wait for their experiment by it",
    "error": "the log of a job has its errors, too",
    "input": "a job reads none",
    "job-name": "the job has the name of its experiment",
    "no-requeue": "at its time limit the job goes back into the queue",
    "ntasks": "tombola starts its processes itself",
    "ntasks-per-node": "tombola starts its processes itself",
    "open-mode": "the log of a job goes on after it was requeued",
    "output": "the log of a job lies beside its scripts",
    "parsable": "the command prints the number of the job by itself",
    "requeue": "the scripts have it already",
    "test-only": "--dry-run shows what would be submitted",
    "wait": "squeue tells when a job has ended",
    "wrap": "the job runs this very command",
}
# Of a machine that computes; the job of scheduler and driver, where it is one of its own, is without them.
_OF_WORKERS = re.compile(
    r"gpu.*|.*-per-gpu|gres.*|tres.*|mem.*|cpus-per-task|exclusive|cores-per-.*|threads-.*"
)


@dataclass(frozen=True)
class SlurmOptions:
    """What to ask Slurm for.

    nodes: machines; each has an equal share of the GPUs.
    named: the options of each machine by their long names, as ``sbatch`` takes them; "" for a flag.
    """

    nodes: int = 1
    named: Mapping[str, str] = field(default_factory=dict)

    def of_driver(self) -> dict[str, str]:
        """Those of a job that computes nothing itself."""
        return {name: value for name, value in self.named.items() if not _OF_WORKERS.fullmatch(name)}

    def in_words(self) -> str:
        """The machines and their options, for a line of output."""
        machines = "1 machine" if self.nodes == 1 else f"{self.nodes} machines, each"
        options = ", ".join(f"{name} {value}".rstrip() for name, value in self.named.items())
        return f"{machines} with {options}" if options else machines


def parse_slurm_options(text: str) -> SlurmOptions:
    """The options in a text of ``name=value`` divided by commas; a flag is a name with nothing after ``=``.

    Raises :class:`~tombola.errors.ExperimentError` for a text that is none, an option twice, one that the
    scripts set themselves, a value that cannot be right, and any character that is not printable.
    """
    if not text.isprintable():
        raise ExperimentError(f"--slurm is {text!r}; line breaks and control characters have no place there")
    named: dict[str, str] = {}
    for item in _NEXT.split(text):
        option, mark, value = item.partition("=")
        if not mark or not _NAME.fullmatch(option):
            raise ExperimentError(f"--slurm has {item!r}; give names of sbatch's options, such as {_EXAMPLE}")
        name = _LONG_NAMES.get(option, option)
        if name in named:
            raise ExperimentError(f"--slurm has {option} twice; give it once")
        if name in _OURS:
            raise ExperimentError(f"--slurm has {option}, but {_OURS[name]}; leave it out")
        _check_value(option, name, value)
        named[name] = value
    nodes = int(named.pop("nodes", "1"))
    if nodes > 1 and "gpus" in named:
        named["gpus"] = _share(named["gpus"], nodes)
    return SlurmOptions(nodes, named)


def _check_value(given: str, name: str, value: str) -> None:
    """Raises ExperimentError for a misspelt name, or a value that an option of ours cannot have."""
    if name not in _FORMS:
        near = difflib.get_close_matches(name, [*_FORMS, *_LONG_NAMES], n=1, cutoff=0.8)
        if near and near[0] != "cpus-per-task":  # sbatch has options that are alike, such as cpus-per-gpu
            raise ExperimentError(f"--slurm has no option {given!r}; did you mean {near[0]!r}?")
        return
    form, remedy = _FORMS[name]
    if not re.fullmatch(form, value):
        raise ExperimentError(f"--slurm has {given}={value}; {remedy}")


def _share(gpus: str, nodes: int) -> str:
    """The GPUs of one machine, as ``4`` or ``a100:4``."""
    kind, mark, count = gpus.rpartition(":")
    if int(count) % nodes:
        raise ExperimentError(
            f"--slurm has gpus={gpus} for nodes={nodes}; give each machine equally many, or leave nodes out"
        )
    return f"{kind}{mark}{int(count) // nodes}"
