"""Search by groups: the best rows of each of the best groups.

A vector ranking is read in rounds. Each round leaves out, by filter, the groups that are known already, so a
group that fills the whole neighbourhood of a query costs one round and not the table. A round that returns
fewer rows than it asked for has seen every row that is left. A group of which a round held fewer than
`per_group` rows is asked for by itself. So the answer is what the ranking of all rows would give.

A text ranking is read to its last match at once: scores of unindexed rows depend on the filter, so rounds
would not be comparable.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lake.errors import InvalidInput
from lake.search.plan import Plan
from lake.search.rank import Ranking
from lake.search.scan import take
from lake.table.sql import both, literal, quote

_LEAST_ROUND = 64


def grouped(plan: Plan, ranking: Ranking) -> pa.Table:
    """Search by groups: the plan's columns, then the ranking's measure, group after group."""
    query = plan.query
    assert query.group_by is not None and query.k is not None  # noqa: S101, PT018  # the query checked it
    column, want = query.group_by, query.k + query.offset
    _check(plan, column)
    found: dict[Any, pa.Table] = {}
    size = plan.facts.rows + 1 if plan.text is not None else max(4 * want * query.per_group, _LEAST_ROUND)
    while len(found) < want:
        left = both(plan.where, _without(column, list(found)))
        part = ranking.top(size, [column, "_rowid"], left)
        for group, rows in _split(part, column).items():
            complete = len(rows) >= query.per_group or part.num_rows < size
            found[group] = part.take(rows[: query.per_group]) if complete else pa.table({})
        if part.num_rows < size:
            break
        size *= 2
    for group in list(found)[query.offset : want]:
        if not found[group].num_columns:
            only = both(plan.where, _only(column, group))
            found[group] = ranking.top(query.per_group, [column, "_rowid"], only)
    chosen = [found[group] for group in list(found)[query.offset : want]]
    best = pa.concat_tables(chosen) if chosen else ranking.top(1, [column, "_rowid"], "false")
    rows = take(plan.snapshot.dataset, best["_rowid"], plan.columns, blobs=plan.blobs)
    return rows.append_column(ranking.measure, best[ranking.measure])


def _split(rows: pa.Table, column: str) -> dict[Any, list[int]]:
    """Find the rows of each group, groups in the order of their best row."""
    groups: dict[Any, list[int]] = {}
    for row, group in enumerate(rows[column].to_pylist()):
        groups.setdefault(group, []).append(row)
    return groups


def _only(column: str, group: Any) -> str:
    return f"{quote(column)} IS NULL" if group is None else f"{quote(column)} = {literal(group)}"


def _without(column: str, groups: list[Any]) -> str | None:
    if not groups:
        return None
    values = ", ".join(literal(group) for group in groups if group is not None)
    name, some = quote(column), f"{quote(column)} NOT IN ({values})"
    if None in groups:
        return f"{name} IS NOT NULL" + (f" AND {some}" if values else "")
    return f"({some} OR {name} IS NULL)"


def _check(plan: Plan, column: str) -> None:
    kind = plan.facts.schema.column(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    one = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    if not (one or pa.types.is_boolean(kind) or pa.types.is_date(kind)):
        raise InvalidInput(f"group_by={column!r}: it holds {kind}; group by text, integers, booleans or dates")
