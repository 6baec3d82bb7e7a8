"""The result of a query as a table of the lake: what a load reads, wherever its tasks run."""

from __future__ import annotations

from typing import Any

from pyspark.errors import PySparkException

from lake.errors import InvalidInput
from lake.storage import Location
from lake_spark.session import find_session
from lake_spark.user import errors, register


def keep(query: str, location: Location) -> None:
    """Run a query in the active session, or a new one, and keep its rows in a table.

    Doing it again after it was done does nothing.

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
            rows.write.format("lake").mode("append").option("commit_id", "query").save(location.uri)
    except PySparkException as error:
        raise InvalidInput(f"Spark refuses the query {query!r}: {error}") from error
