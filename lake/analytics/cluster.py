"""`cluster`: k-means at scale, and each row's cluster as a column."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

from lake.analytics.clustering import Asked
from lake.analytics.lloyd import AssignBlock
from lake.analytics.sizes import ClusterReport
from lake.errors import InvalidInput, LakeError
from lake.index.jobs import job_folder
from lake.join.api import HasSnapshot
from lake.join.folder import JobFolder
from lake.join.workers import workers
from lake.run import Callback, Executor, JobCommitted, listening
from lake.run.task import job_name
from lake.table import pins
from lake.table.snapshot import Snapshot


def cluster(
    table: HasSnapshot | Snapshot,
    clusters: int,
    *,
    column: str | None = None,
    where: str | None = None,
    metric: str | None = None,
    balanced: bool | float = False,
    into_column: str = "cluster",
    arrange: bool | int = False,
    rounds: int = 20,
    seed: int = 0,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> ClusterReport:
    """Cluster a table's vectors by k-means, and write each row's cluster into a column.

    Lloyd's rounds over all rows begin with the centroids of a sample, and end when less than 0.1% of the rows change
    their cluster. The same seed gives the same clusters, wherever tasks run.

    Parameters
    ----------
    table : Table or Snapshot
        The version that is read is the one that is labelled: rows that are appended or changed meanwhile have null, as
        have rows without a vector, and those that the filter leaves out.
    clusters : int
    column : str, optional
        The vectors, where a table has several.
    where : str, optional
        SQL: only rows that pass are clustered.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default. Under cosine and dot, clusters are by angle.
    balanced : bool or float
        Bound the largest cluster: no more rows than this multiple of the mean, at least 1; ``True`` means 1.25.
        Clusters that are too large grow dearer by the round, and the rows that are over the bound in the end are
        moved to the nearest cluster that has room. The bound holds exactly, for the version that is read.
    into_column : str
        Whole numbers from 0. The column is made, in one commit, or filled anew if an earlier clustering made it.
    arrange : bool or int
        Then rewrite the table, in one more commit, in the order of the clusters: a cluster shares its fragment only
        with whole neighbours, unless it has more rows than a fragment is to hold, 262,144 or the number given. The
        rows are new ones to `lake.Table.changes`; indexes stay declared, and are to be built again. Joins with the
        table then take the clusters for their partitions, as long as no ``IVF_FLAT`` index covers the rows, and that
        is less to compare than to sort them.
    rounds : int
        At most.
    seed : int
    executor : str or Executor
        Where tasks run: ``"local"``, ``"ray"``, ``"spark"``.
    memory : int or str
        What each worker may hold, whatever the table's size. The driver holds 48 bytes for each row, and the sample.
    job_id : str, optional
        The same id resumes a job that was interrupted, and does nothing after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        More clusters than vectors; a bound below 1; NaN or infinity in a vector; a zero vector under cosine; a job of
        that id did something else.
    AlreadyExists
        The table has a column of that name that no clustering made.
    NotSupported
        Row ids do not stay with their rows, or rows with blobs are to be rewritten.
    MemoryExceeded
        `memory` is too little for so many clusters of such vectors.
    """
    started = time.monotonic()
    if not isinstance(table, HasSnapshot | Snapshot):
        raise InvalidInput(f"cluster: give a table or a snapshot, not {type(table).__name__}")
    snapshot = table if isinstance(table, Snapshot) else table.snapshot()
    job = job_name("cluster", job_id)
    asked = Asked(clusters, column, where, metric, balanced, into_column, arrange, rounds, seed)
    kept = JobFolder(job, "cluster", job_folder(snapshot.location, job))
    [snapshot] = kept.begun(asdict(asked), [snapshot])
    known = kept.report()
    if known is not None:
        done = ClusterReport(**known | {"sizes": tuple(known["sizes"]), "repeated": True})
        return replace(done, seconds=time.monotonic() - started)
    plan = asked.check(snapshot, memory, kept)
    try:
        with (
            listening(on_event) as listen,
            workers(executor, plan.flop, AssignBlock.__module__) as engine,
            pins.pin(snapshot, job=job),
        ):
            sample = None if plan.rounds.started else plan.sample()
            kept.note(asdict(asked), [snapshot])
            if sample is not None:
                plan.rounds.start(sample)
            report = plan.run(engine, listen)
            listen(JobCommitted(job, report.arranged_version or report.labelled_version))
    except LakeError:
        if job_id is None:  # nobody can go on with it
            kept.clear()
        raise
    report = replace(report, seconds=time.monotonic() - started)
    kept.close(report.to_dict(), taken_up=job_id is not None)
    return report
