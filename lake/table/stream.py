"""Validated streams into data files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from lake.errors import InvalidInput, StorageError
from lake.schema import Schema
from lake.storage import Location
from lake.table.inputs import Data, aligned, batches, check_columns, conform
from lake.table.progress import Progress, shown
from lake.table.validate import Validator

ROWS_PER_FILE = 1 << 20
BYTES_PER_FILE = 8 << 30


class Stream:
    """An input as validated batches of a schema, counted as they pass, that keeps its own error.

    Lance pulls batches through Arrow's C interface, which turns every Python error into a text; the
    error itself is kept here, so that the caller gets the one that names the row.
    """

    def __init__(self, data: Data, schema: Schema, *, partial: bool = False, progress: Progress | None = None) -> None:
        given, self._batches = batches(data)
        target = schema.to_arrow()
        check_columns(given, target, partial=partial)
        self.arrow_schema = pa.schema([f for f in target if not partial or f.name in given.names], target.metadata)
        self.rows = 0
        self.bytes = 0
        self.error: Exception | None = None
        self._validator = Validator(schema)
        self._progress = progress

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            with shown(self._progress) as report, ThreadPoolExecutor(1) as ahead:
                following = ahead.submit(self._next)
                while (batch := following.result()) is not None:
                    following = ahead.submit(self._next)  # read and checked while the writer is busy with this one
                    yield batch
                    self.rows += batch.num_rows
                    self.bytes += batch.nbytes
                    if report is not None:
                        report(self.rows, self.bytes)
        except Exception as error:
            self.error = error
            raise

    def _next(self) -> pa.RecordBatch | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        return self._validator.check(aligned(conform(batch, self.arrow_schema, self._validator.row)))

    def reader(self) -> pa.RecordBatchReader:
        """Return the stream as Arrow's reader; it can be read once."""
        return pa.RecordBatchReader.from_batches(self.arrow_schema, iter(self))


def write_files(
    stream: Stream, target: lance.LanceDataset | str, location: Location, *, afresh: bool = False
) -> list[FragmentMetadata]:
    """Write a stream into data files that no version names yet.

    Parameters
    ----------
    target : LanceDataset or str
        The table, or where there is none yet.
    afresh : bool
        For an overwrite, which numbers the fields anew: the files must bear the new numbers.

    Returns
    -------
    list of FragmentMetadata
        To be committed. Lance removes the files of a write that fails.
    """
    try:
        fragments: list[FragmentMetadata] = write_fragments(
            stream.reader(),
            target,
            mode="overwrite" if afresh else "append",
            max_rows_per_file=ROWS_PER_FILE,
            max_bytes_per_file=BYTES_PER_FILE,
            storage_options=dict(location.options) or None,
            enable_stable_row_ids=True,
        )
    except (OSError, ValueError) as error:
        raise failed(stream, location, error) from (stream.error or error)
    return fragments


def failed(stream: Stream, location: Location, error: Exception) -> Exception:
    """Choose the error to raise when a write failed: the stream's own, if it had one."""
    if stream.error is not None:
        if isinstance(stream.error, pa.ArrowException) and not isinstance(stream.error, MemoryError):
            return InvalidInput(f"the input cannot be read: {stream.error}")
        return stream.error
    return StorageError(f"cannot write to {location.uri}: {error}")


def file_bytes(fragments: list[FragmentMetadata]) -> int:
    """Bytes of the data files of some fragments."""
    return sum(f.file_size_bytes or 0 for fragment in fragments for f in fragment.files)


def field_ids(dataset: lance.LanceDataset, names: Collection[str]) -> list[int]:
    """Return Lance's ids of some columns and of all fields inside them."""
    ids: list[int] = []
    todo = [f for f in dataset.lance_schema.fields() if f.name() in names]
    while todo:
        field = todo.pop()
        ids.append(field.id())
        todo.extend(field.children())
    return sorted(ids)
