"""Vectors read where they lie against the matrix that was written, and against what Lance reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lance.file import LanceFileReader, LanceFileWriter

import lake
from lake.errors import CorruptTable, StorageError
from lake.join import inplace
from lake.join.inplace import InPlace
from lake.join.plan import Plan
from lake.join.runs import Run, RunReader, write_run
from lake.join.side import Side
from lake.join.source import segment_file
from lake.run import LocalExecutor
from lake.storage import Location

ROWS, DIMENSION = 20_000, 384


def find(file: Location, column: str = "vector") -> InPlace | None:
    return InPlace.find(file, LanceFileReader(file.uri).metadata(), column)


def read(there: InPlace, first: int, count: int) -> np.ndarray:
    found = np.full((count, there.dimension), np.nan, np.float32)
    there.read(first, found)
    return found


def written(folder: Path, kind: pa.DataType, rows: list[Any], **options: str) -> Location:
    file = Location.of(folder / "some.lance")
    batch = pa.record_batch({"_rowid": pa.array(range(len(rows)), pa.uint64()), "vector": pa.array(rows, kind)})
    with LanceFileWriter(file.uri, batch.schema, **options) as writer:
        writer.write_batch(batch)
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Location, np.ndarray]:
    file = Location.of(tmp_path_factory.mktemp("runs") / "run.lance")
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIMENSION), np.float32)
    write_run(file, np.arange(ROWS)[::-1], vectors, np.array([ROWS - 5, 0, 5]))
    return file, vectors


@pytest.fixture(scope="module")
def paged(run: tuple[Location, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Location:
    """The same vectors as they come in batches, which Lance puts into several pages."""
    file = Location.of(tmp_path_factory.mktemp("paged") / "paged.lance")
    with LanceFileWriter(file.uri) as writer:
        for part in np.split(run[1], 20):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), DIMENSION)
            writer.write_batch(pa.record_batch({"_rowid": pa.array(np.arange(len(part))), "vector": vectors}))
    return file


@given(edges=st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)))
def test_any_rows_are_read_as_they_were_written(
    paged: Location, run: tuple[Location, np.ndarray], edges: tuple[int, int]
) -> None:
    vectors = run[1]
    first, last = sorted(edges)
    there = find(paged)
    assert there is not None
    assert len(there.positions) > 1
    np.testing.assert_array_equal(read(there, first, last - first), vectors[first:last])


def test_a_run_is_read_in_place(run: tuple[Location, np.ndarray]) -> None:
    file, vectors = run
    with patch.object(InPlace, "read", autospec=True, side_effect=InPlace.read) as read:
        ids, some = RunReader(Run(file, "vector")).read(7000, 900)
    assert read.call_count == 1
    np.testing.assert_array_equal(ids, np.arange(ROWS)[::-1][7000:7900])
    np.testing.assert_array_equal(some, vectors[7000:7900])


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("regions", [1, 4])
def test_joins_are_the_same_in_place_and_through_lance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, regions: int
) -> None:
    """An index that Lance wrote, rows that it does not cover, rows that were deleted since, and some without vector."""
    lk, rng = lake.connect(tmp_path), np.random.default_rng(1)
    vectors = rng.standard_normal((6000, 64), np.float32)
    held = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 64)
    rows = pa.table({"id": np.arange(6000), "vector": held})
    more = pa.table({"id": [7000, 7001], "vector": pa.array([None, [1.0] * 64], held.type)})
    table = lk.create_table(
        "t",
        rows.slice(0, 5000),
        key="id",
        embeddings={"vector": lake.Embedding(64, metric=metric)},  # type: ignore[arg-type]
    )
    table.create_index("vector", "IVF_FLAT", partitions=16)
    table.build(executor=LocalExecutor(1))
    table.append(rows.slice(5000))
    table.append(more)
    table.delete("id % 7 = 3 and id < 5000")  # of one fragment
    [segment] = table.snapshot().dataset.describe_indices()[0].segments
    assert find(segment_file(Side(table.snapshot(), "vector"), str(segment.uuid)), "flat") is not None

    monkeypatch.setattr(Plan, "regions", regions)

    def joined() -> pa.Table:
        return table.knn_join(table, 5, nprobe=4, executor=LocalExecutor(1)).to_arrow()

    with patch.object(InPlace, "read", autospec=True, side_effect=InPlace.read) as reads:
        here = joined()
    with patch.object(InPlace, "at", return_value=None):
        through_lance = joined()
    assert reads.call_count > 0
    order = [("left_id", "ascending"), ("rank", "ascending")]
    assert here.num_rows == 5 * (len(table) - 1)
    assert here.sort_by(order).equals(through_lance.sort_by(order))


def test_clusters_are_the_same_in_place_and_through_lance(tmp_path: Path) -> None:
    lk, rng = lake.connect(tmp_path), np.random.default_rng(2)
    held = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(3000 * 64).astype(np.float32)), 64)
    table = lk.create_table("t", pa.table({"id": np.arange(3000), "vector": held}), key="id")
    with patch.object(InPlace, "read", autospec=True, side_effect=InPlace.read) as reads:
        table.cluster(20, into_column="here", executor=LocalExecutor(1))
    assert reads.call_count > 0
    with patch.object(InPlace, "at", return_value=None):
        table.cluster(20, into_column="through_lance", executor=LocalExecutor(1))
    labels = table.to_arrow(["here", "through_lance"])
    assert labels["here"].null_count == 0
    assert labels["here"].equals(labels["through_lance"])


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        pytest.param(pa.list_(pa.float32(), 8), [[1.0] * 8] * 9, id="short"),
        pytest.param(pa.list_(pa.float32(), 96), [[1.0] * 96, None] * 9, id="null"),
        pytest.param(pa.list_(pa.float32(), 96), [[1.0] * 95 + [None], [1.0] * 96], id="null within"),
        pytest.param(pa.list_(pa.float16(), 256), [[1.0] * 256] * 9, id="half"),
        pytest.param(pa.list_(pa.float64(), 96), [[1.0] * 96] * 9, id="double"),
        pytest.param(pa.list_(pa.int32(), 96), [[1] * 96] * 9, id="whole numbers"),
        pytest.param(pa.list_(pa.float32(), 96), [None] * 9, id="nothing but nulls"),
        pytest.param(pa.list_(pa.float32()), [[1.0] * 96] * 9, id="lists of any length"),
        pytest.param(pa.int64(), [1] * 9, id="no lists"),
    ],
)
def test_what_lies_otherwise_is_left_to_lance(tmp_path: Path, kind: pa.DataType, rows: list[Any]) -> None:
    assert find(written(tmp_path, kind, rows)) is None


def test_another_format_and_another_machine_are_left_to_lance(tmp_path: Path, run: tuple[Location, np.ndarray]) -> None:
    older = written(tmp_path, pa.list_(pa.float32(), 96), [[1.0] * 96] * 9, version="2.0")
    assert find(older) is None
    described = LanceFileReader(run[0].uri).metadata()
    assert InPlace.find(Location.of("s3://bucket/run.lance"), described, "vector") is None
    with patch.object(inplace, "_PAGE", inplace._PAGE.replace("Flat(", "Flatter(")):
        assert find(run[0]) is None


def test_a_file_that_became_shorter_is_told(tmp_path: Path, run: tuple[Location, np.ndarray]) -> None:
    there = find(run[0])
    assert there is not None
    copy = tmp_path / "copy.lance"
    copy.write_bytes(Path(run[0].uri).read_bytes()[: ROWS * DIMENSION * 2])
    torn = InPlace(str(copy), there.dimension, there.starts, there.positions)
    np.testing.assert_array_equal(read(torn, 0, 10), run[1][:10])
    with pytest.raises(CorruptTable, match=r"copy\.lance: ends within the page"):
        read(torn, 0, ROWS)
    copy.unlink()
    with pytest.raises(CorruptTable, match=r"copy\.lance: is gone"):
        read(torn, 0, 10)
    copy.mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*copy\.lance"):
        read(torn, 0, 10)


def test_a_matrix_whose_rows_do_not_follow_each_other_is_refused(run: tuple[Location, np.ndarray]) -> None:
    there = find(run[0])
    assert there is not None
    with pytest.raises(ValueError, match="copy"):
        there.read(0, np.empty((10, 2 * DIMENSION), np.float32)[:, :DIMENSION])
