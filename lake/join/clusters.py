"""Clusters as partitions: where a clustering has arranged a table, its fragments lie in the order of the clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.join.side import Side
from lake.table.snapshot import store_errors
from lake.table.sql import quote

CLUSTERED = "lake.cluster"
"""What made a column of clusters, as its derivation tells."""

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Labels, ascending, and the rows of each."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Fragments in the order of a column of clusters.

    Parameters
    ----------
    column : str
    fragments : mapping of int to Counts
        What each fragment holds, those rows left out that have neither a cluster nor a vector.
    """

    column: str
    fragments: Mapping[int, Counts]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The label of each partition: those that have rows."""
        return np.unique(np.concatenate([labels for labels, _ in self.fragments.values()]))

    @property
    def rows(self) -> int:
        """Rows that have a cluster."""
        return sum(int(counts.sum()) for _, counts in self.fragments.values())

    @property
    def even(self) -> float:
        """So many clusters of one size would take as many comparisons: fewer than there are."""
        sizes = np.sum([self.lengths(fragment) for fragment in self.fragments], axis=0).astype(np.float64)
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    @property
    def held_bytes(self) -> int:
        """What it takes to know where each partition begins in each fragment, and how long it is."""
        return 16 * len(self.labels) * len(self.fragments)

    def lengths(self, fragment: int) -> NDArray[np.int64]:
        """Count the rows of each partition in a fragment."""
        labels, counts = self.fragments[fragment]
        return np.bincount(np.searchsorted(self.labels, labels), counts, len(self.labels)).astype(np.int64)


def find_clusters(right: Side) -> Clusters | None:
    """Find the column of clusters in whose order most rows lie, if there is one."""
    whole = replace(right, where=None)
    made = {field.name(): field.id() for field in right.snapshot.dataset.lance_schema.fields()}
    columns = [
        column.name
        for column in right.snapshot.schema.columns
        if column.derivation is not None
        and (column.derivation.function, column.derivation.inputs) == (CLUSTERED, (right.column,))
        and made[column.name] > made[right.column]  # or the vectors were dropped since, and others have their name
    ]
    found = [Clusters(column, _in_order(whole, column)) for column in columns]
    return max((each for each in found if each.rows), key=lambda each: each.rows, default=None)


def _in_order(side: Side, column: str) -> dict[int, Counts]:
    """Find the fragments whose rows are in the order of a column, null last and only where there is no vector."""
    found = {}
    for fragment, rows in side.fragments().items():
        batches = [batch.column(column) for batch in side.read((fragment, 0, rows), [column], 1 << 16)]
        labels = pa.concat_arrays(batches)
        known = labels.slice(0, rows - labels.null_count)
        if known.null_count or not len(known):
            continue
        held = known.to_numpy().astype(np.int64)
        missed = labels.null_count and _missed(side, column, fragment)
        if not missed and (held[1:] >= held[:-1]).all():
            found[fragment] = np.unique(held, return_counts=True)
    return found


def _missed(side: Side, column: str, fragment: int) -> int:
    """Count the rows that have a vector and no cluster."""
    where = f"{quote(column)} IS NULL AND {quote(side.column)} IS NOT NULL"
    with store_errors(side.snapshot.location, side.snapshot.branch):
        return int(side.snapshot.dataset.get_fragment(fragment).count_rows(where))
