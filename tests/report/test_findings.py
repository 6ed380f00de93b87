"""Sentences that follow from the numbers, checked against numbers set by hand."""

from __future__ import annotations

from typing import Any

from tombola.report.findings import accuracy_findings, stability_findings, training_findings


def text_of(sentences: list[str]) -> str:
    return " ".join(sentences).replace("\N{NO-BREAK SPACE}", " ")


def test_winning_tickets_are_counted_by_start(summary: dict[str, Any]) -> None:
    for row in summary["rows"]:
        row["winning"] = None if row["round"] == 0 else row["rewind"] == 2 and row["round"] == 1
    text = text_of(accuracy_findings(summary))
    assert "Winning tickets: 0 of 32 from initialisation and 4 of 32 from epoch 2." in text
    assert "The sparsest, with 20.0% of the weights pruned" in text


def test_no_winning_ticket_means_no_sparsest(summary: dict[str, Any]) -> None:
    for row in summary["rows"]:
        row["winning"] = None if row["round"] == 0 else False
    text = text_of(accuracy_findings(summary))
    assert "0 of 32 from initialisation and 0 of 32" in text
    assert "sparsest" not in text


def test_failed_runs_are_counted(summary: dict[str, Any]) -> None:
    # 8 chains of 9 rounds and 2 seeds, one of which was made to fail.
    assert "1 of 144 runs failed to train" in text_of(accuracy_findings(summary))
    for row in summary["rows"]:
        row["failed_runs"] = 0
    assert "None of the 144 runs failed." in text_of(accuracy_findings(summary))


def test_the_last_round_is_compared_with_the_dense_network(summary: dict[str, Any]) -> None:
    for row in summary["rows"]:
        row["accuracy_mean"] = 90.0
        if row["round"] == 8 and row["batch_size"] == 32 and row["rewind"] == 0:
            row["accuracy_mean"] = 92.5 if row["momentum"] == 0 else 83.0
    text = text_of(accuracy_findings(summary))
    assert "+2.5 points in the best case (μ = 0.0, batch 32 from initialisation)" in text
    assert "\N{MINUS SIGN}7.0 points in the worst (μ = 0.9, batch 32 from initialisation)" in text


def test_stability_names_extremes_and_says_yes_or_no(summary: dict[str, Any]) -> None:
    text = text_of(stability_findings(summary))
    assert "from initialisation: 2 of 4 have a barrier below 2 points" in text
    assert (
        "Most stable is μ = 0.0, batch 128 (0.8 points), least stable μ = 0.9, batch 32 (18.2 points)" in text
    )
    assert "All ticket barriers below 2 points: yes" in text
    summary["curves"][-1]["barrier"] = 2.0
    text = text_of(stability_findings(summary))
    assert "All ticket barriers below 2 points: no (μ = 0.9, batch 128 from epoch 2: 2.0)." in text


def test_forgetting_names_extremes_and_compares_momenta(summary: dict[str, Any]) -> None:
    text = text_of(training_findings(summary))
    assert "Most forgetting: μ = 0.9, batch 32, 0.74 events" in text
    assert "least: μ = 0.0, batch 128, 0.22" in text
    assert "more often than with 0.0 at 2 of 2 batch sizes" in text
    summary["dense"][2]["forgetting_events"] = 0.1
    assert "at 1 of 2 batch sizes" in text_of(training_findings(summary))


def test_undefined_convergence_is_told(summary: dict[str, Any]) -> None:
    assert "No convergence" not in text_of(training_findings(summary))
    summary["dense"][0]["convergence"] = None
    assert "No convergence speed, for nothing was learned: μ = 0.0, batch 32." in text_of(
        training_findings(summary)
    )


def test_an_empty_summary_claims_nothing() -> None:
    empty: dict[str, Any] = {"rows": [], "curves": [], "dense": []}
    assert stability_findings(empty) == training_findings(empty) == []
    assert accuracy_findings(empty) == []
