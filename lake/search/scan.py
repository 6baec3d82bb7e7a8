"""One call of Lance's scanner: the only place that builds one.

What is settled here, because each of Lance's defaults would silently return less or say more:

- ``prefilter``: filters apply before the top k are taken;
- the number of partitions is a *minimum*: with Lance's ``nprobes`` a selective filter returns too few rows;
- the result's own columns are projected by name, else Lance logs a warning for each query;
- queries reach Lance in the type of the column: pylance would turn int8 into float32, which Lance refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
from lance.dataset import ScannerBuilder
from lance.query import FullTextQuery

from lake.table.sql import sql_errors


@dataclass(frozen=True, eq=False)
class Nearest:
    """The vector part of a scan.

    Parameters
    ----------
    q : pa.Array
        Elements of one vector, or a list array: many queries, or one query of a multi-vector column.
    nprobe : int or None
        Partitions to read; ``None`` without an index.
    fixed : bool
        Read exactly `nprobe` partitions, by which Lance reads each partition once for all queries.
    low, high : float or None
        ``low <= distance < high``.
    """

    column: str
    q: pa.Array
    metric: str
    nprobe: int | None = None
    fixed: bool = False
    refine: int | None = None
    ef: int | None = None
    low: float | None = None
    high: float | None = None
    segments: tuple[str, ...] | None = None

    def parameters(self, k: int) -> dict[str, object]:
        """Give Lance's parameters but for column and query."""
        named: dict[str, object] = {"k": k, "metric": self.metric, "use_index": self.nprobe is not None}
        if self.nprobe is not None and self.fixed:
            named["nprobes"] = self.nprobe
        elif self.nprobe is not None:
            named.update(minimum_nprobes=self.nprobe, search_effort=0.0)
        if self.refine:
            named["refine_factor"] = self.refine
        if self.ef is not None:
            named["ef"] = max(self.ef, k * (self.refine or 1))  # Lance refuses less
        if self.low is not None or self.high is not None:
            named["distance_range"] = (self.low, self.high)
        return named


@dataclass(frozen=True, eq=False)
class Scan:
    """What to read from a dataset.

    Parameters
    ----------
    columns : sequence of str
        The table's columns, and Lance's: ``_rowid``, ``_distance``, ``_score``.
    fragments : collection of int, optional
        Read these only.
    indexed_only : bool
        Leave out the unindexed tail.
    blobs : bool
        Read blobs as bytes, not as descriptions.
    """

    columns: Sequence[str]
    where: str | None = None
    limit: int | None = None
    offset: int = 0
    nearest: Nearest | None = None
    text: FullTextQuery | None = None
    fragments: Collection[int] | None = None
    indexed_only: bool = False
    blobs: bool = False

    def read(self, dataset: lance.LanceDataset, statistics: list[lance.ScanStatistics]) -> pa.Table:
        """Run it, and append Lance's statistics."""
        with sql_errors(self.where):
            scanner = self.scanner(dataset, statistics)
            return scanner.to_reader().read_all()

    def scanner(
        self, dataset: lance.LanceDataset, statistics: list[lance.ScanStatistics] | None = None
    ) -> lance.LanceScanner:
        """Build Lance's scanner."""
        builder = _Builder(dataset).columns(list(self.columns)).prefilter(prefilter=True)
        builder.disable_scoring_autoprojection()
        if statistics is not None:
            builder.scan_stats_callback(statistics.append)
        if self.where:
            builder.filter(self.where)
        if self.nearest is not None:
            builder.near(self.nearest, (self.limit or 0) + self.offset)
        elif self.limit is not None:
            builder.limit(self.limit)
        if self.offset:
            builder.offset(self.offset)
        if self.text is not None:
            builder.full_text_search(self.text)
        if self.fragments is not None:
            builder.with_fragments([dataset.get_fragment(i) for i in sorted(self.fragments)])
        if self.indexed_only:
            builder.fast_search(flag=True)
        if self.blobs:
            builder.blob_handling("all_binary")
        return builder.to_scanner()


def take(
    dataset: lance.LanceDataset, row_ids: pa.ChunkedArray, columns: Sequence[str], *, blobs: bool = False
) -> pa.Table:
    """Read columns of some rows, in the order of the row ids."""
    ids = row_ids.to_numpy()
    where = f"_rowid IN ({', '.join(map(str, ids))})" if len(ids) else "false"
    rows = Scan(tuple(dict.fromkeys((*columns, "_rowid"))), where, blobs=blobs).read(dataset, [])
    there = rows["_rowid"].to_numpy()
    order = np.argsort(there)
    return rows.take(order[np.searchsorted(there, ids, sorter=order)]).select(list(columns))


class _Builder(ScannerBuilder):  # type: ignore[misc]
    """Lance's builder, with queries in the column's own type."""

    def near(self, nearest: Nearest, k: int) -> None:
        one = nearest.q if pa.types.is_primitive(nearest.q.type) else nearest.q[0].values
        self.nearest(nearest.column, one.cast(pa.float32()), **nearest.parameters(k))
        self._nearest["q"] = nearest.q
        if nearest.segments is not None:
            self.with_index_segments(nearest.segments)
