"""Columns added, dropped and renamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lake.errors import AlreadyExists, InvalidInput, NotFound
from lake.schema import Column, Derivation, Embedding, Schema
from lake.storage import Location
from lake.table import columns, rows, write
from lake.table.changes import compare
from lake.table.snapshot import Snapshot, open_head
from lake.table.sql import Sql
from tests.support.tables import WIDE, data_files, wide


@pytest.fixture
def table(root: Location) -> Location:
    there = root.join("t.lance")
    write.create_table(there, WIDE, wide(range(4)))
    return there


def schema(table: Location) -> Schema:
    return Snapshot(table, open_head(table).version).schema


def test_new_columns_are_null_or_computed(table: Location) -> None:
    written = data_files(table)
    version = columns.add_columns(table, None, {"price": pa.float64(), "twice": Sql("id * 2")})
    assert version == open_head(table).version
    found = open_head(table).to_table()
    assert found["price"].null_count == 4
    assert found["twice"].to_pylist() == [0, 2, 4, 6]
    assert written < data_files(table)


def test_rows_need_not_have_a_value_in_a_computed_column(table: Location) -> None:
    columns.add_columns(table, None, {"twice": Sql("id * 2")})
    write.append(table, None, wide([9]))
    assert open_head(table).to_table(filter="id = 9")["twice"].to_pylist() == [None]


def test_a_new_column_has_its_meaning(table: Location) -> None:
    column = Column(
        "emb", Embedding(8, of="name", model="m"), derivation=Derivation(("name",), "embed", "1"), description="x"
    )
    columns.add_columns(table, None, {"emb": column})
    assert schema(table).column("emb") == column


def test_the_table_lives_on_after_the_source_of_an_embedding_is_gone(table: Location) -> None:
    columns.drop_columns(table, None, ["name"])
    columns.add_columns(table, None, {"price": pa.float64()})
    columns.rename_columns(table, None, {"v": "w"})
    assert schema(table).names == ("id", "w", "price")


@pytest.mark.parametrize(
    ("new", "error", "why"),
    [
        ({"name": pa.int64()}, AlreadyExists, "name"),
        ({"NAME": pa.int64()}, AlreadyExists, "name"),
        ({"a.b": pa.int64()}, InvalidInput, "a dot"),
        ({"_distance": Sql("1")}, InvalidInput, "underscore"),
        ({"x": Sql("nope + 1")}, InvalidInput, "not a legal expression"),
        ({"x": pa.int64(), "y": Sql("nope + 1")}, InvalidInput, "not a legal expression"),
        ({"x": Column("x", int, nullable=False)}, InvalidInput, "make it nullable"),
        ({"x": Column("x", Embedding(4, of="nope"))}, NotFound, "nope"),
    ],
)
def test_columns_that_are_refused(table: Location, new: dict[str, Any], error: type[Exception], why: str) -> None:
    before = open_head(table).version
    with pytest.raises(error, match=why):
        columns.add_columns(table, None, new)
    assert open_head(table).version == before


def test_a_dropped_column_is_gone_and_its_name_is_free(table: Location) -> None:
    columns.drop_columns(table, None, ["name"])
    assert open_head(table).schema.names == ["id", "v"]
    columns.add_columns(table, None, {"name": pa.int64()})
    assert open_head(table).to_table()["name"].null_count == 4


@pytest.mark.parametrize(("names", "error"), [(["id"], InvalidInput), (["nope"], NotFound)])
def test_drops_that_are_refused(table: Location, names: list[str], error: type[Exception]) -> None:
    before = open_head(table).version
    with pytest.raises(error):
        columns.drop_columns(table, None, names)
    assert open_head(table).version == before


def test_a_rename_keeps_rows_and_meaning(table: Location) -> None:
    columns.rename_columns(table, None, {"name": "title", "id": "key"})
    found = schema(table)
    assert (found.key, found.names) == (("key",), ("key", "title", "v"))
    assert found.column("v").embedding == Embedding(4, of="title", metric="cosine")
    assert open_head(table).to_table()["title"].to_pylist() == ["n0", "n1", "n2", "n3"]
    rows.update(table, None, {"title": "x"}, "key = 1")


@pytest.mark.parametrize(
    ("names", "error"),
    [({"nope": "x"}, NotFound), ({"name": "v"}, AlreadyExists), ({"name": ""}, InvalidInput)],
)
def test_renames_that_are_refused(table: Location, names: dict[str, str], error: type[Exception]) -> None:
    before = open_head(table).version
    with pytest.raises(error):
        columns.rename_columns(table, None, names)
    assert open_head(table).version == before


def test_what_changes_says_of_a_new_column(table: Location) -> None:
    start = Snapshot(table, open_head(table).version)
    empty = Snapshot(table, columns.add_columns(table, None, {"price": pa.float64()}))
    computed = Snapshot(table, columns.add_columns(table, None, {"twice": Sql("id * 2")}))
    assert compare(start, empty).counts() == {"insert": 0, "update": 0, "delete": 0}
    # Lance says of every row that a computed column updated it, and so it is: its values are new.
    assert compare(empty, computed).counts() == {"insert": 0, "update": 4, "delete": 0}


def test_a_rename_is_no_change_of_rows(table: Location) -> None:
    start = Snapshot(table, open_head(table).version)
    end = Snapshot(table, columns.rename_columns(table, None, {"name": "title"}))
    assert compare(start, end).counts() == {"insert": 0, "update": 0, "delete": 0}


def test_vectors_can_be_filled_in_later(table: Location) -> None:
    columns.add_columns(table, None, {"emb": Column("emb", Embedding(2))})
    rows.update(table, None, {"emb": np.ones(2)}, "id >= 2")
    assert open_head(table).to_table()["emb"].to_pylist() == [None, None, [1.0, 1.0], [1.0, 1.0]]
