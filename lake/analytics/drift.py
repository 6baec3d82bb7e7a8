"""`drift`: whether, and where, two sets of vectors differ."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, replace

from lake.analytics.drifted import DriftReport
from lake.analytics.drifting import Asked, all_of
from lake.analytics.growth import CountBlock
from lake.errors import InvalidInput, LakeError
from lake.index.jobs import job_folder
from lake.join.api import HasSnapshot
from lake.join.folder import JobFolder
from lake.join.workers import workers
from lake.run import Callback, Executor, listening
from lake.run.task import job_name
from lake.table import pins
from lake.table.snapshot import Snapshot


def drift(
    before: HasSnapshot | Snapshot,
    after: HasSnapshot | Snapshot,
    *,
    column: str | None = None,
    where: str | None = None,
    before_where: str | None = None,
    after_where: str | None = None,
    metric: str | None = None,
    label: str | None = None,
    clusters: int = 20,
    k: int = 10,
    sample: int = 2000,
    permutations: int = 999,
    alpha: float = 0.01,
    seed: int = 0,
    executor: str | Executor = "local",
    memory: int | str = "1GiB",
    job_id: str | None = None,
    on_event: Callback | None = None,
) -> DriftReport:
    """Tell whether two sets of vectors differ, and which topics grew or shrank.

    Three statistics are computed on a sample of each side, and compared with what they are when rows are dealt out to
    the sides by chance: the shift of the centroid, MMD, and the share of neighbours of the same side. Then all rows
    are counted by the centroids of both samples.

    Rows are taken for independent of each other: near duplicates make chance look smaller than it is. Rows that two
    versions of a table share are dealt out to the samples, so that none stands in both. All rows are counted on both
    sides, so a cluster is said to grow only if it would be without that.

    Parameters
    ----------
    before, after : Table or Snapshot
        Two tables, two versions of one (`lake.Table.at`), or one table twice with different filters.
    column : str, optional
        The vectors, of the same name on both sides.
    where, before_where, after_where : str, optional
        SQL: which rows are compared; of both sides, and of one.
    metric : {"l2", "cosine", "dot"}, optional
        The column's own by default. Under cosine, vectors are scaled to length one.
    label : str, optional
        A column that names clusters by its commonest value; by default the keys of the rows nearest the centroid do.
    clusters : int
        Centroids by which rows are counted.
    k : int
        Neighbours of each row of the samples.
    sample : int
        Rows of each side that the three statistics are computed on.
    permutations : int
        How often rows are dealt out by chance: no p is smaller than 1 / (permutations + 1).
    alpha : float
        What is found is called drift if chance alone makes as much, anywhere in the report, less often than this.
    seed : int
    executor : str or Executor
        Where all rows are counted: ``"local"``, ``"ray"``, ``"spark"``.
    memory : int or str
        What each worker may hold; the driver holds both samples, and 16 bytes for each of their rows and permutations.
    job_id : str, optional
        The same id resumes a job that was interrupted, and tells again what it told after it was done.
    on_event : callable, optional
        Gets progress events; by default a live view is drawn on a terminal.

    Raises
    ------
    InvalidInput
        Sides of different dimensions; fewer vectors than the statistics need; NaN; a zero vector under cosine; a job
        of that id did something else.
    """
    started = time.monotonic()
    for side in (before, after):
        if not isinstance(side, HasSnapshot | Snapshot):
            raise InvalidInput(f"drift: give tables or snapshots, not {type(side).__name__}")
    given = [side if isinstance(side, Snapshot) else side.snapshot() for side in (before, after)]
    job = job_name("drift", job_id)
    filters = (all_of(given[0], where, before_where), all_of(given[1], where, after_where))
    asked = Asked(column, filters, metric, label, clusters, k, sample, permutations, alpha, seed)
    kept = JobFolder(job, "drift", job_folder(given[1].location, job))
    snapshots = kept.begun(asdict(asked), given)
    known = kept.report()
    if known is not None:
        return replace(DriftReport.of(known), seconds=time.monotonic() - started, repeated=True)
    plan = asked.check(snapshots, memory, kept)
    try:
        with ExitStack() as stack:
            listen = stack.enter_context(listening(on_event))
            engine = stack.enter_context(workers(executor, plan.flop, CountBlock.__module__))
            for which, one in zip(("before", "after"), snapshots, strict=True):
                stack.enter_context(pins.pin(one, job=f"{job}-{which}"))
            drawn = plan.draw()
            kept.note(asdict(asked), snapshots)
            report = plan.run(drawn, engine, listen)
    except LakeError:
        if job_id is None:  # nobody can go on with it
            kept.clear()
        raise
    report = replace(report, seconds=time.monotonic() - started)
    kept.close(report.to_dict(), taken_up=job_id is not None)
    return report
