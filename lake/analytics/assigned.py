"""What rounds of k-means have found: by round, and in the end for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lake.analytics.centers import Labels
from lake.analytics.lloyd import Assigned
from lake.analytics.stages import Ids, load
from lake.storage import Location


@dataclass(frozen=True)
class Told:
    """What a round has found.

    Parameters
    ----------
    blocks : tuple of Assigned
    rows, changed : int
    largest, over : int
        Rows of the largest cluster, and those that are over the bound.
    spread : float
        The distances of all rows from their centroids.
    last : bool
        Clusters are settled, or this was the last round.
    settled : bool
        They are.
    """

    blocks: tuple[Assigned, ...]
    rows: int
    changed: int
    largest: int
    over: int
    spread: float
    last: bool
    settled: bool = False


@dataclass(frozen=True)
class Found:
    """The cluster of each row that has a vector.

    Parameters
    ----------
    ids : int64, shape (n,)
        Row ids, ascending.
    labels : int32, shape (n,)
    """

    ids: Ids = field(hash=False)
    labels: Labels = field(hash=False)

    @classmethod
    def read(cls, folder: Location, names: Sequence[str]) -> Found:
        """Read what blocks have found."""
        parts = [load(folder, name) for name in names]
        ids = np.concatenate([part["ids"] for part in parts])
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], np.concatenate([part["labels"] for part in parts])[order])

    def of(self, ids: Ids) -> pa.Array:
        """Return the clusters of some rows; null of those that have none."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return pa.array(self.labels[at], mask=self.ids[at] != ids)
