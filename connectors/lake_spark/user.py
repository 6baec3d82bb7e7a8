"""Making a session know the lake."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyspark.sql.types import DoubleType

from lake import errors as lake_errors
from lake.errors import CommitUnknown, LakeError, NotFound
from lake.storage import Location, StorageOptions
from lake.table import changes
from lake.table.commit import COMMIT_ID, transactions
from lake.table.receipt import Receipt
from lake.table.snapshot import Snapshot, open_head
from lake_spark.distance import FUNCTIONS
from lake_spark.sealed import Sealed
from lake_spark.search import functions
from lake_spark.source import LakeSource

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.session import SparkSession as RemoteSession

_RAISED = re.compile(r"lake\.errors\.(\w+): (.*)")


def register(spark: SparkSession | RemoteSession, storage_options: Mapping[str, object] | None = None) -> None:
    """Teach a session, classic or Connect, to read, write and search tables of the lake.

    Afterwards there are ``format("lake")`` for ``spark.read``, ``df.write``, ``readStream`` and ``writeStream``; the
    table functions ``vector_search``, ``text_search`` and ``hybrid_search``; and the functions ``cosine``, ``l2`` and
    ``dot`` over array columns.

    Parameters
    ----------
    spark : SparkSession
    storage_options : mapping, optional
        Options of the object store for all tables. They travel inside the registered classes and are in no plan, log
        or event of Spark's. ``.option("storage.aws_region", …)`` adds to them for one table.

    Notes
    -----
    Options of a read: ``version``, ``tag``, ``time``, ``branch``, ``columns`` (``"id, v"``), ``filter`` (SQL, as
    `lake.Table.count_rows` takes it). Spark tells a source neither the columns nor the filter that a query needs: give
    them here, or all columns of all rows are read. ``changes`` and ``since`` read changes, see `lake_spark.follow`.

    Options of a write: ``commit_id`` (a write that is repeated with the same one does nothing), ``branch``; ``merge``
    (``upsert``, ``insert`` or ``update``) with mode append; ``overwrite_schema`` with mode overwrite; for a table that
    is not there yet ``key``, ``embedding.<column>`` and ``role.<column>``, see `lake_spark.new.new_schema`. Each task
    makes files of its own: coalesce frames of many small partitions, or call `lake.Table.compact` afterwards.
    """
    storage: Sealed[Mapping[str, str]] = Sealed(StorageOptions(storage_options))

    class Registered(LakeSource):
        pass

    Registered.storage = storage
    spark.dataSource.register(Registered)
    make = _udtf(spark)
    for name, function in functions(storage).items():
        spark.udtf.register(name, make(function))
    for name, distance in FUNCTIONS.items():
        spark.udf.register(name, _arrow_udf(distance))


def _udtf(spark: SparkSession | RemoteSession) -> Callable[[type], Any]:
    # Both kinds of session may live in one process, and each takes only functions of its own.
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        from pyspark.sql.connect.functions import udtf as connect_udtf

        return lambda function: connect_udtf(function, useArrow=False)
    from pyspark.sql.functions import udtf

    return lambda function: udtf(function, useArrow=False)


def _arrow_udf(function: Callable[..., Any]) -> Any:
    from pyspark.sql.pandas.functions import arrow_udf

    make: Any = arrow_udf  # its types know no Arrow arrays
    return make(function, DoubleType())


def receipt(
    uri: str,
    commit_id: str | None = None,
    storage_options: Mapping[str, object] | None = None,
    *,
    branch: str | None = None,
) -> Receipt:
    """Tell what a write did: Spark's own ``save`` returns nothing.

    Parameters
    ----------
    uri : str
        The table's.
    commit_id : str, optional
        What ``.option("commit_id", …)`` said; by default the newest version is told about.
    branch : str, optional

    Returns
    -------
    Receipt
        Version and rows; bytes and seconds are not kept.

    Raises
    ------
    NotFound
        No retained version bears that id: the write was not committed, had no rows, or has expired; or the version
        before it has expired, so that the rows cannot be counted.
    """
    location = Location.of(uri, storage_options)
    for version, properties in transactions(open_head(location, branch)):
        found = properties.get(COMMIT_ID, "")
        if commit_id is None or found == commit_id:
            at = Snapshot(location, version, branch)
            if version == 1:
                return Receipt(1, found, inserted=at.dataset.count_rows())
            counts = changes.compare(Snapshot(location, version - 1, branch), at).counts()
            return Receipt(version, found, counts["insert"], counts["update"], counts["delete"])
    raise NotFound(f"{location.uri} has no version of the commit {commit_id!r}")


@contextmanager
def errors() -> Iterator[None]:
    """Raise the lake's own errors where Spark wraps them in texts.

    >>> with lake_spark.errors():
    ...     df.write.format("lake").mode("append").save(uri)
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        told = _RAISED.findall(str(error))
        kind = getattr(lake_errors, told[-1][0], None) if told else None
        if kind is None:
            raise
        raise _rebuilt(kind, told[-1][1]) from error


def _rebuilt(kind: type[LakeError], message: str) -> LakeError:
    if issubclass(kind, CommitUnknown):
        named = re.search(r"commit_id='([^']*)'", message)
        return kind(message, commit_id=named[1] if named else "")
    error = kind.__new__(kind)  # some take more than their message, which Spark did not keep
    Exception.__init__(error, message)
    return error
