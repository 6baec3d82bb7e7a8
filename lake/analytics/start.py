"""The centroids that k-means begins with: those of a sample."""

from __future__ import annotations

import numpy as np

from lake.analytics.centers import Centers, Totals
from lake.index.kmeans import Floats, unit

_ROUNDS = 8
# Points that the first are chosen from, and how many at most: choosing takes a pass over them for each.
_SPREAD_OF, _SPREAD_MOST = 8192, 1024


def first(sample: Floats, k: int, metric: str, seed: int) -> Centers:
    """Run k-means on a sample that is in random order."""
    some = sample[: max(_SPREAD_OF, k)]
    some = some if metric == "l2" else unit(some)
    centers = Centers(_spread(some, k, seed) if k <= _SPREAD_MOST else some[:k], np.zeros(k), metric)
    for number in range(_ROUNDS):
        totals = Totals.none(centers)
        totals.add(sample, centers.assign(sample), centers)
        centers = totals.moved(centers, seed + number)
    return centers


def _spread(points: Floats, k: int, seed: int) -> Floats:
    """Choose points far from each other: each the best of a few, drawn by their squared distance from those before."""
    rng, long = np.random.default_rng(seed), points.astype(np.float64)
    lengths, tries = np.einsum("nd,nd->n", long, long), 2 + int(np.log(k))
    chosen, apart, drawn = list[int](), np.full(len(points), np.inf), np.zeros(1, np.int64)
    while len(chosen) < k:
        to = lengths[:, None] + lengths[drawn] - 2 * long @ long[drawn].T
        to = np.minimum(np.maximum(to, 0), apart[:, None])
        best = int(to.sum(axis=0).argmin())
        chosen.append(int(drawn[best]))
        apart = to[:, best]
        total = apart.cumsum()
        drawn = np.searchsorted(total, rng.random(tries) * total[-1], side="right")
        drawn = np.minimum(drawn, len(points) - 1)
    return points[chosen]
