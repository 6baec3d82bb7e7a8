"""Vectors of one side against a plain dict, whatever became of the table since its files were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import lance
import numpy as np
import pyarrow as pa
import pytest
from lance.file import LanceFileWriter
from lance.fragment import DataFile

import lake
from lake.errors import InvalidInput, StorageError
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


def read(
    table: lake.Table, column: str, where: str | None = None, offset: int = 0, metric: str = "l2"
) -> tuple[Rows, int]:
    """Read all vectors, of each fragment from a row on, and tell how many batches were read in place."""
    side = Side(table.snapshot(), column, where)
    found: Rows = {}
    with patch.object(InPlace, "read", autospec=True, side_effect=InPlace.read) as in_place:
        held = [  # all at once: no memory is used again while somebody has it
            batch
            for fragment, rows in side.fragments().items()
            for batch in vectors(side, (fragment, offset, rows - offset), metric, ["id"], 700)
        ]
    for rows, some, at in held:
        assert rows.schema.names == ["id", "_rowid"]
        ids = rows["id"].to_numpy()
        taken = side.snapshot.dataset._take_rows(rows["_rowid"].to_pylist(), columns=["id"])
        assert taken["id"].to_pylist() == ids.tolist()
        found |= dict.fromkeys(ids.tolist()) | {int(ids[i]): row for i, row in zip(at, some, strict=True)}
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


def test_vectors_of_length_one_under_cosine(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, a, _ = table
    found, in_place = read(made, "a", metric="cosine")
    assert found.keys() == a.keys()
    for row, vector in a.items():
        scaled = found[row]
        assert vector is not None
        assert scaled is not None
        np.testing.assert_allclose(scaled, vector / np.linalg.norm(vector), rtol=1e-5, atol=1e-7)
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
        pytest.param(
            lambda t: t.merge(written(range(1990, 2010), 7)[0].drop("b"), mode="update"),
            lambda a: a | {i: v for i, v in written(range(1990, 2010), 7)[1].items() if i in a},
            id="that column of some rows changed",
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


def test_a_column_that_was_added_has_vectors_where_there_are_some(table: tuple[lake.Table, Rows, Rows]) -> None:
    made, a, _ = table
    made.add_columns({"c": pa.list_(pa.float32(), DIMENSION)})
    same(read(made, "c")[0], dict.fromkeys(a))
    rows, more, _ = written(range(2900, 3500), 8)
    made.append(rows.append_column("c", rows["a"]))
    found, in_place = read(made, "c")
    same(found, dict.fromkeys(a) | more)
    assert in_place == 1


def test_files_of_the_first_format_are_left_to_lance(tmp_path: Path) -> None:
    rows, a, _ = written(range(900), 3)
    lance.write_dataset(rows, tmp_path / "t.lance", data_storage_version="legacy")
    found, in_place = read(lake.connect(tmp_path).open_table("t"), "a")
    same(found, a)
    assert in_place == 0


def test_a_table_with_cells_that_lie_over_others_is_refused(table: tuple[lake.Table, Rows, Rows]) -> None:
    """This Lance does not read such tables. One that does would change vectors that an index holds as they were."""
    made, _, _ = table
    dataset = made.dataset
    file, rows = Path(made.uri) / "data" / "over.lance", dataset.take([0], columns=["a"])
    with LanceFileWriter(str(file), rows.schema) as writer:
        writer.write_batch(rows)
    fields = [field.id() for field in dataset.lance_schema.fields() if field.name() == "a"]
    described = DataFile(file.name, fields, [0], file_major_version=2, file_minor_version=1)
    over = lance.LanceOperation.DataOverlayFile(described, [5])
    group = lance.LanceOperation.DataOverlayGroup(dataset.get_fragments()[0].fragment_id, [over])
    lance.LanceDataset.commit(dataset, lance.LanceOperation.DataOverlay([group]), read_version=dataset.version)
    with pytest.raises(StorageError, match="upgrade Lance"):
        made.snapshot()


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
