"""The kNN join, storage to result table, against Lance's batch search and Faiss, each at its own best partitions.

Peers find the same neighbours: each probes as few partitions as give its result the recall that is asked for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from faiss.contrib.big_batch_search import big_batch_search
from lance.dataset import ScannerBuilder

import lake
from lake.join import JoinResult
from lake.join.kernel import Nearest
from lake.run import LocalExecutor
from tests.bench.bench_append import rows_table
from tests.bench.harness import Line, sgemm
from tests.bench.vectors import Matrix, queries, vectors

K = 10
RECALL = 0.945
_LISTS = (1024, 2048, 4096)
_LANCE_QUERIES = 4000  # it answers query by query, so its time grows with their number
_SAMPLE = 1000


def run(folder: Path, rows: int) -> list[Line]:
    """Join a fifth as many left rows with `rows` right rows."""
    asked = np.concatenate([queries(), vectors(max(1, rows // 5 - len(queries())), seed=5)])
    base = vectors(rows)
    truth = truth_of(asked[:_SAMPLE], base)
    lk = lake.connect(folder)
    left = lk.create_table("left", table_of(asked), key="id")
    right = lk.create_table("right", rows_table(rows), key="id")
    scale = f"{len(asked):,} x {rows:,} x {base.shape[1]}, k={K}, recall {RECALL}"
    mine: dict[int, tuple[float, float, JoinResult]] = {}
    lance: dict[int, tuple[float, float]] = {}
    search: dict[int, tuple[float, float]] = {}
    whole: dict[int, float] = {}
    for lists in _LISTS:
        table = _indexed(lk, right, lists)
        mine[lists] = _ours(left, table, truth)
        lance[lists] = _lance(table, asked, truth)
        search[lists], whole[lists] = _faiss(base, asked, lists, truth)
        for name, took in (("ours", mine[lists][0]), ("Lance", lance[lists][0]), ("Faiss", search[lists][0])):
            print(f"{lists} partitions, {name}: {took:.1f} s", flush=True)
        shutil.rmtree(table.uri)
    started = time.perf_counter()
    raw = left.knn_join(
        right, K, metric="l2", recall=RECALL, right_column="vector", into="raw", on_event=lambda _: None
    )
    unbuilt = time.perf_counter() - started
    a = min(mine, key=lambda lists: mine[lists][0])
    b = min(lance, key=lambda lists: lance[lists][0])
    c = min(search, key=lambda lists: search[lists][0])
    d = min(whole, key=lambda lists: whole[lists])
    best, reached, result = mine[a]
    told = f"ours {a} lists, {result.report.probes} probes, recall {reached:.3f}, {result.report.flop / 1e9:,.0f} GFLOP"
    lines = [
        _line(
            f"join {scale}: index to result table, against Lance's batch search",
            (best, lance[b][0]),
            6,
            f"{told}; Lance {b} lists, recall {lance[b][1]:.3f}",
        ),
        _line(
            "the same, against Faiss big_batch_search, all in RAM, search only",
            (best, search[c][0]),
            1.0,
            f"Faiss {c} lists, recall {search[c][1]:.3f}",
        ),
        _line(
            "raw table to result, against Faiss train + add + big_batch_search in RAM",
            (unbuilt, whole[d]),
            1.3,
            f"ours {raw.report.partitions} lists, recall {_recall(raw, truth):.3f}; Faiss {d} lists",
        ),
    ]
    return [*lines, _exact(lk, base)]


def _line(what: str, seconds: tuple[float, float], bar: float, note: str) -> Line:
    ratio = seconds[1] / seconds[0]
    return Line(what, *seconds, "s", ratio, f">= {bar} x faster", ratio >= bar, note)


def table_of(matrix: Matrix) -> pa.Table:
    """Make a table of vectors, by number."""
    held = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({"id": pa.array(np.arange(len(matrix))), "vector": held})


def truth_of(asked: Matrix, base: Matrix) -> list[set[int]]:
    """Find the true neighbours by brute force."""
    return [set(line) for line in faiss.knn(asked, base, K)[1].tolist()]


def _indexed(lk: lake.Lake, right: lake.Table, lists: int) -> lake.Table:
    shutil.copytree(right.uri, Path(lk.uri.removeprefix("file://")) / f"lists-{lists}.lance")
    table = lk.open_table(f"lists-{lists}")
    table.create_index("vector", "IVF_FLAT", metric="l2", partitions=lists)
    table.build(on_event=lambda _: None)
    return table


def _ours(left: lake.Table, right: lake.Table, truth: list[set[int]]) -> tuple[float, float, JoinResult]:
    """Find the probes first, as the peers do; then time the whole join, on as many workers as there are cores."""
    known = left.knn_join(right, K, metric="l2", recall=RECALL, left_where=f"id < {_SAMPLE}", on_event=lambda _: None)
    started = time.perf_counter()
    found = left.knn_join(right, K, metric="l2", nprobe=known.report.probes or 1, on_event=lambda _: None)
    return time.perf_counter() - started, _recall(found, truth), found


def _recall(found: JoinResult, truth: list[set[int]]) -> float:
    table = found.to_arrow()
    near: dict[int, set[int]] = {}
    for a, b in zip(table["left_id"].to_pylist(), table["right_id"].to_pylist(), strict=True):
        if a < len(truth):
            near.setdefault(a, set()).add(b)
    return sum(len(truth[a] & near[a]) for a in near) / (K * len(truth))


def fewest(recall: Callable[[int], float]) -> int:
    """Find the fewest probes that reach the recall."""
    low, high = 1, 256
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= RECALL else (middle + 1, high)
    return low


def hits(found: list[list[int]], truth: list[set[int]]) -> float:
    """Tell the recall."""
    return sum(len(truth[at] & set(line)) for at, line in enumerate(found)) / (K * len(truth))


def _lance(right: lake.Table, asked: Matrix, truth: list[set[int]]) -> tuple[float, float]:
    dataset = right.dataset

    def search(some: Matrix, probes: int) -> list[list[int]]:
        offsets = pa.array(np.arange(len(some) + 1, dtype=np.int32) * some.shape[1])
        builder = ScannerBuilder(dataset).columns(["id"])
        builder.nearest("vector", some[0], K, minimum_nprobes=probes, maximum_nprobes=probes)
        # pylance has no argument for many queries over plain vectors; Lance reads each partition once for all of them.
        builder._nearest["q"] = pa.ListArray.from_arrays(offsets, pa.array(some.ravel()))
        found = builder.disable_scoring_autoprojection().to_scanner().to_table()
        order = found["query_index"].to_numpy()
        ids: list[list[int]] = [[] for _ in some]
        for at, row in zip(order.tolist(), found["id"].to_pylist(), strict=True):
            ids[at].append(row)
        return ids

    probes = fewest(lambda n: hits(search(asked[:_SAMPLE], n), truth))
    recall = hits(search(asked[:_SAMPLE], probes), truth)
    some = asked[:_LANCE_QUERIES]
    started = time.perf_counter()
    search(some, probes)
    return (time.perf_counter() - started) * len(asked) / len(some), recall


def _faiss(base: Matrix, asked: Matrix, lists: int, truth: list[set[int]]) -> tuple[tuple[float, float], float]:
    started = time.perf_counter()
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(base.shape[1]), base.shape[1], lists)
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 64
    index.train(base)
    index.add(base)
    ready = time.perf_counter() - started

    def reached(probes: int) -> float:
        index.nprobe = probes
        return hits(index.search(asked[:_SAMPLE], K)[1].tolist(), truth)

    index.nprobe = fewest(reached)
    recall = reached(index.nprobe)
    took = big_batch(index, asked)
    return (took, recall), ready + took


def big_batch(index: faiss.IndexIVFFlat, asked: Matrix) -> float:
    """Time Faiss' own join, in whichever of its ways is the fastest for a fifth of the queries.

    With threads of its own it hands `faiss.knn` an argument that this does not take, so it is given one that does.
    """
    ways: list[dict[str, Any]] = [
        {"method": "knn_function", "threaded": 1},
        {"method": "knn_function", "threaded": 2, "computation_threads": 2},
        {"method": "pairwise_distances"},
        {"method": "index"},
    ]

    def join(some: Matrix, way: dict[str, Any]) -> float:
        started = time.perf_counter()
        big_batch_search(index, some, K, knn=_knn, verbose=1, **way)
        return time.perf_counter() - started

    tried = [join(asked[: len(asked) // 5], way) for way in ways]
    return join(asked, ways[int(np.argmin(tried))])


def _knn(asked: Matrix, rows: Matrix, k: int, *, metric: int, thread_id: int = 0) -> Any:
    return faiss.knn(asked, rows, k, metric=metric)


def _exact(lk: lake.Lake, base: Matrix) -> Line:
    """Time an exact join of one worker per core against what the cores can multiply."""
    some = lk.create_table("exact-left", table_of(base[:20_000]), key="id")
    other = lk.create_table("exact-right", table_of(base[:200_000]), key="id")
    with LocalExecutor() as executor:
        executor.start(Nearest.__module__)
        started = time.perf_counter()
        found = some.knn_join(other, K, metric="l2", recall=1.0, executor=executor, on_event=lambda _: None)
        took = time.perf_counter() - started
    peak = sgemm()
    mine = found.report.flop / took
    what = "exact join, 20,000 x 200,000, storage to result: share of sgemm's peak"
    return Line(what, mine / 1e9, peak, "GFLOP/s", mine / 1e9 / peak, ">= 0.85", mine / 1e9 / peak >= 0.85, "")
