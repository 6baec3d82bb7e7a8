"""A search against the raw Lance call, same index, same parameters, same columns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import lake
from tests.bench.bench_append import rows_table
from tests.bench.harness import Line
from tests.bench.vectors import queries

_RUNS = 400
_FACTOR, _MORE = 1.15, 0.3e-3


def run(folder: Path, rows: int) -> list[Line]:
    """Interleave single searches of both, with and without a filter."""
    table = lake.connect(folder).create_table("rows", rows_table(rows), key="id")
    table.create_index("vector", "ivf_flat", metric="l2", partitions=max(16, rows // 500))
    table.create_index("kind", "bitmap")
    table.build()
    dataset, asked = table.dataset, queries()
    lines = []
    for what, where in (("vector", None), ("vector, filter on an indexed column", "kind = 'kind7'")):

        def ours(at: int, where: str | None = where) -> object:
            return table.search(vector=asked[at], k=10, nprobe=16, where=where, columns=["id", "name"])

        def theirs(at: int, where: str | None = where) -> object:
            return dataset.to_table(
                nearest={"column": "vector", "q": asked[at], "k": 10, "minimum_nprobes": 16, "metric": "l2"},
                columns=["id", "name", "_distance"],
                filter=where,
                prefilter=True,
                disable_scoring_autoprojection=True,
            )

        a, b = _interleaved(ours, theirs)
        allowed = b * _FACTOR + _MORE
        lines.append(
            Line(
                f"p50 of search: {what}",
                a * 1e3,
                b * 1e3,
                "ms",
                a / b,
                f"<= {_FACTOR} x Lance + 0.3 ms = {allowed * 1e3:.2f} ms",
                a <= allowed,
                f"{rows:,} rows, IVF_FLAT, nprobe 16",
            )
        )
    return lines


def _interleaved(ours: Callable[[int], object], theirs: Callable[[int], object]) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(-20, _RUNS):
        for at, act in enumerate((ours, theirs) if run % 2 else (theirs, ours)):
            started = time.perf_counter()
            act(run % 1000)
            if run >= 0:
                times[at if run % 2 else 1 - at].append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])
