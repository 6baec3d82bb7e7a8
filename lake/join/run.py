"""Running a join: partitions, a sample for the recall, the tasks that compare, one commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace

import numpy as np

from lake.join.comparison import Comparison, Done
from lake.join.conditions import number
from lake.join.partitioned import find_centroids, find_runs
from lake.join.plan import Cut
from lake.join.recall import Recall, reach
from lake.join.report import JoinReport
from lake.join.sampling import sample
from lake.join.stages import by_blocks, by_regions
from lake.join.tasks import JoinBlock
from lake.join.work import Work
from lake.join.workers import workers as workers_of
from lake.run import Executor, JobCommitted, TaskResult
from lake.table import pins


def run(work: Work) -> JoinReport:
    """Do what is left to do, and commit."""
    started = time.perf_counter()
    plan = work.plan
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        work.ledger()  # refuses a job of the same id that does something else
        for which, side in {
            plan.left.snapshot: ("left", plan.left),
            plan.right.snapshot: ("right", plan.right),
        }.values():
            stack.enter_context(pins.pin(side.snapshot, job=f"{work.job}-{which}"))
        workers = stack.enter_context(workers_of(work.executor, plan.flop, JoinBlock.__module__, hands=True))
        conditions = number(plan.left, plan.right, work.conditions, work.folder, apart=work.apart)
        what = Comparison(plan.left, plan.right, plan.k, plan.metric, plan.within, conditions, work.target, work.folder)
        recall = None
        if plan.source.how != "all":
            with lap(seconds, "partitions"):
                centroids = find_centroids(work, workers)
                what = replace(what, centroids=centroids, runs=find_runs(work, centroids, workers))
            what, recall = _probes(work, what, workers, seconds)
        with lap(seconds, "join"):
            cut = Cut(**work.keep("cut.json", **asdict(plan.cut(what.probes, what.ranges))))
            others: list[TaskResult[Done]] = []
            if cut.regions == 1:
                joined = by_blocks(work, what, cut, workers)
            else:
                joined, others = by_regions(work, what, cut, workers)
        receipts = [result.value for result in (*joined, *others)]
        if what.sample:
            measured = np.array(sorted(pair for r in receipts for pair in r.measured), np.int64).reshape(-1, 2)
            recall = Recall.of(None, what.probes, measured[:, 0], measured[:, 1])
        receipt = work.target.commit([r.part for r in receipts if r.part is not None])
        work.on_event(JobCommitted(work.job, receipt.version))
    work.ledger().clear()
    for r in receipts:
        for name, spent in r.seconds.items():
            seconds[f"tasks: {name}"] = seconds.get(f"tasks: {name}", 0.0) + spent
    seconds["total"] = time.perf_counter() - started
    left, right = plan.rows
    compared = sum(r.compared for r in receipts)
    return JoinReport(
        work.job,
        work.target.location.uri,
        receipt.version,
        left,
        right,
        sum(r.without for r in receipts),
        sum(r.part.rows for r in receipts if r.part is not None),
        compared,
        recall,
        plan.source.partitions,
        what.probes,
        plan.source.why,
        len(joined),
        sum(result.attempts == 0 for result in joined),
        2.0 * plan.left.dimension * compared,
        seconds,
        device=", ".join(sorted({r.device for r in receipts} - {""})) or "cpu",
        regions=cut.regions,
        met=1.0 if cut.regions == 1 else sum(result.value.counts[0] for result in joined) / left,
        read_bytes=sum(r.read_bytes for r in receipts),
        metric=plan.metric,
        k=plan.k,
        without_value=plan.without_value,
    )


def _probes(
    work: Work, what: Comparison, workers: Executor, seconds: dict[str, float]
) -> tuple[Comparison, Recall | None]:
    """Settle how many partitions each row looks into; learn it from a sample, where a recall was asked for.

    With a number given, what that is worth is measured by a sample while the partitions pass by.
    """
    plan = work.plan
    drawn = replace(what, sample=sample(plan.left, plan.left_rows))
    if plan.probes is not None:
        assert what.centroids is not None  # noqa: S101  there are partitions, of few vectors fewer than planned
        return replace(drawn, probes=min(plan.probes, what.centroids.count)), None
    with lap(seconds, "sample"):
        recall = reach(work, drawn, workers)
    return replace(what, probes=recall.probes), recall


@contextmanager
def lap(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Time a stage."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
