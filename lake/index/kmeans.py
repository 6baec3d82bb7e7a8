"""k-means whose work is to find the nearest of many centroids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lake.run.threads import Hands

Floats = NDArray[np.float32]

# Points of the sample for each centroid. The more the better, up to the most, where they are affordable.
_FEWEST_POINTS, _MOST_POINTS = 64, 256
_FEW_ITERATIONS, _MOST_ITERATIONS = 4, 16
# Some five seconds on two cores. What a full iteration costs grows with the square of k.
BUDGET_FLOP = 600e9
_SCORES_BYTES = 32 << 20
_GATHERED_BYTES = 1 << 20
_TINY = np.float32(1e-30)
_MUCH_FLOP = 2e9  # less is done before the compiled kernel is loaded


def nearest(points: Floats, centroids: Floats, hands: Hands | None = None) -> NDArray[np.int32]:
    """Find the nearest centroid of each point, by L2; by angle if all centroids are of one length.

    Parameters
    ----------
    points : float32, shape (n, d)
    centroids : float32, shape (k, d)
    hands : Hands, optional
        Share the work.

    Returns
    -------
    int32, shape (n,)
    """
    if 2 * points.size * len(centroids) > _MUCH_FLOP:
        from lake.nearest.device import processor  # loads a compiler

        found = processor(points, 1, "l2", hands=hands)
        found.meet_all(found.prepare(centroids, np.arange(len(centroids)), len(points), hands), hands=hands)
        return np.maximum(found.ids[:, 0], 0).astype(np.int32)  # of a distance beyond float32, any
    # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
    half = np.einsum("kd,kd->k", centroids, centroids) / 2
    transposed = np.ascontiguousarray(centroids.T)
    chosen = np.empty(len(points), np.int32)
    block = max(1, _SCORES_BYTES // (4 * len(centroids)))
    for start in range(0, len(points), block):
        scores = points[start : start + block] @ transposed
        scores -= half
        chosen[start : start + block] = scores.argmax(axis=1)
    return chosen


def sample_points(k: int, dimension: int, flop: float = BUDGET_FLOP) -> int:
    """Say how many points a centroid should be trained on."""
    affordable = flop / (_MOST_ITERATIONS * k * k * dimension)
    return int(min(_MOST_POINTS, max(_FEWEST_POINTS, affordable)))


def kmeans(
    sample: Floats, k: int, rng: np.random.Generator, *, spherical: bool = False, flop: float = BUDGET_FLOP
) -> Floats:
    """Find k centroids.

    Parameters
    ----------
    sample : float32, shape (n, d)
        In random order; `sample_points` for each centroid are enough.
    k : int
        At most n.
    spherical : bool
        Cluster by angle, with centroids of length one. For points of one length it gives more recall than
        means do.
    flop : float
        What the iterations may cost, as far as they are not the fewest.

    Returns
    -------
    float32, shape (k, d)
    """
    centroids = unit(sample[:k]) if spherical else sample[:k].copy()
    if len(sample) == k:
        return centroids
    with Hands() as hands:
        for part in _schedule(sample, k, flop):
            _move(part, nearest(part, centroids, hands), centroids, rng, hands)
            if spherical:
                centroids = unit(centroids)
    return centroids


def unit(vectors: Floats) -> Floats:
    """Scale vectors to length one; a zero vector stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    scaled: Floats = vectors / np.maximum(lengths, _TINY)[:, None]
    return scaled


def _schedule(sample: Floats, k: int, flop: float) -> list[Floats]:
    """Choose the points of each iteration."""
    affordable = int(flop / (2 * sample.size * k))
    if affordable >= _FEW_ITERATIONS:
        return [sample] * min(affordable, _MOST_ITERATIONS)
    # Most of the way on half of the sample: four iterations for the price of two and a half.
    return [sample[: max(k, len(sample) // 2)]] * 3 + [sample]


def _move(
    points: Floats, assigned: NDArray[np.int32], centroids: Floats, rng: np.random.Generator, hands: Hands
) -> None:
    """Move each centroid to the mean of its points; an empty one goes to a point, likely of a large cluster."""
    order = np.argsort(assigned, kind="stable")
    counts = np.bincount(assigned, minlength=len(centroids))
    ends = np.cumsum(counts)
    starts = ends - counts
    full = np.flatnonzero(counts)

    def sum_up(some: NDArray[np.int64]) -> None:
        first = starts[some[0]]
        gathered = points[order[first : ends[some[-1]]]]
        centroids[some] = np.add.reduceat(gathered, starts[some] - first, axis=0) / counts[some, None]

    # So many at a time that what is gathered stays in the cache.
    pieces = max(1, points.nbytes // _GATHERED_BYTES)
    list(hands.map(sum_up, (some for some in np.array_split(full, pieces) if len(some))))
    empty = np.flatnonzero(counts == 0)
    centroids[empty] = points[rng.integers(len(points), size=len(empty))]
