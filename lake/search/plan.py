"""The plan: a query bound to a snapshot, every choice made and every argument checked against the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import pyarrow as pa

from lake.errors import InvalidInput, NotFound
from lake.index.stale import holds_removed_rows
from lake.schema import Column, Metric, Role
from lake.search.facts import Facts, Index, facts, partitions
from lake.search.query import Query
from lake.search.recall import probes
from lake.search.scan import Nearest, Scan
from lake.search.text import Match, Node, Phrase, as_text, leaves
from lake.search.vectors import is_multi, to_queries
from lake.table.snapshot import Snapshot
from lake.table.sql import both, literal, quote, whole

RESULT_COLUMNS = ("_query", "_distance", "_score", "_relevance_score")
LEAST_NPROBE = 16
REFINE = 10
_LEAST_CANDIDATES = 100
_SYSTEM = frozenset({"_rowid", "_rowaddr"})


@dataclass(frozen=True, eq=False)
class VectorPlan:
    """How vectors are searched.

    Parameters
    ----------
    calls : tuple of Nearest
        One for each call of Lance.
    many : int or None
        The number of queries, if the answer tells them apart.
    index : Index or None
        ``None``: all vectors are scanned.
    partitions : int
        In all segments of the index.
    cut : float or None
        Rows are dropped from this distance on, once their true distances are known.
    recall : float or None
        What to expect, where a recall was asked for.
    notes : tuple of str
        Why an index is not used, or where the recall was measured.
    """

    column: Column
    metric: str
    calls: tuple[Nearest, ...]
    many: int | None
    index: Index | None
    partitions: int = 0
    cut: float | None = None
    recall: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextPlan:
    """How text is searched: through `indexes` in the fragments that all of them cover, else by scan."""

    node: Node
    columns: tuple[str, ...]
    indexes: tuple[Index, ...]
    covered: frozenset[int]
    tail: frozenset[int]


@dataclass(frozen=True, eq=False)
class Plan:
    """A query bound to a snapshot."""

    snapshot: Snapshot
    query: Query
    facts: Facts
    columns: tuple[str, ...]
    blobs: bool
    where: str | None
    vector: VectorPlan | None
    text: TextPlan | None
    candidates: int

    @property
    def depth(self) -> int:
        """How far a ranking must be known: ``offset + k``, or all rows."""
        rows = max(self.facts.rows, 1)
        return rows if self.query.k is None else min(self.query.k + self.query.offset, rows)

    def untouched(self, vector: VectorPlan) -> bool:
        """Whether one segment holds every row, and no fragment has lost one: nothing that could have moved."""
        segments = vector.index.segments if vector.index is not None else ()
        whole_table = len(segments) == 1 and self.facts.fragments.keys() <= segments[0].fragments
        fragments = self.snapshot.dataset.get_fragments() if whole_table else []
        return whole_table and not any(f.metadata.num_deletions for f in fragments) and not self.stale(vector)

    def stale(self, part: VectorPlan | TextPlan | None) -> bool:
        """Whether an index that a part of the plan reads may hold rows that are gone."""
        indexes: tuple[Index, ...] = ()
        if isinstance(part, TextPlan):
            indexes = part.indexes
        elif part is not None and part.index is not None:
            indexes = (part.index,)
        segments = [segment for index in indexes for segment in index.segments]
        return any(holds_removed_rows(self.snapshot, s.fragments, s.version) for s in segments)


def bind(snapshot: Snapshot, query: Query) -> Plan:
    """Check a query against a table and settle how it is run.

    Raises
    ------
    InvalidInput, NotFound
        The message names the argument and the remedy.
    """
    known = facts(snapshot)
    columns, blobs = _projection(known, query.columns)
    where = whole(query.where, known.schema.names) if query.where is not None else None
    if query.group_by is not None:
        known.schema.column(query.group_by)
        if query.group_by not in columns:
            columns = (*columns, query.group_by)
    vector: VectorPlan | None = None
    if query.near:
        column = _vector_column(known, query)
        given = query.vector
        if query.like is not None:
            given, others = _row_like(snapshot, known, column, query.like)
            where = both(where, others)
        vector = _vector_plan(snapshot, known, query, column, given)
    text = _text_plan(known, query, as_text(query.text)) if query.text is not None else None
    wanted = query.candidates or max(4 * ((query.k or 0) + query.offset), _LEAST_CANDIDATES)
    return Plan(snapshot, query, known, columns, blobs, where, vector, text, wanted)


def _projection(known: Facts, columns: Sequence[str] | None) -> tuple[tuple[str, ...], bool]:
    if columns is None:
        heavy = {Role.VECTOR, Role.BLOB}
        return tuple(c.name for c in known.schema.columns if c.role not in heavy), False
    blobs = False
    for name in columns:
        if not isinstance(name, str):
            raise InvalidInput(f"columns={columns!r}: give names")
        if name not in _SYSTEM and name not in RESULT_COLUMNS:
            # A dot reaches into a struct; no column of ours has one in its name.
            root = name if name in known.schema else name.split(".", 1)[0]
            blobs |= known.schema.column(root).role is Role.BLOB
    wanted = tuple(name for name in columns if name not in RESULT_COLUMNS)
    if len(set(wanted)) < len(wanted):
        raise InvalidInput(f"columns={list(columns)}: a column is named twice")
    return wanted, blobs


def _vector_column(known: Facts, query: Query) -> Column:
    names = [column.name for column in known.schema.vectors]
    if query.vector_column is None:
        if len(names) == 1:
            return known.schema.column(names[0])
        if not names:
            raise InvalidInput("vector=: the table has no vector column")
        raise InvalidInput(f"several columns hold vectors ({', '.join(names)}): say which by vector_column=")
    column = known.schema.column(query.vector_column)
    if column.embedding is None:
        raise InvalidInput(
            f"vector_column={column.name!r} has the role {column.role.value!r}; vectors are in: "
            + (", ".join(names) or "no column")
        )
    return column


def _metric(column: Column, metric: Metric | None) -> str:
    assert column.embedding is not None  # noqa: S101  # vector columns have one
    if metric is None:
        return column.embedding.metric
    if metric not in get_args(Metric):
        raise InvalidInput(f"metric={metric!r}; there are {', '.join(get_args(Metric))}")
    if (metric == "hamming") != (column.embedding.metric == "hamming"):
        legal = "hamming only" if metric != "hamming" else "l2, cosine or dot"
        raise InvalidInput(f"metric={metric!r}: column {column.name!r} ({column.type}) compares by {legal}")
    return metric


def _row_like(snapshot: Snapshot, known: Facts, column: Column, like: Any) -> tuple[Any, str]:
    """Read the vector of the row that `like` names, and say in SQL which rows are others."""
    if not isinstance(like, Mapping):
        if len(known.schema.key) != 1:
            raise InvalidInput(f"like={like!r}: the table has no key of one column; give {{column: value}}")
        like = {known.schema.key[0]: like}
    if not like:
        raise InvalidInput("like={}: name the row by {column: value}")
    named = [(quote(known.schema.column(name).name), literal(value)) for name, value in like.items()]
    itself = " AND ".join(f"{name} = {value}" for name, value in named)
    found = Scan([column.name], itself, limit=2).read(snapshot.dataset, [])
    if found.num_rows == 0:
        raise NotFound(f"like={dict(like)!r}: there is no such row")
    if found.num_rows > 1:
        raise InvalidInput(f"like={dict(like)!r} names several rows; give the value of the key")
    vector = found.column(0)[0].as_py()
    if not vector:
        raise InvalidInput(f"like={dict(like)!r}: the row has no vector in {column.name!r}")
    # Of a null, NOT (column = value) is null too. Unlike IS NOT TRUE, this can be answered by scalar indexes.
    return vector, " OR ".join(f"{name} != {value} OR {name} IS NULL" for name, value in named)


def _vector_plan(snapshot: Snapshot, known: Facts, query: Query, column: Column, given: Any) -> VectorPlan:
    metric = _metric(column, query.metric)
    queries, many = to_queries(given, column, metric)
    low, high = query.bounds
    if low is not None and low <= 0 and metric != "dot":
        low = None  # no distance is less, but rounding may put one of nothing slightly below 0
    index, notes = _choose(known, query, column, metric)
    if query.indexed_only and index is None:
        raise InvalidInput(
            f"indexed_only=True, but no index answers for {column.name!r}: " + ("; ".join(notes) or "none is built")
        )
    base = Nearest(column.name, queries[0], metric, low=low, high=high)
    if index is None:
        calls = tuple(replace(base, q=q) for q in queries)
        found = None if query.recall is None else 1.0
        return VectorPlan(column, metric, calls, many, None, recall=found, notes=notes)
    segments = partitions(snapshot, index.name)
    share = max(segments)
    nprobe = min(query.nprobe or max(LEAST_NPROBE, math.isqrt(share - 1) + 1), share)
    exact = index.flat and not is_multi(column)
    refine = (0 if exact else REFINE) if query.refine is None else query.refine
    expected = None
    if query.recall is not None:
        chosen = probes(snapshot, known, index, query, share)
        nprobe, refine, expected, notes = chosen.nprobe, chosen.refine, chosen.recall, (*notes, chosen.note)
    pushed = index.kind == "IVF_FLAT" and exact
    base = replace(
        base,
        nprobe=nprobe,
        refine=refine or None,
        ef=query.ef,
        low=low if pushed else None,
        high=high if pushed else None,
        segments=tuple(s.id for s in index.segments) if len(known.vector_indexes(column.name)) > 1 else None,
    )
    calls = tuple(replace(base, q=q) for q in queries)
    return VectorPlan(column, metric, calls, many, index, sum(segments), None if pushed else high, expected, notes)


def _choose(known: Facts, query: Query, column: Column, metric: str) -> tuple[Index | None, tuple[str, ...]]:
    """Find the index that answers a query completely, or say why none does."""
    there = known.vector_indexes(column.name)
    if not there or not query.use_index:
        return None, ()
    if query.recall == 1:
        return None, ("recall=1.0: every row is compared",)
    index = next((i for i in there if i.metric == metric), None)
    if index is None:
        return None, (f"{there[0].name} is for {there[0].metric}, the query for {metric}: scanned",)
    if len(there) > 1 and not query.indexed_only and known.rows > known.rows_in(index.fragments):
        # Lance looks at one index of a column only, and leaves out the tail when told which.
        return None, (f"{column.name!r} has several indexes and unindexed rows: scanned; build() ends that",)
    if query.k is None:
        return None, ("all rows are wanted: scanned",)
    if query.bounds[0] is not None and index.kind != "IVF_FLAT":
        # A lower bound must be compared with true distances, which this index does not have.
        return None, (f"a lower bound on distances needs true ones, {index.kind} has others: scanned",)
    return index, ()


def _text_plan(known: Facts, query: Query, node: Node) -> TextPlan:
    default = _text_columns(known, query.text_columns)
    columns = tuple(dict.fromkeys(name for leaf in leaves(node) for name in leaf.columns or default))
    indexes = tuple(_text_index(known, known.schema.column(name)) for name in columns)
    for leaf in leaves(node):
        _check_positions(known, leaf, default)
    alive = frozenset(known.fragments)
    covered = alive.intersection(*(index.fragments for index in indexes))
    if query.indexed_only and not covered:
        raise InvalidInput(f"indexed_only=True, but the text index of {', '.join(columns)} is not built: build() it")
    return TextPlan(node, default, indexes, covered, alive - covered)


def _text_columns(known: Facts, named: str | Sequence[str] | None) -> tuple[str, ...]:
    if named:
        return tuple(named)
    indexed = tuple(c.name for c in known.schema.columns if known.text_index(c.name) is not None)
    if not indexed:
        name = next((repr(c.name) for c in known.schema.text_columns), "column")
        raise NotFound(f"text=: the table has no text index; create_index({name}, 'text') and build() it")
    return indexed


def _text_index(known: Facts, column: Column) -> Index:
    """Find the text index of a column.

    Lance would search without one, but compare words as they are written, capitals and endings included: the
    same query would find less than it does once the index is there.
    """
    kind = column.type
    many = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    element = kind.value_type if many else kind
    if not (pa.types.is_string(element) or pa.types.is_large_string(element) or column.role is Role.JSON):
        raise InvalidInput(f"text= in column {column.name!r}: it holds {kind}, not text")
    index = known.text_index(column.name)
    if index is None:
        raise NotFound(
            f"text=: column {column.name!r} has no text index, which says how words are compared; "
            f"create_index({column.name!r}, 'text') and build() it"
        )
    return index


def _check_positions(known: Facts, leaf: Match | Phrase, default: Sequence[str]) -> None:
    for name in leaf.columns or default:
        index = known.text_index(name)
        if isinstance(leaf, Phrase) and index is not None and not index.positions:
            raise InvalidInput(
                f"phrase {leaf.words!r}: the text index of {name!r} does not know where words stand; "
                "declare it again with positions, and build()"
            )
