"""The card of a pushed ticket or run: what it is, how it was trained and learned, and how to load it.

Its first lines are metadata that the hub reads. Names in it may be a stranger's, so they are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from tombola.data.catalogue import CATALOGUE
from tombola.data.imageset import Data
from tombola.errors import NetworkError
from tombola.measures.layers import layer_sparsity
from tombola.report.markdown import inert_markdown, inert_table
from tombola.sharing.plain_pytorch import other_packages
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe, has_momentum
from tombola.training.run import Run
from tombola.version import __version__

CURVE = "curve.png"

# Entries of a recipe that are told also at their defaults.
_USUAL = (
    "epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule", "augmentation", "optimizer", "loss",
)  # fmt: skip
# Of a job's provenance, what the card tells; not on which host it ran, nor as which process.
_TOLD = {
    "tombola": "tombola",
    "torch": "PyTorch",
    "device": "device",
    "hardware": "hardware",
    "precision": "precision",
    "engine": "steps",
    "started": "begun",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Background:
    """What a ticket or run does not know of itself.

    data: what it was trained on, or shall be; data_name: what that is called, where it is not at hand.
    recipe: how it was trained. job: the name of the finished job. provenance: of that job.
    """

    data: Data | None = None
    data_name: str = ""
    recipe: Recipe | None = None
    job: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """What the data are called; empty if nobody said it."""
        return self.data.name if self.data is not None else self.data_name


def model_card(
    subject: Run | Ticket, background: Background, repository: str, program: str, license: str | None
) -> str:
    """The card as Markdown.

    program: loads it in PyTorch alone. license: as the hub abbreviates it, such as "mit".
    """
    name = repository.rpartition("/")[2]
    ticket, run = (subject.ticket, subject) if isinstance(subject, Run) else (subject, None)
    parts = [
        f"---\n{_metadata(subject, background, name, license)}\n---\n",
        f"# {name}\n",
        _sentence(ticket, run, background) + "\n",
        inert_table(("", ""), _facts(ticket, run, background)),
    ]
    if run is not None and not run.foreign:
        parts += ["## Learning curve\n", f"![Accuracy and loss by epoch]({CURVE})\n"]
    if run is not None:
        parts += ["## Recipe\n", _recipe(run, background)]
    parts += ["## Load it in PyTorch\n", _needs(program), f"```python\n{program}```\n"]
    kind = type(subject).__name__
    parts += [
        "## Load it in tombola\n",
        f'```python\nimport tombola as tb\n\n{kind.lower()} = tb.{kind}.from_hub("{repository}")\n```\n',
        "With the mask, the start that it was found from"
        + (", the history and the forgetting record" if run is not None else "")
        + "; every value is to the bit the one that was pushed.\n",
        "<details><summary>Sparsity of each layer</summary>\n",
        inert_table(("layer", "weights kept", "pruned"), _layers(ticket)),
        "</details>\n",
    ]
    if background.job:
        origin_rows = [
            (label, background.provenance[key])
            for key, label in _TOLD.items()
            if background.provenance.get(key)
        ]
        parts += ["## Where it comes from\n", inert_table(("", ""), [("job", background.job), *origin_rows])]
    return "\n".join(parts)


def _metadata(subject: Run | Ticket, background: Background, name: str, license: str | None) -> str:
    """The metadata of the card as YAML; of no licence that nobody chose."""
    from huggingface_hub import EvalResult, ModelCardData

    ticket = subject.ticket if isinstance(subject, Run) else subject
    is_image = len(ticket.network.shape) == 3 and ticket.network.vocabulary is None
    hub_name = _hub_data(background)
    options: dict[str, Any] = {
        "library_name": "tombola",
        "license": license,
        "tags": ["lottery-ticket", "pruning", "sparsity", "pytorch", "safetensors"],
        "pipeline_tag": "image-classification" if is_image else None,
        "datasets": [hub_name] if hub_name else None,
    }
    if isinstance(subject, Run) and not subject.foreign and background.dataset:
        options |= {"metrics": ["accuracy"], "model_name": name}
        options["eval_results"] = [
            EvalResult(
                task_type="image-classification" if is_image else "other",
                dataset_type=hub_name or background.dataset,
                dataset_name=background.dataset,
                dataset_split="test",
                metric_type="accuracy",
                metric_name="test accuracy after the last epoch, from 0 to 1",
                metric_value=round(subject.accuracy / 100, 6),
            )
        ]
    return str(ModelCardData(**options).to_yaml())


def _hub_data(background: Background) -> str:
    """The repository of the data on the hub; empty if they are from elsewhere."""
    if background.dataset in CATALOGUE:
        return CATALOGUE[background.dataset].repository
    source = background.data.source if background.data is not None else None
    return source if source and source.count("/") == 1 and not source.startswith(("/", ".")) else ""


def _sentence(ticket: Ticket, run: Run | None, background: Background) -> str:
    """What it is, in a sentence or two."""
    network = inert_markdown(ticket.network.written)
    share = f"{100 * ticket.sparsity:.2f}% of its {ticket.total:,} prunable weights"
    state = (
        f"with {share} pruned"
        if ticket.kept < ticket.total
        else f"dense, with {ticket.total:,} prunable weights"
    )
    on = f" on {inert_markdown(background.dataset)}" if background.dataset else ""
    if run is None:
        return (
            f"A lottery ticket (a start with a mask, to be trained{on}) of **{network}**, {state}. "
            f"Found by tombola {__version__}."
        )
    accuracy = (
        ""
        if run.foreign
        else f" {run.accuracy:.2f}% of the test images are classified correctly after the last epoch."
    )
    trained = "A run that was trained elsewhere" if run.foreign else "A trained network"
    failed = (
        "" if not run.failed else f" **The training {'diverged' if run.diverged else 'stayed at chance'}.**"
    )
    return f"{trained}{on}: **{network}**, {state}.{accuracy}{failed}"


def _facts(ticket: Ticket, run: Run | None, background: Background) -> Iterable[tuple[str, object]]:
    """What stands in the first table."""
    network = ticket.network
    yield "network", f"{network.written}, for {network.inputs}, {network.classes} classes"
    if background.dataset:
        yield "data", background.dataset
    yield "sparsity", f"{100 * ticket.sparsity:.4f}% ({ticket.kept:,} of {ticket.total:,} weights kept)"
    with suppress(NetworkError):  # of a factory that is not at hand
        yield "parameters", ticket.coverage
    yield "prunings", ticket.round
    yield (
        "start",
        f"{ticket.start_fingerprint[:12]}, taken at {ticket.place}" if ticket.has_start else "not known",
    )
    if ticket.collapsed_layers:
        yield "layers of which nothing is left", ", ".join(ticket.collapsed_layers)
    if ticket.hub is not None:
        yield "made from", ticket.hub
    if run is not None and not run.foreign:
        last = run.history[-1]
        yield (
            "test accuracy",
            f"{last.test_accuracy:.2f}% after the last epoch ({run.best_accuracy:.2f}% at best)",
        )
        yield "test loss", f"{last.test_loss:.4g} nats"
        yield "epochs", f"{ticket.epoch} to {last.epoch:.6g}"
        yield "noise", run.noise
        yield "precision", f"{run.precision} on {run.device}, {run.engine}"


def _recipe(run: Run, background: Background) -> str:
    """The recipe as a table and as Python takes it; of one that is not known what the history shows of it."""
    if background.recipe is not None:
        defaults, recipe = Recipe(), background.recipe
        usual = [name for name in _USUAL if name != "momentum" or has_momentum(recipe.optimizer)]
        names = [
            entry.name
            for entry in fields(Recipe)
            if entry.name in usual or getattr(recipe, entry.name) != getattr(defaults, entry.name)
        ]
        rows = [(name, getattr(recipe, name)) for name in names]
        return f"{inert_table(('', ''), rows)}\nAs tombola takes it: {inert_markdown(f'tb.{recipe!r}')}\n"
    if run.foreign:
        return "It was trained elsewhere; how is not known.\n"
    rates = run.history.column("lr")
    return (
        "The recipe was not told when this was pushed. The history shows "
        f"{len(run.history) - 1} epochs at learning rates from {rates[0]:.4g} to {rates[-1]:.4g}.\n"
    )


def _layers(ticket: Ticket) -> Iterable[tuple[str, object, object]]:
    """Each prunable weight with what is kept of it."""
    shares = layer_sparsity(ticket)
    for name, keep in ticket.mask.items():
        yield name, f"{int(keep.sum()):,} of {keep.numel():,}", f"{100 * shares[name]:.2f}%"


def _needs(program: str) -> str:
    """Which packages the program wants."""
    packages = ["torch", "safetensors", "huggingface_hub", *other_packages(program)]
    return f"Without tombola: `pip install {' '.join(packages)}`.\n"
