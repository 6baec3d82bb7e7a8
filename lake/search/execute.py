"""Running a plan."""

from __future__ import annotations

import time

import lance
import numpy as np
import pyarrow as pa

from lake.errors import InvalidInput
from lake.search.fusion import fused
from lake.search.groups import grouped
from lake.search.plan import Plan, VectorPlan, bind
from lake.search.query import Query
from lake.search.rank import Ranking, one_by_one
from lake.search.report import coverage
from lake.search.result import Result
from lake.search.scan import Scan
from lake.search.vectors import is_multi
from lake.table.snapshot import Snapshot


def search(snapshot: Snapshot, query: Query) -> Result:
    """Search a snapshot.

    Returns
    -------
    Result
        Best rows first (with many queries: query after query, told apart by ``_query``), with their coverage.

    Raises
    ------
    InvalidInput, NotFound, NotSupported
        The query does not fit the table; the message names the argument and the remedy.
    """
    started = time.perf_counter()
    plan = bind(snapshot, query)
    statistics: list[lance.ScanStatistics] = []
    table = _run(plan, statistics)
    return Result(table, coverage(plan, statistics, time.perf_counter() - started, table.num_rows))


def batches(snapshot: Snapshot, query: Query) -> pa.RecordBatchReader:
    """Search, and stream the answer: a filter's rows are read as they are asked for, of any number."""
    plan = bind(snapshot, query)
    if plan.vector is None and plan.text is None:
        return _filter(plan).scanner(snapshot.dataset).to_reader()
    return _run(plan, []).to_reader()


def _run(plan: Plan, statistics: list[lance.ScanStatistics]) -> pa.Table:
    if plan.vector is None and plan.text is None:
        return _filter(plan).read(plan.snapshot.dataset, statistics)
    if plan.vector is not None and plan.vector.many is not None:
        if plan.text is not None:
            raise InvalidInput("vector= holds many queries; a hybrid search takes one")
        return _many(plan, plan.vector, statistics)
    return _one(plan, plan.vector, statistics)


def _filter(plan: Plan) -> Scan:
    return Scan(plan.columns, plan.where, plan.query.k, plan.query.offset, blobs=plan.blobs)


def _one(plan: Plan, vector: VectorPlan | None, statistics: list[lance.ScanStatistics]) -> pa.Table:
    ranking = Ranking(plan, vector, statistics)
    if plan.query.group_by is not None:
        return grouped(plan, ranking)
    if vector is not None and plan.text is not None:
        return fused(plan, ranking, Ranking(plan, None, statistics))
    return ranking.top(plan.query.k, plan.columns, plan.where, offset=plan.query.offset, blobs=plan.blobs)


def _many(plan: Plan, vector: VectorPlan, statistics: list[lance.ScanStatistics]) -> pa.Table:
    if plan.query.group_by is None and not is_multi(vector.column):
        ranking = Ranking(plan, vector, statistics)
        table = ranking.top(plan.depth, plan.columns, plan.where, blobs=plan.blobs)
        table = table.rename_columns(["_query", *table.column_names[1:]])  # Lance's query_index comes first
        return _from_rank(table, plan.query.offset)
    tables = [_one(plan, one, statistics) for one in one_by_one(vector)]
    numbers = [pa.array(np.full(len(table), i, np.int32)) for i, table in enumerate(tables)]
    return pa.concat_tables(
        table.add_column(0, "_query", number) for table, number in zip(tables, numbers, strict=True)
    )


def _from_rank(table: pa.Table, offset: int) -> pa.Table:
    """Leave out the first rows of each query; a query's rows stand together."""
    if not offset:
        return table
    query = table["_query"].to_numpy()
    first = np.searchsorted(query, query)
    return table.filter(pa.array(np.arange(len(query)) - first >= offset))
