from pathlib import Path

import tombola as tb
from tombola.lab.job import job
from tombola.lab.lab import Lab
from tombola.measures.learning import learning


def test_learning_is_what_the_measures_say_one_by_one(run: tb.Run) -> None:
    found = learning(run)
    assert found.images == 1198
    assert found.convergence == tb.convergence(run)
    assert found.forgetting == tb.forgetting(run)
    assert found.curve == tb.forgetting_curve(run)
    assert found.failed == run.failed


def test_learning_is_kept_without_the_weights(
    tmp_path: Path, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    lab = Lab(tmp_path / "store")
    made = job(learning, job(tb.train, start, digits, recipe))
    found = lab.result(made)
    assert sorted(path.name for path in lab.store.folder(made.name).iterdir()) == [
        "job.json", "provenance.json", "result.json",
    ]  # fmt: skip
    assert sum(found.curve.events) == round(found.forgetting.events_mean * found.images)
