"""A block of the left side: what is read of it, and the rows of the result that it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lake.join.side import ROW_ID, Side, Span, finder, named
from lake.join.vectors import vectors
from lake.nearest.kernel import Floats, Ids
from lake.table.parts import Part, PartedWrite

_OUT_ROWS = 1 << 16
_OUT_BYTES = 32 << 20  # likewise, of what is carried


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of the left side that have a vector.

    Parameters
    ----------
    rows : Table
        The columns that were asked for, and ``_rowid``.
    vectors : float32, shape (n, d)
    places : int64, shape (n,)
        Where each stands in the block, in which rows without a vector have a place too.
    without : int
        How many have none.
    """

    rows: pa.Table
    vectors: Floats
    places: Ids
    without: int

    @property
    def ids(self) -> Ids:
        """The row ids."""
        return row_ids(self.rows)


def row_ids(rows: pa.Table) -> Ids:
    """Return the row ids of what was read."""
    ids: Ids = rows["_rowid"].to_numpy().astype(np.int64)
    return ids


def read_block(left: Side, spans: Sequence[Span], metric: str, columns: Sequence[str]) -> Block:
    """Read the vectors of a block, and columns beside them.

    Raises
    ------
    InvalidInput
        A vector is not legal; see `Side.matrix`.
    """
    room = np.empty((sum(rows for _, _, rows in spans), left.dimension), np.float32)
    kept, places, held, filled = [], [], 0, 0
    for span in spans:
        for payload, some, at in vectors(left, span, metric, columns):
            kept.append(payload if len(at) == payload.num_rows else payload.take(pa.array(at)))
            room[filled : filled + len(some)] = some
            places.append(held + at)
            held, filled = held + payload.num_rows, filled + len(some)
            del some  # its memory serves the next batch
    return Block(pa.Table.from_batches(kept), room[:filled], np.concatenate(places), held - filled)


def read_payload(left: Side, spans: Sequence[Span]) -> pa.Table:
    """Read what the result takes of all rows of a block, and ``_rowid``."""
    return pa.Table.from_batches([batch for span in spans for batch in left.read(span, left.payload)])


def write(target: PartedWrite, sides: tuple[Side, Side], rows: pa.Table, ids: Ids, distances: Floats) -> Part:
    """Write the rows of the result: for each row of the left side its nearest, the nearest first.

    Parameters
    ----------
    sides : (Side, Side)
    rows : Table
        The payload of the left side and ``_rowid``, n rows.
    ids : int64, shape (n, k)
        Row ids of the right side, -1 where there is none.
    distances : float32, shape (n, k)
    """
    return target.part(_result(target.schema.to_arrow(), sides, rows, ids, distances), lambda _rows, _bytes: None)


def _result(
    schema: pa.Schema, sides: tuple[Side, Side], rows: pa.Table, ids: Ids, distances: Floats
) -> Iterator[pa.RecordBatch]:
    left, right = sides
    width = 1 + rows.nbytes // max(1, len(rows)) + (right.payload_bytes() if right.carry else 0)
    step = max(1, min(_OUT_ROWS, _OUT_BYTES // width) // ids.shape[1])
    find = finder(right, int((ids >= 0).sum())) if right.payload else None
    empty = True
    for start in range(0, len(ids), step):
        some = ids[start : start + step]
        there = some >= 0
        at, rank = np.nonzero(there)
        if not len(at):
            continue
        mine = rows.slice(start, step).take(pa.array(at))
        near = some[there]
        theirs = find(near) if find else mine[:0]
        columns: dict[str, Any] = {}
        for prefix, side, table, own in (
            ("left_", left, mine, mine["_rowid"].cast(pa.int64())),
            ("right_", right, theirs, pa.array(near)),
        ):
            for name in side.named:
                columns[named(prefix, name)] = own if name == ROW_ID else table[name]
        columns["rank"] = pa.array(rank.astype(np.int32))
        columns["distance"] = pa.array(distances[start : start + step][there])
        empty = False
        yield from pa.table([columns[name] for name in schema.names], schema=schema).to_batches()
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=schema)
