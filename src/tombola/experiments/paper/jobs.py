"""The jobs of a scale, by what they are for; each is written down once and shared by all studies that ask.

Nothing here says what a table or figure shows: see :mod:`tombola.experiments.paper.rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tombola.data.fitting import fit_images
from tombola.data.imageset import Data
from tombola.data.subsets import subset
from tombola.experiments.paper.scales import Scale, Subject
from tombola.experiments.paper.settings import (
    ADAPTIVE_RHO,
    EARLY,
    PRETRAINING_NOISE,
    RETRAINED,
    Configuration,
    Pair,
)
from tombola.lab.chains import as_job, imp_jobs, start_job, ticket_jobs
from tombola.lab.item import Measured, Read
from tombola.lab.job import Job, job
from tombola.measures.axial import axial_projection
from tombola.measures.connectivity import barrier
from tombola.measures.curvature import hessian_trace
from tombola.measures.difficulty import Difficulty, Forgotten, drop_by_difficulty, forgotten_subset
from tombola.measures.early_bird import early_bird
from tombola.measures.few_shot import few_shot_training
from tombola.measures.first_stable import Branches
from tombola.measures.gradient_noise import gradient_noise
from tombola.measures.heads import HEAD_RECIPE
from tombola.measures.instability import Difference, consecutive, copies, instability
from tombola.measures.learning import SUMMED_RUNS, learning, summed_forgetting
from tombola.measures.margins import margins
from tombola.measures.probe import probe
from tombola.measures.sharpness import sam_sharpness
from tombola.measures.transfer import transfer
from tombola.measures.untrained import untrained
from tombola.pruning.controls import permute
from tombola.table.key import Key
from tombola.ticket import initialize
from tombola.training.loop import pretrain, train
from tombola.training.recipe import Recipe

T = TypeVar("T")


class PaperJobs:
    """The jobs of a scale, with a memory of those written down.

    Run number n has initialisation n and noise n (reading C7); noise copies share the start of one run and
    begin with its own noise.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._made: dict[Hashable, Any] = {}

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        remembered: T = self._made[key]
        return remembered

    def measured(self, key: Key, jobs: tuple[Job, ...], read: Read) -> Measured:
        """An item of this scale: what one job a run says of a key."""
        return Measured(key, jobs, read, self.scale.epochs, self.stand_in(key))

    def stand_in(self, key: Key) -> str:
        """What is really trained for a key, where something stands in for its network and data."""
        names = self.scale.names
        if not names:
            return ""
        trained = f"{names[key.network or '']} on {names[key.dataset or '']}"
        return f"{trained}, transferred to {names[key.target]}" if key.target else trained

    def recipe(self, pair: Pair, configuration: Configuration, epochs: int | None = None) -> Recipe:
        """How a configuration trains, with the full budget or a shorter one under its own cosine."""

        def make() -> Recipe:
            return Recipe(
                epochs=self.scale.epochs if epochs is None else epochs,
                batch_size=configuration.batch_size,
                lr=self.subject(pair).lr,
                momentum=configuration.momentum,
            )

        return self._once(("recipe", pair, configuration, epochs), make)

    def subject(self, pair: Pair) -> Subject:
        """What is trained for a pair."""
        return self.scale.subjects[pair]

    def runs(self, pair: Pair, configuration: Configuration, number: int) -> list[Job]:
        """The trainings of a pruning chain, the first of them dense."""

        def make() -> list[Job]:
            subject = self.subject(pair)
            return imp_jobs(
                subject.network, subject.data, self.recipe(pair, configuration), rounds=subject.rounds,
                rewind=self._rewind(configuration), seed=number, init=subject.init,
                pretraining_noise=PRETRAINING_NOISE + number,
            )  # fmt: skip

        return self._once(("runs", pair, configuration, number), make)

    def tickets(self, pair: Pair, configuration: Configuration, number: int) -> list[Job]:
        """The tickets of that chain, the first of them its dense start."""

        def make() -> list[Job]:
            return [run.arguments["ticket"] for run in self.runs(pair, configuration, number)]

        return self._once(("tickets", pair, configuration, number), make)

    def start(self, pair: Pair, number: int) -> Job:
        """An initialisation, which all configurations share."""

        def make() -> Job:
            subject = self.subject(pair)
            return job(initialize, subject.network, subject.data, seed=number, init=subject.init)

        return self._once(("start", pair, number), make)

    def short_search(self, pair: Pair, configuration: Configuration, number: int, printed: int) -> list[Job]:
        """The tickets of a search whose trainings are as short as the paper prints (AIMP)."""

        def make() -> list[Job]:
            subject, scale = self.subject(pair), self.scale
            short = self.recipe(pair, configuration, scale.search_epochs(printed))
            return ticket_jobs(
                subject.network, subject.data, short, rounds=min(subject.rounds, max(scale.columns)),
                seed=number, init=subject.init,
            )  # fmt: skip

        return self._once(("short", pair, configuration, number, printed), make)

    def trained(self, pair: Pair, ticket: Job, sparse: Configuration, number: int) -> Job:
        """Sparse training of any ticket; of a chain's own by its own recipe it is the chain's training."""
        return job(train, ticket, self.subject(pair).data, self.recipe(pair, sparse), noise=number)

    def instability(
        self,
        pair: Pair,
        configuration: Configuration,
        prunings: int = 0,
        number: int = 0,
        *,
        recalibrated: bool = False,
    ) -> Job:
        """Instability of a ticket; the paper's is of the first run.

        recalibrated: beside it with batch-norm statistics measured anew on the lines, as reading (D3).
        """

        def make() -> Job:
            ticket = self.tickets(pair, configuration, number)[prunings]
            return self._copies(pair, configuration, ticket, self.subject(pair).data, number, recalibrated)

        return self._once(("instability", pair, configuration, prunings, number, recalibrated), make)

    def instability_by(self, pair: Pair, configuration: Configuration, differ_in: Difference) -> Job:
        """Instability of the first dense start by one cause of noise alone."""

        def make() -> Job:
            ticket, data = self.tickets(pair, configuration, 0)[0], self.subject(pair).data
            return self._copies(pair, configuration, ticket, data, differ_in=differ_in)

        return self._once(("instability by", pair, configuration, differ_in), make)

    def pretrained(self, pair: Pair, configuration: Configuration, length: int) -> Job:
        """Instability of the first dense start after so many epochs of pretraining."""
        branches = self._once(
            ("branches", pair, configuration, 0), lambda: self.branches(pair, configuration, 0)
        )
        return self._once(
            ("pretrained", pair, configuration, length), lambda: as_job(branches.instability(length))
        )

    def _copies(
        self,
        pair: Pair,
        configuration: Configuration,
        ticket: Job,
        data: Any,
        number: int = 0,
        recalibrated: bool = False,
        differ_in: Difference = "noise",
    ) -> Job:
        recipe, noises = self.recipe(pair, configuration), self._noises(number)
        runs = list(copies(job, ticket, data, recipe, noises=noises, differ_in=differ_in))
        recalibrate = "beside" if recalibrated else False
        return job(
            instability, runs, self.subject(pair).data, points=self.scale.points, recalibrate=recalibrate
        )

    def without(self, pair: Pair, configuration: Configuration, which: Difficulty, percent: int) -> Job:
        """Instability of the dense network on the images without its easiest or hardest ones (Fig. 7)."""

        def make() -> Job:
            scored = self.runs(pair, configuration, 0)[0]
            share = percent / 100
            data = job(drop_by_difficulty, self.subject(pair).data, scored, which=which, share=share)
            return self._copies(pair, configuration, self.start(pair, 0), data)

        return self._once(("without", pair, configuration, which, percent), make)

    def between_rounds(self, pair: Pair, configuration: Configuration, number: int = 0) -> list[Job]:
        """Barriers between the trained tickets of consecutive rounds; the paper's are of the first run."""

        def make() -> list[Job]:
            runs = self.runs(pair, configuration, number)
            data = self.subject(pair).data
            lines = consecutive(job, runs, data, points=self.scale.points_between)
            return [as_job(line) for line in lines]

        return self._once(("between", pair, configuration, number), make)

    def between_distant(
        self, pair: Pair, configuration: Configuration, number: int, first: int, second: int
    ) -> tuple[Job, Job]:
        """The line between the trainings of two rounds, and the first one's projection on the second."""

        def make() -> tuple[Job, Job]:
            runs, data = self.runs(pair, configuration, number), self.subject(pair).data
            points = self.scale.points_between
            ends = runs[first], runs[second], data
            return job(barrier, *ends, points=points), job(axial_projection, *ends, points=points)

        return self._once(("distant", pair, configuration, number, first, second), make)

    def early(self, pair: Pair, configuration: Configuration, number: int) -> tuple[Job, Job, Job]:
        """Gradient noise and adaptive sharpness after a few epochs of dense training; masks until then."""

        def make() -> tuple[Job, Job, Job]:
            data, recipe = self.subject(pair).data, self.recipe(pair, configuration)
            start = self.tickets(pair, configuration, number)[0]
            epochs = min(EARLY, self.scale.epochs - 1)
            begun = start
            if self._rewind(configuration) < epochs:
                begun = job(pretrain, start, data, recipe, epochs=epochs, noise=number)
            return (
                job(gradient_noise, begun, data),
                job(sam_sharpness, begun, data, rho=ADAPTIVE_RHO, adaptive=True),
                job(
                    early_bird, start, data, recipe, of="weights", fraction=0.2, window=2,
                    epochs=min(max(epochs, self._rewind(configuration) + 2), self.scale.epochs), noise=number,
                ),
            )  # fmt: skip

        return self._once(("early", pair, configuration, number), make)

    def learning(self, run: Job) -> Job:
        """Forgetting and convergence of a run."""
        return self._once(("learning", run.name), lambda: job(learning, run))

    def summed_forgetting(self, pair: Pair, configuration: Configuration) -> tuple[Job, ...]:
        """Forgetting of the first three dense runs together; nothing at a scale of fewer runs."""
        if self.scale.seeds < SUMMED_RUNS:
            return ()

        def make() -> tuple[Job, ...]:
            runs = [self.runs(pair, configuration, number)[0] for number in range(SUMMED_RUNS)]
            return (job(summed_forgetting, runs),)

        return self._once(("summed forgetting", pair, configuration), make)

    def flatness(self, pair: Pair, run: Job) -> tuple[Job, Job]:
        """Trace of the Hessian and adaptive sharpness where a run ended, on the train images."""

        def make() -> tuple[Job, Job]:
            data = self.subject(pair).data
            return job(hessian_trace, run, data), job(
                sam_sharpness, run, data, rho=ADAPTIVE_RHO, adaptive=True
            )

        return self._once(("flatness", run.name), make)

    def margins(self, pair: Pair, run: Job) -> Job:
        """Margins of the test images in a run."""
        return self._once(("margins", run.name), lambda: job(margins, run, self.subject(pair).data))

    def untrained(self, pair: Pair, ticket: Job, *, recalibrated: bool = False) -> Job:
        """Accuracy of a ticket as it is, or with batch-norm statistics measured on the train images (D3)."""

        def make() -> Job:
            return job(untrained, ticket, self.subject(pair).data, recalibrate=recalibrated)

        return self._once(("untrained", ticket.name, recalibrated), make)

    def probe(self, pair: Pair, ticket: Job, number: int, **changes: Any) -> Job:
        """Linear probes after every block of an untrained ticket; ``changes`` in their recipe."""

        def make() -> Job:
            subject = self.subject(pair)
            return job(
                probe, ticket, subject.data, recipe=self._head_recipe(**changes), blocks=subject.probed,
                head=subject.head, seed=number,
            )  # fmt: skip

        return self._once(("probe", ticket.name, number, *changes.items()), make)

    def transfer(self, pair: Pair, body: Job, target: str, number: int) -> Job:
        """A fresh head for a target on a frozen ticket, or on a frozen run."""

        def make() -> Job:
            return job(
                transfer, body, self.scale.targets[target], recipe=self._head_recipe(),
                size=self.scale.target_size, head=self.subject(pair).head, seed=number,
            )  # fmt: skip

        return self._once(("transfer", body.name, target, number), make)

    def _head_recipe(self, **changes: Any) -> Recipe:
        # One object for all its jobs: a recipe is written down once each.
        return self._once(
            ("head recipe", *changes.items()),
            lambda: replace(HEAD_RECIPE, **({"epochs": self.scale.head_epochs} | changes)),
        )

    def retrained(self, pair: Pair, target: str, number: int) -> Job:
        """The network of a pair trained from scratch on a target."""

        def make() -> Job:
            data: str | Data | Job = self.scale.targets[target]
            if target not in self.scale.fitting:
                data = job(fit_images, data, size=self.scale.target_size)
            subject, recipe = self.subject(pair), self.recipe(pair, RETRAINED)
            start = start_job(subject.network, data, recipe, seed=number, init=subject.init)
            return job(train, start, data, recipe, noise=number)

        return self._once(("retrained", pair, target, number), make)

    def permuted(self, ticket: Job, number: int) -> Job:
        """The ticket under a mask permuted within each layer, one permutation a run."""
        return job(permute, ticket, seed=number)

    def few_shot(
        self, pair: Pair, configuration: Configuration, prunings: int, number: int, percent: int
    ) -> Job:
        """Training of a chain's ticket on a random subset, the same for all configurations of a run."""

        def call(function: Callable[..., object], /, *arguments: object, **options: object) -> Job:
            if function is not subset:
                return job(function, *arguments, **options)
            return self._once(("subset", pair, number, percent), lambda: job(function, *arguments, **options))

        def make() -> Job:
            run = few_shot_training(
                call, self.tickets(pair, configuration, number)[prunings], self.subject(pair).data,
                self.recipe(pair, configuration), share=percent / 100, seed=number, noise=number,
            )  # fmt: skip
            return as_job(run)

        return self._once(("few-shot", pair, configuration, prunings, number, percent), make)

    def on_chosen(
        self,
        pair: Pair,
        configuration: Configuration,
        ticket: Job,
        number: int,
        which: Forgotten,
        percent: int,
    ) -> Job:
        """Training on the least or most forgotten images of the dense run of that number (reading H5)."""
        data, share = self.subject(pair).data, percent / 100
        scored = self.runs(pair, configuration, number)[0]
        part = job(forgotten_subset, data, scored, which=which, share=share, seed=number)
        return job(train, ticket, part, self.recipe(pair, configuration), noise=number)

    def branches(self, pair: Pair, configuration: Configuration, number: int) -> Branches[Job]:
        """Trunk and children of a start, by pretraining length (Table 15)."""
        return Branches(
            job, self.start(pair, number), self.subject(pair).data, self.recipe(pair, configuration),
            noise=number, noises=self._noises(number), points=self.scale.points,
        )  # fmt: skip

    def _noises(self, number: int) -> Sequence[int]:
        return range(number, number + self.scale.copies)

    def _rewind(self, configuration: Configuration) -> int:
        return self.scale.rewind if configuration.pretrained else 0
