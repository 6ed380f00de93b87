"""Experiments in words: what is trained, pruned, compared and repeated, in the sentences of a page.

Budgets and seeds stand in words under tables too. All of it follows from the fields; no result is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tombola.data.augmentation import Augmentation
from tombola.experiments.diet_chains import Diet
from tombola.experiments.experiment_fields import ExperimentFields, choices_of, name_of, numbered_causes
from tombola.experiments.searches import searches_of
from tombola.lab.teacher import axes_of
from tombola.pruning.prune import Rates
from tombola.pruning.scores import DEFAULT
from tombola.table.key import Baseline
from tombola.table.number import many
from tombola.training.length import Length, length_text, place_text
from tombola.training.recipe import Recipe

_CONTROLS: Mapping[Baseline, str] = {
    "permuted": "the mask permuted within each layer",
    "randomized": "a random mask over all layers",
    "reinitialized": "the mask over another initialisation",
}

_SHARES: Mapping[str, str] = {
    "uniform": "Every layer keeps the same share of its weights.",
    "erk": "Layers keep shares of their weights in proportion to the sum over the product of their "
    "dimensions (Erdos-Renyi-Kernel).",
}
"""How many weights layers keep where the ranking does not tell."""

RECIPE_WORDS = {"batch_size": "batch size", "lr": "learning rate"}
_ALWAYS_TOLD = ("epochs", "lr", "momentum", "batch_size", "weight_decay", "schedule")
_NOISE = "the order of the images and, where used, their augmentation and dropout"


def about_text(experiment: ExperimentFields) -> str:
    """What is trained, pruned and measured, in sentences."""
    parts = _trainings, _prunings, _comparisons, _repetitions
    sentences = [part(experiment) for part in parts]
    return " ".join(filter(None, sentences))


def _trainings(experiment: ExperimentFields) -> str:
    """What is trained, and how, in sentences."""
    names = dict.fromkeys(["lr", "momentum", "batch_size", *_recipe_fields(experiment)])
    recipe = [
        f"{RECIPE_WORDS.get(name, name.replace('_', ' '))} {listed(_choices(experiment, name))}"
        for name in names
        if name != "epochs" and not (name == "momentum" and _choices(experiment, "optimizer") == ["adamw"])
    ]
    init = f" The first weights are drawn by the scheme {experiment.init}." if experiment.init else ""
    taught = ""
    if experiment.teacher is not None:
        axes = (
            {"teacher_job": experiment.teacher}
            if isinstance(experiment.teacher, str)
            else axes_of(experiment.teacher)
        )
        network = f", a {axes['teacher']}" if axes.get("teacher") not in (None, "own") else ""
        taught = f" The teacher of distillation is {axes['teacher_job']}{network}."
    return (
        f"{listed(list(experiment.networks))} on {listed(list(map(name_of, experiment.data)))}, trained for "
        f"{budgets_text(experiment)} with {', '.join(recipe)}.{taught}{init}"
    )


def _prunings(experiment: ExperimentFields) -> str:
    """How tickets come about, in sentences."""
    if not experiment.rounds:
        return "Nothing is pruned."
    starts = list(map(place_text, experiment.rewinds))
    fractions = experiment.prunings[0].prunings(experiment.rounds)
    removed = [f"{100 * fraction:g}%" for fraction in fractions]
    sentences = [
        f"{many(experiment.rounds, 'round')} of pruning: the {listed(removed, 'then')} {_lowest(experiment)} "
        f"are removed, {_going_back(experiment, listed(starts, 'or'))}"
        + (" (separate chains)" if len(starts) * len(experiment.rewindings) > 1 else "")
        + ", and the sparser network is trained again.",
        _SHARES.get(experiment.scope, ""),
        "Weights whose sign is another than at the start go first." if experiment.same_sign else "",
        f"Never pruned: {', '.join(experiment.exclude)}." if experiment.exclude else "",
        f"Of other rates than the rest: {_rates_text(experiment.prunings[0].rates)}."
        if experiment.rates
        else "",
        "What is left after a pruning is a ticket.",
        str(Diet.of(experiment.diet)) if experiment.diet else "",
    ]
    return " ".join(filter(None, sentences))


def _going_back(experiment: ExperimentFields, start: str) -> str:
    """What a pruning does with the weights that stay."""
    words = {
        "weights": f"the rest go back to {start}",
        "learning_rate": f"the rest stay as they are and the learning rate goes back to {start}",
    }
    return listed([words[rewinding] for rewinding in experiment.rewindings], "or")


def _lowest(experiment: ExperimentFields) -> str:
    """Which weights a pruning removes."""
    weights = "remaining weights of each layer" if experiment.scope == "layerwise" else "remaining weights"
    if experiment.scores == (DEFAULT,):
        return f"{'largest' if experiment.invert else 'smallest'} of the {weights}"
    scores = f"{listed(experiment.scores, 'or')}{' (separate chains)' if len(experiment.scores) > 1 else ''}"
    return f"{'highest' if experiment.invert else 'lowest'} of the {weights} by the score {scores}"


def _comparisons(experiment: ExperimentFields) -> str:
    """What tickets are compared with, in sentences."""
    places = experiment.compared_at
    where = None if places is None else f"round{'s' * (len(places) > 1)} {listed(places)}"
    sentences = []
    if experiment.searches:
        searches = searches_of(experiment.searches)
        labels, names = "; ".join(search.label for search in searches), [search.name for search in searches]
        sentences.append(
            f"At the sparsity of {where or 'each round'} tickets are also found by "
            f"{listed(list(dict.fromkeys(names)))} ({labels}), and trained likewise."
        )
    if experiment.controls:
        controls = listed([_CONTROLS[control] for control in experiment.controls])
        sentences.append(f"Controls of the tickets{f' of {where}' if where else ''}: {controls}.")
    return " ".join(sentences)


def _repetitions(experiment: ExperimentFields) -> str:
    """What is drawn anew in each run, in a sentence."""
    own = "".join(
        f" The {name.replace('_', ' ')} has a number of its own, {number}."
        for name, number in numbered_causes(experiment).items()
    )
    if not isinstance(experiment.seeds, int):
        number = "number" if len(experiment.seeds) > 1 else "numbers"
        noises = "the same in every round" if experiment.same_noise else "another in every round"
        return (
            f"{seeds_text(experiment).capitalize()} {number} the draw of the first weights and the noise of "
            f"training, {noises}: {_NOISE}.{own}"
        )
    draws = (
        "which is one draw of the first weights and of the noise of training"
        if experiment.seeds == 1
        else "which differ in the first weights and in the noise of training"
    )
    again = " The noise is the same in every round." if experiment.same_noise else ""
    return f"All of it with {seeds_text(experiment)}, {draws}: {_NOISE}.{again}{own}"


def budgets_text(experiment: ExperimentFields) -> str:
    """How long trainings are: "12 epochs"."""
    return _lengths_text([recipe.epochs for _, recipe in experiment.recipes()])


def seeds_text(experiment: ExperimentFields) -> str:
    """How many seeds, or which: "2 seeds", "seed 7"."""
    if isinstance(experiment.seeds, int):
        return many(experiment.seeds, "seed")
    return f"seed{'s' * (len(experiment.seeds) > 1)} {listed(experiment.seeds)}"


def _recipe_fields(experiment: ExperimentFields) -> Mapping[str, Any]:
    """The fields of the recipe that are told: those given, of a whole recipe those that are not usual."""
    if not isinstance(experiment.recipe, Recipe):
        return experiment.recipe
    usual = vars(Recipe())
    return {
        name: value
        for name, value in vars(experiment.recipe).items()
        if name in _ALWAYS_TOLD or value != usual[name]
    }


def _choices(experiment: ExperimentFields, name: str) -> list[object]:
    """The values of a field of the recipe, one or several."""
    return choices_of(name, _recipe_fields(experiment).get(name, getattr(Recipe, name, None)))


def _lengths_text(lengths: Sequence[Length]) -> str:
    """Some lengths in words: "1 epoch", "10 and 20 epochs", "2 epochs and 500 iterations"."""
    different = list(dict.fromkeys(lengths))
    in_epochs = sorted(length for length in different if isinstance(length, int))
    in_iterations = [length_text(length) for length in different if not isinstance(length, int)]
    epochs = [f"{listed(in_epochs)} epoch{'' if in_epochs == [1] else 's'}"] if in_epochs else []
    return listed([*epochs, *in_iterations])


def _rates_text(rates: Rates) -> str:
    """Rates of layers in words: "linear 0.5 times"."""
    return ", ".join(f"{name} {rate:g} times" for name, rate in dict(rates).items())


def listed(values: Sequence[object], word: str = "and") -> str:
    """Values with a word before the last: "0.0 and 0.9"."""
    texts = [
        ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(in_words(value))
        for value in values
    ]
    return f" {word} ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def in_words(value: object) -> object:
    """An augmentation by its fields or as it is in words; any other value as it is."""
    if isinstance(value, Mapping):
        value = Augmentation(**value)
    return str(value) if isinstance(value, Augmentation) else value
