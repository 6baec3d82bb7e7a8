"""Changes of a table as rows: in one read, or as a stream that follows the table.

Without ``.option("changes", "true")`` rows must only have been inserted; with it, rows that were updated or deleted
come too, and a column ``_change`` says which is which. Changes are net: of a row that changed twice between two batches
the last state comes, and a row that came and went does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSourceReader, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadLimit, SupportsTriggerAvailableNow
from pyspark.sql.types import StringType, StructField, StructType

from lake.errors import InvalidInput
from lake.storage import Location
from lake.table.changes import CHANGE, Changes, Part, compare
from lake.table.commit import pinned
from lake.table.snapshot import Snapshot
from lake_spark import options
from lake_spark.types import arrow_schema, to_spark

Offset = dict[str, Any]


def with_change(schema: StructType) -> StructType:
    """Put the column that says what happened to a row in front."""
    return StructType([StructField(CHANGE, StringType(), nullable=False), *schema.fields])


@dataclass
class ChangedPiece(InputPartition):
    """Some changed rows, and the two versions."""

    changes: Changes
    part: Part


@dataclass(frozen=True)
class _Following:
    """What batches and streams of changes have in common."""

    schema: StructType
    only_inserts: bool

    @classmethod
    def of(cls, schema: StructType, given: Mapping[str, str]) -> _Following:
        if "filter" in given:
            raise InvalidInput("changes cannot be filtered by option: use .where(…) on the DataFrame")
        return cls(schema, only_inserts=not options.flag(given, "changes"))

    def pieces(self, before: Snapshot | None, after: Snapshot) -> list[InputPartition]:
        """List what changed; everything was inserted if there is no version before."""
        names = [name for name in self.schema.names if name != CHANGE]
        changes = compare(before or after, after, names)
        parts = changes.parts()
        if before is None:
            parts = [Part("insert", f.fragment_id, None) for f in after.dataset.get_fragments()]
        kinds = sorted({part.kind for part in parts} - {"insert"})
        if kinds and self.only_inserts:
            since = 0 if before is None else before.version
            raise InvalidInput(
                f"{after.location.uri} has rows with {' and '.join(kinds)} between versions {since} and "
                f"{after.version}, which a read of new rows would leave out: give .option('changes', 'true')"
            )
        return [ChangedPiece(changes, part) for part in parts]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, ChangedPiece)  # noqa: S101  ours
        target = arrow_schema(self.schema)
        for batch in partition.changes.read(partition.part):
            if batch.num_rows:
                yield to_spark(batch, target)


class ChangesReader(DataSourceReader):
    """Reads what changed up to a snapshot."""

    def __init__(self, snapshot: Snapshot, schema: StructType, given: Mapping[str, str]) -> None:
        self._following = _Following.of(schema, given)
        self._after = snapshot
        since = options.number(given, "since")
        self._before = Snapshot(snapshot.location, since, snapshot.branch) if since else None

    def partitions(self) -> list[InputPartition]:
        """List the parts; Spark reads a partition of its own making if there are none."""
        return self._following.pieces(self._before, self._after)

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a part."""
        if isinstance(partition, ChangedPiece):
            yield from self._following.read(partition)


class LakeStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Follows a table: each batch is what changed between two versions.

    An offset is a version and its time, by which a table that was dropped and made anew is told from this one.
    """

    def __init__(self, location: Location, branch: str | None, schema: StructType, given: Mapping[str, str]) -> None:
        self._location = location
        self._branch = branch
        self._following = _Following.of(schema, given)
        self._since = options.number(given, "since") or 0
        self._last: Offset | None = None

    def initialOffset(self) -> Offset:  # noqa: N802  Spark's name
        """Begin at the version of the option ``since``, or with all rows."""
        if not self._since:
            return {"version": 0, "time": ""}
        return _offset(Snapshot(self._location, self._since, self._branch))

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:  # noqa: N802
        """Return the newest version."""
        _ = start, limit
        return self._last or _offset(pinned(self._location, self._branch))

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802
        """Go no further than the version that is the newest now."""
        self._last = _offset(pinned(self._location, self._branch))

    def partitions(self, start: Offset, end: Offset) -> list[InputPartition]:
        """List what changed between two versions."""
        after = self._at(end)
        return [] if after is None else self._following.pieces(self._at(start), after)

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a part."""
        yield from self._following.read(partition)

    def _at(self, offset: Offset) -> Snapshot | None:
        if not offset["version"]:
            return None
        return Snapshot(self._location, offset["version"], self._branch, datetime.fromisoformat(offset["time"]))


def _offset(snapshot: Snapshot) -> Offset:
    assert snapshot.time is not None  # noqa: S101  a snapshot looks it up
    return {"version": snapshot.version, "time": snapshot.time.isoformat()}
