"""What a run of a plan covered."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import lance

from lake.search.coverage import Coverage, Part
from lake.search.facts import Index, facts
from lake.search.plan import Plan, TextPlan, VectorPlan
from lake.search.scan import Scan
from lake.search.text import capped
from lake.search.vectors import is_multi
from lake.table.snapshot import Snapshot
from lake.table.sql import sql_errors


def coverage(
    plan: Plan, statistics: Sequence[lance.ScanStatistics], seconds: float, found: int | None = None
) -> Coverage:
    """Say what a run of a plan covered, that found so many rows; without statistics, what it is going to cover."""
    parts: list[Part] = []
    if plan.vector is not None:
        parts.append(_vector_part(plan, plan.vector, statistics))
    if plan.text is not None:
        parts.append(_text_part(plan, plan.text))
    if not parts:
        parts.append(_filter_part(plan, found))
    return Coverage(
        version=plan.snapshot.version,
        branch=plan.snapshot.branch,
        rows=plan.facts.rows,
        parts=tuple(parts),
        where=plan.query.where,
        queries=plan.vector.many or 1 if plan.vector else 1,
        seconds=seconds,
    )


def _split(plan: Plan, indexed: int) -> tuple[int, int, int]:
    left = plan.facts.rows - indexed
    return (indexed, 0, left) if plan.query.indexed_only else (indexed, left, 0)


def _vector_part(plan: Plan, vector: VectorPlan, statistics: Sequence[lance.ScanStatistics]) -> Part:
    name, index, call = vector.column.name, vector.index, vector.calls[0]
    if index is None:
        counts = _split(plan, 0)
        return Part("vector", name, *counts, exact=True, metric=vector.metric, recall=vector.recall, notes=vector.notes)
    segments = len(index.segments)
    probed = min((call.nprobe or 0) * segments, vector.partitions)
    if vector.many is None and statistics and plan.query.group_by is None:
        # As measured: more than asked for if those held too few rows.
        probed = min(max(probed, statistics[0].all_counts.get("partitions_searched", 0)), vector.partitions)
    return Part(
        "vector",
        name,
        *_split(plan, plan.facts.rows_in(index.fragments)),
        exact=index.kind == "IVF_FLAT" and not is_multi(vector.column) and probed == vector.partitions,
        index=index.name,
        kind=index.kind,
        metric=vector.metric,
        partitions_probed=probed,
        partitions=vector.partitions,
        segments=segments,
        refine=call.refine or 0,
        recall=vector.recall,
        notes=(*vector.notes, *_stale(plan, vector)),
    )


def _filter_part(plan: Plan, found: int | None) -> Part:
    indexes, whole = _scalar_indexes(plan.snapshot, plan.where) if plan.where else ((), True)
    fragments = frozenset(plan.facts.fragments).intersection(*(i.fragments for i in indexes)) if indexes else ()
    k = plan.query.k
    notes = [] if whole else ["the rows that the index keeps are read for the rest of the filter"]
    if k is not None and found == k:
        notes.append(f"stopped at k={k}; more may match")
    return Part(
        "filter",
        ", ".join(index.column for index in indexes),
        *_split(plan, plan.facts.rows_in(fragments)),
        exact=True,
        index=", ".join(index.name for index in indexes) or None,
        kind=", ".join(index.kind for index in indexes) or None,
        notes=tuple(notes),
    )


@functools.lru_cache(maxsize=256)
def _scalar_indexes(snapshot: Snapshot, where: str) -> tuple[tuple[Index, ...], bool]:
    """Find the indexes by which Lance narrows down the rows of a filter, and whether they answer all of it."""
    known = [index for index in facts(snapshot).indexes if index.metric is None]
    if not known:
        return (), True
    with sql_errors(where):
        plan = Scan(["_rowid"], where).scanner(snapshot.dataset).explain_plan()
    asked = "\n".join(line for line in plan.splitlines() if line.lstrip().startswith("ScalarIndexQuery:"))
    indexes = tuple(index for index in known if f"]@{index.name}(" in asked)
    return indexes, not indexes or "refine_filter=--\n" in plan


def _text_part(plan: Plan, text: TextPlan) -> Part:
    covered = bool(text.covered)
    cut = bool(text.tail) and not plan.query.indexed_only and capped(text.node)
    several = "fuzzy words that must all be there: in unindexed rows not every choice of near words is tried"
    return Part(
        "text",
        ", ".join(index.column for index in text.indexes),
        *_split(plan, plan.facts.rows_in(text.covered)),
        exact=not cut,
        index=", ".join(index.name for index in text.indexes) if covered else None,
        kind="BM25" if covered else None,
        notes=(*_stale(plan, text), *([several] if cut else [])),
    )


def _stale(plan: Plan, part: VectorPlan | TextPlan) -> tuple[str, ...]:
    stale = plan.stale(part)
    return ("the index holds deleted rows since a compaction: slower until build()",) if stale else ()
