"""The paper's studies at its own scale, which several tests look at; listing their jobs takes seconds."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tombola.experiments.bound import Bound
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import scale_named
from tombola.experiments.paper.studies import STUDIES


@pytest.fixture(scope="session")
def paper_jobs() -> PaperJobs:
    return PaperJobs(scale_named("paper"))


@pytest.fixture(scope="session")
def paper_studies(paper_jobs: PaperJobs) -> Mapping[str, Bound]:
    """All studies at paper scale, by name."""
    return {study.name: study.at(paper_jobs) for study in STUDIES}
