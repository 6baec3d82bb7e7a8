"""Rows that appear or move in ways that Lance's indexes could miss; each was found by the model of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import NotSupported

PLACES = np.random.default_rng(0).random((30, 4)).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> lake.Table:
    rows = {"id": list(range(30)), "n": [0] * 30, "text": ["old"] * 30, "v": PLACES}
    table = lake.connect(tmp_path).create_table("t", rows, key="id")
    table.create_index("v", "ivf_flat", partitions=2, metric="l2")
    table.create_index("text", "text")
    table.create_index("n", "btree")
    table.create_index("id", "btree")
    table.build()
    return table


def test_rows_appended_under_an_id_are_found(table: lake.Table) -> None:
    far = np.full((1, 4), 9, np.float32)
    table.append({"id": [100], "n": [1], "text": ["new"], "v": far}, commit_id="mine")
    found = table.search(vector=far[0], k=1, columns=["id"])
    assert found[0]["id"] == 100
    assert (found.coverage.rows_indexed, found.coverage.rows_scanned) == (30, 1)
    assert [row["id"] for row in table.search(text="new", columns=["id"])] == [100]


def test_many_queries_do_not_see_rows_where_they_were(table: lake.Table) -> None:
    table.merge({"id": [9, 17], "n": [1, 1], "v": PLACES[:2] + 5}, mode="update")
    table.update({"n": lake.sql("n + 1")}, "id >= 21")
    table.build()
    queries = np.stack([PLACES[9], PLACES[17]])
    found = table.search(vector=queries, k=3, nprobe=8, columns=["id"]).to_pylist()
    for number, query in enumerate(queries):
        alone = table.search(vector=query, k=3, use_index=False, columns=["id"]).to_pylist()
        assert [row["id"] for row in found if row["_query"] == number] == [row["id"] for row in alone]


def test_a_branch_with_indexes_is_not_compacted(table: lake.Table) -> None:
    table.delete("id % 7 = 6")
    trial = table.branch("trial")
    trial.merge({"id": [18, 12], "n": [3, 4]}, mode="update")
    with pytest.raises(NotSupported, match="trial"):
        trial.compact(target_rows=1000, deleted=0.0)
    assert {row["id"] for row in trial.search(where="n >= 3", columns=["id"])} == {12, 18}


def test_changes_of_a_column_that_is_newer_than_deleted_rows(table: lake.Table) -> None:
    since = table.version
    table.add_columns({"later": pa.int64()})
    table.delete("id < 3")
    found = table.changes(since=since, columns=["id", "later"]).to_arrow()
    assert sorted(found["id"].to_pylist()) == [0, 1, 2]
    assert found["_change"].to_pylist() == ["delete"] * 3
