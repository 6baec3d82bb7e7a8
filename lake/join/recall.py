"""Recall as a parameter: how many partitions to probe, learnt from a sample whose exact neighbours are found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.join.conditions import Conditions
from lake.join.kernel import Nearest
from lake.join.runs import Partitions, Run
from lake.join.side import Side, take
from lake.join.tasks import Centroids, route

SAMPLE = 256
_Z95 = 1.96


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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
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
        asked = there.any(axis=1)
        if not asked.any():
            return Recall(target, probes, 1.0, 0.0, 1.0, 0)
        each = ((self.probes <= probes) & there).sum(axis=1)[asked] / there.sum(axis=1)[asked]
        mean = float(each.mean())
        # A sample that missed nothing does not prove that nothing is missed: the rule of three.
        error = _Z95 * float(each.std(ddof=1)) / len(each) ** 0.5 if len(each) > 1 else 1.0
        low = max(0.0, mean - max(error, 3 / there.sum()))
        return Recall(target, probes, mean, low, min(1.0, mean + error), len(each))

    def reach(self, target: float) -> Recall:
        """Find the fewest probes whose recall in the sample is the target."""
        fewest, most = 1, max(1, int(self.probes.max(initial=1)))
        while fewest < most:
            middle = (fewest + most) // 2
            if self.at(middle).measured >= target:
                most = middle
            else:
                fewest = middle + 1
        return self.at(fewest, target)


@dataclass(frozen=True)
class Calibrate:
    """Compare a sample of the left side with every row of the right one.

    Parameters
    ----------
    left : Side
    ids : tuple of int
        The row ids of the sample.

    Others as `lake.join.tasks.JoinBlock` has them.
    """

    left: Side
    ids: tuple[int, ...]
    k: int
    metric: str
    within: float | None
    centroids: Centroids
    runs: tuple[Run, ...]
    conditions: Conditions

    @property
    def key(self) -> str:
        """There is one."""
        return "sample"

    def run(self) -> list[list[int]]:
        """Return `Curve.probes`."""
        ids = np.array(self.ids, np.int64)
        table = take(self.left.snapshot.dataset, ids, [self.left.column])
        queries, at = self.left.matrix(table[self.left.column].combine_chunks(), self.metric)
        if not len(queries):
            return []
        centroids = self.centroids.read()
        found = Nearest(queries, self.k, self.metric, self.within)
        checks = self.conditions.load()
        checks.begin(ids[at])
        partitions = Partitions(self.runs, self.centroids.folder, normalise=self.metric == "cosine")
        everybody = np.arange(len(queries), dtype=np.int32)
        homes: list[tuple[NDArray[np.int64], int]] = []
        for partition, some_ids, rows in partitions.read(np.flatnonzero(partitions.rows > 0)):
            found.meet(everybody, rows, some_ids, checks.against(some_ids))
            homes.append((some_ids, partition))
        found.sort()
        known = np.concatenate([some for some, _ in homes]) if homes else np.empty(0, np.int64)
        home = np.repeat([p for _, p in homes], [len(some) for some, _ in homes])
        order = np.argsort(known)
        there = found.ids >= 0
        near = np.where(there, home[order][np.searchsorted(known[order], np.where(there, found.ids, known[:1]))], 0)
        routes = route(queries, centroids, self.metric, len(centroids))
        places = np.empty_like(routes)
        np.put_along_axis(places, routes, np.arange(1, routes.shape[1] + 1, dtype=np.int32)[None, :], axis=1)
        probes = np.where(there, np.take_along_axis(places, near.astype(np.int64), axis=1), 0)
        return [[int(value) for value in line] for line in probes]
