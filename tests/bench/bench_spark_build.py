"""Spark: builds against local processes, and what a task costs, on a standalone cluster of two one-core workers."""

from __future__ import annotations

import os
import shutil
import statistics
from pathlib import Path

import lake
from lake.run import Executor, LocalExecutor, ignore
from tests.bench.bench_append import in_fragments
from tests.bench.harness import Line, empty_task, paired, ratio, spread
from tests.support.spark import classic, standalone

_BUILD_BAR, _TASK_BAR = 1.15, 5.0
_TASKS, _RUNS = 1_000, 3


def run(folder: Path, rows: int) -> list[Line]:
    """Start the cluster and a session, and time everything on it."""
    from lake_spark import SparkExecutor

    (folder / "cluster").mkdir()
    with standalone(folder / "cluster") as cluster, classic(folder / "warehouse", cluster.url) as session:
        executor = SparkExecutor(session)
        with LocalExecutor(2) as local:
            return [_overhead(executor, local), _build(folder, rows, executor, local)]


def _build(folder: Path, rows: int, executor: Executor, local: Executor) -> Line:
    source = in_fragments(folder, rows)

    def build(name: str, executor: Executor) -> None:
        table = lake.connect(folder).open_table(name)
        table.create_index("vector", "IVF_FLAT", metric="l2", partitions=max(16, rows // 244))
        table.build(executor=executor, on_event=ignore)

    def copies() -> None:
        for name in ("spark", "local"):
            shutil.rmtree(folder / f"{name}.lance", ignore_errors=True)
            shutil.copytree(source.uri, folder / f"{name}.lance")
        os.sync()  # or the builds wait for the copies to be written

    copies()
    build("spark", executor)  # workers load their modules
    build("local", local)
    ours, theirs = paired(lambda: build("spark", executor), lambda: build("local", local), _RUNS, copies)
    share = ratio(ours, theirs)
    return Line(
        f"IVF_FLAT build of {rows:,} x 384 on Spark, 2 cores, against LocalExecutor(2)",
        statistics.median(ours),
        statistics.median(theirs),
        "s",
        share,
        f"<= {_BUILD_BAR} of its time",
        share <= _BUILD_BAR,
        f"ours {spread(ours)}; local {spread(theirs)}",
    )


def _overhead(executor: Executor, local: Executor) -> Line:
    for each in (executor, local):
        empty_task(each, 100)
    ours = [empty_task(executor, _TASKS) for _ in range(_RUNS)]
    theirs = [empty_task(local, _TASKS) for _ in range(_RUNS)]
    middle, other = statistics.median(ours), statistics.median(theirs)
    return Line(
        f"{_TASKS:,} empty tasks on Spark, beside LocalExecutor(2)",
        middle,
        other,
        "ms a task",
        middle / other,
        f"<= {_TASK_BAR} ms",
        middle <= _TASK_BAR,
        f"{min(ours):.2f} to {max(ours):.2f} ms",
    )
