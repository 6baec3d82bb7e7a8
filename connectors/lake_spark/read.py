"""Reading a version in parallel: pieces of fragments, or of row ranges of large ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import lance
import pyarrow as pa
import pyarrow.types as pt
from pyspark.sql.types import StructType

from lake.table.snapshot import Snapshot, store_errors
from lake.table.sql import sql_errors, whole
from lake_spark.source import Piece
from lake_spark.types import arrow_schema, to_spark

PIECE_BYTES = 128 << 20
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 8192
_UNKNOWN_BYTES = 64  # of a value whose type does not tell


@dataclass(frozen=True)
class Scan:
    """Some columns and rows of a snapshot. Use `Scan.of`.

    Parameters
    ----------
    snapshot : Snapshot
    names : tuple of str
        Columns.
    where : str or None
        A SQL filter. It is an option of the source: Spark 4.3's own push-down mixes plans up.
    """

    snapshot: Snapshot
    names: tuple[str, ...]
    where: str | None

    @classmethod
    def of(cls, snapshot: Snapshot, names: list[str], where: str | None = None) -> Scan:
        """Check a scan, now and not in a task.

        Raises
        ------
        NotFound
            There is no such column.
        InvalidInput
            The filter is not legal.
        """
        chosen = tuple(snapshot.schema.column(name).name for name in names)
        if where is not None:
            dataset = snapshot.dataset
            where = whole(where, dataset.schema.names)
            with sql_errors(where):
                dataset.scanner(columns=[], filter=where, with_row_id=True).explain_plan()
        return cls(snapshot, chosen, where)

    def pieces(self) -> list[Piece]:
        """Cut the version into pieces of about `PIECE_BYTES`."""
        with store_errors(self.snapshot.location, self.snapshot.branch):
            return list(_pieces(self.snapshot.dataset, self._row_bytes(), whole_fragments=self.where is not None))

    def read(self, piece: Piece, schema: StructType) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a piece as Spark wants them."""
        target = arrow_schema(schema)
        with store_errors(self.snapshot.location, self.snapshot.branch), sql_errors(self.where):
            for batch in self._scanner(piece).to_batches():
                if batch.num_rows:
                    yield to_spark(batch, target)

    def _scanner(self, piece: Piece) -> lance.LanceScanner:
        dataset = self.snapshot.dataset
        return dataset.scanner(
            columns=list(self.names),
            filter=self.where,
            fragments=[dataset.get_fragment(i) for i in piece.fragments],
            offset=piece.offset,
            limit=piece.limit,
            batch_size=max(64, min(_BATCH_ROWS, _BATCH_BYTES // self._row_bytes())),
            blob_handling="all_binary",
            # Tasks run beside each other already.
            batch_readahead=2,
            fragment_readahead=1,
        )

    def _row_bytes(self) -> int:
        schema = self.snapshot.schema
        return max(1, sum(value_bytes(schema.column(name).type) for name in self.names))


def _pieces(dataset: lance.LanceDataset, row_bytes: int, *, whole_fragments: bool) -> Iterator[Piece]:
    """Group small fragments and cut large ones; with a filter, the number of rows before a row is not known."""
    at_most = max(1, PIECE_BYTES // row_bytes)
    group: list[int] = []
    held = 0
    for fragment in dataset.get_fragments():
        rows = fragment.metadata.num_rows
        if group and held + rows > at_most:
            yield Piece(tuple(group))
            group, held = [], 0
        if rows > at_most and not whole_fragments:
            yield from _cut(fragment.fragment_id, rows, at_most)
        else:
            group.append(fragment.fragment_id)
            held += rows
    if group:
        yield Piece(tuple(group))


def _cut(fragment: int, rows: int, at_most: int) -> Iterator[Piece]:
    count = -(-rows // at_most)
    for start, end in pairwise(rows * i // count for i in range(count + 1)):
        yield Piece((fragment,), start, end - start)


def value_bytes(kind: pa.DataType) -> int:
    """Estimate the bytes of one value."""
    if pt.is_fixed_size_list(kind):
        return int(kind.list_size) * value_bytes(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return _UNKNOWN_BYTES
