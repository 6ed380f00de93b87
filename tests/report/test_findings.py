"""Sentences that follow from the numbers, checked against numbers set by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

Made = Any


def test_winning_tickets_are_counted_by_start_with_their_rule(made: Made) -> None:
    lost = made.changed("val_accuracy", 90.0)
    for index in range(len(lost.numbers)):
        one = lost.numbers[index]
        if (
            one.key.metric == "val_accuracy"
            and one.key.sparsity
            and not (one.key.pretrained and one.key.sparsity == 20.0)
        ):
            lost = lost.only([*lost.numbers[:index], replace(one, value=89.0), *lost.numbers[index + 1 :]])
    text = lost.findings("accuracy")
    assert "Winning tickets: 0 of 32 from initialisation and 4 of 32 with late rewinding." in text
    assert "at least that of its own dense network and no run of either failed." in text
    assert "With 2 seeds no gain can be told from the noise of the seeds" in text
    assert "The sparsest, with 20% of the weights pruned" in text


def test_no_winning_ticket_means_no_sparsest(made: Made) -> None:
    text = made.changed("val_accuracy", 99.9, sparsity=0.0).findings("accuracy")
    assert "0 of 32 from initialisation and 0 of 32" in text
    assert "sparsest" not in text


def test_a_failed_run_is_counted_and_never_wins(made: Made) -> None:
    # 8 chains of 9 rounds and 2 seeds, one of which was made to fail.
    text = made.findings("accuracy")
    assert "1 of 144 runs failed to train" in text
    assert "never make a winning ticket" in text
    # All dense networks at chance: a failed ticket is as good as they are, and wins nothing.
    worse = made.changed("val_accuracy", 10.0, sparsity=0.0)
    (cell,) = [
        entry.cell for entry in worse.exhibit("accuracy").entries if entry.failed and entry.key.sparsity
    ]
    assert cell is not None
    assert not cell.winning
    sound = made.only([replace(one, failed=False) for one in made.numbers])
    assert "None of the 144 runs failed." in sound.findings("accuracy")


def test_three_seeds_tell_what_is_beyond_the_noise(made: Made) -> None:
    """Of differences +1, +1.1 and +0.9 the interval is above 0; of -3, 0 and +5 it is not."""
    first = next(one for one in made.numbers if one.key.metric == "val_accuracy")
    clear = replace(first.key, sparsity=20.0)
    noisy = replace(first.key, sparsity=36.0)
    values = {first.key: (90.0, 91.0, 92.0), clear: (91.0, 92.1, 92.9), noisy: (87.0, 91.0, 97.0)}
    three = made.only(
        [
            replace(first, key=key, value=value, seed=seed)
            for key, of_seeds in values.items()
            for seed, value in enumerate(of_seeds)
        ]
    )
    text = three.findings("accuracy")
    assert "Winning tickets: 2 of 2." in text
    assert "Of the 2 winning tickets 1 is better beyond the noise of the seeds" in text
    assert "by +0.7 points (μ = 0.0, batch 32, within the noise of the seeds)" in text


def test_the_last_round_is_compared_with_the_dense_network(made: Made) -> None:
    changed = made.changed("val_accuracy", 90.0)
    last = {"sparsity": 83.22, "batch_size": 32, "pretrained": False}
    changed = changed.changed("val_accuracy", 92.5, momentum=0.0, **last)
    changed = changed.changed("val_accuracy", 83.0, momentum=0.9, **last)
    text = changed.findings("accuracy")
    assert "+2.5 points (μ = 0.0, batch 32) in the best case" in text
    assert "\N{MINUS SIGN}7.0 points (μ = 0.9, batch 32) in the worst" in text


def test_a_chain_whose_end_failed_is_no_best_or_worst_case(made: Made) -> None:
    last = {"sparsity": 83.22, "batch_size": 32, "pretrained": False, "momentum": 0.0}
    best = made.changed("val_accuracy", 90.0).changed("val_accuracy", 92.5, **last)
    failed = best.only(
        [
            replace(one, failed=True)
            if one.key.metric == "val_accuracy"
            and all(one.key.get(name) == is_ for name, is_ in last.items())
            else replace(one, failed=False)
            for one in best.numbers
        ]
    )
    text = failed.findings("accuracy")
    assert "2.5 points" not in text
    assert "1 configuration with a failed run at either end is left out." in text


def test_equal_values_have_no_highest_and_no_lowest(made: Made) -> None:
    dense = {"sparsity": 0.0}
    equal = made.changed("forgetting_events", 9.174, **dense)
    assert "All dense networks have the same value (9.17)." in equal.findings("forgetting_events")
    for words in ("highest", "lowest", "higher with momentum"):
        assert words not in equal.findings("forgetting_events")
    one = equal.changed("forgetting_events", 9.5, momentum=0.9, batch_size=32, pretrained=False, **dense)
    text = one.findings("forgetting_events")
    assert "in 1 of 1 comparison, all else alike, and equal in 3 more." in text


def test_only_the_exhibit_of_the_accuracy_is_judged_by_it(made: Made) -> None:
    named = replace(made, name="my-accuracy")
    assert "Winning tickets" in named.findings("accuracy")
    assert named.findings("learning-curves") == named.findings("runs") == ""


def test_stability_names_extremes_and_says_yes_or_no(made: Made) -> None:
    text = made.findings("barrier")
    assert "Dense networks from initialisation: 2 of 4 have a barrier below 2 points." in text
    assert (
        "Most stable is μ = 0.0, batch 128 (0.8 points), least stable μ = 0.9, batch 32 (18.2 points)" in text
    )
    assert "All 8 ticket barriers below 2 points: yes (the highest is 0.7)." in text
    high = {"momentum": 0.9, "batch_size": 128, "pretrained": True, "sparsity": 83.22}
    text = made.changed("barrier", 2.0, **high).findings("barrier")
    assert (
        "All 8 ticket barriers below 2 points: no (μ = 0.9, batch 128 with late rewinding at 83.22%: 2.0)."
        in text
    )


def test_forgetting_names_extremes_and_compares_momenta(made: Made) -> None:
    text = made.findings("forgetting_events")
    assert "Of the dense networks μ = 0.9, batch 32 with late rewinding has the highest value (0.81)" in text
    assert "μ = 0.0, batch 128 from initialisation the lowest (0.22)" in text
    assert "higher with momentum 0.9 than with 0.0 in 4 of 4 comparisons" in text
    fewer = made.changed("forgetting_events", 0.1, momentum=0.9, batch_size=32, sparsity=0.0)
    assert "in 2 of 4 comparisons" in fewer.findings("forgetting_events")


def test_what_is_undefined_is_told(made: Made) -> None:
    assert "undefined" not in made.findings("convergence")
    undefined = made.only(
        [
            replace(one, value=None, state="undefined")
            if (one.key.metric, one.key.momentum, one.key.batch_size, one.key.pretrained, one.key.sparsity)
            == ("convergence", 0.0, 32, False, 0.0)
            else one
            for one in made.numbers
        ]
    )
    assert (
        "It is undefined for 2 runs, which are left out: μ = 0.0, batch 32 from initialisation."
        in undefined.findings("convergence")
    )


def test_an_experiment_of_which_nothing_is_computed_claims_nothing(made: Made) -> None:
    gaps = made.only([replace(one, value=None, state="missing", curve=None) for one in made.numbers])
    for exhibit in gaps.exhibits:
        assert gaps.findings(exhibit.name.removeprefix("demo-")) == ""
