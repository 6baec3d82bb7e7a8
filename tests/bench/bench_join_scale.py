"""The join on more workers, of larger tables, and within its memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import psutil

import lake
from lake.join.plan import Plan
from lake.join.report import JoinReport
from lake.run import ignore
from lake.run.local import THREAD_VARIABLES, cpus
from tests.bench.bench_append import rows_table
from tests.bench.bench_join import table_of
from tests.bench.harness import Line, ratio, sgemm, spread
from tests.bench.join_peers import RECALL, K
from tests.bench.vectors import vectors
from tests.support.wide import Wide

_PARTITION_ROWS = 244
_WORKERS_BAR, _MEMORY_BAR = 1.7, 1.3
_MEMORY_ROWS = 2_000_000  # 3 GB of vectors
_PAIRS = 5
_MANY = 32  # workers


def run(folder: Path, rows: int) -> list[Line]:
    """Join a fifth as many left rows with `rows` right rows, and 20,000 with a quarter to twice as many."""
    lk = lake.connect(folder)
    lk.create_table("left", table_of(vectors(rows // 5, seed=5)), key="id")
    few = lk.create_table("few", table_of(vectors(min(20_000, rows // 5), seed=6)), key="id")
    costs: list[tuple[int, float, float]] = []
    lines: list[Line] = []
    for size in (rows // 4, rows // 2, rows, 2 * rows):
        right = _indexed(lk, size)
        # The first join of a process compiles.
        few.knn_join(right, K, metric="l2", nprobe=4, left_where="id < 2000", right_column="vector", on_event=ignore)
        started = time.perf_counter()
        found = few.knn_join(right, K, metric="l2", recall=RECALL, right_column="vector", on_event=ignore)
        recall = found.report.recall
        assert recall is not None
        costs.append((size, (time.perf_counter() - started) * 1e6 / len(few), recall.measured))
        if size == rows:
            lines += [*_workers(folder, rows), _regions(lk, right)]
        shutil.rmtree(right.uri)
    told = ", ".join(f"{size:,}: {cost:.0f} ({recall:.3f})" for size, cost, recall in costs)
    (small, first, _), (large, last, _) = costs[0], costs[-1]
    growth = last / first
    lines.append(
        Line(
            f"microseconds a query at recall {RECALL}, {large:,} rows against {small:,}",
            last,
            first,
            "us",
            growth,
            f"< {large / small:.0f}",
            growth < large / small,
            f"rows: us a query (recall) {told}",
        )
    )
    return [*lines, _memory(folder, 4 * rows)]


def _indexed(lk: lake.Lake, rows: int) -> lake.Table:
    table = lk.create_table("right", rows_table(rows), key="id")
    table.create_index("vector", "IVF_FLAT", metric="l2", partitions=max(16, rows // _PARTITION_ROWS))
    table.build(on_event=ignore)
    return table


_WORKERS = """
import multiprocessing
import os
import sys
import time

import lake
from lake.join.tasks import JoinBlock
from lake.run import LocalExecutor, ignore

if __name__ == "__main__":
    workers, cores = int(sys.argv[2]), [int(core) for core in sys.argv[3].split(",")]
    own = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, [own[core] for core in cores])  # of all threads and workers to come
    lk = lake.connect(sys.argv[1])
    left, right = lk.open_table("left"), lk.open_table("right")
    times = []
    with LocalExecutor(workers) as executor:
        executor.start(JoinBlock.__module__)
        if sys.argv[4] == "held":
            for worker, core in zip(multiprocessing.active_children(), cores):
                os.sched_setaffinity(worker.pid, [own[core]])
        for _ in range(6):  # the first ones compile, and touch memory that the system has not given before
            started = time.perf_counter()
            left.knn_join(
                right, 10, metric="l2", nprobe=16, right_column="vector", executor=executor, on_event=ignore
            )
            times.append(time.perf_counter() - started)
    print(min(times))
"""


def _workers(folder: Path, rows: int) -> list[Line]:
    """Time two workers of one thread against one; each has what it needs before, and a core that it keeps."""
    program = folder / "workers.py"
    program.write_text(_WORKERS)

    def begin(workers: int, cores: str, way: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(program), str(folder), str(workers), cores, way]
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def join(*ways: tuple[int, str, str]) -> float:
        """Run them at once; return the time of the slowest."""
        begun = [begin(*way) for way in ways]
        times = [float(process.communicate()[0]) for process in begun]
        assert not any(process.returncode for process in begun)
        return max(times)

    asked = {
        "one": [(1, "0", "held")],
        "two": [(2, "0,1", "held")],
        "free": [(2, "0,1", "free")],
        "helped": [(1, "0,1", "free")],
        "apart": [(1, "0", "held"), (1, "1", "held")],
    }
    times: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(_PAIRS):
        for name, ways in asked.items():
            times[name].append(join(*ways))
    one, two, free, helped = (min(times[name]) for name in ("one", "two", "free", "helped"))
    what = f"join of {rows // 5:,} x {rows:,}: 2 workers of one thread, a core each, against 1"
    faster = {name: ratio(times["one"], times[name]) for name in ("two", "free", "apart")}
    note = (
        f"2 workers {spread(times['two'])}; 1 worker {spread(times['one'])}; the best of each: {one / two:.2f}; "
        f"two such joins at once, a core each, do {2 * faster['apart']:.2f} times what one does; "
        f"sgemm: {sgemm(2):.0f} GFLOP/s with two threads, {sgemm(1):.0f} with one"
    )
    bar = f">= {_WORKERS_BAR} x faster"
    return [
        Line(what, two, one, "s", faster["two"], bar, faster["two"] >= _WORKERS_BAR, note),
        Line("the same, 2 workers that the system moves between cores", free, one, "s", faster["free"], "", True, ""),
        Line(
            "the same against 1 whose reading has the other core",
            two,
            helped,
            "s",
            ratio(times["helped"], times["two"]),
            "",
            True,
        ),
    ]


def _regions(lk: lake.Lake, right: lake.Table) -> Line:
    """Add up the time of all tasks, cut for many workers: by regions of partitions, and by blocks of the left side."""
    left = lk.open_table("left")

    def join() -> tuple[float, JoinReport]:
        report = left.knn_join(
            right, K, metric="l2", nprobe=16, right_column="vector", executor=Wide(_MANY), on_event=ignore
        ).report
        return sum(spent for name, spent in report.seconds.items() if name.startswith("tasks: ")), report

    ours, told = join()
    with patch.object(Plan, "regions", 1):
        theirs, other = join()
    assert (told.regions > 1, other.regions) == (True, 1)
    return Line(
        f"all tasks of that join cut for {_MANY} workers, by {told.regions} regions, against by {other.tasks} blocks",
        ours,
        theirs,
        "s",
        theirs / ours,
        "",
        True,
        f"a row of the left side was sent to {told.met:.1f} regions; this process has {cpus()} threads",
    )


_PROGRAM = """
import hashlib
import sys
import lake
from lake.run import LocalExecutor, ignore

if __name__ == "__main__":
    lk = lake.connect(sys.argv[1])
    with LocalExecutor(2) as executor:
        done = lk.open_table("left").knn_join(
            lk.open_table("large"), 10, metric="l2", nprobe=16, right_column="vector", memory=sys.argv[2],
            executor=executor, on_event=ignore,
        )
        rows = done.to_arrow().sort_by([("left_id", "ascending"), ("rank", "ascending")]).combine_chunks()
        digest = hashlib.sha256()
        for column in rows.columns:
            digest.update(column.to_numpy())
        print(digest.hexdigest(), done.report)
"""


def _memory(folder: Path, rows: int) -> Line:
    """Watch the workers of a join whose right side, which no index covers, is larger than they may be."""
    rows = min(_MEMORY_ROWS, rows)
    large, step = lake.connect(folder), 250_000
    table = large.create_table("large", rows_table(min(step, rows)), key="id")
    for start in range(step, rows, step):
        part = rows_table(min(step, rows - start), first=start)
        table.append(part)
    program = folder / "program.py"
    program.write_text(_PROGRAM)
    (peak, digest, told), (unbound, other, _) = _joined(program, folder, "1GiB"), _joined(program, folder, "8GiB")
    assert digest == other, "the bound changes no row"
    what = f"peak memory of a worker, {4 * 384 * rows / 1e9:.1f} GB not indexed, memory='1GiB'; same rows as with 8GiB"
    return Line(what, peak, unbound, "GiB", peak, f"<= {_MEMORY_BAR} GiB", peak <= _MEMORY_BAR, told)


def _joined(program: Path, folder: Path, memory: str) -> tuple[float, str, str]:
    """Run the join; return the peak of a worker in GiB, a digest of the rows, and what the report says."""
    command = [sys.executable, str(program), str(folder), memory]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with _watched(process.pid) as peaks:
        told, _ = process.communicate()
    assert process.returncode == 0
    digest, _, report = told.strip().partition(" ")
    return max(peaks.values()) / 2**30, digest, report


@contextmanager
def _watched(pid: int) -> Iterator[dict[int, int]]:
    """Take note of the largest memory, without shared pages of files, of each child process."""
    peaks: dict[int, int] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            with suppress(psutil.NoSuchProcess):  # it ended, or one of its children
                for child in psutil.Process(pid).children(recursive=True):
                    peaks[child.pid] = max(peaks.get(child.pid, 0), child.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()
