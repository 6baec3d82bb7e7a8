"""What may be handed to a write, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import lake
from lake.errors import InvalidInput
from lake.table import inputs
from lake.table.inputs import aligned, batches, check_columns, conform, infer

VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)
FLAT = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), 2)
TABLE = pa.table({"id": pa.array(range(6)), "name": list("abcdef"), "v": FLAT})
TARGET = TABLE.schema


def parquet(folder: Path, names: tuple[str, ...] = ("one",)) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.parquet" for name in names]
    rows = TABLE.num_rows // len(names)
    for i, path in enumerate(paths):
        pq.write_table(TABLE.slice(i * rows, rows), path)
    return paths


def generator(_: Path) -> Iterator[pa.RecordBatch]:
    yield from TABLE.to_batches(max_chunksize=4)


ACCEPTED: dict[str, Callable[[Path], Any]] = {
    "table": lambda _: TABLE,
    "batch": lambda _: TABLE.to_batches()[0],
    "reader": lambda _: TABLE.to_reader(max_chunksize=4),
    "dataset": lambda _: pads.dataset(TABLE),
    "scanner": lambda _: pads.dataset(TABLE).scanner(batch_size=4),
    "pandas": lambda _: TABLE.to_pandas(),
    "polars": lambda _: pl.from_arrow(TABLE),
    "polars lazy": lambda _: pl.DataFrame(pl.from_arrow(TABLE)).lazy(),
    "columns": lambda _: {"id": list(range(6)), "name": list("abcdef"), "v": VECTORS.astype(np.float64)},
    "columns of arrow": lambda _: {name: TABLE[name] for name in TABLE.column_names},
    "rows": lambda _: TABLE.to_pylist(),
    "generator of batches": generator,
    "list of tables": lambda _: [TABLE.slice(0, 2), TABLE.slice(2)],
    "generator of readers": lambda _: (TABLE.slice(i, 3).to_reader() for i in (0, 3)),
    "parquet file": lambda folder: parquet(folder)[0],
    "parquet file by name": lambda folder: str(parquet(folder)[0]),
    "parquet folder": lambda folder: parquet(folder / "f", ("a", "b"))[0].parent,
    "list of parquet files": lambda folder: parquet(folder, ("a", "b")),
    "duckdb": lambda _: duckdb.connect().from_arrow(TABLE),
}


def read(data: Any) -> pa.Table:
    given, stream = batches(data)
    check_columns(given, TARGET)
    return pa.Table.from_batches([conform(batch, TARGET, 0) for batch in stream], TARGET)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_every_kind_of_input_holds_the_same_rows(kind: str, tmp_path: Path) -> None:
    assert read(ACCEPTED[kind](tmp_path)).equals(TABLE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (7, "cannot read rows from int"),
        (None, "cannot read rows from NoneType"),
        ([], "empty and has no schema"),
        (iter([]), "empty and has no schema"),
        (({"id": i} for i in range(3)), "a generator of dicts"),
        ([1, 2], "cannot read rows from int"),
        ("/no/such.parquet", "no file or folder '/no/such.parquet'"),
        ({"id": [1, 2], "name": ["a"]}, "differ in length"),
        ({"id": [1, "a"]}, "column 'id'"),
    ],
)
def test_what_holds_no_rows_is_refused(data: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        batches(data)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(InvalidInput, match="as Parquet"):
        batches(path)


def test_large_batches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BATCH_BYTES", 1000)
    data = pa.table({"x": np.arange(10_000)})
    parts = list(batches(data)[1])
    assert pa.Table.from_batches(parts).equals(data)
    assert max(part.nbytes for part in parts) <= 1000


def cast(values: Any, kind: pa.DataType) -> pa.Array:
    batch = pa.record_batch({"c": values if isinstance(values, pa.Array) else pa.array(values)})
    return conform(batch, pa.schema([("c", kind)]), 0).column(0)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pa.array([1, 2], pa.int64()), pa.int8(), [1, 2]),
        (pa.array([1.0, 2.0]), pa.int32(), [1, 2]),
        (pa.array(["a", None], pa.large_string()), pa.string(), ["a", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"]),
        (pa.array([[1.0, 2.0], None]), pa.list_(pa.float32(), 2), [[1.0, 2.0], None]),
        (pa.array([[1, 2], [3, 4]]), pa.list_(pa.float32(), 2), [[1.0, 2.0], [3.0, 4.0]]),
        (pa.array([[[1.0, 2.0]], []]), pa.list_(pa.list_(pa.float32(), 2)), [[[1.0, 2.0]], []]),
        (pa.array([None, None]), pa.int64(), [None, None]),
        (pa.array(['{"a": 1}']), pa.json_(), ['{"a": 1}']),
    ],
)
def test_casts_without_loss(values: pa.Array, kind: pa.DataType, expected: list[Any]) -> None:
    assert cast(values, kind).to_pylist() == expected


def test_vectors_of_a_slice_are_its_own() -> None:
    rows = pa.array([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]).slice(1)
    assert cast(rows, pa.list_(pa.float32(), 2)).to_pylist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([300], pa.int8(), "column 'c': cannot cast int64 to int8"),
        ([1.5], pa.int64(), "without loss"),
        (["x"], pa.int64(), "cannot cast string to int64"),
        ([[1.0, 2.0], [1.0]], pa.list_(pa.float32(), 2), "row 1: the vector has 1 dimensions, not 2"),
        (pa.array([[1.0]] * 2, pa.list_(pa.float32(), 1)), pa.list_(pa.float32(), 2), "1 dimensions, not 2"),
    ],
)
def test_casts_that_would_lose_are_refused(values: Any, kind: pa.DataType, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        cast(values, kind)


def test_missing_nullable_columns_become_null_and_order_does_not_matter() -> None:
    batch = pa.record_batch({"b": [1], "a": [2]})
    target = pa.schema([("a", pa.int64()), ("new", pa.string()), ("b", pa.int64())])
    assert conform(batch, target, 0).to_pylist() == [{"a": 2, "new": None, "b": 1}]


@pytest.mark.parametrize(
    ("names", "why"),
    [(["a", "x"], r"no columns \['x'\]"), (["a", "a"], "more than once"), (["b"], "not nullable and missing")],
)
def test_columns_that_do_not_fit_are_refused(names: list[str], why: str) -> None:
    target = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.int64())])
    with pytest.raises(InvalidInput, match=why):
        check_columns(pa.schema([(n, pa.int64()) for n in names]), target)


def test_infer_chooses_what_the_lake_stores() -> None:
    data = {
        "vector": [[1.0, 2.0], [3.0, 4.0]],
        "wide": np.ones((2, 3)),
        "tags": [["a"], ["b", "c"]],
        "ragged": [[1.0], [1.0, 2.0]],
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "text": pa.array(["x", "y"], pa.large_string()),
        "half": pa.array(np.ones(4, np.float16)).cast(pa.float16()).slice(0, 2),
    }
    schema, reader = infer(data)
    assert {f.name: f.type for f in schema} == {
        "vector": pa.list_(pa.float32(), 2),
        "wide": pa.list_(pa.float32(), 3),
        "tags": pa.list_(pa.string()),
        "ragged": pa.list_(pa.float64()),
        "kind": pa.string(),
        "text": pa.string(),
        "half": pa.float16(),
    }
    assert reader.read_all().num_rows == 2


def test_infer_gives_back_every_row() -> None:
    parts = [pa.record_batch({"x": [i]}) for i in range(5)]
    _, reader = infer(iter(parts))
    assert reader.read_all()["x"].to_pylist() == list(range(5))


def test_row_labels_without_a_name_are_no_column() -> None:
    frame = pd.DataFrame({"id": range(6)})
    given, stream = batches(frame[frame.id > 3])
    assert given.names == ["id"]
    assert pa.Table.from_batches(stream)["id"].to_pylist() == [4, 5]
    assert batches(frame.set_index("id").assign(x=1))[0].names == ["x", "id"]


def test_a_frame_of_mixed_objects_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot read the DataFrame"):
        batches(pd.DataFrame({"x": [1, "a"]}))


def test_values_that_are_not_aligned_are_copied(tmp_path: Path) -> None:
    """Lance panics at decimals that do not lie at a multiple of sixteen bytes."""
    whole = pa.array([Decimal(i) for i in range(50)], pa.decimal128(9, 2))
    memory = pa.allocate_buffer(whole.buffers()[1].size + 8)
    memoryview(memory).cast("B")[8:] = memoryview(whole.buffers()[1]).cast("B")
    shifted = pa.Array.from_buffers(whole.type, len(whole), [None, memory.slice(8)])
    assert shifted.buffers()[1].address % 16 == 8
    nested = pa.ListArray.from_arrays(list(range(51)), shifted)
    batch = pa.record_batch({"id": range(50), "price": shifted, "prices": nested})
    assert aligned(batch).equals(batch)
    assert all(b is None or b.address % 16 == 0 for c in aligned(batch).columns[1:] for b in c.buffers()[-1:])
    table = lake.connect(tmp_path).create_table("t", batch.schema, key="id")
    table.append(batch)
    assert table.to_arrow()["price"].to_pylist() == whole.to_pylist()
