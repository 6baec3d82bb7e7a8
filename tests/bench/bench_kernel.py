"""The join's kernel in RAM: against Faiss over the same partitions, and against what the cores multiply."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lake.index.kmeans import kmeans, nearest
from lake.join.route import route
from lake.nearest.device import kernel
from tests.bench.harness import Line, sgemm
from tests.bench.join_peers import K, big_batch, fewest, hits, truth_of
from tests.bench.vectors import Matrix, queries, vectors

_THREADS = 2
_PARTITION_ROWS = 244
_SAMPLE, _SOME = 1000, 10_000
_BATCH_BAR, _SEARCH_BAR, _PEAK_BAR = 1.4, 5.0, 0.65


@dataclass
class _Partitioned:
    """Rows in the order of their partitions."""

    centroids: Matrix
    rows: Matrix
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]


def run(_folder: Path, rows: int) -> list[Line]:
    """Join a fifth as many queries with `rows` rows."""
    asked = np.concatenate([queries(), vectors(max(1, rows // 5 - len(queries())), seed=5)])
    base = vectors(rows)
    held = _partition(base, max(16, rows // _PARTITION_ROWS))
    index = _faiss(base, held.centroids)
    truth = truth_of(asked[:_SAMPLE], base)

    def reached(probes: int) -> float:
        index.nprobe = probes
        return hits(index.search(asked[:_SAMPLE], K)[1].tolist(), truth)

    index.nprobe = fewest(reached)
    recall = reached(index.nprobe)
    _ours(held, asked[:_SAMPLE], index.nprobe)  # compiles
    peak = sgemm(_THREADS)
    whole, compare, flop, found = _ours(held, asked, index.nprobe)
    assert abs(hits(found[:_SAMPLE], truth) - recall) < 0.005, "the same partitions give the same neighbours"
    batch = big_batch(index, asked)
    started = time.perf_counter()
    index.search(asked[:_SOME], K)
    search = (time.perf_counter() - started) * len(asked) / min(_SOME, len(asked))
    peak = (peak + sgemm(_THREADS)) / 2
    share = flop / compare / 1e9 / peak
    scale = f"kernel in RAM, {len(asked):,} x {rows:,} x {base.shape[1]}, k={K}"
    probers = len(asked) * index.nprobe // len(held.centroids)
    note = f"{len(held.centroids):,} partitions, {index.nprobe} probes, recall {recall:.3f}"
    return [
        Line(
            f"{scale}, against big_batch_search",
            whole,
            batch,
            "s",
            batch / whole,
            f">= {_BATCH_BAR} x faster",
            batch / whole >= _BATCH_BAR,
            note,
        ),
        Line(
            f"{scale}, against IVFFlat.search",
            whole,
            search,
            "s",
            search / whole,
            f">= {_SEARCH_BAR} x faster",
            search / whole >= _SEARCH_BAR,
            note,
        ),
        Line(
            "its comparisons: share of sgemm's peak",
            flop / compare / 1e9,
            peak,
            "GFLOP/s",
            share,
            f">= {_PEAK_BAR}",
            share >= _PEAK_BAR,
            f"{probers:,} queries a partition",
        ),
    ]


def _partition(base: Matrix, partitions: int) -> _Partitioned:
    rng = np.random.default_rng(0)
    centroids = kmeans(base[rng.permutation(len(base))[: 64 * partitions]], partitions, rng)
    assigned = nearest(base, centroids)
    order = np.argsort(assigned, kind="stable")
    counts = np.bincount(assigned, minlength=partitions)
    return _Partitioned(centroids, base[order], order, np.append(0, np.cumsum(counts)))


def _faiss(base: Matrix, centroids: Matrix) -> faiss.IndexIVFFlat:
    quantizer = faiss.IndexFlatL2(base.shape[1])
    quantizer.add(centroids)
    index = faiss.IndexIVFFlat(quantizer, base.shape[1], len(centroids))  # keeps a reference to the quantizer
    index.is_trained = True
    index.add(base)
    return index


def _ours(held: _Partitioned, asked: Matrix, probes: int) -> tuple[float, float, float, list[list[int]]]:
    """Join with one thread for each half of the queries; return seconds, those of comparing, FLOP, and neighbours."""
    halves = np.array_split(asked, _THREADS)
    started = time.perf_counter()
    with threadpool_limits(1), ThreadPoolExecutor(_THREADS) as pool:
        done = list(pool.map(lambda half: _half(held, half, probes), halves))
    seconds = time.perf_counter() - started
    neighbours = [line for ids, _, _ in done for line in ids.tolist()]
    return seconds, max(spent for _, spent, _ in done), float(sum(flop for _, _, flop in done)), neighbours


def _half(held: _Partitioned, asked: Matrix, probes: int) -> tuple[NDArray[np.int64], float, float]:
    routes = route(asked, held.centroids, "l2", probes)
    order = np.argsort(routes[:, 0], kind="stable")
    asked, routes = asked[order], routes[order]
    started = time.perf_counter()
    found = kernel(asked, K, "l2")
    probers = np.argsort(routes.ravel(), kind="stable") // probes
    counts = np.bincount(routes.ravel(), minlength=len(held.centroids))
    ends, flop = np.cumsum(counts), 0.0
    for partition in np.flatnonzero(counts):
        part = slice(held.starts[partition], held.starts[partition + 1])
        which = probers[ends[partition] - counts[partition] : ends[partition]]
        some = found.prepare(held.rows[part], held.ids[part], len(which))
        found.meet(which.astype(np.int32), some)
        flop += 2.0 * len(which) * (part.stop - part.start) * asked.shape[1]
    found.sort()
    return found.ids[np.argsort(order)], time.perf_counter() - started, flop
