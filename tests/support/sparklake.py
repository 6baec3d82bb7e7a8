"""What the tests of the Spark source share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lake.storage import Location

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def load(spark: SparkSession, table: Location, **options: str) -> DataFrame:
    """Read a table."""
    stored = {f"storage.{name}": value for name, value in table.options.items()}
    return spark.read.format("lake").options(**stored, **options).load(table.uri)


def save(frame: DataFrame, table: Location, mode: str = "append", **options: str) -> None:
    """Write a table."""
    stored = {f"storage.{name}": value for name, value in table.options.items()}
    frame.write.format("lake").mode(mode).options(**stored, **options).save(table.uri)


def rows(frame: DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    """Collect some columns, sorted."""
    return sorted(tuple(row) for row in frame.select(*columns).collect())
