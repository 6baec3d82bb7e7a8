"""The kinds of jobs: what each is told, and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from lake.analytics import DedupReport, calibrate_new, dedup
from lake.errors import LakeError
from lake.etl import Load, LoadReport, load
from lake.etl.spec import Names, Spec
from lake.handle import Table
from lake.index import BuildReport
from lake.job.clusters import Cluster, Drift
from lake.job.common import Analysis, Common, Run
from lake.job.neighbours import Classify, KnnJoin, Mine, Outliers
from lake.job.report import UpkeepReport
from lake.storage import Location
from lake.table.compact import Compacted
from lake.table.expire import Expiry


class Etl(Load, Common):
    """Bring rows of files, of a table or of an engine into a table; see `lake.etl`."""

    job: Literal["etl"]

    def run(self, run: Run) -> LoadReport:
        """Do it."""
        root = Location.of(self.lake, self.storage_options)
        spec = Load(**{name: getattr(self, name) for name in Load.model_fields})
        return load(root, spec, executor=run.engine, job_id=run.job_id, on_event=run.on_event)


class Index(Spec):
    """An index to declare; see `lake.Table.create_index`."""

    column: str
    kind: str = "auto"
    metric: str | None = None
    name: str | None = None
    parameters: Mapping[str, Any] = Field(default_factory=dict)


class BuildIndex(Common):
    """Declare indexes, and bring what is declared up to date.

    Parameters
    ----------
    table : str
    indexes : list of Index
        Declared if they are not yet. Indexes that were declared before are built too.
    calibrate : bool
        Measure the recall of those indexes of float vectors that were built or extended, or never measured; see
        `lake.Table.calibrate`.
    """

    job: Literal["build_index"]
    table: str
    indexes: tuple[Index, ...] = ()
    calibrate: bool = False

    def run(self, run: Run) -> BuildReport:
        """Do it."""
        table = self.open().open_table(self.table)
        for index in self.indexes:
            table.create_index(index.column, index.kind, metric=index.metric, name=index.name, **index.parameters)
        report = table.build(executor=run.engine, job_id=run.job_id, on_event=run.on_event)
        if not self.calibrate:
            return report
        changed = {index.name for index in report.indexes if index.segments}
        measured = calibrate_new(table.snapshot(), changed, executor=run.engine, on_event=run.on_event)
        return replace(report, calibrations=measured)


class Expire(Spec):
    """Which versions go; see `lake.Table.expire`."""

    days: Annotated[float, Field(gt=0)] = 14.0
    keep: Annotated[int, Field(ge=1)] = 1


class Compact(Common):
    """Rewrite small fragments, and remove old versions, of some tables or all.

    It is safe to run again: what is compact stays as it is, and what was interrupted goes on.

    Parameters
    ----------
    tables : list of str, optional
        All by default.
    target_rows, deleted, memory_bytes
        As `lake.Table.compact` takes them.
    expire : Expire, optional
        Nothing is removed without it.
    """

    job: Literal["compact"]
    tables: Names = ()
    target_rows: Annotated[int, Field(ge=1)] = 1 << 20
    deleted: Annotated[float, Field(ge=0, le=1)] = 0.1
    memory_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    expire: Expire | None = None

    def run(self, run: Run) -> UpkeepReport:
        """Do it; a table that fails does not hold up the others, and its error is raised in the end."""
        lk = self.open()
        done: dict[str, tuple[Compacted, Expiry | None]] = {}
        failed: LakeError | None = None
        for name in self.tables or lk.list_tables():
            try:
                done[name] = self._one(lk.open_table(name), run)
            except LakeError as error:
                error.add_note(f"table {name!r}; done: {', '.join(done) or 'none'}")
                failed = failed or error
        if failed is not None:
            raise failed
        return UpkeepReport(run.job_id, done)

    def _one(self, table: Table, run: Run) -> tuple[Compacted, Expiry | None]:
        expiry = None
        if self.expire is not None:  # first, since other writers can keep a compaction from its end
            expiry = table.expire(timedelta(days=self.expire.days), keep=self.expire.keep, dry_run=False)
        compacted = table.compact(
            target_rows=self.target_rows,
            deleted=self.deleted,
            memory_bytes=self.memory_bytes,
            executor=run.engine,
            job_id=run.job_id,
            on_event=run.on_event,
        )
        return compacted, expiry


class Dedup(Analysis):
    """Find near duplicates, and keep one row of each group; see `lake.dedup`.

    Parameters
    ----------
    table : str
    within, k, column, where, keep, metric, recall, memory, into, delete, dry_run
        As `lake.dedup` takes them.
    """

    job: Literal["dedup"]
    within: float
    k: int = 10
    column: str | None = None
    where: str | None = None
    keep: str = "first"
    metric: str | None = None
    recall: float = 0.95
    into: str | None = None
    delete: bool = False
    dry_run: bool = True

    def run(self, run: Run) -> DedupReport:
        """Do it."""
        return dedup(self.open().open_table(self.table), **self.asked(run))


Job = Etl | BuildIndex | Compact | KnnJoin | Dedup | Outliers | Classify | Mine | Cluster | Drift
KINDS: dict[str, type[Job]] = {
    "etl": Etl,
    "build_index": BuildIndex,
    "compact": Compact,
    "knn_join": KnnJoin,
    "dedup": Dedup,
    "outliers": Outliers,
    "classify": Classify,
    "mine": Mine,
    "cluster": Cluster,
    "drift": Drift,
}
