"""What a snapshot holds, read from its manifest once: live rows of each fragment, and its indexes."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lake.index.plan import live_rows
from lake.index.segments import Segment, built_indexes
from lake.schema import Schema
from lake.table.snapshot import Snapshot

# Statistics of an index would carry every centroid, megabytes of JSON, and Lance warns about it on stderr.
os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")

TEXT_KIND = "INVERTED"


@dataclass(frozen=True)
class Index:
    """One built index, as far as searches need to know it.

    Parameters
    ----------
    name, column, kind : str
        `kind` as `lake.index.kinds.KINDS` spells it.
    metric : str or None
        Of vector indexes only.
    segments : tuple of Segment
    positions : bool
        Whether a text index knows where words stand, which phrases need.
    """

    name: str
    column: str
    kind: str
    metric: str | None
    segments: tuple[Segment, ...]
    positions: bool

    @property
    def fragments(self) -> frozenset[int]:
        """The fragments whose rows it covers; all others are its unindexed tail."""
        return frozenset().union(*(segment.fragments for segment in self.segments))

    @property
    def flat(self) -> bool:
        """Whether it keeps whole vectors, so that its distances are exact."""
        return self.kind in {"IVF_FLAT", "IVF_HNSW_FLAT"}


@dataclass(frozen=True)
class Facts:
    """A snapshot's schema, rows and indexes.

    Parameters
    ----------
    fragments : mapping of int to int
        Live rows by fragment.
    rows : int
        Live rows in all.
    """

    schema: Schema
    fragments: Mapping[int, int]
    rows: int
    indexes: tuple[Index, ...]

    def vector_indexes(self, column: str) -> tuple[Index, ...]:
        """Find the vector indexes of a column."""
        return tuple(i for i in self.indexes if i.column == column and i.metric)

    def text_index(self, column: str) -> Index | None:
        """Find the text index of a column."""
        return next((i for i in self.indexes if i.column == column and i.kind == TEXT_KIND), None)

    def rows_in(self, fragments: Iterable[int]) -> int:
        """Count the live rows of some fragments; fragments that no longer exist count nothing."""
        return sum(self.fragments.get(fragment, 0) for fragment in fragments)


@functools.lru_cache(maxsize=64)
def facts(snapshot: Snapshot) -> Facts:
    """Read a snapshot's facts; they never change, so they are kept."""
    dataset = snapshot.dataset
    fragments = live_rows(dataset)
    indexes = [
        Index(b.name, b.column, b.kind, b.metric, b.segments, bool(b.details.get("with_position")))
        for b in built_indexes(dataset).values()
    ]
    # A text index that covers no rows yet still says how words are compared; others are of no use.
    useful = tuple(i for i in indexes if i.kind == TEXT_KIND or any(fragments.get(f) for f in i.fragments))
    return Facts(snapshot.schema, fragments, sum(fragments.values()), useful)


@functools.lru_cache(maxsize=256)
def partitions(snapshot: Snapshot, index: str) -> tuple[int, ...]:
    """Count the IVF partitions of each segment of an index."""
    statistics = snapshot.dataset.stats.index_stats(index)
    return tuple(int(segment.get("num_partitions", 0)) for segment in statistics["indices"])
