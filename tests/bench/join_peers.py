"""What a user would join with instead, each given as many probes, or as wide a beam, as the recall asks for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import faiss
import lancedb
import numpy as np
import pyarrow as pa
from faiss.contrib.big_batch_search import big_batch_search
from lance.dataset import ScannerBuilder

import lake
from tests.bench.vectors import Matrix

K = 10
RECALL = 0.945
SAMPLE = 1000
_SOME = 4000  # Lance answers query by query, so its time grows with their number
_FEW = 500


@dataclass(frozen=True)
class Peer:
    """How long a peer took, in seconds; its recall; its probes, or its beam."""

    seconds: float
    recall: float
    probes: int


def truth_of(asked: Matrix, base: Matrix) -> list[set[int]]:
    """Find the true neighbours by brute force."""
    return [set(line) for line in faiss.knn(asked, base, K)[1].tolist()]


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


def lance_batch(right: lake.Table, asked: Matrix, truth: list[set[int]]) -> Peer:
    """Time Lance's own search for many queries at once, which `pylance` has no argument for."""
    dataset = right.dataset

    def search(some: Matrix, probes: int) -> list[list[int]]:
        offsets = pa.array(np.arange(len(some) + 1, dtype=np.int32) * some.shape[1])
        builder = ScannerBuilder(dataset).columns(["id"])
        builder.nearest("vector", some[0], K, minimum_nprobes=probes, maximum_nprobes=probes)
        # Lance reads each partition once for all of them.
        builder._nearest["q"] = pa.ListArray.from_arrays(offsets, pa.array(some.ravel()))
        found = builder.disable_scoring_autoprojection().to_scanner().to_table()
        order = found["query_index"].to_numpy()
        ids: list[list[int]] = [[] for _ in some]
        for at, row in zip(order.tolist(), found["id"].to_pylist(), strict=True):
            ids[at].append(row)
        return ids

    probes = fewest(lambda n: hits(search(asked[:SAMPLE], n), truth))
    recall = hits(search(asked[:SAMPLE], probes), truth)
    some = asked[:_SOME]
    started = time.perf_counter()
    search(some, probes)
    return Peer((time.perf_counter() - started) * len(asked) / len(some), recall, probes)


def lancedb_batch(right: lake.Table, asked: Matrix, truth: list[set[int]], probes: int) -> Peer:
    """Time a LanceDB search of several queries, over the same files and with the same probes as Lance."""
    folder, _, name = right.uri.removeprefix("file://").removesuffix(".lance").rpartition("/")
    table = lancedb.connect(folder).open_table(name)
    some = asked[:_FEW]
    started = time.perf_counter()
    found = table.search(list(some)).limit(K).nprobes(probes).select(["id", "_distance"]).to_arrow()
    took = time.perf_counter() - started
    near: list[list[int]] = [[] for _ in some]
    for at, row in zip(found["query_index"].to_pylist(), found["id"].to_pylist(), strict=True):
        near[at].append(row)
    return Peer(took * len(asked) / len(some), hits(near, truth[: len(some)]), probes)


def hnsw_join(base: Matrix, asked: Matrix, truth: list[set[int]]) -> tuple[Peer, float] | None:
    """Time hnswlib's search alone, and with the building of its graph; nothing where it is not installed."""
    if find_spec("hnswlib") is None:
        return None
    import hnswlib

    started = time.perf_counter()
    graph = hnswlib.Index("l2", base.shape[1])
    graph.init_index(len(base), M=16, ef_construction=200, random_seed=1)
    graph.add_items(base, num_threads=len(os.sched_getaffinity(0)))
    ready = time.perf_counter() - started

    def reached(beam: int) -> float:
        graph.set_ef(max(K, beam))
        return hits(graph.knn_query(asked[:SAMPLE], K)[0].tolist(), truth)

    beam = fewest(reached)
    recall = reached(beam)
    started = time.perf_counter()
    graph.knn_query(asked, K, num_threads=len(os.sched_getaffinity(0)))
    took = time.perf_counter() - started
    return Peer(took, recall, beam), ready + took


def faiss_join(base: Matrix, asked: Matrix, lists: int, truth: list[set[int]]) -> tuple[Peer, float]:
    """Time the search alone, and with all that comes before it."""
    started = time.perf_counter()
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(base.shape[1]), base.shape[1], lists)
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 64
    index.train(base)
    index.add(base)
    ready = time.perf_counter() - started

    def reached(probes: int) -> float:
        index.nprobe = probes
        return hits(index.search(asked[:SAMPLE], K)[1].tolist(), truth)

    index.nprobe = fewest(reached)
    recall = reached(index.nprobe)
    took = big_batch(index, asked)
    return Peer(took, recall, index.nprobe), ready + took


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
