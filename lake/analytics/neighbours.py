"""What analyses of nearest neighbours share: joins in a job's folder, one table of results, a report.

The driver reads the lists that a join has left some at a time, and writes what comes of them as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lake.analytics.joined import ByRow, Lists, Told, join, read
from lake.errors import InvalidInput
from lake.join import knn
from lake.join.folder import JobFolder
from lake.join.plan import Plan
from lake.join.workers import abreast
from lake.run import Callback, Executor
from lake.schema import Column, Schema
from lake.storage import Location, table_name
from lake.table import pins
from lake.table.parts import PartedWrite, begin
from lake.table.snapshot import Snapshot
from lake.table.sql import both, quote


@dataclass(frozen=True)
class How:
    """How neighbours are looked for; see `lake.knn_join`."""

    k: int
    column: str | None
    metric: str | None
    recall: float
    executor: str | Executor
    memory: int | str
    on_event: Callback | None


@dataclass(frozen=True)
class Analysis:
    """An analysis at work.

    Parameters
    ----------
    kept : JobFolder
    asked : mapping
        What decides what is found.
    tables : tuple of Snapshot
        The versions that it reads; its result goes beside the first.
    how : How
    into : str
        The table of results.
    """

    kept: JobFolder
    asked: Mapping[str, Any]
    tables: tuple[Snapshot, ...]
    how: How
    into: str

    @property
    def place(self) -> Location:
        """Where the table of results goes."""
        return self.tables[0].location.lake.join(f"{table_name(self.into)}.lance")

    def side(self, table: Snapshot, where: str | None, label: str | None = None) -> ByRow:
        """Return the rows of a table that pass a filter; with a label, those that have one."""
        given = knn.side(table, self.how.column, where, (), "")
        if label is None:
            return ByRow(table, given.column, given.where)
        return ByRow(table, given.column, both(given.where, f"{quote(label)} IS NOT NULL"), (label,))

    def plan(self, left: ByRow, right: ByRow, recall: float | None = None) -> Plan:
        """Check and plan a join."""
        how = self.how
        return knn.plan_join(
            left,
            right,
            how.k,
            metric=how.metric,
            within=None,
            on=(),
            recall=recall or how.recall,
            nprobe=None,
            memory=how.memory,
            workers=abreast(how.executor),
        )[0]

    def target(self, columns: Sequence[Column], key: int) -> PartedWrite:
        """Begin to write the table of results; the first columns are its key.

        Raises
        ------
        InvalidInput
            Two columns have one name.
        AlreadyExists
            There is such a table, and this job did not make it.
        """
        names = [column.name for column in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(f"into=: the table of results has a column {twice[0]!r} of its own; rename the table's")
        return begin(self.place, None, "create", Schema(columns, key=names[:key]), commit_id=self.kept.job)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Keep what was asked, and the versions that are read, while the block runs."""
        self.kept.note(self.asked, self.tables)
        with ExitStack() as stack:
            for at, table in enumerate(self.tables):
                stack.enter_context(pins.pin(table, job=f"{self.kept.job}-{at}"))
            yield

    def join(self, name: str, plan: Plan, *, apart: bool) -> Told:
        """Run a join, unless that was done."""
        job, folder, how = f"{self.kept.job}-{name}", self.kept.location.join(name), self.how
        return join(plan, (), folder, apart=apart, job=job, executor=how.executor, on_event=how.on_event)

    def lists(self, name: str, columns: Sequence[str] = ()) -> Iterator[Lists]:
        """Read the lists that a join has left."""
        return read(self.kept.location.join(name), columns)

    def write(self, target: PartedWrite, blocks: Iterator[dict[str, Any]]) -> None:
        """Write columns into the table of results, and commit them; only read them if that was done."""
        if target.done is None:
            target.commit([target.part(_batches(target.schema.to_arrow(), blocks))])
        else:
            for _ in blocks:
                pass


def _batches(schema: pa.Schema, blocks: Iterator[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([], schema=schema)  # there may be no block
    for block in blocks:
        table = pa.table([block[name] for name in schema.names], schema=schema)
        yield from table.combine_chunks().to_batches()
