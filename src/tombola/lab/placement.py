"""Which worker process each chain of trainings runs in, and which chain goes first.

A chain is a line of jobs that are made from each other, from its start to its last training. Where several
trainings are made from one result, the one with the most training behind it goes on with the chain, and each
other begins one of its own. Dask by itself would send all of them to the process that has the result, and
move them on by a few a second while the other processes wait. So chains are spread before they begin, the
longest first, each to the process that would then have the least training for each of its slots: the greedy
rule of Graham (1969), "Bounds on multiprocessing timing anomalies". The jobs of a chain stay there, where
their steps are captured, unless Dask moves one to a process with less than half the average waiting, or
this one ends. Those with the most training still to do go first; where many become ready at once, as after a
start that they share, Dask begins any of them.

How much training there is, the functions state (:mod:`tombola.cost`), in images. Jobs that train nothing, or
whose function does not say, are left to Dask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from tombola.cost import Cost
from tombola.lab.costs import Costs
from tombola.lab.job import Job


class Chains:
    """The chains of a graph of jobs.

    jobs: by name. needs: for each the names of those that it waits for, all among ``jobs``.
    """

    def __init__(self, jobs: Mapping[str, Job], needs: Mapping[str, Sequence[str]]) -> None:
        costs, order = Costs(), list(TopologicalSorter(needs).static_order())
        self._needs = needs
        # Images of the longest line of trainings that begins with each job.
        self._left = {name: _training(costs, jobs[name]) for name in order}
        heirs: dict[str, str] = {}
        for name in reversed(order):
            self._left[name] += self._left[heirs[name]] if name in heirs else 0.0
            for need in needs[name]:
                if need not in heirs or self._left[name] >= self._left[heirs[need]]:
                    heirs[need] = name  # of equal ones the first
        self._first: dict[str, str] = {}
        for name in order:
            before = [need for need in needs[name] if heirs[need] == name]
            longest = max(before, key=lambda need: self._left[need], default=None)
            self._first[name] = name if longest is None else self._first[longest]

    def priorities(self) -> dict[str, int]:
        """For each job 0 if the most training is left from it on, -1 if the next less, and so on.

        One from which on there is none is as urgent as what it is made from, so that it does not wait for the
        ends of all chains; one that is made from nothing of the kind may take long, and has 0.
        """
        left: dict[str, float] = {}
        longest = max(self._left.values(), default=0.0)
        for name, own in self._left.items():  # those that it needs are before it
            left[name] = own or max((left[need] for need in self._needs[name]), default=longest)
        ranks = {images: -rank for rank, images in enumerate(sorted(set(left.values()), reverse=True))}
        return {name: ranks[images] for name, images in left.items()}

    def places(self, slots: Mapping[str, int]) -> dict[str, str]:
        """The process of each job of a chain.

        slots: of each process. Without any, as when all have just ended, no job has a place.
        """
        if not slots:
            return {}
        load = dict.fromkeys(slots, 0.0)
        places: dict[str, str] = {}
        firsts = [name for name, first in self._first.items() if name == first and self._left[name]]
        for first in sorted(firsts, key=lambda name: -self._left[name]):
            length = self._left[first]
            places[first] = min(slots, key=lambda process: (load[process] + length) / slots[process])
            load[places[first]] += length
        return {name: places[first] for name, first in self._first.items() if self._left[name]}


def _training(costs: Costs, job: Job) -> float:
    """Images that a job trains on; 0 if that is not known."""
    try:
        cost = costs.of(job) if job.declaration.cost is not None else Cost()
    except Exception:  # a user's function may fail in any way, and no result rests on what it costs
        return 0.0
    return cost.images if cost.epochs or cost.heads else 0.0
