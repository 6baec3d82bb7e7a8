"""Centroids of k-means: which is nearest to a point, and where they move.

What is found must not depend on who computes it. Sums are in double precision and in the order of rows, and of two
centroids that single precision cannot tell apart for a row, double precision decides: a matrix product may differ in
its last bits from one machine, and one number of threads, to another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from lake.analytics.stages import Ids, load, save
from lake.index.kmeans import Floats, unit
from lake.storage import Location

Doubles = NDArray[np.float64]
Labels = NDArray[np.int32]

SCORES_BYTES = 32 << 20
_PAIRS = 8192
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Centers:
    """Centroids, and what it costs to be assigned to each.

    Parameters
    ----------
    centroids : float32, shape (k, d)
        Of length one under cosine and dot.
    prices : float64, shape (k,)
        Added to the distance; zero unless clusters are to be of like size.
    metric : str
    """

    centroids: Floats = field(hash=False)
    prices: Doubles = field(hash=False)
    metric: str

    @classmethod
    def read(cls, folder: Location, name: str, metric: str) -> Centers:
        """Load them out of a job's folder."""
        return cls(**load(folder, name), metric=metric)

    def write(self, folder: Location, name: str) -> None:
        """Keep them in a job's folder."""
        save(folder, name, centroids=self.centroids, prices=self.prices)

    def assign(self, points: Floats) -> Labels:
        """Find for each point the centroid whose distance and price are the least; the first of several."""
        long = self.centroids.astype(np.float64)
        # argmin |x - c|^2 + p = argmax x.c - |c|^2 / 2 - p / 2; under the others argmin 1 - x.c + p
        offset = (np.einsum("kd,kd->k", long, long) + self.prices) / 2 if self.metric == "l2" else self.prices
        turned, short = np.ascontiguousarray(self.centroids.T), offset.astype(np.float32)
        reach = float(np.sqrt(np.einsum("kd,kd->k", long, long).max()))
        found = np.empty(len(points), np.int32)
        step = max(1, SCORES_BYTES // (4 * len(turned.T)))
        for start in range(0, len(points), step):
            some = points[start : start + step]
            scores = some @ turned
            scores -= short
            lengths = np.sqrt(np.einsum("nd,nd->n", some, some))
            slack = 2 * _EPSILON * (points.shape[1] * lengths * reach + np.abs(offset).max())
            near = scores >= (scores.max(axis=1) - slack)[:, None]
            found[start : start + step] = near.argmax(axis=1)
            close = np.flatnonzero(near.sum(axis=1) > 1)
            if len(close):
                found[start + close] = _decide(some[close], near[close], long, offset)
        return found


def _decide(points: Floats, near: NDArray[np.bool_], centroids: Doubles, offset: Doubles) -> Labels:
    """Choose in double precision among the centroids that are near."""
    rows, at = np.nonzero(near)
    scores = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS):
        some = slice(start, start + _PAIRS)
        scores[some] = np.einsum("pd,pd->p", points[rows[some]].astype(np.float64), centroids[at[some]])
    scores -= offset[at]
    order = np.lexsort((at, -scores, rows))
    _, first = np.unique(rows[order], return_index=True)
    chosen: Labels = at[order][first].astype(np.int32)
    return chosen


@dataclass(frozen=True)
class Totals:
    """What a round sums up, by cluster.

    Parameters
    ----------
    sums : float64, shape (k, d)
    counts : int64, shape (k,)
    spread : float64, shape (k,)
        The distances of the rows from their centroid.
    """

    sums: Doubles = field(hash=False)
    counts: Ids = field(hash=False)
    spread: Doubles = field(hash=False)

    @classmethod
    def none(cls, centers: Centers) -> Totals:
        """Begin to sum up."""
        k, dimension = centers.centroids.shape
        return cls(np.zeros((k, dimension)), np.zeros(k, np.int64), np.zeros(k))

    def add(self, points: Floats, labels: Labels, centers: Centers) -> None:
        """Count some points in."""
        _add((self.sums, self.counts, self.spread), points, labels, centers.centroids, centers.metric == "l2")

    def include(self, other: Totals) -> None:
        """Count in what others have summed up."""
        for name, mine in vars(self).items():
            np.add(mine, getattr(other, name), out=mine)

    def moved(self, centers: Centers, seed: int) -> Centers:
        """Move each centroid to the mean of its points; an empty one takes half of the widest cluster."""
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        spread, rng = self.spread.copy(), np.random.default_rng(seed)
        for empty in np.flatnonzero(self.counts == 0):
            widest = int(spread.argmax())
            if spread[widest] <= 0:  # all points lie on centroids
                means[empty] = centers.centroids[empty]
                continue
            width = np.sqrt(spread[widest] / self.counts[widest] / means.shape[1])
            apart = width * rng.standard_normal(means.shape[1])
            means[empty], means[widest] = means[widest] + apart, means[widest] - apart
            spread[widest] /= 2
        found = means.astype(np.float32)
        return Centers(found if centers.metric == "l2" else unit(found), centers.prices, centers.metric)


@numba.njit(cache=True, nogil=True)
def _add(
    totals: tuple[Doubles, Ids, Doubles],
    points: Floats,
    labels: Labels,
    centroids: Floats,
    squared: bool,  # noqa: FBT001  numba compiles no keywords
) -> None:
    sums, counts, spread = totals
    for i in range(len(points)):
        at = labels[i]
        total = 0.0
        for j in range(points.shape[1]):
            x, c = np.float64(points[i, j]), np.float64(centroids[at, j])
            sums[at, j] += x
            total += (x - c) * (x - c) if squared else x * c
        counts[at] += 1
        spread[at] += total if squared else 1.0 - total
