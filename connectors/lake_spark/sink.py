"""The sink of a stream: each batch becomes one commit, named after the query and the batch, and so at most one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.datasource import DataSourceStreamArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from lake.errors import JobError, NotFound
from lake.storage import Location
from lake.table.commit import COMMIT_ID, Commit, transactions
from lake.table.snapshot import open_head, store_errors
from lake_spark.write import Write, Written, finish, made, plan, store

_QUERY = "sql.streaming.queryId"


@dataclass
class WrittenBatch(Written):
    """What a task made, for which query, and the write that it was planned for."""

    query: str
    write: Any


class LakeStreamWriter(DataSourceStreamArrowWriter):
    """Writes the batches of a stream.

    Spark makes one of these for the tasks and another for the commit, and may run a batch again whose commit it did
    not see: the id of the commit tells.
    """

    def __init__(self, location: Location, schema: StructType, given: Mapping[str, str], *, overwrite: bool) -> None:
        self._write = plan(location, schema, given, overwrite=overwrite)

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WrittenBatch:
        """Store the rows of a task."""
        context = TaskContext.get()
        query = context and context.getLocalProperty(_QUERY)
        if not query:
            raise JobError("Spark did not tell the task which streaming query it belongs to")
        return WrittenBatch(store(self._write, iterator), query, self._write)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's name
        """Commit what the tasks stored, unless this batch was committed before."""
        first = next((m for m in messages if isinstance(m, WrittenBatch)), None)
        if first is not None:
            finish(named(first.write, first.query, batchId), made(messages))

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803
        """Remove what tasks stored, if the batch failed before its commit."""
        _ = batchId
        if any(message is None for message in messages):
            first = next((m.write for m in messages if isinstance(m, WrittenBatch)), self._write)
            first.discard(made(messages))


def named(write: Any, query: str, batch: int) -> Write:
    """Give a write the id of its batch, and find out whether that was committed.

    Batches of a query are committed in their order, so the newest commit of the query tells: the history is not read
    any further.
    """
    prefix = f"spark-{query}-"
    name = prefix + str(batch)
    done = None
    try:
        head = open_head(write.location, write.branch)
    except NotFound:  # this batch is to create the table
        return replace(write, commit_id=name)  # type: ignore[no-any-return]
    with store_errors(write.location, write.branch):
        for version, properties in transactions(head):
            found = properties.get(COMMIT_ID, "")
            if found.startswith(prefix):
                if int(found.removeprefix(prefix)) >= batch:
                    done = Commit(version, name, repeated=True)
                break
    return replace(write, commit_id=name, done=done)  # type: ignore[no-any-return]
