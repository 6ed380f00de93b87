"""The teacher of a distillation before anything is trained: found by its name, told in keys, and checked.

A teacher is a job of a run or ticket, or a run or ticket of the caller's own; :func:`~tombola.train` takes
the result. What only its tensors tell is checked when the first training begins.
"""

from __future__ import annotations

import os

from tombola.data.imageset import Data
from tombola.data.sizes import SIZES, known_size
from tombola.errors import JobError, RecipeError
from tombola.lab.finished import run_or_ticket, subject_of
from tombola.lab.job import Job, everything_behind, result_type
from tombola.lab.starts import rebuilt_job
from tombola.lab.store import Store
from tombola.table.key import Scalar
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe
from tombola.training.run import Run

Teacher = Job | Run | Ticket


def named_teacher(store: Store | None, text: str) -> Teacher:
    """The finished job whose name begins so, with all behind it, or the run or ticket of a file.

    Raises :class:`~tombola.errors.JobError` if there is none or several, for a job of something else, and
    without a store for what is no file.
    """
    if store is None:
        if not os.path.isfile(text):
            raise JobError(
                f"teacher {text!r:.60} is no file, and a finished job is found by its name in a store alone; "
                "give it, as at(lab.store), or the job itself"
            )
        return run_or_ticket(text)
    subject = subject_of(store, "distillation", "teacher", text, (Run, Ticket))
    return rebuilt_job(store, subject.name) if isinstance(subject, Job) else subject


def check_taught(recipe: Recipe, teacher: Teacher | None, data: object) -> None:
    """Raises RecipeError for a teacher that is missing, of no use, or of another number of classes.

    data: what is trained on, as a call takes it; its classes are compared where both are known unloaded.
    """
    if recipe.loss == "distillation" and teacher is None:
        raise RecipeError(
            "loss 'distillation' needs a teacher; give a finished run or ticket, teacher=, or on the command "
            "line, --teacher JOB"
        )
    if teacher is None:
        return
    if recipe.loss != "distillation":
        raise RecipeError(f"a teacher is given, but loss is {recipe.loss!r}; use loss='distillation'")
    if isinstance(teacher, Job) and result_type(teacher.declaration) not in (Run, Ticket):
        raise RecipeError(f"teacher is {teacher!r}; it must be the job of a run or ticket")
    size, classes = known_size(data), classes_of(teacher)
    if size is not None and classes is not None and size.classes != classes:
        raise RecipeError(
            f"the teacher {network_of(teacher) or 'given'} is for {classes} classes, the data have "
            f"{size.classes}; they must agree"
        )


def axes_of(teacher: Teacher) -> dict[str, Scalar]:
    """The axes by which a key tells a teacher: its network, and the beginning of its name."""
    name = teacher.name if isinstance(teacher, Job) else teacher.fingerprint
    network = network_of(teacher) if isinstance(teacher, Job) else None
    return {"teacher": network or "own", "teacher_job": name[:12]}


def network_of(teacher: Teacher) -> str | None:
    """The name of a teacher's network; None where it is not written down."""
    if not isinstance(teacher, Job):
        return (teacher if isinstance(teacher, Ticket) else teacher.ticket).network.written
    drawn = _drawn(teacher)
    network = None if drawn is None else drawn.arguments.get("network")
    return network if isinstance(network, str) else None


def classes_of(teacher: Teacher) -> int | None:
    """The number of classes of a teacher; None where only its data, or its tensors, tell."""
    if not isinstance(teacher, Job):
        return (teacher if isinstance(teacher, Ticket) else teacher.ticket).network.classes
    drawn = _drawn(teacher)
    data = None if drawn is None else drawn.arguments.get("data")
    name = data.get("data") if isinstance(data, dict) else None
    if drawn is None or not isinstance(name, str):
        return None
    source = drawn.data.get(name)
    size = known_size(source) if isinstance(source, Data) else SIZES.get(name)
    return None if size is None else size.classes


def _drawn(teacher: Job) -> Job | None:
    """The job that drew the first weights of a teacher."""
    return next((job for job in everything_behind([teacher]) if job.declaration.name == "initialize"), None)
