"""Groups of near rows: their members in order, how far each is from the one that is kept, and a table of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.errors import InvalidInput
from lake.join.side import Side, take
from lake.schema import Column, Schema
from lake.table.parts import PartedWrite
from lake.table.snapshot import Snapshot

Ids = NDArray[np.int64]

ROW = "row_id"
GROUP = "group_"
_ROWS = 4096


@dataclass(frozen=True)
class Groups:
    """Groups of two rows or more.

    Parameters
    ----------
    rows : int64, shape (n,)
        Row ids; groups one after the other, each with the row that is kept first.
    kept : int64, shape (n,)
        For each row, the one that its group keeps.
    """

    rows: Ids = field(hash=False)
    kept: Ids = field(hash=False)

    @classmethod
    def of(cls, rows: Ids, groups: Ids) -> Groups:
        """Make it of rows in that order, and what tells their groups apart."""
        first = np.flatnonzero(np.diff(groups, prepend=-1))
        return cls(rows, np.repeat(rows[first], np.diff([*first, len(rows)])))

    @property
    def sizes(self) -> Ids:
        """Rows of each group, in order."""
        return np.diff([*np.flatnonzero(self.rows == self.kept), len(self.rows)])

    @property
    def duplicates(self) -> NDArray[np.bool_]:
        """Which rows are not kept."""
        apart: NDArray[np.bool_] = self.rows != self.kept
        return apart

    def distances(self, side: Side, metric: str) -> NDArray[np.float32]:
        """Compute how far each row is from the one that its group keeps."""
        found = np.zeros(len(self.rows), np.float32)
        for start in range(0, len(self.rows), _ROWS):
            some = slice(start, start + _ROWS)
            a, b = (
                side.matrix(take(side.snapshot.dataset, ids[some], [side.column])[side.column].combine_chunks(), metric)
                for ids in (self.rows, self.kept)
            )
            apart = a[0] - b[0]
            found[some] = (
                np.einsum("nd,nd->n", apart, apart) if metric == "l2" else 1 - np.einsum("nd,nd->n", a[0], b[0])
            )
        return found


def table_schema(snapshot: Snapshot) -> Schema:
    """Return the schema of the table of groups.

    Raises
    ------
    InvalidInput
        A column of the table's key has a name that the table of groups needs.
    """
    columns = [Column(ROW, pa.int64(), nullable=False)]
    known = [snapshot.schema.column(name) for name in snapshot.schema.key]
    columns += [Column(c.name, c.type, nullable=c.nullable) for c in known]
    columns += [Column(GROUP + c.name, c.type, nullable=c.nullable) for c in known]
    columns += [] if known else [Column(GROUP + ROW, pa.int64(), nullable=False)]
    columns += [Column("size", pa.int64()), Column("distance", pa.float32()), Column("kept", pa.bool_())]
    names = [c.name for c in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"into=: the key column {twice[0]!r} has the name of a column of the table of groups")
    return Schema(columns, key=ROW)


def write(target: PartedWrite, snapshot: Snapshot, groups: Groups, distances: NDArray[np.float32]) -> int:
    """Write the table of groups in one commit, unless that was done; return its version."""
    if target.done is not None:
        return target.done.version
    part = target.part(_batches(target.schema.to_arrow(), snapshot, groups, distances))
    return target.commit([part]).version


def _batches(
    schema: pa.Schema, snapshot: Snapshot, groups: Groups, distances: NDArray[np.float32]
) -> Iterator[pa.RecordBatch]:
    key = list(snapshot.schema.key)
    sizes = np.repeat(groups.sizes, groups.sizes)
    for start in range(0, max(1, len(groups.rows)), _ROWS):
        some = slice(start, start + _ROWS)
        rows, kept = groups.rows[some], groups.kept[some]
        columns: dict[str, pa.Array | pa.ChunkedArray] = {ROW: pa.array(rows), GROUP + ROW: pa.array(kept)}
        if key and len(rows):
            mine, theirs = (take(snapshot.dataset, ids, key) for ids in (rows, kept))
            columns |= {name: mine[name] for name in key} | {GROUP + name: theirs[name] for name in key}
        columns["size"] = pa.array(sizes[some])
        columns["distance"] = pa.array(distances[some], mask=rows == kept)
        columns["kept"] = pa.array(rows == kept)
        if len(rows):
            table = pa.table([columns[name] for name in schema.names], schema=schema)
            yield from table.combine_chunks().to_batches()
        else:
            yield pa.RecordBatch.from_pylist([], schema=schema)
