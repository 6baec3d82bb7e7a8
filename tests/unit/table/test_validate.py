"""Bad rows are refused, by column and row, and nothing of a refused write is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from lake.errors import InvalidInput
from lake.schema import Column, Embedding, Schema
from lake.storage import Location
from lake.table import merge, rows, write
from lake.table.snapshot import open_head
from lake.table.validate import Validator
from tests.support.tables import WIDE, data_files, wide

LARGEST = float(np.finfo(np.float32).max)


def vectors(matrix: Any, kind: npt.DTypeLike) -> pa.Array:
    values = np.asarray(matrix, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def check(array: pa.Array, metric: str = "l2", start: int = 0) -> None:
    dimension = array.type.list_size
    embedding = Embedding(dimension, metric="cosine") if metric == "cosine" else Embedding(dimension)
    schema = Schema([Column("v", array.type, embedding=embedding)])
    Validator(schema, row=start).check(pa.record_batch([array], schema=schema.to_arrow()))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3])
def test_nan_and_infinity_are_refused_in_every_float(kind: npt.DTypeLike, bad: float, row: int) -> None:
    matrix = np.ones((4, 3))
    matrix[row, 1] = bad
    with pytest.raises(InvalidInput, match=f"column 'v', row {row + 100}: NaN or infinity"):
        check(vectors(matrix, kind), start=100)


def test_infinities_that_cancel_are_refused() -> None:
    with pytest.raises(InvalidInput, match="row 1"):
        check(vectors([[1, 1], [np.inf, -np.inf]], np.float32))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8])
def test_a_zero_vector_is_refused_under_cosine_only(kind: npt.DTypeLike) -> None:
    array = vectors([[1, 1], [0, 0]], kind)
    check(array)
    with pytest.raises(InvalidInput, match="row 1: a zero vector has no direction"):
        check(array, "cosine")


def test_negative_zeros_are_a_zero_vector() -> None:
    with pytest.raises(InvalidInput, match="zero vector"):
        check(vectors([[-0.0, 0.0]], np.float16), "cosine")


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param([[LARGEST, LARGEST]], id="the sum overflows"),
        pytest.param([[1.0, -1.0]], id="the sum cancels"),
        pytest.param([[1e-45, 0.0]], id="subnormal"),
        pytest.param([[LARGEST, -LARGEST]], id="large and cancelling"),
    ],
)
def test_odd_but_legal_vectors_are_accepted(matrix: Any, metric: str) -> None:
    check(vectors(matrix, np.float32), metric)


def test_the_largest_float16_is_accepted() -> None:
    check(vectors([[65504.0, 65504.0]], np.float16), "cosine")


def test_a_null_inside_a_vector_is_refused_and_a_null_vector_is_not() -> None:
    kind = pa.list_(pa.float32(), 2)
    check(pa.array([None, [1.0, 2.0], None], kind), "cosine")
    with pytest.raises(InvalidInput, match="row 2: a null inside the vector"):
        check(pa.array([[1.0, 2.0], None, [1.0, None]], kind))


def test_rows_after_null_vectors_are_counted_right() -> None:
    with pytest.raises(InvalidInput, match="row 3: NaN"):
        check(pa.array([None, [1.0, 2.0], None, [np.nan, 1.0]], pa.list_(pa.float32(), 2)))


def test_a_slice_is_judged_by_its_own_rows() -> None:
    array = vectors([[np.nan, 1], [1, 2], [3, 4]], np.float32)
    check(array.slice(1))
    with pytest.raises(InvalidInput, match="row 0"):
        check(array.slice(0, 2))


@pytest.mark.parametrize(
    ("value", "row"),
    [([[[1, 1]], [], None, [[1, 1], [np.nan, 1]]], 3), ([[[1, 1], [0, 0]], [[1, 1]]], 0)],
)
def test_multi_vectors_are_refused_by_the_row_that_holds_them(value: Any, row: int) -> None:
    kind = pa.list_(pa.list_(pa.float32(), 2))
    schema = Schema([Column("v", kind, embedding=Embedding(2, metric="cosine"))])
    batch = pa.record_batch([pa.array(value, kind)], schema=schema.to_arrow())
    with pytest.raises(InvalidInput, match=f"row {row}:"):
        Validator(schema).check(batch)


def test_multi_vectors_that_are_fine_pass() -> None:
    kind = pa.list_(pa.list_(pa.float32(), 2))
    schema = Schema([Column("v", kind, embedding=Embedding(2, metric="cosine"))])
    array = pa.array([[[1, 1]], [], None, [[1, -1], [2, 1]]], kind)
    Validator(schema).check(pa.record_batch([array], schema=schema.to_arrow()))
    Validator(schema).check(pa.record_batch([array.slice(3)], schema=schema.to_arrow()))


# -- through a write -----------------------------------------------------------------------------------


def in_batches(data: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict(wide(range(100, 103)) | {"v": wide(range(3))["v"].tolist()})
    yield pa.RecordBatch.from_pydict(data)


def with_vector(vector: list[float | None]) -> dict[str, Any]:
    return {"id": [1, 2], "name": ["a", "b"], "v": [[1.0, 1.0, 1.0, 1.0], vector]}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": (with_vector([1.0, float("nan"), 1.0, 1.0]), "column 'v', row 4: NaN or infinity"),
    "infinity": (with_vector([1.0, float("inf"), 1.0, 1.0]), "column 'v', row 4: NaN or infinity"),
    "overflow": (with_vector([1e300, 1.0, 1.0, 1.0]), "column 'v', row 4: NaN or infinity"),
    "dimension": (with_vector([1.0, 1.0]), "column 'v', row 4: the vector has 2 dimensions, not 4"),
    "null inside": (with_vector([1.0, None, 1.0, 1.0]), "column 'v', row 4: a null inside"),
    "zero": (with_vector([0.0] * 4), "column 'v', row 4: a zero vector"),
    "null key": ({"id": [1, None], "name": ["a", "b"]}, "column 'id', row 4: null, but the column is part of the"),
}


@pytest.fixture
def table(root: Location) -> Location:
    there = root.join("t.lance")
    write.create_table(there, WIDE, wide(range(10)))
    return there


WRITES: dict[str, Callable[[Location, Any], object]] = {
    "append": lambda t, data: write.append(t, None, data),
    "overwrite": lambda t, data: write.overwrite(t, None, data),
    "merge": lambda t, data: merge.merge(t, None, data),
    "create": lambda t, data: write.create_table(t.join("new.lance"), WIDE, data),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("verb", WRITES)
def test_a_refused_write_names_the_row_and_leaves_nothing(table: Location, verb: str, kind: str) -> None:
    before = open_head(table).version, data_files(table)
    data, why = BAD[kind]
    with pytest.raises(InvalidInput, match=why):
        WRITES[verb](table, in_batches(data))
    assert (open_head(table).version, data_files(table)) == before
    assert not data_files(table.join("new.lance"))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"v": [1.0, float("nan"), 1.0, 1.0]}, "NaN or infinity"),
        ({"v": [1.0]}, "column 'v'"),
        ({"v": np.zeros(4)}, "zero vector"),
        ({"name": 3}, "no value for column 'name'"),
        ({"id": 3}, "part of the entity key"),
        ({}, "at least one column"),
    ],
)
def test_a_refused_update_leaves_nothing(table: Location, values: dict[str, Any], why: str) -> None:
    before = open_head(table).version, data_files(table)
    with pytest.raises(InvalidInput, match=why):
        rows.update(table, None, values, "id < 3")
    assert (open_head(table).version, data_files(table)) == before


def test_the_error_of_an_input_is_the_callers_own(table: Location) -> None:
    class Mine(Exception):
        pass

    def failing() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        raise Mine

    before = open_head(table).version, data_files(table)
    for verb in WRITES.values():
        with pytest.raises(Mine):
            verb(table, failing())
    assert (open_head(table).version, data_files(table)) == before


ROWS: list[list[float | None] | None] = [
    [1.0, 2.0],
    [0.0, 0.0],
    None,
    [float("nan"), 0.0],
    [None, 1.0],
    [3.0, -3.0],
    [float("inf"), float("-inf")],
    [0.0, -0.0],
]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_all_bad_rows_are_told_to_those_who_keep_the_others(metric: str) -> None:
    embedding = Embedding(2, metric="cosine") if metric == "cosine" else Embedding(2)
    schema = Schema([Column("id", int), Column("v", embedding)], key="id")
    ids = pa.array([0, 1, 2, 3, None, 5, 6, 7])
    batch = pa.record_batch([ids, pa.array(ROWS, pa.list_(pa.float32(), 2))], names=["id", "v"])
    found = {(p.column, p.why.split(";")[0].split(",")[0]): p.rows.tolist() for p in Validator(schema).problems(batch)}
    zero = {("v", "a zero vector has no direction"): [1, 7]} if metric == "cosine" else {}
    assert found == {
        ("id", "null"): [4],
        ("v", "a null inside the vector"): [4],
        ("v", "NaN or infinity in the vector"): [3, 6],
        **zero,
    }


def test_a_row_of_several_vectors_is_told_once() -> None:
    several: Any = [[[1.0, 1.0]], [[float("nan"), 1.0], [1.0, float("inf")]], [], [[1.0, 1.0], [2.0, float("nan")]]]
    kind = pa.list_(pa.list_(pa.float32(), 2))
    schema = Schema([Column("v", kind, embedding=Embedding(2))])
    [problem] = Validator(schema).problems(pa.record_batch([pa.array(several, kind)], names=["v"]))
    assert problem.rows.tolist() == [1, 3]
