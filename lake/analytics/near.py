"""The rows of a table that lie near each other, linked into groups.

Rows that are near each other are found by a join of the table with itself, which looks at the k nearest of each row.
A link is lost only between two rows that both have k others nearer by: of the rows whose k nearest all lie within the
radius, the *crowded* ones, some may lack a link to another crowded row. So these alone are joined again, each with
those of other groups than its own, until none finds anything new. Groups are at least halved by each such round that
finds something, so there are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from lake.analytics.joined import LEFT, PAIRS, RIGHT, ByRow, Ids, Told, join
from lake.join import knn
from lake.join.conditions import Condition
from lake.join.plan import Plan
from lake.join.side import Side, take
from lake.run import Callback, Executor
from lake.schema import Column, Schema
from lake.storage import Location
from lake.table.snapshot import Snapshot, open_head
from lake.table.write import create_table

_ROWS = 4096


@dataclass(frozen=True)
class Search:
    """How near rows are looked for; see `lake.analytics.dedup`.

    Parameters
    ----------
    within, k, metric, recall, memory
        Of the join.
    workers : int
    job : str
    folder : Location
        Where pairs and receipts lie while the job runs.
    executor : str or Executor
    on_event : Callback or None
    """

    within: float
    k: int
    metric: str | None
    recall: float
    memory: int | str
    workers: int
    job: str
    folder: Location
    executor: str | Executor
    on_event: Callback | None


@dataclass(frozen=True)
class Linked:
    """Rows that have a near one, and their groups.

    Parameters
    ----------
    ids : int64, shape (n,)
        Row ids, ascending.
    groups : int64, shape (n,)
        The smallest row id of each row's group.
    rows, without_vector : int
        Rows that were compared with each other, and those among them that have none.
    crowded : int
        Rows whose k nearest all lay within the radius.
    rounds : int
        Joins that it took.
    recall : mapping or None
        What the first join measured; ``None`` if it was exact.
    source : str
        Where the first join's partitions came from.
    """

    ids: Ids = field(hash=False)
    groups: Ids = field(hash=False)
    rows: int
    without_vector: int
    crowded: int
    rounds: int
    recall: dict[str, Any] | None
    source: str


def link(side: ByRow, search: Search) -> Linked:
    """Find near rows, and link them into groups."""
    told = _join(side, search, 0)
    left, right, crowded = _near(search, 0, LEFT, RIGHT)
    ids = np.unique(np.concatenate([left, right]))
    parents = np.arange(len(ids))
    _union(parents, np.searchsorted(ids, left), np.searchsorted(ids, right))
    rounds, first = 1, len(crowded)
    while len(crowded):
        groups = parents[np.searchsorted(ids, crowded)]
        if (groups == groups[0]).all():
            break
        again = _again(side, search, crowded, groups, rounds)
        _join(again, search, rounds, "left.group != right.group")
        left, right, crowded = _near(search, rounds, "left_row", "right_row")
        _union(parents, np.searchsorted(ids, left), np.searchsorted(ids, right))
        rounds += 1
    return Linked(ids, ids[parents], told.rows, told.without_vector, first, rounds, told.recall, told.source)


def plan_round(side: Side, search: Search, *conditions: str) -> tuple[Plan, tuple[Condition, ...]]:
    """Plan to join a side with itself."""
    plan, parsed = knn.plan_join(
        side,
        side,
        search.k,
        metric=search.metric,
        within=search.within,
        on=conditions,
        recall=search.recall,
        nprobe=None,
        memory=search.memory,
        workers=search.workers,
    )
    if plan.source.how != "all":
        # Where near rows are few, a sample would hold none, and tell nothing about recall: ask for all k of each row.
        plan = replace(plan, within=None)
    return plan, parsed


def _folder(search: Search, number: int) -> Location:
    return search.folder.join(f"round-{number}")


def _join(side: Side, search: Search, number: int, *conditions: str) -> Told:
    """Join a side with itself into the round's table, unless that was done; return what the join told."""
    plan, parsed = plan_round(side, search, *conditions)
    job, folder = f"{search.job}-{number}", _folder(search, number)
    return join(plan, parsed, folder, apart=True, job=job, executor=search.executor, on_event=search.on_event)


def _near(search: Search, number: int, left: str, right: str) -> tuple[Ids, Ids, Ids]:
    """Read the pairs within the radius: both row ids; and the row ids of the left side that have k of them."""
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    table = open_head(_folder(search, number).join(PAIRS))
    for batch in table.to_batches(columns=[left, right, "distance"]):
        near = batch.column("distance").to_numpy() < np.float32(search.within)
        lefts.append(batch.column(left).to_numpy()[near])
        rights.append(batch.column(right).to_numpy()[near])
    a = np.concatenate(lefts)
    rows, counts = np.unique(a, return_counts=True)
    return a, np.concatenate(rights), rows[counts == search.k]


def _again(side: ByRow, search: Search, ids: Ids, groups: Ids, number: int) -> Side:
    """Write the crowded rows and their groups into a table."""
    place = _folder(search, number).join("rows.lance")
    schema = Schema(
        [Column("row", pa.int64()), Column("group", pa.int64()), Column("vector", side.vectors.type)], key="row"
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(ids), _ROWS):
            some = ids[start : start + _ROWS]
            columns = {"row": pa.array(some), "group": pa.array(groups[start : start + _ROWS])}
            columns["vector"] = take(side.snapshot.dataset, some, [side.column])[side.column].combine_chunks()
            yield pa.record_batch(columns)

    create_table(place, schema, batches(), commit_id=f"{search.job}-{number}")
    return Side(Snapshot.of(open_head(place), place, None), "vector")


@numba.njit(cache=True, nogil=True)
def _union(parents: Ids, left: Ids, right: Ids) -> None:
    """Unite the groups of pairs; the smallest member stands for a group, and in the end all point to theirs."""
    for i in range(len(left)):
        a, b = left[i], right[i]
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        while parents[b] != b:
            parents[b] = parents[parents[b]]
            b = parents[b]
        parents[max(a, b)] = min(a, b)
    for i in range(len(parents)):  # a parent is smaller than its children: it points to its root by now
        parents[i] = parents[parents[i]]
