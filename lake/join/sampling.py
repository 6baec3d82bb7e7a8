"""Samples of the left side: the same rows each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lake.join.side import Side, row_ids, take
from lake.nearest.kernel import Floats, Ids

SAMPLE = 256
_SEED = 20


def sample(side: Side, rows: Mapping[int, int], size: int = SAMPLE) -> tuple[int, ...]:
    """Draw row ids of a side.

    Parameters
    ----------
    rows : mapping of int to int
        How many it has in each fragment.
    """
    total = sum(rows.values())
    chosen = np.random.default_rng(_SEED).choice(total, min(total, size), replace=False)
    return tuple(map(int, row_ids(side, rows, np.sort(chosen))))


def sampled(left: Side, ids: Sequence[int], metric: str) -> tuple[Floats, Ids]:
    """Read the vectors of a sample; rows that have none are left out."""
    chosen = np.array(ids, np.int64)
    table = take(left.snapshot.dataset, chosen, [left.column])
    vectors, at = left.matrix(table[left.column].combine_chunks(), metric)
    return vectors, chosen[at]
