"""`dedup`: rows within a radius of each other, linked into groups, one of each kept."""

from __future__ import annotations

import time
from dataclasses import replace

from lake.analytics.near import Search
from lake.analytics.report import DedupReport
from lake.analytics.work import Asked, Work
from lake.errors import InvalidInput, LakeError
from lake.join.api import HasSnapshot
from lake.join.workers import abreast
from lake.run import Callback, Executor
from lake.run.task import job_name
from lake.table.snapshot import Snapshot


def dedup(
    table: HasSnapshot | Snapshot,
    *,
    within: float,
    k: int = 10,
    column: str | None = None,
    where: str | None = None,
    keep: str = "first",
    metric: str | None = None,
    recall: float = 0.95,
    into: str | None = None,
    delete: bool = False,
    dry_run: bool = True,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> DedupReport:
    """Find exact and near duplicates, and keep one row of each group.

    Two rows are near if their distance is less than `within`; rows that are linked by near ones form a group, so rows
    at its ends may be farther from each other. Rows without a vector belong to no group.

    Parameters
    ----------
    table : Table or Snapshot
    within : float
        In the column's metric: squared l2, 1 - cosine, 1 - dot.
    k : int
        Neighbours that a join looks at for each row, 1 to 1,000. Rows that have more are joined again until no link
        can be lacking: groups do not depend on it.
    column : str, optional
        The vectors, where a table has several.
    where : str, optional
        SQL: only rows that pass are compared, and deleted.
    keep : str
        The row of each group that is kept: ``"first"`` or ``"last"`` that came into the table, or the first in an
        order of columns such as ``"time desc, name"``. Nulls come last, ties go by key.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default.
    recall : float
        As `lake.knn_join` takes it; 1.0 compares every pair.
    into : str, optional
        Write the groups into a new table of this name: row id, key, key of the row kept (``group_<key>``), size,
        distance to the row kept, and whether it is the one.
    delete : bool
        Delete the other rows of each group.
    dry_run : bool
        Only tell how many rows that were. The same `job_id` with ``dry_run=False`` then deletes just these.
    executor, memory
        As `lake.knn_join` takes them. The driver holds 16 bytes for each pair of near rows.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        A rule, a column or a radius that makes no sense; NaN or infinity in a vector; a zero vector under cosine;
        a job of that id did something else.
    AlreadyExists
        There is a table of the name `into`.
    NotSupported
        Rows are to be deleted from a table whose row ids do not stay with their rows.
    """
    started = time.monotonic()
    if not isinstance(table, HasSnapshot | Snapshot):
        raise InvalidInput(f"dedup: give a table or a snapshot, not {type(table).__name__}")
    snapshot = table if isinstance(table, Snapshot) else table.snapshot()
    job = job_name("dedup", job_id)
    work = Work.of(job, snapshot, Asked(within, k, column, where, keep, metric, recall, into))
    search = Search(within, k, metric, recall, memory, abreast(executor), job, work.folder, executor, on_event)
    known = work.report()
    deletes = delete and not dry_run and (known is None or known.deleted is None)
    report = known if known is not None and work.written else None
    if report is not None and not deletes:
        return replace(report, seconds=time.monotonic() - started, repeated=True)
    if report is None:
        try:
            report = replace(work.find(search), seconds=time.monotonic() - started)
        except LakeError:
            if job_id is None:  # nobody can go on with it
                work.clear(all_of_it=True, deleted=False)
            raise
        if known is not None:  # its table of groups was dropped, and is made again
            report = replace(report, deleted=known.deleted, spared=known.spared, deleted_version=known.deleted_version)
        work.finish(report)
    if deletes:
        report = replace(work.delete(report), seconds=time.monotonic() - started)
        work.finish(report)
    work.clear(all_of_it=job_id is None and not (delete and dry_run), deleted=report.deleted is not None)
    return report
