"""Chains of an experiment on a data diet: stages that see a part of the train images only (Paul et al.,
2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tombola.data.imageset import Data
from tombola.data.subsets import subset
from tombola.errors import RecipeError, unknown
from tombola.lab.chains import as_job, check_chain, check_layers, start_job
from tombola.lab.job import Job, job
from tombola.measures.data_diet import as_many_steps, diet_trainings, pretrain_on_part
from tombola.measures.difficulty import Forgotten, forgotten_subset
from tombola.measures.example_scores import ExampleScore, example_scores, forgetting_scores
from tombola.measures.selection import Keep, select_by_score, selected
from tombola.pruning.prune import Pruning
from tombola.search import chain
from tombola.table.key import Criterion, Scalar
from tombola.training.length import Length, written_length
from tombola.training.loop import pretrain, train
from tombola.training.recipe import Recipe

_FORGETTING = "forgetting"
SCORES = (*get_args(ExampleScore), _FORGETTING)
"""The scores of images by which a part can be chosen."""
CHOICES = ("random", "least_forgotten", "most_forgotten", *SCORES)
Stage = Literal["pretraining", "search"]
_FORGOTTEN: Mapping[str, Forgotten] = {"least_forgotten": "least", "most_forgotten": "most"}
_CRITERIA: Mapping[str, Criterion] = {
    "random": "random_class_balanced", "least_forgotten": "least_forgotten",
    "most_forgotten": "most_forgotten",
}  # fmt: skip
_PREFIXES: Mapping[Stage, str] = {"pretraining": "pretraining_", "search": ""}
_WORDS = {"pretraining": "Late rewinding", "search": "The mask search"}


@dataclass(frozen=True)
class Diet:
    """Which stages of a chain see a part of the train images only, and of which.

    share: of each class, above 0 and below 1. chosen: at random; the ``"least_forgotten"`` or
    ``"most_forgotten"`` by the dense training of the seed on all images from its initialisation; or by a
    score of images: ``"el2n"`` or another of :func:`tombola.example_scores`, or ``"forgetting"``, of that
    training. keep: which end of the score, ``"hard"`` or ``"easy"``. scored_at: epoch of the training at
    which the score is taken; None for its end, and always the end of forgetting.
    stages: ``"pretraining"`` as in Paul et al. (2022), ``"search"``, or both. Each takes as many steps as it
    would on all images. The last training of every ticket is on all.

    Raises :class:`~tombola.errors.RecipeError` for anything else.
    """

    share: float
    chosen: str = "random"
    stages: Sequence[Stage] = ("search",)
    keep: Keep = "hard"
    scored_at: int | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not number or not 0 < self.share < 1:
            raise RecipeError(f"share is {self.share!r:.60}; of a diet it must lie between 0 and 1")
        if self.chosen not in CHOICES:
            raise RecipeError(unknown("choice of a diet", str(self.chosen), CHOICES))
        if self.keep not in get_args(Keep):
            raise RecipeError(unknown("end to keep", str(self.keep), get_args(Keep)))
        at = self.scored_at
        if at is not None and (isinstance(at, bool) or not isinstance(at, int) or at < 1):
            raise RecipeError(f"scored_at is {at!r:.60}; it must be an epoch, at least 1, or left out")
        scored = self.chosen in SCORES
        if (self.keep != "hard" and not scored) or (
            at is not None and self.chosen not in get_args(ExampleScore)
        ):
            raise RecipeError(
                f"chosen is {self.chosen!r}; keep goes with one of {', '.join(SCORES)}, scored_at with any "
                "of these but forgetting"
            )
        stages = (self.stages,) if isinstance(self.stages, str) else tuple(self.stages)
        if not stages or len(set(stages)) < len(stages) or not set(stages) <= set(get_args(Stage)):
            raise RecipeError(
                f"stages is {self.stages!r:.60}; give one or both of {' and '.join(get_args(Stage))}"
            )
        object.__setattr__(self, "stages", stages)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Diet:
        """The diet with these fields; :class:`~tombola.errors.RecipeError` for one that it lacks."""
        known_fields = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known_fields:
                raise RecipeError(unknown("field of a diet", str(name), known_fields))
        if "share" not in fields:
            raise RecipeError("a diet has no share; give that of the train images, such as share = 0.25")
        return cls(**fields)

    def axes(self, *, searched: bool = True) -> list[tuple[str, Scalar]]:
        """What a key has of it, as the table reads it off single jobs.

        searched: whether masks come of a search on a diet, and not from a function that saw all images.
        """
        percent = round(100 * self.share, 6)
        part: Scalar = round(percent) if percent == round(percent) else percent
        return [
            axis
            for stage in self.stages
            if searched or stage == "pretraining"
            for axis in (
                (f"{stage}_subset", _CRITERIA.get(self.chosen, "by_score")),
                (f"{stage}_subset_percent", part),
                # As the table has them of single jobs.
                *((f"{_PREFIXES[stage]}{name}", value) for name, value in self._score_axes()),
            )
        ]

    def _score_axes(self) -> list[tuple[str, Scalar]]:
        """What tells parts apart that were chosen by scores."""
        if self.chosen not in SCORES:
            return []
        axes: list[tuple[str, Scalar]] = [("example_score", self.chosen), ("balanced", True)]
        axes += [("keep", self.keep)] if self.keep != "hard" else []
        return axes + ([("scored_at", self.scored_at)] if self.scored_at is not None else [])

    def __str__(self) -> str:
        how = {"random": "at random"}.get(self.chosen, self.chosen.replace("_", " "))
        if self.chosen in SCORES:
            end = "hardest" if self.keep == "hard" else "easiest"
            at = "" if self.scored_at is None else f" at epoch {self.scored_at}"
            how = f"{end} by {self.chosen}{at}"
        stages = " and ".join(_WORDS[stage] for stage in self.stages).capitalize()
        return (
            f"{stages} {'see' if len(self.stages) > 1 else 'sees'} {100 * self.share:g}% of the train images "
            f"of each class, chosen {how}, for as many steps as on all."
        )

    def chain(
        self,
        network: str,
        data: str | Data,
        recipe: Recipe,
        *,
        rounds: int,
        rewind: Length,
        seed: int,
        init: str | None,
        pretraining_noise: int | None,
        same_noise: bool,
        pruning: Pruning,
    ) -> list[Job]:
        """The trainings of a chain on all images, the first of them dense.

        The arguments and errors are as for :func:`tombola.lab.chains.imp_jobs`; a diet of the pretraining
        alone needs a place to rewind to.
        """
        check_chain(recipe, rounds, rewind, pruning)
        check_layers(network, pruning)
        initial = start_job(network, data, recipe, seed=seed, init=init)
        part = self._part(data, initial, recipe, seed)
        noise = seed if pretraining_noise is None else pretraining_noise
        if "pretraining" in self.stages:
            if written_length(rewind) == 0:
                raise RecipeError("a diet of the pretraining needs late rewinding; say rewind=2, or '200it'")
            start = job(pretrain_on_part, initial, data, recipe, part=part, epochs=rewind, noise=noise)
        else:
            start = start_job(
                network, data, recipe, rewind=rewind, seed=seed, init=init,
                pretraining_noise=pretraining_noise,
            )  # fmt: skip
        if "search" not in self.stages:
            runs = chain(
                job, start, data, recipe, rounds=rounds, noise=seed, same_noise=same_noise, pruning=pruning
            )
            return [as_job(run) for run in runs]
        runs = diet_trainings(
            job, start, data, recipe, part=part, search=as_many_steps(recipe, self.share), rounds=rounds,
            noise=seed, same_noise=same_noise, pruning=pruning,
        )  # fmt: skip
        return [as_job(run) for run in runs]

    def _part(self, data: str | Data, initial: Job, recipe: Recipe, seed: int) -> Job:
        """The images of the dieting stages."""
        if self.chosen == "random":
            return job(subset, data, share=self.share, seed=seed)
        scored = job(train, initial, data, recipe, noise=seed)
        if self.chosen in _FORGOTTEN:
            which = _FORGOTTEN[self.chosen]
            return job(forgotten_subset, data, scored, which=which, share=self.share, seed=seed)
        if self.chosen == _FORGETTING:
            scores = job(forgetting_scores, scored)
        else:
            subject = scored
            if self.scored_at is not None:
                subject = job(pretrain, initial, data, recipe, epochs=self.scored_at, noise=seed)
            scores = job(example_scores, subject, data, score=self.chosen)
        selection = job(
            select_by_score, scores, data, share=self.share, keep=self.keep, balanced=True, seed=seed
        )
        return job(selected, data, selection)
