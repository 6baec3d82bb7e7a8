"""Routing: which partitions a vector looks into, the nearest first.

Every centroid is compared. Groups of centroids, compared by their centres first, save most of that and cost recall:
with 2,048 centroids of 384 dimensions, a fifth of the work misses every fifth of the partitions that are wanted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lake.index.kmeans import Floats
from lake.nearest.device import kernel
from lake.run.threads import Hands


def route(
    vectors: Floats, centroids: Floats, metric: str, probes: int, hands: Hands | None = None
) -> NDArray[np.int32]:
    """Find the partitions that each vector looks into, the nearest first.

    Parameters
    ----------
    vectors : float32, shape (n, d)
    centroids : float32, shape (partitions, d)
    metric : {"l2", "cosine", "dot"}
    probes : int
    hands : Hands, optional
        Share the work.

    Returns
    -------
    int32, shape (n, probes)
    """
    found = kernel(vectors, min(probes, len(centroids)), "dot" if metric == "dot" else "l2", hands=hands)
    found.meet_all(found.prepare(centroids, np.arange(len(centroids)), len(vectors), hands), hands=hands)
    found.sort()
    return found.ids.astype(np.int32)


def probers_of(
    queries: NDArray[np.int32], routes: NDArray[np.int32], partitions: int, hands: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Turn routes around: who looks into each partition, in shares that no two hands have a query of in common.

    Parameters
    ----------
    queries : int32, shape (n,)
        Positions of vectors, ascending.
    routes : int32, shape (n,)
        A partition that each looks into.
    partitions, hands : int
        How many there are.

    Returns
    -------
    probers : int32, shape (n,)
        Positions of vectors.
    ends : int64, shape (partitions, hands + 1)
        The share of a hand is ``probers[ends[partition, hand] : ends[partition, hand + 1]]``.
    """
    narrow = np.uint16 if partitions * hands <= 1 << 16 else np.int64  # which numpy sorts many times faster
    shares = (routes * hands + queries % hands).astype(narrow)
    ends = np.append(0, np.cumsum(np.bincount(shares, minlength=partitions * hands)))
    edges = np.arange(partitions)[:, None] * hands + np.arange(hands + 1)
    return queries[np.argsort(shares, kind="stable")], ends[edges]


def places(vectors: Floats, centroids: Floats, metric: str) -> NDArray[np.int32]:
    """Tell, for each vector and each partition, how many probes `route` takes to look into it.

    Returns
    -------
    int32, shape (n, partitions)
        From 1.
    """
    halves = 0 if metric == "dot" else np.einsum("kd,kd->k", centroids, centroids) / 2
    order = np.argsort(halves - vectors @ centroids.T, axis=1, kind="stable")
    found = np.empty(order.shape, np.int32)
    np.put_along_axis(found, order, np.arange(1, len(centroids) + 1, dtype=np.int32)[None, :], axis=1)
    return found
