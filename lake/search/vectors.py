"""Query vectors: from whatever a person has, checked, in the type of the column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lake.errors import InvalidInput
from lake.schema import Column
from lake.schema.arrow import numpy_dtype

_ONE, _MANY, _MANY_SETS = 1, 2, 3
Matrix = npt.NDArray[Any]


def is_multi(column: Column) -> bool:
    """Whether each row holds a list of vectors."""
    return bool(pa.types.is_list(column.type))


def to_queries(vector: Any, column: Column, metric: str) -> tuple[list[pa.Array], int | None]:
    """Convert query vectors into what Lance takes.

    Parameters
    ----------
    vector : array-like
        See `lake.search.query.Query`.

    Returns
    -------
    calls : list of pa.Array
        One array for each call of Lance: one vector, a list array of many vectors, or, for multi-vector
        columns, a list array with the vectors of one query.
    many : int or None
        The number of queries; ``None`` if one was given, by itself.

    Raises
    ------
    InvalidInput
        Wrong dimension, shape or type; NaN or infinity; a zero vector under cosine.
    """
    if is_multi(column):
        sets, many = _sets(vector, column)
        return [_lists(_checked(one, column, metric)) for one in sets], many
    matrix = _array(vector, column)
    if matrix.ndim not in {_ONE, _MANY}:
        raise InvalidInput(f"vector= has the shape {matrix.shape}; give one vector (d,) or many (queries, d)")
    if matrix.ndim == _MANY and not len(matrix):
        raise InvalidInput("vector= holds no query; give at least one")
    checked = _checked(np.atleast_2d(matrix), column, metric)
    if matrix.ndim == _ONE:
        return [pa.array(checked[0])], None
    return [_lists(checked)], len(checked)


def _sets(vector: Any, column: Column) -> tuple[list[Matrix], int | None]:
    """Split the queries of a multi-vector column: sets of vectors."""
    given = [_array(one, column) for one in vector] if isinstance(vector, list | tuple) else None
    if given and all(one.ndim == _MANY for one in given):  # sets may differ in size
        return given, len(given)
    matrix = _array(vector, column)
    if matrix.ndim == _MANY_SETS and len(matrix):
        return list(matrix), len(matrix)
    if matrix.ndim not in {_ONE, _MANY} or not matrix.size:
        raise InvalidInput(
            f"vector= has the shape {matrix.shape}; column {column.name!r} takes a set of vectors "
            "(vectors, d) for one query, or (queries, vectors, d)"
        )
    return [np.atleast_2d(matrix)], None


def _array(vector: Any, column: Column) -> Matrix:
    if isinstance(vector, pa.Array | pa.ChunkedArray | pa.Scalar):
        vector = vector.as_py() if isinstance(vector, pa.Scalar) else vector.to_pylist()
    try:
        return np.asarray(vector)
    except (ValueError, TypeError) as error:  # ragged lists
        raise InvalidInput(f"vector= for column {column.name!r} is no array of numbers: {error}") from error


def _checked(matrix: Matrix, column: Column, metric: str) -> Matrix:
    assert column.embedding is not None  # noqa: S101  # vector columns have one
    dimension, name = column.embedding.dimension, column.name
    if matrix.dtype.kind not in "iufb":
        raise InvalidInput(f"vector= for column {name!r} holds {matrix.dtype}; give numbers")
    if matrix.shape[-1] != dimension:
        raise InvalidInput(
            f"vector= has {matrix.shape[-1]} elements, column {name!r} has {dimension}"
            + ("; give its bytes, as np.packbits makes them" if metric == "hamming" else "")
        )
    element = _element(column)
    if pa.types.is_integer(element):
        return _whole(matrix, numpy_dtype(element), name)
    bound = np.finfo(np.float16 if pa.types.is_float16(element) else np.float32).max
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        floats = matrix.astype(np.float32)
    if not (np.abs(floats) <= bound).all():
        raise InvalidInput(f"vector= holds NaN, infinity, or more than {bound} (column {name!r} is {element})")
    if metric == "cosine" and not floats.any(axis=1).all():
        raise InvalidInput("vector= is a zero vector: it has no direction, so no cosine distance; use metric='l2'")
    return floats


def _whole(matrix: Matrix, kind: np.dtype[Any], name: str) -> Matrix:
    limits = np.iinfo(kind)
    if matrix.dtype.kind not in "iu":
        raise InvalidInput(f"vector= holds {matrix.dtype}, column {name!r} whole numbers; convert it to {kind}")
    if (matrix < limits.min).any() or (matrix > limits.max).any():
        raise InvalidInput(f"vector= is beyond {limits.min} to {limits.max}, what column {name!r} ({kind}) holds")
    return matrix.astype(kind)


def _element(column: Column) -> pa.DataType:
    kind = column.type
    while not pa.types.is_primitive(kind):
        kind = kind.value_type
    return kind


def _lists(matrix: Matrix) -> pa.ListArray:
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * np.int32(matrix.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix).reshape(-1)))
