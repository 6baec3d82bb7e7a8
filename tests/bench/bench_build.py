"""Index builds, declared to built, against Lance's own ``create_index`` at equal recall; two workers against one."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt

import lake
from lake.run.local import THREAD_VARIABLES
from tests.bench.bench_append import in_fragments
from tests.bench.harness import Line, ratio, spread
from tests.bench.vectors import queries

_BAR = 1.5
_SCALING = 1.7
_PAIRS = 3
_NPROBE = 32
_SUB_VECTORS = 48
_PARTITION_ROWS = 244  # 2,048 partitions for 500,000 rows


def run(folder: Path, rows: int) -> list[Line]:
    """Build IVF_FLAT and IVF_PQ both ways over the same files."""
    partitions = max(16, rows // _PARTITION_ROWS)
    source = in_fragments(folder, rows)
    exact = _exact(source.dataset)
    lines = []
    for kind, refine in (("IVF_FLAT", None), ("IVF_PQ", 10)):
        pq = kind == "IVF_PQ"
        ours = _copy(folder, source, f"ours-{kind}")
        started = time.perf_counter()
        parameters: dict[str, Any] = {"sub_vectors": _SUB_VECTORS} if pq else {}
        ours.create_index("vector", kind, metric="l2", partitions=partitions, **parameters)
        ours.build()
        mine = time.perf_counter() - started
        theirs = _copy(folder, source, f"theirs-{kind}").dataset
        started = time.perf_counter()
        extra = {"num_sub_vectors": _SUB_VECTORS} if pq else {}
        theirs.create_index("vector", kind, metric="l2", num_partitions=partitions, **extra)
        other = time.perf_counter() - started
        recalls = [_recall(d, exact, refine) for d in (ours.dataset, lance.dataset(theirs.uri))]
        note = f"recall@10 at nprobe {_NPROBE}: {recalls[0]:.4f} against {recalls[1]:.4f}; {partitions} partitions"
        met = other / mine >= _BAR and recalls[0] >= recalls[1] - 0.005
        what = f"{kind}, {rows:,} x 384, declared to built, against create_index"
        lines.append(Line(what, mine, other, "s", other / mine, f">= {_BAR} x faster at equal recall", met, note))
    lines.append(_scaling(folder, source, partitions))
    return lines


_PROGRAM = """
import os, sys
# Lance's own threads heed no variable: what confines workers to a core each is the mask of the process.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[3])])
import lake
from lake.run import LocalExecutor, StageDone
if __name__ == "__main__":
    table = lake.connect(sys.argv[1]).open_table(sys.argv[2])
    stages = []
    def note(event):
        if isinstance(event, StageDone):
            stages.append(event.seconds)
    with LocalExecutor(workers=int(sys.argv[3])) as executor:
        table.build(executor=executor, on_event=note)
    print(stages[-1])
"""


def _scaling(folder: Path, source: lake.Table, partitions: int) -> Line:
    """Time the segment stage on one and on two workers of one core each, in turn."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for attempt in range(_PAIRS):
        for workers in (1, 2):
            name = f"workers-{workers}-{attempt}"
            table = _copy(folder, source, name)
            table.create_index("vector", "IVF_FLAT", metric="l2", partitions=partitions)
            os.sync()  # what the copy left to be written would be written during the build
            seconds[workers].append(_segment_stage(folder, name, workers))
            shutil.rmtree(table.uri)
    gain = ratio(seconds[1], seconds[2])
    what = "segment stage, 2 local workers against 1 (a worker is one core)"
    note = f"two {spread(seconds[2])}; one {spread(seconds[1])}"
    return Line(
        what,
        statistics.median(seconds[2]),
        statistics.median(seconds[1]),
        "s",
        gain,
        f">= {_SCALING} x",
        gain >= _SCALING,
        note,
    )


def _segment_stage(folder: Path, name: str, workers: int) -> float:
    one_core = dict.fromkeys(THREAD_VARIABLES, "1")
    command = [sys.executable, "-c", _PROGRAM, str(folder), name, str(workers)]
    done = subprocess.run(command, env={**os.environ, **one_core}, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _copy(folder: Path, source: lake.Table, name: str) -> lake.Table:
    shutil.copytree(source.uri, folder / f"{name}.lance")
    return lake.connect(folder).open_table(name)


def _exact(dataset: lance.LanceDataset) -> list[set[int]]:
    base = dataset.to_table(columns=["id", "vector"])
    ids = base["id"].to_numpy()
    matrix = base["vector"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    asked: npt.NDArray[np.float32] = queries()
    found = []
    for start in range(0, len(asked), 100):
        near = np.argpartition(-(asked[start : start + 100] @ matrix.T), 10, axis=1)[:, :10]
        found += [set(ids[row].tolist()) for row in near]
    return found


def _recall(dataset: lance.LanceDataset, exact: list[set[int]], refine: int | None) -> float:
    shares = []
    for query, truth in zip(queries(), exact, strict=True):
        nearest = {"column": "vector", "q": query, "k": 10, "nprobes": _NPROBE, "refine_factor": refine}
        got = dataset.to_table(nearest=nearest, columns=["id", "_distance"], disable_scoring_autoprojection=True)[
            "id"
        ].to_pylist()
        shares.append(len(truth & set(got)) / 10)
    return statistics.mean(shares)
