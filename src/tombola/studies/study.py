"""A study: a table or figure as a declaration of its entries, and of its panels if it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tombola.errors import StudyError
from tombola.lab.job import Job
from tombola.studies.cells import Cell
from tombola.studies.entries import Entry, Filled, filled, jobs_of
from tombola.studies.picture import Panel, Picture
from tombola.studies.results import Results
from tombola.studies.rows.listing import Listing
from tombola.studies.search_for_stability import Searched
from tombola.studies.work import Work

Panels = Callable[[Sequence[Filled], Results], list[Panel]]


@dataclass(frozen=True)
class Study:
    """What is computed and how it is shown.

    name: such as ``"table11"``. title: what it is about.
    listing: lists its entries. panels: draws them, for a figure.
    searches: lists its searches, whose jobs follow from results (Table 15).
    """

    name: str
    title: str
    listing: Listing | None = None
    panels: Panels | None = None
    searches: Callable[[Work, str], Iterable[Searched]] | None = None

    def entries(self, work: Work) -> list[Entry]:
        """Its entries at a scale.

        Raises :class:`~tombola.errors.StudyError` if the scale lacks a round that a column needs, or leaves
        none of the study's configurations.
        """
        found = list(self.listing(work, self.name)) if self.listing else []
        if self.listing and not any(entry.place.momentum is not None for entry in found):
            raise StudyError(self._without_configurations(work))
        return found

    def searched(self, work: Work) -> list[Searched]:
        """Its searches at a scale; errors as for :meth:`entries`."""
        found = list(self.searches(work, self.name)) if self.searches else []
        if self.searches and not found:
            raise StudyError(self._without_configurations(work))
        return found

    def jobs(self, work: Work) -> list[Job]:
        """The jobs of its entries, each once; those of searches follow from results."""
        return jobs_of(self.entries(work))

    def cells(self, work: Work, results: Results) -> list[Cell]:
        """Its cells as far as they are computed."""
        found = [cell for _, cell in self._filled(work, results) if cell is not None]
        answers = [search.cell(results, epochs=work.scale.epochs) for search in self.searched(work)]
        return found + [cell for cell in answers if cell is not None]

    def picture(self, work: Work, results: Results) -> Picture | None:
        """The figure as far as it is computed; None for a table."""
        if self.panels is None:
            return None
        found = self._filled(work, results)
        counts = {cell.runs for _, cell in found if cell is not None}
        runs = (
            f"{min(counts)} to {max(counts)} values"
            if len(counts) > 1
            else f"{max(counts, default=0)} values"
        )
        caption = f"{self.title}. {work.scale}: {work.scale.epochs} epochs, {runs} a point."
        return Picture(self.name, self.title, caption, self.panels(found, results), note=work.scale.note)

    def _filled(self, work: Work, results: Results) -> list[Filled]:
        return filled(self.entries(work), results, epochs=work.scale.epochs)

    def _without_configurations(self, work: Work) -> str:
        wanted = ", ".join(str(each) for each in work.scale.configurations or ())
        return f"{self.name} has none of the configurations {wanted}; add one that it has, or leave it out"
