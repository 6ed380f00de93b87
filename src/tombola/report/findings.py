"""What the numbers of an experiment say, in sentences computed from its table.

A sentence states a count, an extreme or a yes or no, with the rule it goes by and whether it lies outside the
noise of the seeds. Where a number is missing its sentence is missing too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tombola.measures.limits import STABLE_BELOW
from tombola.table.metrics import LAYERS, RECALIBRATED, metric_of
from tombola.table.number import LEAST_RUNS, Cell, Entry, difference_interval, is_ticket, many
from tombola.views.chain_panels import Names, title_of
from tombola.views.exhibit import Exhibit
from tombola.views.layout import momentum_text, percent_text

_FIXED_SPACE = "\N{NO-BREAK SPACE}"
_ACCURACY, _ERROR = "val_accuracy", "test_error"
_BARRIERS = ("barrier", f"{RECALIBRATED}barrier", "instability.height", "barrier_to_next")


def findings_of(exhibit: Exhibit, names: Names) -> list[str]:
    """Sentences about the numbers of one exhibit.

    names: of all keys of its experiment.
    """
    entries = exhibit.entries
    metric = _metric_of(exhibit)
    if metric == _ACCURACY:
        return [*_winning(entries, names), *_last_round(entries, names), *_failures(entries)]
    if any(entry.key.get(LAYERS) for entry in entries):
        return _collapse(entries, names)
    if metric in ("", _ERROR):
        return []
    return (_stability if metric in _BARRIERS else _spread_of_metric)(entries, names)


def experiment_findings(exhibits: Iterable[Exhibit]) -> dict[str, list[str]]:
    """The sentences about each exhibit of one experiment, by its name."""
    listed = list(exhibits)
    names = Names.of((entry.key for exhibit in listed for entry in exhibit.entries), without=(LAYERS,))
    findings: dict[str, list[str]] = {}
    with_accuracies = [exhibit for exhibit in listed if _metric_of(exhibit) == _ACCURACY]
    for exhibit in listed:
        # Single runs and the like repeat some of the accuracies.
        repeats = exhibit in with_accuracies[1:]
        findings[exhibit.name] = [] if repeats else findings_of(exhibit, names)
    return findings


def _metric_of(exhibit: Exhibit) -> str:
    """The metric of all numbers of an exhibit; empty where there are several, or none."""
    metrics = {entry.key.metric for entry in exhibit.entries}
    return metrics.pop() if len(metrics) == 1 else ""


def _collapse(entries: Sequence[Entry], names: Names) -> list[str]:
    """Which layers lost all their weights, in some runs at least."""
    lost: dict[str, list[str]] = {}
    for entry in entries:
        if entry.cell is not None and max(entry.cell.values, default=0) >= 1:
            lost.setdefault(names.full(entry.key), []).append(str(entry.key.get(LAYERS)))
    return [
        f"Layer collapse: no weight is left of {', '.join(layers)} ({_fixed(label)}), in some runs at least."
        for label, layers in lost.items()
    ]


def _winning(entries: Sequence[Entry], names: Names) -> list[str]:
    tickets = [entry for entry in entries if entry.cell is not None and is_ticket(entry.key)]
    if not tickets:
        return []
    counts = []
    for late in sorted({bool(entry.key.pretrained) for entry in tickets}):
        chosen = [entry for entry in tickets if bool(entry.key.pretrained) is late]
        where = f" {_start(late)}" if names.late else ""
        counts.append(f"{sum(_wins(entry) for entry in chosen)} of {len(chosen)}{where}")
    sentences = [
        f"Winning tickets: {' and '.join(counts)}. A ticket wins if its mean is at least that of its own "
        "dense network and no run of either failed.",
        *_clearly([entry.cell for entry in tickets if entry.cell is not None]),
    ]
    winners = [entry for entry in tickets if _wins(entry)]
    if winners:
        last = max(entry.key.sparsity or 0.0 for entry in winners)
        listed = "; ".join(
            f"{_name(entry, names)}, {_text(entry)}" for entry in winners if entry.key.sparsity == last
        )
        sentences.append(
            f"The sparsest, with {percent_text(last)}% of the weights pruned, and their accuracies: {listed}."
        )
    return sentences


def _clearly(tickets: Sequence[Cell]) -> list[str]:
    """How many winning tickets are better beyond the noise of the seeds."""
    winning = [cell for cell in tickets if cell.winning]
    judged = [cell for cell in winning if cell.clearly is not None]
    if not winning:
        return []
    if not judged:
        return [
            f"With {many(winning[0].runs, 'seed')} no gain can be told from the noise of the seeds; "
            f"{LEAST_RUNS} or more give an interval."
        ]
    clearly = sum(bool(cell.clearly) for cell in judged)
    return [
        f"Of the {len(judged)} winning tickets {clearly} {'is' if clearly == 1 else 'are'} better beyond the "
        "noise of the seeds (95% interval of the difference, paired by seed); the others may as well be no "
        "better."
    ]


def _last_round(entries: Sequence[Entry], names: Names) -> list[str]:
    """The change in accuracy from dense to the last round, where it is best and where worst.

    A chain at whose end a run failed is left out: its change says nothing of pruning.
    """
    chains: dict[str, list[Entry]] = {}
    for entry in entries:
        chains.setdefault(names.full(entry.key), []).append(entry)
    changes: list[tuple[float, str]] = []
    left_out = 0
    for label, chain in chains.items():
        ends = sorted(chain, key=lambda entry: entry.key.sparsity or 0.0)
        dense, last = ends[0].cell, ends[-1].cell
        if dense is None or last is None or len(ends) < 2 or ends[0].key.sparsity:
            continue
        if dense.failed or last.failed:
            left_out += 1
            continue
        change = last.mean - dense.mean
        changes.append((change, f"{_points(change)} ({_fixed(label)}{_noise(last, dense)})"))
    if not changes:
        return []
    aside = (
        f" {left_out} configuration{'s' * (left_out != 1)} with a failed run at either end "
        f"{'is' if left_out == 1 else 'are'} left out."
        if left_out
        else ""
    )
    if len(changes) == 1:
        return [f"From the dense network to the last round accuracy changes by {changes[0][1]}.{aside}"]
    (_, worst), (_, best) = min(changes), max(changes)
    return [
        f"From the dense network to the last round accuracy changes by {best} in the best case and by "
        f"{worst} in the worst.{aside}"
    ]


def _failures(entries: Sequence[Entry]) -> list[str]:
    numbers = [number for entry in entries for number in entry.numbers if number.state != "missing"]
    failed = sum(number.failed for number in numbers)
    if not numbers:
        return []
    if not failed:
        return [f"None of the {len(numbers)} runs failed." if len(numbers) > 1 else "The run did not fail."]
    return [
        f"{failed} of {many(len(numbers), 'run')} failed to train: they diverged or stayed near "
        "chance. They are part of the means, are marked with a star, and never make a winning ticket."
    ]


def _stability(entries: Sequence[Entry], names: Names) -> list[str]:
    """How many barriers are below the limit, and the lowest and the highest of the dense networks."""
    sentences = []
    dense = [entry for entry in entries if entry.cell is not None and not entry.key.sparsity]
    tickets = [entry for entry in entries if entry.cell is not None and entry.key.sparsity]
    for late in sorted({bool(entry.key.pretrained) for entry in dense}):
        chosen = [entry for entry in dense if bool(entry.key.pretrained) is late]
        where = f" {_start(late)}" if names.late else ""
        stable = sum(_mean(entry) < STABLE_BELOW for entry in chosen)
        sentence = (
            f"Dense networks{where}: {stable} of {len(chosen)} have a barrier below {STABLE_BELOW:g} points."
        )
        if len(chosen) > 1:
            least, most = _extremes(chosen)
            sentence += (
                f" Most stable is {_name(least, names, start=False)} ({_mean(least):.1f} points), least "
                f"stable {_name(most, names, start=False)} ({_mean(most):.1f} points)."
            )
        sentences.append(sentence)
    if tickets:
        unstable = [entry for entry in tickets if _mean(entry) >= STABLE_BELOW]
        highest = f"the highest is {max(map(_mean, tickets)):.1f}"
        which = "The ticket barrier" if len(tickets) == 1 else f"All {len(tickets)} ticket barriers"
        sentences.append(
            f"{which} below {STABLE_BELOW:g} points: "
            + (f"no, {len(unstable)} are not; {highest}." if len(unstable) > 8
               else f"no ({'; '.join(_at(entry, names) for entry in unstable)})." if unstable
               else f"yes ({highest}).")
        )  # fmt: skip
    undefined = sum(entry.undefined and entry.failed for entry in entries)
    if undefined:
        are = "is" if undefined == 1 else "are"
        sentences.append(f"{many(undefined, 'barrier')} {are} undefined, because a run diverged.")
    failed = [entry for entry in (*dense, *tickets) if entry.failed]
    if failed:
        sentences.append(
            f"Behind {len(failed)} of these barriers stands a run that failed; two such runs may well have "
            "no barrier."
        )
    return sentences


def _spread_of_metric(entries: Sequence[Entry], names: Names) -> list[str]:
    """Of the dense networks the highest and the lowest value, momenta compared, and what is undefined."""
    start = min((entry.key.sparsity or 0.0 for entry in entries), default=0.0)
    chosen = [entry for entry in entries if entry.cell is not None and (entry.key.sparsity or 0.0) == start]
    sentences = []
    if len(chosen) > 1:
        least, most = _extremes(chosen)
        where = title_of(most.key, Names(pairs=False, late=False, axes=()))
        sentences.append(
            f"All {where} have the same value ({_text(most)})."
            if _mean(least) == _mean(most)
            else f"Of the {where} {_name(most, names)} has the highest value ({_text(most)}), "
            f"{_name(least, names)} the lowest ({_text(least)}"
            f"{_noise(most.cell, least.cell, '; the difference is')})."
        )
    sentences += _momentum_compared(chosen, names)
    undefined = [entry for entry in entries if any(number.state == "undefined" for number in entry.numbers)]
    if undefined:
        runs = sum(number.state == "undefined" for entry in undefined for number in entry.numbers)
        listed = "; ".join(dict.fromkeys(_name(entry, names) for entry in undefined))
        sentences.append(
            f"It is undefined for {many(runs, 'run')}, which {'is' if runs == 1 else 'are'} left out: "
            f"{listed}."
        )
    return sentences


def _momentum_compared(entries: Sequence[Entry], names: Names) -> list[str]:
    """Higher or lower with the highest momentum than with the lowest, all else alike."""
    momenta = sorted({entry.key.momentum for entry in entries if entry.key.momentum is not None})
    if len(momenta) < 2:
        return []
    others: dict[object, dict[float, float]] = {}
    for entry in entries:
        key = entry.key
        if key.momentum in (momenta[0], momenta[-1]) and key.momentum is not None:
            alike = (names.pair(key), key.batch_size, key.pretrained, key.more)
            others.setdefault(alike, {})[key.momentum] = _mean(entry)
    both = [values for values in others.values() if len(values) == 2]
    pairs = [values for values in both if values[momenta[0]] != values[momenta[-1]]]
    equal = f", and equal in {len(both) - len(pairs)} more" if len(both) > len(pairs) else ""
    if not pairs:
        return []
    higher = sum(values[momenta[-1]] > values[momenta[0]] for values in pairs)
    return [
        f"It is higher with momentum {momentum_text(momenta[-1])} than with {momentum_text(momenta[0])} in "
        f"{higher} of {many(len(pairs), 'comparison')}, all else alike{equal}."
    ]


def _noise(first: Cell | None, second: Cell | None, words: str = ",") -> str:
    """Whether the difference of two means lies outside the noise of the seeds, where that can be told."""
    interval = difference_interval(first, second) if first and second else None
    if interval is None:
        return ""
    outside = interval[0] > 0 or interval[1] < 0
    return f"{words} {'beyond' if outside else 'within'} the noise of the seeds"


def _start(late: bool) -> str:
    return "with late rewinding" if late else "from initialisation"


def _name(entry: Entry, names: Names, *, start: bool = True) -> str:
    """What a configuration is called within a sentence, which may break before it and not inside."""
    late = f" {_start(bool(entry.key.pretrained))}" if names.late and start else ""
    pair = names.pair(entry.key)
    return f"{_fixed(names.configuration(entry.key))}{f' of {pair}' if pair else ''}{late}"


def _at(entry: Entry, names: Names) -> str:
    return f"{_name(entry, names)} at {percent_text(entry.key.sparsity or 0.0)}%: {_mean(entry):.1f}"


def _fixed(label: str) -> str:
    return label.replace(" ", _FIXED_SPACE)


def _wins(entry: Entry) -> bool:
    return entry.cell is not None and entry.cell.winning


def _mean(entry: Entry) -> float:
    assert entry.cell is not None
    return entry.cell.mean


def _text(entry: Entry) -> str:
    metric = metric_of(entry.key.metric)
    return f"{metric.text(_mean(entry))}{metric.suffix}"


def _points(change: float) -> str:
    return f"{change:+.1f} points".replace("-", "\N{MINUS SIGN}")


def _extremes(entries: Sequence[Entry]) -> tuple[Entry, Entry]:
    """The entries of the lowest and of the highest mean."""
    return min(entries, key=_mean), max(entries, key=_mean)
