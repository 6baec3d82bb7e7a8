"""The result of a query as a table of the lake: what a load reads, wherever its tasks run."""

from __future__ import annotations

from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql.types import ArrayType, FractionalType, StructField

from lake.errors import InvalidInput
from lake.storage import Location
from lake_spark.session import find_session
from lake_spark.types import DIMENSION
from lake_spark.user import errors, register


def keep(query: str, location: Location) -> None:
    """Run a query in the active session, or a new one, and keep its rows in a table.

    Raises
    ------
    InvalidInput
        Spark cannot be had, or refuses the query.
    """
    session: Any = find_session()  # classic or Connect
    register(session, location.options)
    try:
        with errors():
            rows = session.sql(query)
            # Whether arrays of floats are vectors is for the table to say that the load writes.
            roles = {f"role.{field.name}": "other" for field in rows.schema if _is_undecided(field)}
            rows.write.format("lake").mode("append").options(**roles).save(location.uri)
    except PySparkException as error:
        raise InvalidInput(f"Spark refuses the query {query!r}: {error}") from error


def _is_undecided(field: StructField) -> bool:
    kind = field.dataType
    floats = isinstance(kind, ArrayType) and isinstance(kind.elementType, FractionalType)
    return floats and DIMENSION not in (field.metadata or {})
