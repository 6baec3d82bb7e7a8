"""Clusters of bounded size.

During the rounds each cluster has a price that rises while it holds more rows than it may, so that its outer rows go
elsewhere of themselves. What is still over the bound in the end is moved: each block of rows is told how many of its
rows each cluster keeps, and how many more each may take; it moves those that lose least by it. The bound holds exactly,
and no worker needs to see more than its block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from lake.analytics.centers import Centers, Labels, Totals
from lake.analytics.lloyd import AssignBlock, Assigned, read
from lake.analytics.stages import Ids, load, save
from lake.index.kmeans import Floats

_ROWS = 1024


@dataclass(frozen=True)
class Moved:
    """The receipt of a block.

    Parameters
    ----------
    labels : str
        The file of its rows' ids and clusters.
    rows : int
        Rows that have been moved.
    spread : float
        The distances of all rows from their centroids.
    """

    labels: str
    rows: int
    spread: float


@dataclass(frozen=True)
class BalanceBlock:
    """Move the rows of a block that are too many for their clusters.

    Parameters
    ----------
    block : AssignBlock
        Which assigned its rows.
    done : Assigned
    kept, taken : tuple of int
        For each cluster.
    """

    block: AssignBlock
    done: Assigned
    kept: tuple[int, ...]
    taken: tuple[int, ...]

    @property
    def key(self) -> str:
        """The number of the block."""
        return self.block.key

    def run(self) -> Moved:
        """Choose the rows that lose least, and find another cluster for each, in their order."""
        block = self.block
        centers = Centers.read(block.folder, block.centers, block.metric)
        found = load(block.folder, self.done.labels)
        labels: Labels = found["labels"]
        taken = np.array(self.taken)
        counts = np.bincount(labels, minlength=len(taken))
        crowded = counts > np.array(self.kept)
        going = self._losers(centers, labels, crowded, taken > 0) if crowded.any() else np.empty(0, np.int64)
        moving = np.zeros(len(labels), np.bool_)
        moving[going] = True
        totals, start = Totals.none(centers), 0
        for _, points in read(block.side, block.spans, block.metric):
            mine = slice(start, start + len(points))
            some = np.flatnonzero(moving[mine])
            for at in range(0, len(some), _ROWS):
                few = some[at : at + _ROWS]
                labels[start + few] = _place(_distances(points[few], centers), taken)
            totals.add(points, labels[mine], centers)
            start += len(points)
        name = f"{self.done.name}-moved.npz"
        save(block.folder, name, ids=found["ids"], labels=labels)
        return Moved(name, len(going), float(totals.spread.sum()))

    def _losers(self, centers: Centers, labels: Labels, crowded: NDArray[np.bool_], open_: NDArray[np.bool_]) -> Ids:
        """Find the rows of crowded clusters whose way to the nearest open one is the least further."""
        regret, start = np.full(len(labels), np.inf, np.float32), 0
        for _, points in read(self.block.side, self.block.spans, self.block.metric):
            mine = labels[start : start + len(points)]
            some = np.flatnonzero(crowded[mine])
            for at in range(0, len(some), _ROWS):
                few = some[at : at + _ROWS]
                apart = _distances(points[few], centers)
                own = apart[np.arange(len(few)), mine[few]]
                regret[start + few] = apart[:, open_].min(axis=1) - own
            start += len(points)
        counts = np.bincount(labels, minlength=len(crowded))
        going = []
        for cluster in np.flatnonzero(crowded):
            members = np.flatnonzero(labels == cluster)
            least = np.argsort(regret[members], kind="stable")
            going.append(members[least[: counts[cluster] - self.kept[cluster]]])
        return np.concatenate(going)


def _distances(points: Floats, centers: Centers) -> Floats:
    """Compute distances in double precision and round them, so that they are the same everywhere."""
    a, c = points.astype(np.float64), centers.centroids.astype(np.float64)
    found = 1 - a @ c.T
    if centers.metric == "l2":
        found = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("kd,kd->k", c, c) + 2 * (found - 1)
    return np.asarray(found, np.float32)


@numba.njit(cache=True, nogil=True)
def _place(distances: Floats, room: Ids) -> Labels:
    """Give each row the nearest cluster that has room, and take the room."""
    found = np.empty(len(distances), np.int32)
    for i in range(len(distances)):
        best = -1
        for c in range(len(room)):
            if room[c] > 0 and (best < 0 or distances[i, c] < distances[i, best]):
                best = c
        room[best] -= 1
        found[i] = best
    return found
