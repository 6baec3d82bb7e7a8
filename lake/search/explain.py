"""What a search would do, before it does it."""

from __future__ import annotations

from dataclasses import dataclass

from lake.search.plan import Plan, bind
from lake.search.query import Query
from lake.search.report import coverage
from lake.search.scan import Scan
from lake.search.text import to_lance
from lake.table.snapshot import Snapshot


@dataclass(frozen=True)
class Explanation:
    """What a search would do.

    Parameters
    ----------
    steps : tuple of str
        In words.
    lance : tuple of str
        Lance's own plan of each scan.
    """

    steps: tuple[str, ...]
    lance: tuple[str, ...]

    def __str__(self) -> str:
        steps = (f"{i}. {step}" for i, step in enumerate(self.steps, 1))
        return "\n".join([*steps, "", *self.lance])


def explain(snapshot: Snapshot, query: Query) -> Explanation:
    """Say what `lake.search.search` would do with a query: nothing is searched.

    Raises
    ------
    InvalidInput, NotFound, NotSupported
        As the search itself.
    """
    plan = bind(snapshot, query)
    return Explanation(tuple(_steps(plan)), tuple(_lance(plan)))


def _steps(plan: Plan) -> list[str]:
    query, covered = plan.query, coverage(plan, [], 0.0)
    rows = "all rows" if query.k is None else f"rows {query.offset + 1:,} to {query.offset + query.k:,}"
    steps = [f"open version {covered.version}: {covered.rows:,} rows in {len(plan.facts.fragments):,} fragments"]
    if query.where is not None and (query.near or query.text is not None):
        steps.append(f"keep the rows where {query.where}, before any are ranked")
    for part in covered.parts:
        if part.what == "filter":
            steps.append(f"keep the rows where {query.where}: {part}")
        else:
            by = f"{part.metric} distance" if part.what == "vector" else "BM25 score"
            steps.append(f"rank by {by} to {part.column}: {part}")
    if query.within is not None:
        low, high = query.bounds
        least, end = ("any" if bound is None else bound for bound in (low, high))
        steps.append(f"keep distances from {least} to below {end}")
    if query.hybrid:
        how = "reciprocal rank fusion" if query.fusion == "rrf" else f"weights {query.fusion}"
        steps.append(f"join the best {plan.candidates:,} of each ranking by {how}")
    if query.group_by is not None:
        steps.append(f"take the best {query.per_group} of each {query.group_by}, in rounds; groups, not rows, count")
    steps.append(f"return {rows}: {', '.join(plan.columns) or 'no columns of the table'}")
    return steps


def _lance(plan: Plan) -> list[str]:
    dataset, k = plan.snapshot.dataset, plan.query.k
    scans = []
    if plan.vector is not None:
        scans.append(Scan((*plan.columns, "_distance"), plan.where, plan.depth, nearest=plan.vector.calls[0]))
    if plan.text is not None:
        text = to_lance(plan.text.node, plan.text.columns)
        scans.append(Scan((*plan.columns, "_score"), plan.where, k, plan.query.offset, text=text))
    if not scans:
        scans.append(Scan(plan.columns, plan.where, k, plan.query.offset))
    return [scan.scanner(dataset).explain_plan().rstrip() for scan in scans]
