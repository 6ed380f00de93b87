"""Predictors of winning: what is known of a dense network early, beside how its tickets do (6.2).

A view of the table that makes numbers of numbers. For every configuration whose tickets have accuracies: by
how much those of one sparsity gain over the dense network, and every number of the dense network, each a
candidate. For every candidate: how far it ranks the configurations as their gains do, with an interval and
its significance. The noise of SGD by the recipe alone, lr / (batch (1 - momentum)), is always among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from tombola.table.key import Key, Scalar
from tombola.table.metrics import metric_heading
from tombola.table.number import Cell, Entry, Number, cells_of, entries_of, is_ticket, longest, many
from tombola.table.rank_correlation import CONFIDENCE, Agreement, agreement
from tombola.training.recipe import Recipe
from tombola.views.chain_panels import Names
from tombola.views.exhibit import Exhibit
from tombola.views.layout import Layout, fields_of, percent_text
from tombola.views.picture import Line, Panel

CANDIDATE = "candidate"
"""The axis that says which candidate a number is of."""
EARLY = "after"
"""The axis that says after how much of the dense training an early measure was taken."""
VALUE, GAIN = "candidate", "gain"
RHO, TAU = "spearman", "kendall"
NOISE = "1 / (batch (1 - momentum))"
NOISE_BY_RATE = "lr / (batch (1 - momentum))"
_MOST_PANELS = 12
_MOST = 0.75
_CONFIGURATION = ("network", "dataset", "momentum", "batch_size", "pretrained")
_RECIPE = frozenset(field.name for field in fields(Recipe))
_OF_OTHERS = ("target", "search_share", "sparse_momentum", "sparse_batch_size", "subset_percent", "baseline")
"""Fields by which a number is of something else than a chain and its dense network."""
_NO_CANDIDATES = ("val_accuracy", "test_error", "layer_sparsity")
_BOOKKEEPING = ("train.", "learning.images", "barrier.alphas", "barrier.sparsities")


@dataclass(frozen=True)
class MeasuredConfiguration:
    """A configuration with a winning figure.

    key: of its tickets, without metric. gain: accuracy of the ticket less that of the dense network, in
        points, over the seeds that both have. winning: whether that is not below 0 and no run failed.
    """

    key: Key
    gain: float
    winning: bool
    failed: bool
    epochs: int


@dataclass(frozen=True)
class Candidate:
    """One early number: its values by configuration, NaN never; and how it ranks them beside their gains."""

    label: str
    values: Mapping[Key, float]
    agreement: Agreement | None


@dataclass(frozen=True)
class Forecast:
    """The configurations of one network on one data set that have a ticket of a sparsity, and candidates."""

    network: str | None
    dataset: str | None
    sparsity: float
    configurations: tuple[MeasuredConfiguration, ...]
    candidates: tuple[Candidate, ...]

    @property
    def judged(self) -> list[tuple[Candidate, Agreement]]:
        """The candidates that rank three configurations or more."""
        return [(one, one.agreement) for one in self.candidates if one.agreement is not None]


def forecasts(numbers: Iterable[Number], *, sparsity: float | None = None) -> list[Forecast]:
    """For each network and data set what its dense networks say of its tickets.

    sparsity: in percent, of the tickets; None for the highest that three quarters of the configurations have.
    """
    cells = longest(cells_of(numbers))
    grouped: dict[tuple[str | None, str | None], dict[Key, Cell]] = {}
    for key, cell in cells.items():
        if not any(getattr(key, name) is not None for name in _OF_OTHERS):
            grouped.setdefault((key.network, key.dataset), {})[key] = cell
    predictions = (_forecast(part, sparsity) for part in grouped.values())
    return [forecast for forecast in predictions if forecast is not None]


def _forecast(cells: Mapping[Key, Cell], sparsity: float | None) -> Forecast | None:
    """The forecast of the cells of one network and data set; None without tickets of that sparsity."""
    tickets = [
        (key, cell)
        for key, cell in cells.items()
        if is_ticket(key) and key.get("search") in (None, "iterative") and _dense(key) in cells
    ]
    if sparsity is None:
        counts = Counter(key.sparsity or 0.0 for key, _ in tickets)
        enough = _MOST * max(counts.values(), default=0)
        sparsity = max((percent for percent, count in counts.items() if count >= enough), default=None)
    chosen = [(key, cell) for key, cell in tickets if key.sparsity == sparsity]
    if not chosen or sparsity is None:
        return None
    configurations = tuple(_configuration(key, cell, cells[_dense(key)]) for key, cell in chosen)
    keys = [one.key for one in configurations]
    values: dict[str, dict[Key, float]] = dict([_noises(keys)])
    for key, cell in cells.items():
        if not key.sparsity and not _says_nothing(key.metric):
            for configuration in keys:
                if (apart := _apart(key, configuration)) is not None:
                    values.setdefault(_label(key, apart), {})[configuration] = cell.mean
    gains = {one.key: one.gain for one in configurations}
    candidates = tuple(
        Candidate(label, by_key, agreement(list(by_key.values()), [gains[key] for key in by_key]))
        for label, by_key in values.items()
        if len(set(by_key.values())) > 1  # what is the same for all predicts nothing
    )
    first = keys[0]
    return Forecast(first.network, first.dataset, sparsity, configurations, candidates)


def _dense(key: Key) -> Key:
    return replace(key, sparsity=0.0)


def _configuration(key: Key, ticket: Cell, dense: Cell) -> MeasuredConfiguration:
    """A configuration by its two cells; the gain is of the seeds that both have, where they say them."""
    by_seed = [dict(zip(cell.seeds, cell.values, strict=False)) for cell in (ticket, dense)]
    common = [seed for seed in by_seed[0] if seed in by_seed[1]]
    if common:
        gain = sum(by_seed[0][seed] - by_seed[1][seed] for seed in common) / len(common)
    else:
        gain = ticket.mean - dense.mean
    failed = ticket.failed or dense.failed
    return MeasuredConfiguration(
        replace(key, metric="", sparsity=None), gain, gain >= 0 and not failed, failed, ticket.epochs
    )


def _noises(keys: Iterable[Key]) -> tuple[str, dict[Key, float]]:
    """The noise of SGD by the recipe, its temperature up to a constant (Smith & Le, 2018), and its name.

    Where no key has a learning rate it is the same for all of them, and left out.
    """
    listed = list(keys)
    varies = any(isinstance(key.get("lr"), int | float) for key in listed)
    noises = {
        key: (_rate(key) if varies else 1.0) / (key.batch_size * (1 - key.momentum))
        for key in listed
        if key.batch_size is not None and key.momentum is not None
    }
    # Equal noises of other momenta must be equal in their last bit too.
    rounded = {key: float(f"{noise:.12g}") for key, noise in noises.items()}
    return (NOISE_BY_RATE if varies else NOISE), rounded


def _rate(key: Key) -> float:
    rate = key.get("lr")
    return float(rate) if isinstance(rate, int | float) else Recipe().lr


def _says_nothing(metric: str) -> bool:
    """Whether a number is what is predicted, a point of a course, or kept beside others."""
    return metric in _NO_CANDIDATES or metric.endswith("]") or metric.startswith(_BOOKKEEPING)


def _apart(key: Key, configuration: Key) -> tuple[tuple[str, Scalar], ...] | None:
    """The axes that a number of the dense network has of its own; None for one of another configuration.

    What it leaves open is of all configurations, such as a first stable epoch with and without rewinding. But
    not a setting of the recipe: where a key has none, it is the default's.
    """
    for name in _CONFIGURATION:
        if getattr(key, name) not in (None, getattr(configuration, name)):
            return None
    own, shared = dict(key.more), dict(configuration.more)
    if any(own.get(name) != shared.get(name) for name in _RECIPE & (own.keys() | shared.keys())):
        return None
    if any(name in shared and shared[name] != value for name, value in key.more):
        return None
    return tuple((name, value) for name, value in key.more if name not in shared)


def _label(key: Key, apart: Sequence[tuple[str, Scalar]]) -> str:
    """What a candidate is called: its metric, and what tells it from others of that metric."""
    named = [(name, getattr(key, name)) for name in ("reading", "block", "subset_criterion")]
    parts = [metric_heading(key.metric)]
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in named if value]
    parts += [name if value is True else f"{name.replace('_', ' ')} {value}" for name, value in apart]
    return ", ".join(parts)


def predictor_numbers(forecast: Forecast) -> list[Number]:
    """A forecast as numbers of a table: the gain and candidates of each configuration, then correlations."""
    numbers = []
    for one in forecast.configurations:
        own = {"gain": one.gain} | {
            candidate.label: candidate.values[one.key]
            for candidate in forecast.candidates
            if one.key in candidate.values
        }
        for label, value in own.items():
            key = replace(
                one.key, metric=GAIN if label == "gain" else VALUE, sparsity=forecast.sparsity,
                more=(*one.key.more, (CANDIDATE, _gain_label(forecast) if label == "gain" else label)),
            )  # fmt: skip
            numbers.append(Number(key=key, value=value, epochs=one.epochs, failed=one.failed))
    epochs = max(one.epochs for one in forecast.configurations)
    for candidate, both in forecast.judged:
        for name, correlation in ((RHO, both.spearman), (TAU, both.kendall)):
            columns = {
                name: correlation.value, f"{name}_low": correlation.low, f"{name}_high": correlation.high,
                f"{name}_p": correlation.p,
            }  # fmt: skip
            if correlation.critical is not None:
                columns[f"{name}_critical"] = correlation.critical
            if name == RHO:
                columns["configurations"] = both.points
            for metric, value in columns.items():
                key = Key(
                    metric=metric, network=forecast.network, dataset=forecast.dataset,
                    sparsity=forecast.sparsity, more=((CANDIDATE, candidate.label),),
                )  # fmt: skip
                numbers.append(Number(key=key, value=float(value), epochs=epochs))
    return numbers


def _gain_label(forecast: Forecast) -> str:
    return f"gain at {percent_text(forecast.sparsity)}%"


def sentences(forecast: Forecast) -> list[str]:
    """What a forecast comes to, and how little so few configurations can say."""
    count = len(forecast.configurations)
    gains = [one.gain for one in forecast.configurations]
    lines = [
        f"{many(count, 'configuration')} of {forecast.network} on {forecast.dataset} with tickets of "
        f"{percent_text(forecast.sparsity)}% sparsity: gains from {_signed(min(gains))} to "
        f"{_signed(max(gains))} points over the dense network, "
        f"{sum(one.winning for one in forecast.configurations)} winning."
    ]
    judged = forecast.judged
    if not judged:
        lines.append("Three configurations or more with different values are needed to rank them.")
        return lines
    level = 1 - CONFIDENCE
    beyond = [one.label for one, both in judged if both.spearman.p <= level]
    expected = level * len(judged)
    most = max(both.points for _, both in judged)
    reached = [both.spearman.critical for _, both in judged if both.points == most]
    critical = min((value for value in reached if value is not None), default=None)
    reach = (
        f"no rank correlation of {most} is beyond chance at {level:.0%}"
        if critical is None
        else f"of {most} a rank correlation (rho) has to reach about {critical:.2f} to "
        f"be beyond chance at {level:.0%}"
    )
    lines.append(
        f"By all orders of the gains {reach}; of {many(len(judged), 'candidate')} {len(beyond)} "
        f"{'is' if len(beyond) == 1 else 'are'}{': ' + ', '.join(beyond) if beyond else ''}, where up to "
        f"{expected:.2g} would be by chance alone."
    )
    return lines


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def predictor_exhibits(name: str, found: Sequence[Forecast], *, experiment: str = "") -> list[Exhibit]:
    """The two tables of some forecasts: values by configuration, and correlations by candidate.

    experiment: of which they are a part. The picture of the second one is made by its caller, who knows what
    else stands on it, of :func:`predictor_panels`.
    """
    numbers = [number for forecast in found for number in predictor_numbers(forecast)]
    entries = _entries(numbers)
    values = [entry for entry in entries if entry.key.metric in (VALUE, GAIN)]
    correlations = [entry for entry in entries if entry.key.metric not in (VALUE, GAIN)]
    keys = [entry.key for entry in values]
    varying = [
        field
        for field in fields_of(keys)
        if field not in ("metric", "over", "sparsity", CANDIDATE)
        and len({key.get(field) for key in keys}) > 1
    ]
    listed = [
        (
            f"{name}-values", "Early measures and gains", values,
            Layout(tuple(varying) or ("network", "dataset"), (CANDIDATE,)),
        ),
        (
            name, "Predictors of winning", correlations,
            Layout(("network", "dataset", "sparsity", CANDIDATE), ("metric",)),
        ),
    ]  # fmt: skip
    return [
        Exhibit(
            name=part, heading=heading, experiment=experiment, entries=tuple(own), layout=layout,
        )
        for part, heading, own, layout in listed
        if own
    ]  # fmt: skip


def _entries(numbers: Iterable[Number]) -> list[Entry]:
    groups: dict[Key, list[Number]] = {}
    for number in numbers:
        groups.setdefault(number.key, []).append(number)
    return entries_of(groups.items())


def predictor_panels(found: Sequence[Forecast]) -> list[Panel]:
    """The gain against each candidate, a point a configuration; those that rank them best come first."""
    names = Names.of(one.key for forecast in found for one in forecast.configurations)
    panels = []
    for forecast in found:
        ordered = sorted(forecast.judged, key=lambda pair: -abs(pair[1].spearman.value))
        for candidate, both in ordered[:_MOST_PANELS]:
            rho = both.spearman
            title = (
                f"rho {_two(rho.value)} [{_two(rho.low)}, {_two(rho.high)}], p {rho.p:.2g}, n = {both.points}"
            )
            lines = [
                Line(
                    names.label(one.key), [candidate.values[one.key]], [one.gain], one.key.momentum,
                    one.key.batch_size, winning=[one.winning], failed=[one.failed],
                )
                for one in forecast.configurations
                if one.key in candidate.values
            ]  # fmt: skip
            pair = names.pair(forecast.configurations[0].key)
            panels.append(
                Panel(
                    f"{pair}: {title}" if pair else title, candidate.label,
                    f"gain at {percent_text(forecast.sparsity)}% (points)", lines, scatter=True,
                )
            )  # fmt: skip
    return panels


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
