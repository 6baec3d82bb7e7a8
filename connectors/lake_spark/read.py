"""Reading a version in parallel: partitions of fragments, or of row ranges of large ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import lance
import pyarrow as pa
import pyarrow.types as pt
from pyspark.sql.datasource import DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from lake.table.snapshot import Snapshot, store_errors
from lake.table.sql import sql_errors, whole
from lake_spark.types import arrow_schema, to_spark

PARTITION_BYTES = 128 << 20
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 8192
_UNKNOWN_BYTES = 64  # of a value whose type does not tell


@dataclass
class Piece(InputPartition):
    """Some fragments; of a single one, perhaps only the live rows from ``offset`` on.

    Parameters
    ----------
    fragments : tuple of int
        Their ids.
    offset, limit : int or None
        Which of the live rows.
    """

    fragments: tuple[int, ...]
    offset: int | None = None
    limit: int | None = None


class LakeReader(DataSourceReader):
    """Reads a snapshot. Filters are an option of the source: Spark 4.3's own push-down mixes plans up.

    Parameters
    ----------
    snapshot : Snapshot
    schema : StructType
        Which columns, and as which types.
    where : str or None
        A SQL filter.
    """

    def __init__(self, snapshot: Snapshot, schema: StructType, where: str | None = None) -> None:
        self._snapshot = snapshot
        self._names = [snapshot.schema.column(name).name for name in schema.names]
        self._target = arrow_schema(schema)
        dataset = snapshot.dataset
        self._where = None if where is None else whole(where, dataset.schema.names)
        if self._where is not None:
            with sql_errors(where):  # now, not in a task
                dataset.scanner(columns=[], filter=self._where, with_row_id=True).explain_plan()

    def partitions(self) -> list[InputPartition]:
        """Cut the version into pieces of about `PARTITION_BYTES`."""
        with store_errors(self._snapshot.location, self._snapshot.branch):
            return list(pieces(self._snapshot.dataset, self._row_bytes(), whole_fragments=self._where is not None))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a piece."""
        assert isinstance(partition, Piece)  # noqa: S101  ours
        with store_errors(self._snapshot.location, self._snapshot.branch), sql_errors(self._where):
            for batch in self._scanner(partition).to_batches():
                if batch.num_rows:
                    yield to_spark(batch, self._target)

    def _scanner(self, piece: Piece) -> lance.LanceScanner:
        dataset = self._snapshot.dataset
        return dataset.scanner(
            columns=self._names,
            filter=self._where,
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
        stored = self._snapshot.schema
        return max(1, sum(value_bytes(stored.column(name).type) for name in self._names))


def pieces(dataset: lance.LanceDataset, row_bytes: int, *, whole_fragments: bool) -> Iterator[Piece]:
    """Group small fragments and cut large ones.

    Parameters
    ----------
    whole_fragments : bool
        Do not cut: with a filter, the number of rows before a row is not known.
    """
    rows_at_most = max(1, PARTITION_BYTES // row_bytes)
    group: list[int] = []
    held = 0
    for fragment in dataset.get_fragments():
        rows = fragment.metadata.num_rows
        if group and held + rows > rows_at_most:
            yield Piece(tuple(group))
            group, held = [], 0
        if rows > rows_at_most and not whole_fragments:
            yield from _cut(fragment.fragment_id, rows, rows_at_most)
        else:
            group.append(fragment.fragment_id)
            held += rows
    if group:
        yield Piece(tuple(group))


def _cut(fragment: int, rows: int, at_most: int) -> Iterator[Piece]:
    count = -(-rows // at_most)
    ends = [rows * i // count for i in range(count + 1)]
    for start, end in pairwise(ends):
        yield Piece((fragment,), start, end - start)


def value_bytes(kind: pa.DataType) -> int:
    """Estimate the bytes of one value."""
    if pt.is_fixed_size_list(kind):
        return int(kind.list_size) * value_bytes(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return _UNKNOWN_BYTES
