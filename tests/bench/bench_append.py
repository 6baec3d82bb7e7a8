"""Append of rows with vectors against Lance's own write of the same batches."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

import lake
from tests.bench.harness import Line, paired, ratio, spread
from tests.bench.vectors import vectors

_RUNS = 5
_BAR = 0.9


def rows_table(rows: int, first: int = 0) -> pa.Table:
    """Make rows of eight scalar columns and one vector of 384; their ids count from `first`."""
    rng = np.random.default_rng(first)
    columns: dict[str, pa.Array] = {"id": pa.array(np.arange(first, first + rows))}
    columns |= {f"real{i}": pa.array(rng.standard_normal(rows)) for i in range(3)}
    columns |= {f"whole{i}": pa.array(rng.integers(0, 1000, rows)) for i in range(2)}
    columns["name"] = pa.array([f"name {i}" for i in range(rows)])
    columns["kind"] = pa.array([f"kind{i % 50}" for i in range(rows)])
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors(rows, seed=first).ravel()), 384)
    return pa.table(columns)


def in_fragments(folder: Path, rows: int, fragments: int = 8) -> lake.Table:
    """Make a table of those rows as loads leave one: in fragments, of which a segment is built."""
    loaded, step = rows_table(rows), -(-rows // fragments)
    table = lake.connect(folder).create_table("source", loaded.slice(0, step), key="id")
    for start in range(step, rows, step):
        table.append(loaded.slice(start, step))
    return table


def run(folder: Path, rows: int) -> list[Line]:
    """Time appends in turn; the disk's cache is flushed before each."""
    plain = rows_table(rows)
    schema = lake.Schema.from_arrow(plain.schema, key="id", embeddings={"vector": lake.Embedding(384, metric="cosine")})
    table = plain.cast(schema.to_arrow())
    chunks = table.to_batches(max_chunksize=16_384)
    ours = lake.connect(folder).create_table("ours", schema)
    for name in ("whole", "batches"):
        lance.write_dataset(table.schema.empty_table(), str(folder / name), enable_stable_row_ids=True)

    def flush() -> None:
        os.sync()
        time.sleep(0.5)

    def theirs_whole() -> None:
        lance.write_dataset(table, str(folder / "whole"), mode="append")

    def theirs_batches() -> None:
        reader = pa.RecordBatchReader.from_batches(table.schema, iter(chunks))
        lance.write_dataset(reader, str(folder / "batches"), mode="append")

    lines = []
    for what, theirs in (("one table", theirs_whole), ("a stream of batches", theirs_batches)):
        whole = theirs is theirs_whole

        def append(*, whole: bool = whole) -> None:
            ours.append(table if whole else iter(chunks))

        a, b = paired(append, theirs, _RUNS, flush)
        share = ratio(b, a)
        lines.append(
            Line(
                f"append {rows:,} x 384 + 8 columns, {what}, against lance.write_dataset",
                rows / statistics.median(a),
                rows / statistics.median(b),
                "rows/s",
                share,
                f">= {_BAR} of its throughput",
                share >= _BAR,
                f"ours {spread(a)}; Lance {spread(b)}",
            )
        )
    return lines
