"""Vectors of one side against a plain dict, whatever became of the table since its files were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import lance
import numpy as np
import pyarrow as pa
import pytest

import lake
from lake.errors import InvalidInput
from lake.join.inplace import InPlace
from lake.join.side import Side
from lake.join.vectors import vectors
from lake.storage import Location
from tests.support import s3

DIMENSION = 64
Rows = dict[int, np.ndarray | None]


def written(ids: range, seed: int, *, nulls: bool = False) -> tuple[pa.Table, Rows, Rows]:
    """Rows of two vectors, and what is expected of each of the two columns."""
    a, b = np.random.default_rng(seed).standard_normal((2, len(ids), DIMENSION), np.float32)
    kind = pa.list_(pa.float32(), DIMENSION)
    of_a: Rows = {i: None if nulls and i % 5 == 0 else row for i, row in zip(ids, a, strict=True)}
    columns = {"id": pa.array(ids), "a": pa.array(list(of_a.values()), kind), "b": pa.array(list(b), kind)}
    return pa.table(columns), of_a, dict(zip(ids, b, strict=True))


def read(table: lake.Table, column: str, where: str | None = None, offset: int = 0) -> tuple[Rows, int]:
    """Read all vectors, of each fragment from a row on, and tell how many batches were read in place."""
    side = Side(table.snapshot(), column, where)
    found: Rows = {}
    with patch.object(InPlace, "read", autospec=True, side_effect=InPlace.read) as in_place:
        for fragment, held in side.fragments().items():
            for rows, some, at in vectors(side, (fragment, offset, held - offset), "l2", ["id"], 700):
                assert rows.schema.names == ["id", "_rowid"]
                ids = rows["id"].to_numpy()
                taken = side.snapshot.dataset._take_rows(rows["_rowid"].to_pylist(), columns=["id"])
                assert taken["id"].to_pylist() == ids.tolist()
                found |= dict.fromkeys(ids.tolist()) | {
                    int(ids[i]): row.copy() for i, row in zip(at, some, strict=True)
                }
    return found, in_place.call_count


def same(found: Rows, expected: Rows) -> None:
    assert found.keys() == expected.keys()
    for row, vector in expected.items():
        np.testing.assert_array_equal(found[row], vector)


@pytest.fixture
def table(tmp_path: Path) -> tuple[lake.Table, Rows, Rows]:
    first, a, b = written(range(2000), 0)
    second, more_a, more_b = written(range(2000, 2900), 1)
    made = lake.connect(tmp_path).create_table("t", first, key="id")
    made.append(second)
    return made, a | more_a, b | more_b


def test_a_table_as_it_was_written_is_read_in_place(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, a, b = table
    for column, expected in (("a", a), ("b", b)):
        found, in_place = read(made, column)
        same(found, expected)
        assert in_place == 5
    found, in_place = read(made, "b", offset=850)
    same(found, {i: row for i, row in b.items() if i in range(850, 2000) or i >= 2850})
    assert in_place == 3


def test_a_column_is_known_by_its_number_and_not_by_its_name(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, a, b = table
    made.rename_columns({"a": "c"})
    made.rename_columns({"b": "a"})
    for column, expected in (("c", a), ("a", b)):
        found, in_place = read(made, column)
        same(found, expected)
        assert in_place == 5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda t: t.delete("id % 3 = 1"), lambda a: {i: v for i, v in a.items() if i % 3 != 1}, id="deleted"
        ),
        pytest.param(
            lambda t: t.merge(written(range(1990, 2010), 7)[0]),
            lambda a: a | written(range(1990, 2010), 7)[1],
            id="changed",
        ),
        pytest.param(
            lambda t: t.append(written(range(2900, 3500), 8, nulls=True)[0]),
            lambda a: a | written(range(2900, 3500), 8, nulls=True)[1],
            id="without a vector",
        ),
        pytest.param(lambda t: t.drop_columns(["b"]), lambda a: a, id="another column dropped"),
        pytest.param(lambda t: t.add_columns({"n": pa.int64()}), lambda a: a, id="another column added"),
        pytest.param(
            lambda t: (t.delete("id < 100"), t.compact()),
            lambda a: {i: v for i, v in a.items() if i >= 100},
            id="compacted",
        ),
    ],
)
def test_whatever_became_of_the_table(
    table: tuple[lake.Table, Rows, Rows],
    change: Callable[[lake.Table], object],
    expected: Callable[[Rows], Rows],
) -> None:
    made, a, _ = table
    change(made)
    same(read(made, "a")[0], expected(a))


def test_a_filter_is_left_to_lance(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, a, _ = table
    found, in_place = read(made, "a", "id % 2 = 0")
    same(found, {i: row for i, row in a.items() if i % 2 == 0})
    assert in_place == 0


def test_rows_of_a_branch_and_of_what_it_came_from(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, a, _ = table
    other = made.branch("other")
    rows, more, _ = written(range(5000, 5900), 9)
    other.append(rows)
    same(read(other, "a")[0], a | more)
    same(read(made, "a")[0], a)


@pytest.mark.s3
def test_a_store_is_left_to_lance(bucket: Location, store: str) -> None:
    rows, a, _ = written(range(900), 3)
    made = lake.connect(bucket.uri, s3.options(store)).create_table("t", rows, key="id")
    found, in_place = read(made, "a")
    same(found, a)
    assert in_place == 0


def test_illegal_vectors_are_refused_in_place_too(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, _, _ = table
    wrong = np.ones((50, DIMENSION), np.float32)
    wrong[7, 3] = np.nan
    held = pa.FixedSizeListArray.from_arrays(pa.array(wrong.reshape(-1)), DIMENSION)
    rows = pa.table([pa.array(range(9000, 9050)), held, held], schema=made.dataset.schema)
    lance.write_dataset(rows, made.uri, mode="append")  # the lake would refuse them
    with pytest.raises(InvalidInput, match="holds NaN or infinity"):
        read(made, "a")
