"""Ray: reading against its own Parquet reader, builds against local processes, and what a task costs."""

from __future__ import annotations

import logging
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lake
from lake.run import Executor, LocalExecutor, ignore
from tests.bench.bench_append import in_fragments
from tests.bench.harness import Line, empty_task, paired, ratio, spread
from tests.support.raycluster import RUNTIME_ENV, running

_READ_ROWS, _DIMENSION, _FILES = 1_000_000, 128, 8
_READ_BAR, _BUILD_BAR, _TASK_BAR = 0.6, 1.15, 5.0
_TASKS = 1_000
_RUNS = 3


def run(folder: Path, rows: int) -> list[Line]:
    """Start a cluster of two CPUs, and time everything on it."""
    import ray

    with running() as cluster:
        ray.init(cluster.address, runtime_env=RUNTIME_ENV, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            return [_read(folder), _build(folder, rows), _overhead()]
        finally:
            ray.shutdown()


def _sums(batch: pa.Table) -> pa.Table:
    """Compute something from every vector, as a user would."""
    flat = batch["vector"].combine_chunks().flatten().to_numpy()
    return pa.table({"id": batch["id"], "norm": np.linalg.norm(flat.reshape(batch.num_rows, -1), axis=1)})


def _read(folder: Path) -> Line:
    import ray

    import lake_ray

    flat = np.random.default_rng(0).standard_normal(_READ_ROWS * _DIMENSION, dtype=np.float32)
    data = pa.table(
        {"id": np.arange(_READ_ROWS), "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), _DIMENSION)}
    )
    step = _READ_ROWS // _FILES
    (folder / "parquet").mkdir()
    for i in range(_FILES):
        pq.write_table(data.slice(i * step, step), folder / "parquet" / f"{i}.parquet")
    table = lake.connect(folder).create_table("read", data.slice(0, step), key="id")
    for i in range(1, _FILES):
        table.append(data.slice(i * step, step))

    def total(ds: Any) -> float:
        mapped = ds.map_batches(_sums, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)
        return sum(float(np.sum(batch["norm"])) for batch in mapped.iter_batches(batch_size=None))

    ours, theirs = paired(
        lambda: total(lake_ray.read_lake(table.uri)),
        lambda: total(ray.data.read_parquet(str(folder / "parquet"))),
        _RUNS,
    )
    share = ratio(ours, theirs)
    return Line(
        f"read_lake + map_batches, {_READ_ROWS:,} x {_DIMENSION}, against read_parquet + the same map",
        statistics.median(ours),
        statistics.median(theirs),
        "s",
        share,
        f"<= {_READ_BAR} of its time",
        share <= _READ_BAR,
        f"ours {spread(ours)}; Parquet {spread(theirs)}",
    )


def _build(folder: Path, rows: int) -> Line:
    from lake_ray import RayExecutor

    source = in_fragments(folder, rows)

    def build(name: str, executor: Executor) -> None:
        shutil.rmtree(folder / f"{name}.lance", ignore_errors=True)
        shutil.copytree(source.uri, folder / f"{name}.lance")
        table = lake.connect(folder).open_table(name)
        table.create_index("vector", "IVF_FLAT", metric="l2", partitions=max(16, rows // 244))
        table.build(executor=executor, on_event=ignore)

    with LocalExecutor(2) as local:
        ours, theirs = paired(lambda: build("ray", RayExecutor()), lambda: build("local", local), _RUNS - 1)
    share = ratio(ours, theirs)
    return Line(
        f"IVF_FLAT build of {rows:,} x 384 on Ray, 2 CPUs, against LocalExecutor(2)",
        statistics.median(ours),
        statistics.median(theirs),
        "s",
        share,
        f"<= {_BUILD_BAR} of its time",
        share <= _BUILD_BAR,
        f"ours {spread(ours)}; local {spread(theirs)}",
    )


def _overhead() -> Line:
    from lake_ray import RayExecutor

    executor = RayExecutor()

    empty_task(executor, 10)
    each = statistics.median(empty_task(executor, _TASKS) for _ in range(_RUNS))
    with LocalExecutor(2) as local:
        empty_task(local, 10)
        theirs = empty_task(local, _TASKS)
    return Line(
        f"{_TASKS:,} empty tasks on Ray, beside LocalExecutor(2)",
        each,
        theirs,
        "ms a task",
        each / theirs,
        f"<= {_TASK_BAR} ms",
        each <= _TASK_BAR,
    )
