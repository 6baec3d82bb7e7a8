"""A merge from many tasks: they stage rows beside the table, the driver merges them once."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lake.errors import InvalidInput
from lake.schema import Schema
from lake.storage import Files, Location
from lake.table.commit import Commit, pinned
from lake.table.merge import Mode, merge
from lake.table.receipt import Receipt
from lake.table.stream import Stream


@dataclass(frozen=True)
class Staged:
    """Rows of one task in an Arrow file.

    Parameters
    ----------
    name : str
        In the staging folder.
    rows : int
    """

    name: str
    rows: int


@dataclass(frozen=True)
class MergeWrite:
    """A merge that has begun. Use `begin`."""

    location: Location
    branch: str | None
    mode: Mode
    schema: Schema
    staging: Location
    commit_id: str | None = None
    done: Commit | None = None

    @classmethod
    def begin(
        cls, location: Location, branch: str | None, mode: Mode, commit_id: str | None, done: Commit | None
    ) -> MergeWrite:
        """Begin a merge into a table that is there."""
        schema = pinned(location, branch).schema
        if not schema.key:
            raise InvalidInput(f"{location.uri} has no entity key, so there is nothing to merge by; use append")
        root = location.uri.rpartition("/")[0]
        staging = Location(f"{root}/_jobs/merge-{uuid.uuid4().hex}", location.options)
        return cls(location, branch, mode, schema, staging, commit_id, done)

    def part(self, data: Iterable[pa.RecordBatch]) -> Staged:
        """Check the rows of a task and stage them."""
        stream = Stream(data, self.schema, partial=True)
        name = f"{uuid.uuid4().hex}.arrow"
        with tempfile.TemporaryDirectory(prefix="lake-stage-") as folder:
            path = Path(folder) / name
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, stream.arrow_schema) as writer:
                for batch in stream:
                    writer.write_batch(batch)
            Files(self.staging).upload(path, name)
        return Staged(name, stream.rows)

    def commit(self, parts: Sequence[Staged]) -> Receipt:
        """Merge all staged rows as one commit; memory is bounded by a part's batches and the keys."""
        if self.done is not None:
            return Receipt.of(self.done, 0.0, {})
        empty = pa.Table.from_batches([], pa.schema([self.schema.to_arrow().field(k) for k in self.schema.key]))
        try:
            rows = self._rows(parts) if parts else empty
            return merge(self.location, self.branch, rows, mode=self.mode, commit_id=self.commit_id)
        finally:
            self.discard(parts)

    def discard(self, parts: Sequence[Staged]) -> None:
        """Delete staged rows; the table never names them."""
        files = Files(self.staging)
        for part in parts:
            files.delete(part.name)

    def _rows(self, parts: Sequence[Staged]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            with tempfile.TemporaryDirectory(prefix="lake-merge-") as folder:
                copy = Files(self.staging).download(part.name, Path(folder) / part.name)
                with pa.memory_map(str(copy)) as source, pa.ipc.open_file(source) as reader:
                    for at in range(reader.num_record_batches):
                        yield reader.get_batch(at)
