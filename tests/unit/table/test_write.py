"""Create, append, merge, update, delete, overwrite: what they do, and what their receipts say."""

from __future__ import annotations

import numpy as np
import pytest

from lake.errors import AlreadyExists, InvalidInput, NotFound
from lake.schema import Column, Embedding, Schema
from lake.storage import Location
from lake.table import columns, history, merge, rows, write
from lake.table.changes import compare
from lake.table.snapshot import Snapshot, open_head
from tests.support.tables import SCHEMA, WIDE, content, data_files, make, pairs, wide


@pytest.fixture
def table(root: Location) -> Location:
    return make(root)


def test_create_append_and_their_receipts(root: Location) -> None:
    table = root.join("t.lance")
    made = write.create_table(table, SCHEMA, pairs(range(3)))
    added = write.append(table, None, pairs(range(3, 5), 7))
    assert (made.version, made.inserted, added.version, added.inserted) == (1, 3, 2, 2)
    assert content(table) == [(0, 0), (1, 0), (2, 0), (3, 7), (4, 7)]
    assert added.bytes > 0


def test_an_empty_table_has_its_columns(root: Location) -> None:
    table = root.join("t.lance")
    write.create_table(table, WIDE)
    assert Snapshot(table, 1).schema == WIDE
    assert open_head(table).count_rows() == 0


def test_a_table_is_not_created_twice(table: Location) -> None:
    before = content(table)
    with pytest.raises(AlreadyExists):
        write.create_table(table, SCHEMA, pairs([99]))
    assert content(table) == before


def test_writes_need_a_table(root: Location) -> None:
    table = root.join("nope.lance")
    with pytest.raises(NotFound, match="no table"):
        write.append(table, None, pairs([1]))
    with pytest.raises(NotFound, match="no table"):
        merge.merge(table, None, pairs([1]))
    with pytest.raises(NotFound, match="no table"):
        rows.delete(table, None, "id = 1")


def test_an_upsert_updates_and_inserts(table: Location) -> None:
    receipt = merge.merge(table, None, pairs([1, 15, 50], 9))
    assert (receipt.updated, receipt.inserted) == (2, 1)
    assert dict(content(table)) == {**dict.fromkeys(range(20), 0), 1: 9, 15: 9, 50: 9}


def test_an_insert_leaves_what_is_there(table: Location) -> None:
    receipt = merge.merge(table, None, pairs([1, 50], 9), mode="insert")
    assert (receipt.updated, receipt.inserted) == (0, 1)
    assert dict(content(table)) == {**dict.fromkeys(range(20), 0), 50: 9}


def test_an_update_by_key_inserts_nothing(table: Location) -> None:
    receipt = merge.merge(table, None, pairs([1, 50], 9), mode="update")
    assert (receipt.updated, receipt.inserted) == (1, 0)
    assert dict(content(table)) == {**dict.fromkeys(range(20), 0), 1: 9}


def test_a_merge_of_some_columns_keeps_the_others(root: Location) -> None:
    table = root.join("t.lance")
    write.create_table(table, WIDE, wide(range(3)))
    merge.merge(table, None, {"name": ["new", "fresh"], "id": [1, 9]})
    found = open_head(table).to_table().sort_by("id").to_pylist()
    assert [r["name"] for r in found] == ["n0", "new", "n2", "fresh"]
    assert found[1]["v"] == wide(range(3))["v"][1].tolist()
    assert found[3]["v"] is None


@pytest.mark.parametrize("mode", ["upsert", "insert", "update"])
def test_a_merge_into_an_empty_table(root: Location, mode: merge.Mode) -> None:
    table = root.join("t.lance")
    write.create_table(table, SCHEMA)
    receipt = merge.merge(table, None, pairs([1, 2], 3), mode=mode)
    expected = [] if mode == "update" else [(1, 3), (2, 3)]
    assert (receipt.inserted, content(table)) == (len(expected), expected)


def test_a_merge_by_two_columns(root: Location) -> None:
    table = root.join("t.lance")
    write.create_table(table, Schema([Column("a", int), Column("b", str), Column("n", int)], key=["a", "b"]))
    merge.merge(table, None, {"a": [1, 1, 2], "b": ["x", "y", "x"], "n": [0, 0, 0]})
    merge.merge(table, None, {"a": [1, 2], "b": ["y", "y"], "n": [1, 1]})
    found = open_head(table).to_table().to_pylist()
    assert sorted((r["a"], r["b"], r["n"]) for r in found) == [(1, "x", 0), (1, "y", 1), (2, "x", 0), (2, "y", 1)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pairs([1, 1]), "1 keys appear more than once in the input, for example {'id': 1}"),
        ({"n": [1]}, "needs all columns of the entity key"),
        ({"id": [1], "nope": [1]}, "no columns"),
    ],
)
def test_merges_that_are_refused(table: Location, data: dict[str, list[int]], why: str) -> None:
    before = open_head(table).version, data_files(table)
    with pytest.raises(InvalidInput, match=why):
        merge.merge(table, None, data)
    assert (open_head(table).version, data_files(table)) == before


def test_a_merge_needs_a_key(root: Location) -> None:
    table = root.join("t.lance")
    write.create_table(table, Schema([Column("n", int)]), {"n": [1]})
    with pytest.raises(InvalidInput, match="no entity key"):
        merge.merge(table, None, {"n": [1]})


def test_an_update_of_vectors_and_lists(root: Location) -> None:
    table = root.join("t.lance")
    write.create_table(table, WIDE, wide(range(4)))
    rows.update(table, None, {"v": np.full(4, 2.0), "name": "same"}, "id in (1, 3)")
    rows.update(table, None, {"v": None}, "id = 2")
    found = {r["id"]: r for r in open_head(table).to_table().to_pylist()}
    assert found[1]["v"] == found[3]["v"] == [2.0] * 4
    assert (found[1]["name"], found[0]["name"], found[2]["v"]) == ("same", "n0", None)


def test_an_overwrite_replaces_rows_and_schema_and_old_versions_stay(table: Location) -> None:
    before = content(table)
    other = Schema([Column("key", str), Column("v", Embedding(2))], key="key")
    receipt = write.overwrite(table, None, {"key": ["a"], "v": [[1.0, 2.0]]}, other)
    assert (receipt.inserted, receipt.deleted) == (1, 20)
    assert Snapshot(table, receipt.version).schema == other
    assert open_head(table).to_table()["key"].to_pylist() == ["a"]
    assert content(table, version=receipt.version - 1) == before


def test_an_overwrite_after_a_column_was_dropped_keeps_its_values(root: Location) -> None:
    table = root.join("t.lance")
    write.create_table(table, WIDE, wide(range(3)))
    columns.drop_columns(table, None, ["name"])
    columns.rename_columns(table, None, {"v": "w"})
    vectors = [[1.0] * 4, [2.0] * 4]
    for verb in (write.overwrite, write.append):
        verb(table, None, {"id": [1, 2], "w": vectors})
    found = open_head(table).to_table()
    assert found["id"].to_pylist() == [1, 2] * 2
    assert found["w"].to_pylist() == vectors * 2


def test_a_commit_id_is_applied_once_and_its_input_is_not_read_again(table: Location) -> None:
    first = write.append(table, None, pairs([50]), commit_id="job-1")
    before = content(table), open_head(table).version, data_files(table)
    for verb in (write.append, merge.merge, write.overwrite):
        again = verb(table, None, iter(()), commit_id="job-1")  # an input that would be refused
        assert (again.repeated, again.version, again.rows) == (True, first.version, 0)
    assert rows.delete(table, None, "id = 1", commit_id="job-1").repeated
    assert rows.update(table, None, {"n": 1}, commit_id="job-1").repeated
    assert history.restore(table, None, Snapshot(table, 1), commit_id="job-1").repeated
    assert (content(table), open_head(table).version, data_files(table)) == before


def test_indexes_go_on_after_an_append_by_a_job(table: Location) -> None:
    """Such an append updates the oldest fragment to what it is, which must cost no index anything."""
    open_head(table).create_scalar_index("id", "BTREE")
    write.append(table, None, pairs([50, 51], 7), commit_id="job")
    head = open_head(table)
    covered = head.stats.index_stats("id_idx")
    assert (covered["num_indexed_rows"], covered["num_unindexed_rows"]) == (20, 2)
    for key, n in ((3, 0), (50, 7)):
        assert head.to_table(filter=f"id = {key}").to_pylist() == [{"id": key, "n": n}]
    assert compare(Snapshot(table, 2), Snapshot(table, head.version)).counts() == {
        "insert": 2,
        "update": 0,
        "delete": 0,
    }


@pytest.mark.parametrize("commit_id", ["", "x" * 257, "a\nb", 3])
def test_a_commit_id_is_short_text(table: Location, commit_id: str) -> None:
    with pytest.raises(InvalidInput, match="commit_id"):
        write.append(table, None, pairs([50]), commit_id=commit_id)


def test_progress_is_told(table: Location) -> None:
    told: list[int] = []
    parts = [pairs(range(i, i + 5)) for i in (20, 25)]
    import pyarrow as pa

    write.append(table, None, (pa.table(p) for p in parts), progress=lambda n, _: told.append(n))
    assert told == [5, 10]
