"""Studies: a table or figure of the paper as a declaration, and the same at a scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tombola.errors import ExperimentError
from tombola.experiments.bound import Bound, renamed, spoken
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.printed import comparable_cells, comparable_tables
from tombola.lab.item import Item
from tombola.table.key import Key
from tombola.table.number import Cell, Entry, many
from tombola.views.exhibit import Exhibit
from tombola.views.layout import Layout
from tombola.views.paper_panels import Panels


@dataclass(frozen=True)
class Study:
    """A table or figure of the paper.

    name: such as ``"table11"``. title: what it is about.
    listing: lists its items at a scale. layout: of its table. panels: of a figure.
    show: makes its exhibits, where they are not one table or figure.
    """

    name: str
    title: str
    listing: Callable[[PaperJobs], Iterable[Item]]
    layout: Layout | None = None
    panels: Panels | None = None
    show: Callable[[Bound, Sequence[Entry]], list[Exhibit]] | None = None

    def at(self, work: PaperJobs) -> Bound:
        """The study at the scale of some jobs.

        Raises :class:`~tombola.errors.ExperimentError` if the scale lacks a round that a column needs, or
        leaves none of the study's configurations.
        """
        scale = work.scale
        try:
            items = tuple(item for item in self.listing(work) if scale.has_pair(item.key))
        except ExperimentError as error:
            raise ExperimentError(f"{self.name} {error}") from error
        if not items and scale.pairs is not None:
            raise ExperimentError(
                f"{self.name} has none of the pairs {', '.join(p.name for p in scale.pairs)}"
            )
        # Rows without a configuration, such as a random dense network, make no table by themselves.
        if scale.configurations and all(item.key.momentum is None for item in items):
            raise ExperimentError(self._without_configurations(work))
        return Bound(
            name=self.name,
            title=renamed(self.title, scale.names),
            items=items,
            layout=self.layout,
            panels=self.panels,
            show=self.show,
            # Beside stand-ins the paper's numbers would say nothing.
            printed={} if scale.note else self._printed(work),
            comparable={} if scale.note else comparable_cells(),
            budget=f"{scale}: {many(scale.epochs, 'epoch')}",
            warning=scale.warning,
            names=scale.names,
        )

    def left_out(self, cause: str) -> Exhibit:
        """The exhibit of the study where a scale does not fit it."""
        printed = comparable_tables().get(self.name, {})
        return Exhibit(
            name=self.name, heading=spoken(self.name), title=self.title, layout=self.layout,
            printed=printed, left_out=cause,
        )  # fmt: skip

    def _printed(self, work: PaperJobs) -> dict[Key, Cell]:
        """What the paper prints in it of the pairs of a scale."""
        printed = comparable_tables().get(self.name, {})
        return {key: cell for key, cell in printed.items() if work.scale.has_pair(key)}

    def _without_configurations(self, work: PaperJobs) -> str:
        wanted = ", ".join(str(configuration) for configuration in work.scale.configurations or ())
        unlimited = self.listing(PaperJobs(replace(work.scale, configurations=None)))
        own = {
            (item.key.momentum, item.key.batch_size) for item in unlimited if item.key.momentum is not None
        }
        listed = ", ".join(f"{momentum}/{batch_size}" for momentum, batch_size in sorted(own))
        return (
            f"{self.name} has none of the configurations {wanted}; add one of its {listed}, or leave it out"
        )


def bind(studies: Iterable[Study], work: PaperJobs) -> tuple[list[Bound], dict[str, str]]:
    """The studies that a scale fits, and for the others by name why it does not."""
    bound, others = [], {}
    for study in studies:
        try:
            bound.append(study.at(work))
        except ExperimentError as error:
            others[study.name] = str(error)
    return bound, others
