"""The table of triplets: columns of an anchor, of a positive and of a negative."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lake.analytics.neighbours import Analysis
from lake.analytics.results import columns_of, slices, values_of
from lake.analytics.triplets import Rule, triplets
from lake.schema import Column
from lake.table.parts import PartedWrite
from lake.table.snapshot import Snapshot


def target_of(work: Analysis, columns: Sequence[str]) -> PartedWrite:
    """Begin to write the result: keys of all three, distances, and what else is carried."""
    keys, more = list[Column](), list[Column]()
    for role, table in _roles(work):
        key = columns_of(table, role)
        keys += key
        more += columns_of(table, role, columns)[len(key) :]
    own = [Column("positive_distance", pa.float32()), Column("negative_distance", pa.float32())]
    return work.target([*keys, *own, *more], len(keys))


def _roles(work: Analysis) -> tuple[tuple[str, Snapshot], ...]:
    anchors, pool = work.tables[0], work.tables[-1]
    return ("anchor_", anchors), ("positive_", pool), ("negative_", pool)


def rows_of(
    work: Analysis, label: str, rule: Rule, columns: Sequence[str], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the result, and count what becomes of the anchors."""
    left, right = f"left_{label}", f"right_{label}"
    for lists in work.lists("near", [left, right]):
        found = triplets(lists, lists.pairs[left], lists.pairs[right], rule)
        counts.update(triplets=len(found.anchors), mined=found.mined, no_negative=found.no_negative)
        counts.update(refused=found.refused)
        for some in slices(len(found.anchors)):
            values: dict[str, Any] = {
                "positive_distance": pa.array(found.positive_distances[some]),
                "negative_distance": pa.array(found.negative_distances[some]),
            }
            ids = (found.anchors, found.positives, found.negatives)
            for (role, table), of in zip(_roles(work), ids, strict=True):
                values |= values_of(table, of[some], role, columns)
            yield values
