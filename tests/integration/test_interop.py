"""The files are open: the clients that people have already read them unchanged."""

from __future__ import annotations

from pathlib import Path

import duckdb
import lance
import lancedb
import numpy as np
import pyarrow as pa

import lake


def made(tmp_path: Path) -> tuple[lake.Lake, lake.Table, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 16)).astype(np.float32)
    lk = lake.connect(tmp_path / "root")
    data = {"id": np.arange(1000), "kind": [f"k{i % 4}" for i in range(1000)], "vector": vectors}
    table = lk.create_table("things", data, key="id")
    table.create_index("vector", "ivf_flat", partitions=4)
    table.build()
    table.merge({"id": [3], "kind": ["changed"]})
    table.delete("id >= 900")
    return lk, table, vectors


def test_a_lake_root_is_a_lancedb_database(tmp_path: Path) -> None:
    lk, table, vectors = made(tmp_path)
    db = lancedb.connect(lk.uri)
    assert db.list_tables().tables == ["things"]
    theirs = db.open_table("things")
    assert theirs.count_rows() == 900
    assert theirs.version == table.version
    found = theirs.search(vectors[5]).nprobes(4).limit(3).to_list()
    ours = table.search(vector=vectors[5], k=3, nprobe=4).to_pylist()
    assert [row["id"] for row in found] == [row["id"] for row in ours]
    theirs.add(
        pa.table(
            {"id": [5000], "kind": ["theirs"], "vector": pa.array([vectors[0].tolist()], pa.list_(pa.float32(), 16))}
        )
    )
    assert table.count_rows("kind = 'theirs'") == 1
    assert table.versions(1)[0].verb == "append"
    assert table.schema.key == ("id",)


def test_duckdb_reads_a_table_through_arrow(tmp_path: Path) -> None:
    _, table, _ = made(tmp_path)
    counted = duckdb.from_arrow(table.dataset).aggregate("kind, count(*)", "kind").fetchall()
    assert sum(n for _, n in counted) == 900
    assert ("changed", 1) in counted


def test_plain_lance_sees_the_declarations_and_keeps_them(tmp_path: Path) -> None:
    _, table, _ = made(tmp_path)
    dataset = lance.dataset(table.uri)
    assert any(key.startswith("lake.index.") for key in dataset.config())
    dataset.delete("id = 1")
    assert [spec.name for spec in table.indexes()] == ["vector_idx"]
    assert len(table) == 899
