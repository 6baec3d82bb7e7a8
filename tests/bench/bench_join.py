"""The kNN join, storage to result table, against Lance, LanceDB, Faiss and hnswlib, each at its own best partitions.

Peers find the same neighbours: each probes as few partitions as give its result the recall that is asked for.
"""

from __future__ import annotations

import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

import lake
from lake.join import JoinResult
from tests.bench.bench_append import rows_table
from tests.bench.harness import Line, sgemm
from tests.bench.join_peers import (
    RECALL,
    SAMPLE,
    K,
    Peer,
    faiss_join,
    hnsw_join,
    lance_batch,
    lancedb_batch,
    truth_of,
)
from tests.bench.vectors import Matrix, queries, vectors

_LISTS = (1024, 2048, 4096)


def run(folder: Path, rows: int) -> list[Line]:
    """Join a fifth as many left rows with `rows` right rows."""
    asked = np.concatenate([queries(), vectors(max(1, rows // 5 - len(queries())), seed=5)])
    base = vectors(rows)
    truth = truth_of(asked[:SAMPLE], base)
    lk = lake.connect(folder)
    left = lk.create_table("left", table_of(asked), key="id")
    right = lk.create_table("right", rows_table(rows), key="id")
    scale = f"{len(asked):,} x {rows:,} x {base.shape[1]}, k={K}, recall {RECALL}"
    mine: dict[int, tuple[Peer, JoinResult]] = {}
    lance: dict[int, Peer] = {}
    search: dict[int, Peer] = {}
    whole: dict[int, float] = {}
    for lists in _LISTS:
        table = _indexed(lk, right, lists)
        mine[lists] = _ours(left, table, truth)
        lance[lists] = lance_batch(table, asked, truth)
        search[lists], whole[lists] = faiss_join(base, asked, lists, truth)
        for name, peer in (("ours", mine[lists][0]), ("Lance", lance[lists]), ("Faiss", search[lists])):
            print(f"{lists} partitions, {name}: {peer.seconds:.1f} s, {peer.probes} probes", flush=True)
        shutil.rmtree(table.uri)
    ours, best = min(mine, key=lambda at: mine[at][0].seconds), min(lance, key=lambda at: lance[at].seconds)
    faiss, built = min(search, key=lambda at: search[at].seconds), min(whole, key=lambda at: whole[at])
    again = lancedb_batch(_indexed(lk, right, best), asked, truth, lance[best].probes)
    raw, unbuilt = _raw(left, right)
    peer, result = mine[ours]
    told = f"ours {ours} lists, {peer.probes} probes, recall {peer.recall:.3f}, {result.report.flop / 1e9:,.0f} GFLOP"
    lines = [
        _line(
            f"join {scale}: index to result table, against Lance's batch search",
            (peer.seconds, lance[best].seconds),
            6,
            f"{told}; Lance {best} lists, recall {lance[best].recall:.3f}",
        ),
        _line("the same, against LanceDB", (peer.seconds, again.seconds), None, f"recall {again.recall:.3f}"),
        _line(
            "the same, against Faiss big_batch_search, all in RAM, search only",
            (peer.seconds, search[faiss].seconds),
            1.0,
            f"Faiss {faiss} lists, recall {search[faiss].recall:.3f}",
        ),
        _line(
            "raw table to result, against Faiss train + add + big_batch_search in RAM",
            (unbuilt, whole[built]),
            1.3,
            f"ours {raw.report.partitions} lists, recall {_recall(raw, truth):.3f}; Faiss {built} lists",
        ),
    ]
    return [*lines, *_graph(lk, base, asked), _exact(lk, base)]


def _raw(left: lake.Table, right: lake.Table) -> tuple[JoinResult, float]:
    """Join with nothing built."""
    started = time.perf_counter()
    found = left.knn_join(right, K, metric="l2", recall=RECALL, right_column="vector", on_event=lambda _: None)
    return found, time.perf_counter() - started


def _line(what: str, seconds: tuple[float, float], bar: float | None, note: str) -> Line:
    ratio = seconds[1] / seconds[0]
    return Line(what, *seconds, "s", ratio, f">= {bar} x faster" if bar else "", bar is None or ratio >= bar, note)


def table_of(matrix: Matrix) -> pa.Table:
    """Make a table of vectors, by number."""
    held = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({"id": pa.array(np.arange(len(matrix))), "vector": held})


def _indexed(lk: lake.Lake, right: lake.Table, lists: int) -> lake.Table:
    shutil.copytree(right.uri, Path(lk.uri.removeprefix("file://")) / f"lists-{lists}.lance")
    table = lk.open_table(f"lists-{lists}")
    table.create_index("vector", "IVF_FLAT", metric="l2", partitions=lists)
    table.build(on_event=lambda _: None)
    return table


def _ours(left: lake.Table, right: lake.Table, truth: list[set[int]]) -> tuple[Peer, JoinResult]:
    """Find the probes first, as the peers do; then time the whole join."""
    known = left.knn_join(right, K, metric="l2", recall=RECALL, left_where=f"id < {SAMPLE}", on_event=lambda _: None)
    probes = known.report.probes or 1
    started = time.perf_counter()
    found = left.knn_join(right, K, metric="l2", nprobe=probes, on_event=lambda _: None)
    return Peer(time.perf_counter() - started, _recall(found, truth), probes), found


def _recall(found: JoinResult, truth: list[set[int]]) -> float:
    table = found.to_arrow()
    near: dict[int, set[int]] = {}
    for a, b in zip(table["left_id"].to_pylist(), table["right_id"].to_pylist(), strict=True):
        if a < len(truth):
            near.setdefault(a, set()).add(b)
    return sum(len(truth[a] & near[a]) for a in near) / (K * len(truth))


def _graph(lk: lake.Lake, base: Matrix, asked: Matrix) -> list[Line]:
    """Join a fifth of both sides with nothing built, against a graph, which takes long to build."""
    base, asked = base[: len(base) // 5], asked[: len(asked) // 5]
    truth = truth_of(asked[:SAMPLE], base)
    found = hnsw_join(base, asked, truth)
    if found is None:
        print("hnswlib is not installed: make bench-join does it, given a C++ compiler", flush=True)
        return []
    graph, whole = found
    raw, took = _raw(
        lk.create_table("graph-left", table_of(asked), key="id"),
        lk.create_table("graph-right", table_of(base), key="id"),
    )
    what = f"{len(asked):,} x {len(base):,}: raw table to result, against hnswlib in RAM, graph and search"
    theirs = f"hnswlib {version('hnswlib')} {graph.recall:.3f}, its search alone {graph.seconds:.1f} s"
    note = f"recall {_recall(raw, truth):.3f}; {theirs}"
    return [_line(what, (took, whole), None, note)]


def _exact(lk: lake.Lake, base: Matrix) -> Line:
    """Time an exact join against what the cores can multiply."""
    some = lk.create_table("exact-left", table_of(base[:20_000]), key="id")
    other = lk.create_table("exact-right", table_of(base[:200_000]), key="id")
    started = time.perf_counter()
    found = some.knn_join(other, K, metric="l2", recall=1.0, on_event=lambda _: None)
    took = time.perf_counter() - started
    peak = sgemm()
    mine = found.report.flop / took
    what = "exact join, 20,000 x 200,000, storage to result: share of sgemm's peak"
    return Line(what, mine / 1e9, peak, "GFLOP/s", mine / 1e9 / peak, ">= 0.85", mine / 1e9 / peak >= 0.85, "")
