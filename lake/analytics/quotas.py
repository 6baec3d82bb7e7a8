"""Prices and quotas that bound the size of clusters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lake.analytics.centers import Centers, Totals
from lake.analytics.stages import Ids

_RATE = 0.2  # half of it converges as well; twice as much swings


def priced(centers: Centers, totals: Totals, capacity: int) -> Centers:
    """Let the prices follow the sizes."""
    mean = totals.spread.sum() / max(1, totals.counts.sum())
    step = _RATE * mean * np.minimum(totals.counts / capacity - 1, 1)
    return replace(centers, prices=np.maximum(centers.prices + step, 0.0))


def quotas(counts: NDArray[np.int64], capacity: int) -> tuple[Ids, Ids]:
    """Say how many rows of each block each cluster keeps, and how many others it takes.

    Parameters
    ----------
    counts : int64, shape (blocks, k)
    capacity : int
        At least the k-th part of all rows, rounded up.
    """
    total = counts.sum(axis=0)
    over = total > capacity
    kept = np.where(over, capacity * counts // np.maximum(total, 1), counts)
    for cluster in np.flatnonzero(over):  # what rounding left goes to the first blocks that have more
        room = np.flatnonzero(counts[:, cluster] > kept[:, cluster])[: capacity - kept[:, cluster].sum()]
        kept[room, cluster] += 1
    spare = capacity - kept.sum(axis=0)
    lacking = (counts - kept).sum(axis=1)
    taken = lacking[:, None] * spare // max(1, int(lacking.sum()))
    # Each block has at least its share of the room, less what rounding has left over: there is enough of that.
    taken = np.minimum(taken, spare)
    left = spare - taken.sum(axis=0)
    for block in range(len(counts)):
        for cluster in np.flatnonzero(left):
            more = min(int(left[cluster]), int(lacking[block] - taken[block].sum()))
            if more <= 0:
                break
            taken[block, cluster] += more
            left[cluster] -= more
    return kept, taken
