"""Rows on frozen features: linear probes in untrained tickets, and their transfer to other data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.readers import block_accuracy, measured_accuracy, run_accuracy
from tombola.experiments.paper.rows import Listing, columns, key_after, numbers
from tombola.experiments.paper.settings import (
    CONTROL,
    EIGHT,
    FROZEN_DENSE,
    PROBED,
    RETRAINED,
    TARGETS,
    TICKET,
    Configuration,
    Pair,
)
from tombola.lab.item import Measured
from tombola.lab.job import Job
from tombola.table.key import Key


def probed_tickets(pair: Pair, *, random_dense: bool = False, literal: bool = False) -> Listing:
    """Probes of untrained tickets, of permuted ones, and of the random dense network if the table has it.

    literal: blocks by their own numbers in the network, those that the table takes among them (reading B6).
    """

    def listed(work: PaperJobs) -> Iterator[Measured]:
        blocks, reading = work.subject(pair).blocks, "literal" if literal else ""
        if literal:
            blocks = _own_numbers(blocks)
        rounds = columns(work, pair, *PROBED[pair])
        for configuration in work.scale.chosen(EIGHT):
            for n in rounds:
                yield from _probes(work, pair, configuration, n, blocks, reading)
        for configuration in work.scale.chosen((CONTROL,)):
            for n in rounds:
                tickets = [work.tickets(pair, configuration, s)[n] for s in numbers(work)]
                jobs = [work.probe(pair, work.permuted(ticket, s), s) for s, ticket in enumerate(tickets)]
                key = key_after(
                    "probe_accuracy", pair, configuration, n, baseline="permuted", reading=reading
                )
                yield from _blocks(work, key, jobs, blocks)
        if random_dense:
            jobs = [work.probe(pair, work.start(pair, s), s) for s in numbers(work)]
            for n in rounds:  # the table repeats it under each sparsity
                key = key_after("probe_accuracy", pair, None, n, baseline="random_dense", reading=reading)
                yield from _blocks(work, key, jobs, blocks)

    return listed


def probed_rounds(pair: Pair) -> Listing:
    """Probes of the untrained tickets of every round."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for configuration in work.scale.chosen(EIGHT):
            for n in work.scale.curve_rounds(pair):
                yield from _probes(work, pair, configuration, n, work.subject(pair).blocks)

    return listed


def _own_numbers(blocks: Mapping[int, int]) -> dict[int, int]:
    """The numbers 4 and 8 taken literally, and the literal numbers of the blocks that stand for them."""
    last = max(blocks.values())
    literal = {*blocks, *(place + 1 for place in blocks.values())}
    return {number: number - 1 for number in sorted(literal) if number - 1 <= last}


def _probes(
    work: PaperJobs,
    pair: Pair,
    configuration: Configuration,
    prunings: int,
    blocks: Mapping[int, int],
    reading: str = "",
) -> Iterator[Measured]:
    jobs = [work.probe(pair, work.tickets(pair, configuration, s)[prunings], s) for s in numbers(work)]
    key = key_after("probe_accuracy", pair, configuration, prunings, reading=reading)
    return _blocks(work, key, jobs, blocks)


def _blocks(work: PaperJobs, key: Key, jobs: list[Job], blocks: Mapping[int, int]) -> Iterator[Measured]:
    for block, probed in blocks.items():
        yield work.measured(replace(key, block=block), tuple(jobs), block_accuracy(probed))


def transferred_tickets(pair: Pair, *, retrained: bool = False) -> Listing:
    """Frozen tickets, frozen dense networks and, if the table has it, dense ones trained on the target."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        columns(work, pair, TICKET)
        for target in TARGETS[pair]:
            for configuration in work.scale.chosen(EIGHT):
                bodies = [work.tickets(pair, configuration, s)[TICKET] for s in numbers(work)]
                key = key_after("val_accuracy", pair, configuration, TICKET, target=target)
                yield _transfer(work, pair, target, bodies, key)
            for configuration in work.scale.chosen(FROZEN_DENSE):
                bodies = [work.runs(pair, configuration, s)[0] for s in numbers(work)]
                key = key_after("val_accuracy", pair, configuration, 0, target=target)
                yield _transfer(work, pair, target, bodies, replace(key, baseline="frozen_dense"))
            if retrained and work.scale.chosen((RETRAINED,)):
                runs = tuple(work.retrained(pair, target, s) for s in numbers(work))
                key = key_after("val_accuracy", pair, None, 0, target=target)
                yield work.measured(
                    replace(key, dataset=target, baseline="retrained_dense"), runs, run_accuracy
                )

    return listed


def _transfer(work: PaperJobs, pair: Pair, target: str, bodies: list[Job], key: Key) -> Measured:
    jobs = tuple(work.transfer(pair, body, target, s) for s, body in enumerate(bodies))
    return work.measured(key, jobs, measured_accuracy)
