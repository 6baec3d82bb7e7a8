"""Which rows count: ids, kept as ranges, of which a table from which few rows were deleted has few."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lake.nearest.kernel import Ids


def ranges_of(batches: Iterable[Ids]) -> Ids:
    """Turn ids, each of them once, into ranges.

    Parameters
    ----------
    batches : iterable of int64
        In any order.

    Returns
    -------
    int64, shape (ranges, 2)
        The first id of each range and the one after its last, ascending.
    """
    found = np.concatenate([np.empty((0, 2), np.int64), *map(_ranges, batches)])
    found = found[np.argsort(found[:, 0], kind="stable")]
    begins, ends = np.ones(len(found), np.bool_), np.ones(len(found), np.bool_)
    begins[1:] = found[1:, 0] != found[:-1, 1]
    ends[:-1] = begins[1:]
    return np.stack([found[begins, 0], found[ends, 1]], axis=1)


def _ranges(ids: Ids) -> Ids:
    if not len(ids):
        return np.empty((0, 2), np.int64)
    if (ids[1:] < ids[:-1]).any():
        ids = np.sort(ids)
    cuts = np.flatnonzero(np.diff(ids) != 1) + 1
    edges = np.concatenate([[0], cuts, [len(ids)]])
    return np.stack([ids[edges[:-1]], ids[edges[1:] - 1] + 1], axis=1)


def among(ranges: Ids, ids: Ids) -> NDArray[np.bool_]:
    """Tell which ids are in one of some ranges."""
    if not len(ranges):
        return np.zeros(len(ids), np.bool_)
    at = np.searchsorted(ranges[:, 0], ids, side="right") - 1 if len(ranges) > 1 else np.zeros(len(ids), np.int64)
    found: NDArray[np.bool_] = (at >= 0) & (ids >= ranges[at, 0]) & (ids < ranges[at, 1])
    return found
