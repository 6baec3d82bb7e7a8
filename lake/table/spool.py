"""A stream kept on this machine's disk, to be read more than once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from lake.errors import InvalidInput
from lake.table.stream import Stream


class Spool:
    """A validated stream in a temporary Arrow file, mapped into memory as it is read.

    A merge looks at all keys before it begins, and begins again when another writer was faster; its
    input may be a generator that runs once and is larger than memory.
    """

    def __init__(self, stream: Stream) -> None:
        self.schema = stream.arrow_schema
        self._stream = stream
        self._folder = tempfile.TemporaryDirectory(prefix="lake-merge-")
        self._path = Path(self._folder.name) / "rows.arrow"

    def __enter__(self) -> Self:
        try:
            with pa.OSFile(str(self._path), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
                for batch in self._stream:
                    writer.write_batch(batch)
        except pa.ArrowException as error:
            self._folder.cleanup()
            raise InvalidInput(f"the input cannot be read: {error}") from error
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @property
    def rows(self) -> int:
        """Rows in the spool."""
        return self._stream.rows

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Return some columns; their memory is the page cache's."""
        with pa.memory_map(str(self._path)) as source:
            whole = pa.ipc.open_file(source).read_all()
        return whole if columns is None else whole.select(columns)

    def reader(self) -> pa.RecordBatchReader:
        """Return a fresh reader over all rows."""
        return self.table().to_reader()
