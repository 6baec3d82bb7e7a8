"""``format("lake")``: tables as a data source of Spark.

Spark plans each query in a fresh Python process, so this module imports little: what ``load`` found out is passed on
sealed, and a plan costs no second look at the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark.sql.datasource import (
    DataSource,
    DataSourceReader,
    DataSourceStreamReader,
    DataSourceWriter,
    InputPartition,
)
from pyspark.sql.types import StructType

from lake_spark import options
from lake_spark.sealed import Sealed

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.datasource import DataSourceStreamArrowWriter

    from lake.storage import Location
    from lake.table.snapshot import Snapshot
    from lake_spark.read import Scan


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
    """Reads a scan that is planned already."""

    def __init__(self, scan: Sealed[Scan], pieces: list[Piece], schema: StructType) -> None:
        self._scan = scan
        self._pieces = pieces
        self._schema = schema

    def partitions(self) -> list[InputPartition]:
        """Return the pieces; Spark reads a partition of its own making if there are none."""
        return [*self._pieces]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a piece."""
        if isinstance(partition, Piece):
            yield from self._scan.open().read(partition, self._schema)


class LakeSource(DataSource):
    """A table of the lake. Use `lake_spark.register`, which lists the options."""

    storage: ClassVar[Sealed[Mapping[str, str]] | None] = None
    _snapshot: Sealed[Snapshot] | None = None
    _planned: tuple[Sealed[Scan], list[Piece], list[str]] | None = None

    @classmethod
    def name(cls) -> str:
        """Return what ``format`` calls it."""
        return "lake"

    def schema(self) -> StructType:
        """Describe the rows; ``load`` calls this, and the DataFrame stays on the version of that moment."""
        from lake_spark.follow import with_change
        from lake_spark.types import spark_schema

        options.check(self.options, options.READ | options.CHANGES)
        snapshot = self._pinned()
        found = spark_schema(snapshot.schema, options.names(self.options.get("columns")))
        if self._of_changes():
            return with_change(found) if options.flag(self.options, "changes") else found
        self._plan(snapshot, found)
        return found

    def reader(self, schema: StructType) -> DataSourceReader:
        """Plan a scan."""
        if self._of_changes():
            from lake_spark.follow import ChangesReader

            return ChangesReader(self._pinned(), schema, self.options)
        if self._planned is None or self._planned[2] != schema.names:  # the user gave the columns
            options.check(self.options, options.READ)
            self._plan(self._pinned(), schema)
        assert self._planned is not None  # noqa: S101  just done
        return LakeReader(self._planned[0], self._planned[1], schema)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802  Spark's name
        """Plan a stream of changes."""
        from lake_spark.follow import LakeStreamReader

        options.check(self.options, {"branch", "columns", *options.CHANGES})
        return LakeStreamReader(self._location(), self.options.get("branch"), schema, self.options)

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceWriter:  # noqa: FBT001  Spark's signature
        """Plan a write."""
        from lake_spark.write import LakeWriter, plan

        options.check(self.options, options.WRITE, options.CREATE)
        return LakeWriter(plan(self._location(), schema, self.options, overwrite=overwrite))

    def streamWriter(self, schema: StructType, overwrite: bool) -> DataSourceStreamArrowWriter:  # noqa: FBT001, N802
        """Plan the writes of a stream's batches."""
        from lake_spark.sink import LakeStreamWriter

        options.check(self.options, options.WRITE - {"commit_id"}, options.CREATE)
        return LakeStreamWriter(self._location(), schema, dict(self.options), overwrite=overwrite)

    def _of_changes(self) -> bool:
        return "since" in self.options or options.flag(self.options, "changes")

    def _plan(self, snapshot: Snapshot, schema: StructType) -> None:
        from lake_spark.read import Scan

        scan = Scan.of(snapshot, schema.names, self.options.get("filter"))
        self._planned = Sealed(scan), scan.pieces(), schema.names

    def _location(self) -> Location:
        given: Any = {} if self.storage is None else self.storage.open()
        return options.location(self.options, given)

    def _pinned(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = Sealed(options.version(self.options, self._location()))
        return self._snapshot.open()
