"""A study: a table or figure as a declaration of its entries, and of its panels if it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tombola.errors import StudyError
from tombola.lab.job import Job
from tombola.studies.cells import Cell, Place
from tombola.studies.entries import Entry, filled, jobs_of
from tombola.studies.panels import Panels
from tombola.studies.paper.first_stable import Searched
from tombola.studies.paper.jobs import Work
from tombola.studies.paper.printed import printed_anywhere
from tombola.studies.paper.rows import Listing
from tombola.studies.picture import Picture
from tombola.studies.results import Results


@dataclass(frozen=True)
class Shown:
    """What a study shows so far.

    places: all of them, in order. cells: those that are computed. picture: None for a table.
    """

    study: Study
    places: tuple[Place, ...]
    cells: tuple[Cell, ...]
    picture: Picture | None


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
        # Rows without a configuration, such as a random dense network, make no table by themselves.
        if self.listing and work.scale.configurations and all(e.place.momentum is None for e in found):
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

    def shown(self, work: Work, results: Results) -> Shown:
        """What it shows so far."""
        # Beside stand-ins the paper's numbers would say nothing.
        printed = {} if work.scale.note else printed_anywhere()
        found = filled(self.entries(work), results, epochs=work.scale.epochs, printed=printed)
        searched = self.searched(work)
        places = [each.place for each in found] + [search.place for search in searched]
        cells = [each.cell for each in found]
        cells += [search.cell(results, epochs=work.scale.epochs) for search in searched]
        done = tuple(cell for cell in cells if cell is not None)
        picture = None
        if self.panels is not None:
            budget = f"{work.scale}: {work.scale.epochs} epochs, {_values(done)}"
            panels = self.panels(found, results)
            note = work.scale.warning
            picture = Picture(
                self.name, self.title, f"{self.title}. {budget[0].upper()}{budget[1:]}.", panels, budget, note
            )
        return Shown(self, tuple(places), done, picture)

    def _without_configurations(self, work: Work) -> str:
        wanted = ", ".join(str(each) for each in work.scale.configurations or ())
        unlimited = Work(replace(work.scale, configurations=None))
        places = [entry.place for entry in self.entries(unlimited)]
        places += [searched.place for searched in self.searched(unlimited)]
        known = {(place.momentum, place.batch_size) for place in places if place.momentum is not None}
        own = ", ".join(f"{momentum}/{batch_size}" for momentum, batch_size in sorted(known))
        return f"{self.name} has none of the configurations {wanted}; add one of its {own}, or leave it out"


def _values(cells: Sequence[Cell]) -> str:
    """How many numbers stand behind a point, in words."""
    counts = {len(cell.values) for cell in cells}
    if not counts:
        return "nothing computed yet"
    words = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return f"{words} value{'s' * (max(counts) > 1)} a point"
