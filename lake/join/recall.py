"""Recall as a parameter: how many partitions to probe, learnt from a sample whose exact neighbours are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.join.comparison import Comparison
from lake.join.route import places
from lake.join.sampling import sampled
from lake.join.work import Work
from lake.nearest.device import kernel
from lake.nearest.kernel import Floats
from lake.run import Executor
from lake.run.threads import Hands

_Z95 = 1.96
_LEAST = 20  # rows of the sample that have neighbours: fewer prove nothing


@dataclass(frozen=True)
class Recall:
    """What a sample says about recall.

    Parameters
    ----------
    target : float or None
        What was asked for.
    probes : int
        Partitions that each row of the left side looks into.
    measured : float
        Share of the true k nearest that a join with so many probes finds, mean over the sample.
    low, high : float
        Its 95% confidence interval.
    sample : int
        Rows of the left side that were compared with every row of the right one.
    """

    target: float | None
    probes: int
    measured: float
    low: float
    high: float
    sample: int

    @classmethod
    def of(cls, target: float | None, probes: int, hits: NDArray[np.int64], there: NDArray[np.int64]) -> Recall:
        """Make it of how many of its true neighbours each row of the sample has found, and how many there are."""
        asked = there > 0
        if not asked.any():
            return cls(target, probes, 1.0, 0.0, 1.0, 0)
        each = hits[asked] / there[asked]
        mean = float(each.mean())
        # A sample that missed nothing does not prove that nothing is missed: the rule of three.
        error = _Z95 * float(each.std(ddof=1)) / len(each) ** 0.5 if len(each) > 1 else 1.0
        low = max(0.0, mean - max(error, 3 / there.sum()))
        return cls(target, probes, mean, low, min(1.0, mean + error), len(each))

    @property
    def likely(self) -> float:
        """One standard error below what was measured: the recall of all rows is rarely less."""
        return self.measured - (self.measured - self.low) / _Z95

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.sample:
            return "recall not measured, for no row of the sample has a neighbour"
        return f"recall {self.measured:.3f} ({self.low:.3f} to {self.high:.3f}, {self.sample} rows compared with all)"


@dataclass(frozen=True)
class Curve:
    """For each row of a sample and each of its true neighbours, how many probes it takes to find it.

    Parameters
    ----------
    probes : int32, shape (sample, k)
        From 1; 0 where there is no such neighbour.
    partitions : int
    """

    probes: NDArray[np.int32] = field(hash=False)
    partitions: int

    def at(self, probes: int, target: float | None = None) -> Recall:
        """Tell the recall of so many probes."""
        there = self.probes > 0
        return Recall.of(target, probes, ((self.probes <= probes) & there).sum(axis=1), there.sum(axis=1))

    def reach(self, target: float) -> Recall:
        """Find the fewest probes that are likely to reach the target; all, where the sample tells too little.

        Those whose recall in the sample just is the target would miss it with every other left side.
        """
        if (self.probes > 0).any(axis=1).sum() < _LEAST:
            return self.at(self.partitions, target)
        fewest, most = 1, max(1, int(self.probes.max(initial=1)))
        while fewest < most:
            middle = (fewest + most) // 2
            if self.at(middle).likely >= target:
                most = middle
            else:
                fewest = middle + 1
        return self.at(fewest, target)


@dataclass(frozen=True)
class Truth:
    """The nearest rows of a sample within some partitions: a task's receipt.

    Parameters
    ----------
    distances : tuple of float
        For each query of the sample, its k nearest; infinite where there is none.
    partitions : tuple of int
        Where each of them lies.
    """

    distances: tuple[float, ...]
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Compare:
    """Compare a sample of the left side with the rows of some partitions.

    Parameters
    ----------
    what : Comparison
    first, last : int
        The partitions, the last excluded.
    """

    what: Comparison
    first: int
    last: int

    @property
    def key(self) -> str:
        """The partitions."""
        return f"{self.first:08d}-{self.last:08d}"

    def run(self) -> Truth:
        """Meet every row."""
        what = self.what
        queries, ids = sampled(what.left, what.sample, what.metric)
        found = kernel(queries, what.k, what.metric, what.within)
        checks = what.conditions.load()
        checks.begin(ids)
        partitions = what.partitions()
        known, homes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        wanted = self.first + np.flatnonzero(partitions.rows[self.first : self.last])
        with Hands() as hands:
            for group in partitions.read(wanted, hands.count):
                rows = found.prepare(group.vectors, group.ids, len(queries), hands)
                found.meet_all(rows, checks.against(group.ids), hands)
                known.append(group.ids)
                homes.append(group.homes)
        found.sort()
        rows_of = np.concatenate(known)
        order = np.argsort(rows_of)
        there = found.ids >= 0
        at = np.searchsorted(rows_of[order], found.ids[there])
        home = np.zeros(found.ids.shape, np.int64)
        home[there] = np.concatenate(homes)[order][at]
        distances = np.where(there, found.distances, np.inf)
        return Truth(tuple(distances.ravel().tolist()), tuple(home.ravel().tolist()))


def learn(queries: Floats, centroids: Floats, truths: Sequence[Truth], k: int, metric: str) -> Curve:
    """Find out how many probes each of a sample's true neighbours takes."""
    distances = np.concatenate([np.array(t.distances, np.float32).reshape(-1, k) for t in truths], axis=1)
    homes = np.concatenate([np.array(t.partitions, np.int64).reshape(-1, k) for t in truths], axis=1)
    best = np.argsort(distances, axis=1, kind="stable")[:, :k]
    near, there = np.take_along_axis(homes, best, 1), np.isfinite(np.take_along_axis(distances, best, 1))
    probes = np.where(there, np.take_along_axis(places(queries, centroids, metric), near, axis=1), 0)
    return Curve(probes.astype(np.int32), len(centroids))


def reach(work: Work, what: Comparison, workers: Executor) -> Recall:
    """Learn from the sample how many partitions to probe."""
    plan = work.plan
    assert plan.recall is not None  # noqa: S101  no number of probes was given
    assert what.centroids is not None  # noqa: S101  there are partitions
    cuts = np.linspace(0, plan.source.partitions, plan.workers + 1).astype(int).tolist()
    tasks = [Compare(what, first, last) for first, last in pairwise(cuts) if last > first]
    ledger = work.ledger(vars, lambda kept: Truth(tuple(kept["distances"]), tuple(kept["partitions"])))
    truths = [result.value for result in work.stage(workers, "sample", tasks, ledger)]
    queries, _ = sampled(what.left, what.sample, what.metric)
    return learn(queries, what.centroids.read(), truths, plan.k, plan.metric).reach(plan.recall)
