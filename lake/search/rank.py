"""Rankings: the rows of one vector or text search, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.index.stale import LIVE
from lake.search.plan import Plan, TextPlan, VectorPlan
from lake.search.scan import Nearest, Scan, take
from lake.search.text import Match, leaves, to_lance
from lake.table.sql import both

_MANY_TIES = 512
_NOT_WORD = r"[^\p{L}\p{N}_]+"


@dataclass(frozen=True, eq=False)
class Ranking:
    """One search that can be asked for its best rows, under further filters and to any depth.

    Parameters
    ----------
    vector : VectorPlan or None
        With exactly one call; otherwise the text of the plan is ranked.
    statistics : list
        Lance's, one for each scan that was run.
    """

    plan: Plan
    vector: VectorPlan | None
    statistics: list[lance.ScanStatistics] = field(default_factory=list)

    @property
    def measure(self) -> str:
        """The column that the ranking is by."""
        return "_distance" if self.vector is not None else "_score"

    def top(
        self,
        n: int | None,
        columns: Sequence[str],
        where: str | None = None,
        *,
        offset: int = 0,
        blobs: bool = False,
    ) -> pa.Table:
        """Read the best rows.

        Parameters
        ----------
        n : int or None
            How many; for many queries, of each. ``None``: all.
        columns : sequence of str
            What to read besides the measure.
        where : str, optional
            Stands for the plan's own filter.
        offset : int
            How many of the best rows to leave out; not with many queries.
        """
        if self.plan.stale(self.vector or self.plan.text):
            where = both(where, LIVE)
        scan = Scan((*columns, self.measure), where, n, offset, blobs=blobs)
        if self.vector is not None:
            return self._vectors(self.vector, scan)
        return self._texts(self.plan.text, scan)  # type: ignore[arg-type]

    def _vectors(self, vector: VectorPlan, scan: Scan) -> pa.Table:
        call = vector.calls[0]
        rows = self.plan.facts.rows
        n = rows if scan.limit is None else min(scan.limit, rows)
        scan = replace(scan, nearest=call, limit=max(n, 1), indexed_only=self.plan.query.indexed_only)
        if vector.many is not None and not _is_set(vector):
            table = self._batch(vector, call, scan)
        else:
            table = scan.read(self.plan.snapshot.dataset, self.statistics)
        if vector.index is not None and scan.where is not None and not _finite(table):
            # Of a filter that keeps fewer rows than are wanted Lance returns all, those in partitions that it did
            # not read as infinitely far. They are few: measure them.
            nearest = replace(call, nprobe=None, refine=None, ef=None, segments=None)
            fragments = vector.index.fragments & self.plan.facts.fragments.keys() if scan.indexed_only else None
            few = replace(scan, nearest=nearest, indexed_only=False, fragments=fragments)
            table = few.read(self.plan.snapshot.dataset, self.statistics)
        # A row whose vector is null comes out of an index last, infinitely far.
        if not _finite(table):
            table = table.filter(pc.is_finite(table["_distance"]))
        if vector.cut is not None:
            table = table.filter(pc.less(table["_distance"], vector.cut))
        return table

    def _batch(self, vector: VectorPlan, call: Nearest, scan: Scan) -> pa.Table:
        """Search many queries; read each partition once for all of them where that leaves out nothing."""
        assert scan.limit is not None  # noqa: S101  # settled by the caller
        simple = vector.index is not None and scan.where is None and call.low is None and call.high is None
        # This path of Lance's does not mask the entries of rows that moved to other fragments since.
        if simple and not call.refine and self.plan.untouched(vector):
            shared = replace(scan, nearest=replace(call, fixed=True))
            table = shared.read(self.plan.snapshot.dataset, self.statistics)
            if _finite(table) and table.num_rows == scan.limit * (vector.many or 1):
                return table
        return scan.read(self.plan.snapshot.dataset, self.statistics)

    def _texts(self, text: TextPlan, scan: Scan) -> pa.Table:
        """Order by score, then by row id: Lance leaves rows that it scans, and equal scores, in any order."""
        wanted, start, length = scan.columns, scan.offset, scan.limit
        end = None if length is None else start + length
        scan = replace(scan, columns=tuple(dict.fromkeys((*wanted, "_rowid"))), offset=0)
        table = _sorted(self._matches(text, replace(scan, limit=None if end is None else end + 1)))
        if end is None or not _tied(table, end):
            return table.slice(start, length).select(list(wanted))
        # Equal scores on both sides of the end: which rows are in varies from run to run. See them all.
        limit = end + 1
        while table.num_rows == limit and _tied(table, end, limit):
            limit = max(8 * limit, _MANY_TIES)
            thin = replace(scan, columns=("_rowid", "_score"), limit=limit)
            table = _sorted(self._matches(text, thin))
        best = table.slice(start, length)
        columns = [name for name in wanted if name != "_score"]
        rows = take(self.plan.snapshot.dataset, best["_rowid"], columns, blobs=scan.blobs)
        return rows.append_column("_score", best["_score"])

    def _matches(self, text: TextPlan, scan: Scan) -> pa.Table:
        dataset = self.plan.snapshot.dataset
        query = to_lance(text.node, text.columns)
        if self.plan.query.indexed_only:
            return replace(scan, text=query, fragments=text.covered).read(dataset, self.statistics)
        fuzzy = any(isinstance(leaf, Match) and leaf.fuzziness for leaf in leaves(text.node))
        if not fuzzy or not text.tail:
            return replace(scan, text=query).read(dataset, self.statistics)
        # Lance ignores fuzziness in rows that no index covers: there, name the words that are near enough.
        tail = to_lance(text.node, text.columns, self._vocabulary(text, scan.where))
        parts = [replace(scan, text=tail, fragments=text.tail).read(dataset, self.statistics)]
        if text.covered:
            parts.append(replace(scan, text=query, fragments=text.covered).read(dataset, self.statistics))
        return pa.concat_tables(parts)

    def _vocabulary(self, text: TextPlan, where: str | None) -> dict[str, list[str]]:
        """Collect the words of each searched column in the unindexed fragments."""
        names = {name for leaf in leaves(text.node) for name in leaf.columns or text.columns}
        table = Scan(sorted(names), where, fragments=text.tail).read(self.plan.snapshot.dataset, self.statistics)
        return {name: _words(table[name]) for name in names}


def _finite(table: pa.Table) -> bool:
    return bool(pc.all(pc.is_finite(table["_distance"]), min_count=0).as_py())


def _sorted(table: pa.Table) -> pa.Table:
    return table.take(np.lexsort((table["_rowid"].to_numpy(), -table["_score"].to_numpy())))


def _tied(table: pa.Table, end: int, last: int | None = None) -> bool:
    """Whether the last row before `end` has the score of the row after it (of row `last`, counted from 1)."""
    scores = table["_score"]
    return bool(table.num_rows > end and scores[end - 1] == scores[end if last is None else last - 1])


def _is_set(vector: VectorPlan) -> bool:
    """Whether the one call holds the vectors of one query, not many queries."""
    return bool(pa.types.is_list(vector.column.type))


def one_by_one(vector: VectorPlan) -> list[VectorPlan]:
    """Split a search for many queries into searches for one."""
    if vector.many is None:
        return [vector]
    calls = vector.calls
    if not _is_set(vector):
        calls = tuple(replace(calls[0], q=q.values) for q in calls[0].q)
    return [replace(vector, calls=(call,), many=None) for call in calls]


def _words(column: pa.ChunkedArray) -> list[str]:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    while not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = pc.list_flatten(column)
    words = pc.list_flatten(pc.split_pattern_regex(pc.utf8_lower(column), _NOT_WORD))
    return sorted(word for word in pc.unique(words).to_pylist() if word)
