"""Writing in parallel: tasks make files, the driver commits those of the attempts that Spark counts, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, cast, get_args

import pyarrow as pa
from pyspark.sql.datasource import DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from lake.errors import CommitUnknown, InvalidInput, LakeError, NotFound
from lake.storage import Location
from lake.table.commit import Commit, earlier
from lake.table.merge import Mode as MergeMode
from lake.table.parts import begin
from lake.table.receipt import Receipt
from lake.table.snapshot import open_head
from lake_spark import options
from lake_spark.merge import MergeWrite
from lake_spark.new import new_schema, require_agreement


class Write(Protocol):
    """A write in parts: `lake.table.parts.PartedWrite`, or a merge."""

    @property
    def done(self) -> Commit | None:
        """The commit, if it took effect before."""

    def part(self, data: Iterable[pa.RecordBatch]) -> Any:
        """Check rows and store them where no version sees them; picklable."""

    def commit(self, parts: Sequence[Any]) -> Receipt:
        """Make the rows of some parts visible at once."""

    def discard(self, parts: Sequence[Any]) -> None:
        """Remove what parts stored."""


@dataclass
class Written(WriterCommitMessage):
    """What a task made; nothing if it had no rows."""

    part: Any


def plan(location: Location, schema: StructType, given: Mapping[str, str], *, overwrite: bool) -> Write:
    """Begin a write as the options say.

    Raises
    ------
    InvalidInput
        Options contradict each other, or do not say enough to create the table.
    NotFound
        There is no table to merge into, or no such branch.
    """
    branch, commit_id, merge = given.get("branch"), given.get("commit_id"), given.get("merge")
    if merge is not None:
        return _merge(location, branch, merge, commit_id, overwrite=overwrite)
    try:
        open_head(location, branch)
    except NotFound:
        if branch is not None:
            raise
        return begin(location, None, "create", new_schema(schema, given), commit_id=commit_id)
    if options.flag(given, "overwrite_schema"):
        if not overwrite:
            raise InvalidInput("option 'overwrite_schema' needs .mode('overwrite')")
        return begin(location, branch, "overwrite", new_schema(schema, given), commit_id=commit_id)
    write = begin(location, branch, "overwrite" if overwrite else "append", commit_id=commit_id)
    require_agreement(write.schema, schema.names, given)
    return write


def _merge(location: Location, branch: str | None, merge: str, commit_id: str | None, *, overwrite: bool) -> Write:
    if merge not in get_args(MergeMode):
        raise InvalidInput(f"option 'merge' is {merge!r}; give one of {', '.join(get_args(MergeMode))}")
    if overwrite:
        raise InvalidInput("option 'merge' goes with .mode('append'), not with 'overwrite'")
    done = earlier(open_head(location, branch), location, branch, commit_id)
    return MergeWrite.begin(location, branch, cast("MergeMode", merge), commit_id, done)


def store(write: Write, batches: Iterator[pa.RecordBatch]) -> Any:
    """Do a task's share of a write; ``None`` if there is nothing to do."""
    first = None if write.done is not None else next(batches, None)
    return None if first is None else write.part(chain([first], batches))


def finish(write: Write, parts: Sequence[Any]) -> Receipt:
    """Commit, and leave no file behind that the table does not name."""
    try:
        receipt = write.commit(parts)
    except CommitUnknown:
        raise  # the commit may yet turn out to have named the files
    except LakeError:
        write.discard(parts)
        raise
    if receipt.repeated:
        write.discard(parts)
    return receipt


class LakeWriter(DataSourceArrowWriter):
    """A batch write."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Written:
        """Store the rows of a task."""
        return Written(store(self._write, iterator))

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Commit what the tasks stored."""
        finish(self._write, made(messages))

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Remove what tasks stored, if the job failed before its commit.

        Spark also calls this after a commit that failed: `finish` has seen to that, and knows better.
        """
        if any(message is None for message in messages):
            self._write.discard(made(messages))


def made(messages: Sequence[WriterCommitMessage | None]) -> list[Any]:
    """Return the parts that tasks report."""
    return [m.part for m in messages if isinstance(m, Written) and m.part is not None]
