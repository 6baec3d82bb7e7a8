"""Spark's scans and writes of lake tables against its own of Parquet, over the same rows."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lake
import lake_spark
from tests.bench.harness import Line, paired, spread
from tests.support.spark import classic

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_RUNS = 3
_ROWS = 1_000_000
_DIMENSION = 128
_FILES = 8
_SCAN, _SCAN_ID, _WRITE = 1.8, 2.5, 3.0
# As connectors/README.md advises: Spark's own conversion of rows to Arrow is most of what a write costs.
_CONF = {
    "spark.driver.extraJavaOptions": "-Darrow.enable_unsafe_memory_access=true -Darrow.enable_null_check_for_get=false"
}


def run(folder: Path, rows: int) -> list[Line]:
    """Scan into nothing, and write; a million rows however many the other benchmarks take."""
    rows = min(_ROWS, 2 * rows)
    parquet, table = folder / "parquet", folder / "lake" / "rows.lance"
    _fill(parquet, folder / "lake", rows)
    with classic(folder / "warehouse", conf=_CONF) as spark:
        lake_spark.register(spark)

        def ours(**options: str) -> DataFrame:
            return spark.read.format("lake").options(**options).load(str(table))

        def theirs() -> DataFrame:
            return spark.read.parquet(str(parquet))

        def scan(frame: DataFrame) -> Callable[[], None]:
            return lambda: frame.write.format("noop").mode("overwrite").save()

        def write(kind: str, name: str) -> None:
            shutil.rmtree(folder / name, ignore_errors=True)
            made = theirs().write.format(kind).mode("append")
            made.options(**({"embedding.v": str(_DIMENSION)} if kind == "lake" else {})).save(str(folder / name))

        what = f"{rows:,} x {_DIMENSION}"
        loads = " and ".join(f"{_seconds(load):.2f} s" for load in (ours, theirs))
        return [
            _slower(f"Spark scans {what}", scan(ours()), scan(theirs()), _SCAN, f"before, load took {loads}"),
            _slower(f"Spark scans ids of {what}", scan(ours(columns="id")), scan(theirs().select("id")), _SCAN_ID),
            _faster(
                f"Spark writes {what}, from parquet",
                lambda: write("lake", "out.lance"),
                lambda: write("parquet", "out.parquet"),
            ),
        ]


def _slower(what: str, ours: Callable[[], object], theirs: Callable[[], object], bar: float, more: str = "") -> Line:
    a, b = _timed(ours, theirs)
    share = statistics.median(a) / statistics.median(b)
    note = "; ".join(part for part in (f"ours {spread(a)}", f"parquet {spread(b)}", more) if part)
    bound = f"<= {bar}x of parquet"
    return Line(what, statistics.median(a), statistics.median(b), "s", share, bound, share <= bar, note)


def _seconds(act: Callable[[], object]) -> float:
    act()  # the JVM compiles
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _faster(what: str, ours: Callable[[], object], theirs: Callable[[], object]) -> Line:
    a, b = _timed(ours, theirs)
    share = statistics.median(b) / statistics.median(a)
    note = f"ours {spread(a)}; parquet {spread(b)}"
    bound = f">= {_WRITE}x faster"
    return Line(what, statistics.median(a), statistics.median(b), "s", share, bound, share >= _WRITE, note)


def _timed(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[list[float], list[float]]:
    ours(), theirs()  # the JVM compiles, workers start
    return paired(ours, theirs, _RUNS)


def _fill(parquet: Path, root: Path, rows: int) -> None:
    flat = np.random.default_rng(0).standard_normal(rows * _DIMENSION, np.float32)  # nothing is searched
    table = pa.table({"id": np.arange(rows), "v": pa.FixedSizeListArray.from_arrays(pa.array(flat), _DIMENSION)})
    parquet.mkdir()
    for at in range(_FILES):
        part = table.slice(rows * at // _FILES, rows * (at + 1) // _FILES - rows * at // _FILES)
        pq.write_table(part, parquet / f"{at}.parquet", compression="snappy")
    lake.connect(root).create_table("rows", table, key="id")
