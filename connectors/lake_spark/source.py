"""``format("lake")``: tables as a data source of Spark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceStreamReader, DataSourceWriter
from pyspark.sql.types import StructType

from lake.errors import InvalidInput
from lake.storage import Location, StorageOptions
from lake.table import history
from lake.table.commit import pinned
from lake.table.snapshot import Snapshot
from lake_spark import options
from lake_spark.read import LakeReader
from lake_spark.types import spark_schema

if TYPE_CHECKING:
    from pyspark.sql.datasource import DataSourceStreamArrowWriter


class LakeSource(DataSource):
    """A table of the lake. Use `lake_spark.register`, which lists the options."""

    storage: ClassVar[Mapping[str, str]] = StorageOptions()
    _snapshot: Snapshot | None = None

    @classmethod
    def name(cls) -> str:
        """Return what ``format`` calls it."""
        return "lake"

    def schema(self) -> StructType:
        """Describe the rows; ``load`` calls this, and the DataFrame stays on the version of that moment."""
        options.check(self.options, options.READ | options.CHANGES)
        snapshot = self._pinned()
        found = spark_schema(snapshot.schema, options.names(self.options.get("columns")))
        if options.flag(self.options, "changes"):
            from lake_spark.follow import with_change  # a stream's, which most reads do not need

            return with_change(found)
        return found

    def reader(self, schema: StructType) -> DataSourceReader:
        """Plan a scan."""
        options.check(self.options, options.READ | options.CHANGES)
        if options.flag(self.options, "changes") or "since" in self.options:
            from lake_spark.follow import ChangesReader

            return ChangesReader(self._pinned(), schema, self.options)
        return LakeReader(self._pinned(), schema, self.options.get("filter"))

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

    def _location(self) -> Location:
        return options.location(self.options, self.storage)

    def _pinned(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = _resolve(self._location(), self.options)
        return self._snapshot


def _resolve(location: Location, given: Mapping[str, str]) -> Snapshot:
    branch = given.get("branch")
    named = [name for name in ("version", "tag", "time") if name in given]
    if len(named) > 1:
        raise InvalidInput(f"options {named} each name a version: give one")
    if not named:
        return pinned(location, branch)
    version = options.number(given, "version")
    return history.resolve(location, branch, given[named[0]] if version is None else version)
