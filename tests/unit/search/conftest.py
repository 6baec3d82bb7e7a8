"""Small Lance tables with stable row ids, and brute force over what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from lake.schema import Column, Embedding, Schema
from lake.storage import Location
from lake.table.snapshot import Snapshot

Floats = npt.NDArray[np.float64]

ROWS, DIMENSION = 3000, 16
WORDS = [
    "editor",
    "terminal",
    "library",
    "kernel",
    "driver",
    "game",
    "music",
    "video",
    "font",
    "server",
    "client",
]


def vectors(matrix: npt.NDArray[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1), kind), matrix.shape[1])


def write(path: Path, data: pa.Table, **options: Any) -> lance.LanceDataset:
    options = {"enable_stable_row_ids": True, "max_rows_per_file": 1000} | options
    return lance.write_dataset(data, str(path), **options)


def snapshot(dataset: lance.LanceDataset) -> Snapshot:
    return Snapshot(Location.of(dataset.uri), dataset.version)


@pytest.fixture(scope="session")
def matrix() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((30, DIMENSION)) * 2
    points = centres[rng.integers(0, 30, ROWS)] + rng.standard_normal((ROWS, DIMENSION))
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def rows(matrix: npt.NDArray[np.float32]) -> pa.Table:
    """Rows with a vector, text, a group and a number."""
    rng = np.random.default_rng(8)
    texts = [" ".join(rng.choice(WORDS, rng.integers(2, 8))) for _ in range(ROWS)]
    for i in range(0, ROWS, 500):
        texts[i] += " zeppelin"
    schema = Schema(
        [
            Column("id", int),
            Column("text", str, "text"),
            Column("group", str, "category"),
            Column("rank", int),
            Column("emb", Embedding(DIMENSION, metric="l2")),
        ],
        key="id",
    )
    return pa.table(
        {
            "id": np.arange(ROWS),
            "text": texts,
            "group": [
                None if i % 97 == 0 else f"g{int(n)}" for i, n in enumerate(rng.integers(0, 60, ROWS) ** 2 // 60)
            ],
            "rank": rng.integers(0, 1000, ROWS),
            "emb": vectors(matrix),
        }
    ).cast(schema.to_arrow())


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> Snapshot:
    """No vector index, and a text index that holds no rows yet."""
    dataset = write(tmp_path_factory.mktemp("plain") / "t.lance", rows)
    dataset.create_scalar_index("text", "INVERTED", name="text_idx", with_position=True, train=False)
    return snapshot(dataset)


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> Snapshot:
    """A vector index of 40 partitions and a text index, over all rows."""
    dataset = write(tmp_path_factory.mktemp("indexed") / "t.lance", rows)
    dataset.create_index("emb", "IVF_FLAT", name="emb_idx", metric="l2", num_partitions=40)
    dataset.create_scalar_index("text", "INVERTED", name="text_idx", with_position=True)
    return snapshot(dataset)


@pytest.fixture(scope="session")
def partial(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> Snapshot:
    """2,000 indexed rows; of them 40 deleted and 60 with new vectors; then 1,000 rows without index."""
    dataset = write(tmp_path_factory.mktemp("partial") / "t.lance", rows.slice(0, 2000))
    dataset.create_index("emb", "IVF_FLAT", name="emb_idx", metric="l2", num_partitions=40)
    dataset.create_scalar_index("text", "INVERTED", name="text_idx", with_position=True)
    dataset.delete("id < 40")
    moved = rows.slice(100, 60)
    shifted = np.stack(moved["emb"].to_numpy(zero_copy_only=False)) + np.float32(5)
    moved = moved.set_column(4, rows.schema.field("emb"), vectors(shifted))
    dataset.merge_insert("id").when_matched_update_all().execute(moved)
    dataset = lance.write_dataset(rows.slice(2000), dataset.uri, mode="append")
    return snapshot(dataset)


def content(snap: Snapshot) -> tuple[npt.NDArray[np.int64], Floats]:
    """The ids and vectors of all live rows."""
    table = snap.dataset.to_table(columns=["id", "emb"])
    return table["id"].to_numpy(), np.stack(table["emb"].to_numpy(zero_copy_only=False)).astype(np.float64)


Measure = Callable[[Floats, Floats], Floats]

MEASURES: Mapping[str, Measure] = {
    "l2": lambda x, q: ((x - q) ** 2).sum(axis=1),
    "cosine": lambda x, q: 1 - (x @ q) / np.linalg.norm(x, axis=1) / np.linalg.norm(q),
    "dot": lambda x, q: 1 - x @ q,
    "hamming": lambda x, q: np.unpackbits(x.astype(np.uint8) ^ q.astype(np.uint8), axis=1).sum(axis=1).astype(float),
}
